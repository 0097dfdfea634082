//! Looking at everything: after a restart, and for what was never given back.

use super::broken::Broken;
use super::control::Job;
use super::core::{Asked, core_id};
use super::world::World;
use crate::request::Request;
use crate::table::open::GROUP_BUF_BYTES;
use crate::units::{BLOCK_BYTES, VolumeId, WINDOW_BYTES};
use crate::volume::composer::Foresight;

/// Steps after which whatever is under way should long have ended.
const PATIENCE: u64 = 400_000;
/// Requests under way in an audit.
const AUDIT_DEPTH: usize = 8;
/// Blocks that an audit reads at once.
const AUDIT_BLOCKS: u64 = 16;

impl World {
    /// Lets everything under way end.
    pub(super) fn quiesce(&mut self) -> Result<(), Broken> {
        let mut left = PATIENCE;
        while self.clients.in_flight() > 0 {
            self.idle_step(&mut left)?;
        }
        for core in &self.cores {
            core.table.self_check();
        }
        Ok(())
    }

    /// A step without new work; where nothing can happen, time passes.
    fn idle_step(&mut self, left: &mut u64) -> Result<(), Broken> {
        self.step(false)?;
        *left -= 1;
        let hangs = left.is_multiple_of(16) && !self.skip_time() && self.clients.in_flight() > 0;
        if hangs || *left == 0 {
            let why = if hangs { "nothing can happen" } else { "much happens" };
            let (job, open) = (self.job, self.clients.in_flight());
            let what = format!("something never ends, {why}: {open} requests open, {job:?}");
            let text = format!("{what}\n{}", self.describe());
            return Err(Broken::Stuck(text));
        }
        Ok(())
    }

    fn ask(&mut self, core: usize, request: Request) {
        self.cores[core].ask(Asked::Request(request, Foresight::default()));
    }

    /// The blocks that hold, or once held, something.
    fn touched(&mut self) -> Vec<(VolumeId, u64)> {
        let mut blocks = self.oracle.blocks();
        blocks.extend(self.ghosts.iter().copied());
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    fn size_of(&self, volume: VolumeId) -> u64 {
        let found = self.playground.volumes.iter().find(|(id, _)| *id == volume);
        found.map_or(0, |(_, size)| *size)
    }

    /// Reads every block that was ever touched and still exists.
    pub(super) fn audit(&mut self) -> Result<(), Broken> {
        self.auditing = true;
        let refuses = std::mem::take(&mut self.shared.refuses);
        let mut runs: Vec<(VolumeId, std::ops::Range<u64>)> = Vec::new();
        let per_window = WINDOW_BYTES / BLOCK_BYTES as u64;
        for (volume, block) in self.touched() {
            match runs.last_mut() {
                Some((of, run))
                    if *of == volume
                        && run.end == block
                        && block % per_window != 0
                        && block - run.start < AUDIT_BLOCKS =>
                {
                    run.end += 1;
                }
                _ => runs.push((volume, block..block + 1)),
            }
        }
        self.audit_runs(runs)?;
        // Where a part of a run cannot be read, the others can.
        let again = std::mem::take(&mut self.clients.again);
        self.audit_runs(again.into_iter().map(|(volume, block)| (volume, block..block + 1)))?;
        self.shared.refuses = refuses;
        self.auditing = false;
        Ok(())
    }

    fn audit_runs(
        &mut self,
        runs: impl IntoIterator<Item = (VolumeId, std::ops::Range<u64>)>,
    ) -> Result<(), Broken> {
        for (volume, blocks) in runs {
            let size = self.size_of(volume);
            if blocks.start * BLOCK_BYTES as u64 >= size {
                continue;
            }
            let mut left = PATIENCE;
            while self.clients.in_flight() >= AUDIT_DEPTH {
                self.idle_step(&mut left)?;
            }
            let core = self.core_at_random();
            let shared = &mut self.shared;
            let request = self.clients.audit(volume, blocks, size, core_id(core), shared);
            self.ask(core, request);
        }
        self.quiesce()
    }

    /// Discards everything and flushes: every chunk and every page must come back.
    pub(super) fn check_leaks(&mut self) -> Result<(), Broken> {
        self.auditing = true;
        self.shared.refuses = 0;
        let mut left = PATIENCE;
        // In a full pool, zeroing the edge of a shrunk volume waits for space.
        self.discard_everything(&mut left)?;
        self.flush_all(&mut left)?;
        if self.clients.failed_discards > 0 {
            // A rotten block at the edge of a range can be neither zeroed nor dropped.
            return Ok(());
        }
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
            if left < PATIENCE / 8 {
                let text = format!("space or memory never comes back\n{}", self.describe());
                return Err(Broken::Stuck(text));
            }
        }
        Ok(())
    }

    fn discard_everything(&mut self, left: &mut u64) -> Result<(), Broken> {
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
            let range = (offset, WINDOW_BYTES.min(size - offset));
            let core = self.core_at_random();
            let (oracle, shared) = (&mut self.oracle, &mut self.shared);
            let request = self.clients.discard(volume, range, core_id(core), oracle, shared);
            self.ask(core, request);
            while self.clients.in_flight() >= AUDIT_DEPTH {
                self.idle_step(left)?;
            }
        }
        self.quiesce()
    }

    fn flush_all(&mut self, left: &mut u64) -> Result<(), Broken> {
        for (volume, _) in self.playground.volumes.clone() {
            let (oracle, shared) = (&mut self.oracle, &mut self.shared);
            let request = self.clients.flush(volume, core_id(0), oracle, shared);
            self.ask(0, request);
        }
        self.quiesce()?;
        // Checkpoints and copies go on behind the answers.
        for _ in 0..1_000 {
            if self.is_empty() {
                break;
            }
            self.idle_step(left)?;
        }
        Ok(())
    }

    /// Ends the job, flushes everything and lets nothing be under way.
    #[cfg(test)]
    pub(super) fn stop(&mut self) -> Result<(), Broken> {
        let mut left = PATIENCE;
        while self.job != Job::Idle {
            self.idle_step(&mut left)?;
        }
        self.quiesce()?;
        self.flush_all(&mut left)?;
        for _ in 0..2_000 {
            self.idle_step(&mut left)?;
        }
        self.quiesce()
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
}
