//! Records: the one language of journal, shared-memory log and checkpoint.
//!
//! A record states what *is*, never what changed, so replaying one twice, or
//! replaying a range over a newer state and then to its end, gives the same
//! table. Layout: kind (1), reserved (1), length in bytes (2), body.

use crate::table::entry::{Place, SlotRef};
use crate::units::{Crc, FragmentSize, Generation, VolumeId};

/// Longest record: a volume with the longest name fits, and so does [`MAX_ENTRIES`].
pub const MAX_RECORD_BYTES: usize = 512;
/// Block entries in one record.
pub const MAX_ENTRIES: usize = 64;
/// Longest volume name in bytes.
pub const MAX_NAME_BYTES: usize = 255;

const FRAGMENT: u8 = 1;
const BLOCKS: u8 = 2;
const HOLES: u8 = 3;
const DROP: u8 = 4;
const SEAT: u8 = 5;
const VOLUME: u8 = 16;
const VOLUME_GONE: u8 = 17;
const ENTRY_BYTES: usize = 6;
const FRAGMENT_BYTES: usize = 44;
const RANGE_BYTES: usize = 16;
const DROP_BYTES: usize = 12;
const SEAT_BYTES: usize = 56;
const VOLUME_BYTES: usize = 44;

/// A fragment's identity: a volume and an aligned start, in 64 KiB units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// The volume.
    pub volume: VolumeId,
    /// Start in the volume's address space, in units of 64 KiB.
    pub start: u32,
}

/// Where a fragment's copies lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Size.
    pub size: FragmentSize,
    /// Generation when this was recorded.
    pub generation: Generation,
    /// Fast slots: the second exists while overwrites move from one to the other.
    pub fast: [Option<SlotRef>; 2],
    /// Cold slot.
    pub cold: Option<SlotRef>,
}

/// What a checkpoint says of a fragment beside its placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// First map page, in blocks from the start of the checkpoint extents; `None`: all holes.
    pub page: Option<u32>,
    /// Checkpoint that wrote it.
    pub written: u32,
    /// Blocks that are not holes.
    pub present: u16,
    /// Of those, blocks whose authority is the cold slot.
    pub cold_blocks: u16,
}

/// One block's authority: where it is and its checksum. A hole has no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A place in a fast slot, or [`Place::COLD`].
    pub place: Place,
    /// Checksum of the stored block.
    pub crc: Crc,
}

/// A volume's state in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeRecord<'a> {
    /// Number.
    pub id: VolumeId,
    /// Identity for life.
    pub uuid: [u8; 16],
    /// Size in bytes.
    pub size_bytes: u64,
    /// Size of fragments allocated from now on.
    pub fragment: FragmentSize,
    /// log2 of the presented block size: 9 or 12.
    pub block_shift: u8,
    /// Bit 0 read-only, bit 1 being deleted, bit 2 fragments beyond the end being dropped.
    pub flags: u8,
    /// Unique name.
    pub name: &'a str,
}

/// A decoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The fragment exists and lies there; its blocks keep their entries.
    Fragment(FragmentKey, Placement),
    /// The same, and where its map is (checkpoints only).
    Seat(FragmentKey, Placement, Mapped),
    /// Consecutive blocks from `first` have these entries.
    Blocks {
        /// Which fragment.
        key: FragmentKey,
        /// First block in the fragment.
        first: u16,
        /// Raw entries; see [`Entries`].
        entries: Entries<'a>,
    },
    /// Consecutive blocks from `first` are holes.
    Holes {
        /// Which fragment.
        key: FragmentKey,
        /// First block in the fragment.
        first: u16,
        /// How many.
        count: u16,
    },
    /// The fragment is gone.
    Drop(FragmentKey),
    /// The volume exists (catalog only).
    Volume(VolumeRecord<'a>),
    /// The volume is gone (catalog only).
    VolumeGone(VolumeId),
}

/// The entries of a [`Record::Blocks`], still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<'a>(&'a [u8]);

