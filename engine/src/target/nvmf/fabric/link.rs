//! The PDUs of a connection as long as it is with the fabric thread: before Connect, and of
//! an admin queue for life. Sans-IO: bytes in, commands out; replies in, bytes out.
//!
//! Data from a host come in the capsule alone, at most [`ADMIN_IN_CAPSULE_BYTES`] (TCP
//! 3.3.2.1): no admin command that is offered takes more, so no R2T is ever sent and H2CData
//! is a violation. Bounds: the input holds one PDU, and nothing is parsed while more than
//! [`OUTPUT_LIMIT`] bytes wait to be sent.

use nvme::code::Status;
use nvme::sgl::SglKind;
use nvme::tcp::check::{Shape, header, offset, shape};
use nvme::tcp::digest::DIGEST_BYTES;
use nvme::tcp::pdu::{self, CapsuleResp, CommonHeader, Data, IcResp, TermReq, kind};
use nvme::tcp::{ADMIN_IN_CAPSULE_BYTES, Digests, Fatal, Received, Receiver, Stage, crc32c};
use nvme::{CompletionEntry, SubmissionEntry};
use zerocopy::{FromBytes, IntoBytes};

use crate::target::nvmf::MAX_H2C_DATA_BYTES;
use crate::target::nvmf::controller::Reply;

/// Bytes waiting to be sent that stop the parsing of more commands.
pub const OUTPUT_LIMIT: usize = 64 << 10;
/// SQHD where the host has disabled flow control.
const NO_HEAD: u16 = 0xffff;

/// A command with the data of its capsule.
#[derive(Clone, Debug)]
pub struct Command {
    /// The command.
    pub entry: SubmissionEntry,
    /// Its data.
    pub data: Vec<u8>,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The host broke the protocol; it has been told.
    #[error("the host broke the protocol: {0}")]
    Violation(#[from] Fatal),
    /// The host says that we did.
    #[error("the host terminated the connection: {0}")]
    Terminated(Fatal),
}

/// The state of a connection's PDU layer.
#[derive(Debug)]
pub struct Link {
    stage: Stage,
    digests: Digests,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// Entries of the submission queue, once it is known.
    entries: u16,
    head: u16,
    flow_control_off: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

/// A PDU's header, and its data or what is wrong with them.
type Pdu = (Received, Result<Vec<u8>, Status>);

impl Link {
    /// Of a connection that was just accepted.
    pub fn new() -> Self {
        Self {
            stage: Stage::Initial,
            digests: Digests::default(),
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            entries: u16::MAX,
            head: 0,
            flow_control_off: false,
        }
    }

    /// Digests in use.
    pub fn digests(&self) -> Digests {
        self.digests
    }

    /// What the queue is like, as Connect has said.
    pub fn set_queue(&mut self, entries: u16, flow_control_off: bool) {
        assert!(entries >= 2, "Connect was checked");
        self.entries = entries;
        self.head %= entries;
        self.flow_control_off = flow_control_off;
    }

