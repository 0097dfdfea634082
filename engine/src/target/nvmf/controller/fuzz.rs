//! A controller driven by any sequence of commands and happenings, against a model of its
//! states (see [`crate::fuzz`]).
//!
//! The model knows what CC, CSTS, keep alive, and held requests must be after each step; a
//! controller that disagrees panics here. The first byte chooses the kind; each step takes a
//! byte that says what happens, and its operands behind it.

use std::collections::BTreeMap;

use nvme::code::admin;
use nvme::fabrics::{PropertyCommand, fctype};
use nvme::feature::Event;
use nvme::log::AnaState;
use nvme::property::{Configuration, ControllerStatus, Shutdown, offset};
use nvme::sgl::SglDescriptor;
use nvme::{Nqn, Status, SubmissionEntry};
use zerocopy::FromBytes;

use super::{
    Controller, DISABLED_NS, EVENT_REQUESTS, Effects, Identity, KEEP_ALIVE_UNIT_MS, Kind, Limits,
    Reply, Served, World,
};
use crate::target::nvmf::exports::{Group, NamespaceInfo, SubsystemView};
use crate::units::{Nanos, VolumeId};

const LIMITS: Limits = Limits { queue_entries: 128, io_queues: 8, mdts: 5, in_capsule: 8192 };
const MAX_DATA: usize = 4096 << 5;

/// Bytes as operands; zeros behind their end.
struct Operands<'a>(&'a [u8]);

impl Operands<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let n = self.0.len().min(N);
        bytes[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        bytes
    }
    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }
    fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}

/// What the states must be.
struct Model {
    kind: Kind,
    cc: Configuration,
    csts: u32,
    held: Vec<u16>,
    heard: Nanos,
    disabled: Option<Nanos>,
}

impl Model {
    fn ready(&self) -> bool {
        self.csts & ControllerStatus::RDY != 0
    }

    fn takes_commands(&self) -> bool {
        self.ready() && self.csts & ControllerStatus::SHST == 0
    }

    /// A write to CC; true if I/O queues must end.
    fn configure(&mut self, value: u32, now: Nanos) -> bool {
        let new = Configuration::from_bits(value);
        let old = std::mem::replace(&mut self.cc, new);
        let mut drops = false;
        match (old.enabled(), new.enabled()) {
            (true, false) => {
                self.csts = 0;
                self.held.clear();
                drops = true;
            }
            (false, true) => {
                let entries = value >> 16 & 0xff;
                let fits = self.kind == Kind::Discovery || entries == 0x46;
                let plain = value >> 4 & 0x3ff == 0;
                self.csts = if fits && plain { 1 } else { 2 };
            }
            _ => {}
        }
        if old.shutdown() == Shutdown::None && new.shutdown() != Shutdown::None {
            self.csts |= ControllerStatus::SHST_COMPLETE;
            drops = true;
        }
        self.disabled = if self.ready() { None } else { self.disabled.or(Some(now)) };
        drops
    }
}

struct Run {
    controller: Controller,
    model: Model,
    subsystem: SubsystemView,
    discovery: Vec<u8>,
    now: Nanos,
    io_queues: u16,
}

fn namespace(nsid: u32) -> NamespaceInfo {
    NamespaceInfo {
        nsid,
        volume: VolumeId::new(nsid),
        uuid: [7; 16],
        blocks: 1 << 20,
        block_shift: if nsid.is_multiple_of(2) { 9 } else { 12 },
        read_only: nsid.is_multiple_of(3),
        group: 1 + nsid % 32,
    }
}

impl Run {
    fn new(kind: Kind, kato_ms: u32) -> Run {
        let nqn = |text: &str| Nqn::new(text).expect("a name");
        let identity = Identity {
            kind,
            cntlid: 1,
            subsystem: nqn("nqn.2026-11.example:s"),
            host: nqn("nqn.2026-11.example:h"),
            host_id: [3; 16],
        };
        let now = Nanos::new(1);
        Run {
            controller: Controller::new(identity.clone(), LIMITS, kato_ms, now),
            model: Model {
                kind,
                cc: Configuration::default(),
                csts: 0,
                held: Vec::new(),
                heard: now,
                disabled: Some(now),
            },
            subsystem: SubsystemView {
                nqn: identity.subsystem,
                serial: "S".to_owned(),
                namespaces: [1, 2, 900].map(namespace).to_vec(),
                groups: BTreeMap::new(),
                ana_changes: 0,
            },
            discovery: vec![1; 3072],
            now,
            io_queues: 0,
        }
    }

