//! The client's side of fixed newstyle negotiation.

use std::io::{ErrorKind, Read, Write};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Error, Info, reply_name};
use crate::target::nbd::MAX_TRANSFER_BYTES;
use crate::target::nbd::wire::{
    self, Greeting, InfoBlockSize, InfoExport, OptionHeader, OptionReply, handshake_flag, info,
    option, reply,
};
use crate::target::socket::Socket;

/// Longest reply that a server may send to an option.
const REPLY_BYTES: u32 = 64 << 10;

/// Asks for structured replies, `base:allocation` and the export.
pub(super) fn negotiate(socket: &mut Socket, export: &str) -> Result<Info, Error> {
    let greeting: Greeting = receive(socket)?;
    let offered = greeting.flags.get();
    if greeting.magic != wire::MAGIC
        || greeting.option_magic != wire::OPTION_MAGIC
        || offered & handshake_flag::FIXED_NEWSTYLE == 0
    {
        return Err(Error::NotNbd);
    }
    let flags = offered & (handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES);
    socket.write_all(&u32::from(flags).to_be_bytes())?;

    ask(socket, option::STRUCTURED_REPLY, "structured replies", &[], |_, _| Ok(()))?;

    let mut data = string(export);
    data.extend_from_slice(&1u32.to_be_bytes());
    data.extend_from_slice(&string(wire::BASE_ALLOCATION));
    let mut allocation = false;
    let asked = ask(socket, option::SET_META_CONTEXT, "base:allocation", &data, |kind, data| {
        allocation |= kind == reply::META_CONTEXT
            && data.get(4..).is_some_and(|name| name == wire::BASE_ALLOCATION.as_bytes());
        Ok(())
    });
    match asked {
        // Without it the export is all data; a wrong name is told again by GO.
        Ok(()) | Err(Error::Refused { .. }) => {}
        Err(e) => return Err(e),
    }

    let mut data = string(export);
    data.extend_from_slice(&1u16.to_be_bytes());
    data.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
    let mut size = None;
    let mut limits = (1, MAX_TRANSFER_BYTES);
    ask(socket, option::GO, "the export", &data, |kind, data| {
        if kind != reply::INFO {
            return Ok(());
        }
        if let Ok(InfoExport { kind, size: bytes, flags }) = InfoExport::read_from_bytes(data)
            && kind == info::EXPORT
        {
            size = Some((bytes.get(), flags.get()));
        }
        if let Ok(block) = InfoBlockSize::read_from_bytes(data)
            && block.kind == info::BLOCK_SIZE
        {
            limits = (block.minimum.get(), block.maximum.get());
        }
        Ok(())
    })?;
    let (size, flags) = size.ok_or(Error::Malformed("no size of the export"))?;
    let (minimum_block, maximum) = limits;
    if minimum_block == 0 || maximum < minimum_block {
        return Err(Error::Malformed("impossible block sizes"));
    }
    // A multiple of the minimum, so that a long range is cut at whole blocks.
    let maximum = maximum.min(MAX_TRANSFER_BYTES).max(minimum_block);
    let maximum_block = maximum - maximum % minimum_block;
    Ok(Info { size, flags, minimum_block, maximum_block, allocation })
}

/// Sends an option and hands each reply before the last to `each`.
fn ask(
    socket: &mut Socket,
    option: u32,
    what: &'static str,
    data: &[u8],
    mut each: impl FnMut(u32, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let length = u32::try_from(data.len()).expect("options are short").into();
    let header = OptionHeader { magic: wire::OPTION_MAGIC.into(), option: option.into(), length };
    let mut message = header.as_bytes().to_vec();
    message.extend_from_slice(data);
    socket.write_all(&message)?;
    loop {
        let header: OptionReply = receive(socket)?;
        if header.magic != wire::OPTION_REPLY_MAGIC || header.option != option {
            return Err(Error::Malformed("not a reply to the option"));
        }
        if header.length > REPLY_BYTES {
            return Err(Error::Malformed("a reply to an option is too long"));
        }
        let mut data = vec![0; header.length.get() as usize];
        fill(socket, &mut data)?;
        match header.kind.get() {
            reply::ACK => return Ok(()),
            kind if kind & reply::ERROR != 0 => {
                let message = match String::from_utf8_lossy(&data) {
                    empty if empty.is_empty() => reply_name(kind).to_owned(),
                    message => message.into_owned(),
                };
                return Err(Error::Refused { option: what, kind, message });
            }
            kind => each(kind, &data)?,
        }
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut out = u32::try_from(text.len()).expect("a short string").to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

fn receive<T: FromBytes + IntoBytes + Immutable>(socket: &mut Socket) -> Result<T, Error> {
    let mut message = T::new_zeroed();
    fill(socket, message.as_mut_bytes())?;
    Ok(message)
}

fn fill(socket: &mut Socket, out: &mut [u8]) -> Result<(), Error> {
    match socket.read_exact(out) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(Error::Closed),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Err(Error::Silent),
        other => Ok(other?),
    }
}
