//! Fixed newstyle negotiation: bytes in, replies out, ending in an [`Export`].
//!
//! Each call of [`Handshake::step`] consumes at most one message and appends
//! its replies, at most one [`wire::OptionReply`] per volume and an end. The
//! caller steps again only when the replies have been sent, as the protocol
//! asks of clients, so that output is bounded by the number of volumes.
//!
//! No TLS: `STARTTLS` is refused and the client may go on without.

use zerocopy::{FromBytes, IntoBytes};

use super::export::{self, Export};
use super::wire::{self, OptionHeader, handshake_flag, info, option, reply};
use super::{CONTEXT_ID, RECEIVE_BYTES};
use crate::request::VolumeView;
use crate::units::VolumeId;

/// Longest data of an option: with its header it fits the receive buffer.
pub(super) const OPTION_BYTES: usize = RECEIVE_BYTES - OptionHeader::BYTES;

/// A breach of the protocol that ends the connection at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The client set flags that were not offered.
    #[error("unknown client flags {0:#x}")]
    ClientFlags(u32),
    /// An option does not begin with its magic.
    #[error("not an NBD option: magic {0:#x}")]
    OptionMagic(u64),
    /// `EXPORT_NAME` named no export; it has no error reply.
    #[error("no such export")]
    UnknownExport,
    /// A request does not begin with its magic.
    #[error("not an NBD request: magic {0:#x}")]
    RequestMagic(u32),
}

/// Where a step led.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The message is incomplete.
    NeedMore,
    /// An option was answered; the next may follow.
    Continue,
    /// Transmission begins once the replies are sent.
    Ready(Export),
    /// The client ended the session; close once the replies are sent.
    Closed,
}

/// The negotiation of one connection.
#[derive(Debug, Default)]
pub struct Handshake {
    greeted: bool,
    no_zeroes: bool,
    structured: bool,
    /// The volume whose `base:allocation` is selected.
    context: Option<VolumeId>,
    /// Bytes of an oversized option still to pass over.
    skip: u32,
}

