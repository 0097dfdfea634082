//! The simple prefetchers of a core: none and readahead. The learned one is [`crate::online`].
//!
//! One [`Prefetcher`] per client and core. Each request of the client goes
//! through [`Prefetcher::observe`], which fills [`Predictions`] at fragment
//! crossings of reads. The consumer drops proposals that are resident, on their
//! way, past the volume's end or over its budget, stages the others at low
//! priority, and reports what became of each through [`Prefetcher::feedback`].
//!
//! Invariants: after construction nothing allocates, blocks or reads a clock;
//! writes are observed but never trigger; a prefetcher that does harm falls
//! silent ([`Prefetcher::is_silent`]).
#![forbid(unsafe_code)]

mod guard;
mod predictions;
mod readahead;
mod settings;

use crate::Access;
pub use crate::ledger::Outcome;
use guard::Guard;
pub use predictions::{Prediction, Predictions};
use readahead::Readahead;
pub use settings::{PrefetchKind, Settings, SettingsError};

enum Inner {
    None,
    Readahead(Box<Readahead>),
}

/// One client's prefetcher on one core.
pub struct Prefetcher {
    inner: Inner,
    guard: Guard,
}

impl Prefetcher {
    /// A prefetcher that has seen nothing.
    ///
    /// # Errors
    /// If a setting is out of its range.
    ///
    /// # Panics
    /// For [`PrefetchKind::Learned`]: it is of all clients of a core, [`crate::online`].
    pub fn new(kind: PrefetchKind, settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let inner = match kind {
            PrefetchKind::None => Inner::None,
            PrefetchKind::Learned => panic!("the learned one is of all clients of a core"),
            PrefetchKind::Readahead => Inner::Readahead(Box::new(Readahead::new(settings))),
        };
        Ok(Self { inner, guard: Guard::new() })
    }

    /// Which kind it is.
    pub fn kind(&self) -> PrefetchKind {
        match self.inner {
            Inner::None => PrefetchKind::None,
            Inner::Readahead(_) => PrefetchKind::Readahead,
        }
    }

    /// Follows one request and replaces the contents of `out` with what should
    /// be staged now, most urgent first.
    ///
    /// A proposal may repeat an earlier one.
    pub fn observe(&mut self, access: &Access, out: &mut Predictions) {
        out.clear();
        match &mut self.inner {
            Inner::None => return,
            Inner::Readahead(readahead) => readahead.observe(access, out),
        }
        self.guard.filter(out);
    }

    /// What became of one staged proposal.
    pub fn feedback(&mut self, outcome: Outcome) {
        self.guard.feedback(outcome);
    }

    /// True while it withholds its proposals because too few were used.
    ///
    /// A running precision (hit 1, late ½, wasted 0) below ¼ silences it for 512
    /// would-be triggers; then a few proposals probe, and each probe that fails
    /// doubles the next silence.
    pub fn is_silent(&self) -> bool {
        self.guard.is_silent()
    }
}
