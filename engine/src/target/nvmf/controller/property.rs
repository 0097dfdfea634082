//! Properties: CAP, VS, CC, CSTS, CRTO; enabling, resetting, shutting down (Base 3.1.3, 3.5, 3.6).

use nvme::SubmissionEntry;
use nvme::code::Status;
use nvme::fabrics::PropertyCommand;
use nvme::property::{
    Capabilities, Configuration, ControllerStatus, Shutdown, VERSION_2_0, offset,
};

use super::{INVALID_FIELD, Kind, Limits};

/// Longest time until ready, units of 500 ms. It is ready at once; hosts wait no longer
/// than this for a target that hangs.
const READY_500MS: u8 = 30;

/// What a write to CC did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// EN went from 1 to 0.
    pub reset: bool,
    /// A shutdown was asked for.
    pub shutdown: bool,
}

/// The properties of one controller.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    kind: Kind,
    cap: Capabilities,
    cc: Configuration,
    csts: ControllerStatus,
}

impl Registers {
    /// Of a controller that is not enabled.
    pub fn new(kind: Kind, limits: &Limits) -> Self {
        Self {
            kind,
            cap: Capabilities::fabrics(limits.queue_entries, READY_500MS),
            cc: Configuration::default(),
            csts: ControllerStatus::default(),
        }
    }

    /// CSTS.
    pub fn status(&self) -> ControllerStatus {
        self.csts
    }

    /// The controller has failed: CFS, and no longer ready.
    pub fn fail(&mut self) {
        let bits = self.csts.bits() & !ControllerStatus::RDY | ControllerStatus::CFS;
        self.csts = ControllerStatus::from_bits(bits);
    }

    /// Property Get.
    pub fn get(&self, entry: &SubmissionEntry) -> Result<u64, Status> {
        let command = PropertyCommand::from_entry(entry);
        let wide = command.is_wide().ok_or(INVALID_FIELD)?;
        match (command.offset.get(), wide) {
            (offset::CAP, true) => Ok(self.cap.bits()),
            (offset::VS, false) => Ok(VERSION_2_0.into()),
            (offset::CC, false) => Ok(self.cc.bits().into()),
            (offset::CSTS, false) => Ok(self.csts.bits().into()),
            (offset::NSSR, false) => Ok(0),
            // Never shorter than CAP.TO says: Linux complains of that.
            (offset::CRTO, false) => Ok(READY_500MS.into()),
            _ => Err(INVALID_FIELD),
        }
    }

    /// Property Set: CC alone can be written.
    pub fn set(&mut self, entry: &SubmissionEntry) -> Result<Change, Status> {
        let command = PropertyCommand::from_entry(entry);
        if command.is_wide() != Some(false) || command.offset.get() != offset::CC {
            return Err(INVALID_FIELD);
        }
        let [a, b, c, d, ..] = command.value.get().to_le_bytes();
        Ok(self.configure(Configuration::from_bits(u32::from_le_bytes([a, b, c, d]))))
    }

    fn configure(&mut self, new: Configuration) -> Change {
        let old = std::mem::replace(&mut self.cc, new);
        let mut change = Change::default();
        if old.enabled() && !new.enabled() {
            self.csts = ControllerStatus::default();
            change.reset = true;
        }
        if !old.enabled() && new.enabled() {
            self.csts = ControllerStatus::from_bits(if self.works(new) {
                ControllerStatus::RDY
            } else {
                ControllerStatus::CFS
            });
        }
        if new.shutdown() != Shutdown::None && old.shutdown() == Shutdown::None {
            let bits = self.csts.bits() | ControllerStatus::SHST_COMPLETE;
            self.csts = ControllerStatus::from_bits(bits);
            change.shutdown = true;
        }
        change
    }

    /// Entries of 64 and 16 bytes, 4 KiB pages, round robin, the NVM command set: what it can
    /// run with. Entries of I/O queues mean nothing to a discovery controller.
    fn works(&self, cc: Configuration) -> bool {
        let entries = self.kind == Kind::Discovery || (cc.iosqes(), cc.iocqes()) == (6, 4);
        entries && cc.mps() == 0 && cc.ams() == 0 && cc.css() == 0
    }
}
