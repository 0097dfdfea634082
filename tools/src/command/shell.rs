//! `tessera completions` and `tessera man`: generated from the definition of the command line.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use serde::Serialize;

use super::Context;
use crate::error::CommandError;

/// Options of `completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// Options of `man`.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Folder for the pages, for example ~/.local/share/man/man1; made if there is none
    dir: PathBuf,
}

#[derive(Serialize)]
struct Pages<'a> {
    dir: &'a Path,
    pages: usize,
}

/// Writes the script for a shell to stdout.
pub fn completions(args: &Completions, mut command: Command) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tessera", &mut script);
    // A reader that has gone away is no failure.
    let _ = io::stdout().write_all(&script);
    Ok(())
}

/// Writes a page for every command.
pub fn man(args: &Man, command: Command, context: &Context) -> Result<(), CommandError> {
    let dir = &args.dir;
    fs::create_dir_all(dir).map_err(CommandError::file(dir))?;
    clap_mangen::generate_to(command, dir).map_err(CommandError::file(dir))?;
    let pages = fs::read_dir(dir).map_err(CommandError::file(dir))?.count();
    context
        .form
        .print(&Pages { dir, pages }, |p| format!("{} pages in {}", p.pages, dir.display()));
    Ok(())
}
