//! Rows of the truth table in docs/format.md that need a whole server: damaged
//! metadata in one copy is mended, in both copies it concerns its owner alone.

mod rig;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use crc_fast::{CrcAlgorithm, checksum};
use engine::target::nbd::client::Error;
use engine::target::nbd::wire::Errno;
use rig::Rig;

const BLOCK: usize = 4096;
/// What a map page speaks of.
const UNIT: usize = 2 << 20;

/// The metadata zone of a stopped pool, on its only fast device.
struct Zone {
    file: File,
    starts: [u64; 2],
    bytes: u64,
}

impl Zone {
    fn of(rig: &Rig) -> Zone {
        let device = rig.data().join("fast.img");
        let file = OpenOptions::new().read(true).write(true).open(device).unwrap();
        let number = |at| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, at).unwrap();
            u64::from_le_bytes(bytes)
        };
        let (starts, bytes) = ([number(120), number(128)], number(136));
        Zone { file, starts, bytes }
    }

    /// Changes those blocks of a copy that `which` picks; how many.
    fn change(&self, copy: usize, which: impl Fn(&[u8]) -> bool, how: impl Fn(&mut [u8])) -> usize {
        let mut zone = vec![0; usize::try_from(self.bytes).unwrap()];
        self.file.read_exact_at(&mut zone, self.starts[copy]).unwrap();
        let mut changed = 0;
        for (at, block) in zone.chunks_mut(BLOCK).enumerate().filter(|(_, block)| which(block)) {
            how(block);
            self.file.write_all_at(block, self.starts[copy] + (at * BLOCK) as u64).unwrap();
            changed += 1;
        }
        changed
    }
}

fn rot(block: &mut [u8]) {
    block[2000] ^= 1;
}

