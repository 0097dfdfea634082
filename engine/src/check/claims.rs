//! Who claims what: slots, chunks and extents have one owner, fragments a volume.

use std::collections::HashMap;

use super::report::{Place, Report, What};
use super::tables::Volumes;
use crate::format::layout::CATALOG;
use crate::format::record::FragmentKey;
use crate::table::fragment::Fragment;
use crate::table::index::Index;
use crate::table::open::{claim_pages, claim_slots};
use crate::table::pages::EXTENT_PAGES;
use crate::table::space::{DeviceGeometry, Space};
use crate::units::{BLOCK_BYTES, DeviceId, SliceId};
use crate::volume::catalog::{CATALOG_EXTENTS, DELETING, TRIMMING};
use crate::volume::placement::slice_of;

/// Owners seen so far, over all tables.
#[derive(Debug, Default)]
pub(super) struct Claims {
    chunks: HashMap<(DeviceId, u32), SliceId>,
    extents: HashMap<u32, SliceId>,
}

impl Claims {
    /// A table's checkpoint extents and map pages.
    pub(super) fn extents(
        &mut self,
        slice: SliceId,
        extents: &[u32],
        index: &Index,
        report: &mut Report,
    ) {
        let mut pages = std::collections::BTreeSet::new();
        let mut homes = std::collections::BTreeSet::new();
        let claimed = claim_pages(index, |page, count| {
            homes.insert(page / EXTENT_PAGES);
            (page..page.saturating_add(count)).all(|page| pages.insert(page))
        });
        if let Err(what) = claimed {
            report.add(Place::Table(slice), What::Contradiction(what));
        }
        let homes: Vec<_> = extents.iter().copied().chain(homes).collect();
        for extent in &homes {
            if (*extent < CATALOG_EXTENTS) != (slice == CATALOG) {
                let what = "an extent of the catalog in a slice, or the other way round";
                report.add(Place::Extent(*extent), What::Contradiction(what));
            }
            if let Some(first) = self.extents.insert(*extent, slice) {
                report.add(Place::Extent(*extent), What::ClaimedTwice { first, second: slice });
            }
        }
    }

    /// A table's slots and chunks.
    pub(super) fn slots(
        &mut self,
        slice: SliceId,
        index: &Index,
        devices: &[DeviceGeometry],
        report: &mut Report,
    ) {
        let mut space: Vec<_> = devices.iter().map(|device| Space::new(*device)).collect();
        for (key, seat, size) in index.all() {
            if let Err(what) = claim_slots(&seat.placement(size), devices, &mut space) {
                let place = Place::Fragment { slice, key };
                report.add(place, What::Contradiction(what));
            }
        }
        for (device, space) in devices.iter().zip(&space) {
            for chunk in space.owned() {
                if let Some(first) = self.chunks.insert((device.id, chunk), slice) {
                    let place = Place::Chunk { device: device.id, chunk };
                    report.add(place, What::ClaimedTwice { first, second: slice });
                }
            }
        }
    }
}

/// A fragment stands in its slice and inside a volume that exists.
pub(super) fn check_home(
    slice: SliceId,
    fragment: &Fragment,
    volumes: Option<&Volumes>,
    report: &mut Report,
) {
    let key: FragmentKey = fragment.key;
    let place = Place::Fragment { slice, key };
    let start = u64::from(key.start) << 16;
    let home = slice_of(key.volume, start);
    if home != slice {
        report.add(place, What::Misplaced(home));
    }
    let Some(volumes) = volumes else { return };
    let Some(volume) = volumes.get(&key.volume) else {
        return report.add(place, What::NoVolume);
    };
    let last = (0..fragment.size.blocks()).rev().find(|block| !fragment.entry(*block).is_hole());
    let end = last.map_or(0, |last| start + u64::from(last) * BLOCK_BYTES as u64 + 1);
    if end > volume.size_bytes && volume.flags & (DELETING | TRIMMING) == 0 {
        report.add(place, What::Beyond);
    }
}
