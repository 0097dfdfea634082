//! What the engine fails at, and how the client hears of it.

use std::collections::BTreeMap;

use super::super::fuzz::Harness;
use super::super::wire::{Errno, command, command_flag};
use super::messages::answers;
use super::session::{SIZE, WINDOW, harness, one, read};
use super::{pattern, request};
use crate::request::{Failure, Op};
use crate::target::fake::Fault;
use crate::units::WINDOW_BYTES;

#[test]
fn failures_of_the_engine_have_their_errors() {
    for (failure, read_errno, write_errno) in [
        (Failure::OutOfRange, Errno::Inval, Errno::NoSpace),
        (Failure::ReadOnly, Errno::Perm, Errno::Perm),
        (Failure::NoSpace, Errno::NoSpace, Errno::NoSpace),
        (Failure::Media, Errno::Io, Errno::Io),
        (Failure::Device, Errno::Io, Errno::Io),
        (Failure::Stopping, Errno::Shutdown, Errno::Shutdown),
    ] {
        for (command, flags, op, structured_only) in [
            (command::READ, 0, Op::Read, false),
            (command::WRITE, 0, Op::Write, false),
            (command::TRIM, 0, Op::Discard, false),
            (command::WRITE_ZEROES, 0, Op::WriteZeroes, false),
            (command::WRITE_ZEROES, command_flag::NO_HOLE, Op::Write, false),
            (command::BLOCK_STATUS, 0, Op::Status, true),
            (command::FLUSH, 0, Op::Flush, false),
        ] {
            for structured in [true, false] {
                let mut harness = harness(structured);
                harness.host.faults = vec![Fault { op, range: 0..SIZE, failure }];
                // Over 20 windows, so that some come after the failure.
                let length = if command == command::FLUSH { 0 } else { 20 * WINDOW };
                if command == command::READ || (structured_only && !structured) {
                    continue;
                }
                let data = if command == command::WRITE { length as usize } else { 0 };
                let answer =
                    one(&mut harness, &request(command, flags, 5, 0, length), &vec![1; data]);
                let writes = matches!(op, Op::Write | Op::WriteZeroes);
                let want = if writes { write_errno } else { read_errno };
                assert_eq!(answer.error(), want.get(), "{failure} {op:?}");
                assert!(one(&mut harness, &request(99, 0, 5, 0, 0), &[]).error() > 0, "in step");
            }
        }
        for structured in [true, false] {
            let mut harness = harness(structured);
            harness.host.faults = vec![Fault { op: Op::Read, range: 0..SIZE, failure }];
            assert_eq!(read(&mut harness, 0, 0, 512).error(), read_errno.get());
        }
    }
}

fn with_bad_window(structured: bool, window: u64) -> Harness {
    let mut harness = harness(structured);
    let range = window * WINDOW_BYTES + 4096..window * WINDOW_BYTES + 8192;
    harness.host.faults = vec![Fault { op: Op::Read, range, failure: Failure::Media }];
    harness
}

#[test]
fn a_structured_read_says_which_window_failed() {
    for window in 0..5 {
        let answer = read(&mut with_bad_window(true, window), 0, 0, 5 * WINDOW);
        assert_eq!(answer.errors, [(Errno::Io.get(), Some(window * WINDOW_BYTES))]);
        assert_eq!((answer.ends, answer.contents), (1, 4));
        for (offset, data) in answer.data {
            assert!(data == pattern(offset, data.len()));
        }
    }
}

#[test]
fn a_df_read_that_fails_is_an_error_or_is_padded() {
    let mut padded = 0;
    for window in 0..5 {
        let mut harness = with_bad_window(true, window);
        let answer = read(&mut harness, command_flag::DF, 0, 5 * WINDOW);
        assert_eq!((answer.errors.len(), answer.ends), (1, 1));
        assert_eq!(answer.errors[0].0, Errno::Io.get());
        if answer.contents == 1 {
            padded += 1;
            assert_eq!(answer.errors[0].1, Some(window * WINDOW_BYTES));
            let good = usize::try_from(window * WINDOW_BYTES).unwrap();
            assert_eq!(answer.bytes().len(), 5 * WINDOW as usize);
            assert!(answer.bytes()[..good] == pattern(0, good));
            // What stood in the buffer before is nobody's business.
            assert!(answer.bytes()[good..][..WINDOW as usize].iter().all(|&b| b == 0));
        }
        harness.host.faults.clear();
        assert!(read(&mut harness, 0, 0, 5 * WINDOW).is_ok());
    }
    assert!((1..5).contains(&padded), "both ways are taken");
}

#[test]
fn a_simple_read_that_fails_is_an_error_or_ends_the_connection() {
    let mut ended = 0;
    for window in 0..5 {
        let mut harness = with_bad_window(false, window);
        harness.feed(&request(command::READ, 0, 5, 0, 5 * WINDOW), 28).unwrap();
        let sent = harness.settle();
        if harness.session.is_finished() {
            ended += 1;
            // Nothing that was sent is wrong, but it is not all.
            assert!(sent.len() < 5 * WINDOW as usize);
            if sent.len() > 16 {
                assert!(sent[16..] == pattern(0, sent.len() - 16));
            }
        } else {
            assert_eq!(answers(&sent, &BTreeMap::new())[&5].error(), Errno::Io.get());
        }
        assert_eq!(harness.host.held_bytes(), 0);
    }
    assert!((1..5).contains(&ended), "both ways are taken");
}
