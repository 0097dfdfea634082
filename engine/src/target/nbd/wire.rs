//! The NBD protocol's messages: constants and fixed-size headers.
//!
//! Source: the protocol document of the NetworkBlockDevice project
//! (`doc/proto.md`); the names here are its names without `NBD_`. All integers
//! are big-endian. Messages, with the offset of each field:
//!
//! | message | bytes | fields |
//! |---|---|---|
//! | [`Greeting`] (server) | 18 | 0 `NBDMAGIC`, 8 `IHAVEOPT`, 16 handshake flags u16 |
//! | client flags | 4 | 0 flags u32 |
//! | [`OptionHeader`] (client) | 16 | 0 `IHAVEOPT`, 8 option u32, 12 length u32; then data |
//! | [`OptionReply`] (server) | 20 | 0 magic u64, 8 option u32, 12 type u32, 16 length u32; then data |
//! | [`ExportReply`] (server) | 10 | 0 size u64, 8 transmission flags u16; then 124 zeros unless refused |
//! | [`InfoExport`] (server) | 12 | 0 type 0 u16, 2 size u64, 10 transmission flags u16 |
//! | [`InfoBlockSize`] (server) | 14 | 0 type 3 u16, 2 minimum u32, 6 preferred u32, 10 maximum u32 |
//! | [`RequestHeader`] (client) | 28 | 0 magic u32, 4 flags u16, 6 command u16, 8 cookie u64, 16 offset u64, 24 length u32; then a write's data |
//! | [`SimpleReply`] (server) | 16 | 0 magic u32, 4 error u32, 8 cookie u64; then a read's data |
//! | [`ChunkHeader`] (server) | 20 | 0 magic u32, 4 flags u16, 6 type u16, 8 cookie u64, 16 length u32; then payload |
//! | [`ErrorHead`] (server) | 6 | 0 error u32, 4 message length u16; then message, then an offset u64 for `ERROR_OFFSET` |
//! | [`Descriptor`] (server) | 8 | 0 length u32, 4 state u32; after the context's u32 in a `BLOCK_STATUS` chunk |
//!
//! Only syntax is here: what a message means is for handshake, session and client.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First magic of the greeting, `NBDMAGIC`.
pub const MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second magic of the greeting and the magic of each option, `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Magic of an option reply.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Magic of a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Magic of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Magic of a structured reply's chunk.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;
/// The port assigned to NBD.
pub const PORT: u16 = 10809;
/// Bytes of a string that the protocol allows.
pub const STRING_BYTES: usize = 4096;
/// Reserved zeros after an [`ExportReply`].
pub const EXPORT_ZEROES: usize = 124;
/// The metadata context of holes and zeros.
pub const BASE_ALLOCATION: &str = "base:allocation";

macro_rules! constants {
    ($(#[$doc:meta])* $name:ident: $raw:ty { $($(#[$item_doc:meta])* $item:ident = $value:expr,)* }) => {
        $(#[$doc])*
        pub mod $name {
            $($(#[$item_doc])* pub const $item: $raw = $value;)*
        }
    };
}

constants!(
    /// Handshake flags (server) and client flags: the same bits.
    handshake_flag: u16 {
        /// Options other than `EXPORT_NAME` are understood.
        FIXED_NEWSTYLE = 1,
        /// The zeros after an export reply may be left out.
        NO_ZEROES = 1 << 1,
    }
);
constants!(
    /// What an export can do, in its transmission flags.
    export_flag: u16 {
        /// Always set.
        HAS_FLAGS = 1,
        /// Writes fail.
        READ_ONLY = 1 << 1,
        /// `FLUSH` is understood.
        SEND_FLUSH = 1 << 2,
        /// `FUA` is understood.
        SEND_FUA = 1 << 3,
        /// `TRIM` is understood.
        SEND_TRIM = 1 << 5,
        /// `WRITE_ZEROES` is understood.
        SEND_WRITE_ZEROES = 1 << 6,
        /// `DF` is understood.
        SEND_DF = 1 << 7,
        /// A flush on one connection covers all.
        CAN_MULTI_CONN = 1 << 8,
    }
);
constants!(
    /// Options of the handshake.
    option: u32 {
        /// Choose an export without a reply to tell of errors.
        EXPORT_NAME = 1,
        /// End the session.
        ABORT = 2,
        /// Name the exports.
        LIST = 3,
        /// Start TLS.
        STARTTLS = 5,
        /// Describe an export.
        INFO = 6,
        /// Describe an export and go to transmission.
        GO = 7,
        /// Use structured replies.
        STRUCTURED_REPLY = 8,
        /// Name the metadata contexts of an export.
        LIST_META_CONTEXT = 9,
        /// Choose the metadata contexts of an export.
        SET_META_CONTEXT = 10,
    }
);
constants!(
    /// Types of option replies; bit 31 marks an error.
    reply: u32 {
        /// Done.
        ACK = 1,
        /// An export's name.
        SERVER = 2,
        /// A piece of information on an export.
        INFO = 3,
        /// A metadata context.
        META_CONTEXT = 4,
        /// Bit that every error has.
        ERROR = 1 << 31,
        /// Unknown option.
        ERR_UNSUP = ERROR + 1,
        /// Forbidden by policy.
        ERR_POLICY = ERROR + 2,
        /// Malformed, or out of order.
        ERR_INVALID = ERROR + 3,
        /// No such export.
        ERR_UNKNOWN = ERROR + 6,
        /// The server is stopping.
        ERR_SHUTDOWN = ERROR + 7,
        /// The option's data is too long.
        ERR_TOO_BIG = ERROR + 9,
    }
);
constants!(
    /// Kinds of information on an export.
    info: u16 {
        /// Size and flags.
        EXPORT = 0,
        /// The canonical name.
        NAME = 1,
        /// A description for people.
        DESCRIPTION = 2,
        /// Block size limits.
        BLOCK_SIZE = 3,
    }
);
constants!(
    /// Commands of the transmission phase.
    command: u16 {
        /// Read.
        READ = 0,
        /// Write.
        WRITE = 1,
        /// End the session.
        DISC = 2,
        /// Flush.
        FLUSH = 3,
        /// Drop a range.
        TRIM = 4,
        /// Make a range zero.
        WRITE_ZEROES = 6,
        /// Ask for a range's holes.
        BLOCK_STATUS = 7,
    }
);
constants!(
    /// Flags of a request.
    command_flag: u16 {
        /// Durable before the reply.
        FUA = 1,
        /// Zeroed space stays allocated.
        NO_HOLE = 1 << 1,
        /// One content chunk only.
        DF = 1 << 2,
        /// One extent only.
        REQ_ONE = 1 << 3,
    }
);
constants!(
    /// Types of a structured reply's chunks.
    chunk: u16 {
        /// Nothing more to say.
        NONE = 0,
        /// Data at an offset.
        OFFSET_DATA = 1,
        /// Zeros at an offset.
        OFFSET_HOLE = 2,
        /// Extents of a metadata context.
        BLOCK_STATUS = 5,
        /// Bit that every error has.
        ERROR_BIT = 1 << 15,
        /// The request failed.
        ERROR = ERROR_BIT + 1,
        /// The request failed at an offset.
        ERROR_OFFSET = ERROR_BIT + 2,
    }
);
/// Flag of a reply's last chunk.
pub const CHUNK_DONE: u16 = 1;
/// State of an extent: not allocated.
pub const STATE_HOLE: u32 = 1;
/// State of an extent: reads as zeros.
pub const STATE_ZERO: u32 = 1 << 1;

/// An error as the protocol numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// Not permitted: the export is read-only.
    Perm = 1,
    /// Input/output error.
    Io = 5,
    /// Out of memory.
    NoMem = 12,
    /// Invalid argument.
    Inval = 22,
    /// No space left.
    NoSpace = 28,
    /// Value too large.
    Overflow = 75,
    /// Not supported.
    NotSup = 95,
    /// The server is stopping.
    Shutdown = 108,
}

impl Errno {
    /// The number on the wire.
    pub const fn get(self) -> u32 {
        self as u32
    }
    /// From the wire; a number the protocol does not define counts as
    /// [`Errno::Inval`], as the protocol document asks of clients.
    pub const fn from_wire(raw: u32) -> Errno {
        match raw {
            1 => Errno::Perm,
            5 => Errno::Io,
            12 => Errno::NoMem,
            28 => Errno::NoSpace,
            75 => Errno::Overflow,
            95 => Errno::NotSup,
            108 => Errno::Shutdown,
            _ => Errno::Inval,
        }
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Errno::Perm => "EPERM: operation not permitted",
            Errno::Io => "EIO: input/output error",
            Errno::NoMem => "ENOMEM: out of memory",
            Errno::Inval => "EINVAL: invalid argument",
            Errno::NoSpace => "ENOSPC: no space left",
            Errno::Overflow => "EOVERFLOW: value too large",
            Errno::NotSup => "ENOTSUP: not supported",
            Errno::Shutdown => "ESHUTDOWN: server is stopping",
        })
    }
}

macro_rules! message {
    ($(#[$doc:meta])* $name:ident[$bytes:literal] { $($(#[$field_doc:meta])* $field:ident: $raw:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $raw,)*
        }
        const _: () = assert!(size_of::<$name>() == $bytes);
        impl $name {
            /// Bytes on the wire.
            pub const BYTES: usize = $bytes;
        }
    };
}

message!(
    /// The server's first words.
    Greeting[18] {
        /// [`MAGIC`].
        magic: U64,
        /// [`OPTION_MAGIC`].
        option_magic: U64,
        /// [`handshake_flag`].
        flags: U16,
    }
);
message!(
    /// Opens an option.
    OptionHeader[16] {
        /// [`OPTION_MAGIC`].
        magic: U64,
        /// [`option`].
        option: U32,
        /// Bytes of data that follow.
        length: U32,
    }
);
message!(
    /// Opens a reply to an option.
    OptionReply[20] {
        /// [`OPTION_REPLY_MAGIC`].
        magic: U64,
        /// The option it answers.
        option: U32,
        /// [`reply`].
        kind: U32,
        /// Bytes of data that follow.
        length: U32,
    }
);
message!(
    /// The reply to `EXPORT_NAME`.
    ExportReply[10] {
        /// Bytes of the export.
        size: U64,
        /// [`export_flag`].
        flags: U16,
    }
);
message!(
    /// Size and flags, in an `INFO` reply.
    InfoExport[12] {
        /// [`info::EXPORT`].
        kind: U16,
        /// Bytes of the export.
        size: U64,
        /// [`export_flag`].
        flags: U16,
    }
);
message!(
    /// Block size limits, in an `INFO` reply.
    InfoBlockSize[14] {
        /// [`info::BLOCK_SIZE`].
        kind: U16,
        /// Offsets and lengths are multiples of this.
        minimum: U32,
        /// Best for speed.
        preferred: U32,
        /// Longest read or write.
        maximum: U32,
    }
);
message!(
    /// Opens a request.
    RequestHeader[28] {
        /// [`REQUEST_MAGIC`].
        magic: U32,
        /// [`command_flag`].
        flags: U16,
        /// [`command`].
        command: U16,
        /// The client's name for the request.
        cookie: U64,
        /// First byte of the range.
        offset: U64,
        /// Bytes of the range.
        length: U32,
    }
);
message!(
    /// A whole reply, or the opening of a read's unstructured one.
    SimpleReply[16] {
        /// [`SIMPLE_REPLY_MAGIC`].
        magic: U32,
        /// [`Errno`], or 0.
        error: U32,
        /// [`RequestHeader::cookie`].
        cookie: U64,
    }
);
message!(
    /// Opens a chunk of a structured reply.
    ChunkHeader[20] {
        /// [`CHUNK_MAGIC`].
        magic: U32,
        /// [`CHUNK_DONE`] or 0.
        flags: U16,
        /// [`chunk`].
        kind: U16,
        /// [`RequestHeader::cookie`].
        cookie: U64,
        /// Bytes of payload that follow.
        length: U32,
    }
);
message!(
    /// Opens the payload of an error chunk.
    ErrorHead[6] {
        /// [`Errno`].
        error: U32,
        /// Bytes of the message that follows.
        message_length: U16,
    }
);
message!(
    /// One extent of a `BLOCK_STATUS` chunk.
    Descriptor[8] {
        /// Bytes.
        length: U32,
        /// [`STATE_HOLE`] | [`STATE_ZERO`].
        state: U32,
    }
);
