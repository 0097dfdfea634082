//! The rows of the truth table in docs/format.md that concern superblocks.

use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::format::fuzz::reseal;
use crate::format::superblock::{RawSuperblock, Role};
use crate::journal::fuzz::Disks;

const SIZE: u64 = 1 << 30;

/// A pool of one fast device, with its superblock changed.
fn inspected(change: fn(&mut Superblock)) -> Result<Pool, PoolError> {
    let mut disks = Disks::new(1);
    let device = NewDevice { size_bytes: SIZE, role: Role::Fast };
    let pool = create(&mut disks, &[device], || [7; 16]).expect("memory does not fail");
    let mut superblock = pool.superblocks[0];
    change(&mut superblock);
    for offset in COPY_OFFSETS {
        let offset = DeviceOffset::new(offset);
        disks.write(superblock.device, offset, &superblock.encode()).expect("memory");
    }
    inspect(&mut disks, &[SIZE])
}

#[test]
fn superblocks_that_contradict_each_other_are_refused() {
    assert!(inspected(|_| ()).is_ok());
    let changes: [fn(&mut Superblock); 3] =
        [|sb| sb.meta_offset[1] = 0, |sb| sb.extents -= 1, |sb| sb.journal_blocks += 1];
    for change in changes {
        assert!(matches!(inspected(change), Err(PoolError::Contradiction { .. })));
    }
}

/// A pool of one device whose superblocks are set by hand.
struct Copies {
    disks: Disks,
    first: Superblock,
}

impl Copies {
    fn new() -> Self {
        let mut disks = Disks::new(1);
        let device = NewDevice { size_bytes: SIZE, role: Role::Fast };
        let pool = create(&mut disks, &[device], || [7; 16]).expect("memory does not fail");
        Self { disks, first: pool.superblocks[0] }
    }

    fn put(&mut self, copy: usize, block: &[u8; BLOCK_BYTES]) {
        let offset = DeviceOffset::new(COPY_OFFSETS[copy]);
        self.disks.write(self.first.device, offset, block).expect("memory does not fail");
    }

    fn sealed(&self, change: impl FnOnce(&mut RawSuperblock)) -> [u8; BLOCK_BYTES] {
        let mut raw = RawSuperblock::read_from_bytes(&self.first.encode()).expect("a block");
        change(&mut raw);
        let mut block: [u8; BLOCK_BYTES] = raw.as_bytes().try_into().expect("a block");
        reseal(&mut block, 12);
        block
    }

    fn inspect(&mut self) -> Result<Superblock, PoolError> {
        inspect(&mut self.disks, &[SIZE]).map(|pool| pool.superblocks[0])
    }
}

#[test]
fn of_two_whole_superblocks_the_higher_sequence_counts() {
    for (sequences, believed) in [([2, 3], 3), ([4, 3], 4), ([4, 5], 5)] {
        let mut copies = Copies::new();
        for (copy, sequence) in sequences.into_iter().enumerate() {
            let superblock = Superblock { sequence, ..copies.first };
            copies.put(copy, &superblock.encode());
        }
        assert_eq!(copies.inspect().expect("whole").sequence, believed);
    }
}

#[test]
fn one_whole_superblock_is_believed_and_none_is_no_pool() {
    for (bad, believed) in [(0, 3), (1, 2)] {
        let mut copies = Copies::new();
        for (copy, sequence) in [2, 3].into_iter().enumerate() {
            let mut block = Superblock { sequence, ..copies.first }.encode();
            block[2000] ^= u8::from(copy == bad);
            copies.put(copy, &block);
        }
        assert_eq!(copies.inspect().expect("one is whole").sequence, believed);
        copies.put(1 - bad, &[0; BLOCK_BYTES]);
        let refused = copies.inspect().expect_err("none is whole");
        let cause = FormatError::Checksum;
        assert!(matches!(&refused, PoolError::NoSuperblock { cause: c, .. } if *c == cause));
    }
}

#[test]
fn a_whole_superblock_that_is_not_understood_refuses_the_device() {
    for copy in 0..2 {
        let mut copies = Copies::new();
        let newer = copies.sealed(|raw| raw.version = (VERSION + 1).into());
        let strange = copies.sealed(|raw| raw.incompat = 0x10.into());
        for (block, cause) in
            [(newer, FormatError::Version(VERSION + 1)), (strange, FormatError::Features(0x10))]
        {
            copies.put(copy, &block);
            let refused = copies.inspect().expect_err("another program was here");
            assert!(matches!(&refused, PoolError::NoSuperblock { cause: c, .. } if *c == cause));
        }
    }
}

#[test]
fn opening_keeps_what_may_be_ignored_and_writes_nothing_where_it_must_not() {
    let mut copies = Copies::new();
    let known = copies.sealed(|raw| raw.compat = 0x30.into());
    (0..2).for_each(|copy| copies.put(copy, &known));
    open(&mut copies.disks, &[SIZE]).expect("opened");
    let kept = copies.inspect().expect("sound");
    assert_eq!((kept.compat, kept.sequence, kept.incarnation), (0x30, 2, 1));
    let read_only = copies.sealed(|raw| raw.ro_compat = 0x40.into());
    (0..2).for_each(|copy| copies.put(copy, &read_only));
    let refused = open(&mut copies.disks, &[SIZE]).expect_err("not to be written");
    let cause = FormatError::ReadOnly(0x40);
    assert!(matches!(&refused, PoolError::NotWritable { cause: c, .. } if *c == cause));
    assert_eq!(copies.inspect().expect("readable").sequence, 1, "nothing was written");
}
