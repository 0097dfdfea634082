//! Fixed newstyle negotiation, as `doc/proto.md` of the NBD project has it.

use std::io::{Read, Write};

use super::{DEFAULT_MAX_BYTES, MAX_BYTES};
use crate::block::BlockError;

const INIT: [u8; 8] = *b"NBDMAGIC";
const OPTION: [u8; 8] = *b"IHAVEOPT";
const REPLY: u64 = 0x0003_e889_0455_65a9;
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
const OPT_SET_META_CONTEXT: u32 = 10;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_META_CONTEXT: u32 = 4;
const REP_ERR_UNKNOWN: u32 = (1 << 31) + 6;
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;
const FLAG_SEND_FLUSH: u16 = 1 << 2;
const FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// No option reply that we understand is longer.
const MAX_OPTION_REPLY: usize = 64 << 10;
const ALLOCATION: &[u8] = b"base:allocation";

/// What the server says of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Export {
    pub size_bytes: u64,
    /// Alignment of requests.
    pub block_bytes: u32,
    /// Longest transfer, a multiple of `block_bytes`.
    pub max_bytes: u32,
    pub can_flush: bool,
    pub can_zero: bool,
    /// Id of `base:allocation`, if the server has it.
    pub allocation_context: Option<u32>,
}

/// Negotiates over a blocking stream.
pub(super) fn negotiate<S: Copy + Read + Write>(
    mut stream: S,
    export: &str,
) -> Result<Export, BlockError> {
    let mut hello = [0; 18];
    stream.read_exact(&mut hello)?;
    let flags = u16::from_be_bytes([hello[16], hello[17]]);
    if hello[..8] != INIT || hello[8..16] != OPTION || flags & FIXED_NEWSTYLE == 0 {
        return Err(BlockError::Protocol("not a fixed newstyle NBD server"));
    }
    stream.write_all(&u32::from(flags & (FIXED_NEWSTYLE | NO_ZEROES)).to_be_bytes())?;
    let name = string(export.as_bytes());
    let mut allocation_context = None;
    option(&mut stream, OPT_STRUCTURED_REPLY, &[])?;
    if option_reply(&mut stream, OPT_STRUCTURED_REPLY)?.0 == REP_ACK {
        let data = [&name[..], &1_u32.to_be_bytes(), &string(ALLOCATION)].concat();
        option(&mut stream, OPT_SET_META_CONTEXT, &data)?;
        allocation_context = meta_context(&mut stream)?;
    }
    let wanted = [&name[..], &1_u16.to_be_bytes(), &INFO_BLOCK_SIZE.to_be_bytes()].concat();
    option(&mut stream, OPT_GO, &wanted)?;
    go(&mut stream, allocation_context)
}

/// The allocation context's id; an unknown export is left to [`go`] to report.
fn meta_context(stream: &mut impl Read) -> Result<Option<u32>, BlockError> {
    let mut context = None;
    loop {
        match option_reply(stream, OPT_SET_META_CONTEXT)? {
            (REP_META_CONTEXT, data) if data.len() >= 4 && data[4..] == *ALLOCATION => {
                context = Some(be32(&data, 0)?);
            }
            (REP_META_CONTEXT, _) => {}
            _ => return Ok(context),
        }
    }
}

fn go(stream: &mut impl Read, allocation_context: Option<u32>) -> Result<Export, BlockError> {
    let (mut size_and_flags, mut sizes) = (None, (1, DEFAULT_MAX_BYTES));
    loop {
        let (kind, data) = option_reply(stream, OPT_GO)?;
        match kind {
            REP_INFO if data.len() >= 2 => {
                match (u16::from_be_bytes([data[0], data[1]]), data.len()) {
                    (INFO_EXPORT, 12) => {
                        let size = u64::from(be32(&data, 2)?) << 32 | u64::from(be32(&data, 6)?);
                        size_and_flags = Some((size, u16::from_be_bytes([data[10], data[11]])));
                    }
                    (INFO_BLOCK_SIZE, 14) => sizes = (be32(&data, 2)?, be32(&data, 10)?),
                    _ => {}
                }
            }
            REP_ACK => break,
            REP_ERR_UNKNOWN => return Err(BlockError::Protocol("no such volume is exported")),
            _ if kind >> 31 == 1 => return Err(BlockError::Protocol("the export is refused")),
            _ => {}
        }
    }
    let (size_bytes, flags) =
        size_and_flags.ok_or(BlockError::Protocol("no export information"))?;
    let (least, most) = sizes;
    // A server that takes single bytes still stores sectors.
    let block_bytes = least.max(512);
    if !block_bytes.is_power_of_two() || block_bytes > 64 << 10 || most < block_bytes {
        return Err(BlockError::Protocol("impossible block sizes"));
    }
    Ok(Export {
        size_bytes: size_bytes / u64::from(block_bytes) * u64::from(block_bytes),
        block_bytes,
        max_bytes: most.min(MAX_BYTES) / block_bytes * block_bytes,
        can_flush: flags & FLAG_SEND_FLUSH != 0,
        can_zero: flags & FLAG_SEND_WRITE_ZEROES != 0,
        allocation_context,
    })
}

fn option(stream: &mut impl Write, option: u32, data: &[u8]) -> Result<(), BlockError> {
    let length = u32::try_from(data.len()).map_err(|_| BlockError::Protocol("a name too long"))?;
    let message = [&OPTION[..], &option.to_be_bytes(), &length.to_be_bytes(), data].concat();
    Ok(stream.write_all(&message)?)
}

/// Kind and data of the next reply to `option`.
fn option_reply(stream: &mut impl Read, option: u32) -> Result<(u32, Vec<u8>), BlockError> {
    let mut head = [0; 20];
    stream.read_exact(&mut head)?;
    let magic = u64::from(be32(&head, 0)?) << 32 | u64::from(be32(&head, 4)?);
    let length = be32(&head, 16)? as usize;
    if magic != REPLY || be32(&head, 8)? != option || length > MAX_OPTION_REPLY {
        return Err(BlockError::Protocol("garbage in the negotiation"));
    }
    let mut data = vec![0; length];
    stream.read_exact(&mut data)?;
    Ok((be32(&head, 12)?, data))
}

/// A text with its length in front.
fn string(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), text].concat()
}

/// A 32-bit field of a message.
pub(super) fn be32(bytes: &[u8], at: usize) -> Result<u32, BlockError> {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    field.map(|f| u32::from_be_bytes(*f)).ok_or(BlockError::Protocol("a message too short"))
}
