//! The NBD target and a client that shares its codec.
//!
//! ```text
//!  socket ─ connection ─┬─ handshake ── export            (negotiation)
//!                       └─ session ──── Host::submit      (transmission)
//!                            ▲ receive → issue → engine → reply │
//!                            └──────────── writev ◄─────────────┘
//! ```
//!
//! [`handshake`] and [`session`] are sans-IO; [`connection`] drives one socket
//! for them, [`server`] all the connections of a core, [`listener`] binds and
//! accepts. Memory is bounded per connection: [`COMMANDS`] requests, [`PIECES`]
//! engine requests, one receive buffer, all taken when the connection is made, and
//! an even share of [`TOTAL_BUFFER_BYTES`] of buffers, at most [`BUFFER_BYTES`]. Where room is missing the
//! connection stops reading its socket.
//!
//! Not here: TLS, resizing an export that is in use, `CACHE`, `FAST_ZERO`.

#![forbid(unsafe_code)]

pub mod client;
mod command;
pub mod connection;
pub mod export;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod handshake;
mod issue;
pub mod listener;
mod receive;
mod reply;
pub mod server;
pub mod session;
mod status;
mod stream;
pub mod wire;

#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use listener::{Address, Listener};
pub use server::Server;

/// Longest read or write of a client.
pub const MAX_TRANSFER_BYTES: u32 = 32 << 20;
/// NBD requests of a connection that may be under way.
pub const COMMANDS: u16 = 128;
/// Engine requests of a connection that may be under way.
pub const PIECES: u16 = 128;
/// Bytes of engine buffers that a connection may hold.
pub const BUFFER_BYTES: usize = 8 << 20;
/// Bytes of engine buffers that the connections of a core share evenly.
pub const TOTAL_BUFFER_BYTES: usize = 64 << 20;
/// Bytes that a connection may hold however many there are: any one piece.
pub const LEAST_BUFFER_BYTES: usize = 256 << 10;
/// Bytes of a connection's receive buffer.
const RECEIVE_BYTES: usize = 16 << 10;
/// Our number for `base:allocation`.
const CONTEXT_ID: u32 = 1;
