//! The learned predictor in a simulated world: some worlds have one, for all their clients.
//!
//! What it asks for reaches owners as any prediction does, and what requests meet comes back
//! to it. It decides by what has happened alone, so that a seed still says everything. Its
//! tower is untrained and asked all the same: what it says is as good as chance, and as bad.

use std::sync::Arc;

use predictor::Access;
use predictor::deep::Trainer;
use predictor::online::Predictor;
use predictor::prefetch::Settings;

use super::core::Asked;
use super::plan::Fault;
use super::world::World;
use crate::request::{Op, Request};
use crate::stage::load::Staging;
use crate::units::{BLOCK_SHIFT, VolumeId};
use crate::volume::composer::Foresight;
use crate::volume::placement::{core_of, slice_of};

/// One world in so many has a predictor: its tables take long to make.
const ONE_IN: u64 = 8;
/// At one request in so many it forgets what is near: in a short life little spills, and it
/// would believe for ever that nothing has.
const FORGETS: u64 = 24;
/// Fragments of the tier that it believes in.
const TIER: usize = 24;

/// The predictor of a world, if it has one.
pub(super) fn predictor_of(seed: u64, tiers: bool) -> Option<Box<Predictor>> {
    let chosen = tiers && seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & (ONE_IN - 1) == 0;
    // Eager: the lives are short.
    let settings = Settings { stage_threshold: 0.05, prefetch_budget: 1.0, ..Settings::default() };
    chosen.then(|| {
        let mut predictor = Predictor::new(settings, TIER).expect("settings within range");
        let trainer = Trainer::new(seed).expect("candle takes small tables");
        predictor.install(Arc::clone(trainer.model()), true);
        Box::new(predictor)
    })
}

impl World {
    /// What the predictor makes of a client's request; what it foresees is asked for.
    pub(super) fn foresee(&mut self, client: u64, request: &Request) -> Option<Foresight> {
        let predictor = self.predictor.as_mut()?;
        let write = match request.op {
            Op::Read => false,
            Op::Write => true,
            _ => return None,
        };
        let shift = self.fragment.log2();
        let (now, volume) = (self.now.get(), request.volume.get());
        let access = Access::new(now, volume, write, request.offset.get(), request.length, shift);
        if now % FORGETS == 0 {
            predictor.resize(TIER);
        }
        predictor.settled(|_| now % 2 == 0);
        let mut ahead = Vec::new();
        let mut foresight = Foresight::default();
        for fragment in access.fragments() {
            let stage = |volume, fragment: u64| ahead.push((volume, fragment));
            if let Some(crossed) = predictor.touch(client, &access, fragment, || now, stage) {
                foresight = Foresight { whole: crossed.whole && !write, watched: !write };
            }
        }
        for (volume, fragment) in ahead {
            self.ask_for(VolumeId::new(volume), fragment << shift);
        }
        Some(foresight)
    }

    fn ask_for(&mut self, volume: VolumeId, byte: u64) {
        let size = self.playground.volumes.iter().find(|(id, _)| *id == volume);
        if size.is_none_or(|(_, size)| byte >= *size) || !self.exists(Fault::Tiers) {
            return self.answer(volume, byte >> BLOCK_SHIFT, Staging::Needless);
        }
        let slice = slice_of(volume, byte);
        let owner = core_of(slice, u8::try_from(self.cores.len()).expect("few"));
        self.outcome.foreseen += 1;
        let asked = Asked::Predict(slice, volume, byte >> BLOCK_SHIFT, true);
        self.cores[usize::from(owner.get())].ask(asked);
    }

    /// An owner has answered.
    pub(super) fn answer(&mut self, volume: VolumeId, block: u64, staging: Staging) {
        let Some(predictor) = &mut self.predictor else { return };
        let fragment = (block << BLOCK_SHIFT) >> self.fragment.log2();
        predictor.answered(volume.get(), fragment, staging.into());
    }

    /// Tells the predictor what its requests have met.
    pub(super) fn take_met(&mut self) {
        let met = std::mem::take(&mut self.shared.met);
        let Some(predictor) = &mut self.predictor else {
            return assert!(met.is_empty(), "nobody watches");
        };
        let shift = self.fragment.log2();
        for (watched, met) in met {
            let fragments = watched.fragments(shift);
            predictor.met(watched.volume.get(), fragments, met, watched.whole);
        }
    }
}
