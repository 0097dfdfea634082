//! PDU layouts (TCP 3.6.2).
//!
//! Each PDU begins with the common header and continues with its own fields; digests and
//! data follow in this order:
//!
//! ```text
//! common header (8) │ PDU specific header │ header digest (4)? │ pad? │ data? │ data digest (4)?
//! ├──────────── HLEN ─────────────────────┤                           │
//! ├──────────────────────────── PDO ──────────────────────────────────┤
//! ├──────────────────────────── PLEN ──────────────────────────────────────────────────────────┤
//! ```
//!
//! | type | PDU | HLEN | data |
//! |---|---|---|---|
//! | 00h | ICReq | 128 | |
//! | 01h | ICResp | 128 | |
//! | 02h | H2CTermReq | 24 | header of the PDU in error, at most 128 bytes |
//! | 03h | C2HTermReq | 24 | the same |
//! | 04h | CapsuleCmd | 72 | in-capsule data |
//! | 05h | CapsuleResp | 24 | |
//! | 06h | H2CData | 24 | of a write |
//! | 07h | C2HData | 24 | of a read |
//! | 09h | R2T | 24 | |

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian};

use crate::{CompletionEntry, SubmissionEntry};

/// PDU types: the first byte.
pub mod kind {
    /// Initialize Connection Request.
    pub const IC_REQ: u8 = 0x00;
    /// Initialize Connection Response.
    pub const IC_RESP: u8 = 0x01;
    /// Host to Controller Terminate Connection Request.
    pub const H2C_TERM_REQ: u8 = 0x02;
    /// Controller to Host Terminate Connection Request.
    pub const C2H_TERM_REQ: u8 = 0x03;
    /// Command Capsule.
    pub const CAPSULE_CMD: u8 = 0x04;
    /// Response Capsule.
    pub const CAPSULE_RESP: u8 = 0x05;
    /// Host to Controller Data.
    pub const H2C_DATA: u8 = 0x06;
    /// Controller to Host Data.
    pub const C2H_DATA: u8 = 0x07;
    /// Ready to Transfer.
    pub const R2T: u8 = 0x09;
}

/// Bits of [`CommonHeader::flags`].
pub mod flags {
    /// A header digest follows the header.
    pub const HDGST: u8 = 1 << 0;
    /// A data digest follows the data.
    pub const DDGST: u8 = 1 << 1;
    /// Last data PDU of a transfer.
    pub const LAST: u8 = 1 << 2;
    /// The command is complete, and no response will come (C2HData).
    pub const SUCCESS: u8 = 1 << 3;
}

/// Bits of the digest fields of ICReq and ICResp.
pub mod dgst {
    /// Header digests.
    pub const HEADER: u8 = 1 << 0;
    /// Data digests.
    pub const DATA: u8 = 1 << 1;
}

/// Fatal Error Status of a Terminate Connection Request.
pub mod fes {
    /// Invalid PDU header field; the field's offset is in FEI.
    pub const INVALID_HEADER_FIELD: u16 = 1;
    /// PDU sequence error.
    pub const SEQUENCE: u16 = 2;
    /// Header digest error.
    pub const HEADER_DIGEST: u16 = 3;
    /// Data transfer out of range.
    pub const OUT_OF_RANGE: u16 = 4;
    /// Data transfer limit exceeded, or too many R2Ts.
    pub const LIMIT_EXCEEDED: u16 = 5;
    /// Unsupported parameter; the field's offset is in FEI.
    pub const UNSUPPORTED_PARAMETER: u16 = 6;
}

/// The only PDU format version there is.
pub const PFV: u16 = 0;
/// Largest alignment that HPDA and CPDA may ask for, in dwords counted from zero.
pub const MAX_PDA: u8 = 31;
/// Least value of MAXH2CDATA.
pub const MIN_MAXH2CDATA: u32 = 4096;
/// Bytes of the longest header.
pub const MAX_HEADER_BYTES: usize = 128;
/// PLEN of the longest Terminate Connection Request.
pub const MAX_TERM_REQ_BYTES: u32 = 152;

/// What every PDU begins with.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommonHeader {
    /// The PDU's type; see [`kind`].
    pub kind: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Bytes of the header, without digest.
    pub hlen: u8,
    /// Where the data begin.
    pub pdo: u8,
    /// Bytes of the whole PDU.
    pub plen: little_endian::U32,
}

/// ICReq: opens a connection.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcReq {
    /// Type 00h.
    pub common: CommonHeader,
    /// PDU format version.
    pub pfv: little_endian::U16,
    /// Alignment of data that the host wants, in dwords counted from zero.
    pub hpda: u8,
    /// Digests that the host wants; see [`dgst`].
    pub dgst: u8,
    /// R2Ts per command that the host takes, counted from zero.
    pub maxr2t: little_endian::U32,
    /// Reserved.
    pub reserved: [u8; 112],
}

