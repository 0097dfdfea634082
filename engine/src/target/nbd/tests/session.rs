//! The transmission phase: every command, flag and error.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::super::MAX_TRANSFER_BYTES;
use super::super::fuzz::Harness;
use super::super::handshake::Violation;
use super::super::wire::{Errno, command, command_flag};
use super::messages::{Answer, answers};
use super::{pattern, request};
use crate::request::{Host, Op};
use crate::target::fake::{Fake, volume};
use crate::units::{BLOCK_BYTES, SEGMENT_BYTES, VolumeId, WINDOW_BYTES};

pub(super) const SIZE: u64 = 40 << 20;
pub(super) const WINDOW: u32 = 256 << 10;
const ID: VolumeId = VolumeId::new(1);

pub(super) fn harness(structured: bool) -> Harness {
    let mut host = Fake::new(vec![volume(1, "v", SIZE, 512)], 7);
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(0, usize::try_from(SIZE).unwrap()));
    host.data(ID).copy_from_slice(&BYTES);
    Harness::new(host, structured)
}

fn read_only(structured: bool) -> Harness {
    let mut view = volume(1, "v", SIZE, 4096);
    view.read_only = true;
    Harness::new(Fake::new(vec![view], 7), structured)
}

/// Sends one request and returns its answer.
pub(super) fn one(harness: &mut Harness, request: &[u8], data: &[u8]) -> Answer {
    harness.feed(&[request, data].concat(), usize::MAX).unwrap();
    let length = u32::from_be_bytes(*request[24..].first_chunk().unwrap()) as usize;
    let is_read = request[6..8] == command::READ.to_be_bytes();
    let lengths = BTreeMap::from([(5, if is_read { length } else { 0 })]);
    let mut answers = answers(&harness.settle(), &lengths);
    assert_eq!(answers.len(), 1);
    assert!(harness.session.is_quiet());
    assert_eq!(harness.host.held_bytes(), 0);
    answers.remove(&5).expect("the cookie comes back")
}

pub(super) fn read(harness: &mut Harness, flags: u16, offset: u64, length: u32) -> Answer {
    one(harness, &request(command::READ, flags, 5, offset, length), &[])
}

#[test]
fn reads_return_the_volumes_bytes() {
    for structured in [false, true] {
        let mut harness = harness(structured);
        for (offset, length) in [
            (0, 512),
            (512, 4096),
            (SIZE - 512, 512),
            (WINDOW_BYTES - 512, 1024),
            (3 * 512, 5 * WINDOW),
            (SIZE - u64::from(MAX_TRANSFER_BYTES), MAX_TRANSFER_BYTES),
        ] {
            let answer = read(&mut harness, command_flag::FUA, offset, length);
            assert!(answer.is_ok());
            assert!(answer.bytes() == pattern(offset, length as usize), "{offset}+{length}");
        }
        assert!(read(&mut harness, 0, 512, 0).is_ok());
        assert!(harness.host.peak_bytes <= super::super::BUFFER_BYTES);
    }
}

#[test]
fn a_df_read_is_one_chunk() {
    let mut harness = harness(true);
    for length in [512, 65536, 3 * WINDOW, MAX_TRANSFER_BYTES] {
        let answer = read(&mut harness, command_flag::DF, 1024, length);
        assert!(answer.is_ok());
        assert_eq!(answer.contents, 1);
        assert!(answer.bytes() == pattern(1024, length as usize));
    }
}

#[test]
fn writes_arrive_whole() {
    for structured in [false, true] {
        for step in [1000, usize::MAX] {
            let mut harness = harness(structured);
            for (offset, length) in
                [(0, 512), (1536, 8192), (WINDOW_BYTES - 512, 1024), (512, MAX_TRANSFER_BYTES)]
            {
                let data: Vec<u8> = pattern(offset + 77, length as usize);
                let request = request(command::WRITE, 0, 5, offset, length);
                harness.feed(&[request, data.clone()].concat(), step).unwrap();
                let answers = answers(&harness.settle(), &BTreeMap::new());
                assert!(answers[&5].is_ok());
                let at = usize::try_from(offset).unwrap();
                assert!(harness.host.data(ID)[at..][..data.len()] == data[..]);
            }
            assert!(harness.host.log.iter().all(|&(.., fua)| !fua));
            assert!(harness.host.peak_bytes <= super::super::BUFFER_BYTES);
        }
    }
}

