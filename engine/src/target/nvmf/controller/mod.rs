//! A controller: what an admin queue talks to. Sans-IO.
//!
//! ```text
//!  entry, data ─► Controller::command ─► Reply (status, result, data), effects
//!                 Controller::notify  ─► the completion of an Asynchronous Event Request
//!                 Controller::tick    ─► keep alive expired
//! ```
//!
//! One file per group of commands: [`property`] (registers, enable, shutdown), `identify`,
//! `log`, `feature`, [`event`]. Invariants:
//! - until CC.EN and CSTS.RDY are set nothing but fabrics commands succeeds;
//! - every command is answered at once, except Asynchronous Event Requests, of which at
//!   most [`EVENT_REQUESTS`] are held;
//! - data that go to a host start as zeros.
//!
//! The world is an argument ([`World`]): time, the subsystem's snapshot, the discovery log.
//! A controller does not know its connection, nor that there are I/O queues other than by
//! their count; what must happen to those it says in its [`Effects`].

pub mod event;
mod feature;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod identify;
mod log;
pub mod property;

#[cfg(test)]
mod tests;

use nvme::code::{Status, admin, fabrics};
use nvme::fabrics::fctype;
use nvme::feature::Event;
use nvme::sgl::SglKind;
use nvme::{Nqn, SubmissionEntry};

use self::event::Events;
use self::feature::Features;
use self::property::Registers;
use super::exports::SubsystemView;
use crate::units::Nanos;

/// Asynchronous Event Requests that a controller holds: AERL + 1.
pub const EVENT_REQUESTS: usize = 4;
/// Granularity of the keep-alive timer: KAS, in units of 100 ms.
pub const KEEP_ALIVE_UNIT_MS: u32 = 1000;
/// Keep-alive timeout of a discovery controller whose host wants none.
pub const DISCOVERY_KATO_MS: u32 = 120_000;
/// How long an association without enabled controller is kept.
pub const DISABLED_NS: u64 = 120_000_000_000;

/// What the target offers on every controller.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of a queue.
    pub queue_entries: u16,
    /// I/O queues of an association.
    pub io_queues: u16,
    /// log2 of the longest transfer in 4 KiB pages.
    pub mdts: u8,
    /// Bytes of in-capsule data on I/O queues, a multiple of 16.
    pub in_capsule: u32,
}

/// What a controller is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A subsystem's namespaces.
    Io,
    /// The discovery log.
    Discovery,
}

/// Whose controller it is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What it is for.
    pub kind: Kind,
    /// Controller identifier.
    pub cntlid: u16,
    /// The subsystem, or discovery.
    pub subsystem: Nqn,
    /// The host's name.
    pub host: Nqn,
    /// The host's identifier.
    pub host_id: [u8; 16],
}

/// What a command is carried out in.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The time.
    pub now: Nanos,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// The subsystem as it is; an empty one for discovery.
    pub subsystem: &'a SubsystemView,
    /// Controllers of the subsystem, ascending.
    pub controllers: &'a [u16],
    /// I/O queues connected to this controller.
    pub io_queues: u16,
    /// The discovery log of this host.
    pub discovery: &'a [u8],
    /// What the subsystem's queues have served.
    pub served: Served,
}

/// What has been read and written through a subsystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Commands.
    pub reads: u64,
    /// Commands.
    pub writes: u64,
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub write_bytes: u64,
    /// Hours since the server began.
    pub hours: u64,
}

/// An answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The command.
    pub cid: u16,
    /// How it ended.
    pub status: Status,
    /// DW0 and DW1.
    pub result: u64,
    /// For the host, as long as it has room for.
    pub data: Vec<u8>,
}

/// What must happen beside an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The I/O queues end: the controller was reset or shut down.
    pub drop_queues: bool,
}

/// How a command is answered, before its identifier is put to it.
struct Outcome {
    status: Status,
    result: u64,
    data: Vec<u8>,
}

impl Outcome {
    fn ok() -> Self {
        Self { status: Status::SUCCESS, result: 0, data: Vec::new() }
    }
    fn result(result: u64) -> Self {
        Self { result, ..Self::ok() }
    }
    fn data(data: Vec<u8>) -> Self {
        Self { data, ..Self::ok() }
    }
}

type Answer = Result<Outcome, Status>;

