//! What a host must not do, and what the engine may fail with.

use super::*;
use crate::request::{Failure, Op};
use crate::target::fake::Fault;
use nvme::tcp::Fatal;
use nvme::tcp::pdu::TermReq;

/// The violation that a PDU is.
fn fatal(harness: &mut Harness, bytes: &[u8]) -> Fatal {
    harness.feed(bytes, usize::MAX).unwrap_err()
}

#[test]
fn refused_commands_tell_why() {
    let mut harness = harness();
    let with = |change: fn(&mut SubmissionEntry)| {
        let mut entry = read(1, 1, 0, 8);
        change(&mut entry);
        entry
    };
    let protected = Status::WRITE_PROTECTED;
    let range = Status::LBA_OUT_OF_RANGE;
    for (entry, status) in [
        (with(|e| e.opcode = 0x7e), Status::INVALID_OPCODE),
        (with(|e| e.opcode = nvme::code::admin::IDENTIFY), Status::INVALID_OPCODE),
        (with(|e| (e.opcode, e.nsid) = (0x7f, 1.into())), Status::COMMAND_SEQUENCE),
        (with(|e| (e.opcode, e.nsid) = (0x7f, 0.into())), Status::INVALID_OPCODE),
        (with(|e| e.nsid = 7.into()), Status::INVALID_NAMESPACE),
        (with(|e| e.nsid = 0.into()), Status::INVALID_NAMESPACE),
        (with(|e| e.nsid = u32::MAX.into()), Status::INVALID_NAMESPACE),
        (with(|e| e.flags = 0), Status::INVALID_FIELD),
        (with(|e| e.flags = 0x80), Status::INVALID_FIELD),
        (with(|e| e.flags = 0x43), Status::INVALID_FIELD),
        (with(|e| e.flags = 0x41), Status::INVALID_FIELD),
        (with(|e| e.set_sgl(SglDescriptor::transport(4095))), Status::SGL_LENGTH_INVALID),
        (with(|e| e.set_sgl(SglDescriptor::transport(8192))), Status::SGL_LENGTH_INVALID),
        (with(|e| e.set_sgl(SglDescriptor::default())), Status::SGL_TYPE_INVALID),
        (read(1, 1, 8192, 1), range),
        (read(1, 1, 8191, 2), range),
        (read(1, 1, u64::MAX, 1), range),
        (read(1, 1, u64::MAX / 512, 2), range),
        (read(1, 2, 1 << 55, 65536), range),
        (read(1, 1, 0, 2049), Status::INVALID_FIELD),
        (write(1, 3, 0, 1), protected),
        (command(nvm::WRITE_ZEROES, 1, 3, 0, 1), protected),
        (command(nvm::WRITE_ZEROES, 1, 1, 8191, 2), range),
    ] {
        let data = vec![0; 512];
        assert_eq!(harness.status(&entry, &data), status.with_dnr(), "{entry:?}");
    }
    for (nsid, status) in [(4, 0x302), (5, 0x301), (6, 0x303)] {
        assert_eq!(harness.status(&read(1, nsid, 0, 1), &[]).to_bits(), status);
        assert_eq!(harness.status(&write(1, nsid, 0, 1), &[1; 512]).to_bits(), status);
        assert_eq!(harness.status(&command(nvm::FLUSH, 1, nsid, 0, 0), &[]).to_bits(), status);
    }
    let mut entry = write(1, 1, 0, 1);
    let mut sgl = entry.sgl();
    sgl.address = 8.into();
    entry.set_sgl(sgl);
    assert_eq!(harness.status(&entry, &[1; 512]), Status::SGL_OFFSET_INVALID.with_dnr());
    assert!(harness.host.log.is_empty(), "nothing reached the engine");
    assert!(harness.queue.is_quiet() && harness.host.held_bytes() == 0);
    harness.end();
}

#[test]
fn payload_that_nobody_wants_is_passed_over() {
    let mut harness = harness();
    let mut entry = write(1, 9, 0, 16);
    entry.set_sgl(SglDescriptor::in_capsule(8192));
    let mut bytes = capsule(&entry, &[3; 8192], NONE);
    bytes.extend(capsule(&read(2, 1, 0, 1), &[], NONE));
    harness.feed(&bytes, 1000).unwrap();
    let sent = harness.settle().unwrap();
    assert_eq!(sent.len(), 3, "{sent:?}");
}

