//! Looking at everything: after a restart, and for what was never given back.

use super::control::Job;
use super::oracle::Violation;
use super::world::World;
use crate::device::sim::SECTOR_BYTES;
use crate::table::open::GROUP_BUF_BYTES;
use crate::units::{BLOCK_BYTES, CoreId, VolumeId, WINDOW_BYTES};

/// Steps after which whatever is under way should long have ended.
const PATIENCE: u64 = 400_000;

impl World {
    /// Lets everything under way end.
    pub(super) fn quiesce(&mut self) -> Result<(), Violation> {
        let mut left = PATIENCE;
        while self.clients.in_flight() > 0 {
            self.idle_step(&mut left)?;
        }
        for core in &self.cores {
            core.table.self_check();
        }
        Ok(())
    }

    /// A step without new work; everybody ticks now and then.
    fn idle_step(&mut self, left: &mut u64) -> Result<(), Violation> {
        self.step(false)?;
        if self.rng.one_in(50) {
            for core in 0..self.cores.len() {
                self.with_core(core, |core, sink| core.table.tick(sink));
            }
        }
        *left -= 1;
        if *left == 0 {
            self.report_stuck();
        }
        assert!(*left > 0, "something never ends: {:?} {:?}", self.job, self.clients);
        Ok(())
    }