impl Entries<'_> {
    /// Number of entries, 1..=[`MAX_ENTRIES`].
    pub fn len(&self) -> usize {
        self.0.len() / ENTRY_BYTES
    }

    /// Never true in a decoded record.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries in block order.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        self.0.chunks_exact(ENTRY_BYTES).map(|raw| Entry {
            place: Place::from_raw(u16::from_le_bytes([raw[0], raw[1]])),
            crc: Crc::new(u32::from_le_bytes([raw[2], raw[3], raw[4], raw[5]])),
        })
    }
}

/// Bytes that [`put_blocks`] writes for `count` entries.
pub const fn blocks_bytes(count: usize) -> usize {
    RANGE_BYTES + count * ENTRY_BYTES
}

/// Bytes of a [`Record::Fragment`].
pub const fn fragment_bytes() -> usize {
    FRAGMENT_BYTES
}

/// Bytes of a [`Record::Seat`].
pub const fn seat_bytes() -> usize {
    SEAT_BYTES
}

/// Bytes of a [`Record::Holes`].
pub const fn holes_bytes() -> usize {
    RANGE_BYTES
}

/// A bounded little-endian writer over a record buffer.
struct Put<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Put<'a> {
    fn new(out: &'a mut [u8], kind: u8, len: usize) -> Self {
        let mut this = Put { out, at: 0 };
        this.bytes(&[kind, 0]);
        this.bytes(&u16::try_from(len).expect("a record is short").to_le_bytes());
        this
    }
    fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
    fn key(&mut self, key: FragmentKey) {
        self.bytes(&key.volume.get().to_le_bytes());
        self.bytes(&key.start.to_le_bytes());
    }
    fn placement(&mut self, placement: &Placement) {
        self.bytes(&[placement.size.log2(), 0, 0, 0]);
        self.bytes(&placement.generation.get().to_le_bytes());
        for slot in [placement.fast[0], placement.fast[1], placement.cold] {
            self.bytes(&SlotRef::to_raw(slot).to_le_bytes());
        }
    }
    fn finish(self, len: usize) -> usize {
        assert_eq!(self.at, len, "a record is as long as it says");
        len
    }
}

/// Encodes a [`Record::Fragment`] at the start of `out`; returns its length.
pub fn put_fragment(out: &mut [u8], key: FragmentKey, placement: &Placement) -> usize {
    let mut put = Put::new(out, FRAGMENT, FRAGMENT_BYTES);
    put.key(key);
    put.placement(placement);
    put.finish(FRAGMENT_BYTES)
}

/// Encodes a [`Record::Seat`].
pub fn put_seat(out: &mut [u8], key: FragmentKey, placement: &Placement, mapped: &Mapped) -> usize {
    let mut put = Put::new(out, SEAT, SEAT_BYTES);
    put.key(key);
    put.placement(placement);
    put.bytes(&mapped.page.unwrap_or(u32::MAX).to_le_bytes());
    put.bytes(&mapped.written.to_le_bytes());
    put.bytes(&mapped.present.to_le_bytes());
    put.bytes(&mapped.cold_blocks.to_le_bytes());
    put.finish(SEAT_BYTES)
}

/// Encodes a [`Record::Blocks`]; `entries` yields 1..=[`MAX_ENTRIES`] items.
pub fn put_blocks(
    out: &mut [u8],
    key: FragmentKey,
    first: u16,
    entries: impl ExactSizeIterator<Item = Entry>,
) -> usize {
    let count = entries.len();
    assert!((1..=MAX_ENTRIES).contains(&count));
    let len = blocks_bytes(count);
    let mut put = Put::new(out, BLOCKS, len);
    put.key(key);
    put.bytes(&first.to_le_bytes());
    put.bytes(&u16::try_from(count).expect("at most 64").to_le_bytes());
    for entry in entries {
        put.bytes(&entry.place.raw().to_le_bytes());
        put.bytes(&entry.crc.get().to_le_bytes());
    }
    put.finish(len)
}

/// Encodes a [`Record::Holes`].
pub fn put_holes(out: &mut [u8], key: FragmentKey, first: u16, count: u16) -> usize {
    let mut put = Put::new(out, HOLES, RANGE_BYTES);
    put.key(key);
    put.bytes(&first.to_le_bytes());
    put.bytes(&count.to_le_bytes());
    put.finish(RANGE_BYTES)
}

