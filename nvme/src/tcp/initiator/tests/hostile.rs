//! Every field that a target can get wrong: the violation is named, the request to
//! terminate says the same, and no command ends well because of it.

use zerocopy::IntoBytes;

use super::*;
use crate::tcp::check::{Digests, Fatal};
use crate::tcp::digest::crc32c;
use crate::tcp::pdu::{CapsuleResp, Data as DataPdu, IcResp, R2t, TermReq, flags, kind};
use crate::{CompletionEntry, Status};

/// A queue with a read (tag 0) and a write (tag 1) of 16 KiB that wait, and their CIDs.
fn waiting(digests: Digests) -> (QueuePair, Buffers, u16, u16) {
    let manners = Manners { digests, in_capsule: 0, ..Manners::default() };
    let (mut queue, _) = connected(4, manners);
    let memory = Buffers::new(2, 16 << 10, usize::MAX);
    let mut cids = Vec::new();
    for (tag, command) in [(0, read(0, 16 << 10)), (1, write(0, 16 << 10))] {
        assert!(queue.submit(Instant::now(), &command, Tag(tag), &memory));
        let sent = send(&mut queue, &memory, usize::MAX);
        cids.push(u16::from_le_bytes([sent[10], sent[11]]));
    }
    (queue, memory, cids[0], cids[1])
}

/// The queue's judgement of some bytes, and what it then says.
fn judge(queue: &mut QueuePair, memory: &mut Buffers, bytes: &[u8]) -> (Option<Fatal>, Vec<u8>) {
    let fatal = match queue.take(bytes, memory) {
        Ok(_) => None,
        Err(Error::Violation(fatal)) => Some(fatal),
        Err(error) => panic!("{error}"),
    };
    (fatal, send(queue, memory, usize::MAX))
}

fn c2h(cid: u16, offset: u32, len: u32, last: bool) -> DataPdu {
    DataPdu::new(kind::C2H_DATA, cid, 0, offset, len, last)
}

fn with_data(head: &DataPdu) -> Vec<u8> {
    let mut bytes = head.as_bytes().to_vec();
    bytes.resize(24 + head.datal.get() as usize, 9);
    bytes
}

fn response(cid: u16, status: Status) -> Vec<u8> {
    CapsuleResp::new(CompletionEntry::new(cid, 0, status), false).as_bytes().to_vec()
}

