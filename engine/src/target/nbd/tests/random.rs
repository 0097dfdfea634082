//! Random bytes, and valid requests cut at random.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::fuzz::{Harness, nbd_negotiation, nbd_requests};
use super::super::wire::{self, Errno, command, command_flag};
use super::messages::answers;
use super::{pattern, request};
use crate::target::fake::{Fake, volume};
use crate::units::VolumeId;

/// Writes go to slots above this, one each; reads below it.
const WRITES: u64 = 16 << 20;
const SLOT: u64 = 1 << 20;
const SIZE: u64 = 48 << 20;

#[derive(Clone, Debug)]
enum Ask {
    Read { offset: u64, length: u32, df: bool },
    Write { head: u64, length: u32, fua: bool },
    Flush,
    Status { offset: u64, length: u32, one: bool },
    Bad { command: u16, length: u32 },
}

fn ask() -> impl Strategy<Value = Ask> {
    let length = prop_oneof![4 => 1..64u32, 1 => 64..2040u32].prop_map(|sectors| sectors * 512);
    let offset = (0..WRITES / 512 - 2048).prop_map(|sector| sector * 512);
    prop_oneof![
        4 => (offset.clone(), length.clone(), any::<bool>())
            .prop_map(|(offset, length, df)| Ask::Read { offset, length, df }),
        4 => (0..8u64, length.clone(), any::<bool>())
            .prop_map(|(head, length, fua)| Ask::Write { head: head * 512, length, fua }),
        1 => Just(Ask::Flush),
        1 => (offset, length.clone(), any::<bool>())
            .prop_map(|(offset, length, one)| Ask::Status { offset, length, one }),
        1 => (prop_oneof![Just(command::WRITE), Just(command::READ), 8..99u16], length)
            .prop_map(|(command, length)| Ask::Bad { command, length: length + 1 }),
    ]
}

fn bytes(asks: &[Ask], structured: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (ask, cookie) in asks.iter().zip(0..) {
        match *ask {
            Ask::Read { offset, length, df } => {
                let flags = if df && structured { command_flag::DF } else { 0 };
                out.extend(request(command::READ, flags, cookie, offset, length));
            }
            Ask::Write { head, length, fua } => {
                let at = WRITES + cookie * SLOT + head;
                let flags = if fua { command_flag::FUA } else { 0 };
                out.extend(request(command::WRITE, flags, cookie, at, length));
                out.extend(pattern(at + 1, length as usize));
            }
            Ask::Flush => out.extend(request(command::FLUSH, 0, cookie, 0, 0)),
            Ask::Status { offset, length, one } => {
                let flags = if one { command_flag::REQ_ONE } else { 0 };
                out.extend(request(command::BLOCK_STATUS, flags, cookie, offset, length));
            }
            Ask::Bad { command, length } => {
                out.extend(request(command, 0, cookie, 0, length));
                if command == command::WRITE {
                    out.extend(vec![0x25; length as usize]);
                }
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        nbd_negotiation(&bytes);
        nbd_requests(&bytes);
    }

    /// Requests with good magics and anything else.
    #[test]
    fn any_requests_are_survived(
        head in any::<[u8; 2]>(),
        requests in proptest::collection::vec(
            (0..9u16, 0..32u16, any::<u64>(), 0..SIZE, 0..1_000_000u32, any::<bool>()), 0..40),
    ) {
        let mut bytes = head.to_vec();
        for (command, flags, cookie, offset, length, aligned) in requests {
            let mask = if aligned { 511 } else { 0 };
            let (offset, length) = (offset & !u64::from(mask), length & !mask);
            bytes.extend(request(command, flags, cookie, offset, length));
            if command == command::WRITE {
                bytes.extend(vec![0; length as usize]);
            }
        }
        nbd_requests(&bytes);
    }

    #[test]
    fn every_request_is_answered_once_and_rightly(
        asks in proptest::collection::vec(ask(), 1..30),
        structured in any::<bool>(),
        seed in any::<u64>(),
        depth in 1..40usize,
        arena_windows in 1..20usize,
        step in prop_oneof![1..100usize, 100..100_000usize],
        turns in 0..4usize,
    ) {
        let mut host = Fake::new(vec![volume(1, "v", SIZE, 512)], seed);
        host.depth = depth;
        host.arena_bytes = arena_windows * (256 << 10);
        let id = VolumeId::new(1);
        let low = usize::try_from(WRITES).unwrap();
        host.data(id)[..low].copy_from_slice(&pattern(0, low));
        let mut harness = Harness::new(host, structured);
        for part in bytes(&asks, structured).chunks(5000) {
            harness.feed(part, step).unwrap();
            for _ in 0..turns {
                harness.turn();
            }
        }
        let sent = harness.settle();
        prop_assert!(harness.session.is_quiet());
        prop_assert_eq!(harness.host.held_bytes(), 0);
        let lengths: BTreeMap<u64, usize> = (0..).zip(&asks).filter_map(|(cookie, ask)| match ask {
            Ask::Read { length, .. } => Some((cookie, *length as usize)),
            _ => None,
        }).collect();
        let answers = answers(&sent, &lengths);
        prop_assert_eq!(answers.len(), asks.len());
        for (ask, (cookie, answer)) in asks.iter().zip(answers) {
            match *ask {
                Ask::Read { offset, length, df } => {
                    prop_assert!(answer.is_ok());
                    prop_assert!(answer.bytes() == pattern(offset, length as usize));
                    prop_assert!(!(df && structured) || answer.contents == 1);
                }
                Ask::Write { head, length, .. } => {
                    prop_assert!(answer.is_ok());
                    let at = WRITES + cookie * SLOT + head;
                    let slot = &harness.host.data(id)[usize::try_from(at).unwrap()..];
                    prop_assert!(slot[..length as usize] == pattern(at + 1, length as usize));
                }
                Ask::Status { length, one, .. } if structured => {
                    prop_assert!(answer.is_ok());
                    let sum: u32 = answer.extents.iter().map(|e| e.0).sum();
                    prop_assert!(sum > 0 && sum <= length);
                    prop_assert!(!one || answer.extents.len() == 1);
                    prop_assert!(answer.extents.iter().all(|e| e.1 == wire::STATE_HOLE | wire::STATE_ZERO));
                }
                Ask::Flush => prop_assert!(answer.is_ok()),
                Ask::Status { .. } | Ask::Bad { .. } => {
                    prop_assert_eq!(answer.error(), Errno::Inval.get());
                }
            }
        }
    }
}