/// ICResp: what the controller makes of it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcResp {
    /// Type 01h.
    pub common: CommonHeader,
    /// PDU format version.
    pub pfv: little_endian::U16,
    /// Alignment of data that the controller wants, in dwords counted from zero.
    pub cpda: u8,
    /// Digests in use; see [`dgst`].
    pub dgst: u8,
    /// Most bytes of data in one H2CData.
    pub maxh2cdata: little_endian::U32,
    /// Reserved.
    pub reserved: [u8; 112],
}

/// H2CTermReq and C2HTermReq; the header of the PDU in error follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TermReq {
    /// Type 02h or 03h.
    pub common: CommonHeader,
    /// Fatal error status; see [`fes`].
    pub fes: little_endian::U16,
    /// Fatal error information.
    pub fei: little_endian::U32,
    /// Reserved.
    pub reserved: [u8; 10],
}

/// CapsuleCmd: a command; in-capsule data may follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleCmd {
    /// Type 04h.
    pub common: CommonHeader,
    /// The command.
    pub entry: SubmissionEntry,
}

/// CapsuleResp: a completion.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleResp {
    /// Type 05h.
    pub common: CommonHeader,
    /// The completion.
    pub entry: CompletionEntry,
}

/// H2CData and C2HData: data of a command follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Data {
    /// Type 06h or 07h.
    pub common: CommonHeader,
    /// The command's identifier.
    pub cccid: little_endian::U16,
    /// The tag of the R2T that asked for the data; reserved in C2HData.
    pub ttag: little_endian::U16,
    /// Offset of the data in the command's data.
    pub datao: little_endian::U32,
    /// Bytes of data.
    pub datal: little_endian::U32,
    /// Reserved.
    pub reserved: [u8; 4],
}

/// R2T: the controller is ready for a part of a command's data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct R2t {
    /// Type 09h.
    pub common: CommonHeader,
    /// The command's identifier.
    pub cccid: little_endian::U16,
    /// The controller's tag, to be repeated in each H2CData.
    pub ttag: little_endian::U16,
    /// Offset of the part in the command's data.
    pub r2to: little_endian::U32,
    /// Bytes of the part.
    pub r2tl: little_endian::U32,
    /// Reserved.
    pub reserved: [u8; 4],
}

const _: () = {
    assert!(size_of::<CommonHeader>() == 8);
    assert!(size_of::<IcReq>() == 128);
    assert!(size_of::<IcResp>() == 128);
    assert!(size_of::<TermReq>() == 24);
    assert!(size_of::<CapsuleCmd>() == 72);
    assert!(size_of::<CapsuleResp>() == 24);
    assert!(size_of::<Data>() == 24);
    assert!(size_of::<R2t>() == 24);
};

/// [`CommonHeader::hlen`] of `T`.
pub const fn hlen<T>() -> u8 {
    assert!(size_of::<T>() <= MAX_HEADER_BYTES);
    let [low, ..] = size_of::<T>().to_le_bytes();
    low
}

impl CommonHeader {
    /// The header of a PDU of header `T` alone: no digests, no data.
    pub const fn new<T>(kind: u8) -> Self {
        let plen = little_endian::U32::from_bytes([hlen::<T>(), 0, 0, 0]);
        Self { kind, flags: 0, hlen: hlen::<T>(), pdo: 0, plen }
    }

    /// The same with a header digest if asked for, and `data` bytes of data (with a digest if
    /// asked for).
    ///
    /// # Panics
    /// If the PDU were longer than 4 GiB.
    #[must_use]
    pub fn with(mut self, header_digest: bool, data_digest: bool, data: u32) -> Self {
        let [digest, ..] = super::digest::DIGEST_BYTES.to_le_bytes();
        let mut pdo = self.hlen;
        if header_digest {
            self.flags |= flags::HDGST;
            pdo += digest;
        }
        let mut plen = u32::from(pdo);
        if data > 0 {
            self.pdo = pdo;
            plen = plen.checked_add(data).expect("a PDU below 4 GiB");
            if data_digest {
                self.flags |= flags::DDGST;
                plen += u32::from(digest);
            }
        }
        self.plen = plen.into();
        self
    }
}

impl IcReq {
    /// A request for these digests, with one R2T per command and no padding.
    pub fn new(dgst: u8) -> Self {
        let common = CommonHeader::new::<Self>(kind::IC_REQ);
        let (pfv, maxr2t) = (PFV.into(), 0.into());
        Self { common, pfv, hpda: 0, dgst, maxr2t, reserved: [0; 112] }
    }
}

impl IcResp {
    /// An answer: these digests, this much data per H2CData, and no padding.
    pub fn new(dgst: u8, maxh2cdata: u32) -> Self {
        let common = CommonHeader::new::<Self>(kind::IC_RESP);
        let (pfv, maxh2cdata) = (PFV.into(), maxh2cdata.into());
        Self { common, pfv, cpda: 0, dgst, maxh2cdata, reserved: [0; 112] }
    }
}

