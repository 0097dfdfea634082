//! The I/O interceptor of a core: every client request is seen here once.
//!
//! It feeds the recorder, and the predictor or the client's prefetcher, and turns
//! predictions into messages to the owners of the predicted fragments. It is
//! bounded in every direction: what does not fit is dropped, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use predictor::online::{Answer, Predictor};
use predictor::prefetch::{Outcome, Predictions, PrefetchKind, Prefetcher, Settings};
use predictor::rank::Saved;
use predictor::trace::{Op as TraceOp, Record};
use predictor::{Access, deep};
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::recorder::TraceTap;
use super::tower::Settled;
use crate::core::clock;
use crate::request::{Op, Request};
use crate::stage::load::Staging;
use crate::table::Counters;
use crate::table::sink::Met;
use crate::units::{BLOCK_SHIFT, ClientId, FragmentSize, Nanos, VolumeId};
use crate::volume::Volumes;
use crate::volume::composer::{Foresight, Watched};

/// Predictions of one core that other cores have not yet taken.
const MAX_OUTSTANDING: u32 = 64;
/// Most fragments that the learned predictor follows the stages of.
const MAX_TIER: usize = 1 << 13;
/// Clients whose patterns are followed at once on one core.
const MAX_CLIENTS: usize = 256;

/// Outcomes of stages over all cores, for the guards of all prefetchers.
#[derive(Debug, Default)]
pub struct Verdicts {
    hits: AtomicU64,
    late: AtomicU64,
    wasted: AtomicU64,
}

