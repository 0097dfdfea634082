//! How a controller is brought up, in the order of the Linux host, as a state machine.
//!
//! Connect, CAP, CC.EN 0, CSTS, CC.EN 1, CSTS, VS, Identify Controller, number of queues,
//! the I/O queues, asynchronous events, then the namespaces wanted (Base 3.5.1). It asks for
//! one command at a time and checks what the controller says of itself. A discovery
//! controller ends behind Identify.

use std::time::{Duration, Instant};

use zerocopy::{FromBytes, IntoBytes};

use super::command::Command;
use super::error::Error;
use super::memory::Data;
use super::settings::Settings;
use super::slots::MAX_DEPTH;
use crate::code::sct;
use crate::fabrics::{
    CATTR_NO_FLOW_CONTROL, ConnectCommand, ConnectData, ConnectResult, DYNAMIC_CNTLID,
    PropertyCommand,
};
use crate::feature::{event_bits, fid};
use crate::identify::{
    IdentifyController, IdentifyNamespace, cmic, cns, controller_type, descriptor, descriptors,
    namespaces, sgls,
};
use crate::property::{Capabilities, Configuration, ControllerStatus, offset};
use crate::{Status, SubmissionEntry};

/// Entries of the admin submission queue less one, as Linux has it.
pub(super) const ADMIN_SQSIZE: u16 = 31;
/// Between two looks at CSTS.
const READY_STEP: Duration = Duration::from_millis(10);
/// Longest wait for a controller whose CAP.TO says nothing.
const READY_LEAST: Duration = Duration::from_secs(10);
/// Namespaces that are taken note of.
const MOST_NAMESPACES: usize = 1024;

/// What a script wants next.
pub(super) enum Ask {
    /// A command; its data out are the script's.
    Command(Command),
    /// To be asked again later.
    Wait,
    /// So many I/O queues for the controller.
    IoQueues,
    /// Nothing.
    Done,
}

/// A sequence of admin commands.
pub(super) trait Script {
    /// What comes next.
    fn ask(&mut self, now: Instant) -> Ask;
    /// What the next command sends.
    fn data(&self) -> &[u8];
    /// How it ended, and what it brought.
    fn answer(
        &mut self,
        now: Instant,
        status: Status,
        result: u64,
        data: &[u8],
    ) -> Result<(), Error>;
}

/// What a controller says of itself.
#[derive(Clone, Debug, Default)]
pub struct Controller {
    /// Its identifier.
    pub cntlid: u16,
    /// Commands that an I/O queue may have under way.
    pub depth: u16,
    /// Bytes that an I/O command may carry.
    pub in_capsule: u32,
    /// Most bytes of a command's data; `None` for no limit.
    pub most_bytes: Option<u64>,
    /// Delays before a retry, by CRD less one.
    pub retry_delays: [Duration; 3],
    /// It reports asymmetric access.
    pub ana: bool,
    /// It has a volatile write cache.
    pub write_cache: bool,
    /// It has Dataset Management, Write Zeroes and so on: ONCS.
    pub oncs: u16,
    /// VS.
    pub version: u32,
    /// Model number.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// I/O queues that it grants.
    pub io_queues: u16,
}

/// An active namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its number.
    pub nsid: u32,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Blocks.
    pub blocks: u64,
    /// Globally unique identifier; zeros for none.
    pub nguid: [u8; 16],
    /// UUID, if it has one.
    pub uuid: Option<[u8; 16]>,
    /// ANA group.
    pub ana_group: u32,
    /// Writes fail.
    pub read_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connect,
    Capabilities,
    Disable,
    AwaitDisabled,
    Enable,
    AwaitReady,
    Version,
    Identify,
    Queues,
    IoQueues,
    Events,
    List,
    Namespace(usize),
    Descriptors(usize),
    Done,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Connect => "Connect",
            Step::Capabilities => "Property Get CAP",
            Step::Disable | Step::Enable => "Property Set CC",
            Step::AwaitDisabled | Step::AwaitReady => "Property Get CSTS",
            Step::Version => "Property Get VS",
            Step::Identify => "Identify Controller",
            Step::Queues => "Set Features Number of Queues",
            Step::Events => "Set Features Asynchronous Event Configuration",
            Step::List => "Identify Active Namespaces",
            Step::Namespace(_) => "Identify Namespace",
            Step::Descriptors(_) => "Identify Namespace Descriptors",
            Step::IoQueues | Step::Done => "nothing",
        }
    }
}

