//! The block maps of a table, from both copies of their pages.

use super::report::{Place, Report, What};
use crate::format::layout::MetaLayout;
use crate::format::map_page::{MapId, PAGE_BLOCKS};
use crate::journal::io::{IoError, PoolIo};
use crate::journal::parts::{DamagedCopy, TableId, TablePart};
use crate::table::assemble::{assemble, open_pages};
use crate::table::fragment::Fragment;
use crate::table::index::{Index, Span};
use crate::units::BLOCK_BYTES;

/// The fragments of a span with their maps; none if they would be refused.
pub(super) fn read_span(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    table: TableId,
    index: &Index,
    span: Span,
    report: &mut Report,
) -> Vec<Fragment> {
    let here = || {
        let (key, _) = index.seats(span).next().expect("a span with fragments");
        Place::Fragment { slice: table.slice, key }
    };
    let found = match index.page(span) {
        None => assemble(index, span, &|_, _| None),
        Some((page, written)) => {
            let size = index.span_size(span).expect("a span with fragments");
            let bytes = match read_pages(io, meta, table, span, (page, written, size), report) {
                Ok(bytes) => bytes,
                Err(error) => {
                    report.add(here(), error.into());
                    return Vec::new();
                }
            };
            let Some(bytes) = bytes else {
                report.add(here(), What::NoMap(page));
                return Vec::new();
            };
            let first = map_id(table, span, written);
            let pages = open_pages(&bytes, &first).expect("just opened");
            assemble(index, span, &|page, block| pages[page].entry(block))
        }
    };
    found.unwrap_or_else(|what| {
        report.add(here(), What::Contradiction(what));
        Vec::new()
    })
}

/// All fragments of a table that can be read.
#[cfg(test)]
pub(crate) fn fragments(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    table: TableId,
    index: &Index,
) -> Vec<Fragment> {
    let mut spans: Vec<Span> = index.all().map(|(key, ..)| Span::of(key)).collect();
    spans.dedup();
    let mut quiet = Report::default();
    let read = |span| read_span(io, meta, table, index, span, &mut quiet);
    spans.into_iter().flat_map(read).collect()
}

fn map_id(table: TableId, span: Span, written: u32) -> MapId {
    let TableId { pool, slice } = table;
    MapId { pool, slice, volume: span.volume, unit: span.unit, written }
}

/// The bytes of a good copy of a span's pages; a bad copy is reported.
fn read_pages(
    io: &mut dyn PoolIo,
    meta: &MetaLayout,
    table: TableId,
    span: Span,
    (page, written, size): (u32, u32, crate::units::FragmentSize),
    report: &mut Report,
) -> Result<Option<Vec<u8>>, IoError> {
    let count = Span::pages(size) as usize;
    assert_eq!(count, (size.blocks() as usize).div_ceil(PAGE_BLOCKS));
    if u64::from(page) + count as u64 > u64::from(meta.pages()) {
        return Ok(None);
    }
    let mut good = None;
    let mut bad = Vec::new();
    for copy in 0..2 {
        let (device, offset) = meta.place(copy, meta.page(page));
        let mut bytes = vec![0; count * BLOCK_BYTES];
        io.read(device, offset, &mut bytes)?;
        match open_pages(&bytes, &map_id(table, span, written)) {
            Ok(_) => good = Some(bytes),
            Err(_) => bad.push(DamagedCopy { part: TablePart::Map(page), copy, device, offset }),
        }
    }
    if good.is_some() {
        for at in bad {
            report.add(Place::Copy { slice: table.slice, at }, What::Differs);
        }
    }
    Ok(good)
}
