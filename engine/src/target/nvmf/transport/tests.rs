//! The two halves against hand-written bytes, and against each other in any pieces.

use std::io::IoSliceMut;

use nvme::tcp::pdu::{CapsuleCmd, Data, IcReq, IcResp, TermReq, flags, kind};
use nvme::tcp::{Digests, Fatal, Received, crc32c};
use nvme::{CompletionEntry, Status, SubmissionEntry};
use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::{Body, Event, Heap, Receiver, Sender, Target};

const NONE: Digests = Digests { header: false, data: false };
const BOTH: Digests = Digests { header: true, data: true };

/// Puts up to `limit` bytes into the receiver's space; how many.
fn put(receiver: &mut Receiver<Vec<u8>>, bytes: &[u8], limit: usize) -> usize {
    let mut heap = Heap;
    let Some(space) = receiver.space(&mut heap) else { return 0 };
    let mut n = 0;
    for slice in space {
        let mut slice: IoSliceMut<'_> = slice;
        let part = slice.len().min(bytes.len() - n).min(limit - n);
        slice[..part].copy_from_slice(&bytes[n..][..part]);
        n += part;
    }
    receiver.received(n);
    n
}

/// A PDU as bytes, with digests.
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

fn capsule(cid: u16, data: &[u8], digests: Digests) -> Vec<u8> {
    let entry = SubmissionEntry { cid: cid.into(), ..SubmissionEntry::default() };
    let length = u32::try_from(data.len()).unwrap();
    let header = CapsuleCmd::new(entry, digests.header, digests.data, length);
    wire(header.as_bytes(), data, digests)
}

fn h2c(ttag: u16, data: &[u8], digests: Digests) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let header = Data::new(kind::H2C_DATA, 1, ttag, 0, length, true);
    wire(header.with_digests(digests.header, digests.data).as_bytes(), data, digests)
}

/// What a stream of PDUs says: the identifier or tag, the payload, and whether it is intact.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    number: u16,
    data: Vec<u8>,
    intact: bool,
}

/// Receives all of `bytes`, in pieces of `sizes` over and over, into targets of `target` bytes.
/// Payload of tags with the high bit set is skipped.
fn hear(
    bytes: &[u8],
    sizes: &[usize],
    target: usize,
    capacity: usize,
    digests: Digests,
) -> Result<Vec<Heard>, Fatal> {
    let mut receiver = Receiver::resume(capacity, digests, &[]);
    let (mut heard, mut left, mut at) = (Vec::new(), 0, 0);
    let mut sizes = sizes.iter().cycle();
    loop {
        let n = put(&mut receiver, &bytes[at..], *sizes.next().unwrap());
        at += n;
        while let Some(event) = receiver.next(&mut Heap)? {
            match event {
                Event::Pdu { header, data } => {
                    let number = match header {
                        Received::Command(entry) => entry.cid.get(),
                        Received::Data(data) => data.ttag.get(),
                        other => panic!("{other:?}"),
                    };
                    heard.push(Heard { number, data: Vec::new(), intact: true });
                    left = data as usize;
                    if left > 0 && number >> 15 == 1 {
                        receiver.skip();
                        continue;
                    }
                }
                Event::Filled { target, end } => {
                    let last = heard.last_mut().unwrap();
                    assert!(target.at == target.end || end.is_some());
                    last.data.extend(&target.buf[3..target.at]);
                    last.intact = end.unwrap_or(true);
                    left -= target.at - 3;
                    assert_eq!(end.is_some(), left == 0);
                }
                Event::Skipped => left = 0,
            }
            if left > 0 {
                // Longer than what is left, at times: a target may hold several PDUs' payload.
                receiver.fill(Target { buf: vec![0xee; target + 3], at: 3, end: target + 3 });
            }
        }
        if at == bytes.len() && n == 0 {
            assert!(!receiver.is_inside_pdu() && left == 0);
            assert_eq!(receiver.total(), bytes.len() as u64);
            return Ok(heard);
        }
    }
}

/// What one send would move.
fn joined(sender: &Sender<Vec<u8>>) -> Vec<u8> {
    sender.slices(&Heap).iter().flat_map(|slice| slice.to_vec()).collect()
}

#[test]
fn a_connection_begins_with_a_request_and_goes_on_where_another_receiver_stopped() {
    let mut receiver = Receiver::new(4096);
    let mut bytes = IcReq::new(3).as_bytes().to_vec();
    put(&mut receiver, &bytes[..127], usize::MAX);
    assert!(receiver.next(&mut Heap).unwrap().is_none() && receiver.is_inside_pdu());
    bytes.extend(capsule(7, &[], BOTH));
    put(&mut receiver, &bytes[127..], usize::MAX);
    let event = receiver.next(&mut Heap).unwrap();
    assert!(matches!(event, Some(Event::Pdu { header: Received::IcReq(_), data: 0 })));
    let unread = receiver.into_unread();
    assert_eq!(unread, bytes[128..]);
    let mut receiver = Receiver::resume(4096, BOTH, &unread);
    let event = receiver.next(&mut Heap).unwrap();
    let Some(Event::Pdu { header: Received::Command(entry), data: 0 }) = event else { panic!() };
    assert_eq!(entry.cid.get(), 7);
    assert!(receiver.next(&mut Heap).unwrap().is_none() && !receiver.is_inside_pdu());
}

