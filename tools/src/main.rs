//! Entry point of the `tessera` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use engine::core::meter::CountingAllocator;

/// `tessera bench` says how often the data path asks for memory.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    tools::cli::run(&tools::cli::Cli::parse())
}
