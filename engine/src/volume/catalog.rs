//! The catalog: the durable list of volumes.
//!
//! One small table with a journal and checkpoint of its own, kept by the
//! control thread with synchronous I/O: every change is journaled and durable
//! before it is answered. A deletion or shrink is recorded first, carried out
//! in the slices, and then recorded as done; opening a pool finishes what was
//! begun.

use std::collections::BTreeMap;

use super::Volume;
use crate::format::checkpoint::{PAGE_HEADER_BYTES, PAGE_PAYLOAD_BYTES, Root, seal_page};
use crate::format::journal_block::MAX_GROUP_BLOCKS;
use crate::format::layout::{CATALOG, MetaLayout};
use crate::format::record::{
    MAX_NAME_BYTES, MAX_RECORD_BYTES, VolumeRecord, put_volume, put_volume_gone,
};
use crate::journal::chain::{JournalEnd, write_group};
use crate::journal::io::{IoError, PoolIo};
use crate::journal::parts::TableId;
use crate::journal::recover::Found;
use crate::journal::state::RecoveredVolume;
use crate::request::VolumeView;
use crate::units::{BLOCK_BYTES, FragmentSize, VolumeId};

/// [`RecoveredVolume::flags`]: writes are refused.
pub const READ_ONLY: u8 = 1;
/// [`RecoveredVolume::flags`]: its fragments are being dropped, then it goes.
pub const DELETING: u8 = 2;
/// [`RecoveredVolume::flags`]: fragments beyond its end are being dropped.
pub const TRIMMING: u8 = 4;

/// Why a volume cannot be created or changed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The name is taken.
    #[error("volume {0:?} exists already")]
    Exists(String),
    /// No volume has the name.
    #[error("no volume named {0:?}")]
    NotFound(String),
    /// The name is empty, too long or has characters that URIs and tools trip over.
    #[error("{0:?} is no volume name: 1 to 255 characters, letters, digits, '-', '_', '.' only")]
    Name(String),
    /// The catalog is full.
    #[error("a pool holds at most {MAX_VOLUMES} volumes")]
    Full,
    /// The size is zero, too large, or no multiple of the block size.
    #[error("{bytes} bytes is no volume size: a multiple of {block} from {block} to 64 TiB")]
    Size {
        /// The size asked for.
        bytes: u64,
        /// The presented block size.
        block: u32,
    },
    /// The block size is not offered.
    #[error("block size {0} is not offered: 512 or 4096")]
    BlockSize(u32),
    /// Shrinking loses data and needs `--force`.
    #[error(
        "shrinking {name:?} from {from} to {to} bytes drops what lies behind: repeat with --force"
    )]
    Shrink {
        /// Which volume.
        name: String,
        /// Its size.
        from: u64,
        /// The size asked for.
        to: u64,
    },
    /// An earlier shrink or deletion is not finished: what it drops must be gone first.
    #[error("volume {0:?} is still being shrunk or deleted: try again")]
    Busy(String),
    /// A device failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

const MAX_VOLUME_BYTES: u64 = 64 << 40;

/// What a new volume is to be.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// Unique name.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Size of its fragments.
    pub fragment: FragmentSize,
    /// 512 or 4096.
    pub block_bytes: u32,
    /// Writes are refused.
    pub read_only: bool,
}

/// The list of volumes and its journal.
#[derive(Debug)]
pub struct Catalog {
    volumes: BTreeMap<VolumeId, RecoveredVolume>,
    next_id: u32,
    end: JournalEnd,
    root: Root,
    id: TableId,
    incarnation: u32,
}

/// Consecutive extents for one checkpoint of the catalog.
const EXTENTS_EACH: u32 = 8;
/// The first extents of the metadata zone belong to the catalog: two sets, used in turn.
pub const CATALOG_EXTENTS: u32 = 2 * EXTENTS_EACH;
/// Volumes in a pool: even with the longest names they fit one set of extents.
pub const MAX_VOLUMES: usize = 1600;

fn check_size(bytes: u64, block: u32) -> Result<(), CatalogError> {
    let fits = bytes > 0 && bytes <= MAX_VOLUME_BYTES && bytes.is_multiple_of(block.into());
    if fits { Ok(()) } else { Err(CatalogError::Size { bytes, block }) }
}