#[test]
fn violations_leave_the_header_in_error_to_be_quoted() {
    let mut receiver = Receiver::<Vec<u8>>::resume(4096, NONE, &[]);
    let mut bytes = capsule(1, &[5; 100], NONE);
    bytes[2] = 73;
    put(&mut receiver, &bytes, usize::MAX);
    assert_eq!(receiver.next(&mut Heap).unwrap_err(), Fatal::field(2));
    assert_eq!(receiver.offender(), &bytes[..73]);
    let mut receiver = Receiver::<Vec<u8>>::resume(4096, BOTH, &[]);
    let mut bytes = capsule(1, &[], BOTH);
    bytes[20] ^= 1;
    put(&mut receiver, &bytes, usize::MAX);
    assert_eq!(receiver.next(&mut Heap).unwrap_err(), Fatal::HEADER_DIGEST);
    assert_eq!(receiver.offender(), &bytes[..72]);
    let mut receiver = Receiver::<Vec<u8>>::new(4096);
    put(&mut receiver, &[0xff; 9], usize::MAX);
    assert_eq!(receiver.next(&mut Heap).unwrap_err(), Fatal::field(0));
    assert_eq!(receiver.offender(), [0xff; 9]);
}

#[test]
fn a_wrong_data_digest_is_told_and_the_stream_goes_on() {
    let mut bytes = capsule(1, &[1; 512], BOTH);
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    bytes.extend(h2c(2, &[2; 700], BOTH));
    let heard = hear(&bytes, &[usize::MAX], 512, 4096, BOTH).unwrap();
    assert_eq!(heard.iter().map(|pdu| pdu.intact).collect::<Vec<_>>(), [false, true]);
    assert_eq!(heard[1].data, [2; 700]);
}

#[test]
fn payload_without_a_target_holds_up_the_stream_and_no_more_is_taken() {
    let mut receiver = Receiver::<Vec<u8>>::resume(4096, NONE, &[]);
    put(&mut receiver, &capsule(1, &[9; 600], NONE), 300);
    assert!(matches!(receiver.next(&mut Heap).unwrap(), Some(Event::Pdu { data: 600, .. })));
    assert!(receiver.next(&mut Heap).unwrap().is_none());
    assert!(receiver.space(&mut Heap).is_none() && !receiver.is_inside_pdu());
    receiver.fill(Target { buf: vec![0; 400], at: 0, end: 400 });
    assert!(receiver.next(&mut Heap).unwrap().is_none() && receiver.is_inside_pdu());
    let mut heap = Heap;
    let space = receiver.space(&mut heap).unwrap();
    let room = [space[0].len(), space[1].len()];
    assert_eq!(room, [400 - 228, 0], "the rest belongs into the next target");
    assert_eq!(receiver.abandon().unwrap().at, 228);
}

#[test]
fn what_waits_is_sent_in_few_slices() {
    let mut sender = Sender::new(16, NONE);
    let completion = |cid| CompletionEntry::new(cid, 0, Status::SUCCESS);
    for cid in 0..4 {
        sender.respond(completion(cid), u32::from(cid));
    }
    sender.data(9, 0, flags::LAST, Body { buf: vec![7; 100], at: 10, length: 80 }, 4, &Heap);
    sender.respond(completion(10), 5);
    sender.ask(11, 12, 13, 14, 6);
    let lengths: Vec<_> = sender.slices(&Heap).iter().map(|slice| slice.len()).collect();
    assert_eq!(lengths, [5 * 24, 80, 48]);
    sender.advance(4 * 24 + 30);
    let lengths: Vec<_> = sender.slices(&Heap).iter().map(|slice| slice.len()).collect();
    assert_eq!(lengths, [74, 48]);
    for token in 0..4 {
        assert_eq!(sender.pop_sent().unwrap().token, token);
    }
    assert!(sender.pop_sent().is_none());
    sender.advance(74 + 48);
    assert!(!sender.has_output());
    let sent = sender.pop_sent().unwrap();
    assert_eq!((sent.token, sent.buf), (4, Some(vec![7; 100])));
    assert_eq!(sender.pop_sent().unwrap().token, 5);
    assert_eq!(sender.discard().unwrap().token, 6);
    assert!(sender.discard().is_none() && sender.room() == 16);
}

