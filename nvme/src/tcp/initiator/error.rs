//! What ends a connection or a controller.

use std::io;

use super::super::check::Fatal;
use crate::Status;
use crate::code::sct;

/// Why a connection is over. Requests that were under way on it are not lost: see
/// [`super::Attachment`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("the connection is lost: {0}")]
    Socket(#[from] io::Error),
    /// The target closed it.
    #[error("the target closed the connection")]
    Closed,
    /// The target broke the protocol.
    #[error("the target broke the protocol: {0}")]
    Violation(Fatal),
    /// The target says that we did.
    #[error("the target ends the connection: {0}")]
    Terminated(Fatal),
    /// Nothing came for longer than a command may take.
    #[error("the target does not answer")]
    Silent,
    /// A command that brings up the controller failed.
    #[error("{what} failed: {}", describe(*.status))]
    Refused {
        /// The command.
        what: &'static str,
        /// Its status.
        status: Status,
        /// DW0 and DW1 of its completion.
        result: u64,
    },
    /// The controller reports what this host cannot use.
    #[error("the controller is of no use: {0}")]
    Unfit(&'static str),
    /// It wants authentication, which is not supported.
    #[error("the target wants authentication")]
    Authentication,
    /// The namespace is not active.
    #[error("there is no namespace {0}")]
    NoNamespace(u32),
    /// Every attempt to connect again failed for longer than the controller-loss timer allows.
    #[error("the controller is lost")]
    ControllerLost,
}

/// A status in words, where there are some, and numbers.
pub fn describe(status: Status) -> String {
    let words = match (status.sct(), status.sc()) {
        (sct::COMMAND_SPECIFIC, 0x80) => "incompatible format",
        (sct::COMMAND_SPECIFIC, 0x81) => "controller busy",
        (sct::COMMAND_SPECIFIC, 0x82) => "invalid parameters: is the NQN right?",
        (sct::COMMAND_SPECIFIC, 0x84) => "the host is not allowed",
        (sct::COMMAND_SPECIFIC, 0x91) => "authentication required",
        (sct::GENERIC, 0x01) => "invalid opcode",
        (sct::GENERIC, 0x02) => "invalid field",
        (sct::GENERIC, 0x0b) => "invalid namespace",
        (sct::GENERIC, 0x20) => "write protected",
        (sct::GENERIC, 0x22) => "a data digest was wrong",
        (sct::GENERIC, 0x80) => "beyond the end",
        (sct::GENERIC, 0x81) => "no space",
        (sct::MEDIA, 0x80) => "write fault",
        (sct::MEDIA, 0x81) => "unrecovered read error",
        (sct::PATH, _) => "no path",
        _ => "error",
    };
    format!("{words} (status {:#05x})", status.to_bits() & 0x7ff)
}

impl Error {
    /// Connecting again cannot help: the target has refused for good (Base 3.3.3.2.1: DNR),
    /// or it can do too little.
    pub fn is_final(&self) -> bool {
        match self {
            Error::Refused { status, .. } => status.dnr(),
            Error::Unfit(_)
            | Error::Authentication
            | Error::NoNamespace(_)
            | Error::ControllerLost => true,
            Error::Socket(_)
            | Error::Closed
            | Error::Violation(_)
            | Error::Terminated(_)
            | Error::Silent => false,
        }
    }
}