/// See the module.
pub(super) struct Bringup {
    settings: Settings,
    step: Step,
    connect: ConnectData,
    capabilities: Capabilities,
    /// When CSTS is to be looked at, and until when.
    look: Option<(Instant, Instant)>,
    found: Vec<u32>,
    pub controller: Controller,
    pub namespaces: Vec<Namespace>,
}

impl Bringup {
    pub fn new(settings: Settings) -> Bringup {
        let connect =
            ConnectData::new(settings.host_id, DYNAMIC_CNTLID, &settings.subsystem, &settings.host);
        Bringup {
            settings,
            step: Step::Connect,
            connect,
            capabilities: Capabilities::from_bits(0),
            look: None,
            found: Vec::new(),
            controller: Controller::default(),
            namespaces: Vec::new(),
        }
    }

    /// The data of Connect for an I/O queue of the controller.
    pub fn io_connect_data(&self) -> ConnectData {
        let Settings { host_id, subsystem, host, .. } = &self.settings;
        ConnectData::new(*host_id, self.controller.cntlid, subsystem, host)
    }

    /// All I/O queues are connected.
    pub fn io_queues_ready(&mut self) {
        assert_eq!(self.step, Step::IoQueues, "they were asked for");
        self.step = Step::Events;
    }

    pub fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    fn discovers(&self) -> bool {
        self.settings.subsystem.is_discovery()
    }

    fn command(&self) -> Command {
        let property = |entry: PropertyCommand| plain(entry.into_entry());
        match self.step {
            Step::Connect => connect(0, ADMIN_SQSIZE, self.settings.kato_ms()),
            Step::Capabilities => property(PropertyCommand::get(0, offset::CAP, true)),
            Step::Disable => {
                let cc = Configuration::ENABLED.with_enable(false);
                property(PropertyCommand::set(0, offset::CC, cc.bits()))
            }
            Step::Enable => {
                let cc = Configuration::ENABLED.bits();
                property(PropertyCommand::set(0, offset::CC, cc))
            }
            Step::AwaitDisabled | Step::AwaitReady => {
                property(PropertyCommand::get(0, offset::CSTS, false))
            }
            Step::Version => property(PropertyCommand::get(0, offset::VS, false)),
            Step::Identify => Command::identify(cns::CONTROLLER, 0),
            Step::Queues => {
                let less_one = u32::from(self.settings.io_queues - 1);
                Command::set_feature(fid::QUEUES, less_one | less_one << 16)
            }
            Step::Events => {
                let ana = if self.controller.ana { event_bits::ANA } else { 0 };
                Command::set_feature(fid::EVENTS, event_bits::NAMESPACE | ana)
            }
            Step::List => {
                // The list begins behind the namespace that is named.
                let before = self.settings.nsid.map_or(0, |nsid| nsid.saturating_sub(1));
                Command::identify(cns::ACTIVE_NAMESPACES, before)
            }
            Step::Namespace(n) => Command::identify(cns::NAMESPACE, self.found[n]),
            Step::Descriptors(n) => Command::identify(cns::DESCRIPTORS, self.found[n]),
            Step::IoQueues | Step::Done => panic!("no command to be asked for"),
        }
    }

    fn next(&mut self) {
        self.step = match self.step {
            Step::Connect => Step::Capabilities,
            Step::Capabilities => Step::Disable,
            Step::Disable => Step::AwaitDisabled,
            Step::AwaitDisabled => Step::Enable,
            Step::Enable => Step::AwaitReady,
            Step::AwaitReady => Step::Version,
            Step::Version => Step::Identify,
            Step::Identify if self.discovers() => Step::Done,
            Step::Identify => Step::Queues,
            Step::Queues => Step::IoQueues,
            Step::IoQueues => Step::Events,
            Step::Events => Step::List,
            Step::List => Step::Namespace(0),
            Step::Namespace(n) => Step::Descriptors(n),
            Step::Descriptors(n) if n + 1 < self.found.len() => Step::Namespace(n + 1),
            Step::Descriptors(_) | Step::Done => Step::Done,
        };
        if self.step == Step::Namespace(0) && self.found.is_empty() {
            self.step = Step::Done;
        }
    }

