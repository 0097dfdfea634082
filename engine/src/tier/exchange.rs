//! Space that goes from core to core.
//!
//! A core that waits for a fast slot and has nothing left to spill asks the
//! others for a chunk, one after the other. Who is asked empties one and hands
//! it over still claimed, so that nobody takes it on the way, or answers that
//! it has none to give. When all have said so, the pool is full: whoever waits
//! fails, and for a moment whoever comes.

use crate::format::superblock::Role;
use crate::planted::{Bug, planted};
use crate::table::Table;
use crate::table::sink::Sink;
use crate::units::{CoreId, DeviceId, Nanos};

/// How long a pool that was found full is believed to be.
const FULL_NS: u64 = 20_000_000;

/// Where the search for space on other cores stands.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// A core has been asked and has not answered yet.
    asked: bool,
    /// Cores that have said since the last chunk that they have none.
    refusals: u8,
    /// The pool is full until then.
    full_until: Nanos,
    /// Cores that wait for a chunk from this one.
    pub(super) askers: Vec<CoreId>,
}

impl Exchange {
    /// Other cores may have something to give after all.
    pub(super) fn hope(&mut self) {
        self.refusals = 0;
        self.full_until = Nanos::new(0);
    }
}

impl Table {
    /// Asks the next core for a chunk; false if all have none.
    pub(super) fn ask_for_space<S: Sink>(&mut self, sink: &mut S) -> bool {
        let (core, cores) = (self.config.core.get(), self.config.cores);
        let exchange = &mut self.tiering.exchange;
        if exchange.asked {
            return true;
        }
        if self.now < exchange.full_until {
            return false;
        }
        // Twice: a chunk may have been on its way from one to another that had answered.
        if u16::from(exchange.refusals) == 2 * u16::from(cores - 1) {
            exchange.refusals = 0;
            exchange.full_until = self.now.after(FULL_NS);
            return false;
        }
        let next = u16::from(exchange.refusals) % u16::from(cores - 1);
        let of = (u16::from(core) + 1 + next) % u16::from(cores);
        exchange.asked = true;
        sink.ask_space(CoreId::new(u8::try_from(of).expect("below the number of cores")));
        true
    }

    /// Another core asks for a chunk.
    pub fn space_asked<S: Sink>(&mut self, by: CoreId, sink: &mut S) {
        self.tiering.exchange.askers.push(by);
        self.serve_askers(sink);
        self.settle(sink);
    }

    /// Begins to empty a chunk for whoever has asked, or says that there is none to give.
    pub(super) fn serve_askers<S: Sink>(&mut self, sink: &mut S) {
        let askers = &self.tiering.exchange.askers;
        let none = planted(Bug::HoardedSpace);
        if askers.is_empty() || !none && self.spill_on(false, sink) {
            return;
        }
        for core in std::mem::take(&mut self.tiering.exchange.askers) {
            sink.give_space(core, None);
        }
    }

    /// The core that was asked has answered.
    pub fn space_given<S: Sink>(&mut self, chunk: Option<(DeviceId, u32)>, sink: &mut S) {
        let exchange = &mut self.tiering.exchange;
        exchange.asked = false;
        match chunk {
            Some((device, chunk)) => {
                exchange.refusals = 0;
                sink.release_chunk(device, chunk);
            }
            None => exchange.refusals += 1,
        }
        self.kick_all();
        self.settle(sink);
    }

    /// Hands an empty chunk on.
    pub(super) fn hand_on<S: Sink>(&mut self, device: DeviceId, chunk: u32, sink: &mut S) {
        let fast = self.config.devices[usize::from(device.get())].role == Role::Fast;
        let askers = &mut self.tiering.exchange.askers;
        if fast && !askers.is_empty() {
            return sink.give_space(askers.remove(0), Some((device, chunk)));
        }
        sink.release_chunk(device, chunk);
        if self.starved {
            self.kick_all();
        }
    }
}
