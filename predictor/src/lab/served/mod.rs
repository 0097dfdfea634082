//! The account as a server keeps it: what runs on a core, with an imagined device.
//!
//! The learned prefetcher is the one of a core ([`Predictor`]), with what it is told there and
//! when: requests cut at fragments, answers of the stages, what each request has met once it
//! has ended. Everything begins on the cold device. Without prefetch nothing is kept: a read
//! fetches its blocks, as often as it comes. A write waits for nothing, and what it has
//! written is read from the fast tier from then on.
//!
//! Not modelled: copies of what is read often on the fast tier, and what leaves it; the read
//! that a write of a part of a block needs; several cores.
#![forbid(unsafe_code)]

mod device;
mod server;
mod stages;

use std::sync::Arc;

use super::tier::Key;
use super::verdict::{Device, Verdict};
use super::{Contender, LabError, Setup};
use crate::ledger::Ledger;
use crate::online::Predictor;
use crate::prefetch::{Predictions, Settings};
use crate::{Access, deep};
pub use device::MAX_PASSED_OVER;
use server::Server;
pub use stages::{QUIET_NS, RUN_BLOCKS};

/// A server that stages ahead, and one that does not.
pub(super) struct Served {
    with: Server,
    without: Server,
    trainer: Option<deep::Trainer>,
    verdict: Verdict,
    /// The fragment touched last.
    at: Option<Key>,
}

impl Served {
    pub fn new(setup: &Setup) -> Result<Served, LabError> {
        assert!(setup.contender.is_served(), "no core runs {}", setup.contender);
        #[expect(clippy::cast_possible_truncation, reason = "a share, as the user wrote it")]
        let prefetch_budget = setup.extra_share as f32;
        let settings = Settings {
            prefetch_depth: setup.per_request.min(Predictions::CAPACITY),
            prefetch_budget,
            ..setup.settings
        };
        let mut predictor = None;
        let mut trainer = None;
        if setup.contender != Contender::None {
            let made = deep::Trainer::new(setup.seed)?.with_length(settings.sequence_length);
            let made = trainer.insert(made);
            let known = Predictor::new(settings, setup.tier_fragments)?;
            predictor.insert(known).install(Arc::clone(made.model()), false);
        }
        Ok(Served {
            with: Server::new(setup, predictor),
            without: Server::new(setup, None),
            trainer,
            verdict: Verdict::default(),
            at: None,
        })
    }

    /// Reads of cold fragments that found no stage, with prefetch and without.
    pub fn misses(&self) -> (u64, u64) {
        (self.with.misses, self.without.misses)
    }

    /// Whether the tower has enough to learn from.
    pub fn is_due(&mut self) -> bool {
        let (Some(predictor), Some(trainer)) = (&mut self.with.predictor, &mut self.trainer) else {
            return false;
        };
        let mut due = false;
        predictor.settled(|crossing| {
            due |= trainer.push(crossing);
            true
        });
        due
    }

    /// A round of training of the tower; true if it runs another model now.
    pub fn teach(&mut self) -> Result<bool, LabError> {
        let (Some(predictor), Some(trainer)) = (&mut self.with.predictor, &mut self.trainer) else {
            return Ok(false);
        };
        let won = trainer.round()?;
        if won {
            predictor.install(Arc::clone(trainer.model()), trainer.is_trained());
        }
        Ok(won)
    }

    pub fn request(&mut self, access: &Access) {
        for fragment in access.fragments() {
            let key = (access.volume, fragment);
            self.verdict.touches += u64::from(!access.write);
            self.verdict.crossings += u64::from(self.at != Some(key));
            self.at = Some(key);
        }
        self.with.request(access);
        self.without.request(access);
    }

    pub fn verdict(self, has_clock: bool) -> Verdict {
        let Served { with, without, mut verdict, .. } = self;
        verdict.ghost_misses = without.misses;
        verdict.ghost_read_misses = without.misses;
        verdict.read_misses = with.misses;
        verdict.ledger = Ledger { misses: with.misses, issued: with.issued, ..with.stages.ledger };
        let device = || Device { with: with.waits(), without: without.waits() };
        verdict.device = has_clock.then(device);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::{Model, run};

    const MS: u64 = 1_000_000;

    fn setup(contender: Contender) -> Setup {
        let model = Model { bytes_per_second: 262_144_000, ..Model::HDD };
        Setup { served: true, model, ..Setup::new(contender, Settings::default(), 8) }
    }

    fn access(ms: u64, write: bool, offset: u64, bytes: u32) -> Access {
        Access::new(ms * MS, 0, write, offset, bytes, 20)
    }

    fn judged(accesses: &[Access], contender: Contender) -> Verdict {
        run(accesses, &setup(contender), Duration::default, |_| ()).unwrap().verdict
    }

    /// 64 KiB take a quarter of a millisecond, a seek 8.
    ///
    /// | time | request                        | head                     | waits |
    /// |------|--------------------------------|--------------------------|-------|
    /// | 1    | reads 64 KiB of 0              | until 9.25               | 8.25  |
    /// | 2    | reads the same                 | close by, until 9.5      | 7.5   |
    /// | 20   | writes the first 32 KiB        |                          | 0     |
    /// | 30   | reads 32 KiB of 0              |                          | 0     |
    /// | 40   | reads 64 KiB of 0              | the rest, until 40.125   | 0.125 |
    /// | 60   | reads 32 KiB before 5 MiB      | until 68.125             |       |
    /// |      | and 32 KiB behind it           | until 68.25              | 8.25  |
    #[test]
    fn without_prefetch_each_read_fetches_its_blocks() {
        let accesses = [
            access(1, false, 0, 65536),
            access(2, false, 0, 65536),
            access(20, true, 0, 32768),
            access(30, false, 0, 32768),
            access(40, false, 0, 65536),
            access(60, false, (5 << 20) - 32768, 65536),
        ];
        let verdict = judged(&accesses, Contender::None);
        let Device { with, without } = verdict.device.unwrap();
        assert_eq!(with, without);
        assert_eq!((with.reads, with.stalled, with.total_ns), (5, 4, 24 * MS + MS / 8));
        assert_eq!((with.slow, with.slow_p99_ns), (3, 8 * MS + MS / 4));
        assert_eq!((verdict.touches, verdict.ledger.misses), (6, 5));
        assert_eq!(with.head_ns, 17 * MS - MS / 8);
    }

    #[test]
    fn a_walk_is_staged_and_hardly_waits() {
        // 16 reads of each of 300 fragments, 10 ms apart.
        let walk = |n: u64| access(1 + 10 * n, false, n << 16, 65536);
        let accesses: Vec<Access> = (0..4800).map(walk).collect();
        let verdict = judged(&accesses, Contender::Learned);
        let Device { with, without } = verdict.device.unwrap();
        assert_eq!(without.stalled, 4800);
        assert!(10 * with.stalled < without.stalled, "{with:?}");
        assert!(10 * with.total_ns < without.total_ns, "{with:?}");
        let ledger = verdict.ledger;
        assert!(ledger.hits > 200 && ledger.hits + ledger.late <= ledger.issued, "{ledger:?}");
        assert_eq!(judged(&accesses, Contender::Learned), verdict, "equal runs are equal");
    }
}
