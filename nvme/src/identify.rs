//! Identify: the data of each CNS value (Base 5.17, NVM 4.1.5).

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian};

/// CNS: what to identify (Base 5.17.1).
pub mod cns {
    /// Namespace, NVM command set.
    pub const NAMESPACE: u8 = 0x00;
    /// Controller.
    pub const CONTROLLER: u8 = 0x01;
    /// Active namespaces.
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// Namespace identification descriptors.
    pub const DESCRIPTORS: u8 = 0x03;
    /// Namespace, by command set.
    pub const COMMAND_SET_NAMESPACE: u8 = 0x05;
    /// Controller, by command set.
    pub const COMMAND_SET_CONTROLLER: u8 = 0x06;
    /// Active namespaces of a command set.
    pub const COMMAND_SET_ACTIVE_NAMESPACES: u8 = 0x07;
    /// Namespace, independent of its command set.
    pub const INDEPENDENT_NAMESPACE: u8 = 0x08;
    /// Allocated namespaces.
    pub const ALLOCATED_NAMESPACES: u8 = 0x10;
    /// An allocated namespace.
    pub const ALLOCATED_NAMESPACE: u8 = 0x11;
    /// Controllers attached to a namespace.
    pub const NAMESPACE_CONTROLLERS: u8 = 0x12;
    /// Controllers of the subsystem.
    pub const CONTROLLERS: u8 = 0x13;
    /// Allocated namespaces of a command set.
    pub const COMMAND_SET_ALLOCATED_NAMESPACES: u8 = 0x1a;
    /// An allocated namespace, by command set.
    pub const COMMAND_SET_ALLOCATED_NAMESPACE: u8 = 0x1b;
    /// Command sets that the controller supports together.
    pub const COMMAND_SETS: u8 = 0x1c;
}

/// Bytes of every Identify's data.
pub const IDENTIFY_BYTES: usize = 4096;
/// CSI of the NVM command set.
pub const CSI_NVM: u8 = 0;
/// NSID that stands for all namespaces.
pub const ALL_NAMESPACES: u32 = 0xffff_ffff;
/// Entries of a list of namespaces.
pub const NAMESPACES_PER_LIST: usize = 1024;

/// CNTRLTYPE (Base figure "Identify Controller").
pub mod controller_type {
    /// I/O controller.
    pub const IO: u8 = 1;
    /// Discovery controller.
    pub const DISCOVERY: u8 = 2;
}

