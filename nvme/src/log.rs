//! Log pages (Base 5.16).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian};

use crate::entry::SubmissionEntry;

/// LID: which page (Base figure "Get Log Page – Log Page Identifiers").
pub mod lid {
    /// Supported log pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Error information.
    pub const ERROR: u8 = 0x01;
    /// SMART / health information.
    pub const SMART: u8 = 0x02;
    /// Firmware slot information.
    pub const FIRMWARE: u8 = 0x03;
    /// Changed namespace list.
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Commands supported and effects.
    pub const EFFECTS: u8 = 0x05;
    /// Asymmetric namespace access.
    pub const ANA: u8 = 0x0c;
    /// Feature identifiers supported and effects.
    pub const FEATURES: u8 = 0x12;
    /// Discovery.
    pub const DISCOVERY: u8 = 0x70;
}

/// What Get Log Page asks for (Base 5.16.1: CDW10 to CDW14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// See [`lid`].
    pub lid: u8,
    /// Log specific.
    pub lsp: u8,
    /// Retain Asynchronous Event: reading does not clear it.
    pub retain: bool,
    /// Bytes wanted.
    pub bytes: u64,
    /// Byte offset, or an index if `by_index`.
    pub offset: u64,
    /// The offset is an index.
    pub by_index: bool,
}

impl LogRequest {
    /// From the command.
    pub fn from_entry(entry: &SubmissionEntry) -> Self {
        let [dw10, dw11, dw12, dw13, dw14, _] = entry.cdw10.map(little_endian::U32::get);
        let [lid, lsp, ..] = dw10.to_le_bytes();
        let dwords = (u64::from(dw11 & 0xffff) << 16 | u64::from(dw10 >> 16)) + 1;
        Self {
            lid,
            lsp: lsp & 0x7f,
            retain: lsp & 0x80 != 0,
            bytes: dwords * 4,
            offset: u64::from(dw13) << 32 | u64::from(dw12),
            by_index: dw14 >> 23 & 1 == 1,
        }
    }

    /// Into a command's CDW10 to CDW14; `bytes` is a multiple of four.
    ///
    /// # Panics
    /// If no or too many bytes are wanted, or not whole double words.
    pub fn put(&self, entry: &mut SubmissionEntry) {
        assert!(self.bytes > 0 && self.bytes.is_multiple_of(4), "whole double words");
        let dwords = u32::try_from(self.bytes / 4 - 1).expect("at most 16 GiB");
        let lsp = u32::from(self.lsp) | u32::from(self.retain) << 7;
        entry.cdw10[0] = (u32::from(self.lid) | lsp << 8 | dwords << 16).into();
        entry.cdw10[1] = (dwords >> 16).into();
        let [a, b, c, d, e, f, g, h] = self.offset.to_le_bytes();
        entry.cdw10[2] = u32::from_le_bytes([a, b, c, d]).into();
        entry.cdw10[3] = u32::from_le_bytes([e, f, g, h]).into();
        entry.cdw10[4] = (u32::from(self.by_index) << 23).into();
    }
}

/// An entry of the error log (Base 5.16.1.2).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ErrorEntry {
    /// Counts all errors; 0 if the entry is empty.
    pub error_count: little_endian::U64,
    /// Queue.
    pub sqid: little_endian::U16,
    /// Command.
    pub cid: little_endian::U16,
    /// Status field with phase.
    pub status: little_endian::U16,
    /// Where the error is: byte 7:0, bit 10:8.
    pub location: little_endian::U16,
    /// First block.
    pub lba: little_endian::U64,
    /// Namespace.
    pub nsid: little_endian::U32,
    /// Vendor specific.
    pub vendor: u8,
    /// Transport type.
    pub trtype: u8,
    reserved30: [u8; 2],
    /// Command specific.
    pub cdw: little_endian::U64,
    /// Transport specific.
    pub transport: little_endian::U16,
    reserved42: [u8; 22],
}

const _: () = assert!(size_of::<ErrorEntry>() == 64);

/// SMART / health information (Base 5.16.1.3); 128-bit counters are little endian.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SmartLog {
    /// Critical warning: bit 0 spare, 1 temperature, 2 reliability, 3 read-only.
    pub critical_warning: u8,
    /// Composite temperature, kelvin.
    pub temperature: little_endian::U16,
    /// Available spare, per cent.
    pub spare: u8,
    /// Spare threshold, per cent.
    pub spare_threshold: u8,
    /// Life used, per cent.
    pub used: u8,
    /// Endurance groups.
    pub endurance: u8,
    reserved7: [u8; 25],
    /// Thousands of 512-byte units read.
    pub units_read: [u8; 16],
    /// Thousands of 512-byte units written.
    pub units_written: [u8; 16],
    /// Read commands.
    pub reads: [u8; 16],
    /// Write commands.
    pub writes: [u8; 16],
    /// Minutes busy.
    pub busy_minutes: [u8; 16],
    /// Power cycles.
    pub power_cycles: [u8; 16],
    /// Power-on hours.
    pub power_on_hours: [u8; 16],
    /// Unsafe shutdowns.
    pub unsafe_shutdowns: [u8; 16],
    /// Media errors.
    pub media_errors: [u8; 16],
    /// Entries of the error log in all.
    pub error_entries: [u8; 16],
    /// Warning and critical temperature minutes, sensors, transitions.
    pub temperatures: [u8; 40],
    reserved232: [u8; 280],
}

