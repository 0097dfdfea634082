//! The queue against hand-made commands.

mod bad_input;
mod commands;
mod random;

use nvme::code::nvm;
use nvme::tcp::pdu::{CapsuleCmd, Data, R2t, kind};
use nvme::tcp::{Digests, Received, crc32c};
use nvme::{CompletionEntry, SglDescriptor, Status, SubmissionEntry};
use zerocopy::IntoBytes;

use crate::target::nvmf::fuzz::{Harness, Sent};

const NONE: Digests = Digests { header: false, data: false };
const BOTH: Digests = Digests { header: true, data: true };

/// A command of `blocks` blocks at `lba`, whose data the transport moves.
fn command(opcode: u8, cid: u16, nsid: u32, lba: u64, blocks: u32) -> SubmissionEntry {
    let mut entry = SubmissionEntry {
        opcode,
        cid: cid.into(),
        nsid: nsid.into(),
        ..SubmissionEntry::default()
    };
    let lba = lba.to_le_bytes();
    let half = |at: usize| u32::from_le_bytes(lba[at..at + 4].try_into().unwrap());
    entry.cdw10[0] = half(0).into();
    entry.cdw10[1] = half(4).into();
    entry.cdw10[2] = blocks.wrapping_sub(1).into();
    let block = if nsid == 2 { 4096 } else { 512 };
    entry.set_sgl(SglDescriptor::transport(blocks.wrapping_mul(block)));
    entry
}

fn read(cid: u16, nsid: u32, lba: u64, blocks: u32) -> SubmissionEntry {
    command(nvm::READ, cid, nsid, lba, blocks)
}

/// A write whose data are in its capsule.
fn write(cid: u16, nsid: u32, lba: u64, blocks: u32) -> SubmissionEntry {
    let mut entry = command(nvm::WRITE, cid, nsid, lba, blocks);
    entry.set_sgl(SglDescriptor::in_capsule(entry.sgl().length.get()));
    entry
}

/// The PDU of a command, with its data in the capsule.
fn capsule(entry: &SubmissionEntry, data: &[u8], digests: Digests) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let header = CapsuleCmd::new(*entry, digests.header, digests.data, length);
    wire(header.as_bytes(), data, digests)
}

fn wire(header: &[u8], data: &[u8], digests: Digests) -> Vec<u8> {
    let mut bytes = header.to_vec();
    if digests.header {
        bytes.extend(crc32c(header).to_le_bytes());
    }
    bytes.extend(data);
    if digests.data && !data.is_empty() {
        bytes.extend(crc32c(data).to_le_bytes());
    }
    bytes
}

/// Data for an R2T, from the command's data.
fn answer(r2t: &R2t, data: &[u8], chunk: usize, digests: Digests) -> Vec<u8> {
    let (offset, length) = (r2t.r2to.get() as usize, r2t.r2tl.get() as usize);
    let mut bytes = Vec::new();
    let mut at = offset;
    while at < offset + length {
        let n = chunk.min(offset + length - at);
        let last = at + n == offset + length;
        let (cid, ttag) = (r2t.cccid.get(), r2t.ttag.get());
        let (from, size) = (u32::try_from(at).unwrap(), u32::try_from(n).unwrap());
        let header = Data::new(kind::H2C_DATA, cid, ttag, from, size, last);
        let header = header.with_digests(digests.header, digests.data);
        bytes.extend(wire(header.as_bytes(), &data[at..at + n], digests));
        at += n;
    }
    bytes
}

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 7).to_le_bytes()[0] ^ i.to_le_bytes()[0] ^ seed).collect()
}

impl Harness {
    /// Sends a command and its data as they are asked for; its data and completion.
    fn run(&mut self, entry: &SubmissionEntry, data: &[u8]) -> (Vec<u8>, CompletionEntry) {
        let mut sent = self.ask(entry, data);
        let mut got = Vec::new();
        loop {
            let mut more = Vec::new();
            for pdu in &sent {
                match pdu.header {
                    Received::R2t(r2t) => more.extend(answer(&r2t, data, 100_000, NONE)),
                    Received::Data(header) => {
                        assert_eq!(header.datao.get() as usize, got.len(), "in order");
                        got.extend(&pdu.data);
                    }
                    Received::Completion(entry) => return (got, entry),
                    _ => panic!("{pdu:?}"),
                }
            }
            assert!(!more.is_empty(), "something is to come");
            self.feed(&more, usize::MAX).unwrap();
            sent = self.settle().unwrap();
        }
    }

    fn ask(&mut self, entry: &SubmissionEntry, data: &[u8]) -> Vec<Sent> {
        let in_capsule = entry.sgl().kind() == nvme::sgl::SglKind::InCapsule;
        let data = if in_capsule { data } else { &[] };
        self.feed(&capsule(entry, data, NONE), usize::MAX).unwrap();
        self.settle().unwrap()
    }

    fn status(&mut self, entry: &SubmissionEntry, data: &[u8]) -> Status {
        let (_, completion) = self.run(entry, data);
        assert_eq!(completion.cid, entry.cid);
        completion.status()
    }
}

fn harness() -> Harness {
    Harness::new(16, NONE, false, 5)
}