    fn send(&mut self, entry: &SubmissionEntry, data: &[u8]) {
        let world = World {
            now: self.now,
            wall_ms: self.now.get() / 1_000_000,
            subsystem: &self.subsystem,
            controllers: &[1, 2],
            io_queues: self.io_queues,
            discovery: &self.discovery,
            served: Served::default(),
        };
        let (reply, effects) = self.controller.command(entry, data, &world);
        self.model.heard = self.now;
        match reply {
            None => self.was_held(entry),
            Some(reply) => self.was_answered(entry, &reply, effects),
        }
        while let Some(aborted) = self.controller.next_aborted() {
            assert_eq!(aborted.status, Status::ABORT_REQUESTED);
            self.was_ended(aborted.cid);
        }
        assert_eq!(self.controller.is_ready(), self.model.ready());
    }

    fn was_held(&mut self, entry: &SubmissionEntry) {
        assert_eq!(entry.opcode, admin::ASYNC_EVENT_REQUEST, "nothing else is held");
        assert!(self.model.takes_commands());
        self.model.held.push(entry.cid.get());
        assert!(self.model.held.len() <= EVENT_REQUESTS);
    }

    fn was_ended(&mut self, cid: u16) {
        let at = self.model.held.iter().position(|held| *held == cid);
        self.model.held.remove(at.expect("only what is held ends"));
    }

    fn was_answered(&mut self, entry: &SubmissionEntry, reply: &Reply, effects: Effects) {
        assert_eq!(reply.cid, entry.cid.get());
        let room = entry.sgl().length.get() as usize;
        assert!(reply.data.len() <= room.min(MAX_DATA), "data have room");
        assert!(reply.status.is_success() || reply.data.is_empty() && reply.result == 0);
        let mut drops = false;
        if entry.opcode == admin::FABRICS {
            let set = PropertyCommand::from_entry(entry);
            let sets = fctype(entry) == nvme::code::fabrics::PROPERTY_SET;
            if sets && reply.status.is_success() {
                assert_eq!(set.offset.get(), offset::CC, "nothing else can be set");
                let [a, b, c, d, ..] = set.value.get().to_le_bytes();
                drops = self.model.configure(u32::from_le_bytes([a, b, c, d]), self.now);
            }
        } else if !self.model.takes_commands() {
            assert_eq!(reply.status, Status::COMMAND_SEQUENCE.with_dnr());
        } else if entry.opcode == admin::ASYNC_EVENT_REQUEST && entry.flags & 3 == 0 {
            assert_eq!(reply.status, Status::EVENT_LIMIT.with_dnr());
            assert_eq!(self.model.held.len(), EVENT_REQUESTS);
        }
        assert_eq!(effects.drop_queues, drops);
    }

    fn property(&mut self, offset: u32) -> u64 {
        let mut entry = PropertyCommand::get(0, offset, false).into_entry();
        entry.set_sgl(SglDescriptor::default());
        let world = World {
            now: self.now,
            wall_ms: 0,
            subsystem: &self.subsystem,
            controllers: &[],
            io_queues: 0,
            discovery: &[],
            served: Served::default(),
        };
        let (reply, _) = self.controller.command(&entry, &[], &world);
        self.model.heard = self.now;
        reply.expect("properties are answered").result
    }

    fn tick(&mut self) -> bool {
        let kato = u64::from(self.controller.kato_ms().next_multiple_of(KEEP_ALIVE_UNIT_MS));
        let counts = kato != 0 && self.model.csts & ControllerStatus::SHST == 0;
        let expired = counts && self.now.since(self.model.heard) > kato * 1_000_000;
        let idle = self.model.disabled.is_some_and(|since| self.now.since(since) > DISABLED_NS);
        let over = self.controller.tick(self.now);
        assert_eq!(over.is_some(), expired || idle, "{over:?}");
        let deadline = self.controller.deadline();
        assert!(over.is_some() || deadline.is_none_or(|at| at >= self.now));
        over.is_some()
    }

