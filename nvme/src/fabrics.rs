//! Fabrics commands and their data (Base 3.3.2, 6).
//!
//! All are submission entries with opcode 7Fh whose fifth byte is the type; see
//! [`crate::code::fabrics`]. The SGL stands where every command has it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian};

use crate::entry::SubmissionEntry;
use crate::nqn::Nqn;

/// CNTLID in a Connect for an admin queue: the controller is to be chosen.
pub const DYNAMIC_CNTLID: u16 = 0xffff;
/// The first of the identifiers that no controller gets.
pub const RESERVED_CNTLID: u16 = 0xfff0;

/// Connect (Base 6.3).
///
/// ```text
///  0 opcode 7Fh   4 fctype 01h   24 SGL1   40 record format   42 queue id
/// 44 queue entries less 1   46 attributes   48 keep-alive timeout in ms
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectCommand {
    /// [`crate::code::admin::FABRICS`].
    pub opcode: u8,
    /// PSDT.
    pub flags: u8,
    /// Command identifier.
    pub cid: little_endian::U16,
    /// [`crate::code::fabrics::CONNECT`].
    pub fctype: u8,
    reserved5: [u8; 19],
    /// The data's SGL descriptor.
    pub sgl: [u8; 16],
    /// Format of this and of the data: 0.
    pub record_format: little_endian::U16,
    /// The queue: 0 for admin.
    pub qid: little_endian::U16,
    /// Entries of the submission queue, counted from zero.
    pub sqsize: little_endian::U16,
    /// Bits 1:0 priority class, 2 no submission queue flow control.
    pub cattr: u8,
    reserved47: u8,
    /// Keep-alive timeout in milliseconds; 0 for none.
    pub kato: little_endian::U32,
    reserved52: [u8; 12],
}

const _: () = assert!(size_of::<ConnectCommand>() == 64);
const _: () = assert!(core::mem::offset_of!(ConnectCommand, sgl) == 24);
const _: () = assert!(core::mem::offset_of!(ConnectCommand, sqsize) == 44);
const _: () = assert!(core::mem::offset_of!(ConnectCommand, kato) == 48);

/// [`ConnectCommand::cattr`]: the submission queue has no flow control; SQHD is not read.
pub const CATTR_NO_FLOW_CONTROL: u8 = 1 << 2;

/// Where a parameter of Connect stands, for [`ConnectResult::invalid`].
pub mod connect_offset {
    /// In the command.
    pub const RECORD_FORMAT: u16 = 40;
    /// In the command.
    pub const QID: u16 = 42;
    /// In the command.
    pub const SQSIZE: u16 = 44;
    /// In the command.
    pub const KATO: u16 = 48;
    /// In the data.
    pub const HOST_ID: u16 = 0;
    /// In the data.
    pub const CNTLID: u16 = 16;
    /// In the data.
    pub const SUBNQN: u16 = 256;
    /// In the data.
    pub const HOSTNQN: u16 = 512;
}

impl ConnectCommand {
    /// A Connect whose data follow in the capsule; the SGL is the transport's to fill in.
    pub fn new(cid: u16, qid: u16, sqsize: u16, kato_ms: u32) -> Self {
        Self {
            opcode: crate::code::admin::FABRICS,
            flags: 0x40,
            cid: cid.into(),
            fctype: crate::code::fabrics::CONNECT,
            reserved5: [0; 19],
            sgl: [0; 16],
            record_format: 0.into(),
            qid: qid.into(),
            sqsize: sqsize.into(),
            cattr: 0,
            reserved47: 0,
            kato: kato_ms.into(),
            reserved52: [0; 12],
        }
    }

    /// The entry read as a Connect.
    pub fn from_entry(entry: &SubmissionEntry) -> Self {
        zerocopy::transmute!(*entry)
    }

    /// The same bytes as any command.
    pub fn into_entry(self) -> SubmissionEntry {
        zerocopy::transmute!(self)
    }

    /// The host does without submission queue flow control.
    pub fn no_flow_control(&self) -> bool {
        self.cattr & CATTR_NO_FLOW_CONTROL != 0
    }
}

/// The data of Connect (Base 6.3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectData {
    /// Host identifier.
    pub host_id: [u8; 16],
    /// The controller of an I/O queue, or [`DYNAMIC_CNTLID`].
    pub cntlid: little_endian::U16,
    reserved18: [u8; 238],
    /// The subsystem, padded with zeros.
    pub subnqn: [u8; 256],
    /// The host, padded with zeros.
    pub hostnqn: [u8; 256],
    reserved768: [u8; 256],
}

const _: () = assert!(size_of::<ConnectData>() == 1024);
const _: () = assert!(core::mem::offset_of!(ConnectData, subnqn) == 256);
const _: () = assert!(core::mem::offset_of!(ConnectData, hostnqn) == 512);

impl ConnectData {
    /// Of a host to a subsystem.
    pub fn new(host_id: [u8; 16], cntlid: u16, subsystem: &Nqn, host: &Nqn) -> Self {
        Self {
            host_id,
            cntlid: cntlid.into(),
            reserved18: [0; 238],
            subnqn: subsystem.to_field(),
            hostnqn: host.to_field(),
            reserved768: [0; 256],
        }
    }
}

/// DW0 and DW1 of a completed Connect (Base 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectResult;

impl ConnectResult {
    /// Success: the controller, without authentication.
    pub fn connected(cntlid: u16) -> u64 {
        cntlid.into()
    }

