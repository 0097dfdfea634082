//! May a received header be believed? If not: what to answer (TCP 3.5, 3.6.2).
//!
//! [`shape`] looks at the common header alone and says how much more to receive;
//! [`header`] looks at the whole header. Both name the Fatal Error Status and the Fatal
//! Error Information of the Terminate Connection Request that a violation earns. What
//! depends on commands (tags, offsets, in-capsule limits) is for the queue to check.

use zerocopy::FromBytes;

use super::digest::{DIGEST_BYTES, crc32c};
use super::pdu::{
    self, CapsuleCmd, CapsuleResp, CommonHeader, Data, IcReq, IcResp, R2t, TermReq, dgst, fes,
    flags, hlen, kind,
};
use crate::{CompletionEntry, SubmissionEntry};

/// Digests in use on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Behind headers.
    pub header: bool,
    /// Behind data.
    pub data: bool,
}

impl Digests {
    /// From the bits of ICReq or ICResp; see [`dgst`].
    pub const fn from_bits(bits: u8) -> Self {
        Self { header: bits & dgst::HEADER != 0, data: bits & dgst::DATA != 0 }
    }

    /// The bits of ICReq or ICResp.
    pub const fn bits(self) -> u8 {
        (if self.header { dgst::HEADER } else { 0 }) | (if self.data { dgst::DATA } else { 0 })
    }
}

/// Which side has received the PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// The controller: it takes ICReq, H2CTermReq, CapsuleCmd and H2CData.
    Controller,
    /// The host: it takes ICResp, C2HTermReq, CapsuleResp, C2HData and R2T.
    Host,
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// ICReq or ICResp is to come.
    Initial,
    /// It has come.
    Running,
}

/// A violation that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} (FES {fes:#x}, FEI {fei:#x})", self.name())]
pub struct Fatal {
    /// Fatal Error Status; see [`fes`].
    pub fes: u16,
    /// Fatal Error Information: the offset of the field in error, for FES 1 and 6.
    pub fei: u32,
}

impl Fatal {
    /// The field at `offset` of the header has an invalid value.
    pub const fn field(offset: u32) -> Self {
        Self { fes: fes::INVALID_HEADER_FIELD, fei: offset }
    }

    /// The field at `offset` of the header asks for what is not supported.
    pub const fn unsupported(offset: u32) -> Self {
        Self { fes: fes::UNSUPPORTED_PARAMETER, fei: offset }
    }

    /// The PDU may not come now.
    pub const SEQUENCE: Self = Self { fes: fes::SEQUENCE, fei: 0 };
    /// The header's digest is wrong.
    pub const HEADER_DIGEST: Self = Self { fes: fes::HEADER_DIGEST, fei: 0 };
    /// Data outside of what was asked for.
    pub const OUT_OF_RANGE: Self = Self { fes: fes::OUT_OF_RANGE, fei: 0 };
    /// More data, or more R2Ts, than allowed.
    pub const LIMIT_EXCEEDED: Self = Self { fes: fes::LIMIT_EXCEEDED, fei: 0 };

    /// What the status says.
    pub const fn name(self) -> &'static str {
        match self.fes {
            fes::INVALID_HEADER_FIELD => "invalid PDU header field",
            fes::SEQUENCE => "PDU sequence error",
            fes::HEADER_DIGEST => "header digest error",
            fes::OUT_OF_RANGE => "data transfer out of range",
            fes::LIMIT_EXCEEDED => "data transfer or R2T limit exceeded",
            fes::UNSUPPORTED_PARAMETER => "unsupported parameter",
            _ => "unknown fatal error",
        }
    }
}

/// Offsets of header fields, as FEI names them.
pub mod offset {
    /// Type.
    pub const KIND: u32 = 0;
    /// Flags.
    pub const FLAGS: u32 = 1;
    /// Header length.
    pub const HLEN: u32 = 2;
    /// Data offset.
    pub const PDO: u32 = 3;
    /// PDU length.
    pub const PLEN: u32 = 4;
    /// ICReq and ICResp: format version.
    pub const PFV: u32 = 8;
    /// ICReq: HPDA; ICResp: CPDA.
    pub const PDA: u32 = 10;
    /// ICReq and ICResp: digests.
    pub const DGST: u32 = 11;
    /// ICResp: MAXH2CDATA.
    pub const MAXH2CDATA: u32 = 12;
    /// Terminate Connection Request: FES.
    pub const FES: u32 = 8;
    /// Data and R2T: the command's identifier.
    pub const CCCID: u32 = 8;
    /// Data and R2T: the tag.
    pub const TTAG: u32 = 10;
    /// Data: offset.
    pub const DATAO: u32 = 12;
    /// Data: length.
    pub const DATAL: u32 = 16;
}