/// Identify Controller (CNS 01h; Base 5.17.2.1), with what fabrics add to it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyController {
    /// PCI vendor.
    pub vid: little_endian::U16,
    /// PCI subsystem vendor.
    pub ssvid: little_endian::U16,
    /// Serial number, ASCII, padded with spaces.
    pub sn: [u8; 20],
    /// Model, ASCII, padded with spaces.
    pub mn: [u8; 40],
    /// Firmware revision, ASCII, padded with spaces.
    pub fr: [u8; 8],
    /// Recommended arbitration burst.
    pub rab: u8,
    /// OUI.
    pub ieee: [u8; 3],
    /// Multi-path: bit 0 ports, 1 controllers, 3 ANA reporting.
    pub cmic: u8,
    /// log2 of the longest transfer in pages; 0 for no limit.
    pub mdts: u8,
    /// Controller identifier.
    pub cntlid: little_endian::U16,
    /// VS.
    pub ver: little_endian::U32,
    /// RTD3 resume latency.
    pub rtd3r: little_endian::U32,
    /// RTD3 entry latency.
    pub rtd3e: little_endian::U32,
    /// Optional asynchronous events.
    pub oaes: little_endian::U32,
    /// Attributes: bit 0 128-bit host id, 6 traffic based keep alive.
    pub ctratt: little_endian::U32,
    reserved100: [u8; 11],
    /// See [`controller_type`].
    pub cntrltype: u8,
    /// FRU GUID.
    pub fguid: [u8; 16],
    /// Command retry delays, in units of 100 ms.
    pub crdt: [little_endian::U16; 3],
    reserved134: [u8; 122],
    /// Optional admin commands.
    pub oacs: little_endian::U16,
    /// Abort commands that may be outstanding, counted from zero.
    pub acl: u8,
    /// Asynchronous Event Requests that may be outstanding, counted from zero.
    pub aerl: u8,
    /// Firmware updates.
    pub frmw: u8,
    /// Log pages: bit 1 command effects, 2 extended data (LPO), 3 telemetry.
    pub lpa: u8,
    /// Error log entries, counted from zero.
    pub elpe: u8,
    /// Power states, counted from zero.
    pub npss: u8,
    /// Vendor specific admin commands.
    pub avscc: u8,
    /// Autonomous power states.
    pub apsta: u8,
    /// Warning temperature, kelvin.
    pub wctemp: little_endian::U16,
    /// Critical temperature, kelvin.
    pub cctemp: little_endian::U16,
    reserved270: [u8; 10],
    /// Capacity of all, bytes.
    pub tnvmcap: [u8; 16],
    /// Capacity not allocated, bytes.
    pub unvmcap: [u8; 16],
    reserved312: [u8; 8],
    /// Granularity of the keep-alive timer, units of 100 ms; 0 if there is none.
    pub kas: little_endian::U16,
    reserved322: [u8; 20],
    /// Longest transition between ANA states, seconds.
    pub anatt: u8,
    /// ANA states that may be reported, see [`anacap`].
    pub anacap: u8,
    /// Largest ANA group identifier.
    pub anagrpmax: little_endian::U32,
    /// ANA groups.
    pub nanagrpid: little_endian::U32,
    reserved352: [u8; 160],
    /// Submission entry sizes, log2: least 3:0, largest 7:4.
    pub sqes: u8,
    /// Completion entry sizes, log2: least 3:0, largest 7:4.
    pub cqes: u8,
    /// Commands that a queue may have outstanding.
    pub maxcmd: little_endian::U16,
    /// Largest namespace identifier.
    pub nn: little_endian::U32,
    /// Optional I/O commands, see [`oncs`].
    pub oncs: little_endian::U16,
    /// Fused operations: bit 0 Compare and Write.
    pub fuses: little_endian::U16,
    /// Format attributes.
    pub fna: u8,
    /// Volatile write cache: bit 0 present, 2:1 Flush to all namespaces.
    pub vwc: u8,
    /// Atomic write unit, counted from zero.
    pub awun: little_endian::U16,
    /// The same across power failures.
    pub awupf: little_endian::U16,
    /// Vendor specific I/O commands.
    pub icsvscc: u8,
    /// Namespace write protection.
    pub nwpc: u8,
    /// Atomic compare and write unit, counted from zero.
    pub acwu: little_endian::U16,
    /// Copy formats.
    pub cdfs: little_endian::U16,
    /// SGL support, see [`sgls`].
    pub sgls: little_endian::U32,
    /// Most namespaces that are active at once.
    pub mnan: little_endian::U32,
    reserved544: [u8; 224],
    /// The subsystem's NQN, padded with zeros.
    pub subnqn: [u8; 256],
    reserved1024: [u8; 768],
    /// Longest I/O command capsule, units of 16 bytes.
    pub ioccsz: little_endian::U32,
    /// Longest I/O response capsule, units of 16 bytes.
    pub iorcsz: little_endian::U32,
    /// Where in-capsule data begin behind the command, units of 16 bytes.
    pub icdoff: little_endian::U16,
    /// Bit 0: the controller is not of the dynamic model.
    pub fcatt: u8,
    /// Most SGL data block descriptors of a command.
    pub msdbd: u8,
    /// Optional fabrics commands: bit 0 Disconnect.
    pub ofcs: little_endian::U16,
    /// Discovery controller type.
    pub dctype: u8,
    reserved1807: [u8; 241],
    /// Power state descriptors.
    pub psd: [u8; 1024],
    vendor3072: [u8; 1024],
}

macro_rules! stands_at {
    ($ty:ident, $size:literal: $($field:ident = $offset:literal),+ $(,)?) => {
        const _: () = assert!(size_of::<$ty>() == $size);
        $(const _: () = assert!(core::mem::offset_of!($ty, $field) == $offset);)+
    };
}

stands_at!(IdentifyController, 4096: cmic = 76, cntlid = 78, oaes = 92, ctratt = 96,
    cntrltype = 111, crdt = 128, oacs = 256, lpa = 261, wctemp = 266, tnvmcap = 280, kas = 320,
    anatt = 342, anagrpmax = 344, nanagrpid = 348, sqes = 512, nn = 516, oncs = 520, vwc = 525,
    acwu = 532, sgls = 536, mnan = 540, subnqn = 768, ioccsz = 1792, icdoff = 1800, ofcs = 1804,
    dctype = 1806, psd = 2048);