#[test]
fn failures_of_the_engine_become_statuses() {
    for (op, entry, failure, bits) in [
        (Op::Read, read(1, 1, 8, 1), Failure::Media, 0x4281),
        (Op::Write, write(1, 1, 8, 1), Failure::Media, 0x4280),
        (Op::Write, write(1, 1, 8, 1), Failure::NoSpace, 0x4081),
        (Op::Write, write(1, 1, 8, 1), Failure::ReadOnly, 0x4020),
        (Op::Read, read(1, 1, 8, 1), Failure::OutOfRange, 0x4080),
        (Op::Read, read(1, 1, 0, 1024), Failure::Device, 0x0006),
        (Op::Flush, command(nvm::FLUSH, 1, 1, 0, 0), Failure::Device, 0x0006),
    ] {
        let mut harness = harness();
        harness.host.faults.push(Fault { op, range: 300_000..300_001, failure });
        harness.host.faults.push(Fault { op, range: 4096..4608, failure });
        let (data, completion) = harness.run(&entry, &[1; 512]);
        assert_eq!(completion.status().to_bits(), bits);
        assert!(data.len() < 300_000, "no data behind the failure");
        assert_eq!(harness.status(&read(1, 1, 64, 1), &[]), Status::SUCCESS);
        harness.end();
    }
}

#[test]
fn a_stopping_server_says_nothing_and_the_host_repeats_it_elsewhere() {
    let mut harness = harness();
    harness.host.faults.push(Fault { op: Op::Read, range: 0..1, failure: Failure::Stopping });
    assert!(harness.ask(&read(1, 1, 0, 1), &[]).is_empty());
    assert!(harness.queue.is_quiet());
    harness.queue.stop();
    assert!(!harness.queue.wants_input());
    harness.end();
}