#[test]
fn sent_bytes_are_those_of_the_figures() {
    let mut sender = Sender::<Vec<u8>>::new(4, BOTH);
    sender.initialize(&IcResp::new(3, 4096), 0);
    let body = Body { buf: b"123456789".to_vec(), at: 0, length: 9 };
    sender.data(0x0102, 512, flags::LAST | flags::SUCCESS, body, 1, &Heap);
    sender.terminate(Fatal::unsupported(8), &[0xaa; 128], 2);
    let sent = joined(&sender);
    assert_eq!(sent[..128], *IcResp::new(3, 4096).as_bytes());
    let data = &sent[128..];
    assert_eq!(data[..8], [7, 0x0f, 24, 28, 41, 0, 0, 0]);
    assert_eq!(data[8..24], [2, 1, 0, 0, 0, 2, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(data[24..28], crc32c(&data[..24]).to_le_bytes());
    assert_eq!(data[28..41], *b"123456789\x83\x92\x06\xe3");
    let terminate = &data[41..];
    let req = TermReq::new(kind::C2H_TERM_REQ, 6, 8, 128);
    assert_eq!(terminate[..24], *req.as_bytes());
    assert_eq!(terminate[24..], [0xaa; 128]);
}

#[test]
#[should_panic(expected = "a queue holds all")]
fn a_sender_never_grows() {
    let mut sender = Sender::<Vec<u8>>::new(1, NONE);
    for _ in 0..2 {
        sender.ask(1, 2, 3, 4, 0);
    }
}

proptest! {
    /// Whatever pieces a stream comes in, and wherever its payload goes, it says the same.
    #[test]
    fn pieces_do_not_matter(
        pdus in prop::collection::vec((any::<u16>(), any::<bool>(), 0..3000_usize), 1..12),
        sizes in prop::collection::vec(1..6000_usize, 1..6),
        target in 1..4000_usize,
        capacity in 1024..8192_usize,
        (header, data) in any::<(bool, bool)>(),
    ) {
        let digests = Digests { header, data };
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for (number, command, length) in pdus {
            let length = if command { length } else { length.max(1) };
            let data: Vec<u8> = (0..length).map(|i| (i * 7 + usize::from(number)).to_le_bytes()[0]).collect();
            bytes.extend(if command {
                capsule(number, &data, digests)
            } else {
                h2c(number, &data, digests)
            });
            let skipped = number >> 15 == 1;
            let data = if skipped { Vec::new() } else { data };
            expected.push(Heard { number, data, intact: true });
        }
        prop_assert_eq!(hear(&bytes, &sizes, target, capacity, digests).unwrap(), expected);
    }

    /// Whatever is sent in whatever portions is what a receiver of the other side reads.
    #[test]
    fn portions_do_not_matter(
        steps in prop::collection::vec((0..4_u8, 1..500_usize), 1..200),
        (header, data) in any::<(bool, bool)>(),
    ) {
        let digests = Digests { header, data };
        let mut sender = Sender::new(5, digests);
        let (mut sent, mut expected, mut tokens) = (Vec::<u8>::new(), Vec::new(), Vec::new());
        for (token, (what, size)) in (0_u32..).zip(steps) {
            let cid = u16::try_from(token).unwrap();
            if what == 0 || sender.room() == 0 {
                let all = joined(&sender);
                let n = if sender.room() == 0 { all.len() } else { all.len().min(size) };
                sent.extend(&all[..n]);
                sender.advance(n);
                while let Some(done) = sender.pop_sent() {
                    tokens.push(done.token);
                }
            }
            match what {
                1 => {
                    sender.respond(CompletionEntry::new(cid, 1, Status::SUCCESS), token);
                    let entry = CompletionEntry::new(cid, 1, Status::SUCCESS);
                    let pdu = nvme::tcp::pdu::CapsuleResp::new(entry, header);
                    expected.extend(wire(pdu.as_bytes(), &[], digests));
                }
                2 => {
                    sender.ask(cid, 1, 2, 3, token);
                    let pdu = nvme::tcp::pdu::R2t::new(cid, 1, 2, 3, header);
                    expected.extend(wire(pdu.as_bytes(), &[], digests));
                }
                _ => {
                    let payload = vec![cid.to_le_bytes()[0]; size];
                    let body = Body { buf: payload.clone(), at: 0, length: size };
                    sender.data(cid, 8, 0, body, token, &Heap);
                    let length = u32::try_from(size).unwrap();
                    let pdu = Data::new(kind::C2H_DATA, cid, 0, 8, length, false);
                    let pdu = pdu.with_digests(header, data);
                    expected.extend(wire(pdu.as_bytes(), &payload, digests));
                }
            }
        }
        while sender.has_output() {
            let all = joined(&sender);
            sent.extend(&all);
            sender.advance(all.len());
            while let Some(done) = sender.pop_sent() {
                tokens.push(done.token);
            }
        }
        prop_assert!(sent == expected);
        prop_assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert_eq!(sender.room(), 5);
    }
}
