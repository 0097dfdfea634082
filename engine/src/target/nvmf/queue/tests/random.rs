//! Any commands, in any pieces and order of completion, against an array of bytes.

use super::*;
use crate::target::nvmf::fuzz::{VOLUME_BYTES, nvmf_pdus, nvmf_queue};
use crate::units::VolumeId;
use proptest::prelude::*;
use std::collections::HashMap;

/// Each command works on its own part of the volume, so that their order does not matter.
const PART_BLOCKS: u64 = 600;

#[derive(Clone, Debug)]
struct Want {
    write: bool,
    in_capsule: bool,
    skip: u64,
    blocks: u32,
    seed: u8,
}

fn want() -> impl Strategy<Value = Want> {
    let blocks = prop_oneof![1..16_u32, 1..600_u32];
    (any::<bool>(), any::<bool>(), 0..600_u64, blocks, any::<u8>()).prop_map(
        |(write, in_capsule, skip, blocks, seed)| {
            let blocks = blocks.min(u32::try_from(PART_BLOCKS).unwrap());
            let skip = skip.min(PART_BLOCKS - u64::from(blocks));
            Want { write, in_capsule: in_capsule && blocks <= 16, skip, blocks, seed }
        },
    )
}

proptest! {
    /// Any bytes, and good commands with a few bytes changed, leave a queue that ends.
    #[test]
    fn wrong_bytes_do_no_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 3..2000),
        good in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        if good {
            let digests = Digests::from_bits(bytes[1]);
            bytes.truncate(3);
            for (cid, lba) in [(1, 8), (2, 3), (3, 300)] {
                bytes.extend(capsule(&read(cid, 1, lba, 600), &[], digests));
                bytes.extend(capsule(&write(cid + 3, 1, lba, 8), &[5; 4096], digests));
                bytes.extend(capsule(&command(nvm::COMPARE, cid + 6, 2, lba, 1), &[], digests));
            }
        }
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        nvmf_pdus(&bytes);
        nvmf_queue(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn commands_do_what_they_say(
        wants in prop::collection::vec(want(), 1..13),
        steps in prop::collection::vec(1..200_000_usize, 1..5),
        (chunk, send) in (1..5000_usize, 1..400_000_usize),
        (header, data_digest, off) in any::<(bool, bool, bool)>(),
        (seed, small) in (any::<u64>(), any::<bool>()),
    ) {
        let digests = Digests { header, data: data_digest };
        let mut harness = Harness::new(16, digests, off, seed);
        if small {
            harness.queue.set_budget(super::super::LEAST_BUFFER_BYTES);
        }
        let mut disk = vec![0_u8; usize::try_from(VOLUME_BYTES).unwrap()];
        for (i, byte) in disk.iter_mut().enumerate() {
            *byte = (i / 5).to_le_bytes()[0];
        }
        harness.host.data(VolumeId::new(1)).copy_from_slice(&disk);
        let mut to_send = Vec::new();
        let mut payloads = HashMap::new();
        let mut expected = HashMap::new();
        for (cid, want) in (100..).zip(&wants) {
            let lba = u64::from(cid - 100_u16) * PART_BLOCKS + want.skip;
            let range = usize::try_from(lba * 512).unwrap()..;
            let length = want.blocks as usize * 512;
            if want.write {
                let data = pattern(want.seed, length);
                disk[range][..length].copy_from_slice(&data);
                let entry = if want.in_capsule {
                    write(cid, 1, lba, want.blocks)
                } else {
                    command(nvm::WRITE, cid, 1, lba, want.blocks)
                };
                to_send.extend(capsule(&entry, if want.in_capsule { &data } else { &[] }, digests));
                payloads.insert(cid, data);
            } else {
                expected.insert(cid, disk[range][..length].to_vec());
                to_send.extend(capsule(&read(cid, 1, lba, want.blocks), &[], digests));
            }
        }
        let mut got: HashMap<u16, Vec<u8>> = HashMap::new();
        let mut done = 0;
        let mut steps = steps.iter().cycle();
        while done < wants.len() {
            let bytes = std::mem::take(&mut to_send);
            harness.feed(&bytes, *steps.next().unwrap()).unwrap();
            harness.send(send);
            let sent = harness.settle().unwrap();
            prop_assert!(!sent.is_empty(), "something happens until all is done");
            for pdu in sent {
                match pdu.header {
                    Received::R2t(r2t) => {
                        let data = &payloads[&r2t.cccid.get()];
                        to_send.extend(answer(&r2t, data, chunk * 50, digests));
                    }
                    Received::Data(data) => {
                        let got = got.entry(data.cccid.get()).or_default();
                        prop_assert_eq!(data.datao.get() as usize, got.len());
                        got.extend(pdu.data);
                        done += usize::from(pdu.flags & nvme::tcp::pdu::flags::SUCCESS != 0);
                    }
                    Received::Completion(entry) => {
                        prop_assert_eq!(entry.status(), Status::SUCCESS);
                        done += 1;
                    }
                    _ => panic!("{pdu:?}"),
                }
            }
        }
        prop_assert!(got == expected);
        prop_assert!(harness.host.data(VolumeId::new(1)) == disk);
        prop_assert!(harness.queue.is_quiet() && harness.host.held_bytes() == 0);
        harness.end();
    }
}