impl Catalog {
    /// From what recovery found.
    pub fn open(found: Found, pool: u64, incarnation: u32) -> Self {
        let newest = found.state.volumes.keys().next_back().map_or(0, |id| id.get());
        Self {
            volumes: found.state.volumes,
            next_id: newest + 1,
            end: found.end,
            root: found.root,
            id: TableId { pool, slice: CATALOG },
            incarnation,
        }
    }

    /// All volumes, those being deleted included.
    pub fn iter(&self) -> impl Iterator<Item = (VolumeId, &RecoveredVolume)> {
        self.volumes.iter().map(|(id, volume)| (*id, volume))
    }

    /// What cores serve: volumes that are not being deleted.
    pub fn serving(&self) -> super::Volumes {
        let live = self.iter().filter(|(_, volume)| volume.flags & DELETING == 0);
        super::Volumes::new(live.map(|(id, volume)| served(id, volume)).collect())
    }

    /// The volume with that name, unless it is being deleted.
    pub fn find(&self, name: &str) -> Result<VolumeId, CatalogError> {
        self.iter()
            .find(|(_, volume)| volume.name == name && volume.flags & DELETING == 0)
            .map(|(id, _)| id)
            .ok_or_else(|| CatalogError::NotFound(name.to_owned()))
    }

    /// A volume by number.
    pub fn get(&self, id: VolumeId) -> Option<&RecoveredVolume> {
        self.volumes.get(&id)
    }