#[test]
fn commands_become_operations() {
    use command_flag::{FUA, NO_HOLE};
    for (command, flags, length, op, fua) in [
        (command::WRITE, FUA, 512, Op::Write, true),
        (command::TRIM, 0, 4096, Op::Discard, false),
        (command::TRIM, FUA, 4096, Op::Discard, true),
        (command::WRITE_ZEROES, 0, 4096, Op::WriteZeroes, false),
        (command::WRITE_ZEROES, FUA, 4096, Op::WriteZeroes, true),
        (command::WRITE_ZEROES, NO_HOLE, 4096, Op::Write, false),
        (command::WRITE_ZEROES, NO_HOLE | FUA, 4096, Op::Write, true),
        (command::READ, FUA, 512, Op::Read, false),
    ] {
        let mut harness = harness(true);
        let data = if command == command::WRITE { length as usize } else { 0 };
        let answer = one(&mut harness, &request(command, flags, 5, 512, length), &vec![9; data]);
        assert!(answer.is_ok());
        assert_eq!(harness.host.log, [(op, 512, length, fua)]);
    }
    for flags in [0, FUA] {
        let mut harness = harness(true);
        assert!(one(&mut harness, &request(command::FLUSH, flags, 5, 0, 0), &[]).is_ok());
        assert_eq!(harness.host.log, [(Op::Flush, 0, 0, false)]);
    }
}

#[test]
fn zeroes_and_trims_reach_beyond_one_transfer() {
    for (command, flags) in [
        (command::TRIM, 0),
        (command::WRITE_ZEROES, 0),
        (command::WRITE_ZEROES, command_flag::NO_HOLE),
    ] {
        let mut harness = harness(false);
        let length = u32::try_from(SIZE - 1024).unwrap();
        assert!(one(&mut harness, &request(command, flags, 5, 512, length), &[]).is_ok());
        let data = harness.host.data(ID);
        let end = usize::try_from(SIZE).unwrap();
        assert!(data[512..end - 512].iter().all(|&b| b == 0));
        assert!(data[..512].iter().chain(&data[end - 512..]).all(|&b| b != 0));
        for (command, flags) in [(command::TRIM, 0), (command::WRITE_ZEROES, 0)] {
            assert!(one(&mut harness, &request(command, flags, 5, 512, 0), &[]).is_ok());
        }
    }
}

#[test]
fn block_status_tells_of_holes() {
    let mut harness = harness(true);
    let block = u32::try_from(BLOCK_BYTES).unwrap();
    harness.host.allocate(ID, 1..3);
    harness.host.allocate(ID, 4..5);
    let hole = 3;
    let mut status = |flags, offset, length| {
        let answer =
            one(&mut harness, &request(command::BLOCK_STATUS, flags, 5, offset, length), &[]);
        assert!(answer.is_ok());
        answer.extents
    };
    let all = [(block, hole), (2 * block, 0), (block, hole), (block, 0), (3 * block, hole)];
    assert_eq!(status(0, 0, 8 * block), all);
    assert_eq!(status(command_flag::REQ_ONE, 0, 8 * block), all[..1]);
    assert_eq!(status(0, 512, block), [(block - 512, hole), (512, 0)]);
    assert_eq!(status(0, 3 * 4096 + 1024, 512), [(512, hole)]);
    // At most to the end of the segment.
    let segment = u32::try_from(SEGMENT_BYTES).unwrap();
    assert_eq!(
        status(0, 4096, u32::try_from(SIZE).unwrap() - block).last(),
        Some(&(segment - 5 * block, hole))
    );
    assert_eq!(status(0, SEGMENT_BYTES, 2 * segment - (8 << 20)), [(segment, hole)]);
    // As many as there is room for, of a segment where every block differs from its neighbour.
    let mut harness = self::harness(true);
    for at in (0..4096).step_by(2) {
        harness.host.allocate(ID, at..at + 1);
    }
    let extents = one(&mut harness, &request(command::BLOCK_STATUS, 0, 5, 0, segment), &[]).extents;
    assert_eq!(extents.len(), 512);
    assert!(extents.iter().all(|&(length, _)| length == block));
}

