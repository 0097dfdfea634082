//! What each command does.

use super::*;
use crate::request::Op;
use crate::units::VolumeId;
use nvme::entry::DsmRange;
use nvme::tcp::pdu::flags;

#[test]
fn what_is_written_is_read_back_in_any_size() {
    for (nsid, block) in [(1, 512), (2, 4096)] {
        let mut harness = harness();
        for (lba, blocks) in [(0, 1), (3, 2), (8, 8), (255, 16), (500, 512 * 512 / block), (7, 1)] {
            let data = pattern(7, blocks * block);
            let blocks = u32::try_from(blocks).unwrap();
            let entry = command(nvm::WRITE, 1, nsid, lba, blocks);
            assert_eq!(harness.status(&entry, &data), Status::SUCCESS);
            let (got, completion) = harness.run(&read(2, nsid, lba, blocks), &[]);
            assert_eq!((got == data, completion.status()), (true, Status::SUCCESS));
            if data.len() <= 8192 {
                let entry = write(3, nsid, lba, blocks);
                let data = pattern(9, data.len());
                assert_eq!(harness.status(&entry, &data), Status::SUCCESS);
                assert!(harness.run(&read(4, nsid, lba, blocks), &[]).0 == data);
            }
        }
        harness.end();
    }
}

#[test]
fn one_transfer_falls_into_requests_that_cross_no_boundary_and_one_r2t_at_a_time_is_out() {
    let mut harness = Harness::new(16, NONE, false, 1);
    harness.queue.set_budget(super::super::LEAST_BUFFER_BYTES);
    let data = pattern(1, 1 << 20);
    let entry = command(nvm::WRITE, 1, 1, 8, 2048);
    let sent = harness.ask(&entry, &data);
    let [Sent { header: Received::R2t(r2t), .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((r2t.r2to.get(), r2t.r2tl.get()), (0, (128 << 10) - 4096));
    harness.feed(&answer(r2t, &data, 5000, NONE), 3000).unwrap();
    let sent = harness.settle().unwrap();
    let [Sent { header: Received::R2t(r2t), .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(r2t.r2to.get(), (128 << 10) - 4096);
    harness.end();
}

#[test]
fn responses_free_entries_of_the_submission_queue() {
    let mut harness = Harness::new(3, NONE, false, 1);
    for head in [2, 0, 1, 2] {
        let (_, completion) = harness.run(&read(9, 1, 0, 1), &[]);
        assert_eq!(completion.sq_head.get(), head);
    }
    let mut harness = Harness::new(3, NONE, true, 1);
    let (_, completion) = harness.run(&write(9, 1, 0, 1), &[0; 512]);
    assert_eq!(completion.sq_head.get(), 0xffff);
}

#[test]
fn a_read_ends_with_its_data_only_where_the_host_has_disabled_flow_control() {
    for off in [false, true] {
        let mut harness = Harness::new(4, NONE, off, 1);
        let sent = harness.ask(&read(9, 1, 0, 1024), &[]);
        let data: Vec<_> = sent.iter().filter(|pdu| !pdu.data.is_empty()).collect();
        assert_eq!(data.len(), 4, "of 128 KiB each");
        for (i, pdu) in data.iter().enumerate() {
            let last = i == 3;
            let success = if last && off { flags::SUCCESS } else { 0 };
            assert_eq!(pdu.flags, success | if last { flags::LAST } else { 0 });
        }
        assert_eq!(sent.len(), if off { 4 } else { 5 });
        assert!(harness.queue.is_quiet());
    }
}

#[test]
fn fua_and_flush_reach_the_engine() {
    let mut harness = harness();
    let mut entry = write(1, 1, 0, 1);
    entry.cdw10[2] = (1 << 30).into();
    assert_eq!(harness.status(&entry, &[1; 512]), Status::SUCCESS);
    let flush = command(nvm::FLUSH, 2, 2, 0, 0);
    assert_eq!(harness.status(&flush, &[]), Status::SUCCESS);
    assert_eq!(harness.host.log, [(Op::Write, 0, 512, true), (Op::Flush, 0, 0, false)]);
    harness.host.log.clear();
    let all = command(nvm::FLUSH, 3, u32::MAX, 0, 0);
    assert_eq!(harness.status(&all, &[]), Status::SUCCESS);
    assert_eq!(harness.host.log.len(), 6, "one for each namespace");
}

#[test]
fn zeroes_are_written_and_freed() {
    let mut harness = harness();
    let id = VolumeId::new(1);
    harness.host.data(id).fill(1);
    harness.host.allocate(id, 0..1024);
    for (deac, op) in [(0, Op::WriteZeroes), (1 << 25, Op::Discard)] {
        let mut entry = command(nvm::WRITE_ZEROES, 1, 1, 1, 0);
        entry.cdw10[2] = (deac | 1535).into();
        harness.host.log.clear();
        assert_eq!(harness.status(&entry, &[]), Status::SUCCESS);
        let log: Vec<_> = harness.host.log.iter().map(|(op, at, n, _)| (*op, *at, *n)).collect();
        let window = 256 << 10;
        assert_eq!(
            log[..3],
            [(op, 512, window - 512), (op, 256 << 10, window), (op, 512 << 10, window)]
        );
        assert!(harness.host.data(id)[512..512 + 1536 * 512].iter().all(|byte| *byte == 0));
        assert!(harness.host.data(id)[512 + 1536 * 512..].iter().all(|byte| *byte == 1));
    }
}

fn dsm(cid: u16, ranges: &[(u64, u32)], length: usize) -> (SubmissionEntry, Vec<u8>) {
    let mut entry = command(nvm::DATASET_MANAGEMENT, cid, 1, 0, 0);
    entry.cdw10[0] = (u32::try_from(ranges.len()).unwrap() - 1).into();
    entry.cdw10[1] = 0b100.into();
    let mut data = Vec::new();
    for (lba, blocks) in ranges {
        let (blocks, start_lba) = ((*blocks).into(), (*lba).into());
        data.extend(DsmRange { attributes: 0.into(), blocks, start_lba }.as_bytes());
    }
    data.resize(length, 0xff);
    entry.set_sgl(SglDescriptor::in_capsule(u32::try_from(length).unwrap()));
    (entry, data)
}

#[test]
fn ranges_are_deallocated_whatever_follows_them() {
    let mut harness = harness();
    let id = VolumeId::new(1);
    harness.host.data(id).fill(1);
    // Linux always sends 4096 bytes.
    for (length, transport) in [(4096, false), (4096, true), (48, false)] {
        let (mut entry, data) = dsm(1, &[(8, 8), (0, 0), (2048, 4096)], length);
        if transport {
            entry.set_sgl(SglDescriptor::transport(4096));
        }
        harness.host.log.clear();
        assert_eq!(harness.status(&entry, &data), Status::SUCCESS);
        let freed: u32 = harness.host.log.iter().map(|(_, _, length, _)| *length).sum();
        assert_eq!(freed, 4104 * 512);
        assert!(harness.host.log.iter().all(|(op, ..)| *op == Op::Discard));
    }
    harness.host.log.clear();
    for (ranges, length, status) in [
        (&[(0, 8), (8191, 2)][..], 4096, Status::LBA_OUT_OF_RANGE),
        (&[(u64::MAX, 1)], 4096, Status::LBA_OUT_OF_RANGE),
        (&[(u64::MAX / 512, 1 << 21)], 4096, Status::LBA_OUT_OF_RANGE),
        (&[(0, (1 << 21) + 1)], 4096, Status::COMMAND_SIZE_LIMIT_EXCEEDED),
        (&[(u64::MAX, u32::MAX)], 4096, Status::COMMAND_SIZE_LIMIT_EXCEEDED),
        (&[(0, 1), (1, 1)], 16, Status::SGL_LENGTH_INVALID),
        (&[(0, 1)], 4112, Status::INVALID_FIELD),
    ] {
        let (entry, data) = dsm(1, ranges, length);
        assert_eq!(harness.status(&entry, &data), status.with_dnr());
    }
    let (mut entry, data) = dsm(1, &[(0, 8)], 4096);
    entry.cdw10[1] = 0b011.into();
    assert_eq!(harness.status(&entry, &data), Status::SUCCESS);
    assert!(harness.host.log.is_empty(), "hints and refusals free nothing");
    harness.end();
}

#[test]
fn compare_tells_equal_from_different() {
    let mut harness = harness();
    let data = pattern(3, 300 << 10);
    harness.host.data(VolumeId::new(1))[512..][..data.len()].copy_from_slice(&data);
    let blocks = 600;
    let entry = command(nvm::COMPARE, 1, 1, 1, blocks);
    assert_eq!(harness.status(&entry, &data), Status::SUCCESS);
    for at in [0, 70_000, data.len() - 1] {
        let mut other = data.clone();
        other[at] ^= 1;
        assert_eq!(harness.status(&entry, &other), Status::COMPARE_FAILURE.with_dnr());
    }
    let mut entry = command(nvm::COMPARE, 1, 1, 1, 4);
    entry.set_sgl(SglDescriptor::in_capsule(2048));
    assert_eq!(harness.status(&entry, &data[..2048]), Status::SUCCESS);
    harness.end();
}

/// A fused pair on one block.
fn fused(cid: u16, lba: u64) -> (SubmissionEntry, SubmissionEntry) {
    let (mut first, mut second) = (write(cid, 1, lba, 1), write(cid + 1, 1, lba, 1));
    first.opcode = nvm::COMPARE;
    first.flags |= 1;
    second.flags |= 2;
    (first, second)
}

/// The statuses of two commands sent together.
fn both(
    harness: &mut Harness,
    (first, second): (SubmissionEntry, SubmissionEntry),
    old: &[u8],
    new: &[u8],
) -> [Status; 2] {
    let mut bytes = capsule(&first, old, NONE);
    bytes.extend(capsule(&second, new, NONE));
    harness.feed(&bytes, usize::MAX).unwrap();
    statuses(harness, [first.cid.get(), second.cid.get()])
}

fn statuses(harness: &mut Harness, cids: [u16; 2]) -> [Status; 2] {
    let sent = harness.settle().unwrap();
    cids.map(|cid| {
        let mut found = sent.iter().filter_map(|pdu| match pdu.header {
            Received::Completion(entry) if entry.cid.get() == cid => Some(entry.status()),
            _ => None,
        });
        let status = found.next().expect("a completion");
        assert!(found.next().is_none(), "one completion");
        status
    })
}

#[test]
fn a_fused_pair_writes_only_what_compared_equal() {
    let mut harness = harness();
    let (old, new, ok) = ([0; 512], [7; 512], Status::SUCCESS);
    assert_eq!(both(&mut harness, fused(1, 3), &old, &new), [ok, ok]);
    assert_eq!(harness.host.log, [(Op::CompareAndWrite, 1536, 512, false)]);
    let failed = [Status::COMPARE_FAILURE.with_dnr(), Status::ABORTED_FAILED_FUSED];
    assert_eq!(both(&mut harness, fused(3, 3), &old, &[9; 512]), failed);
    assert!(harness.run(&read(1, 1, 3, 1), &[]).0 == new);
    // Data that come through R2Ts, the second's first.
    let (mut first, mut second) = fused(5, 3);
    first.set_sgl(SglDescriptor::transport(512));
    second.set_sgl(SglDescriptor::transport(512));
    let mut bytes = capsule(&first, &[], NONE);
    bytes.extend(capsule(&second, &[], NONE));
    harness.feed(&bytes, 10).unwrap();
    let sent = harness.settle().unwrap();
    let [Received::R2t(a), Received::R2t(b)] = [sent[0].header, sent[1].header] else {
        panic!("{sent:?}")
    };
    harness.feed(&answer(&b, &[8; 512], 100, NONE), 10).unwrap();
    harness.feed(&answer(&a, &new, 100, NONE), 10).unwrap();
    assert_eq!(statuses(&mut harness, [5, 6]), [ok, ok]);
    assert!(harness.run(&read(1, 1, 3, 1), &[]).0 == [8; 512]);
    harness.end();
}

#[test]
fn a_half_of_a_fused_pair_fails_with_the_other() {
    let (old, new) = ([0; 512], [7; 512]);
    let missing = Status::ABORTED_MISSING_FUSED;
    let with_other = Status::ABORTED_FAILED_FUSED;
    let invalid = Status::INVALID_FIELD.with_dnr();
    let mut harness = harness();
    let (first, second) = fused(1, 3);
    let other = write(9, 1, 9, 1);
    assert_eq!(both(&mut harness, (first, other), &old, &new), [missing, Status::SUCCESS]);
    assert_eq!(both(&mut harness, (other, second), &old, &new)[1], missing);
    let mut far = second;
    far.cdw10[0] = 4.into();
    assert_eq!(both(&mut harness, (first, far), &old, &new), [invalid, invalid]);
    let mut long = (first, second);
    for entry in [&mut long.0, &mut long.1] {
        entry.cdw10[2] = 1.into();
        entry.set_sgl(SglDescriptor::in_capsule(1024));
    }
    let too_long = Status::ATOMIC_WRITE_UNIT_EXCEEDED.with_dnr();
    let [a, b] = both(&mut harness, long, &[0; 1024], &[7; 1024]);
    assert_eq!((a, b), (too_long, too_long));
    let mut wrong = second;
    wrong.nsid = 3.into();
    let got = both(&mut harness, (first, wrong), &old, &new);
    assert_eq!(got, [with_other, Status::WRITE_PROTECTED.with_dnr()]);
    let mut wrong = first;
    wrong.nsid = 9.into();
    let got = both(&mut harness, (wrong, second), &old, &new);
    assert_eq!(got, [Status::INVALID_NAMESPACE.with_dnr(), with_other]);
    let mut wrong = first;
    wrong.opcode = nvm::WRITE;
    assert_eq!(both(&mut harness, (wrong, second), &old, &new), [invalid, with_other]);
    let lone = (Op::Write, 4608, 512, false);
    assert_eq!(harness.host.log, [lone, lone], "nothing but the lone writes");
    harness.end();
}
