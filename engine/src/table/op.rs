//! What is under way: requests at their owner, and the pieces they fall into.
//!
//! A *part* is what the composer sends: at most a window, hence one slice. Its
//! *pieces* each lie in one fragment. Every device operation carries a token
//! that names its piece and the run of blocks it moves.

use super::entry::Place;
use super::fragment::FragRef;
use super::sink::{Mem, Met};
use crate::format::record::FragmentKey;
use crate::request::{Buf, Failure, Op};
use crate::units::{Crc, FragmentSize, SliceId, VolumeId, WINDOW_BLOCKS};

/// What the composer asks of an owner.
#[derive(Debug)]
pub struct Part {
    /// The composer's name for it.
    pub origin: u64,
    /// The volume.
    pub volume: VolumeId,
    /// What; never `Flush`.
    pub op: Op,
    /// Durable before it ends.
    pub fua: bool,
    /// First byte in the volume.
    pub offset: u64,
    /// Bytes; within one window (one segment for `Status`).
    pub length: u32,
    /// Size of fragments made now.
    pub fragment: FragmentSize,
    /// The predictor expects more of the fragment: stage all of it on a miss.
    pub stage: bool,
    /// Data or destination; the part's first byte at `offset % BLOCK_BYTES`.
    pub buf: Option<Buf>,
    /// The fragment of its first block, where [`super::Table::seek`] has found it ahead.
    pub hint: Option<FragRef>,
}

/// A part in progress.
#[derive(Debug)]
pub struct Ask {
    /// [`Part::origin`].
    pub origin: u64,
    /// [`Part::fua`].
    pub fua: bool,
    /// [`Part::buf`].
    pub buf: Option<Buf>,
    /// Zeros for the edges of a discard.
    pub zeros: Option<Buf>,
    /// Where it belongs.
    pub slice: SliceId,
    /// Pieces not ended.
    pub remaining: u32,
    /// What its pieces have met.
    pub met: Met,
    /// The first failure of a piece.
    pub failure: Option<Failure>,
}

/// What a piece does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Device or stage to memory.
    Read {
        /// [`Part::stage`].
        stage: bool,
    },
    /// Memory to a new place.
    Write,
    /// Entries to holes.
    Discard,
    /// One byte per block to memory: has it bytes?
    Status,
}

/// How far a write has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing started.
    Start,
    /// The old contents of a partly written block are being read.
    ReadOld,
    /// Whole blocks are in memory.
    Merged,
    /// Device operations are under way.
    Moving,
}

/// A piece in progress.
#[derive(Debug)]
pub struct Piece {
    /// What it does.
    pub kind: Kind,
    /// How far it has come.
    pub phase: Phase,
    /// The part it belongs to.
    pub ask: u32,
    /// Its slice.
    pub slice: SliceId,
    /// Its fragment's key.
    pub key: FragmentKey,
    /// Its fragment's size.
    pub size: FragmentSize,
    /// Its fragment, if that has been found ahead and still lives.
    pub hint: Option<FragRef>,
    /// Its fragment, pinned, once found or made.
    pub frag: Option<FragRef>,
    /// Zeros for the edge of a discard: in a hole there is nothing to do.
    pub edge: bool,
    /// It is written only if the old contents are those in the block behind it in memory.
    pub compare: bool,
    /// It is in the slice's list of writers.
    pub writing: bool,
    /// A read has waited for a stage: its outcome is already counted.
    pub waited: bool,
    /// A read met a bad or replaced copy and is to be issued again.
    pub retry: bool,
    /// First block in the fragment.
    pub first: u32,
    /// Blocks, 1..=64 (a discard or status may have more).
    pub count: u32,
    /// Where the first block is in memory.
    pub mem: Mem,
    /// Bytes of the first block that are not written.
    pub head: u16,
    /// Bytes of the last block that are not written.
    pub tail: u16,
    /// Device operations under way.
    pub pending: u32,
    /// The first failure.
    pub failure: Option<Failure>,
    /// The reader's era, while device reads are under way.
    pub era: Option<usize>,
    /// Bytes promised in the pending log.
    pub reserved: usize,
    /// Old contents of the first and last block.
    pub temp: Option<Buf>,
    /// Its blocks; large, so it stays where it is while the piece moves.
    pub work: Box<Work>,
}