#[test]
fn bad_requests_are_refused_and_the_stream_stays_in_step() {
    use command_flag::{DF, FUA, NO_HOLE, REQ_ONE};
    let (inval, nospace) = (Errno::Inval, Errno::NoSpace);
    let big = MAX_TRANSFER_BYTES + 512;
    for (command, flags, offset, length, want) in [
        (command::READ, NO_HOLE, 0, 512, inval),
        (command::READ, REQ_ONE, 0, 512, inval),
        (command::READ, 1 << 15, 0, 512, inval),
        (command::READ, 0, 1, 512, inval),
        (command::READ, 0, 0, 511, inval),
        (command::READ, 0, 0, big, inval),
        (command::READ, 0, SIZE, 512, inval),
        (command::READ, 0, SIZE - 512, 1024, inval),
        (command::READ, 0, u64::MAX - 511, 512, inval),
        (command::WRITE, DF, 0, 512, inval),
        (command::WRITE, NO_HOLE, 0, 512, inval),
        (command::WRITE, 0, 1, 512, inval),
        (command::WRITE, 0, 0, 513, inval),
        (command::WRITE, 0, 0, big, inval),
        (command::WRITE, 0, SIZE, 512, nospace),
        (command::WRITE, FUA, SIZE - 512, 40960, nospace),
        (command::WRITE, 0, u64::MAX - 511, 512, nospace),
        (command::FLUSH, DF, 0, 0, inval),
        (command::FLUSH, 0, 512, 0, inval),
        (command::FLUSH, 0, 0, 512, inval),
        (command::TRIM, NO_HOLE, 0, 512, inval),
        (command::TRIM, 0, 0, 100, inval),
        (command::TRIM, 0, SIZE, 512, inval),
        (command::WRITE_ZEROES, 1 << 4, 0, 512, inval),
        (command::WRITE_ZEROES, DF, 0, 512, inval),
        (command::WRITE_ZEROES, 0, 7, 512, inval),
        (command::WRITE_ZEROES, NO_HOLE, SIZE, 512, nospace),
        (command::BLOCK_STATUS, 1 << 4, 0, 512, inval),
        (command::BLOCK_STATUS, 0, SIZE, 512, inval),
        (command::BLOCK_STATUS, 0, 0, 0, inval),
        (5, 0, 0, 512, inval),
        (99, 0, 0, 0, inval),
    ] {
        for structured in [true, false] {
            let mut harness = harness(structured);
            let data = if command == command::WRITE { length as usize } else { 0 };
            // The data looks like requests, to be told if it were taken for some.
            let data = request(command::TRIM, 0, 6, 0, 4096).into_iter().cycle().take(data);
            let answer = one(
                &mut harness,
                &request(command, flags, 5, offset, length),
                &data.collect::<Vec<u8>>(),
            );
            assert_eq!(answer.error(), want.get(), "{command} {flags} {offset}+{length}");
            assert_eq!(harness.host.log, []);
            assert!(read(&mut harness, 0, 0, 512).is_ok(), "in step");
        }
    }
    assert_eq!(read(&mut harness(false), DF, 0, 512).error(), inval.get());
    let status = request(command::BLOCK_STATUS, 0, 5, 0, 512);
    assert_eq!(one(&mut harness(false), &status, &[]).error(), inval.get());
}

#[test]
fn read_only_volumes_refuse_what_writes() {
    for structured in [false, true] {
        for (command, flags) in [
            (command::WRITE, 0),
            (command::TRIM, 0),
            (command::WRITE_ZEROES, 0),
            (command::WRITE_ZEROES, command_flag::NO_HOLE),
        ] {
            let mut harness = read_only(structured);
            let data = if command == command::WRITE { 4096 } else { 0 };
            let answer = one(&mut harness, &request(command, flags, 5, 0, 4096), &vec![1; data]);
            assert_eq!(answer.error(), Errno::Perm.get());
            assert!(read(&mut harness, 0, 0, 4096).is_ok());
            assert!(one(&mut harness, &request(command::FLUSH, 0, 5, 0, 0), &[]).is_ok());
        }
    }
}