/// No use in asking again.
const INVALID_FIELD: Status = Status::INVALID_FIELD.with_dnr();

/// One controller.
#[derive(Debug)]
pub struct Controller {
    identity: Identity,
    limits: Limits,
    registers: Registers,
    features: Features,
    events: Events,
    /// When the host was last heard of.
    heard: Nanos,
    /// Since when it is not enabled.
    disabled: Option<Nanos>,
}

impl Controller {
    /// A new controller, not enabled, of a host that has just connected.
    pub fn new(identity: Identity, limits: Limits, kato_ms: u32, now: Nanos) -> Self {
        let kato_ms = match (identity.kind, kato_ms) {
            (Kind::Discovery, 0) => DISCOVERY_KATO_MS,
            _ => kato_ms,
        };
        Self {
            registers: Registers::new(identity.kind, &limits),
            features: Features::new(&limits, kato_ms),
            events: Events::new(identity.kind),
            identity,
            limits,
            heard: now,
            disabled: Some(now),
        }
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// It takes commands: I/O queues may be connected.
    pub fn is_ready(&self) -> bool {
        self.registers.status().ready()
    }

    /// I/O queues that the host may connect, as it has asked for them.
    pub fn granted_queues(&self) -> u16 {
        self.features.granted_queues()
    }

    /// The keep-alive timeout in force, milliseconds; 0 for none.
    pub fn kato_ms(&self) -> u32 {
        self.features.kato_ms()
    }

    /// The host has been heard of on one of its I/O queues.
    pub fn traffic(&mut self, now: Nanos) {
        self.heard = self.heard.max(now);
    }

    /// When [`Controller::tick`] has to look again.
    pub fn deadline(&self) -> Option<Nanos> {
        let expiry = self.expiry();
        let disabled = self.disabled.map(|since| since.after(DISABLED_NS));
        expiry.into_iter().chain(disabled).min()
    }

    fn expiry(&self) -> Option<Nanos> {
        let kato = u64::from(self.kato_ms().next_multiple_of(KEEP_ALIVE_UNIT_MS));
        let counts = kato != 0 && !self.registers.status().is_shut_down();
        counts.then(|| self.heard.after(kato * 1_000_000))
    }

    /// Looks at the timers: why the association ends, if it does (Base 3.9).
    pub fn tick(&mut self, now: Nanos) -> Option<&'static str> {
        if self.expiry().is_some_and(|at| now > at) {
            self.registers.fail();
            return Some("keep-alive timed out");
        }
        let idle = self.disabled.is_some_and(|since| now > since.after(DISABLED_NS));
        idle.then_some("the controller was not enabled for two minutes")
    }

    /// Carries out a command. `data` came in its capsule. No answer: it is held.
    pub fn command(
        &mut self,
        entry: &SubmissionEntry,
        data: &[u8],
        world: &World<'_>,
    ) -> (Option<Reply>, Effects) {
        self.heard = self.heard.max(world.now);
        let mut effects = Effects::default();
        let cid = entry.cid.get();
        if entry.opcode == admin::ASYNC_EVENT_REQUEST
            && let Ok(()) = self.check(entry)
            && self.events.hold(cid)
        {
            return (None, effects);
        }
        let outcome = self.carry_out(entry, data, world, &mut effects);
        let outcome = outcome.and_then(|outcome| fit(entry, outcome));
        let reply = match outcome {
            Ok(Outcome { status, result, data }) => Reply { cid, status, result, data },
            Err(status) => Reply { cid, status, result: 0, data: Vec::new() },
        };
        (Some(reply), effects)
    }

    /// The next Asynchronous Event Request that can be completed now.
    pub fn next_event(&mut self) -> Option<Reply> {
        if !self.is_ready() {
            return None;
        }
        let (cid, event) = self.events.next(self.features.events())?;
        let result = event.result().into();
        Some(Reply { cid, status: Status::SUCCESS, result, data: Vec::new() })
    }

    /// Something happened that the host may want to know.
    pub fn notify(&mut self, event: Event) {
        self.events.raise(event);
    }

    /// Namespaces have changed, come or gone.
    pub fn namespaces_changed(&mut self, changed: &[u32]) {
        self.events.changed(changed);
        if !changed.is_empty() {
            self.notify(Event::NamespaceChanged);
        }
    }

