//! The discovery log (Base 5.16.1.23): a head of 1 KiB, then entries of 1 KiB.

use std::net::SocketAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian};

use crate::nqn::Nqn;

/// The TCP port of a discovery service that stands alone.
pub const DISCOVERY_PORT: u16 = 8009;
/// Bytes of the head and of each entry.
pub const RECORD_BYTES: usize = 1024;

/// TRTYPE of NVMe/TCP.
pub const TRTYPE_TCP: u8 = 3;
/// SUBTYPE.
pub mod subtype {
    /// Another discovery service.
    pub const REFERRAL: u8 = 1;
    /// A subsystem for I/O.
    pub const NVM: u8 = 2;
    /// The discovery service that is being asked.
    pub const CURRENT_DISCOVERY: u8 = 3;
}
/// TREQ: no secure channel needed or offered.
pub const TREQ_NOT_REQUIRED: u8 = 0b10;

/// The head.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiscoveryHeader {
    /// Counts changes of the log.
    pub genctr: little_endian::U64,
    /// Entries behind.
    pub numrec: little_endian::U64,
    /// Format of the log: 0.
    pub recfmt: little_endian::U16,
    reserved18: [u8; 1006],
}

const _: () = assert!(size_of::<DiscoveryHeader>() == RECORD_BYTES);

impl DiscoveryHeader {
    /// Of as many entries.
    pub fn new(genctr: u64, numrec: u64) -> Self {
        Self {
            genctr: genctr.into(),
            numrec: numrec.into(),
            recfmt: 0.into(),
            reserved18: [0; 1006],
        }
    }
}

/// One way to one subsystem.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DiscoveryEntry {
    /// [`TRTYPE_TCP`].
    pub trtype: u8,
    /// 1 IPv4, 2 IPv6.
    pub adrfam: u8,
    /// See [`subtype`].
    pub subtype: u8,
    /// Transport requirements.
    pub treq: u8,
    /// The listener, by number.
    pub portid: little_endian::U16,
    /// [`crate::fabrics::DYNAMIC_CNTLID`].
    pub cntlid: little_endian::U16,
    /// Most entries of an admin submission queue, 32 or more.
    pub asqsz: little_endian::U16,
    /// Bit 1: this entry's information is the same on other ports with its NQN.
    pub eflags: little_endian::U16,
    reserved12: [u8; 20],
    /// Port in decimal, padded with spaces.
    pub trsvcid: [u8; 32],
    reserved64: [u8; 192],
    /// The subsystem, padded with zeros.
    pub subnqn: [u8; 256],
    /// Address in text, padded with spaces.
    pub traddr: [u8; 256],
    /// Security: byte 0 is 0 for none.
    pub tsas: [u8; 256],
}

const _: () = assert!(size_of::<DiscoveryEntry>() == RECORD_BYTES);
const _: () = assert!(core::mem::offset_of!(DiscoveryEntry, trsvcid) == 32);
const _: () = assert!(core::mem::offset_of!(DiscoveryEntry, subnqn) == 256);
const _: () = assert!(core::mem::offset_of!(DiscoveryEntry, traddr) == 512);

impl DiscoveryEntry {
    /// A subsystem at an address of TCP, without security.
    pub fn tcp(subnqn: &Nqn, subtype: u8, address: SocketAddr, portid: u16, asqsz: u16) -> Self {
        Self {
            trtype: TRTYPE_TCP,
            adrfam: if address.is_ipv4() { 1 } else { 2 },
            subtype,
            treq: TREQ_NOT_REQUIRED,
            portid: portid.into(),
            cntlid: crate::fabrics::DYNAMIC_CNTLID.into(),
            asqsz: asqsz.into(),
            eflags: 0.into(),
            reserved12: [0; 20],
            trsvcid: crate::identify::ascii(&address.port().to_string()),
            reserved64: [0; 192],
            subnqn: subnqn.to_field(),
            traddr: crate::identify::ascii(&address.ip().to_string()),
            tsas: [0; 256],
        }
    }

    /// The address, if it is one of TCP and names an IP address and a port.
    pub fn address(&self) -> Option<SocketAddr> {
        let text = |field: &[u8]| {
            let text = std::str::from_utf8(field).ok()?;
            Some(text.trim_end_matches(['\0', ' ']).to_owned())
        };
        if self.trtype != TRTYPE_TCP {
            return None;
        }
        let port = text(&self.trsvcid)?.parse().ok()?;
        Some(SocketAddr::new(text(&self.traddr)?.parse().ok()?, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_its_address() {
        let name = Nqn::new("nqn.2026-11.example:v1").unwrap();
        for (text, family) in [("127.0.0.1:4420", 1), ("[fe80::1]:8009", 2)] {
            let address = text.parse().unwrap();
            let entry = DiscoveryEntry::tcp(&name, subtype::NVM, address, 1, 32);
            assert_eq!((entry.adrfam, entry.address()), (family, Some(address)));
            assert_eq!(Nqn::from_field(&entry.subnqn).as_ref(), Ok(&name));
        }
    }

    #[test]
    fn other_transports_and_texts_have_no_address() {
        let address = "127.0.0.1:4420".parse().unwrap();
        let mut entry = DiscoveryEntry::tcp(&Nqn::discovery(), subtype::NVM, address, 1, 32);
        assert!(entry.trsvcid.starts_with(b"4420 "));
        entry.trtype = 1;
        assert_eq!(entry.address(), None);
        entry.trtype = TRTYPE_TCP;
        entry.traddr = [0xff; 256];
        assert_eq!(entry.address(), None);
    }

    #[test]
    fn the_head_counts() {
        let head = DiscoveryHeader::new(3, 2);
        assert_eq!(head.as_bytes()[..18], [3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