/// [`IdentifyController::cmic`].
pub mod cmic {
    /// Several ports.
    pub const PORTS: u8 = 1;
    /// Several controllers.
    pub const CONTROLLERS: u8 = 1 << 1;
    /// Asymmetric namespace access is reported.
    pub const ANA: u8 = 1 << 3;
}

/// [`IdentifyController::ctratt`].
pub mod ctratt {
    /// 128-bit host identifiers.
    pub const HOST_ID_128: u32 = 1;
    /// Traffic based keep alive.
    pub const TBKAS: u32 = 1 << 6;
}

/// [`IdentifyController::oncs`].
pub mod oncs {
    /// Compare.
    pub const COMPARE: u16 = 1;
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: u16 = 1 << 2;
    /// Write Zeroes.
    pub const WRITE_ZEROES: u16 = 1 << 3;
    /// Timestamp feature.
    pub const TIMESTAMP: u16 = 1 << 6;
}

/// [`IdentifyController::lpa`].
pub mod lpa {
    /// Commands Supported and Effects.
    pub const EFFECTS: u8 = 1 << 1;
    /// Extended data: offsets and lengths of 32 bits.
    pub const EXTENDED: u8 = 1 << 2;
}

/// [`IdentifyController::sgls`].
pub mod sgls {
    /// Without alignment or granularity.
    pub const SUPPORTED: u32 = 1;
    /// Keyed descriptors.
    pub const KEYED: u32 = 1 << 2;
    /// Offsets instead of addresses: data in the capsule.
    pub const OFFSET: u32 = 1 << 20;
    /// Transport SGL data blocks.
    pub const TRANSPORT: u32 = 1 << 21;
}

/// [`IdentifyController::anacap`]: the states that may be reported.
pub mod anacap {
    /// Optimized.
    pub const OPTIMIZED: u8 = 1;
    /// Non-optimized.
    pub const NON_OPTIMIZED: u8 = 1 << 1;
    /// Inaccessible.
    pub const INACCESSIBLE: u8 = 1 << 2;
    /// Persistent loss.
    pub const PERSISTENT_LOSS: u8 = 1 << 3;
    /// Change.
    pub const CHANGE: u8 = 1 << 4;
}

/// Identify Namespace of the NVM command set (CNS 00h; NVM 4.1.5.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// Size in blocks.
    pub nsze: little_endian::U64,
    /// Capacity in blocks.
    pub ncap: little_endian::U64,
    /// Blocks in use.
    pub nuse: little_endian::U64,
    /// Features: bit 0 thin, 1 NAWUN…, 3 identifiers are never reused, 4 NPWG….
    pub nsfeat: u8,
    /// LBA formats, counted from zero.
    pub nlbaf: u8,
    /// The format in use.
    pub flbas: u8,
    /// Metadata capabilities.
    pub mc: u8,
    /// Protection capabilities.
    pub dpc: u8,
    /// Protection in use.
    pub dps: u8,
    /// Bit 0: may be attached to several controllers.
    pub nmic: u8,
    /// Reservation capabilities.
    pub rescap: u8,
    /// Format progress.
    pub fpi: u8,
    /// What deallocated blocks read as: bits 2:0, 1 for zeros; bit 3 Write Zeroes deallocates.
    pub dlfeat: u8,
    /// Atomic write unit, counted from zero.
    pub nawun: little_endian::U16,
    /// The same across power failures.
    pub nawupf: little_endian::U16,
    /// Atomic compare and write unit, counted from zero.
    pub nacwu: little_endian::U16,
    /// Atomic boundaries.
    pub nabsn: little_endian::U16,
    /// Atomic boundary offset.
    pub nabo: little_endian::U16,
    /// Atomic boundaries across power failures.
    pub nabspf: little_endian::U16,
    /// Optimal I/O boundary in blocks.
    pub noiob: little_endian::U16,
    /// Bytes of media.
    pub nvmcap: [u8; 16],
    /// Preferred write granularity in blocks, counted from zero.
    pub npwg: little_endian::U16,
    /// Preferred write alignment, counted from zero.
    pub npwa: little_endian::U16,
    /// Preferred deallocate granularity, counted from zero.
    pub npdg: little_endian::U16,
    /// Preferred deallocate alignment, counted from zero.
    pub npda: little_endian::U16,
    /// Optimal write size, counted from zero.
    pub nows: little_endian::U16,
    reserved74: [u8; 18],
    /// ANA group.
    pub anagrpid: little_endian::U32,
    reserved96: [u8; 3],
    /// Bit 0: write protected.
    pub nsattr: u8,
    /// NVM set.
    pub nvmsetid: little_endian::U16,
    /// Endurance group.
    pub endgid: little_endian::U16,
    /// Globally unique.
    pub nguid: [u8; 16],
    /// IEEE extended unique identifier, big endian; zeros for none.
    pub eui64: [u8; 8],
    /// Formats: metadata bytes 15:0, log2 of block bytes 23:16, relative performance 25:24.
    pub lbaf: [little_endian::U32; 64],
    vendor384: [u8; 3712],
}

