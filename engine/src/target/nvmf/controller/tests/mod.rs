//! Tests of the controller, by group of commands.

mod connect_orders;
mod events;
mod features;
mod identify;
mod keep_alive;
mod logs;
mod properties;

use std::collections::BTreeMap;

use nvme::code::admin;
use nvme::fabrics::PropertyCommand;
use nvme::property::{Configuration, offset};
use nvme::sgl::SglDescriptor;
use nvme::{Nqn, Status, SubmissionEntry};

use super::*;
use crate::target::nvmf::exports::{Group, NamespaceInfo, SubsystemView};
use crate::units::VolumeId;

pub const LIMITS: Limits = Limits { queue_entries: 128, io_queues: 8, mdts: 8, in_capsule: 8192 };
pub const SECOND: u64 = 1_000_000_000;

pub fn nqn(name: &str) -> Nqn {
    Nqn::new(&format!("nqn.2026-11.example:{name}")).unwrap()
}

pub fn namespace(nsid: u32) -> NamespaceInfo {
    NamespaceInfo {
        nsid,
        volume: VolumeId::new(nsid),
        uuid: [u8::try_from(nsid % 251).unwrap(); 16],
        blocks: 2048,
        block_shift: 9,
        read_only: nsid.is_multiple_of(2),
        group: 1 + nsid % 3,
    }
}

pub fn subsystem(nsids: impl IntoIterator<Item = u32>) -> SubsystemView {
    SubsystemView {
        nqn: nqn("v1"),
        serial: "S1".to_owned(),
        namespaces: nsids.into_iter().map(namespace).collect(),
        groups: BTreeMap::new(),
        ana_changes: 7,
    }
}

/// A controller in a world that tests change.
pub struct Bench {
    pub controller: Controller,
    pub subsystem: SubsystemView,
    pub discovery: Vec<u8>,
    pub now: Nanos,
    pub wall_ms: u64,
    pub io_queues: u16,
    pub effects: Effects,
}

impl Bench {
    /// Just connected, with a keep-alive timeout of 5 seconds.
    pub fn connected(kind: Kind) -> Bench {
        let identity =
            Identity { kind, cntlid: 5, subsystem: nqn("v1"), host: nqn("host"), host_id: [9; 16] };
        Bench {
            controller: Controller::new(identity, LIMITS, 5000, Nanos::new(SECOND)),
            subsystem: subsystem([1, 2, 5]),
            discovery: (0..=255).cycle().take(3072).collect(),
            now: Nanos::new(SECOND),
            wall_ms: 1_700_000_000_000,
            io_queues: 0,
            effects: Effects::default(),
        }
    }

    pub fn enabled(kind: Kind) -> Bench {
        let mut bench = Bench::connected(kind);
        bench.set_cc(Configuration::ENABLED.bits());
        assert!(bench.controller.is_ready());
        bench
    }

    pub fn send(&mut self, entry: &SubmissionEntry, data: &[u8]) -> Option<Reply> {
        let world = World {
            now: self.now,
            wall_ms: self.wall_ms,
            subsystem: &self.subsystem,
            controllers: &[2, 5, 900],
            io_queues: self.io_queues,
            discovery: &self.discovery,
            served: Served { reads: 2, writes: 0, read_bytes: 512_001, write_bytes: 0, hours: 3 },
        };
        let (reply, effects) = self.controller.command(entry, data, &world);
        self.effects = effects;
        reply
    }

    /// As [`Bench::send`], for what is answered at once.
    pub fn ask(&mut self, entry: &SubmissionEntry, data: &[u8]) -> Reply {
        let reply = self.send(entry, data).expect("an answer");
        assert_eq!(reply.cid, entry.cid.get());
        reply
    }

    /// As [`Bench::ask`]; its data, of a command that succeeds.
    pub fn data(&mut self, entry: &SubmissionEntry) -> Vec<u8> {
        let reply = self.ask(entry, &[]);
        assert_eq!(reply.status, Status::SUCCESS, "{entry:?}");
        reply.data
    }