/// Encodes a [`Record::Drop`].
pub fn put_drop(out: &mut [u8], key: FragmentKey) -> usize {
    let mut put = Put::new(out, DROP, DROP_BYTES);
    put.key(key);
    put.finish(DROP_BYTES)
}

/// Encodes a [`Record::Volume`].
pub fn put_volume(out: &mut [u8], volume: &VolumeRecord<'_>) -> usize {
    let name = volume.name.as_bytes();
    assert!(name.len() <= MAX_NAME_BYTES);
    let len = VOLUME_BYTES + name.len();
    let mut put = Put::new(out, VOLUME, len);
    put.bytes(&volume.id.get().to_le_bytes());
    put.bytes(&volume.uuid);
    put.bytes(&volume.size_bytes.to_le_bytes());
    put.bytes(&[volume.fragment.log2(), volume.block_shift, volume.flags, 0]);
    put.bytes(&u32::try_from(name.len()).expect("at most 255").to_le_bytes());
    put.bytes(&[0; 4]);
    put.bytes(name);
    put.finish(len)
}

/// Encodes a [`Record::VolumeGone`].
pub fn put_volume_gone(out: &mut [u8], id: VolumeId) -> usize {
    let mut put = Put::new(out, VOLUME_GONE, 8);
    put.bytes(&id.get().to_le_bytes());
    put.finish(8)
}

/// Bytes that do not form a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record at byte {at}")]
pub struct RecordError {
    /// Where in the decoded bytes it starts.
    pub at: usize,
}

/// Iterates over encoded records; stops after the first error.
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// Over `bytes`, which must hold whole records only.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where the next record starts.
    pub fn position(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return None;
        }
        let at = self.at;
        let Some((record, len)) = decode(rest) else {
            self.at = self.bytes.len();
            return Some(Err(RecordError { at }));
        };
        self.at += len;
        Some(Ok(record))
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn key_at(bytes: &[u8]) -> Option<FragmentKey> {
    let volume = VolumeId::new(u32::from_le_bytes(array(bytes, 4)?));
    Some(FragmentKey { volume, start: u32::from_le_bytes(array(bytes, 8)?) })
}

fn decode(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    let len = usize::from(u16::from_le_bytes(array(bytes, 2)?));
    let body = bytes.get(..len)?;
    let record = match *body.first()? {
        FRAGMENT if len == FRAGMENT_BYTES => {
            let (key, placement) = decode_placement(body)?;
            Record::Fragment(key, placement)
        }
        SEAT if len == SEAT_BYTES => decode_seat(body)?,
        BLOCKS => decode_blocks(body)?,
        HOLES if len == RANGE_BYTES => {
            let first = u16::from_le_bytes(array(body, 12)?);
            let count = u16::from_le_bytes(array(body, 14)?);
            Record::Holes { key: key_at(body)?, first, count }
        }
        DROP if len == DROP_BYTES => Record::Drop(key_at(body)?),
        VOLUME => decode_volume(body)?,
        VOLUME_GONE if len == 8 => {
            Record::VolumeGone(VolumeId::new(u32::from_le_bytes(array(body, 4)?)))
        }
        _ => return None,
    };
    Some((record, len))
}

fn decode_placement(body: &[u8]) -> Option<(FragmentKey, Placement)> {
    let key = key_at(body)?;
    let slot = |at| Some(SlotRef::from_raw(u64::from_le_bytes(array(body, at)?)));
    let size = FragmentSize::from_log2(body[12])?;
    if u64::from(key.start) % (size.bytes() >> 16) != 0 {
        return None;
    }
    let generation = Generation::new(u32::from_le_bytes(array(body, 16)?));
    let placement = Placement { size, generation, fast: [slot(20)?, slot(28)?], cold: slot(36)? };
    Some((key, placement))
}

fn decode_seat(body: &[u8]) -> Option<Record<'_>> {
    let (key, placement) = decode_placement(body)?;
    let page = u32::from_le_bytes(array(body, 44)?);
    let written = u32::from_le_bytes(array(body, 48)?);
    let present = u16::from_le_bytes(array(body, 52)?);
    let cold_blocks = u16::from_le_bytes(array(body, 54)?);
    if u32::from(present) > placement.size.blocks() || cold_blocks > present {
        return None;
    }
    let page = (page != u32::MAX).then_some(page);
    Some(Record::Seat(key, placement, Mapped { page, written, present, cold_blocks }))
}

