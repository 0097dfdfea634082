//! Get and Set Features (Base 5.15, 5.27). Nothing is saved across power cycles, so SV is
//! refused, and the saved value is the default.

use nvme::SubmissionEntry;
use nvme::code::Status;
use nvme::feature::{FeatureRequest, Select, capability, event_bits, fid};
use nvme::identify::ALL_NAMESPACES;

use super::{Answer, Controller, INVALID_FIELD, KEEP_ALIVE_UNIT_MS, Kind, Limits, Outcome, World};

/// Bytes of the host behavior support data.
const BEHAVIOR_BYTES: usize = 512;
/// Over temperature threshold until a host sets one: no temperature is over it.
const OVER_DEFAULT: u16 = 0xffff;

/// A feature that this module knows.
#[derive(Clone, Copy)]
struct Known {
    fid: u8,
    changeable: bool,
    by_namespace: bool,
}

const fn known(fid: u8, changeable: bool) -> Known {
    Known { fid, changeable, by_namespace: false }
}

const IO_FEATURES: [Known; 16] = [
    known(fid::ARBITRATION, true),
    known(fid::POWER, true),
    known(fid::TEMPERATURE, true),
    known(fid::ERROR_RECOVERY, true),
    known(fid::WRITE_CACHE, false),
    known(fid::QUEUES, true),
    known(fid::COALESCING, true),
    known(fid::INTERRUPT, true),
    known(fid::WRITE_ATOMICITY, true),
    known(fid::EVENTS, true),
    known(fid::TIMESTAMP, true),
    known(fid::KEEP_ALIVE, true),
    known(fid::HOST_BEHAVIOR, true),
    known(fid::HOST_ID, false),
    Known { fid: fid::RESERVATION_MASK, changeable: true, by_namespace: true },
    Known { fid: fid::RESERVATION_PERSISTENCE, changeable: false, by_namespace: true },
];
const DISCOVERY_FEATURES: [Known; 2] = [known(fid::EVENTS, true), known(fid::KEEP_ALIVE, true)];

/// Features whose value is one double word that nothing here depends on.
const PLAIN: [u8; 5] =
    [fid::ARBITRATION, fid::ERROR_RECOVERY, fid::COALESCING, fid::WRITE_ATOMICITY, fid::POWER];

/// The values of one controller.
#[derive(Debug)]
pub struct Features {
    io_queues: u16,
    /// Granted, once the host has asked.
    granted: Option<u16>,
    kato_ms: u32,
    events: u32,
    plain: [u32; PLAIN.len()],
    /// Over and under.
    temperature: [u16; 2],
    /// Milliseconds since 1970 that the host has set, and our clock then.
    timestamp: Option<(u64, u64)>,
    behavior: [u8; 1],
    reservation_mask: u32,
}

impl Features {
    /// The defaults.
    pub fn new(limits: &Limits, kato_ms: u32) -> Self {
        Self {
            io_queues: limits.io_queues,
            granted: None,
            kato_ms,
            events: 0,
            plain: [0; PLAIN.len()],
            temperature: [OVER_DEFAULT, 0],
            timestamp: None,
            behavior: [0],
            reservation_mask: 0,
        }
    }

    /// A reset of the controller: everything is at its default; the keep-alive timeout is
    /// the association's and stays (Base 5.27.1.12), and so does the clock.
    pub fn reset(&mut self) {
        let (kato_ms, timestamp) = (self.kato_ms, self.timestamp);
        let limits = Limits { queue_entries: 2, io_queues: self.io_queues, mdts: 0, in_capsule: 0 };
        *self = Self { timestamp, ..Self::new(&limits, kato_ms) };
    }

    /// Milliseconds; 0 for none.
    pub fn kato_ms(&self) -> u32 {
        self.kato_ms
    }

    /// Events that are enabled, as feature 0Bh has them.
    pub fn events(&self) -> u32 {
        self.events
    }

    /// I/O queues that the host may connect.
    pub fn granted_queues(&self) -> u16 {
        self.granted.unwrap_or(self.io_queues)
    }

    fn queues(granted: u16) -> u64 {
        let counted = u64::from(granted - 1);
        counted << 16 | counted
    }
}