/// The blocks of a piece, by number from its first. Reused: holds anything at first.
#[derive(Debug)]
pub struct Work {
    /// Expected checksums of a read, new ones of a write.
    pub crcs: [Crc; WINDOW_BLOCKS as usize],
    /// New places of a write; where a read takes each block from.
    pub places: [Place; WINDOW_BLOCKS as usize],
}

impl Work {
    /// For any piece.
    pub fn new() -> Box<Self> {
        let blocks = WINDOW_BLOCKS as usize;
        assert_eq!(blocks, 64);
        Box::new(Work { crcs: [Crc::new(0); 64], places: [Place::HOLE; 64] })
    }
}

impl Piece {
    /// Blocks of one piece overlap those of another in the same fragment.
    pub fn overlaps(&self, other: &Piece) -> bool {
        self.key == other.key
            && self.first < other.first + other.count
            && other.first < self.first + self.count
    }
}

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Blocks `run.0 .. run.0 + run.1` of a piece (relative to its first).
    Piece(u32, (u32, u32)),
    /// Old contents of a piece's first (0) or last (1) block.
    Old(u32, u32),
    /// A journal group of a slice.
    Journal(SliceId),
    /// A flush of a device.
    Flush(u8),
    /// A page run or root of a slice's checkpoint.
    Checkpoint(SliceId),
    /// Blocks of a stage slot.
    Stage(u32, (u32, u32)),
    /// Blocks of a copy job.
    Copy(u32, (u32, u32)),
    /// The map pages of a span.
    Map(u32),
}

impl Token {
    /// Packs it into the word that travels with a device operation.
    pub fn pack(self) -> u64 {
        let word = |class: u64, index: u32, run: (u32, u32)| {
            assert!(index < 1 << 24 && run.0 < 1 << 16 && run.1 < 1 << 16);
            class << 56 | u64::from(index) << 32 | u64::from(run.0) << 16 | u64::from(run.1)
        };
        match self {
            Token::Piece(index, run) => word(1, index, run),
            Token::Old(index, which) => word(2, index, (which, 0)),
            Token::Journal(slice) => word(3, slice.get().into(), (0, 0)),
            Token::Flush(device) => word(4, device.into(), (0, 0)),
            Token::Checkpoint(slice) => word(5, slice.get().into(), (0, 0)),
            Token::Stage(index, run) => word(6, index, run),
            Token::Copy(index, run) => word(7, index, run),
            Token::Map(index) => word(8, index, (0, 0)),
        }
    }

    /// The inverse of [`Token::pack`].
    pub fn unpack(word: u64) -> Token {
        let [run1, run1h, run0, run0h, i0, i1, i2, class] = word.to_le_bytes();
        let index = u32::from_le_bytes([i0, i1, i2, 0]);
        let run =
            (u32::from_le_bytes([run0, run0h, 0, 0]), u32::from_le_bytes([run1, run1h, 0, 0]));
        let slice = SliceId::new(u16::from_le_bytes([i0, i1]));
        match class {
            1 => Token::Piece(index, run),
            2 => Token::Old(index, run.0),
            3 => Token::Journal(slice),
            4 => Token::Flush(i0),
            5 => Token::Checkpoint(slice),
            6 => Token::Stage(index, run),
            7 => Token::Copy(index, run),
            8 => Token::Map(index),
            _ => panic!("a token that was never issued: {word:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        for token in [
            Token::Piece(0x12_3456, (63, 64)),
            Token::Old(7, 1),
            Token::Journal(SliceId::new(64)),
            Token::Flush(3),
            Token::Checkpoint(SliceId::new(63)),
            Token::Stage(9, (4095, 256)),
            Token::Copy(1, (0, 1)),
            Token::Map(63),
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
