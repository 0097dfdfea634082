//! `tessera status`.

use serde::Serialize;

use super::{Context, status};
use crate::admin::{AdminRequest, AdminResponse, CoreReport, StatsReport, StatusReport, TierUsage};
use crate::error::CommandError;
use crate::output::{bytes_text, percent_text};
use crate::table::{Align, Pairs, Table};

/// Options of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Count from zero after this report
    #[arg(long)]
    reset: bool,
}

#[derive(Serialize)]
struct Report {
    status: StatusReport,
    stats: StatsReport,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    let mut admin = context.admin()?;
    let status = status(&mut admin)?;
    let AdminResponse::Stats(stats) = admin.call(&AdminRequest::Stats { reset: args.reset })?
    else {
        return Err(CommandError::WrongAnswer);
    };
    context.form.print(&Report { status, stats }, table);
    Ok(())
}

fn usage(tier: TierUsage) -> String {
    format!("{} of {}", bytes_text(tier.used_bytes), bytes_text(tier.total_bytes))
}

fn table(report: &Report) -> String {
    let mut text = pairs(report).to_string();
    if !report.status.per_core.is_empty() {
        text += &format!("\n{}", cores(&report.status.per_core));
    }
    text
}

fn cores(cores: &[CoreReport]) -> Table {
    let mut table = Table::new(&[
        ("core", Align::Right),
        ("pinned to CPU", Align::Right),
        ("slices", Align::Right),
        ("fragments", Align::Right),
        ("clients", Align::Right),
    ]);
    for (number, core) in cores.iter().enumerate() {
        table.row([
            number.to_string(),
            core.cpu.map_or_else(|| "-".to_owned(), |cpu| cpu.to_string()),
            core.slices.to_string(),
            core.fragments.to_string(),
            core.connections.to_string(),
        ]);
    }
    table
}

fn pairs(report: &Report) -> Pairs {
    let Report { status, stats } = report;
    Pairs::default()
        .with("version", &status.version)
        .with("process", status.pid)
        .with("up", format!("{} s", status.uptime_s))
        .with("data", status.data_dir.display())
        .with("pool", &status.pool_uuid)
        .with("cores", status.cores)
        .with("listeners", status.listeners.join(" "))
        .with("volumes", status.volumes)
        .with("connections", status.connections)
        .with("fast tier", usage(status.fast))
        .with("cold tier", usage(status.cold))
        .with("prefetch", status.prefetch)
        .with("counted for", format!("{:.0} s", stats.seconds))
        .with("reads", format!("{} ({})", stats.reads, bytes_text(stats.read_bytes)))
        .with("writes", format!("{} ({})", stats.writes, bytes_text(stats.write_bytes)))
        .with("flushes", stats.flushes)
        .with("errors", stats.errors)
        .with("requests/s", format!("{:.0}", stats.iops))
        .with("hit ratio", percent_text(stats.hit_ratio()))
        .with("hits", stats.hits)
        .with("misses", format!("{} (late {})", stats.misses, stats.late))
        .with("stages wasted", stats.wasted)
        .with(
            "staged",
            format!(
                "{} of {}",
                bytes_text(stats.staged_bytes),
                bytes_text(stats.stage_budget_bytes)
            ),
        )
        .with("cold reads", stats.cold_reads)
        .with("stalls on the cold tier", stats.cold_stalls)
        .with("fragments spilled", stats.spilled_fragments)
}