    /// Bytes have been received.
    pub fn received(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// There is no need for more input now.
    pub fn is_full(&self) -> bool {
        self.output.len() - self.sent > OUTPUT_LIMIT
    }

    /// What was received and not yet understood: for who takes the connection over.
    pub fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Bytes that were received and not yet understood.
    #[cfg(any(test, fuzzing))]
    pub fn input_len(&self) -> usize {
        self.input.len()
    }

    /// Bytes to be sent.
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// So many of them were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        assert!(self.sent <= self.output.len(), "no more than there was");
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// The next command, if there is a whole one. ICReq, and commands whose data do not fit
    /// them, are answered here.
    ///
    /// # Errors
    /// If the connection is over. After a violation the output has a termination request.
    pub fn command(&mut self) -> Result<Option<Command>, Broken> {
        while !self.is_full() {
            match self.pdu() {
                Ok(None) => return Ok(None),
                Ok(Some((Received::IcReq(request), _))) => {
                    if request.hpda != 0 {
                        let fatal = Fatal::unsupported(offset::PDA);
                        self.terminate(fatal, request.as_bytes());
                        return Err(fatal.into());
                    }
                    self.digests = Digests::from_bits(request.dgst);
                    self.stage = Stage::Running;
                    let response = IcResp::new(self.digests.bits(), MAX_H2C_DATA_BYTES);
                    self.output.extend_from_slice(response.as_bytes());
                }
                Ok(Some((Received::Command(entry), data))) => {
                    self.head = (self.head + 1) % self.entries;
                    match data.and_then(|data| fitting(&entry, data)) {
                        Ok(data) => return Ok(Some(Command { entry, data })),
                        Err(status) => self.reply(&failed(entry.cid.get(), status)),
                    }
                }
                Ok(Some((Received::TermReq(request), _))) => {
                    let fatal = Fatal { fes: request.fes.get(), fei: request.fei.get() };
                    return Err(Broken::Terminated(fatal));
                }
                // No data were asked for.
                Ok(Some((Received::Data(data), _))) => {
                    let fatal = Fatal::field(offset::TTAG);
                    self.terminate(fatal, data.as_bytes());
                    return Err(fatal.into());
                }
                Ok(Some((other, _))) => unreachable!("not for a controller: {other:?}"),
                Err(fatal) => {
                    let n = self.input.len().min(pdu::MAX_HEADER_BYTES);
                    let begin = self.input[..n].to_vec();
                    self.terminate(fatal, &begin);
                    return Err(fatal.into());
                }
            }
        }
        Ok(None)
    }

    /// The next whole PDU with its data, taken from the input; a wrong data digest is a
    /// status of the command (TCP 3.4.1.2).
    fn pdu(&mut self) -> Result<Option<Pdu>, Fatal> {
        let Ok((common, _)) = CommonHeader::read_from_prefix(&self.input) else { return Ok(None) };
        let shape = shape(&common, Receiver::Controller, self.stage, self.digests)?;
        if shape.data_bytes > ADMIN_IN_CAPSULE_BYTES {
            let wrong = if shape.kind == kind::H2C_DATA { offset::TTAG } else { offset::PLEN };
            return Err(Fatal::field(wrong));
        }
        if self.input.len() < shape.header_bytes {
            return Ok(None);
        }
        let received = header(&self.input, &shape)?;
        let end = end_of(&shape);
        if self.input.len() < end {
            return Ok(None);
        }
        let data = data_of(&self.input, &shape);
        self.input.drain(..end);
        Ok(Some((received, data)))
    }

    /// Queues an answer, its data before it.
    pub fn reply(&mut self, reply: &Reply) {
        if !reply.data.is_empty() {
            let length = u32::try_from(reply.data.len()).expect("at most MDTS");
            let head = Data::new(kind::C2H_DATA, reply.cid, 0, 0, length, true);
            let head = head.with_digests(self.digests.header, self.digests.data);
            self.put(head.as_bytes());
            self.output.extend_from_slice(&reply.data);
            if self.digests.data {
                self.output.extend_from_slice(&crc32c(&reply.data).to_le_bytes());
            }
        }
        let head = if self.flow_control_off { NO_HEAD } else { self.head };
        let mut entry = CompletionEntry::new(reply.cid, head, reply.status);
        entry.result = reply.result.into();
        self.put(CapsuleResp::new(entry, self.digests.header).as_bytes());
    }

    /// Queues a header, with its digest where there are digests.
    fn put(&mut self, header: &[u8]) {
        self.output.extend_from_slice(header);
        if self.digests.header {
            self.output.extend_from_slice(&crc32c(header).to_le_bytes());
        }
    }

    /// Queues a termination request about the PDU that begins with `begin`.
    fn terminate(&mut self, fatal: Fatal, begin: &[u8]) {
        let begin = &begin[..begin.len().min(pdu::MAX_HEADER_BYTES)];
        let request = TermReq::new(kind::C2H_TERM_REQ, fatal.fes, fatal.fei, begin.len());
        self.output.extend_from_slice(request.as_bytes());
        self.output.extend_from_slice(begin);
    }
}

fn failed(cid: u16, status: Status) -> Reply {
    // What the wire has spoiled may come well the next time.
    let transient = status == Status::TRANSIENT_TRANSPORT_ERROR;
    let status = if transient { status } else { status.with_dnr() };
    Reply { cid, status, result: 0, data: Vec::new() }
}

fn end_of(shape: &Shape) -> usize {
    let digest = if shape.data_digest { DIGEST_BYTES } else { 0 };
    shape.data_start + usize::try_from(shape.data_bytes).expect("64-bit platform") + digest
}

fn data_of(pdu: &[u8], shape: &Shape) -> Result<Vec<u8>, Status> {
    let length = usize::try_from(shape.data_bytes).expect("64-bit platform");
    let (data, behind) = pdu[shape.data_start..].split_at(length);
    if shape.data_digest && crc32c(data).to_le_bytes() != behind[..DIGEST_BYTES] {
        return Err(Status::TRANSIENT_TRANSPORT_ERROR);
    }
    Ok(data.to_vec())
}

/// The data are those that the command names.
fn fitting(entry: &SubmissionEntry, data: Vec<u8>) -> Result<Vec<u8>, Status> {
    let sgl = entry.sgl();
    match sgl.kind() {
        SglKind::InCapsule if sgl.address.get() != 0 => Err(Status::SGL_OFFSET_INVALID),
        SglKind::InCapsule if sgl.length.get() as usize != data.len() => {
            Err(Status::SGL_LENGTH_INVALID)
        }
        SglKind::InCapsule => Ok(data),
        _ if data.is_empty() => Ok(data),
        _ => Err(Status::SGL_TYPE_INVALID),
    }
}

#[cfg(test)]
mod tests {
    use nvme::SglDescriptor;
    use nvme::tcp::pdu::{CapsuleCmd, IcReq, fes};

