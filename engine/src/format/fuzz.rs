//! Fuzz targets of the codecs: see [`crate::fuzz`].

use super::checkpoint::{PAGE_HEADER_BYTES, Root, open_page, seal_page};
use super::journal_block::{HEADER_BYTES, open, seal};
use super::map_page::{self, MapId};
use super::record::{
    MAX_RECORD_BYTES, Record, Records, put_blocks, put_drop, put_fragment, put_holes, put_seat,
    put_volume, put_volume_gone,
};
use super::{block_crc, record};
use crate::units::{BLOCK_BYTES, SliceId, VolumeId};

/// The pool and the table that inputs are decoded for.
pub(crate) const POOL: u64 = 0x7061_7274_7369_6465;
pub(crate) const SLICE: SliceId = SliceId::new(5);

/// Input as a block: cut off, or filled up with zeros.
pub(crate) fn block(bytes: &[u8]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let len = bytes.len().min(BLOCK_BYTES);
    block[..len].copy_from_slice(&bytes[..len]);
    block
}

/// Puts a block's checksum right.
pub(crate) fn reseal(block: &mut [u8; BLOCK_BYTES], crc_at: usize) {
    let crc = block_crc(block, crc_at).get();
    block[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// A journal block and the records in it.
pub fn journal(bytes: &[u8]) {
    records(bytes);
    let mut raw = block(bytes);
    journal_block(&raw);
    reseal(&mut raw, 4);
    journal_block(&raw);
}

fn journal_block(raw: &[u8; BLOCK_BYTES]) {
    let Ok((header, _, payload)) = open(raw) else { return };
    let mut again = [0; BLOCK_BYTES];
    again[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let crc = seal(&mut again, &header);
    assert_eq!(open(&again), Ok((header, crc, payload)));
    records(payload);
}

/// Every record is encoded as it was decoded.
fn records(bytes: &[u8]) {
    for decoded in Records::new(bytes) {
        let Ok(decoded) = decoded else { return };
        let mut out = [0; MAX_RECORD_BYTES];
        let len = put(&mut out, &decoded);
        let mut again = Records::new(&out[..len]);
        assert_eq!(again.next(), Some(Ok(decoded)));
        assert_eq!(again.next(), None);
    }
}

fn put(out: &mut [u8], decoded: &Record<'_>) -> usize {
    match decoded {
        Record::Fragment(key, placement) => put_fragment(out, *key, placement),
        Record::Seat(key, placement, mapped) => put_seat(out, *key, placement, mapped),
        Record::Blocks { key, first, entries } => {
            let entries: Vec<record::Entry> = entries.iter().collect();
            put_blocks(out, *key, *first, entries.into_iter())
        }
        Record::Holes { key, first, count } => put_holes(out, *key, *first, *count),
        Record::Drop(key) => put_drop(out, *key),
        Record::Volume(volume) => put_volume(out, volume),
        Record::VolumeGone(id) => put_volume_gone(out, *id),
    }
}

/// A checkpoint's root and page, and a map page.
pub fn checkpoint(bytes: &[u8]) {
    let mut raw = block(bytes);
    for _ in 0..2 {
        root(&raw);
        page(&raw);
        map(&raw);
        reseal(&mut raw, 4);
    }
}

/// A map page is encoded as it was decoded, but for what is reserved and the checksums of holes.
fn map(raw: &[u8; BLOCK_BYTES]) {
    let (volume, slice) = (VolumeId::new(1), SLICE);
    let id = MapId { pool: POOL, slice, volume, unit: 2, written: 3 };
    let Ok(page) = map_page::open(raw, &id) else { return };
    let mut again = [0; BLOCK_BYTES];
    map_page::encode(&mut again, &id, |block| page.entry(block));
    let other = map_page::open(&again, &id).expect("as written");
    assert!((0..map_page::PAGE_BLOCKS).all(|block| page.entry(block) == other.entry(block)));
}

fn root(raw: &[u8; BLOCK_BYTES]) {
    if let Ok(root) = Root::decode(raw, POOL, SLICE) {
        assert_eq!(Root::decode(&root.encode(POOL, SLICE), POOL, SLICE), Ok(root));
    }
}

fn page(raw: &[u8; BLOCK_BYTES]) {
    let Ok(payload) = open_page(raw, POOL, SLICE, 1, 0) else { return };
    let mut again = [0; BLOCK_BYTES];
    again[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let len = u16::try_from(payload.len()).expect("less than a block");
    seal_page(&mut again, POOL, SLICE, 1, 0, len);
    assert_eq!(open_page(&again, POOL, SLICE, 1, 0), Ok(payload));
    records(payload);
}