    fn check(&self, entry: &SubmissionEntry) -> Result<(), Status> {
        if !self.is_ready() || self.registers.status().is_shut_down() {
            return Err(Status::COMMAND_SEQUENCE.with_dnr());
        }
        // Fused admin commands do not exist.
        if entry.flags & 0b11 != 0 {
            return Err(INVALID_FIELD);
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        entry: &SubmissionEntry,
        data: &[u8],
        world: &World<'_>,
        effects: &mut Effects,
    ) -> Answer {
        if entry.opcode == admin::FABRICS {
            return self.fabrics(entry, world, effects);
        }
        self.check(entry)?;
        if self.identity.kind == Kind::Discovery {
            return self.discovery_command(entry, world);
        }
        match entry.opcode {
            admin::IDENTIFY => self.identify(entry, world),
            admin::GET_LOG_PAGE => self.log(entry, world),
            admin::GET_FEATURES => self.get_feature(entry, world),
            admin::SET_FEATURES => self.set_feature(entry, data, world),
            admin::KEEP_ALIVE => Ok(Outcome::ok()),
            admin::ASYNC_EVENT_REQUEST => Err(Status::EVENT_LIMIT.with_dnr()),
            admin::ABORT => Ok(self.abort(entry)),
            _ => Err(Status::INVALID_OPCODE.with_dnr()),
        }
    }

    /// What a discovery controller takes (Base 3.1.2.3).
    fn discovery_command(&mut self, entry: &SubmissionEntry, world: &World<'_>) -> Answer {
        match entry.opcode {
            admin::IDENTIFY => self.identify_discovery(entry),
            admin::GET_LOG_PAGE => self.log(entry, world),
            admin::GET_FEATURES => self.get_feature(entry, world),
            admin::SET_FEATURES => self.set_feature(entry, &[], world),
            admin::KEEP_ALIVE => Ok(Outcome::ok()),
            admin::ASYNC_EVENT_REQUEST => Err(Status::EVENT_LIMIT.with_dnr()),
            _ => Err(Status::INVALID_OPCODE.with_dnr()),
        }
    }

    fn fabrics(
        &mut self,
        entry: &SubmissionEntry,
        world: &World<'_>,
        effects: &mut Effects,
    ) -> Answer {
        match fctype(entry) {
            fabrics::PROPERTY_GET => self.registers.get(entry).map(Outcome::result),
            fabrics::PROPERTY_SET => {
                let change = self.registers.set(entry)?;
                if change.reset {
                    self.events.reset();
                    self.features.reset();
                }
                effects.drop_queues |= change.reset || change.shutdown;
                self.disabled = match (self.is_ready(), self.disabled) {
                    (true, _) => None,
                    (false, since) => since.or(Some(world.now)),
                };
                Ok(Outcome::ok())
            }
            // A queue is connected once.
            fabrics::CONNECT => Err(Status::COMMAND_SEQUENCE.with_dnr()),
            _ => Err(INVALID_FIELD),
        }
    }

    /// Abort (Base 5.1): held requests for events can be; everything else has ended.
    fn abort(&mut self, entry: &SubmissionEntry) -> Outcome {
        const NOT_ABORTED: u64 = 1;
        let dw10 = entry.cdw10[0].get().to_le_bytes();
        let sqid = u16::from_le_bytes([dw10[0], dw10[1]]);
        let cid = u16::from_le_bytes([dw10[2], dw10[3]]);
        let aborted = sqid == 0 && self.events.abort(cid);
        Outcome::result(if aborted { 0 } else { NOT_ABORTED })
    }

    /// The next held request that an Abort has ended.
    pub fn next_aborted(&mut self) -> Option<Reply> {
        let cid = self.events.next_aborted()?;
        Some(Reply { cid, status: Status::ABORT_REQUESTED, result: 0, data: Vec::new() })
    }
}

/// Data must have room at the host.
fn fit(entry: &SubmissionEntry, outcome: Outcome) -> Answer {
    if outcome.data.is_empty() {
        return Ok(outcome);
    }
    let sgl = entry.sgl();
    if sgl.kind() != SglKind::Transport {
        return Err(Status::SGL_TYPE_INVALID.with_dnr());
    }
    if u64::from(sgl.length.get()) < outcome.data.len() as u64 {
        return Err(Status::SGL_LENGTH_INVALID.with_dnr());
    }
    Ok(outcome)
}
