//! `tessera check`: examines a stopped data directory.

use engine::check::{CheckError, Report, check};

use super::{Context, when_unlocked};
use crate::error::CommandError;
use crate::table::{Align, Table};

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Exits 0 if everything is sound, 1 on any damage.
pub fn run(_: &Args, context: &Context) -> Result<(), CommandError> {
    let in_use = |error: &CheckError| matches!(error, CheckError::InUse { .. });
    let report = when_unlocked(context, in_use, || check(&context.data_dir))?;
    context.form.print(&report, table);
    match report.damage.len() {
        0 => Ok(()),
        found => Err(CommandError::Damaged { data_dir: context.data_dir.clone(), found }),
    }
}

fn table(report: &Report) -> String {
    let mut table = Table::new(&[("place", Align::Left), ("damage", Align::Left)]);
    for damage in &report.damage {
        table.row([damage.place.to_string(), damage.what.to_string()]);
    }
    let summary = format!(
        "{} volumes, {} fragments, {} blocks verified",
        report.volumes, report.fragments, report.blocks
    );
    if report.damage.is_empty() { summary } else { format!("{table}{summary}") }
}
