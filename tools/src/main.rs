//! Entry point of the `tessera` command.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    tools::cli::run(&tools::cli::Cli::parse())
}