impl TermReq {
    /// Of type `kind`, about a PDU of whose header `header` bytes are enclosed.
    ///
    /// # Panics
    /// If more than [`MAX_HEADER_BYTES`] are.
    pub fn new(kind: u8, fes: u16, fei: u32, header: usize) -> Self {
        assert!(header <= MAX_HEADER_BYTES, "a Terminate Connection Request is short");
        let mut common = CommonHeader::new::<Self>(kind);
        let enclosed = u32::try_from(header).expect("at most 128");
        common.plen = (u32::from(common.hlen) + enclosed).into();
        common.pdo = if header > 0 { common.hlen } else { 0 };
        Self { common, fes: fes.into(), fei: fei.into(), reserved: [0; 10] }
    }
}

impl CapsuleResp {
    /// Carries `entry`.
    pub fn new(entry: CompletionEntry, header_digest: bool) -> Self {
        let common = CommonHeader::new::<Self>(kind::CAPSULE_RESP).with(header_digest, false, 0);
        Self { common, entry }
    }
}

impl CapsuleCmd {
    /// Carries `entry`, and `data` bytes of data.
    pub fn new(entry: SubmissionEntry, header_digest: bool, data_digest: bool, data: u32) -> Self {
        let common = CommonHeader::new::<Self>(kind::CAPSULE_CMD);
        Self { common: common.with(header_digest, data_digest, data), entry }
    }
}

impl R2t {
    /// Asks for `length` bytes at `offset` of the data of command `cid`.
    pub fn new(cid: u16, ttag: u16, offset: u32, length: u32, header_digest: bool) -> Self {
        let common = CommonHeader::new::<Self>(kind::R2T).with(header_digest, false, 0);
        let (cccid, ttag, r2to, r2tl) = (cid.into(), ttag.into(), offset.into(), length.into());
        Self { common, cccid, ttag, r2to, r2tl, reserved: [0; 4] }
    }
}

impl Data {
    /// The last or another `length` bytes at `offset` of the data of command `cid`; `kind`
    /// says in which direction.
    pub fn new(kind: u8, cid: u16, ttag: u16, offset: u32, length: u32, last: bool) -> Self {
        let mut common = CommonHeader::new::<Self>(kind);
        common.flags = if last { flags::LAST } else { 0 };
        let (cccid, ttag, datao, datal) = (cid.into(), ttag.into(), offset.into(), length.into());
        let data = Self { common, cccid, ttag, datao, datal, reserved: [0; 4] };
        data.with_digests(false, false)
    }

    /// With these digests.
    #[must_use]
    pub fn with_digests(mut self, header: bool, data: bool) -> Self {
        self.common = self.common.with(header, data, self.datal.get());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    #[test]
    fn headers_have_the_bytes_of_the_figures() {
        let data = Data::new(kind::H2C_DATA, 0x1234, 0x5678, 0x0a0b_0c0d, 4096, true);
        assert_eq!(
            data.as_bytes(),
            [
                6, 4, 24, 24, 24, 0x10, 0, 0, 0x34, 0x12, 0x78, 0x56, 0x0d, 0x0c, 0x0b, 0x0a, 0,
                0x10, 0, 0, 0, 0, 0, 0
            ]
        );
        let data = data.with_digests(true, true);
        assert_eq!(data.as_bytes()[..8], [6, 7, 24, 28, 32, 0x10, 0, 0]);
        let r2t = R2t::new(1, 2, 3, 4, false);
        let bytes = [9, 0, 24, 0, 24, 0, 0, 0, 1, 0, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(r2t.as_bytes(), bytes);
        let resp = CapsuleResp::new(CompletionEntry::new(7, 9, Status::SUCCESS), true);
        assert_eq!(resp.as_bytes()[..8], [5, 1, 24, 0, 28, 0, 0, 0]);
        assert_eq!(resp.as_bytes()[8..], [0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0]);
        let command = CapsuleCmd::new(SubmissionEntry::default(), false, true, 512);
        assert_eq!(command.as_bytes()[..8], [4, 2, 72, 72, 0x4c, 2, 0, 0]);
        let term = TermReq::new(kind::C2H_TERM_REQ, fes::INVALID_HEADER_FIELD, 0x0102, 8);
        assert_eq!(term.as_bytes()[..14], [3, 0, 24, 24, 32, 0, 0, 0, 1, 0, 2, 1, 0, 0]);
        let req = IcReq::new(dgst::HEADER | dgst::DATA);
        assert_eq!(req.as_bytes()[..12], [0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 3]);
        let resp = IcResp::new(dgst::DATA, 0x0002_0000);
        assert_eq!(resp.as_bytes()[..16], [1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0]);
    }
}