    /// The controller of a successful Connect.
    pub fn cntlid(result: u64) -> u16 {
        let [low, high, ..] = result.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// AUTHREQ of a successful Connect: authentication must follow.
    pub fn authentication(result: u64) -> bool {
        result >> 16 & 0b11 != 0
    }

    /// Connect Invalid Parameters: the byte offset of the first one, in the command or the data.
    pub fn invalid(offset: u16, in_data: bool) -> u64 {
        u64::from(offset) | u64::from(in_data) << 16
    }
}

/// Property Set and Property Get (Base 6.5, 6.6).
///
/// ```text
/// 4 fctype 00h or 04h   40 size (0: 4 bytes, 1: 8)   44 offset   48 value, of Set alone
/// ```
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct PropertyCommand {
    /// [`crate::code::admin::FABRICS`].
    pub opcode: u8,
    /// PSDT.
    pub flags: u8,
    /// Command identifier.
    pub cid: little_endian::U16,
    /// [`crate::code::fabrics::PROPERTY_SET`] or [`crate::code::fabrics::PROPERTY_GET`].
    pub fctype: u8,
    reserved5: [u8; 35],
    /// Bits 2:0: 0 for 4 bytes, 1 for 8.
    pub attrib: u8,
    reserved41: [u8; 3],
    /// See [`crate::property::offset`].
    pub offset: little_endian::U32,
    /// What to set.
    pub value: little_endian::U64,
    reserved56: [u8; 8],
}

const _: () = assert!(size_of::<PropertyCommand>() == 64);
const _: () = assert!(core::mem::offset_of!(PropertyCommand, attrib) == 40);
const _: () = assert!(core::mem::offset_of!(PropertyCommand, value) == 48);

impl PropertyCommand {
    fn new(cid: u16, fctype: u8, offset: u32, wide: bool, value: u64) -> Self {
        Self {
            opcode: crate::code::admin::FABRICS,
            flags: 0x40,
            cid: cid.into(),
            fctype,
            reserved5: [0; 35],
            attrib: wide.into(),
            reserved41: [0; 3],
            offset: offset.into(),
            value: value.into(),
            reserved56: [0; 8],
        }
    }

    /// Property Get of 8 bytes or 4.
    pub fn get(cid: u16, offset: u32, wide: bool) -> Self {
        Self::new(cid, crate::code::fabrics::PROPERTY_GET, offset, wide, 0)
    }

    /// Property Set of 4 bytes.
    pub fn set(cid: u16, offset: u32, value: u32) -> Self {
        Self::new(cid, crate::code::fabrics::PROPERTY_SET, offset, false, value.into())
    }

    /// The entry read as a property command.
    pub fn from_entry(entry: &SubmissionEntry) -> Self {
        zerocopy::transmute!(*entry)
    }

    /// The same bytes as any command.
    pub fn into_entry(self) -> SubmissionEntry {
        zerocopy::transmute!(self)
    }

    /// 8 bytes rather than 4; `None` for a reserved size.
    pub fn is_wide(&self) -> Option<bool> {
        match self.attrib & 0b111 {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

/// FCTYPE of a fabrics command.
pub fn fctype(entry: &SubmissionEntry) -> u8 {
    entry.nsid.get().to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_is_the_bytes_of_the_figure() {
        let mut command = ConnectCommand::new(0x1234, 3, 31, 5000);
        command.cattr = CATTR_NO_FLOW_CONTROL;
        let entry = command.into_entry();
        let bytes = entry.as_bytes();
        assert_eq!(bytes[..6], [0x7f, 0x40, 0x34, 0x12, 0x01, 0]);
        assert_eq!(bytes[40..52], [0, 0, 3, 0, 31, 0, 4, 0, 0x88, 0x13, 0, 0]);
        assert_eq!(fctype(&entry), crate::code::fabrics::CONNECT);
        assert!(ConnectCommand::from_entry(&entry).no_flow_control());
    }

    #[test]
    fn connect_data_hold_names_padded() {
        let host = Nqn::new("nqn.2014-08.org.nvmexpress:uuid:1").unwrap();
        let data = ConnectData::new([7; 16], DYNAMIC_CNTLID, &Nqn::discovery(), &host);
        let bytes = data.as_bytes();
        assert_eq!(bytes[16..18], [0xff, 0xff]);
        assert!(bytes[256..].starts_with(b"nqn.2014-08.org.nvmexpress.discovery\0"));
        assert_eq!(Nqn::from_field(&data.hostnqn).unwrap(), host);
    }

    #[test]
    fn results_of_connect() {
        assert_eq!(ConnectResult::cntlid(ConnectResult::connected(0xabcd)), 0xabcd);
        assert_eq!(ConnectResult::invalid(256, true), 0x1_0100);
        assert_eq!(ConnectResult::invalid(44, false), 44);
        assert!(ConnectResult::authentication(1 << 16));
    }

    #[test]
    fn properties() {
        let get = PropertyCommand::get(1, crate::property::offset::CAP, true).into_entry();
        assert_eq!((fctype(&get), get.as_bytes()[40]), (4, 1));
        let set = PropertyCommand::set(2, 0x14, 0x0046_0001).into_entry();
        assert_eq!(set.as_bytes()[40..56], [0, 0, 0, 0, 0x14, 0, 0, 0, 1, 0, 0x46, 0, 0, 0, 0, 0]);
        let mut odd = PropertyCommand::from_entry(&set);
        assert_eq!(odd.is_wide(), Some(false));
        odd.attrib = 2;
        assert_eq!(odd.is_wide(), None);
    }
}