/// The extent of a PDU whose common header was found good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The PDU's type.
    pub kind: u8,
    /// Bytes of the header with its digest.
    pub header_bytes: usize,
    /// Bytes from the PDU's begin to its data: header, digest and padding.
    pub data_start: usize,
    /// Bytes of data.
    pub data_bytes: u32,
    /// A digest follows the data.
    pub data_digest: bool,
}

/// A header that was found good.
#[derive(Clone, Copy, Debug)]
pub enum Received {
    /// ICReq.
    IcReq(IcReq),
    /// ICResp.
    IcResp(IcResp),
    /// H2CTermReq or C2HTermReq.
    TermReq(TermReq),
    /// CapsuleCmd.
    Command(SubmissionEntry),
    /// CapsuleResp.
    Completion(CompletionEntry),
    /// H2CData or C2HData.
    Data(Data),
    /// R2T.
    R2t(R2t),
}

/// What a type of PDU must look like.
struct Rule {
    hlen: u8,
    takes_data: bool,
    needs_data: bool,
    first: bool,
    digests: bool,
}

impl Rule {
    const fn plain<T>() -> Rule {
        let hlen = hlen::<T>();
        Rule { hlen, takes_data: false, needs_data: false, first: false, digests: true }
    }

    fn of(receiver: Receiver, kind: u8) -> Option<Rule> {
        let first = |rule| Rule { first: true, digests: false, ..rule };
        let with_data = |rule, needs_data| Rule { takes_data: true, needs_data, ..rule };
        let terminate = Rule { takes_data: true, digests: false, ..Rule::plain::<TermReq>() };
        Some(match (receiver, kind) {
            (Receiver::Controller, kind::IC_REQ) => first(Rule::plain::<IcReq>()),
            (Receiver::Host, kind::IC_RESP) => first(Rule::plain::<IcResp>()),
            (Receiver::Controller, kind::H2C_TERM_REQ) => terminate,
            (Receiver::Host, kind::C2H_TERM_REQ) => terminate,
            (Receiver::Controller, kind::CAPSULE_CMD) => {
                with_data(Rule::plain::<CapsuleCmd>(), false)
            }
            (Receiver::Host, kind::CAPSULE_RESP) => Rule::plain::<CapsuleResp>(),
            (Receiver::Controller, kind::H2C_DATA) => with_data(Rule::plain::<Data>(), true),
            (Receiver::Host, kind::C2H_DATA) => with_data(Rule::plain::<Data>(), true),
            (Receiver::Host, kind::R2T) => Rule::plain::<R2t>(),
            _ => return None,
        })
    }
}

/// The extent of a PDU, from its first eight bytes.
///
/// # Errors
/// If they are no common header that may come now.
pub fn shape(
    common: &CommonHeader,
    receiver: Receiver,
    stage: Stage,
    digests: Digests,
) -> Result<Shape, Fatal> {
    let rule = Rule::of(receiver, common.kind).ok_or(Fatal::field(offset::KIND))?;
    let terminates = matches!(common.kind, kind::H2C_TERM_REQ | kind::C2H_TERM_REQ);
    if rule.first != (stage == Stage::Initial) && !terminates {
        return Err(Fatal::SEQUENCE);
    }
    if common.hlen != rule.hlen {
        return Err(Fatal::field(offset::HLEN));
    }
    let header_digest = rule.digests && digests.header;
    if header_digest != (common.flags & flags::HDGST != 0) {
        return Err(Fatal::field(offset::FLAGS));
    }
    let header_bytes = usize::from(rule.hlen) + if header_digest { DIGEST_BYTES } else { 0 };
    let plen = common.plen.get();
    let behind = plen.checked_sub(u32::try_from(header_bytes).expect("at most 132"));
    let behind = behind.ok_or(Fatal::field(offset::PLEN))?;
    let none = Shape {
        kind: common.kind,
        header_bytes,
        data_start: header_bytes,
        data_bytes: 0,
        data_digest: false,
    };
    if behind == 0 {
        return if rule.needs_data { Err(Fatal::field(offset::PLEN)) } else { Ok(none) };
    }
    if !rule.takes_data || terminates && plen > pdu::MAX_TERM_REQ_BYTES {
        return Err(Fatal::field(offset::PLEN));
    }
    if terminates {
        return Ok(Shape { data_bytes: behind, ..none });
    }
    with_data(common, none, digests)
}

