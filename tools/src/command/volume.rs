//! `tessera volume create|list|show|resize|delete`.

use serde::Serialize;

use super::{Context, volume};
use crate::admin::size::parse_size;
use crate::admin::{AdminRequest, AdminResponse, VolumeReport};
use crate::error::CommandError;
use crate::output::bytes_text;
use crate::table::{Align, Pairs, Table};

/// What to do with volumes.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Make a volume; its space is allocated at first write
    Create(Create),
    /// List all volumes
    List,
    /// Show one volume
    Show {
        /// The volume
        name: String,
    },
    /// Change a volume's size while it is served
    Resize {
        /// The volume
        name: String,
        /// New size, for example 8GiB
        #[arg(long, value_parser = parse_size)]
        size: u64,
        /// Shrink, and lose what is cut off
        #[arg(long)]
        force: bool,
    },
    /// Delete a volume and free its space
    Delete {
        /// The volume
        name: String,
    },
}

/// Options of `volume create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// Its name, unique in the pool
    name: String,
    /// Its size, for example 8GiB
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// Size of its fragments, a power of two from 64KiB to 16MiB [default: the pool's]
    #[arg(long, value_parser = parse_size)]
    fragment_size: Option<u64>,
    /// Block size that clients see
    #[arg(long, value_parser = ["512", "4096"], default_value = "512")]
    block_size: String,
    /// Refuse writes
    #[arg(long)]
    read_only: bool,
}

/// Runs the command.
pub fn run(action: &Action, context: &Context) -> Result<(), CommandError> {
    let mut admin = context.admin()?;
    let request = match action {
        Action::List => return list(context),
        Action::Delete { name } => {
            admin.call(&AdminRequest::VolumeDelete { name: name.clone() })?;
            context.form.print(&Deleted { deleted: name }, |_| format!("{name} deleted"));
            return Ok(());
        }
        Action::Create(create) => AdminRequest::VolumeCreate {
            name: create.name.clone(),
            size_bytes: create.size,
            fragment_size: create.fragment_size,
            block_bytes: Some(if create.block_size == "4096" { 4096 } else { 512 }),
            read_only: create.read_only,
        },
        Action::Show { name } => AdminRequest::VolumeShow { name: name.clone() },
        Action::Resize { name, size, force } => {
            AdminRequest::VolumeResize { name: name.clone(), size_bytes: *size, force: *force }
        }
    };
    let report = volume(&mut admin, &request)?;
    context.form.print(&report, details);
    Ok(())
}

#[derive(Serialize)]
struct Deleted<'a> {
    deleted: &'a str,
}

fn list(context: &Context) -> Result<(), CommandError> {
    let AdminResponse::Volumes { volumes } = context.admin()?.call(&AdminRequest::VolumeList)?
    else {
        return Err(CommandError::WrongAnswer);
    };
    context.form.print(&volumes, |volumes| table(volumes));
    Ok(())
}

fn table(volumes: &[VolumeReport]) -> Table {
    let mut table = Table::new(&[
        ("volume", Align::Left),
        ("size", Align::Right),
        ("fast", Align::Right),
        ("cold", Align::Right),
        ("block", Align::Right),
        ("fragment", Align::Right),
        ("clients", Align::Right),
    ]);
    for v in volumes {
        table.row([
            v.name.clone(),
            bytes_text(v.size_bytes),
            bytes_text(v.fast_bytes),
            bytes_text(v.cold_bytes),
            v.block_bytes.to_string(),
            bytes_text(v.fragment_bytes),
            v.connections.to_string(),
        ]);
    }
    table
}

pub(super) fn details(v: &VolumeReport) -> Pairs {
    Pairs::default()
        .with("volume", &v.name)
        .with("id", v.id)
        .with("uuid", &v.uuid)
        .with("size", format!("{} ({} bytes)", bytes_text(v.size_bytes), v.size_bytes))
        .with("block size", v.block_bytes)
        .with("fragment size", bytes_text(v.fragment_bytes))
        .with("access", if v.read_only { "read-only" } else { "read-write" })
        .with("on the fast tier", bytes_text(v.fast_bytes))
        .with("on the cold tier", bytes_text(v.cold_bytes))
        .with("connections", v.connections)
}