/// Why an option is refused: the reply's type and a message for people.
type Refusal = (u32, &'static str);

const MALFORMED: Refusal = (reply::ERR_INVALID, "malformed option");
const UNKNOWN_EXPORT: Refusal = (reply::ERR_UNKNOWN, "no such volume");

impl Handshake {
    /// Begins with the greeting, appended to `out`.
    pub fn start(out: &mut Vec<u8>) -> Handshake {
        let greeting = wire::Greeting {
            magic: wire::MAGIC.into(),
            option_magic: wire::OPTION_MAGIC.into(),
            flags: (handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES).into(),
        };
        out.extend_from_slice(greeting.as_bytes());
        Handshake::default()
    }

    /// Takes one message from the front of `input`; returns the bytes consumed.
    ///
    /// # Errors
    /// On a breach of the protocol: nothing more can be said to the client.
    pub fn step(
        &mut self,
        input: &[u8],
        volumes: &[VolumeView],
        stopping: bool,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Step), Violation> {
        if !self.greeted {
            return self.client_flags(input);
        }
        if self.skip > 0 {
            let n = input.len().min(self.skip as usize);
            self.skip -= u32::try_from(n).expect("at most skip");
            return Ok((n, if self.skip > 0 { Step::NeedMore } else { Step::Continue }));
        }
        let Ok((header, rest)) = OptionHeader::read_from_prefix(input) else {
            return Ok((0, Step::NeedMore));
        };
        if header.magic != wire::OPTION_MAGIC {
            return Err(Violation::OptionMagic(header.magic.get()));
        }
        let (option, length) = (header.option.get(), header.length.get() as usize);
        if length > OPTION_BYTES {
            if option == option::EXPORT_NAME {
                return Err(Violation::UnknownExport);
            }
            self.skip = header.length.get();
            put_error(out, option, (reply::ERR_TOO_BIG, "option too long"));
            return Ok((OptionHeader::BYTES, Step::Continue));
        }
        let Some(data) = rest.get(..length) else { return Ok((0, Step::NeedMore)) };
        let step = self.option(option, data, volumes, stopping, out)?;
        Ok((OptionHeader::BYTES + length, step))
    }

    fn client_flags(&mut self, input: &[u8]) -> Result<(usize, Step), Violation> {
        let Some(flags) = input.first_chunk::<4>() else { return Ok((0, Step::NeedMore)) };
        let flags = u32::from_be_bytes(*flags);
        let known = u32::from(handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES);
        if flags & !known != 0 {
            return Err(Violation::ClientFlags(flags));
        }
        self.no_zeroes = flags & u32::from(handshake_flag::NO_ZEROES) != 0;
        self.greeted = true;
        Ok((4, Step::Continue))
    }

    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        volumes: &[VolumeView],
        stopping: bool,
        out: &mut Vec<u8>,
    ) -> Result<Step, Violation> {
        if option == option::EXPORT_NAME {
            return self.export_name(data, volumes, stopping, out);
        }
        if option == option::ABORT {
            put_reply(out, option, reply::ACK, &[]);
            return Ok(Step::Closed);
        }
        if stopping {
            put_error(out, option, (reply::ERR_SHUTDOWN, "server is stopping"));
            return Ok(Step::Continue);
        }
        let answer = match option {
            option::LIST => list(data, volumes, out).map(|()| None),
            option::STRUCTURED_REPLY => self.structured_reply(data).map(|()| None),
            option::INFO | option::GO => self.info(option, data, volumes, out).map(Some),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.meta_context(option, data, volumes, out).map(|()| None)
            }
            option::STARTTLS => Err((reply::ERR_UNSUP, "TLS is not supported")),
            _ => Err((reply::ERR_UNSUP, "unknown option")),
        };
        match answer {
            Ok(export) => {
                put_reply(out, option, reply::ACK, &[]);
                Ok(match export {
                    Some(export) if option == option::GO => Step::Ready(export),
                    _ => Step::Continue,
                })
            }
            Err(refusal) => {
                put_error(out, option, refusal);
                Ok(Step::Continue)
            }
        }
    }

    fn export_name(
        &mut self,
        data: &[u8],
        volumes: &[VolumeView],
        stopping: bool,
        out: &mut Vec<u8>,
    ) -> Result<Step, Violation> {
        let export = std::str::from_utf8(data)
            .ok()
            .filter(|_| !stopping)
            .and_then(|name| self.export(name, volumes))
            .ok_or(Violation::UnknownExport)?;
        let reply = wire::ExportReply {
            size: export.volume.size_bytes.into(),
            flags: export::flags(&export.volume, self.structured).into(),
        };
        out.extend_from_slice(reply.as_bytes());
        if !self.no_zeroes {
            out.extend_from_slice(&[0; wire::EXPORT_ZEROES]);
        }
        Ok(Step::Ready(export))
    }

    fn export(&self, name: &str, volumes: &[VolumeView]) -> Option<Export> {
        let (volume, client) = export::find(name, volumes)?;
        Some(Export {
            volume: volume.clone(),
            client,
            structured: self.structured,
            allocation: self.structured && self.context == Some(volume.id),
        })
    }

    fn structured_reply(&mut self, data: &[u8]) -> Result<(), Refusal> {
        if !data.is_empty() {
            return Err(MALFORMED);
        }
        self.structured = true;
        Ok(())
    }

    /// `INFO` and `GO`: a name, then the kinds of information wanted.
    fn info(
        &self,
        option: u32,
        data: &[u8],
        volumes: &[VolumeView],
        out: &mut Vec<u8>,
    ) -> Result<Export, Refusal> {
        let (name, rest) = take_string(data).ok_or(MALFORMED)?;
        let (count, kinds) = rest.split_first_chunk::<2>().ok_or(MALFORMED)?;
        if kinds.len() != usize::from(u16::from_be_bytes(*count)) * 2 {
            return Err(MALFORMED);
        }
        let wants_name = kinds.chunks_exact(2).any(|kind| kind == info::NAME.to_be_bytes());
        let export = self.export(name, volumes).ok_or(UNKNOWN_EXPORT)?;
        let volume = &export.volume;
        let size = export::info_export(volume, self.structured);
        put_reply(out, option, reply::INFO, size.as_bytes());
        put_reply(out, option, reply::INFO, export::info_block_size(volume).as_bytes());
        if wants_name {
            let mut canonical = info::NAME.to_be_bytes().to_vec();
            canonical.extend_from_slice(volume.name.as_bytes());
            put_reply(out, option, reply::INFO, &canonical);
        }
        Ok(export)
    }

    /// A name, then queries: none lists everything and selects nothing.
    fn meta_context(
        &mut self,
        option: u32,
        data: &[u8],
        volumes: &[VolumeView],
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let select = option == option::SET_META_CONTEXT;
        if select {
            self.context = None;
        }
        if !self.structured {
            return Err((reply::ERR_INVALID, "structured replies come first"));
        }
        let (name, rest) = take_string(data).ok_or(MALFORMED)?;
        let (count, mut queries) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
        let count = u32::from_be_bytes(*count);
        let mut found = count == 0 && !select;
        for _ in 0..count {
            let (query, rest) = take_string(queries).ok_or(MALFORMED)?;
            queries = rest;
            found |= query == wire::BASE_ALLOCATION || (query == "base:" && !select);
        }
        if !queries.is_empty() {
            return Err(MALFORMED);
        }
        let (volume, _) = export::find(name, volumes).ok_or(UNKNOWN_EXPORT)?;
        if found {
            let id = if select { CONTEXT_ID } else { 0 };
            let mut context = id.to_be_bytes().to_vec();
            context.extend_from_slice(wire::BASE_ALLOCATION.as_bytes());
            put_reply(out, option, reply::META_CONTEXT, &context);
            if select {
                self.context = Some(volume.id);
            }
        }
        Ok(())
    }
}

fn list(data: &[u8], volumes: &[VolumeView], out: &mut Vec<u8>) -> Result<(), Refusal> {
    if !data.is_empty() {
        return Err(MALFORMED);
    }
    for volume in volumes {
        let length = u32::try_from(volume.name.len()).expect("a name is short");
        let mut server = length.to_be_bytes().to_vec();
        server.extend_from_slice(volume.name.as_bytes());
        put_reply(out, option::LIST, reply::SERVER, &server);
    }
    Ok(())
}

/// A string after its length; `None` if cut short, too long or not UTF-8.
fn take_string(data: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if length > wire::STRING_BYTES {
        return None;
    }
    let (string, rest) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(string).ok()?, rest))
}

fn put_error(out: &mut Vec<u8>, option: u32, (kind, message): Refusal) {
    put_reply(out, option, kind, message.as_bytes());
}

fn put_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    let header = wire::OptionReply {
        magic: wire::OPTION_REPLY_MAGIC.into(),
        option: option.into(),
        kind: kind.into(),
        length: u32::try_from(data.len()).expect("replies are short").into(),
    };
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(data);
}
