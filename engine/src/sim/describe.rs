//! What is under way in a world that does not end.

use super::world::World;

impl World {
    /// What is under way or held, for a report.
    pub(super) fn describe(&self) -> String {
        let mut lines = Vec::new();
        for (device, bitmap) in self.shared.space.chunks.iter().enumerate() {
            let hidden = self.hidden.get(device).copied().unwrap_or(0);
            let held = bitmap.len() - bitmap.free() - hidden;
            lines.push(format!("device {device}: {held} chunks held"));
        }
        for core in &self.cores {
            for (_, piece) in core.table.pieces.iter() {
                lines.push(format!(
                    "piece {:?} {:?} slice {} {:?} first {} count {} pending {} reserved {}",
                    piece.kind,
                    piece.phase,
                    piece.slice,
                    piece.key,
                    piece.first,
                    piece.count,
                    piece.pending,
                    piece.reserved
                ));
            }
            for slice in core.table.slices() {
                let journal = &slice.journal;
                let busy = !slice.waiting.is_empty() || !slice.deferred.is_empty();
                if !busy && slice.index.is_empty() {
                    continue;
                }
                lines.push(format!(
                    "slice {}: log {} of group {}, {:?} {:?}, {} deferred, {} waiting, {} fragments",
                    slice.id,
                    slice.log.load(),
                    slice.log.group(),
                    journal.commit,
                    journal.snapshot,
                    slice.deferred.len(),
                    slice.waiting.len(),
                    slice.index.len()
                ));
                for f in slice.index.iter() {
                    lines.push(format!(
                        "  {:?}: {} present, {} cold, {} copies, {} pins, {:?}, slots {:?}",
                        f.key,
                        f.present,
                        f.cold_blocks,
                        f.copies,
                        f.pins,
                        f.saved,
                        f.fast.each_ref().map(|s| s.as_ref().map(|s| (s.taken, s.named)))
                    ));
                }
            }
            let starved = core.table.starved;
            lines.push(format!("core starved {starved} {:?}", core.table.tiering));
        }
        lines.join("\n")
    }
}