#[test]
fn each_violation_is_named_and_told() {
    type Case = (&'static str, fn(u16, u16) -> Vec<u8>, Fatal);
    let cases: [Case; 19] = [
        ("unknown type", |_, _| vec![8, 0, 24, 0, 24, 0, 0, 0], Fatal::field(0)),
        ("a host's type", |_, _| vec![4, 0, 72, 0, 72, 0, 0, 0], Fatal::field(0)),
        ("ICResp again", |_, _| IcResp::new(0, 4096).as_bytes().to_vec(), Fatal::SEQUENCE),
        ("HLEN", |_, _| vec![5, 0, 25, 0, 24, 0, 0, 0], Fatal::field(2)),
        ("PLEN", |_, _| vec![5, 0, 24, 0, 25, 0, 0, 0], Fatal::field(4)),
        (
            "PDO",
            |r, _| {
                let mut head = c2h(r, 0, 512, true);
                head.common.pdo = 23;
                head.as_bytes().to_vec()
            },
            Fatal::field(3),
        ),
        ("a digest not agreed on", |_, _| vec![5, 1, 24, 0, 28, 0, 0, 0], Fatal::field(1)),
        (
            "DATAL",
            |r, _| {
                let mut head = c2h(r, 0, 512, true);
                head.datal = 511.into();
                head.as_bytes().to_vec()
            },
            Fatal::field(16),
        ),
        ("data of nobody", |r, _| with_data(&c2h(r ^ 0x400, 0, 512, true)), Fatal::field(8)),
        ("data of a write", |_, w| with_data(&c2h(w, 0, 512, true)), Fatal::field(8)),
        ("data ahead", |r, _| with_data(&c2h(r, 4, 512, true)), Fatal::OUT_OF_RANGE),
        ("data too long", |r, _| with_data(&c2h(r, 0, 16 * 1024 + 4, true)), Fatal::OUT_OF_RANGE),
        (
            "data past the end",
            |r, _| {
                [with_data(&c2h(r, 0, 8192, false)), with_data(&c2h(r, 8192, 8196, true))].concat()
            },
            Fatal::OUT_OF_RANGE,
        ),
        (
            "data behind the last",
            |r, _| [with_data(&c2h(r, 0, 512, true)), with_data(&c2h(r, 512, 512, true))].concat(),
            Fatal::SEQUENCE,
        ),
        (
            "SUCCESS before the last",
            |r, _| {
                let mut head = c2h(r, 0, 512, false);
                head.common.flags |= flags::SUCCESS;
                with_data(&head)
            },
            Fatal::field(1),
        ),
        (
            "SUCCESS too early",
            |r, _| {
                let mut head = c2h(r, 0, 512, true);
                head.common.flags |= flags::SUCCESS;
                with_data(&head)
            },
            Fatal::SEQUENCE,
        ),
        ("an end of nobody", |r, _| response(r ^ 0x3ff, Status::SUCCESS), Fatal::field(20)),
        ("a read ends without data", |r, _| response(r, Status::SUCCESS), Fatal::SEQUENCE),
        ("a write ends without data", |_, w| response(w, Status::SUCCESS), Fatal::SEQUENCE),
    ];
    for (name, bytes, fatal) in cases {
        let (mut queue, mut memory, reads, writes) = waiting(Digests::default());
        let bytes = bytes(reads, writes);
        let (found, told) = judge(&mut queue, &mut memory, &bytes);
        assert_eq!(found, Some(fatal), "{name}");
        assert_eq!(told[0], kind::H2C_TERM_REQ, "{name}");
        assert_eq!(told[8..10], fatal.fes.to_le_bytes(), "{name}");
        assert_eq!(told[10..14], fatal.fei.to_le_bytes(), "{name}");
        assert!(!told[24..].is_empty() && told.len() <= 152, "{name}: the header is enclosed");
        assert_eq!(queue.pop(), None, "{name}");
        assert!(!queue.has_room(), "{name}");
        assert_eq!(queue.tags_under_way().count(), 2, "{name}: both are known to be under way");
    }
}

#[test]
fn requests_for_data_are_checked() {
    type Case = (&'static str, fn(u16, u16) -> Vec<R2t>, Option<Fatal>);
    let cases: [Case; 9] = [
        ("all", |_, w| vec![R2t::new(w, 7, 0, 16384, false)], None),
        ("of nobody", |_, w| vec![R2t::new(w ^ 0x800, 7, 0, 512, false)], Some(Fatal::field(8))),
        ("of a read", |r, _| vec![R2t::new(r, 7, 0, 512, false)], Some(Fatal::field(8))),
        ("nothing", |_, w| vec![R2t::new(w, 7, 0, 0, false)], Some(Fatal::field(16))),
        ("ahead", |_, w| vec![R2t::new(w, 7, 512, 512, false)], Some(Fatal::OUT_OF_RANGE)),
        ("too much", |_, w| vec![R2t::new(w, 7, 0, 16385, false)], Some(Fatal::OUT_OF_RANGE)),
        (
            "beyond 32 bits",
            |_, w| vec![R2t::new(w, 7, 0, u32::MAX, false)],
            Some(Fatal::OUT_OF_RANGE),
        ),
        (
            "two at once",
            |_, w| vec![R2t::new(w, 7, 0, 512, false), R2t::new(w, 8, 512, 512, false)],
            Some(Fatal::LIMIT_EXCEEDED),
        ),
        (
            "again",
            |_, w| vec![R2t::new(w, 7, 0, 16384, false), R2t::new(w, 8, 0, 512, false)],
            Some(Fatal::LIMIT_EXCEEDED),
        ),
    ];
    for (name, r2ts, fatal) in cases {
        let (mut queue, mut memory, reads, writes) = waiting(Digests::default());
        let r2ts = r2ts(reads, writes);
        let bytes: Vec<u8> = r2ts.iter().flat_map(|r2t| r2t.as_bytes().to_vec()).collect();
        let (found, told) = judge(&mut queue, &mut memory, &bytes);
        assert_eq!(found, fatal, "{name}");
        match fatal {
            Some(_) => assert_eq!(told[0], kind::H2C_TERM_REQ, "{name}"),
            // Four chunks of MAXH2CDATA, each with its header.
            None => assert_eq!(told.len(), 4 * (24 + 4096), "{name}"),
        }
    }
}

#[test]
fn an_early_failure_waits_until_no_byte_of_the_write_is_to_be_sent() {
    let (mut queue, mut memory, _, writes) = waiting(Digests::default());
    let failed = response(writes, Status::WRITE_FAULT);
    let r2t = R2t::new(writes, 7, 0, 16384, false);
    queue.take(r2t.as_bytes(), &mut memory).unwrap();
    let first = send(&mut queue, &memory, 100);
    assert_eq!(first.len(), 100);
    queue.take(&failed, &mut memory).unwrap();
    assert_eq!(queue.pop(), None, "its bytes may not change yet");
    let (fatal, _) = judge(&mut queue, &mut memory, &[]);
    assert_eq!(fatal, None);
    while queue.wants_to_send() {
        send(&mut queue, &memory, usize::MAX);
    }
    let done = queue.pop().expect("now they may");
    assert_eq!((done.tag, done.status), (Tag(1), Status::WRITE_FAULT));
    // A second end of the same command is one too many.
    let (fatal, _) = judge(&mut queue, &mut memory, &failed);
    assert_eq!(fatal, Some(Fatal::field(20)));
}

#[test]
fn icresp_must_agree() {
    type Case = (&'static str, fn(&mut IcResp), Fatal);
    let cases: [Case; 6] = [
        ("digests refused", |r| r.dgst = 0, Fatal::unsupported(11)),
        ("version", |r| r.pfv = 1.into(), Fatal::unsupported(8)),
        ("alignment", |r| r.cpda = 32, Fatal::field(10)),
        ("MAXH2CDATA too small", |r| r.maxh2cdata = 4092.into(), Fatal::field(12)),
        ("MAXH2CDATA odd", |r| r.maxh2cdata = 4097.into(), Fatal::field(12)),
        ("another PDU", |r| r.common.kind = kind::CAPSULE_RESP, Fatal::SEQUENCE),
    ];
    for (name, spoil, fatal) in cases {
        let digests = Digests { header: true, data: true };
        let mut queue = QueuePair::new(1, digests, 8192);
        let mut memory = Buffers::new(1, 0, 1);
        assert_eq!(send(&mut queue, &memory, usize::MAX).len(), 128);
        let mut resp = IcResp::new(digests.bits(), 65536);
        spoil(&mut resp);
        let (found, told) = judge(&mut queue, &mut memory, resp.as_bytes());
        assert_eq!(found, Some(fatal), "{name}");
        assert_eq!(told[8..10], fatal.fes.to_le_bytes(), "{name}");
        assert!(!queue.is_ready(), "{name}");
    }
}

#[test]
fn a_wrong_header_digest_ends_the_connection_and_a_wrong_data_digest_the_command() {
    let digests = Digests { header: true, data: true };
    let (mut queue, mut memory, reads, _) = waiting(digests);
    let head = c2h(reads, 0, 16 << 10, true).with_digests(true, true);
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend(crc32c(head.as_bytes()).to_le_bytes());
    bytes.extend(vec![5; 16 << 10]);
    bytes.extend([0; 4]);
    let resp = CapsuleResp::new(CompletionEntry::new(reads, 0, Status::SUCCESS), true);
    bytes.extend(resp.as_bytes());
    bytes.extend(crc32c(resp.as_bytes()).to_le_bytes());
    assert_eq!(queue.take(&bytes, &mut memory).unwrap(), bytes.len());
    let done = queue.pop().unwrap();
    assert_eq!((done.tag, done.status), (Tag(0), Status::TRANSIENT_TRANSPORT_ERROR));
    assert!(queue.has_room(), "the connection goes on");

    let (mut queue, mut memory, reads, _) = waiting(digests);
    let mut bytes = CapsuleResp::new(CompletionEntry::new(reads, 0, Status::INTERNAL), true)
        .as_bytes()
        .to_vec();
    bytes.extend([0; 4]);
    let (fatal, _) = judge(&mut queue, &mut memory, &bytes);
    assert_eq!(fatal, Some(Fatal::HEADER_DIGEST));
}

#[test]
fn a_target_that_terminates_is_quoted() {
    let (mut queue, mut memory, _, _) = waiting(Digests::default());
    let term = TermReq::new(kind::C2H_TERM_REQ, 4, 0, 0);
    match queue.take(term.as_bytes(), &mut memory) {
        Err(Error::Terminated(fatal)) => assert_eq!(fatal, Fatal::OUT_OF_RANGE),
        other => panic!("{other:?}"),
    }
    assert!(send(&mut queue, &memory, usize::MAX).is_empty(), "that is not answered");
}
