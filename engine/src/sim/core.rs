//! A simulated core: what it takes its work from.
//!
//! A turn handles one thing, so that anything may happen between two. Timers
//! are kept as the server's core loop keeps them. How a core sleeps: [`super::sleep`].

use std::collections::VecDeque;
use std::sync::Arc;

use super::shared::SimSink;
use super::trace::{Touches, sectors_of};
use super::world::World;
use crate::core::mailbox::Mailboxes;
use crate::request::Request;
use crate::table::Table;
use crate::table::op::Part;
use crate::table::sink::IoResult;
use crate::tier::heat::HeatForecast;
use crate::units::{BLOCK_BYTES, CoreId, Nanos, SliceId, VolumeId};
use crate::volume::composer::{Composer, Foresight, Message};

/// What reaches a core from outside: from its clients, predictors and the control thread.
#[derive(Debug)]
pub(super) enum Asked {
    /// A client's request, and what is foreseen of it.
    Request(Request, Foresight),
    /// A block will be read soon; whether the predictor says so, which wants an answer.
    Predict(SliceId, VolumeId, u64, bool),
    /// Move a volume to the cold tier.
    Cool(VolumeId),
    /// Spill by this forecast.
    Forecast(Arc<HeatForecast>),
    /// A part of the control thread's.
    Part(SliceId, Part),
    /// Drop a volume's fragments from a segment on; origin of the answer.
    Drop(VolumeId, u32, u64),
}

/// Whether a core sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    Awake,
    /// It has said that it sleeps and looks once more.
    Falling,
    Asleep,
}

/// Time between two ticks of a core that is busy.
const TICK_NS: u64 = 5_000_000;

#[derive(Debug)]
pub(super) struct SimCore {
    pub composer: Composer,
    pub table: Table,
    pub mail: Mailboxes<Message>,
    held: VecDeque<Message>,
    asked: VecDeque<Asked>,
    ended: VecDeque<(u64, IoResult)>,
    pub sleep: Sleep,
    /// A kernel ring or socket has signalled the eventfd.
    pub rung: bool,
    pub next_tick: Option<Nanos>,
    last_tick: Nanos,
    cooling: Option<VolumeId>,
}

impl SimCore {
    pub(super) fn new(composer: Composer, table: Table, mail: Mailboxes<Message>) -> Self {
        Self {
            composer,
            table,
            mail,
            held: VecDeque::new(),
            asked: VecDeque::new(),
            ended: VecDeque::new(),
            sleep: Sleep::Awake,
            rung: false,
            next_tick: Some(Nanos::new(0)),
            last_tick: Nanos::new(0),
            cooling: None,
        }
    }

    /// The kernel has something for the core: it signals if it was armed.
    pub(super) fn signal(&mut self) {
        self.rung |= self.sleep != Sleep::Awake;
    }

    /// A device operation has ended.
    pub(super) fn io_ended(&mut self, token: u64, result: IoResult) {
        self.ended.push_back((token, result));
        self.signal();
    }

    /// Something arrives from outside.
    pub(super) fn ask(&mut self, asked: Asked) {
        self.asked.push_back(asked);
        self.signal();
    }

    /// When the core wakes by itself, if it sleeps and nobody has rung.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        self.next_tick
    }
}

impl World {
    /// Takes one thing from one source that has something; false if none has.
    pub(super) fn pass(&mut self, core: usize) -> bool {
        let sources = if self.doors.is_empty() { 4 } else { 5 };
        let start = self.rng.index(sources);
        let worked = (0..sources).any(|at| match (start + at) % sources {
            0 => self.take_mail(core),
            1 => self.take_local(core),
            2 => self.take_ended(core),
            3 => self.take_asked(core),
            _ => self.look_at_doors(core),
        });
        self.timers(core, worked) || worked
    }

    fn take_mail(&mut self, core: usize) -> bool {
        let Some((_, message)) = self.cores[core].mail.receive() else { return false };
        if message.takes_slot() {
            self.cores[core].held.push_back(message);
            self.handle_held(core);
        } else {
            self.handle(core, message);
        }
        true
    }

    fn take_local(&mut self, core: usize) -> bool {
        if self.cores[core].held.is_empty() {
            let Some(message) = self.shared.local[core].pop_front() else { return false };
            self.cores[core].held.push_back(message);
        }
        self.handle_held(core)
    }

    /// Handles the oldest message, unless the table has no room for it.
    fn handle_held(&mut self, core: usize) -> bool {
        let it = &mut self.cores[core];
        let takes_slot = it.held.front().is_some_and(Message::takes_slot);
        if takes_slot && !it.table.can_submit() {
            return false;
        }
        let Some(message) = it.held.pop_front() else { return false };
        self.handle(core, message);
        true
    }