stands_at!(IdentifyNamespace, 4096: nsfeat = 24, nmic = 30, dlfeat = 33, nawun = 34, noiob = 46,
    nvmcap = 48, npwg = 64, nows = 72, anagrpid = 92, nsattr = 99, nguid = 104, eui64 = 120,
    lbaf = 128);

impl IdentifyNamespace {
    /// Bytes of a block in the format in use; `None` if that is out of range.
    pub fn block_bytes(&self) -> Option<u32> {
        let format = self.lbaf.get(usize::from(self.flbas & 0xf))?.get();
        let shift = format >> 16 & 0xff;
        (9..=16).contains(&shift).then(|| 1 << shift)
    }
}

/// Identify Namespace, independent of the command set (CNS 08h; Base 5.17.2.8).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IndependentNamespace {
    /// Features: bit 3 identifiers are never reused, 4 rotational.
    pub nsfeat: u8,
    /// As [`IdentifyNamespace::nmic`].
    pub nmic: u8,
    /// As [`IdentifyNamespace::rescap`].
    pub rescap: u8,
    /// As [`IdentifyNamespace::fpi`].
    pub fpi: u8,
    /// ANA group.
    pub anagrpid: little_endian::U32,
    /// Bit 0: write protected.
    pub nsattr: u8,
    reserved9: u8,
    /// NVM set.
    pub nvmsetid: little_endian::U16,
    /// Endurance group.
    pub endgid: little_endian::U16,
    /// Bit 0: ready.
    pub nstat: u8,
    reserved15: [u8; 4081],
}

stands_at!(IndependentNamespace, 4096: anagrpid = 4, nsattr = 8, nvmsetid = 10, nstat = 14);

/// Identify Controller of the NVM command set (CNS 06h; NVM 4.1.5.4).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct NvmController {
    /// Longest Verify, as MDTS; 0 for no limit.
    pub vsl: u8,
    /// Longest Write Zeroes, as MDTS; 0 for no limit.
    pub wzsl: u8,
    /// Longest Write Uncorrectable, as MDTS.
    pub wusl: u8,
    /// Most ranges of Dataset Management; 0 for no limit.
    pub dmrl: u8,
    /// Most blocks of one range.
    pub dmrsl: little_endian::U32,
    /// Most blocks of all ranges.
    pub dmsl: little_endian::U64,
    reserved16: [u8; 4080],
}

stands_at!(NvmController, 4096: dmrl = 3, dmrsl = 4, dmsl = 8);

/// Types of namespace identification descriptors (CNS 03h; Base 5.17.2.3).
pub mod descriptor {
    /// EUI-64, 8 bytes.
    pub const EUI64: u8 = 1;
    /// NGUID, 16 bytes.
    pub const NGUID: u8 = 2;
    /// UUID, 16 bytes.
    pub const UUID: u8 = 3;
    /// Command set identifier, 1 byte.
    pub const CSI: u8 = 4;
}

