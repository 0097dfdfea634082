//! What map pages and replayed records add up to.

use super::fragment::Fragment;
use super::index::{Index, Span};
use crate::format::map_page::{MapId, PAGE_BLOCKS, RawMapPage, open};
use crate::format::record::{Entry, FragmentKey, Record, Records};
use crate::planted::{Bug, planted};
use crate::units::BLOCK_BYTES;

/// A page's blocks as entries: `page` is the page's number in its span.
type PageEntry<'a> = &'a dyn Fn(usize, usize) -> Option<Entry>;

/// The fragments of a span as page and replayed records say.
pub fn assemble(
    index: &Index,
    span: Span,
    page: PageEntry<'_>,
) -> Result<Vec<Fragment>, &'static str> {
    let Some(size) = index.span_size(span) else { return Ok(Vec::new()) };
    let blocks = size.blocks() as usize;
    let unit = |key: FragmentKey| (key.start as usize * 16) % PAGE_BLOCKS;
    let mut maps: Vec<(FragmentKey, Vec<Option<Entry>>)> = index
        .seats(span)
        .map(|(key, seat)| {
            let entry = |block: usize| {
                let at = unit(key) + block;
                seat.page().and_then(|_| page(at / PAGE_BLOCKS, at % PAGE_BLOCKS))
            };
            (key, (0..blocks).map(entry).collect())
        })
        .collect();
    let pending = if planted(Bug::ReplayForgotten) { &[] } else { index.pending(span) };
    for record in Records::new(pending) {
        let record = record.map_err(|_| "malformed")?;
        let (key, first) = match record {
            Record::Blocks { key, first, .. } | Record::Holes { key, first, .. } => (key, first),
            Record::Drop(key) => (key, 0),
            _ => continue,
        };
        let Some((_, map)) = maps.iter_mut().find(|(of, _)| *of == key) else { continue };
        let rest = &mut map[usize::from(first).min(blocks)..];
        match record {
            Record::Blocks { entries, .. } => {
                rest.iter_mut().zip(entries.iter()).for_each(|(slot, entry)| *slot = Some(entry));
            }
            Record::Holes { count, .. } => {
                rest.iter_mut().take(count.into()).for_each(|slot| *slot = None);
            }
            _ => rest.fill(None),
        }
    }
    let fragment = |(key, map): (FragmentKey, Vec<Option<Entry>>)| {
        let (seat, size) = index.seat(key).expect("just seen");
        let mut fragment = Fragment::placed(key, &seat.placement(size));
        fragment.stuck = seat.stuck;
        fragment.last_use = seat.last_use();
        fragment.adopt_map(&map)?;
        Ok(fragment)
    };
    maps.into_iter().map(fragment).collect()
}

/// The pages of a span in `bytes`, if all are what they should be.
pub fn open_pages<'a>(
    bytes: &'a [u8],
    first: &MapId,
) -> Result<Vec<&'a RawMapPage>, crate::format::FormatError> {
    let page = |(unit, block)| open(block, &MapId { unit, ..*first });
    (first.unit..).zip(bytes.chunks_exact(BLOCK_BYTES)).map(page).collect()
}

/// Pages as they are: only a planted bug takes them so.
pub(super) fn believe_pages<'a>(
    bytes: &'a [u8],
    _: &MapId,
) -> Result<Vec<&'a RawMapPage>, crate::format::FormatError> {
    bytes.chunks_exact(BLOCK_BYTES).map(RawMapPage::unchecked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::{
        MAX_RECORD_BYTES, Mapped, Placement, put_blocks, put_drop, put_holes,
    };
    use crate::table::entry::{Place, SlotRef};
    use crate::units::{Crc, DeviceId, FragmentSize, Generation, VolumeId};

    const KEY: FragmentKey = FragmentKey { volume: VolumeId::new(1), start: 16 };

    fn entry(block: u32) -> Entry {
        Entry { place: Place::fast(0, block), crc: Crc::new(block) }
    }

    type Encode<'a> = &'a dyn Fn(&mut [u8]) -> usize;

    /// The span of one fragment with a seat, and records that were replayed behind it.
    fn index(page: Option<u32>, records: &[Encode<'_>]) -> Index {
        let slot = SlotRef { device: DeviceId::new(0), block: 256 };
        let (size, generation) = (FragmentSize::DEFAULT, Generation::new(1));
        let placement = Placement { size, generation, fast: [Some(slot), None], cold: None };
        let mapped = Mapped { page, written: 1, present: 0, cold_blocks: 0 };
        let mut index = Index::default();
        index.adopt(KEY, &placement, &mapped).expect("a free seat");
        for record in records {
            let mut out = [0; MAX_RECORD_BYTES];
            let len = record(&mut out);
            index.postpone(Span::of(KEY), &out[..len]);
        }
        index
    }

    fn blocks(index: &Index, page: PageEntry<'_>) -> [Option<Entry>; 4] {
        let found = assemble(index, Span::of(KEY), page).expect("sound");
        assert_eq!(found.len(), 1);
        [0, 1, 2, 3].map(|block| found[0].authority(block))
    }

    #[test]
    fn replayed_records_come_after_the_page_in_order() {
        // The fragment is the second of its span: its blocks start at 256 of the page.
        let page = |_: usize, at: usize| {
            let block = u32::try_from(at).expect("below 512").checked_sub(256)?;
            (block < 3).then(|| entry(block))
        };
        assert_eq!(
            blocks(&index(Some(7), &[]), &page),
            [Some(entry(0)), Some(entry(1)), Some(entry(2)), None]
        );
        let overwrite = |out: &mut [u8]| put_blocks(out, KEY, 1, [entry(9), entry(10)].into_iter());
        let discard = |out: &mut [u8]| put_holes(out, KEY, 2, 2);
        let replayed = index(Some(7), &[&overwrite, &discard]);
        assert_eq!(blocks(&replayed, &page), [Some(entry(0)), Some(entry(9)), None, None]);
        let dropped = index(Some(7), &[&|out| put_drop(out, KEY), &overwrite]);
        assert_eq!(blocks(&dropped, &page), [None, Some(entry(9)), Some(entry(10)), None]);
    }

    #[test]
    fn a_seat_without_a_page_is_all_holes_but_for_replayed_records() {
        let no_page = |_: usize, _: usize| panic!("there is none");
        assert_eq!(blocks(&index(None, &[]), &no_page), [None; 4]);
        let write = |out: &mut [u8]| put_blocks(out, KEY, 3, [entry(5)].into_iter());
        assert_eq!(blocks(&index(None, &[&write]), &no_page), [None, None, None, Some(entry(5))]);
    }
}