    fn handle(&mut self, core: usize, message: Message) {
        self.trace.tell(self.outcome.steps, || told_message(core, &message));
        self.with_core(core, |core, sink| match message {
            Message::Part(slice, part) => core.table.submit(slice, part, sink),
            Message::Flush(volume, origin) => core.table.flush(Some(volume), origin, sink),
            Message::Done(done) => core.composer.done(done, sink),
            Message::AskSpace(by) => core.table.space_asked(by, sink),
            Message::GiveSpace(chunk) => core.table.space_given(chunk, sink),
            Message::AskFlush(device, by) => core.table.flush_asked(device, by, sink),
            Message::Flushed(device, result) => {
                core.table.flushed_elsewhere(device, result, sink);
            }
        });
    }

    fn take_ended(&mut self, core: usize) -> bool {
        let Some((token, result)) = self.cores[core].ended.pop_front() else { return false };
        self.with_core(core, |core, sink| core.table.io_done(token, result, sink));
        true
    }

    fn take_asked(&mut self, core: usize) -> bool {
        let it = &self.cores[core];
        let room = match it.asked.front() {
            Some(Asked::Request(..)) => it.composer.can_submit(),
            Some(Asked::Part(..) | Asked::Drop(..)) => it.table.can_submit(),
            _ => true,
        };
        if !room {
            return false;
        }
        let Some(asked) = self.cores[core].asked.pop_front() else { return false };
        if let Asked::Predict(slice, volume, block, foreseen) = asked {
            let staging =
                self.with_core(core, |core, sink| core.table.predict(slice, volume, block, sink));
            if foreseen {
                self.answer(volume, block, staging);
            }
            return true;
        }
        self.with_core(core, |core, sink| match asked {
            Asked::Predict(..) => unreachable!("handled above"),
            Asked::Request(request, foresight) => core.composer.submit(request, foresight, sink),
            Asked::Cool(volume) => core.cool(volume, sink),
            Asked::Forecast(forecast) => core.table.set_forecast(Some(forecast)),
            Asked::Part(slice, part) => core.table.submit(slice, part, sink),
            Asked::Drop(volume, segment, origin) => {
                core.table.drop_range(volume, segment, origin, sink);
            }
        });
        true
    }

    /// As the server's core loop does it.
    fn timers(&mut self, core: usize, worked: bool) -> bool {
        let it = &mut self.cores[core];
        let due = it.next_tick.is_some_and(|at| self.now >= at);
        let busy = worked && self.now.since(it.last_tick) > TICK_NS;
        if !due && !busy {
            if worked {
                let soon = it.last_tick.after(TICK_NS);
                it.next_tick = Some(it.next_tick.map_or(soon, |at| at.min(soon)));
            }
            return false;
        }
        it.last_tick = self.now;
        self.with_core(core, |core, sink| {
            core.next_tick = core.table.tick(sink);
            if let Some(volume) = core.cooling {
                core.cool(volume, sink);
            }
        });
        true
    }
}

impl SimCore {
    fn cool(&mut self, volume: VolumeId, sink: &mut SimSink<'_>) {
        self.cooling = self.table.cool(volume, sink).then_some(volume);
        if self.cooling.is_some() {
            self.next_tick = Some(self.last_tick.after(TICK_NS));
        }
    }
}

pub(super) fn core_id(core: usize) -> CoreId {
    CoreId::new(u8::try_from(core).expect("few cores"))
}

fn told_message(core: usize, message: &Message) -> (Touches, String) {
    match message {
        Message::Part(slice, part) => {
            let block = BLOCK_BYTES as u64;
            let end = (part.offset + u64::from(part.length)).div_ceil(block);
            let touched = Touches::Sectors(part.volume, sectors_of(part.offset / block..end));
            let (op, offset, length) = (part.op, part.offset, part.length);
            let what = format!("core {core}: slice {slice} takes {op:?} {offset}+{length}");
            (touched, format!("{what} origin {:x}", part.origin))
        }
        Message::Flush(volume, origin) => {
            (Touches::All, format!("core {core}: flush of volume {volume} origin {origin:x}"))
        }
        Message::AskSpace(by) => {
            (Touches::Other, format!("core {core}: core {} asks for a chunk", by.get()))
        }
        Message::GiveSpace(chunk) => {
            (Touches::Other, format!("core {core}: is given chunk {chunk:?}"))
        }
        Message::AskFlush(device, by) => {
            let text = format!("core {core}: core {} asks for a flush of disk {device}", by.get());
            (Touches::All, text)
        }
        Message::Flushed(device, result) => {
            (Touches::All, format!("core {core}: disk {device} is flushed: {result:?}"))
        }
        Message::Done(done) => {
            let text = format!("core {core}: origin {:x} ended {:?}", done.origin, done.result);
            (Touches::Other, text)
        }
    }
}