/// The descriptors of a namespace: each type, length, two zeros, identifier.
pub fn put_descriptors(out: &mut [u8; IDENTIFY_BYTES], nguid: &[u8; 16], uuid: &[u8; 16]) {
    let mut at = 0;
    let all: [(u8, &[u8]); 3] =
        [(descriptor::NGUID, nguid), (descriptor::UUID, uuid), (descriptor::CSI, &[CSI_NVM])];
    for (kind, identifier) in all {
        out[at] = kind;
        out[at + 1] = u8::try_from(identifier.len()).expect("16 at most");
        out[at + 4..at + 4 + identifier.len()].copy_from_slice(identifier);
        at += 4 + identifier.len();
    }
}

/// The descriptors in the data of CNS 03h, until the first that has no place.
pub fn descriptors(data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (&[kind, length, _, _], behind) = rest.split_first_chunk::<4>()?;
        if length == 0 {
            return None;
        }
        let (identifier, behind) = behind.split_at_checked(length.into())?;
        rest = behind;
        Some((kind, identifier))
    })
}

/// A list of namespaces (Base 4.4.2): ascending, ended by a zero if it is not full.
pub fn put_namespaces(out: &mut [u8; IDENTIFY_BYTES], namespaces: impl Iterator<Item = u32>) {
    for (slot, nsid) in out.chunks_exact_mut(4).zip(namespaces) {
        slot.copy_from_slice(&nsid.to_le_bytes());
    }
}

/// The namespaces in a list.
pub fn namespaces(data: &[u8]) -> impl Iterator<Item = u32> {
    let all = data.chunks_exact(4).map(|raw| u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]));
    all.take_while(|nsid| *nsid != 0)
}

/// A list of controllers (Base 4.4.1): their count, then their identifiers, ascending.
pub fn put_controllers(out: &mut [u8; IDENTIFY_BYTES], controllers: impl Iterator<Item = u16>) {
    let mut count = 0_u16;
    for (slot, cntlid) in out[2..].chunks_exact_mut(2).zip(controllers) {
        slot.copy_from_slice(&cntlid.to_le_bytes());
        count += 1;
    }
    out[..2].copy_from_slice(&count.to_le_bytes());
}

/// A field of ASCII, padded with spaces; what is not printable becomes `?`.
pub fn ascii<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (slot, c) in field.iter_mut().zip(text.chars()) {
        let printable = u8::try_from(c).ok().filter(|byte| matches!(byte, 0x20..=0x7e));
        *slot = printable.unwrap_or(b'?');
    }
    field
}

/// A structure whose every byte is zero.
pub fn zeroed<T: FromZeros>() -> T {
    T::new_zeroed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_come_from_the_format_in_use() {
        let mut namespace: IdentifyNamespace = zeroed();
        assert_eq!(namespace.block_bytes(), None);
        namespace.lbaf[1] = (12 << 16).into();
        namespace.flbas = 1;
        assert_eq!(namespace.block_bytes(), Some(4096));
        namespace.lbaf[1] = (40 << 16).into();
        assert_eq!(namespace.block_bytes(), None);
        assert_eq!(namespace.as_bytes()[132..136], [0, 0, 40, 0]);
    }

    #[test]
    fn descriptors_come_back() {
        let mut data = [0; IDENTIFY_BYTES];
        put_descriptors(&mut data, &[1; 16], &[2; 16]);
        assert_eq!(data[..5], [2, 16, 0, 0, 1]);
        let found: Vec<_> = descriptors(&data).collect();
        assert_eq!(found, [(2, &[1; 16][..]), (3, &[2; 16]), (4, &[0])]);
        assert_eq!(descriptors(&[2, 16, 0, 0, 1]).count(), 0, "cut off");
    }

    #[test]
    fn lists_end_where_they_are_full() {
        let mut data = [0; IDENTIFY_BYTES];
        put_namespaces(&mut data, 1..5000);
        assert!(namespaces(&data).eq(1..1025));
        let mut data = [0; IDENTIFY_BYTES];
        put_namespaces(&mut data, [7, 9].into_iter());
        assert!(namespaces(&data).eq([7, 9]));
        let mut data = [0; IDENTIFY_BYTES];
        put_controllers(&mut data, 1..=u16::MAX);
        assert_eq!(data[..4], [0xff, 0x07, 1, 0]);
    }

    #[test]
    fn ascii_is_padded_cut_and_printable() {
        assert_eq!(ascii::<6>("ab"), *b"ab    ");
        assert_eq!(ascii::<2>("abc"), *b"ab");
        assert_eq!(ascii::<4>("a\nä"), *b"a?? ");
    }
}
