//! `tessera device list|show`.

use super::Context;
use crate::admin::{AdminRequest, AdminResponse, DeviceReport};
use crate::error::CommandError;
use crate::output::bytes_text;
use crate::table::{Align, Pairs, Table};

/// What to show of devices.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// List the pool's devices
    List,
    /// Show one device
    Show {
        /// Its number in the list
        id: u8,
    },
}

/// Runs the command.
pub fn run(action: &Action, context: &Context) -> Result<(), CommandError> {
    let AdminResponse::Devices { devices } = context.admin()?.call(&AdminRequest::DeviceList)?
    else {
        return Err(CommandError::WrongAnswer);
    };
    match action {
        Action::List => context.form.print(&devices, |devices| table(devices)),
        Action::Show { id } => {
            let device = devices.iter().find(|d| d.id == *id);
            context.form.print(device.ok_or(CommandError::NoDevice(*id))?, details);
        }
    }
    Ok(())
}

/// The driver, with what it emulates: no report hides that.
fn driver(device: &DeviceReport) -> String {
    match &device.emulate {
        Some(slower) => format!("{} emulating {slower}", device.driver),
        None => device.driver.clone(),
    }
}

fn state(device: &DeviceReport) -> &'static str {
    if device.online { "online" } else { "failed" }
}

fn table(devices: &[DeviceReport]) -> Table {
    let mut table = Table::new(&[
        ("device", Align::Right),
        ("role", Align::Left),
        ("state", Align::Left),
        ("used", Align::Right),
        ("size", Align::Right),
        ("driver", Align::Left),
        ("path", Align::Left),
    ]);
    for d in devices {
        table.row([
            d.id.to_string(),
            d.role.to_string(),
            state(d).to_owned(),
            bytes_text(d.used_bytes),
            bytes_text(d.total_bytes),
            driver(d),
            d.path.display().to_string(),
        ]);
    }
    table
}

fn details(d: &DeviceReport) -> Pairs {
    Pairs::default()
        .with("device", d.id)
        .with("path", d.path.display())
        .with("uuid", &d.uuid)
        .with("role", d.role)
        .with("state", state(d))
        .with("driver", driver(d))
        .with("used", format!("{} of {}", bytes_text(d.used_bytes), bytes_text(d.total_bytes)))
        .with("reads", format!("{} ({})", d.reads, bytes_text(d.read_bytes)))
        .with("writes", format!("{} ({})", d.writes, bytes_text(d.write_bytes)))
        .with("errors", d.errors)
}