const _: () = assert!(size_of::<SmartLog>() == 512);
const _: () = assert!(core::mem::offset_of!(SmartLog, units_read) == 32);
const _: () = assert!(core::mem::offset_of!(SmartLog, temperatures) == 192);

/// Firmware slot information (Base 5.16.1.4).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FirmwareLog {
    /// Slot in use 2:0, next 6:4.
    pub active: u8,
    reserved1: [u8; 7],
    /// Revision in each slot.
    pub revisions: [[u8; 8]; 7],
    reserved64: [u8; 448],
}

const _: () = assert!(size_of::<FirmwareLog>() == 512);

/// An effect of a command (Base figure "Commands Supported and Effects").
pub mod effect {
    /// The command is supported.
    pub const SUPPORTED: u32 = 1;
    /// It changes blocks.
    pub const LBA_CHANGE: u32 = 1 << 1;
}

/// The head of the ANA log (Base 5.16.1.13).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnaHeader {
    /// Changes of anything in the log.
    pub change_count: little_endian::U64,
    /// Descriptors behind.
    pub groups: little_endian::U16,
    reserved10: [u8; 6],
}

const _: () = assert!(size_of::<AnaHeader>() == 16);

impl AnaHeader {
    /// Of as many groups.
    pub fn new(change_count: u64, groups: u16) -> Self {
        Self { change_count: change_count.into(), groups: groups.into(), reserved10: [0; 6] }
    }
}

/// One ANA group; its NSIDs follow, ascending.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AnaGroupDescriptor {
    /// Group identifier.
    pub group: little_endian::U32,
    /// NSIDs behind.
    pub namespaces: little_endian::U32,
    /// Changes of the group.
    pub change_count: little_endian::U64,
    /// Bits 3:0, see [`AnaState`].
    pub state: u8,
    reserved17: [u8; 15],
}

const _: () = assert!(size_of::<AnaGroupDescriptor>() == 32);

impl AnaGroupDescriptor {
    /// A group of as many namespaces.
    pub fn new(group: u32, namespaces: u32, change_count: u64, state: AnaState) -> Self {
        Self {
            group: group.into(),
            namespaces: namespaces.into(),
            change_count: change_count.into(),
            state: state.number(),
            reserved17: [0; 15],
        }
    }
}

/// [`LogRequest::lsp`] of the ANA log: groups without their NSIDs.
pub const ANA_GROUPS_ONLY: u8 = 1;

/// How a group of namespaces can be reached through a controller (Base 8.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnaState {
    /// Best.
    Optimized,
    /// Works, but another way is better.
    NonOptimized,
    /// Not now.
    Inaccessible,
    /// Never again through this controller.
    PersistentLoss,
    /// Changing.
    Change,
}

impl AnaState {
    /// As the log has it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Optimized => 0x1,
            Self::NonOptimized => 0x2,
            Self::Inaccessible => 0x3,
            Self::PersistentLoss => 0x4,
            Self::Change => 0xf,
        }
    }

    /// From the log; `None` for a number without a meaning.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number & 0xf {
            0x1 => Some(Self::Optimized),
            0x2 => Some(Self::NonOptimized),
            0x3 => Some(Self::Inaccessible),
            0x4 => Some(Self::PersistentLoss),
            0xf => Some(Self::Change),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back_from_its_command() {
        let request = LogRequest {
            lid: lid::ANA,
            lsp: 1,
            retain: true,
            bytes: 0x1_0002 * 4,
            offset: 0x1_0000_0010,
            by_index: true,
        };
        let mut entry = SubmissionEntry::default();
        request.put(&mut entry);
        assert_eq!(entry.cdw10[0].get(), 0x0001_810c);
        assert_eq!(entry.cdw10[1].get(), 1);
        assert_eq!(LogRequest::from_entry(&entry), request);
        let whole = SubmissionEntry { cdw10: [u32::MAX.into(); 6], ..entry };
        assert_eq!(LogRequest::from_entry(&whole).bytes, 4 << 32);
    }

    #[test]
    fn states_have_numbers_both_ways() {
        for number in 0..16 {
            if let Some(state) = AnaState::from_number(number) {
                assert_eq!(state.number(), number);
            }
        }
        assert_eq!((0..16).filter_map(AnaState::from_number).count(), 5);
        assert_eq!(AnaState::from_number(0), None);
    }
}
