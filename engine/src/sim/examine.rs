//! The offline examination of a simulated pool, dead or recovered.

use super::broken::Broken;
use super::shared::SimPool;
use super::world::{BOOT, World};
use crate::check::{Damage, Depth, PendingLogs, Place, check_pool};
use crate::format::layout::{CATALOG, JOURNALS};
use crate::journal::parts::{DamagedCopy, TablePart};

/// The catalog's log, by its index among all.
pub(super) const CATALOG_LOG: usize = CATALOG.get() as usize;

impl World {
    fn examine(&mut self) -> Vec<Damage> {
        self.outcome.checks += 1;
        let memory = (0..JOURNALS)
            .map(|slice| self.logs[usize::from(slice)].as_ref().map(|log| log.duplicate()))
            .collect();
        let logs = PendingLogs { boot: BOOT, memory };
        let mut disks = std::mem::take(&mut self.shared.disks);
        let mut io = SimPool { disks: &mut disks, fuel: None, rng: &mut self.rng };
        let report = check_pool(&mut io, &self.sizes, &logs, Depth::Deep);
        self.shared.disks = disks;
        report.damage
    }

    /// A dead pool may be in need of repair, and hold rotten blocks, but no other damage.
    pub(super) fn examine_dead(&mut self) -> Result<(), Broken> {
        for damage in self.examine() {
            if !damage.what.is_repairable() && !self.is_rotten(&damage.place) {
                return Err(Broken::Pool(format!("dead pool: {}: {}", damage.what, damage.place)));
            }
        }
        Ok(())
    }

    /// A recovered pool holds no damage but rotten blocks, and copies of map pages, which are
    /// mended when they are next written.
    pub(super) fn examine_recovered(&mut self) -> Result<(), Broken> {
        for damage in self.examine() {
            if !self.is_rotten(&damage.place) && !is_map(&damage.place) {
                let text = format!("recovered pool: {}: {}", damage.what, damage.place);
                return Err(Broken::Pool(text));
            }
        }
        Ok(())
    }

    fn is_rotten(&self, place: &Place) -> bool {
        let Place::Block { device, stored, .. } = *place else { return false };
        self.shared.disks[usize::from(device.get())].is_rotten(stored)
    }
}

fn is_map(place: &Place) -> bool {
    let map = |at: &DamagedCopy| matches!(at.part, TablePart::Map(_));
    matches!(place, Place::Copy { at, .. } if map(at))
}