    /// A command that is nearly right: what an admin command may be, with free operands.
    fn likely(&mut self, operands: &mut Operands<'_>) {
        const OPCODES: [u8; 8] = [
            admin::IDENTIFY,
            admin::GET_LOG_PAGE,
            admin::GET_FEATURES,
            admin::SET_FEATURES,
            admin::ASYNC_EVENT_REQUEST,
            admin::ABORT,
            admin::KEEP_ALIVE,
            admin::CREATE_SQ,
        ];
        let mut entry = SubmissionEntry {
            opcode: OPCODES[usize::from(operands.byte() % 8)],
            cid: u16::from(operands.byte()).into(),
            ..SubmissionEntry::default()
        };
        entry.nsid = u32::from(operands.byte()).into();
        entry.cdw10[0] = operands.word().into();
        entry.cdw10[1] = operands.word().into();
        entry.cdw10[2] = u32::from(operands.byte()).into();
        let room = u32::from(operands.byte()) << 10;
        entry.set_sgl(SglDescriptor::transport(room));
        let data = vec![operands.byte(); usize::from(operands.byte()) * 4];
        self.send(&entry, &data);
    }

    fn happen(&mut self, operands: &mut Operands<'_>) {
        match operands.byte() % 4 {
            0 => {
                let nsid = 1 + operands.word() % 1024;
                match self.subsystem.namespaces.binary_search_by_key(&nsid, |n| n.nsid) {
                    Ok(at) => drop(self.subsystem.namespaces.remove(at)),
                    Err(at) => self.subsystem.namespaces.insert(at, namespace(nsid)),
                }
                self.controller.namespaces_changed(&[nsid]);
            }
            1 => {
                let group = 1 + u32::from(operands.byte() % 32);
                let state = AnaState::from_number(operands.byte()).unwrap_or(AnaState::Change);
                self.subsystem.groups.insert(group, Group { state, changes: 1 });
                self.controller.notify(Event::AnaChanged);
            }
            2 => {
                let entries = usize::from(operands.byte() % 8);
                self.discovery = vec![2; 1024 * (1 + entries)];
                self.controller.notify(Event::DiscoveryChanged);
            }
            _ => self.io_queues = u16::from(operands.byte() % 9),
        }
    }

    /// One step; false when the association has ended.
    fn step(&mut self, operands: &mut Operands<'_>) -> bool {
        match operands.byte() % 8 {
            0 => {
                let entry = operands.take::<64>();
                let entry = SubmissionEntry::read_from_bytes(&entry).expect("64 bytes");
                self.send(&entry, &vec![5; usize::from(operands.byte()) * 4]);
            }
            1 => {
                const VALUES: [u32; 4] = [0, 0x0046_0001, 0x0046_4001, 0x0046_0000];
                let value = VALUES.get(usize::from(operands.byte() % 5)).copied();
                let value = value.unwrap_or_else(|| operands.word());
                self.send(&PropertyCommand::set(1, offset::CC, value).into_entry(), &[]);
            }
            2..=4 => self.likely(operands),
            5 => self.happen(operands),
            6 => {
                self.now = self.now.after(u64::from(operands.byte()) * 1_000_000_000);
                return !self.tick();
            }
            _ => {
                let enabled = self.model.takes_commands() || self.model.ready();
                while let Some(event) = self.controller.next_event() {
                    assert!(enabled && event.status.is_success() && event.result != 0);
                    self.was_ended(event.cid);
                }
                assert_eq!(self.property(offset::CC), u64::from(self.model.cc.bits()));
                assert_eq!(self.property(offset::CSTS), u64::from(self.model.csts));
            }
        }
        true
    }
}

/// Any sequence of commands and happenings.
pub fn nvmf_controller(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let kind = if first & 1 == 0 { Kind::Io } else { Kind::Discovery };
    let mut run = Run::new(kind, u32::from(first >> 1) * 100);
    let mut operands = Operands(bytes);
    while !operands.0.is_empty() && run.step(&mut operands) {}
}
