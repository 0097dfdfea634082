//! Who claims what: slots, chunks and extents have one owner, fragments a volume.

use std::collections::HashMap;

use super::report::{Place, Report, What};
use super::tables::Volumes;
use crate::format::layout::CATALOG;
use crate::format::record::FragmentKey;
use crate::journal::recover::{Found, RecoveredFragment};
use crate::table::index::Index;
use crate::table::open::adopt;
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
    /// A table's checkpoint extents.
    pub(super) fn extents(&mut self, slice: SliceId, extents: &[u32], report: &mut Report) {
        for extent in extents {
            if (*extent < CATALOG_EXTENTS) != (slice == CATALOG) {
                let what = "an extent of the catalog in a slice, or the other way round";
                report.add(Place::Extent(*extent), What::Contradiction(what));
            }
            if let Some(first) = self.extents.insert(*extent, slice) {
                report.add(Place::Extent(*extent), What::ClaimedTwice { first, second: slice });
            }
        }
    }

    /// A table's slots and chunks; returns the fragments whose claims are sound.
    pub(super) fn slots<'a>(
        &mut self,
        slice: SliceId,
        found: &'a Found,
        devices: &[DeviceGeometry],
        report: &mut Report,
    ) -> Vec<(&'a FragmentKey, &'a RecoveredFragment)> {
        let mut index = Index::default();
        let mut space: Vec<_> = devices.iter().map(|device| Space::new(*device)).collect();
        let mut sound = Vec::new();
        for (key, fragment) in &found.state.fragments {
            match adopt(*key, fragment, devices, &mut index, &mut space) {
                Ok(()) => sound.push((key, fragment)),
                Err(what) => {
                    let place = Place::Fragment { slice, key: *key };
                    report.add(place, What::Contradiction(what));
                }
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
        sound
    }
}

/// A fragment stands in its slice and inside a volume that exists.
pub(super) fn check_home(
    slice: SliceId,
    key: FragmentKey,
    fragment: &RecoveredFragment,
    volumes: Option<&Volumes>,
    report: &mut Report,
) {
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
    let last = fragment.entries.iter().rposition(Option::is_some);
    let end = last.map_or(0, |last| start + last as u64 * BLOCK_BYTES as u64 + 1);
    if end > volume.size_bytes && volume.flags & (DELETING | TRIMMING) == 0 {
        report.add(place, What::Beyond);
    }
}