    /// Adds a volume, durably.
    pub fn create(
        &mut self,
        io: &mut dyn PoolIo,
        meta: &MetaLayout,
        new: &NewVolume,
        uuid: [u8; 16],
    ) -> Result<VolumeId, CatalogError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let named = !new.name.is_empty() && new.name.len() <= MAX_NAME_BYTES;
        if !named || !new.name.chars().all(plain) {
            return Err(CatalogError::Name(new.name.clone()));
        }
        if !matches!(new.block_bytes, 512 | 4096) {
            return Err(CatalogError::BlockSize(new.block_bytes));
        }
        check_size(new.size_bytes, new.block_bytes)?;
        if self.find(&new.name).is_ok() {
            return Err(CatalogError::Exists(new.name.clone()));
        }
        if self.volumes.len() >= MAX_VOLUMES || self.next_id == u32::MAX {
            return Err(CatalogError::Full);
        }
        let id = VolumeId::new(self.next_id);
        let volume = RecoveredVolume {
            uuid,
            size_bytes: new.size_bytes,
            fragment: new.fragment,
            block_shift: if new.block_bytes == 512 { 9 } else { 12 },
            flags: if new.read_only { READ_ONLY } else { 0 },
            name: new.name.clone(),
        };
        self.put(io, meta, id, volume)?;
        self.next_id += 1;
        Ok(id)
    }

    /// Records a new size; `TRIMMING` is set if it is smaller.
    pub fn resize(
        &mut self,
        io: &mut dyn PoolIo,
        meta: &MetaLayout,
        id: VolumeId,
        size_bytes: u64,
        force: bool,
    ) -> Result<bool, CatalogError> {
        let mut volume = self.volumes[&id].clone();
        check_size(size_bytes, 1 << volume.block_shift)?;
        if volume.flags & (DELETING | TRIMMING) != 0 {
            return Err(CatalogError::Busy(volume.name));
        }
        let shrinks = size_bytes < volume.size_bytes;
        if shrinks && !force {
            let (name, from) = (volume.name, volume.size_bytes);
            return Err(CatalogError::Shrink { name, from, to: size_bytes });
        }
        volume.size_bytes = size_bytes;
        if shrinks {
            volume.flags |= TRIMMING;
        }
        self.put(io, meta, id, volume)?;
        Ok(shrinks)
    }

    /// Records that a volume is being deleted.
    pub fn begin_delete(
        &mut self,
        io: &mut dyn PoolIo,
        meta: &MetaLayout,
        id: VolumeId,
    ) -> Result<(), IoError> {
        let mut volume = self.volumes[&id].clone();
        volume.flags |= DELETING;
        self.put(io, meta, id, volume)
    }

    /// Records that the slices have dropped what was to go.
    pub fn end_drop(
        &mut self,
        io: &mut dyn PoolIo,
        meta: &MetaLayout,
        id: VolumeId,
    ) -> Result<(), IoError> {
        let mut volume = self.volumes[&id].clone();
        if volume.flags & DELETING == 0 {
            volume.flags &= !TRIMMING;
            return self.put(io, meta, id, volume);
        }
        let mut record = [0; MAX_RECORD_BYTES];
        let len = put_volume_gone(&mut record, id);
        self.append(io, meta, &record[..len])?;
        self.volumes.remove(&id);
        Ok(())
    }

    fn put(
        &mut self,
        io: &mut dyn PoolIo,
        meta: &MetaLayout,
        id: VolumeId,
        volume: RecoveredVolume,
    ) -> Result<(), IoError> {
        let mut record = [0; MAX_RECORD_BYTES];
        let len = put_volume(&mut record, &record_of(id, &volume));
        self.append(io, meta, &record[..len])?;
        self.volumes.insert(id, volume);
        Ok(())
    }

    fn append(
        &mut self,
        io: &mut dyn PoolIo,
        meta: &MetaLayout,
        records: &[u8],
    ) -> Result<(), IoError> {
        let used = self.end.next_seq - self.root.start_seq;
        if used + MAX_GROUP_BLOCKS as u64 > u64::from(meta.journal_blocks) {
            self.checkpoint(io, meta)?;
        }
        write_group(io, meta, self.id, &mut self.end, records, self.incarnation)
    }

    /// Writes all volumes to the other extent and publishes it.
    fn checkpoint(&mut self, io: &mut dyn PoolIo, meta: &MetaLayout) -> Result<(), IoError> {
        let sequence = self.root.sequence + 1;
        let first = if sequence % 2 == 1 { EXTENTS_EACH } else { 0 };
        let mut pages: Vec<[u8; BLOCK_BYTES]> = Vec::new();
        let mut used = PAGE_PAYLOAD_BYTES;
        for (id, volume) in &self.volumes {
            let mut record = [0; MAX_RECORD_BYTES];
            let len = put_volume(&mut record, &record_of(*id, volume));
            if used + len > PAGE_PAYLOAD_BYTES {
                pages.push([0; BLOCK_BYTES]);
                used = 0;
            }
            let page = pages.last_mut().expect("just pushed");
            page[PAGE_HEADER_BYTES + used..][..len].copy_from_slice(&record[..len]);
            used += len;
        }
        let room = EXTENTS_EACH as usize * meta.extent_bytes as usize / BLOCK_BYTES;
        assert!(pages.len() <= room, "create keeps to the bound");
        for (index, page) in (0u32..).zip(&mut pages) {
            let bytes = payload_bytes(&page[PAGE_HEADER_BYTES..]);
            seal_page(page, self.id.pool, CATALOG, sequence, index, bytes);
        }
        let root = Root {
            sequence,
            start_seq: self.end.next_seq,
            start_prev: self.end.prev,
            incarnation: self.end.incarnation,
            start_group: self.end.group + 1,
            fuzzy_group: 0,
            pages: pages.len() as u64,
            extents: (first..first + EXTENTS_EACH).collect(),
        };
        let block = root.encode(self.id.pool, CATALOG);
        for copy in 0..2 {
            let (device, offset) = meta.place(copy, meta.extent(first));
            io.write(device, offset, pages.as_flattened())?;
            io.flush(device)?;
        }
        for copy in 0..2 {
            let (device, offset) = meta.place(copy, meta.root(CATALOG, sequence % 2));
            io.write(device, offset, &block)?;
            io.flush(device)?;
        }
        self.root = root;
        Ok(())
    }
}

/// Bytes of whole records at the start of a zero-filled payload.
fn payload_bytes(payload: &[u8]) -> u16 {
    let mut at = 0;
    while let Some(head) = payload.get(at..at + 4)
        && head[0] != 0
    {
        at += usize::from(u16::from_le_bytes([head[2], head[3]]));
    }
    u16::try_from(at).expect("within a page")
}

fn record_of(id: VolumeId, volume: &RecoveredVolume) -> VolumeRecord<'_> {
    VolumeRecord {
        id,
        uuid: volume.uuid,
        size_bytes: volume.size_bytes,
        fragment: volume.fragment,
        block_shift: volume.block_shift,
        flags: volume.flags,
        name: &volume.name,
    }
}

fn served(id: VolumeId, volume: &RecoveredVolume) -> Volume {
    Volume {
        view: VolumeView {
            id,
            name: volume.name.clone(),
            size_bytes: volume.size_bytes,
            block_bytes: 1 << volume.block_shift,
            read_only: volume.flags & READ_ONLY != 0,
        },
        uuid: volume.uuid,
        fragment: volume.fragment,
    }
}