/// The Feature Identifiers Supported and Effects log (Base 5.16.1.18).
pub(super) fn effects() -> Vec<u8> {
    const SUPPORTED: u32 = 1;
    const SCOPE_NAMESPACE: u32 = 1 << 20;
    const SCOPE_CONTROLLER: u32 = 1 << 21;
    let mut page = vec![0; 1024];
    for known in IO_FEATURES {
        let scope = if known.by_namespace { SCOPE_NAMESPACE } else { SCOPE_CONTROLLER };
        let at = usize::from(known.fid) * 4;
        page[at..at + 4].copy_from_slice(&(SUPPORTED | scope).to_le_bytes());
    }
    page
}

impl Controller {
    fn known(&self, fid: u8) -> Result<Known, Status> {
        let all: &[Known] = match self.identity.kind {
            Kind::Io => &IO_FEATURES,
            Kind::Discovery => &DISCOVERY_FEATURES,
        };
        all.iter().copied().find(|known| known.fid == fid).ok_or(INVALID_FIELD)
    }

    pub(super) fn get_feature(&mut self, entry: &SubmissionEntry, world: &World<'_>) -> Answer {
        let request = FeatureRequest::from_entry(entry);
        let known = self.known(request.fid)?;
        let defaults;
        let values = match request.select.ok_or(INVALID_FIELD)? {
            Select::Capabilities => {
                let mut bits = 0;
                bits |= if known.changeable { capability::CHANGEABLE } else { 0 };
                bits |= if known.by_namespace { capability::NAMESPACE } else { 0 };
                return Ok(Outcome::result(bits.into()));
            }
            Select::Current => &self.features,
            Select::Default | Select::Saved => {
                defaults = Features::new(&self.limits, 0);
                &defaults
            }
        };
        self.value(values, known, entry, world)
    }

    fn value(
        &self,
        values: &Features,
        known: Known,
        entry: &SubmissionEntry,
        world: &World<'_>,
    ) -> Answer {
        let dw11 = entry.cdw10[1].get();
        let result = match known.fid {
            fid::TEMPERATURE => u32::from(values.temperature[threshold(dw11)?]).into(),
            // Always on: without it every write would have to be durable at once.
            fid::WRITE_CACHE => 1,
            fid::QUEUES => Features::queues(values.granted_queues()),
            fid::INTERRUPT => u64::from(dw11 & 0xffff),
            fid::EVENTS => values.events.into(),
            fid::KEEP_ALIVE => values.kato_ms.into(),
            fid::TIMESTAMP => return Ok(Outcome::data(timestamp(values, world.wall_ms).to_vec())),
            fid::HOST_BEHAVIOR => {
                let mut data = vec![0; BEHAVIOR_BYTES];
                data[0] = values.behavior[0];
                return Ok(Outcome::data(data));
            }
            fid::HOST_ID => {
                // Fabrics know 128-bit identifiers alone (Base 5.27.1.25).
                if dw11 & 1 == 0 {
                    return Err(INVALID_FIELD);
                }
                return Ok(Outcome::data(self.identity.host_id.to_vec()));
            }
            fid::RESERVATION_MASK => {
                one_namespace(entry.nsid.get(), world)?;
                values.reservation_mask.into()
            }
            fid::RESERVATION_PERSISTENCE => {
                one_namespace(entry.nsid.get(), world)?;
                0
            }
            fid => values.plain[plain(fid)].into(),
        };
        Ok(Outcome::result(result))
    }