    /// The blocks that hold, or once held, something.
    fn touched(&mut self) -> Vec<(VolumeId, u64)> {
        let per_block = (BLOCK_BYTES / SECTOR_BYTES) as u64;
        let known = self.oracle.keys().into_iter().map(|key| (key.volume, key.sector / per_block));
        let mut blocks: Vec<_> = known.chain(self.ghosts.iter().copied()).collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    fn size_of(&self, volume: VolumeId) -> u64 {
        let found = self.playground.volumes.iter().find(|(id, _)| *id == volume);
        found.map_or(0, |(_, size)| *size)
    }

    /// Reads every block that was ever touched and still exists.
    pub(super) fn audit(&mut self) -> Result<(), Violation> {
        self.auditing = true;
        for (volume, block) in self.touched() {
            let size = self.size_of(volume);
            if block * BLOCK_BYTES as u64 >= size {
                continue;
            }
            while self.clients.in_flight() >= 8 {
                self.step(false)?;
            }
            let core = self.core_at_random();
            let id = CoreId::new(u8::try_from(core).expect("few cores"));
            let request = self.clients.audit(volume, block, size, id, &mut self.shared);
            let request = request.expect("memory for a few blocks");
            self.with_core(core, |core, sink| core.composer.submit(request, false, sink));
        }
        self.quiesce()?;
        self.auditing = false;
        Ok(())
    }

    /// Discards everything and flushes: every chunk and every page must come back.
    pub(super) fn check_leaks(&mut self) -> Result<(), Violation> {
        self.auditing = true;
        let mut left = PATIENCE;
        // In a full pool, zeroing the edge of a shrunk volume waits for space.
        self.discard_everything(&mut left)?;
        self.flush_all(&mut left)?;
        if std::mem::take(&mut self.halted) {
            // A trim that found no space is tried again, as the server does.
            self.resume_jobs();
        }
        while self.job != Job::Idle {
            self.idle_step(&mut left)?;
        }
        self.round_up_sizes();
        self.discard_everything(&mut left)?;
        while !self.is_empty() {
            self.flush_all(&mut left)?;
        }
        Ok(())
    }

    fn discard_everything(&mut self, left: &mut u64) -> Result<(), Violation> {
        let mut windows: Vec<_> = self
            .touched()
            .into_iter()
            .map(|(volume, block)| (volume, block * BLOCK_BYTES as u64 / WINDOW_BYTES))
            .collect();
        windows.dedup();
        for (volume, window) in windows {
            let offset = window * WINDOW_BYTES;
            let size = self.size_of(volume);
            if offset >= size {
                continue;
            }
            let length = WINDOW_BYTES.min(size - offset);
            let core = self.core_at_random();
            let id = CoreId::new(u8::try_from(core).expect("few cores"));
            let range = (offset, length);
            let request =
                self.clients.discard(volume, range, id, &mut self.oracle, &mut self.shared);
            self.with_core(core, |core, sink| core.composer.submit(request, false, sink));
            while self.clients.in_flight() >= 8 {
                self.idle_step(left)?;
            }
        }
        self.quiesce()
    }

    fn flush_all(&mut self, left: &mut u64) -> Result<(), Violation> {
        let volumes = self.playground.volumes.clone();
        for (volume, _) in volumes {
            let id = CoreId::new(0);
            let request = self.clients.flush(volume, id, &self.oracle);
            self.with_core(0, |core, sink| core.composer.submit(request, false, sink));
        }
        for _ in 0..2_000 {
            self.idle_step(left).inspect_err(|_| ())?;
            if *left < 5_000 {
                self.report_leaks();
            }
        }
        self.quiesce()
    }

    /// Ends the job, flushes everything and lets nothing be under way.
    #[cfg(test)]
    pub(super) fn stop(&mut self) -> Result<(), Violation> {
        let mut left = PATIENCE;
        while self.job != Job::Idle {
            self.idle_step(&mut left)?;
        }
        self.quiesce()?;
        self.flush_all(&mut left)
    }

    fn is_empty(&self) -> bool {
        let chunks = self.shared.space.chunks.iter().enumerate().all(|(device, bitmap)| {
            bitmap.free() + self.hidden.get(device).copied().unwrap_or(0) == bitmap.len()
        });
        let permanent = |core: usize| {
            let slices = self.cores[core].table.slices().count();
            u32::try_from(slices * GROUP_BUF_BYTES / BLOCK_BYTES).expect("few pages")
        };
        chunks && (0..self.cores.len()).all(|core| self.shared.taken_pages(core) == permanent(core))
    }

    fn report_stuck(&self) {
        for core in &self.cores {
            for (_, piece) in core.table.pieces.iter() {
                println!(
                    "{:?} {:?} slice {} {:?} first {} count {} pending {} reserved {}",
                    piece.kind,
                    piece.phase,
                    piece.slice,
                    piece.key,
                    piece.first,
                    piece.count,
                    piece.pending,
                    piece.reserved
                );
                let slice = core.table.slices().find(|slice| slice.id == piece.slice).expect("its");
                println!(
                    "  log {} of group {}, {:?} {:?}, {} deferred, {} waiting, limbo {:?}",
                    slice.log.load(),
                    slice.log.group(),
                    slice.journal.commit,
                    slice.journal.snapshot,
                    slice.deferred.len(),
                    slice.waiting.len(),
                    slice.limbo
                );
                let fragment = piece.frag.and_then(|at| slice.index.get(at));
                if let Some(f) = fragment {
                    println!(
                        "  {} present, {} cold, {} copies, {} pins, slots {:?}",
                        f.present,
                        f.cold_blocks,
                        f.copies,
                        f.pins,
                        f.fast.each_ref().map(|s| s.as_ref().map(|s| (s.taken, s.named)))
                    );
                }
            }
            println!("jobs {:?}", core.table.tiering);
        }
    }

    fn report_leaks(&self) {
        for (device, bitmap) in self.shared.space.chunks.iter().enumerate() {
            let hidden = self.hidden.get(device).copied().unwrap_or(0);
            let held = bitmap.len() - bitmap.free() - hidden;
            println!("device {device}: {held} chunks still held");
        }
        for core in &self.cores {
            for slice in core.table.slices() {
                for fragment in slice.index.iter() {
                    println!(
                        "slice {} {:?}: {} blocks, {} pins, stage {:?}",
                        slice.id, fragment.key, fragment.present, fragment.pins, fragment.stage
                    );
                }
            }
        }
        panic!("space or memory never comes back");
    }
}