#[test]
fn many_requests_are_under_way_at_once() {
    for structured in [true, false] {
        let mut harness = harness(structured);
        let requests: Vec<u8> =
            (0..100).flat_map(|n| request(command::READ, 0, n, n * 4096, 4096)).collect();
        harness.feed(&requests, usize::MAX).unwrap();
        assert_eq!(harness.host.in_flight(), 100);
        let lengths = (0..100).map(|n| (n, 4096)).collect();
        let answers = answers(&harness.settle(), &lengths);
        assert_eq!(answers.len(), 100);
        for (n, answer) in answers {
            assert!(answer.is_ok() && answer.bytes() == pattern(n * 4096, 4096));
        }
    }
}

#[test]
fn a_short_read_passes_a_long_one() {
    let mut harness = harness(true);
    harness.feed(&request(command::READ, 0, 1, 0, MAX_TRANSFER_BYTES), 28).unwrap();
    harness.feed(&request(command::READ, 0, 2, 0, 4096), 28).unwrap();
    let sent = harness.settle();
    let position = |cookie: u64| {
        let done = [&1u16.to_be_bytes()[..], &1u16.to_be_bytes(), &cookie.to_be_bytes()].concat();
        sent.windows(done.len()).position(|w| w == done).expect("a last chunk")
    };
    assert!(position(2) < position(1) / 2);
}

/// Else connections could wait for each other's buffers: those of replies that
/// a stream holds back.
#[test]
fn a_stream_shares_its_time_with_no_other_data() {
    let mut harness = harness(false);
    harness.feed(&request(command::READ, 0, 1, 0, 4096), 28).unwrap();
    harness.feed(&request(command::READ, 0, 2, 0, 3 * WINDOW), 28).unwrap();
    harness.feed(&request(command::READ, 0, 3, 0, 4096), 28).unwrap();
    let lengths = |harness: &Harness| harness.host.log.iter().map(|l| l.2).collect::<Vec<_>>();
    assert_eq!(lengths(&harness), [4096]);
    let completion = harness.host.step().unwrap();
    harness.session.complete(completion, &mut harness.host);
    harness.session.pump(&mut harness.host).unwrap();
    assert_eq!(lengths(&harness), [4096], "its buffer is still in use");
    assert!(harness.send(usize::MAX));
    harness.session.pump(&mut harness.host).unwrap();
    assert_eq!(lengths(&harness), [4096, WINDOW, WINDOW, WINDOW]);
    let lengths = BTreeMap::from([(1, 4096), (2, 3 * WINDOW as usize), (3, 4096)]);
    assert!(answers(&harness.settle(), &lengths).values().all(Answer::is_ok));
}

#[test]
fn a_full_host_only_delays() {
    for structured in [true, false] {
        let mut harness = harness(structured);
        harness.host.depth = 1;
        harness.host.arena_bytes = 256 << 10;
        let mut stream = request(command::WRITE, 0, 1, 512, 2 * WINDOW);
        stream.extend(pattern(3, 2 * WINDOW as usize));
        stream.extend(request(command::READ, 0, 2, 8 << 20, 3 * WINDOW));
        stream.extend(request(command::READ, 0, 3, 4096, 4096));
        stream.extend(request(command::FLUSH, 0, 4, 0, 0));
        harness.feed(&stream, usize::MAX).unwrap();
        let lengths = BTreeMap::from([(2, 3 * WINDOW as usize), (3, 4096)]);
        let answers = answers(&harness.settle(), &lengths);
        assert_eq!(answers.len(), 4);
        assert!(answers.values().all(Answer::is_ok));
        assert!(answers[&2].bytes() == pattern(8 << 20, 3 * WINDOW as usize));
        let data = &harness.host.data(ID)[512..][..2 * WINDOW as usize];
        assert!(data == pattern(3, data.len()));
    }
}

#[test]
fn no_buffer_starves_and_says_so() {
    let mut harness = harness(true);
    harness.host.arena_bytes = 0;
    harness.feed(&request(command::READ, 0, 1, 0, 512), 28).unwrap();
    assert!(harness.session.is_starved());
    harness.host.arena_bytes = 1 << 20;
    harness.session.pump(&mut harness.host).unwrap();
    assert!(!harness.session.is_starved());
    assert!(answers(&harness.settle(), &BTreeMap::new())[&1].is_ok());
}