    pub(super) fn set_feature(
        &mut self,
        entry: &SubmissionEntry,
        data: &[u8],
        world: &World<'_>,
    ) -> Answer {
        let request = FeatureRequest::from_entry(entry);
        let known = self.known(request.fid)?;
        if request.save {
            return Err(Status::NOT_SAVEABLE.with_dnr());
        }
        if !known.by_namespace && !matches!(entry.nsid.get(), 0 | ALL_NAMESPACES) {
            return Err(Status::NOT_BY_NAMESPACE.with_dnr());
        }
        let dw11 = entry.cdw10[1].get();
        match known.fid {
            fid::TEMPERATURE => {
                let [low, high, ..] = dw11.to_le_bytes();
                self.features.temperature[threshold(dw11)?] = u16::from_le_bytes([low, high]);
            }
            fid::WRITE_CACHE if dw11 & 1 == 1 => {}
            fid::WRITE_CACHE => return Err(Status::NOT_CHANGEABLE.with_dnr()),
            fid::QUEUES => return self.set_queues(dw11, world),
            // There is one vector, and no interrupts.
            fid::INTERRUPT if dw11 & 0xffff == 0 => {}
            fid::EVENTS => {
                if dw11 & !(self.events.offered() | event_bits::SMART) != 0 {
                    return Err(INVALID_FIELD);
                }
                self.features.events = dw11;
            }
            fid::KEEP_ALIVE => self.set_kato(dw11)?,
            fid::TIMESTAMP => {
                let data = data.first_chunk::<8>().ok_or(NO_DATA)?;
                let ms = u64::from_le_bytes(*data) & 0xffff_ffff_ffff;
                self.features.timestamp = Some((ms, world.wall_ms));
            }
            fid::HOST_BEHAVIOR => {
                let data = data.first_chunk::<BEHAVIOR_BYTES>().ok_or(NO_DATA)?;
                if data[0] > 1 {
                    return Err(INVALID_FIELD);
                }
                self.features.behavior[0] = data[0];
            }
            // Connect has said it (Base 5.27.1.25).
            fid::HOST_ID => return Err(Status::COMMAND_SEQUENCE.with_dnr()),
            fid::RESERVATION_MASK => {
                one_namespace(entry.nsid.get(), world)?;
                self.features.reservation_mask = dw11;
            }
            fid::RESERVATION_PERSISTENCE => {
                one_namespace(entry.nsid.get(), world)?;
                if dw11 & 1 == 1 {
                    return Err(INVALID_FIELD);
                }
            }
            // One power state, and blocks that are deallocated are no errors.
            fid::POWER if dw11 & 0x1f != 0 => return Err(INVALID_FIELD),
            fid::ERROR_RECOVERY if dw11 >> 16 & 1 == 1 => return Err(INVALID_FIELD),
            fid::INTERRUPT => return Err(INVALID_FIELD),
            fid => self.features.plain[plain(fid)] = dw11,
        }
        Ok(Outcome::ok())
    }

    /// Number of Queues (Base 5.27.1.5): before any is connected.
    fn set_queues(&mut self, dw11: u32, world: &World<'_>) -> Answer {
        let (submission, completion) = (dw11 & 0xffff, dw11 >> 16);
        if submission == 0xffff || completion == 0xffff {
            return Err(INVALID_FIELD);
        }
        if world.io_queues > 0 {
            return Err(Status::COMMAND_SEQUENCE.with_dnr());
        }
        let asked = u16::try_from(submission.min(completion) + 1).expect("below FFFFh");
        let granted = asked.min(self.limits.io_queues);
        self.features.granted = Some(granted);
        Ok(Outcome::result(Features::queues(granted)))
    }

    fn set_kato(&mut self, kato_ms: u32) -> Result<(), Status> {
        if kato_ms > u32::MAX - KEEP_ALIVE_UNIT_MS {
            return Err(Status::KEEP_ALIVE_INVALID.with_dnr());
        }
        let wanted = match (self.identity.kind, kato_ms) {
            (Kind::Discovery, 0) => super::DISCOVERY_KATO_MS,
            _ => kato_ms,
        };
        self.features.kato_ms = wanted;
        Ok(())
    }
}

/// Data that a command needs did not come in its capsule.
const NO_DATA: Status = Status::SGL_LENGTH_INVALID.with_dnr();

fn plain(fid: u8) -> usize {
    PLAIN.iter().position(|plain| *plain == fid).expect("every other feature is handled")
}

/// The composite temperature's threshold, 0 for over, 1 for under; there are no sensors.
fn threshold(dw11: u32) -> Result<usize, Status> {
    match (dw11 >> 16 & 0xf, dw11 >> 20 & 0b11) {
        (0 | 0xf, 0) => Ok(0),
        (0 | 0xf, 1) => Ok(1),
        _ => Err(INVALID_FIELD),
    }
}

/// Reservation features name one namespace.
fn one_namespace(nsid: u32, world: &World<'_>) -> Result<(), Status> {
    let found = world.subsystem.get(nsid);
    found.map(|_| ()).ok_or(Status::INVALID_NAMESPACE.with_dnr())
}

/// The timestamp's eight bytes: 48 bits of milliseconds, then where they come from.
fn timestamp(values: &Features, wall_ms: u64) -> [u8; 8] {
    const SET_BY_HOST: u64 = 1 << 49;
    let value = match values.timestamp {
        Some((ms, at)) => {
            let now = ms.wrapping_add(wall_ms.saturating_sub(at)) & 0xffff_ffff_ffff;
            now | SET_BY_HOST
        }
        None => wall_ms & 0xffff_ffff_ffff,
    };
    value.to_le_bytes()
}