/// A client as traces name it.
fn short_client(client: ClientId) -> u32 {
    let [a, b, c, d, ..] = client.get().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The first block of a fragment, if the volume has it.
fn first_block(volumes: &Volumes, volume: u32, fragment: u64) -> Option<(VolumeId, u64)> {
    let id = VolumeId::new(volume);
    let of = volumes.get(id)?;
    let byte = fragment.checked_mul(of.fragment.bytes())?;
    (byte < of.view.size_bytes).then_some((id, byte >> BLOCK_SHIFT))
}

/// Fragments that stages of so many bytes hold.
fn tier_fragments(stage_bytes: u64) -> usize {
    let fragments = stage_bytes / FragmentSize::DEFAULT.bytes();
    usize::try_from(fragments).unwrap_or(MAX_TIER).clamp(1, MAX_TIER)
}

/// The interceptor of one core.
pub struct Observer {
    /// The pool has a cold device: else there is nothing to stage.
    cold: bool,
    kind: PrefetchKind,
    settings: Settings,
    clients: FxHashMap<ClientId, Prefetcher>,
    /// The learned one, of all clients.
    predictor: Option<Box<Predictor>>,
    /// What new predictors begin with.
    saved: Option<Arc<Saved>>,
    /// What their towers run, and whether it is trained.
    tower: Option<(Arc<deep::Model>, bool)>,
    /// Where crossings go that a tower can learn from.
    settled: Settled,
    /// Fragments of the default size that stages hold, by this core's share.
    tier_fragments: usize,
    /// Where a recording copies requests to.
    pub tap: Option<Arc<TraceTap>>,
    verdicts: Arc<Verdicts>,
    /// Parts of the shared verdicts that this core's table has contributed, and that it has read.
    given: Counters,
    taken: [u64; 3],
    out: Predictions,
    /// Predictions that have been sent to other cores and not been answered.
    pub outstanding: u32,
}

impl Observer {
    /// An interceptor that has seen nothing.
    pub fn new(
        cold: bool,
        kind: PrefetchKind,
        settings: Settings,
        stage_bytes: u64,
        settled: Settled,
        verdicts: Arc<Verdicts>,
    ) -> Self {
        let mut this = Self {
            cold,
            kind,
            settings,
            clients: FxHashMap::with_capacity_and_hasher(MAX_CLIENTS, FxBuildHasher),
            predictor: None,
            saved: None,
            tower: None,
            settled,
            tier_fragments: tier_fragments(stage_bytes),
            tap: None,
            verdicts,
            given: Counters::default(),
            taken: [0; 3],
            out: Predictions::default(),
            outstanding: 0,
        };
        this.configure(kind, settings);
        this
    }

    /// Changes who prefetches, and how. The learned one keeps what it knows as long as it is
    /// asked; the others learn anew.
    pub fn configure(&mut self, kind: PrefetchKind, settings: Settings) {
        self.kind = kind;
        self.settings = settings;
        self.clients.clear();
        if kind != PrefetchKind::Learned || !self.cold {
            self.predictor = None;
            return;
        }
        let known = self.predictor.as_mut().map(|predictor| predictor.configure(settings));
        if known.is_none_or(|result| result.is_err()) {
            let made = Predictor::new(settings, self.tier_fragments);
            let mut checked = made.expect("settings are checked where they are set");
            if let Some(saved) = &self.saved {
                checked.remember(Arc::clone(saved));
            }
            if let Some((model, trained)) = &self.tower {
                checked.install(Arc::clone(model), *trained);
            }
            self.predictor = Some(Box::new(checked));
        }
    }

    /// Stages may take so many bytes from now on.
    pub fn set_stage_budget(&mut self, bytes: u64) {
        self.tier_fragments = tier_fragments(bytes);
        if let Some(predictor) = &mut self.predictor {
            predictor.resize(self.tier_fragments);
        }
    }

    /// Towers run this model from now on.
    pub fn install(&mut self, model: Arc<deep::Model>, trained: bool) {
        if let Some(predictor) = &mut self.predictor {
            predictor.install(Arc::clone(&model), trained);
        }
        self.tower = Some((model, trained));
    }

    /// Takes models of an earlier run or of all cores.
    pub fn remember(&mut self, saved: Arc<Saved>) {
        if let Some(predictor) = &mut self.predictor {
            predictor.remember(Arc::clone(&saved));
        }
        self.saved = Some(saved);
    }

    /// Learns from requests that were made elsewhere or earlier.
    pub fn study(&mut self, client: ClientId, accesses: &[Access]) {
        if let Some(predictor) = &mut self.predictor {
            for access in accesses {
                predictor.study(client.get(), access);
                predictor.settled(|crossing| self.settled.push(*crossing).is_ok());
            }
        }
    }

    /// The learned predictor, if it is at work.
    pub fn predictor(&mut self) -> Option<&mut Predictor> {
        self.predictor.as_deref_mut()
    }

    /// True if another prediction may be sent to another core.
    pub fn may_send(&self) -> bool {
        self.outstanding < MAX_OUTSTANDING
    }

    /// Sees a request. Calls `forecast` for each volume and first block whose fragment is
    /// expected soon; says what is foreseen of the request itself.
    pub fn see(
        &mut self,
        request: &Request,
        volumes: &Volumes,
        now: Nanos,
        mut forecast: impl FnMut((VolumeId, u64)),
    ) -> Foresight {
        let write = match request.op {
            Op::Read => false,
            Op::Write | Op::CompareAndWrite => true,
            _ => return Foresight::default(),
        };
        if let Some(tap) = &self.tap {
            let record = Record {
                time_us: Some(now.get() / 1000),
                op: if write { TraceOp::Write } else { TraceOp::Read },
                offset_bytes: request.offset.get(),
                size_bytes: request.length.max(1),
                client: short_client(request.client),
            };
            tap.push(request.volume, record);
        }
        let Some(volume) = volumes.get(request.volume).filter(|_| self.cold) else {
            return Foresight::default();
        };
        let shift = volume.fragment.log2();
        let (of, offset) = (request.volume.get(), request.offset.get());
        let access = Access::new(now.get().max(1), of, write, offset, request.length, shift);
        if self.predictor.is_some() {
            return self.look_ahead(request.client, &access, volumes, forecast);
        }
        if !self.knows(request.client, shift) {
            return Foresight::default();
        }
        let Self { clients, out, .. } = self;
        let prefetcher = clients.get_mut(&request.client).expect("it is known");
        prefetcher.observe(&access, out);
        let mut whole = false;
        for prediction in out.as_slice() {
            let place = first_block(volumes, prediction.volume, prediction.fragment);
            whole |= volumes.get(VolumeId::new(prediction.volume)).is_some();
            place.into_iter().for_each(&mut forecast);
        }
        Foresight { whole, watched: false }
    }

    fn look_ahead(
        &mut self,
        client: ClientId,
        access: &Access,
        volumes: &Volumes,
        mut forecast: impl FnMut((VolumeId, u64)),
    ) -> Foresight {
        let predictor = self.predictor.as_mut().expect("the learned one is at work");
        let mut beyond = smallvec::SmallVec::<[(u32, u64); 16]>::new();
        let mut foresight = Foresight::default();
        for fragment in access.fragments() {
            let stage = |volume, fragment| match first_block(volumes, volume, fragment) {
                Some(place) => forecast(place),
                None => beyond.push((volume, fragment)),
            };
            let clock = || clock::now().get();
            if let Some(crossed) = predictor.touch(client.get(), access, fragment, clock, stage) {
                let of_reads = !access.write;
                foresight = Foresight { whole: crossed.whole && of_reads, watched: of_reads };
                // A full queue means that the trainer is behind: it learns from a sample.
                predictor.settled(|crossing| self.settled.push(*crossing).is_ok());
            }
        }
        // There is nothing past a volume's end.
        for (volume, fragment) in beyond {
            predictor.answered(volume, fragment, Answer::Needless);
        }
        foresight
    }

    /// What a request that came to a fragment has met there.
    pub fn met(&mut self, watched: &Watched, met: Met, volumes: &Volumes) {
        let Some(predictor) = &mut self.predictor else { return };
        let Some(of) = volumes.get(watched.volume) else { return };
        let fragments = watched.fragments(of.fragment.log2());
        predictor.met(watched.volume.get(), fragments, met, watched.whole);
    }

    /// What became of a prediction of this core.
    pub fn answered(&mut self, volume: VolumeId, block: u64, staging: Staging, volumes: &Volumes) {
        let Some(predictor) = &mut self.predictor else { return };
        let Some(of) = volumes.get(volume) else { return };
        let fragment = (block << BLOCK_SHIFT) >> of.fragment.log2();
        predictor.answered(volume.get(), fragment, staging.into());
    }

    /// True if the client has a prefetcher, made now if need be and possible.
    fn knows(&mut self, client: ClientId, shift: u8) -> bool {
        if self.kind == PrefetchKind::None {
            return false;
        }
        if self.clients.contains_key(&client) {
            return true;
        }
        if self.clients.len() == MAX_CLIENTS {
            return false;
        }
        let settings = Settings { fragment_shift: shift, ..self.settings };
        let Ok(prefetcher) = Prefetcher::new(self.kind, settings) else { return false };
        self.clients.insert(client, prefetcher);
        true
    }

    /// Shares what became of this core's stages and tells the prefetchers what became of all.
    pub fn judge(&mut self, counters: &Counters) {
        let give = |sum: &AtomicU64, now: u64, before: u64| {
            sum.fetch_add(now - before, Ordering::Relaxed);
        };
        give(&self.verdicts.hits, counters.hits, self.given.hits);
        give(&self.verdicts.late, counters.late, self.given.late);
        give(&self.verdicts.wasted, counters.wasted, self.given.wasted);
        self.given = *counters;
        let sums = [&self.verdicts.hits, &self.verdicts.late, &self.verdicts.wasted];
        let outcomes = [Outcome::Hit, Outcome::Late, Outcome::Wasted];
        for ((sum, outcome), taken) in sums.into_iter().zip(outcomes).zip(&mut self.taken) {
            let sum = sum.load(Ordering::Relaxed);
            // Beyond some dozens the running precision has forgotten the first of them.
            for _ in 0..(sum - *taken).min(64) {
                for prefetcher in self.clients.values_mut() {
                    prefetcher.feedback(outcome);
                }
            }
            *taken = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tower;
    use super::*;

    #[test]
    fn a_pool_without_a_cold_device_has_no_predictor() {
        let observer = |cold| {
            let (settings, verdicts) = (Settings::default(), Arc::new(Verdicts::default()));
            let kind = PrefetchKind::Learned;
            Observer::new(cold, kind, settings, 64 << 20, tower::queue(), verdicts)
        };
        assert!(observer(true).predictor().is_some());
        let mut without = observer(false);
        without.configure(PrefetchKind::Learned, Settings::default());
        assert!(without.predictor().is_none());
    }
}