    use super::*;

    fn capsule(entry: SubmissionEntry, data: &[u8], digests: Digests) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        let pdu = CapsuleCmd::new(entry, digests.header, digests.data, length);
        let mut bytes = pdu.as_bytes().to_vec();
        if digests.header {
            bytes.extend_from_slice(&crc32c(pdu.as_bytes()).to_le_bytes());
        }
        bytes.extend_from_slice(data);
        if digests.data && !data.is_empty() {
            bytes.extend_from_slice(&crc32c(data).to_le_bytes());
        }
        bytes
    }

    fn entry(cid: u16, sgl: SglDescriptor) -> SubmissionEntry {
        let mut entry = SubmissionEntry { opcode: 6, cid: cid.into(), ..Default::default() };
        entry.set_sgl(sgl);
        entry
    }

    fn running(bits: u8) -> Link {
        let mut link = Link::new();
        link.received(IcReq::new(bits).as_bytes());
        assert!(link.command().unwrap().is_none());
        assert_eq!(link.output()[..12], [1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, bits]);
        let n = link.output().len();
        link.sent(n);
        link
    }

    /// Statuses in the output, which is response capsules without data.
    fn statuses(link: &mut Link) -> Vec<(u16, Status, u16)> {
        let size = 24 + if link.digests.header { 4 } else { 0 };
        let found = link.output().chunks(size).map(|pdu| {
            let resp = CapsuleResp::read_from_prefix(pdu).unwrap().0;
            (resp.entry.cid.get(), resp.entry.status(), resp.entry.sq_head.get())
        });
        let found = found.collect();
        let n = link.output().len();
        link.sent(n);
        found
    }

    #[test]
    fn commands_come_whole_however_they_are_cut() {
        for bits in 0..4 {
            let mut link = running(bits);
            let digests = link.digests();
            assert_eq!(digests.bits(), bits);
            let mut bytes = capsule(entry(1, SglDescriptor::transport(4096)), &[], digests);
            let data = vec![7; 8192];
            bytes.extend(capsule(entry(2, SglDescriptor::in_capsule(8192)), &data, digests));
            let mut found = Vec::new();
            for part in bytes.chunks(13) {
                link.received(part);
                found.extend(link.command().unwrap());
            }
            assert_eq!(found.len(), 2);
            assert_eq!((found[0].entry.cid.get(), found[0].data.len()), (1, 0));
            assert_eq!((found[1].entry.cid.get(), &found[1].data), (2, &data));
        }
    }