/// Another checkpoint's page, whole in itself.
fn go_stale(page: &mut [u8]) {
    page[28] = page[28].wrapping_sub(1);
    page[4..8].fill(0);
    let crc = u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, page)).unwrap();
    page[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Map pages of the second 2 MiB of a volume.
fn second_unit(block: &[u8]) -> bool {
    block.starts_with(b"TMP1") && block[24..28] == 1_u32.to_le_bytes()
}

/// A stopped pool with a volume of three map pages, all its data behind a checkpoint.
fn stopped() -> Rig {
    let mut rig = Rig::serving("vm1", "6MiB");
    let mut client = rig.attach("vm1");
    for unit in 0..3_u8 {
        client.write(u64::from(unit) * UNIT as u64, &vec![unit + 1; UNIT], false).unwrap();
    }
    drop(client);
    rig.stop_and_check();
    rig
}

fn read(rig: &Rig, unit: u8) -> Result<bool, Error> {
    let mut bytes = vec![0; UNIT];
    rig.attach("vm1").read(u64::from(unit) * UNIT as u64, &mut bytes)?;
    Ok(bytes.iter().all(|byte| *byte == unit + 1))
}

#[test]
fn a_map_page_that_one_copy_has_is_believed() {
    for how in [rot, go_stale] {
        for copy in 0..2 {
            let mut rig = stopped();
            assert!(Zone::of(&rig).change(copy, second_unit, how) > 0);
            assert_eq!(rig.tessera(&["check"]).status.code(), Some(1), "it is damaged");
            rig.start(&[]);
            for unit in 0..3 {
                assert!(read(&rig, unit).unwrap(), "unit {unit}");
            }
            // Whichever copy was read: any change of the span writes both anew.
            rig.attach("vm1").write(UNIT as u64, &[2; BLOCK], true).unwrap();
            rig.stop_and_check();
        }
    }
}

#[test]
fn a_map_page_that_no_copy_has_fails_its_fragments_alone() {
    for how in [rot, go_stale] {
        let mut rig = stopped();
        for copy in 0..2 {
            assert!(Zone::of(&rig).change(copy, second_unit, how) > 0);
        }
        rig.start(&[]);
        for unit in [0, 2] {
            assert!(read(&rig, unit).unwrap(), "unit {unit}");
        }
        for _ in 0..2 {
            match read(&rig, 1) {
                Err(Error::Failed(error)) => assert_eq!(error.errno, Errno::Io, "{error}"),
                other => panic!("{other:?}"),
            }
        }
        rig.ok(&["volume", "create", "vm2", "--size", "1MiB"]);
        rig.attach("vm2").write(0, &[9; BLOCK], true).unwrap();
        rig.attach("vm1").write(0, &[1; BLOCK], true).unwrap();
        assert!(read(&rig, 0).unwrap());
        rig.stop();
        let output = rig.tessera(&["check", "--json"]);
        assert_eq!(output.status.code(), Some(1));
        let text = rig::stdout(&output);
        assert!(text.contains("is damaged in both copies"), "{text}");
    }
}

#[test]
fn checkpoint_pages_and_roots_of_one_copy_are_mended() {
    let page = |block: &[u8]| block.starts_with(b"TCP1") || block.starts_with(b"TCR1");
    for copy in 0..2 {
        let mut rig = stopped();
        assert!(Zone::of(&rig).change(copy, page, rot) > 0);
        rig.start(&[]);
        assert!(rig.log().contains("repaired metadata from its copy"), "{}", rig.log());
        assert!((0..3).all(|unit| read(&rig, unit).unwrap()));
        rig.stop_and_check();
    }
}

#[test]
fn checkpoint_pages_that_no_copy_has_are_refused_by_slice() {
    let rig = stopped();
    for copy in 0..2 {
        assert!(Zone::of(&rig).change(copy, |block| block.starts_with(b"TCP1"), rot) > 0);
    }
    rig.fails(&["serve"], 1, "slice");
    assert_eq!(rig.tessera(&["check"]).status.code(), Some(1));
}

/// A fragment that was emptied under a read, and whose process died before it could be dropped,
/// is dropped as soon as its map comes. What recovery replayed for the other fragment of its
/// map page must reach the next checkpoint all the same.
#[test]
fn what_was_replayed_outlives_an_empty_neighbour() {
    const SPANS: u64 = 16;
    let slow = rig::CONFIG.replace("role = \"fast\"", "role = \"fast\"\nemulate = \"hdd\"");
    let mut rig = Rig::with_config(&slow);
    rig.start(&[]);
    rig.ok(&["volume", "create", "vm1", "--size", "64MiB"]);
    let first = |span: u64| span * UNIT as u64;
    let second = |span: u64| first(span) + UNIT as u64 / 2;
    let write = |rig: &Rig, place: &dyn Fn(u64) -> u64| {
        let mut client = rig.attach("vm1");
        for span in 0..SPANS {
            client.write(place(span), &[7; BLOCK], false).unwrap();
        }
        client.flush().unwrap();
    };
    write(&rig, &first);
    write(&rig, &second);
    rig.stop_and_check();
    rig.start(&[]);
    write(&rig, &|span| second(span) + BLOCK as u64);
    let (mut sender, _receiver) = rig.attach("vm1").split();
    let length = u32::try_from(BLOCK).unwrap();
    for span in 0..SPANS {
        sender.read(span, first(span), length).unwrap();
    }
    for span in 0..SPANS {
        sender.trim(SPANS + span, first(span), length).unwrap();
    }
    sender.push().unwrap();
    // One head: the sixteen reads take a tenth of a second, the trims no time.
    std::thread::sleep(std::time::Duration::from_millis(20));
    rig.kill();
    rig.start(&[]);
    rig.stop_and_check();
    rig.start(&[]);
    let mut client = rig.attach("vm1");
    for span in 0..SPANS {
        let mut bytes = [0; 2 * BLOCK];
        client.read(second(span), &mut bytes).unwrap();
        assert!(bytes == [7; 2 * BLOCK], "what was flushed in span {span} is gone");
    }
    drop(client);
    rig.stop_and_check();
}