    /// CSTS while the controller is waited for (Base 3.1.3.6).
    fn look_at(&mut self, now: Instant, bits: u64) -> Result<(), Error> {
        let [a, b, c, d, ..] = bits.to_le_bytes();
        let status = ControllerStatus::from_bits(u32::from_le_bytes([a, b, c, d]));
        if status.fatal() {
            return Err(Error::Unfit("it reports a fatal status"));
        }
        if status.ready() == (self.step == Step::AwaitReady) {
            self.look = None;
            self.next();
            return Ok(());
        }
        let timeout = Duration::from_millis(500) * u32::from(self.capabilities.timeout_500ms());
        let until = self.look.map_or(now + timeout.max(READY_LEAST), |(_, until)| until);
        if now > until {
            return Err(Error::Silent);
        }
        self.look = Some((now + READY_STEP, until));
        Ok(())
    }

    fn connected(&mut self, result: u64) -> Result<(), Error> {
        if ConnectResult::authentication(result) {
            return Err(Error::Authentication);
        }
        self.controller.cntlid = ConnectResult::cntlid(result);
        Ok(())
    }

    /// Identify Controller (Base 5.17.2.1): what fabrics require.
    fn identify(&mut self, data: &[u8]) -> Result<(), Error> {
        let id =
            IdentifyController::ref_from_bytes(data).map_err(|_| Error::Unfit("short data"))?;
        let unfit = |bad: bool, why| if bad { Err(Error::Unfit(why)) } else { Ok(()) };
        unfit(id.cntlid.get() != self.controller.cntlid, "its identifier is not Connect's")?;
        let wanted =
            if self.discovers() { controller_type::DISCOVERY } else { controller_type::IO };
        // Before revision 1.4 the field was reserved.
        unfit(![0, wanted].contains(&id.cntrltype), "it is of another type")?;
        let text = |field: &[u8]| String::from_utf8_lossy(field).trim_end().to_owned();
        let controller = &mut self.controller;
        controller.model = text(&id.mn);
        controller.serial = text(&id.sn);
        if wanted == controller_type::DISCOVERY {
            return Ok(());
        }
        unfit(id.kas.get() == 0 && !self.settings.kato.is_zero(), "it has no keep-alive timer")?;
        unfit(id.sgls.get() & (sgls::SUPPORTED | 0b10) == 0, "it has no SGLs")?;
        unfit(id.ioccsz.get() < 4 || id.iorcsz.get() < 1, "its capsules are too small")?;
        unfit(id.icdoff.get() != 0, "its in-capsule data have an offset")?;
        unfit(id.sqes & 0xf > 6 || id.sqes >> 4 < 6, "its entries are of another size")?;
        let least_page = 4096_u64 << self.capabilities.mps_min();
        // Above 2^32 pages it is no limit that a command could reach.
        controller.most_bytes = (1..=32).contains(&id.mdts).then(|| least_page << id.mdts);
        // A capsule is 64 bytes and data; in-capsule data need offsets in SGLs.
        let capsule = if id.sgls.get() & sgls::OFFSET != 0 { id.ioccsz.get() } else { 4 };
        controller.in_capsule = capsule.min(1 << 16) * 16 - 64;
        let depth = match id.maxcmd.get() {
            0 => self.capabilities.mqes(),
            most => self.capabilities.mqes().min(most),
        };
        controller.depth = depth.min(self.settings.depth).clamp(1, MAX_DEPTH);
        controller.retry_delays =
            id.crdt.map(|units| Duration::from_millis(100) * units.get().into());
        controller.ana = id.cmic & cmic::ANA != 0;
        controller.write_cache = id.vwc & 1 != 0;
        controller.oncs = id.oncs.get();
        Ok(())
    }

    fn list(&mut self, data: &[u8]) -> Result<(), Error> {
        let wanted = |nsid: &u32| self.settings.nsid.is_none_or(|only| only == *nsid);
        self.found = namespaces(data).filter(wanted).take(MOST_NAMESPACES).collect();
        match self.settings.nsid {
            Some(nsid) if self.found.is_empty() => Err(Error::NoNamespace(nsid)),
            _ => Ok(()),
        }
    }