    #[test]
    fn data_that_do_not_fit_fail_the_command_alone() {
        let mut link = running(2);
        link.set_queue(4, false);
        let digests = link.digests();
        let mut offset = SglDescriptor::in_capsule(8);
        offset.address = 1.into();
        for (cid, sgl, data) in [
            (1, SglDescriptor::in_capsule(8), &[0; 4][..]),
            (2, offset, &[0; 8]),
            (3, SglDescriptor::transport(8), &[0; 8]),
            (4, SglDescriptor::in_capsule(8), &[]),
        ] {
            link.received(&capsule(entry(cid, sgl), data, digests));
        }
        let mut wrong = capsule(entry(5, SglDescriptor::in_capsule(8)), &[1; 8], digests);
        *wrong.last_mut().unwrap() ^= 1;
        link.received(&wrong);
        link.received(&capsule(entry(6, SglDescriptor::transport(8)), &[], digests));
        assert_eq!(link.command().unwrap().unwrap().entry.cid.get(), 6);
        let failed = [
            (1, Status::SGL_LENGTH_INVALID.with_dnr(), 1),
            (2, Status::SGL_OFFSET_INVALID.with_dnr(), 2),
            (3, Status::SGL_TYPE_INVALID.with_dnr(), 3),
            (4, Status::SGL_LENGTH_INVALID.with_dnr(), 0),
            (5, Status::TRANSIENT_TRANSPORT_ERROR, 1),
        ];
        assert_eq!(statuses(&mut link), failed);
        link.set_queue(4, true);
        link.reply(&Reply { cid: 6, status: Status::SUCCESS, result: 0, data: vec![] });
        assert_eq!(statuses(&mut link), [(6, Status::SUCCESS, 0xffff)]);
    }

    #[test]
    fn violations_are_answered_with_their_place() {
        let ic = IcReq::new(0);
        let mut padded = ic;
        padded.hpda = 1;
        let plain = Digests::default();
        let good = capsule(entry(1, SglDescriptor::transport(8)), &[], plain);
        let mut long = good.clone();
        long[3] = 72;
        long[4..8].copy_from_slice(&(72_u32 + 8193).to_le_bytes());
        let data = Data::new(kind::H2C_DATA, 1, 0, 0, 8, true);
        let data = [data.as_bytes(), &[0; 8]].concat();
        for (first, bytes, fes, fei) in [
            (true, good.clone(), fes::SEQUENCE, 0),
            (true, padded.as_bytes().to_vec(), fes::UNSUPPORTED_PARAMETER, offset::PDA),
            (true, vec![0x0b; 8], fes::INVALID_HEADER_FIELD, offset::KIND),
            (false, ic.as_bytes().to_vec(), fes::SEQUENCE, 0),
            (false, long, fes::INVALID_HEADER_FIELD, offset::PLEN),
            (false, data, fes::INVALID_HEADER_FIELD, offset::TTAG),
        ] {
            let mut link = if first { Link::new() } else { running(0) };
            link.received(&bytes);
            let broken = link.command().unwrap_err();
            assert_eq!(broken, Broken::Violation(Fatal { fes, fei }));
            let (request, enclosed) = TermReq::read_from_prefix(link.output()).unwrap();
            assert_eq!((request.fes.get(), request.fei.get()), (fes, fei));
            assert_eq!(enclosed, &bytes[..enclosed.len()]);
            assert_eq!(request.common.plen.get() as usize, 24 + enclosed.len());
        }
    }

    #[test]
    fn a_header_digest_that_is_wrong_is_fatal() {
        let mut link = running(1);
        let mut bytes = capsule(entry(1, SglDescriptor::transport(8)), &[], link.digests());
        bytes[20] ^= 1;
        link.received(&bytes);
        assert_eq!(link.command().unwrap_err(), Broken::Violation(Fatal::HEADER_DIGEST));
    }

    #[test]
    fn a_host_that_does_not_read_is_not_served_further() {
        let mut link = running(0);
        let one = capsule(entry(1, SglDescriptor::transport(1 << 20)), &[], link.digests());
        link.received(&one);
        link.received(&one);
        assert!(link.command().unwrap().is_some());
        link.reply(&Reply { cid: 1, status: Status::SUCCESS, result: 0, data: vec![5; 1 << 20] });
        assert!(link.command().unwrap().is_none());
        let n = link.output().len();
        assert_eq!(n, 24 + (1 << 20) + 24);
        link.sent(n);
        assert!(link.command().unwrap().is_some());
    }

    #[test]
    fn a_reply_has_its_digests() {
        let mut link = running(3);
        link.reply(&Reply { cid: 9, status: Status::SUCCESS, result: 3, data: vec![1, 2, 3, 4] });
        let out = link.output();
        assert_eq!(out[..8], [7, 7, 24, 28, 36, 0, 0, 0]);
        assert_eq!(out[24..28], crc32c(&out[..24]).to_le_bytes());
        assert_eq!(out[32..36], crc32c(&[1, 2, 3, 4]).to_le_bytes());
        assert_eq!(out[36..40], [5, 1, 24, 0]);
        assert_eq!(out[60..], crc32c(&out[36..60]).to_le_bytes());
    }
}
