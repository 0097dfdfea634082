//! The `tessera` command: one module per subcommand, and what they share.
//!
//! Reports go to stdout, as tables or with `--json` as one JSON value; progress
//! and errors go to stderr. Exit codes: 0 success, 1 damage found or operation
//! failed, 2 wrong usage.

#![forbid(unsafe_code)]

pub mod attached;
pub mod block;
pub mod cli;
pub mod command;
pub mod error;
pub mod image;
pub mod interrupt;
pub mod laboratory;
pub mod output;
pub mod progress;
pub mod qemu;
pub mod replay;
pub mod table;

pub use engine::admin;
