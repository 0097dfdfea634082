//! The I/O interceptor of a core: every client request is seen here once.
//!
//! It feeds the trainer, the recorder and the client's prefetcher, and turns
//! predictions into messages to the owners of the predicted fragments. It is
//! bounded in every direction: what does not fit is dropped, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use predictor::Access;
use predictor::lstm::Weights;
use predictor::prefetch::{Outcome, Predictions, PrefetchKind, Prefetcher, Settings};
use predictor::trace::{Op as TraceOp, Record};
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::recorder::TraceTap;
use crate::request::{Op, Request};
use crate::table::Counters;
use crate::units::{BLOCK_SHIFT, ClientId, Nanos, VolumeId};
use crate::volume::Volumes;

/// Predictions of one core that other cores have not yet taken.
const MAX_OUTSTANDING: u32 = 64;
/// Clients whose patterns are followed at once on one core.
const MAX_CLIENTS: usize = 256;

/// What the trainer learns from: who, and what.
pub type Lesson = (ClientId, Access);

/// Outcomes of stages over all cores, for the guards of all prefetchers.
#[derive(Debug, Default)]
pub struct Verdicts {
    hits: AtomicU64,
    late: AtomicU64,
    wasted: AtomicU64,
}

/// A prediction to be delivered: volume and first block.
pub type Forecast = (VolumeId, u64);

/// A client as traces name it.
fn short_client(client: ClientId) -> u32 {
    let [a, b, c, d, ..] = client.get().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The interceptor of one core.
pub struct Observer {
    kind: PrefetchKind,
    settings: Settings,
    weights: Option<Arc<Weights>>,
    clients: FxHashMap<ClientId, Prefetcher>,
    lessons: Arc<ArrayQueue<Lesson>>,
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
        kind: PrefetchKind,
        settings: Settings,
        lessons: Arc<ArrayQueue<Lesson>>,
        verdicts: Arc<Verdicts>,
    ) -> Self {
        Self {
            kind,
            settings,
            weights: None,
            clients: FxHashMap::with_capacity_and_hasher(MAX_CLIENTS, FxBuildHasher),
            lessons,
            tap: None,
            verdicts,
            given: Counters::default(),
            taken: [0; 3],
            out: Predictions::default(),
            outstanding: 0,
        }
    }

    /// Changes who prefetches; patterns are learned anew.
    pub fn configure(&mut self, kind: PrefetchKind, settings: Settings) {
        self.kind = kind;
        self.settings = settings;
        self.clients.clear();
    }

    /// Takes new weights.
    pub fn install(&mut self, weights: &Arc<Weights>) {
        self.weights = Some(Arc::clone(weights));
        for prefetcher in self.clients.values_mut() {
            prefetcher.install(Arc::clone(weights));
        }
    }

    /// Serial number of the weights in use, 0 without any.
    pub fn model_version(&self) -> u64 {
        self.weights.as_ref().map_or(0, |weights| weights.serial())
    }

    /// True if another prediction may be sent to another core.
    pub fn may_send(&self) -> bool {
        self.outstanding < MAX_OUTSTANDING
    }

    /// Sees a request. Calls `forecast` for each block whose fragment is expected soon;
    /// returns true if the request belongs to a stream worth staging on a miss.
    pub fn see(
        &mut self,
        request: &Request,
        volumes: &Volumes,
        now: Nanos,
        mut forecast: impl FnMut(Forecast),
    ) -> bool {
        let write = match request.op {
            Op::Read => false,
            Op::Write | Op::CompareAndWrite => true,
            _ => return false,
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
        let Some(volume) = volumes.get(request.volume) else { return false };
        let shift = volume.fragment.log2();
        let last = request.offset.get() + u64::from(request.length.max(1)) - 1;
        let access = Access {
            time_ns: now.get().max(1),
            volume: request.volume.get(),
            write,
            fragment: request.offset.get() >> shift,
            last_fragment: last >> shift,
            offset_bytes: request.offset.get(),
            size_bytes: request.length,
            fragment_shift: shift,
        };
        if self.kind == PrefetchKind::Lstm {
            // A full queue means that the trainer is behind: it learns from a sample.
            let _ = self.lessons.push((request.client, access));
        }
        if !self.knows(request.client, shift) {
            return false;
        }
        let Self { clients, out, .. } = self;
        let prefetcher = clients.get_mut(&request.client).expect("it is known");
        prefetcher.observe(&access, out);
        let mut predictable = false;
        for prediction in out.as_slice() {
            let id = VolumeId::new(prediction.volume);
            let Some(volume) = volumes.get(id) else { continue };
            let byte = prediction.fragment.checked_shl(u32::from(volume.fragment.log2()));
            predictable = true;
            if let Some(byte) = byte.filter(|byte| *byte < volume.view.size_bytes) {
                forecast((id, byte >> BLOCK_SHIFT));
            }
        }
        predictable
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
        let Ok(mut prefetcher) = Prefetcher::new(self.kind, settings) else { return false };
        if let Some(weights) = &self.weights {
            prefetcher.install(Arc::clone(weights));
        }
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