    /// The status of a command without data.
    pub fn status(&mut self, entry: &SubmissionEntry) -> Status {
        let reply = self.ask(entry, &[]);
        assert!(reply.status.is_success() || reply.data.is_empty(), "errors carry no data");
        reply.status
    }

    pub fn get(&mut self, offset: u32, wide: bool) -> Reply {
        self.ask(&PropertyCommand::get(1, offset, wide).into_entry(), &[])
    }

    pub fn set_cc(&mut self, value: u32) {
        let entry = PropertyCommand::set(1, offset::CC, value).into_entry();
        assert_eq!(self.ask(&entry, &[]).status, Status::SUCCESS);
    }
}

/// A command with room for `room` bytes of data.
pub fn command(opcode: u8, nsid: u32, dwords: &[u32], room: u32) -> SubmissionEntry {
    let mut entry = SubmissionEntry { opcode, cid: 0xbeef.into(), ..Default::default() };
    entry.nsid = nsid.into();
    for (slot, dword) in entry.cdw10.iter_mut().zip(dwords) {
        *slot = (*dword).into();
    }
    entry.set_sgl(SglDescriptor::transport(room));
    entry
}

pub fn identify(cns: u8, nsid: u32) -> SubmissionEntry {
    command(admin::IDENTIFY, nsid, &[cns.into()], 4096)
}

#[test]
fn nothing_but_fabrics_commands_before_it_is_enabled() {
    for kind in [Kind::Io, Kind::Discovery] {
        let mut bench = Bench::connected(kind);
        for opcode in (0..=0xff).filter(|opcode| *opcode != admin::FABRICS) {
            let status = bench.status(&command(opcode, 0, &[], 4096));
            assert_eq!(status, Status::COMMAND_SEQUENCE.with_dnr(), "{opcode:#x}");
        }
    }
}

#[test]
fn what_is_not_offered_is_an_invalid_opcode() {
    let mut bench = Bench::enabled(Kind::Io);
    // Among them Create and Delete I/O Queue, which fabrics do not have.
    for opcode in [0x00, 0x01, 0x04, 0x05, 0x0d, 0x10, 0x14, 0x15, 0x80, 0x81, 0x82, 0xc0, 0xff] {
        let status = bench.status(&command(opcode, 0, &[], 4096));
        assert_eq!(status, Status::INVALID_OPCODE.with_dnr(), "{opcode:#x}");
    }
}

#[test]
fn fused_and_unknown_fabrics_commands_are_invalid() {
    let mut bench = Bench::enabled(Kind::Io);
    let mut fused = identify(1, 0);
    fused.flags |= 1;
    assert_eq!(bench.status(&fused), INVALID_FIELD);
    let mut fabrics = PropertyCommand::get(1, 0, true);
    for fctype in [0x05, 0x06, 0x08, 0x7f] {
        fabrics.fctype = fctype;
        assert_eq!(bench.status(&fabrics.into_entry()), INVALID_FIELD);
    }
    let again = nvme::fabrics::ConnectCommand::new(3, 0, 31, 0).into_entry();
    assert_eq!(bench.status(&again), Status::COMMAND_SEQUENCE.with_dnr());
}

#[test]
fn data_need_room_of_the_transport() {
    let mut bench = Bench::enabled(Kind::Io);
    let mut entry = identify(1, 0);
    for (sgl, status) in [
        (SglDescriptor::transport(4095), Status::SGL_LENGTH_INVALID.with_dnr()),
        (SglDescriptor::transport(0), Status::SGL_LENGTH_INVALID.with_dnr()),
        (SglDescriptor::in_capsule(4096), Status::SGL_TYPE_INVALID.with_dnr()),
        (SglDescriptor::transport(8192), Status::SUCCESS),
    ] {
        entry.set_sgl(sgl);
        assert_eq!(bench.status(&entry), status);
    }
}
