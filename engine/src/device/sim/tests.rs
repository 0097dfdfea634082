use super::*;
use crate::table::sink::Mem;
use crate::units::{DeviceId, DeviceOffset};

fn io(kind: IoKind) -> Io {
    Io {
        device: DeviceId::new(0),
        kind,
        offset: DeviceOffset::new(0),
        mem: Mem { arena: 0, byte: 0 },
        bytes: 4096,
        token: 0,
        background: false,
    }
}

fn read(disk: &SimDisk, block: u64) -> [u8; BLOCK_BYTES] {
    let mut out = [0; BLOCK_BYTES];
    disk.read_block(block, &mut out);
    out
}

#[test]
fn a_flush_covers_what_completed_before_it_began() {
    let mut disk = SimDisk::default();
    disk.write_block(0, &[1; BLOCK_BYTES]);
    disk.submit(io(IoKind::Flush), CoreId::new(0));
    disk.write_block(0, &[2; BLOCK_BYTES]);
    disk.complete(0, &mut [], How::Well);
    assert_eq!(read(&disk, 0)[0], 2);
    disk.medium.forget_cache();
    assert_eq!(read(&disk, 0)[0], 1, "the later write was only cached");
}

/// Whether a power cut ever mixes two writes of one block.
fn tears(whole_blocks: bool) -> bool {
    let mut torn = false;
    for seed in 0..64 {
        let mut disk = SimDisk::new(whole_blocks);
        disk.write_block(0, &[1; BLOCK_BYTES]);
        disk.flush();
        disk.write_block(0, &[2; BLOCK_BYTES]);
        disk.power_cut(&mut Rng::new(seed), &|_| Vec::new());
        let out = read(&disk, 0);
        for sector in out.chunks(SECTOR_BYTES) {
            assert!(sector.iter().all(|byte| *byte == sector[0]));
        }
        torn |= out.contains(&1) && out.contains(&2);
    }
    torn
}

#[test]
fn a_power_cut_tears_at_the_unit_only() {
    assert!(tears(false));
    assert!(!tears(true));
}

#[test]
fn what_a_fault_touched_is_rotten_until_it_is_written_again() {
    let mut disk = SimDisk::default();
    disk.write_block(0, &[1; BLOCK_BYTES]);
    disk.submit(io(IoKind::Write { fua: true }), CoreId::new(0));
    disk.complete(0, &mut [2; BLOCK_BYTES], How::Astray(7));
    assert_eq!((read(&disk, 0)[0], read(&disk, 7)[0]), (1, 2));
    assert!(disk.is_rotten(0) && disk.is_rotten(7));
    disk.submit(io(IoKind::Read), CoreId::new(0));
    assert!(disk.complete(0, &mut [0; BLOCK_BYTES], How::Well).rotten);
    disk.write_block(0, &[3; BLOCK_BYTES]);
    assert!(!disk.is_rotten(0));
    disk.flip(0, 9);
    assert_eq!(read(&disk, 0)[1], 3 ^ 2);
    assert!(disk.is_rotten(0));
}

#[test]
fn a_lie_makes_nothing_durable() {
    let mut disk = SimDisk::default();
    disk.write_block(0, &[1; BLOCK_BYTES]);
    disk.submit(io(IoKind::Flush), CoreId::new(0));
    disk.complete(0, &mut [], How::Lying);
    disk.medium.forget_cache();
    assert_eq!(read(&disk, 0)[0], 0);
}

#[test]
fn a_failed_flush_may_lose_writes_for_good() {
    let lost = (0..16).any(|seed| {
        let mut disk = SimDisk::default();
        disk.write_block(0, &[1; BLOCK_BYTES]);
        disk.submit(io(IoKind::Flush), CoreId::new(0));
        disk.fail(0, &[], &mut Rng::new(seed));
        read(&disk, 0)[0] == 0 && disk.is_rotten(0)
    });
    assert!(lost);
}
