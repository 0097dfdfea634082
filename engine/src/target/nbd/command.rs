//! One NBD request: what it asks for, and whether it may.

use super::MAX_TRANSFER_BYTES;
use super::export::Export;
use super::wire::{Errno, RequestHeader, command, command_flag};
use crate::request::{Failure, windows};
use crate::units::SEGMENT_BYTES;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
    Trim,
    /// Write zeroes; the engine may free the space.
    Zeroes,
    /// Write zeroes that stay allocated (`NO_HOLE`): zeros are written.
    ZeroFill,
    Status {
        /// One extent only.
        one: bool,
    },
}

impl Kind {
    /// Its data goes to the client.
    pub(super) fn sends_data(self) -> bool {
        matches!(self, Kind::Read | Kind::Status { .. })
    }

    /// The error that the protocol has for a failure of the engine.
    pub(super) fn errno(self, failure: Failure) -> Errno {
        match failure {
            Failure::OutOfRange => self.beyond_end(),
            Failure::ReadOnly => Errno::Perm,
            Failure::NoSpace => Errno::NoSpace,
            Failure::Media | Failure::Device | Failure::Miscompare => Errno::Io,
            Failure::Stopping => Errno::Shutdown,
        }
    }

    fn beyond_end(self) -> Errno {
        match self {
            Kind::Write | Kind::Zeroes | Kind::ZeroFill => Errno::NoSpace,
            _ => Errno::Inval,
        }
    }
}

/// One request of the client, from its header to the sending of its last reply.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) cookie: u64,
    pub(super) kind: Kind,
    pub(super) fua: bool,
    /// A read of several pieces whose data must go out as one run.
    pub(super) streamed: bool,
    pub(super) offset: u64,
    pub(super) length: u32,
    /// Bytes handed to the engine.
    pub(super) issued: u32,
    /// Nothing more will be handed to the engine.
    pub(super) issued_all: bool,
    /// Pieces that the engine has.
    pub(super) in_flight: u16,
    /// The first failure, its message and its offset.
    pub(super) failed: Option<Failed>,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) errno: Errno,
    pub(super) message: &'static str,
    pub(super) offset: u64,
}

impl Failed {
    pub(super) fn of(kind: Kind, failure: Failure, offset: u64) -> Failed {
        let message = match failure {
            Failure::OutOfRange => "beyond the end of the volume",
            Failure::ReadOnly => "read-only volume",
            Failure::NoSpace => "no space left in the pool",
            Failure::Media => "stored data fails its checksum",
            Failure::Device => "device error",
            Failure::Miscompare => "the data differ",
            Failure::Stopping => STOPPING,
        };
        Failed { errno: kind.errno(failure), message, offset }
    }
}

/// The message of `ESHUTDOWN`.
const STOPPING: &str = "server is stopping";

impl Command {
    /// The next range for the engine: inside one window, or one segment for a status.
    pub(super) fn next_piece(&self) -> (u64, u32) {
        let (at, left) = (self.offset + u64::from(self.issued), self.length - self.issued);
        match self.kind {
            Kind::Flush => (0, 0),
            Kind::Status { .. } => {
                let to_end = SEGMENT_BYTES - at % SEGMENT_BYTES;
                (at, left.min(u32::try_from(to_end).expect("at most a segment")))
            }
            _ => windows(at, u64::from(left)).next().expect("bytes are left"),
        }
    }

    /// No piece is left, none will come.
    pub(super) fn ended(&self) -> bool {
        self.issued_all && self.in_flight == 0
    }
}

/// Checks a request other than `DISC` against the export.
///
/// # Errors
/// The protocol's error for it, with a message. Past the end: `ENOSPC` for what
/// writes and `EINVAL` for the rest, as the protocol document advises.
pub(super) fn admit(
    header: &RequestHeader,
    export: &Export,
    stopping: bool,
) -> Result<Command, (Errno, &'static str)> {
    let (flags, length) = (header.flags.get(), header.length.get());
    let offset = header.offset.get();
    let (kind, allowed) = match header.command.get() {
        command::READ if export.structured => (Kind::Read, command_flag::DF),
        command::READ => (Kind::Read, 0),
        command::WRITE => (Kind::Write, 0),
        command::FLUSH => (Kind::Flush, 0),
        command::TRIM => (Kind::Trim, 0),
        command::WRITE_ZEROES if flags & command_flag::NO_HOLE != 0 => {
            (Kind::ZeroFill, command_flag::NO_HOLE)
        }
        command::WRITE_ZEROES => (Kind::Zeroes, 0),
        command::BLOCK_STATUS if export.allocation => {
            (Kind::Status { one: flags & command_flag::REQ_ONE != 0 }, command_flag::REQ_ONE)
        }
        command::BLOCK_STATUS => return Err((Errno::Inval, "base:allocation was not selected")),
        _ => return Err((Errno::Inval, "unknown command")),
    };
    // FUA is valid for every command once SEND_FUA is advertised.
    if flags & !(allowed | command_flag::FUA) != 0 {
        return Err((Errno::Inval, "flag unknown for this command"));
    }
    if stopping {
        return Err((Errno::Shutdown, STOPPING));
    }
    check_range(kind, offset, length, export)?;
    let split = windows(offset, u64::from(length)).nth(1).is_some();
    let contiguous = !export.structured || flags & command_flag::DF != 0;
    Ok(Command {
        cookie: header.cookie.get(),
        kind,
        fua: flags & command_flag::FUA != 0,
        streamed: kind == Kind::Read && contiguous && split,
        offset,
        length,
        issued: 0,
        issued_all: false,
        in_flight: 0,
        failed: None,
    })
}

fn check_range(
    kind: Kind,
    offset: u64,
    length: u32,
    export: &Export,
) -> Result<(), (Errno, &'static str)> {
    let volume = &export.volume;
    if kind == Kind::Flush {
        let reserved = offset == 0 && length == 0;
        return reserved.then_some(()).ok_or((Errno::Inval, "a flush has no range"));
    }
    if volume.read_only && !kind.sends_data() {
        return Err((Errno::Perm, "read-only volume"));
    }
    if matches!(kind, Kind::Read | Kind::Write) && length > MAX_TRANSFER_BYTES {
        return Err((Errno::Inval, "longer than the maximum block size"));
    }
    if matches!(kind, Kind::Status { .. }) && length == 0 {
        return Err((Errno::Inval, "an empty range has no status"));
    }
    let block = u64::from(volume.block_bytes);
    if !offset.is_multiple_of(block) || !u64::from(length).is_multiple_of(block) {
        return Err((Errno::Inval, "not a multiple of the minimum block size"));
    }
    match offset.checked_add(u64::from(length)) {
        Some(end) if end <= volume.size_bytes => Ok(()),
        _ => Err((kind.beyond_end(), "beyond the end of the volume")),
    }
}
