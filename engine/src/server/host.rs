//! What a core offers its targets.

use super::command::{CoreMessage, Forecast};
use super::observe::Observer;
use super::sink::{Plant, RESERVED_PAGES};
use crate::request::{Buf, Host, Op, Request, VolumeView};
use crate::stage::load::Staging;
use crate::units::{BLOCK_SHIFT, Nanos, VolumeId};
use crate::volume::composer::Composer;
use crate::volume::placement::{core_of, slice_of};

/// A core as its targets see it.
pub struct CoreHost<'a> {
    /// Takes the requests.
    pub composer: &'a mut Composer,
    /// Memory and mail.
    pub plant: &'a mut Plant,
    /// Sees every request.
    pub observer: &'a mut Observer,
    /// Predictions for slices of this core.
    pub forecasts: &'a mut Vec<Forecast>,
    /// Flushes so far.
    pub flushes: &'a mut u64,
    /// The time.
    pub now: Nanos,
}

impl Host for CoreHost<'_> {
    fn alloc(&mut self, bytes: usize) -> Option<Buf> {
        if self.plant.arena.free_pages() < RESERVED_PAGES {
            return None;
        }
        self.plant.arena.alloc(bytes)
    }
    fn free(&mut self, buf: Buf) {
        self.plant.arena.free(buf);
    }
    fn bytes<'a>(&'a self, buf: &'a Buf) -> &'a [u8] {
        self.plant.arena.arenas().bytes(buf)
    }
    fn bytes_mut<'a>(&'a mut self, buf: &'a mut Buf) -> &'a mut [u8] {
        self.plant.arena.arenas().bytes_mut(buf)
    }
    fn can_submit(&self) -> bool {
        self.composer.can_submit()
    }
    fn submit(&mut self, request: Request) {
        *self.flushes += u64::from(request.op == Op::Flush);
        let Self { composer, plant, observer, forecasts, now, .. } = self;
        let cores = u8::try_from(plant.mail.cores()).expect("at most 255 cores");
        let mut ahead = smallvec::SmallVec::<[(VolumeId, u64); 16]>::new();
        let foresight = observer.see(&request, composer.volumes(), *now, |found| ahead.push(found));
        for &(volume, block) in &ahead {
            let slice = slice_of(volume, block << BLOCK_SHIFT);
            let owner = core_of(slice, cores);
            if owner == plant.core {
                forecasts.push((None, slice, volume, block));
            } else if observer.may_send() {
                observer.outstanding += 1;
                let from = plant.core;
                plant.mail.send(owner, CoreMessage::Predict(from, slice, volume, block));
            } else {
                observer.answered(volume, block, Staging::NoRoom, composer.volumes());
            }
        }
        composer.submit(request, foresight, *plant);
    }
    fn volumes(&self) -> &[VolumeView] {
        self.composer.volumes().views()
    }
}