#[test]
fn partial_sends_go_on() {
    for structured in [true, false] {
        let mut harness = harness(structured);
        for n in 0..3 {
            harness.feed(&request(command::READ, 0, n, 512, WINDOW), 28).unwrap();
        }
        while let Some(completion) = harness.host.step() {
            harness.session.complete(completion, &mut harness.host);
            while harness.send(999) {}
            harness.session.pump(&mut harness.host).unwrap();
        }
        let lengths = (0..3).map(|n| (n, WINDOW as usize)).collect();
        let answers = answers(&harness.sent, &lengths);
        assert!(answers.values().all(|a| a.is_ok() && a.bytes() == pattern(512, WINDOW as usize)));
        assert_eq!((answers.len(), harness.host.held_bytes()), (3, 0));
    }
}

#[test]
fn the_end_comes_after_the_answers() {
    let mut harness = harness(true);
    let mut stream = request(command::READ, 0, 1, 0, MAX_TRANSFER_BYTES);
    stream.extend(request(command::DISC, 0, 2, 0, 0));
    stream.extend(request(command::READ, 0, 3, 0, 512));
    harness.feed(&stream, usize::MAX).unwrap();
    assert!(!harness.session.is_finished() && !harness.session.wants_input());
    let answers = answers(&harness.settle(), &BTreeMap::new());
    assert!(answers[&1].is_ok() && answers.len() == 1);
    assert!(harness.session.is_finished());
}

#[test]
fn a_lost_client_lingers_until_the_engine_is_done() {
    for structured in [true, false] {
        let mut harness = harness(structured);
        let mut stream = request(command::READ, 0, 1, 0, 3 * WINDOW);
        stream.extend(request(command::TRIM, 0, 2, 0, 30 << 20));
        stream.extend(request(command::WRITE, 0, 3, 0, WINDOW));
        stream.extend([1; 100]);
        harness.feed(&stream, usize::MAX).unwrap();
        let in_flight = harness.host.in_flight();
        assert!(in_flight > 0);
        harness.session.abort(&mut harness.host);
        assert!(!harness.session.is_finished());
        assert!(harness.settle().is_empty(), "nothing is said to nobody");
        assert!(harness.session.is_finished());
        assert_eq!(harness.host.held_bytes(), 0);
        assert_eq!(harness.host.log.len(), in_flight, "nothing more is asked for");
    }
}

#[test]
fn a_write_cut_short_fails() {
    let mut harness = harness(true);
    harness.feed(&[request(command::WRITE, 0, 3, 0, 8192), vec![1; 8191]].concat(), 99).unwrap();
    harness.session.end_of_input(&mut harness.host);
    let answers = answers(&harness.settle(), &BTreeMap::new());
    assert_eq!(answers[&3].error(), Errno::Inval.get());
    assert!(harness.session.is_finished());
    assert_eq!((harness.host.held_bytes(), harness.host.log.len()), (0, 0));
}

#[test]
fn a_bad_magic_ends_the_session() {
    let mut harness = harness(true);
    harness.feed(&request(command::READ, 0, 1, 0, 512), 28).unwrap();
    assert_eq!(harness.feed(&[0x11; 28], 28), Err(Violation::RequestMagic(0x1111_1111)));
    harness.settle();
    assert!(harness.session.is_finished());
    assert_eq!(harness.host.held_bytes(), 0);
}

#[test]
fn a_stopping_server_refuses_what_is_new() {
    let mut harness = harness(true);
    harness.feed(&request(command::READ, 0, 1, 0, 512), 28).unwrap();
    harness.session.stop();
    harness.feed(&[request(command::WRITE, 0, 2, 0, 512), vec![0; 512]].concat(), 99).unwrap();
    harness.feed(&request(command::FLUSH, 0, 3, 0, 0), 28).unwrap();
    let answers = answers(&harness.settle(), &BTreeMap::new());
    assert!(answers[&1].is_ok());
    assert_eq!(answers[&2].error(), Errno::Shutdown.get());
    assert_eq!(answers[&3].error(), Errno::Shutdown.get());
    assert!(harness.host.volumes().len() == 1 && harness.session.is_quiet());
}