fn decode_blocks(body: &[u8]) -> Option<Record<'_>> {
    let first = u16::from_le_bytes(array(body, 12)?);
    let count = usize::from(u16::from_le_bytes(array(body, 14)?));
    if count == 0 || count > MAX_ENTRIES || body.len() != blocks_bytes(count) {
        return None;
    }
    let entries = Entries(&body[RANGE_BYTES..]);
    Some(Record::Blocks { key: key_at(body)?, first, entries })
}

fn decode_volume(body: &[u8]) -> Option<Record<'_>> {
    let id = VolumeId::new(u32::from_le_bytes(array(body, 4)?));
    let size_bytes = u64::from_le_bytes(array(body, 24)?);
    let [fragment, block_shift, flags, _] = array(body, 32)?;
    let name = std::str::from_utf8(body.get(VOLUME_BYTES..)?).ok()?;
    if u32::from_le_bytes(array(body, 36)?) as usize != name.len()
        || name.len() > MAX_NAME_BYTES
        || !matches!(block_shift, 9 | 12)
        || id.get() == u32::MAX
    {
        return None;
    }
    let fragment = FragmentSize::from_log2(fragment)?;
    let uuid = array(body, 8)?;
    Some(Record::Volume(VolumeRecord { id, uuid, size_bytes, fragment, block_shift, flags, name }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> FragmentKey {
        FragmentKey { volume: VolumeId::new(7), start: 48 }
    }

    #[test]
    fn every_kind_round_trips() {
        let mut out = [0; 2048];
        let placement = Placement {
            size: FragmentSize::DEFAULT,
            generation: Generation::new(3),
            fast: [SlotRef::from_raw(0x0100_0000_0000_1234), None],
            cold: None,
        };
        let entry = Entry { place: Place::from_raw(5), crc: Crc::new(9) };
        let name = "boot disk";
        let volume = VolumeRecord {
            id: VolumeId::new(1),
            uuid: [4; 16],
            size_bytes: 1 << 40,
            fragment: FragmentSize::MIN,
            block_shift: 9,
            flags: 1,
            name,
        };
        let mut at = put_fragment(&mut out, key(), &placement);
        at += put_blocks(&mut out[at..], key(), 3, [entry; 64].into_iter());
        at += put_holes(&mut out[at..], key(), 1, 2);
        at += put_drop(&mut out[at..], key());
        at += put_volume(&mut out[at..], &volume);
        at += put_volume_gone(&mut out[at..], VolumeId::new(1));
        let mapped = Mapped { page: Some(8), written: 3, present: 256, cold_blocks: 2 };
        at += put_seat(&mut out[at..], key(), &placement, &mapped);
        let records: Vec<_> = Records::new(&out[..at]).map(Result::unwrap).collect();
        assert_eq!(records[0], Record::Fragment(key(), placement));
        let Record::Blocks { entries, first: 3, .. } = records[1] else { panic!("blocks") };
        assert!(entries.len() == 64 && entries.iter().all(|e| e == entry));
        assert_eq!(records[2], Record::Holes { key: key(), first: 1, count: 2 });
        assert_eq!(records[3], Record::Drop(key()));
        assert_eq!(records[4], Record::Volume(volume));
        assert_eq!(records[5], Record::VolumeGone(VolumeId::new(1)));
        assert_eq!(records[6], Record::Seat(key(), placement, mapped));
    }

    #[test]
    fn the_last_volume_number_is_never_used() {
        let mut out = [0; MAX_RECORD_BYTES];
        for (id, refused) in [(u32::MAX - 1, false), (u32::MAX, true)] {
            let volume = VolumeRecord {
                id: VolumeId::new(id),
                uuid: [4; 16],
                size_bytes: 4096,
                fragment: FragmentSize::MIN,
                block_shift: 9,
                flags: 0,
                name: "a",
            };
            let len = put_volume(&mut out, &volume);
            assert_eq!(Records::new(&out[..len]).next().unwrap().is_err(), refused);
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Records::new(&bytes).count();
        }
    }
}