/// The same for a PDU that has something behind its header.
fn with_data(common: &CommonHeader, shape: Shape, digests: Digests) -> Result<Shape, Fatal> {
    if digests.data != (common.flags & flags::DDGST != 0) {
        return Err(Fatal::field(offset::FLAGS));
    }
    let data_start = usize::from(common.pdo);
    if data_start < shape.header_bytes || !data_start.is_multiple_of(4) {
        return Err(Fatal::field(offset::PDO));
    }
    let digest = if digests.data { DIGEST_BYTES } else { 0 };
    let around = u32::try_from(data_start + digest).expect("at most 259");
    match common.plen.get().checked_sub(around) {
        None | Some(0) => Err(Fatal::field(offset::PLEN)),
        Some(data_bytes) => {
            Ok(Shape { data_start, data_bytes, data_digest: digests.data, ..shape })
        }
    }
}

/// The header of a PDU of `shape`, from its [`Shape::header_bytes`].
///
/// # Errors
/// If its digest is wrong or a field is.
///
/// # Panics
/// If `bytes` are fewer.
pub fn header(bytes: &[u8], shape: &Shape) -> Result<Received, Fatal> {
    let bytes = &bytes[..shape.header_bytes];
    let hlen = usize::from(bytes[2]);
    let (header, digest) = bytes.split_at(hlen);
    if !digest.is_empty() && crc32c(header).to_le_bytes() != digest {
        return Err(Fatal::HEADER_DIGEST);
    }
    match shape.kind {
        kind::CAPSULE_CMD => Ok(Received::Command(read::<CapsuleCmd>(header).entry)),
        kind::H2C_DATA | kind::C2H_DATA => data(read(header), shape),
        kind::CAPSULE_RESP => Ok(Received::Completion(read::<CapsuleResp>(header).entry)),
        kind::R2T => r2t(read(header)),
        kind::IC_REQ => ic_req(read(header)),
        kind::IC_RESP => ic_resp(read(header)),
        kind::H2C_TERM_REQ | kind::C2H_TERM_REQ => term_req(read(header)),
        kind => panic!("a shape has a known type, not {kind:#x}"),
    }
}

fn read<T: FromBytes>(header: &[u8]) -> T {
    T::read_from_bytes(header).expect("the shape's header length is that of its type")
}

fn data(data: Data, shape: &Shape) -> Result<Received, Fatal> {
    if data.datal.get() != shape.data_bytes {
        return Err(Fatal::field(offset::DATAL));
    }
    let success = data.common.flags & flags::SUCCESS != 0;
    // SUCCESS ends the command, so it may stand only where the data end, and only in C2HData.
    let ends = data.common.flags & flags::LAST != 0 && shape.kind == kind::C2H_DATA;
    if success && !ends {
        return Err(Fatal::field(offset::FLAGS));
    }
    Ok(Received::Data(data))
}

fn r2t(r2t: R2t) -> Result<Received, Fatal> {
    match r2t.r2tl.get() {
        0 => Err(Fatal::field(offset::DATAL)),
        _ => Ok(Received::R2t(r2t)),
    }
}

fn ic_req(req: IcReq) -> Result<Received, Fatal> {
    if req.pfv.get() != pdu::PFV {
        return Err(Fatal::unsupported(offset::PFV));
    }
    if req.hpda > pdu::MAX_PDA {
        return Err(Fatal::field(offset::PDA));
    }
    Ok(Received::IcReq(req))
}

fn ic_resp(resp: IcResp) -> Result<Received, Fatal> {
    if resp.pfv.get() != pdu::PFV {
        return Err(Fatal::unsupported(offset::PFV));
    }
    if resp.cpda > pdu::MAX_PDA {
        return Err(Fatal::field(offset::PDA));
    }
    let maxh2cdata = resp.maxh2cdata.get();
    if maxh2cdata < pdu::MIN_MAXH2CDATA || !maxh2cdata.is_multiple_of(4) {
        return Err(Fatal::field(offset::MAXH2CDATA));
    }
    Ok(Received::IcResp(resp))
}

fn term_req(req: TermReq) -> Result<Received, Fatal> {
    match req.fes.get() {
        fes::INVALID_HEADER_FIELD..=fes::UNSUPPORTED_PARAMETER => Ok(Received::TermReq(req)),
        _ => Err(Fatal::field(offset::FES)),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
