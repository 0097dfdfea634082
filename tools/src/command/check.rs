//! `tessera check`: examines a stopped data directory.

use engine::check::{CheckError, Depth, Report, check};

use super::{Context, when_unlocked};
use crate::error::CommandError;
use crate::table::{Align, Table};

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read every stored block and compare its checksum, not only the metadata
    #[arg(long)]
    deep: bool,
}

/// Exits 0 if everything is sound, 1 on any damage.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let in_use = |error: &CheckError| matches!(error, CheckError::InUse { .. });
    let depth = if args.deep { Depth::Deep } else { Depth::Metadata };
    let report = when_unlocked(context, in_use, || check(&context.data_dir, depth))?;
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
    let mut summary = format!("{} volumes, {} fragments", report.volumes, report.fragments);
    if report.blocks > 0 {
        summary += &format!(", {} blocks verified", report.blocks);
    }
    if report.damage.is_empty() { summary } else { format!("{table}{summary}") }
}