    fn namespace(&mut self, nsid: u32, data: &[u8]) -> Result<(), Error> {
        let id = IdentifyNamespace::ref_from_bytes(data).map_err(|_| Error::Unfit("short data"))?;
        let block_bytes = id.block_bytes().ok_or(Error::Unfit("blocks of unknown size"))?;
        let format = id.lbaf[usize::from(id.flbas & 0xf)].get();
        if format & 0xffff != 0 {
            return Err(Error::Unfit("blocks have metadata"));
        }
        self.namespaces.push(Namespace {
            nsid,
            block_bytes,
            blocks: id.nsze.get(),
            nguid: id.nguid,
            uuid: None,
            ana_group: id.anagrpid.get(),
            read_only: id.nsattr & 1 != 0,
        });
        Ok(())
    }

    fn describe(&mut self, data: &[u8]) {
        let uuid = descriptors(data).find(|(kind, _)| *kind == descriptor::UUID);
        let last = self.namespaces.last_mut().expect("it has been identified");
        last.uuid = uuid.and_then(|(_, bytes)| bytes.try_into().ok());
    }
}

impl Script for Bringup {
    fn ask(&mut self, now: Instant) -> Ask {
        match (self.step, self.look) {
            (Step::Done, _) => Ask::Done,
            (Step::IoQueues, _) => Ask::IoQueues,
            (_, Some((at, _))) if now < at => Ask::Wait,
            _ => Ask::Command(self.command()),
        }
    }

    fn data(&self) -> &[u8] {
        self.connect.as_bytes()
    }

    fn answer(
        &mut self,
        now: Instant,
        status: Status,
        result: u64,
        data: &[u8],
    ) -> Result<(), Error> {
        let step = self.step;
        // A target need not know descriptors, nor all events.
        let optional = matches!(step, Step::Descriptors(_) | Step::Events)
            && matches!(status.sct(), sct::GENERIC | sct::COMMAND_SPECIFIC);
        if !status.is_success() && !optional {
            return Err(Error::Refused { what: step.name(), status, result });
        }
        match step {
            Step::Connect => self.connected(result)?,
            Step::Capabilities => {
                self.capabilities = Capabilities::from_bits(result);
                if !self.capabilities.nvm_command_set() && !self.discovers() {
                    return Err(Error::Unfit("it lacks the NVM command set"));
                }
            }
            Step::AwaitDisabled | Step::AwaitReady => return self.look_at(now, result),
            Step::Version => {
                let [a, b, c, d, ..] = result.to_le_bytes();
                self.controller.version = u32::from_le_bytes([a, b, c, d]);
            }
            Step::Identify => self.identify(data)?,
            Step::Queues => {
                let [a, b, c, d, ..] = result.to_le_bytes();
                let least = u16::from_le_bytes([a, b]).min(u16::from_le_bytes([c, d]));
                self.controller.io_queues = least.saturating_add(1).min(self.settings.io_queues);
            }
            Step::List => self.list(data)?,
            Step::Namespace(n) => self.namespace(self.found[n], data)?,
            Step::Descriptors(_) if status.is_success() => self.describe(data),
            _ => {}
        }
        self.next();
        Ok(())
    }
}

fn plain(entry: SubmissionEntry) -> Command {
    Command { entry, data: Data::None }
}

/// Connect of a queue; its data are a [`ConnectData`].
pub(super) fn connect(qid: u16, sqsize: u16, kato_ms: u32) -> Command {
    let mut command = ConnectCommand::new(0, qid, sqsize, kato_ms);
    // SQHD is not read, so that C2HData may end commands (TCP 3.3.2.2).
    command.cattr = CATTR_NO_FLOW_CONTROL;
    Command { entry: command.into_entry(), data: Data::Out(1024) }
}

/// Property Set of CC that shuts the controller down (Base 3.6.1).
pub(super) fn shutdown() -> Command {
    let cc = Configuration::ENABLED.with_shutdown(crate::property::Shutdown::Normal);
    plain(PropertyCommand::set(0, offset::CC, cc.bits()).into_entry())
}
