//! What an examination found, in terms that name the place.

use serde::{Serialize, Serializer};

use crate::format::FormatError;
use crate::format::record::FragmentKey;
use crate::journal::io::IoError;
use crate::journal::parts::DamagedCopy;
use crate::journal::recover::RecoverError;
use crate::pool::PoolError;
use crate::units::{DeviceId, SliceId, VolumeId};

/// The outcome of an examination.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Volumes in the catalog.
    pub volumes: u64,
    /// Fragments in all tables.
    pub fragments: u64,
    /// Stored blocks whose checksum was compared.
    pub blocks: u64,
    /// Everything that is not as it should be.
    pub damage: Vec<Damage>,
}

impl Report {
    pub(super) fn add(&mut self, place: Place, what: What) {
        self.damage.push(Damage { place, what });
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Serialize)]
pub struct Damage {
    /// Where.
    pub place: Place,
    /// How.
    pub what: What,
}

/// Where damage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Place {
    /// The pool as a whole.
    #[error("pool")]
    Pool,
    /// A copy of a superblock.
    #[error("device {device} superblock {copy}")]
    Superblock {
        /// Which device.
        device: DeviceId,
        /// 0 or 1.
        copy: usize,
    },
    /// A table; 64 is the catalog.
    #[error("slice {0}")]
    Table(SliceId),
    /// One copy of a part of a table.
    #[error("slice {slice} {} copy {} (device {} byte {})", at.part, at.copy, at.device, at.offset)]
    Copy {
        /// The table.
        slice: SliceId,
        /// The part and where it lies.
        at: DamagedCopy,
    },
    /// A volume's entry in the catalog.
    #[error("volume {0}")]
    Volume(VolumeId),
    /// A fragment's records.
    #[error("slice {slice} volume {} fragment at {} KiB", key.volume, u64::from(key.start) * 64)]
    Fragment {
        /// The table.
        slice: SliceId,
        /// The fragment.
        key: FragmentKey,
    },
    /// A chunk of a device.
    #[error("device {device} chunk {chunk}")]
    Chunk {
        /// Which device.
        device: DeviceId,
        /// Its number.
        chunk: u32,
    },
    /// A checkpoint extent.
    #[error("extent {0}")]
    Extent(u32),
    /// A stored block.
    #[error("volume {volume} block {block} (device {device} block {stored})")]
    Block {
        /// The volume.
        volume: VolumeId,
        /// Number of the 4 KiB block in it.
        block: u64,
        /// Where it is stored.
        device: DeviceId,
        /// 4 KiB block of the device.
        stored: u64,
    },
}

/// How something is damaged.
#[derive(Debug, thiserror::Error)]
pub enum What {
    /// A superblock copy is bad while the other is good.
    #[error("repairable: {0}; the other copy is good")]
    Superblock(FormatError),
    /// A copy in the metadata zone is bad or old while the other is good.
    #[error("repairable: differs from its other copy, which is good")]
    Differs,
    /// The pool would not open.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The table would be refused.
    #[error(transparent)]
    Table(#[from] RecoverError),
    /// A device failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The records contradict themselves.
    #[error("contradicts the table: {0}")]
    Contradiction(&'static str),
    /// Another table claims it too.
    #[error("claimed by slice {first} and slice {second}")]
    ClaimedTwice {
        /// Who came first.
        first: SliceId,
        /// Who came then.
        second: SliceId,
    },
    /// Both copies of its map page are bad.
    #[error("map page {0} is damaged in both copies")]
    NoMap(u32),
    /// No volume has its number.
    #[error("belongs to no volume")]
    NoVolume,
    /// It has bytes behind its volume's end.
    #[error("holds data beyond the end of its volume")]
    Beyond,
    /// Placement assigns it to another slice.
    #[error("belongs to slice {0}")]
    Misplaced(SliceId),
    /// Two volumes have one name.
    #[error("has the name of volume {0}")]
    SameName(VolumeId),
    /// The bytes are others than when they were written.
    #[error("stored data fails its checksum")]
    Checksum,
}

impl What {
    /// Nothing is lost: a server mends it when it starts, or when it next writes the part.
    pub fn is_repairable(&self) -> bool {
        matches!(self, What::Superblock(_) | What::Differs)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for What {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
