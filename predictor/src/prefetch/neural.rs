//! The LSTM prefetcher: one state per stream, a roll-out at each crossing.
//!
//! At a crossing of a read the network is rolled out from the stream's state:
//! every next fragment whose probability, multiplied along the way, reaches
//! `stage_threshold` is proposed; the way follows the likeliest class and is as
//! long as the stream's rate asks for. Until weights are installed, streams
//! confirmed by two equal steps get the classic readahead.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::readahead::Windows;
use super::{Prediction, Predictions, Settings};
use crate::Access;
use crate::lstm::{Inference, State, Weights};
use crate::stream::{Crossing, STREAMS, Streams};

/// One stream as the network knows it.
#[derive(Clone, Copy)]
struct Memory {
    state: State,
    /// The installation that `state` belongs to; 0 for none.
    epoch: u64,
    /// The newest deltas, a ring; replayed when weights are exchanged.
    deltas: [i64; Settings::MAX_SEQUENCE],
    /// Deltas ever recorded since the stream began.
    seen: usize,
}

/// The learned prefetcher of one client.
pub(super) struct Neural {
    settings: Settings,
    streams: Streams,
    fallback: Windows,
    network: Option<Network>,
    memories: [Memory; STREAMS],
}

struct Network {
    weights: Arc<Weights>,
    inference: Inference,
    epoch: u64,
}

impl Neural {
    pub fn new(settings: Settings) -> Self {
        let memory =
            Memory { state: State::zero(), epoch: 0, deltas: [0; Settings::MAX_SEQUENCE], seen: 0 };
        Self {
            settings,
            streams: Streams::new(),
            fallback: Windows::new(settings, false),
            network: None,
            memories: [memory; STREAMS],
        }
    }

    /// Streams take the new weights over at their next crossing, by replaying
    /// their last `sequence_length` deltas.
    pub fn install(&mut self, weights: Arc<Weights>) {
        let epoch = self.network.as_ref().map_or(1, |network| network.epoch + 1);
        self.network = Some(Network { weights, inference: Inference::new(), epoch });
    }

    pub fn observe(&mut self, access: &Access, out: &mut Predictions) {
        let Self { settings, streams, fallback, network, memories } = self;
        streams.observe(access, |crossing| {
            let memory = &mut memories[crossing.slot];
            memory.record(crossing);
            match network {
                None => fallback.cross(crossing, out),
                Some(network) => {
                    network.follow(memory, crossing.delta, settings.sequence_length);
                    if crossing.last && !crossing.write {
                        network.roll_out(&memory.state, crossing, settings, out);
                    }
                }
            }
        });
    }
}

impl Memory {
    fn record(&mut self, crossing: &Crossing) {
        if crossing.fresh {
            self.seen = 0;
            self.epoch = 0;
        }
        self.deltas[self.seen % Settings::MAX_SEQUENCE] = crossing.delta;
        self.seen += 1;
    }
}

impl Network {
    /// Brings a stream's state up to its newest delta.
    fn follow(&mut self, memory: &mut Memory, delta: i64, sequence_length: usize) {
        let vocabulary = self.weights.vocabulary();
        if memory.epoch == self.epoch {
            self.inference.step(&self.weights, &mut memory.state, vocabulary.class(delta));
            return;
        }
        memory.epoch = self.epoch;
        memory.state = State::zero();
        for i in memory.seen - memory.seen.min(sequence_length)..memory.seen {
            let class = vocabulary.class(memory.deltas[i % Settings::MAX_SEQUENCE]);
            self.inference.step(&self.weights, &mut memory.state, class);
        }
    }

    fn roll_out(
        &mut self,
        state: &State,
        crossing: &Crossing,
        settings: &Settings,
        out: &mut Predictions,
    ) {
        let mut state = *state;
        let mut fragment = crossing.fragment;
        let mut reached = 1.0;
        for step in 0..settings.lookahead(crossing.interval_ns) {
            let odds = self.inference.probabilities(&self.weights, &state);
            let mut best = 0;
            for (class, odd) in odds.iter().enumerate() {
                if *odd > odds[best] {
                    best = class;
                }
                let score = reached * odd;
                if score < settings.stage_threshold {
                    continue;
                }
                let next = self.weights.vocabulary().delta(class);
                let next = next.and_then(|delta| fragment.checked_add_signed(delta));
                if let Some(fragment) = next.filter(|next| *next != crossing.fragment) {
                    out.push(Prediction { volume: crossing.volume, fragment, score });
                }
            }
            reached *= odds[best];
            let next = self.weights.vocabulary().delta(best);
            let next = next.and_then(|delta| fragment.checked_add_signed(delta));
            let Some(next) = next.filter(|_| reached >= settings.stage_threshold) else {
                return;
            };
            fragment = next;
            if step + 1 < settings.prefetch_depth {
                let class = u8::try_from(best).expect("below MAX_CLASSES");
                self.inference.step(&self.weights, &mut state, class);
            }
        }
    }
}