#[test]
fn wrong_data_digests_fail_their_command_alone() {
    let mut harness = Harness::new(16, BOTH, false, 3);
    let retry = Status::TRANSIENT_TRANSPORT_ERROR;
    let mut bytes = capsule(&write(1, 1, 0, 1), &[1; 512], BOTH);
    *bytes.last_mut().unwrap() ^= 1;
    bytes.extend(capsule(&write(2, 1, 8, 1), &[2; 512], BOTH));
    bytes.extend(capsule(&command(nvm::WRITE, 3, 1, 0, 1024), &[], BOTH));
    harness.feed(&bytes, usize::MAX).unwrap();
    let sent = harness.settle().unwrap();
    let mut statuses = Vec::new();
    let mut r2t = None;
    for pdu in &sent {
        match pdu.header {
            Received::Completion(entry) => statuses.push((entry.cid.get(), entry.status())),
            Received::R2t(header) => r2t = Some(header),
            _ => panic!("{pdu:?}"),
        }
    }
    statuses.sort_by_key(|(cid, _)| *cid);
    assert_eq!(statuses, [(1, retry), (2, Status::SUCCESS)]);
    let (r2t, data) = (r2t.unwrap(), vec![9; 512 << 10]);
    let mut bytes = answer(&r2t, &data, 200 << 10, BOTH);
    bytes[(200 << 10) + 28] ^= 1;
    harness.feed(&bytes, 70_000).unwrap();
    let sent = harness.settle().unwrap();
    let [Sent { header: Received::Completion(entry), .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((entry.cid.get(), entry.status()), (3, retry));
    let log: Vec<_> = harness.host.log.iter().map(|(_, at, ..)| *at).collect();
    assert_eq!(log, [4096], "no data reach the engine before their digest is known");
    harness.end();
}

#[test]
fn data_that_were_not_asked_for_break_the_protocol() {
    let data = vec![0; 256 << 10];
    let ask = |harness: &mut Harness| {
        let sent = harness.ask(&command(nvm::WRITE, 5, 1, 0, 512), &data);
        let Received::R2t(r2t) = sent[0].header else { panic!("{sent:?}") };
        r2t
    };
    let h2c = |cid, ttag, offset, length| {
        let header = Data::new(kind::H2C_DATA, cid, ttag, offset, length, false);
        wire(header.as_bytes(), &data[..length as usize], NONE)
    };
    let (tag, cccid) = (Fatal::field(10), Fatal::field(8));
    type Change = fn(u16) -> (u16, u16, u32, u32);
    for (change, error) in [
        ((|ttag| (5, ttag + 1, 0, 512)) as Change, tag),
        (|_| (5, u16::MAX, 0, 512), tag),
        (|ttag| (6, ttag, 0, 512), cccid),
        (|ttag| (5, ttag, 512, 512), Fatal::OUT_OF_RANGE),
        (|ttag| (5, ttag, u32::MAX, 512), Fatal::OUT_OF_RANGE),
    ] {
        let mut harness = harness();
        let r2t = ask(&mut harness);
        let (cid, ttag, offset, length) = change(r2t.ttag.get());
        assert_eq!(fatal(&mut harness, &h2c(cid, ttag, offset, length)), error);
        harness.end();
    }
    let mut harness = harness();
    let r2t = ask(&mut harness);
    let header = Data::new(kind::H2C_DATA, 5, r2t.ttag.get(), 0, (256 << 10) + 512, true);
    assert_eq!(fatal(&mut harness, header.as_bytes()), Fatal::LIMIT_EXCEEDED);
    harness.end();
    let mut harness = harness2_with_answered(&data);
    assert_eq!(fatal(&mut harness, &h2c(5, 0, 0, 512)), tag);
    harness.end();
}

/// A harness whose write is complete.
fn harness2_with_answered(data: &[u8]) -> Harness {
    let mut harness = harness();
    assert_eq!(harness.status(&command(nvm::WRITE, 5, 1, 0, 512), data), Status::SUCCESS);
    harness
}

#[test]
fn capsules_that_are_not_what_they_say_break_the_protocol() {
    let mut harness1 = harness();
    let mut entry = write(1, 1, 0, 2);
    assert_eq!(fatal(&mut harness1, &capsule(&entry, &[0; 512], NONE)), Fatal::field(4));
    let mut harness2 = harness();
    assert_eq!(fatal(&mut harness2, &capsule(&entry, &[], NONE)), Fatal::field(4));
    let mut harness3 = harness();
    entry.set_sgl(SglDescriptor::transport(1024));
    assert_eq!(fatal(&mut harness3, &capsule(&entry, &[0; 1024], NONE)), Fatal::field(4));
    let mut harness4 = harness();
    let entry = write(1, 1, 0, 17);
    assert_eq!(fatal(&mut harness4, &capsule(&entry, &[0; 8704], NONE)), Fatal::LIMIT_EXCEEDED);
    for harness in [harness1, harness2, harness3, harness4] {
        harness.end();
    }
}

#[test]
fn more_commands_than_the_queue_has_entries_break_the_protocol() {
    let mut harness = Harness::new(4, NONE, false, 1);
    harness.host.depth = 0;
    for cid in 0..4 {
        harness.feed(&capsule(&read(cid, 1, 0, 1), &[], NONE), usize::MAX).unwrap();
    }
    assert_eq!(fatal(&mut harness, &capsule(&read(4, 1, 0, 1), &[], NONE)), Fatal::SEQUENCE);
    harness.end();
}

#[test]
fn an_identifier_in_use_is_refused_and_any_other_is_as_good() {
    let mut harness = harness();
    harness.host.depth = 0;
    for cid in [0xffff, 0, 0x8000, 0xffff] {
        harness.feed(&capsule(&read(cid, 1, 0, 1), &[], NONE), usize::MAX).unwrap();
    }
    let sent = harness.settle().unwrap();
    let [Sent { header: Received::Completion(entry), .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((entry.cid.get(), entry.status()), (0xffff, Status::CID_CONFLICT.with_dnr()));
    harness.feed(&capsule(&read(0xffff, 1, 0, 1), &[], NONE), usize::MAX).unwrap();
    let sent = harness.settle().unwrap();
    assert_eq!(sent.len(), 1, "a refused command does not free the identifier");
    harness.host.depth = 9;
    assert_eq!(harness.settle().unwrap().len(), 6);
    assert_eq!(harness.status(&read(0xffff, 1, 0, 1), &[]), Status::SUCCESS);
    harness.end();
}

#[test]
fn a_host_that_terminates_is_heard() {
    let mut harness = harness();
    let req = TermReq::new(kind::H2C_TERM_REQ, 1, 4, 24);
    harness.feed(&wire(req.as_bytes(), &[0; 24], NONE), usize::MAX).unwrap();
    assert_eq!(harness.queue.terminated(), Some(Fatal::field(4)));
    harness.end();
}

#[test]
fn buffers_that_r2ts_have_taken_do_not_hold_up_what_stands_before_their_data() {
    let mut harness = Harness::new(64, NONE, false, 1);
    harness.queue.set_budget(super::super::LEAST_BUFFER_BYTES);
    let data = pattern(2, 1 << 20);
    let mut r2ts = Vec::new();
    for cid in 0..20 {
        let entry = command(nvm::WRITE, cid, 1, u64::from(cid) * 256, 256);
        for pdu in harness.ask(&entry, &data) {
            let Received::R2t(r2t) = pdu.header else { panic!("{pdu:?}") };
            r2ts.push(r2t);
        }
    }
    assert!(!r2ts.is_empty() && r2ts.len() < 20, "buffers are used up");
    // In-capsule data stand before the data that would free those buffers.
    let mut bytes = Vec::new();
    for cid in 100..130 {
        bytes.extend(capsule(&write(cid, 1, 0, 16), &data[..8192], NONE));
    }
    let mut done = 0;
    let mut asked = 0;
    while asked < 20 || !bytes.is_empty() {
        for r2t in r2ts.drain(..) {
            bytes.extend(answer(&r2t, &data, 50_000, NONE));
            asked += 1;
        }
        harness.feed(&std::mem::take(&mut bytes), 9000).unwrap();
        for pdu in harness.settle().unwrap() {
            match pdu.header {
                Received::R2t(r2t) => r2ts.push(r2t),
                Received::Completion(entry) => {
                    assert_eq!(entry.status(), Status::SUCCESS);
                    done += 1;
                }
                _ => panic!("{pdu:?}"),
            }
        }
    }
    assert_eq!(done, 50);
    assert!(harness.host.peak_bytes <= super::super::LEAST_BUFFER_BYTES);
    harness.end();
}
