//! `tessera predictor status|explain|set|train`.

use std::path::PathBuf;

use super::Context;
use crate::admin::{
    AdminRequest, AdminResponse, ChangeReport, PredictorReport, PrefetchKind, ReasonReport,
    StudyReport,
};
use crate::error::CommandError;
use crate::output::{bytes_text, percent_text};
use crate::progress::count_bar;
use crate::table::{Align, Table};

/// What to do with prediction.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// What prediction brings and costs, and who proposes
    Status,
    /// Why the last stages of a volume were made
    Explain {
        /// The volume
        volume: String,
        /// Stages shown, newest first
        #[arg(long, default_value_t = 20)]
        last: u32,
    },
    /// Change settings of the running server
    Set {
        /// Who decides what is staged ahead
        #[arg(long)]
        prefetch: Option<PrefetchKind>,
        /// Stages for one request at most, 1 to 16
        #[arg(long)]
        prefetch_depth: Option<u32>,
        /// Least probability that is ever staged, 0.05 to 0.95
        #[arg(long)]
        stage_threshold: Option<f32>,
        /// Extra traffic to the cold devices, in per cent: 25 for a quarter
        #[arg(long, value_name = "PERCENT")]
        prefetch_budget: Option<f32>,
    },
    /// Learn a VM's pattern from a trace, before it is started
    Train {
        /// The VM, by the name that its connections carry
        #[arg(long)]
        vm: String,
        /// The volume that the trace is of [default: named as the VM]
        #[arg(long)]
        volume: Option<String>,
        /// The trace, in any format that `replay` reads
        file: PathBuf,
    },
}

/// Runs the command.
pub fn run(action: &Action, context: &Context) -> Result<(), CommandError> {
    match action {
        Action::Status => {}
        Action::Explain { volume, last } => return explain(context, volume, *last),
        Action::Train { vm, volume, file } => {
            return train(context, vm, volume.as_deref().unwrap_or(vm), file);
        }
        Action::Set { prefetch, prefetch_depth, stage_threshold, prefetch_budget } => {
            let mut admin = context.admin()?;
            let kind = match prefetch {
                Some(kind) => *kind,
                None => super::status(&mut admin)?.prefetch,
            };
            admin.call(&AdminRequest::SetPrefetch {
                kind,
                depth: *prefetch_depth,
                threshold: *stage_threshold,
                share: prefetch_budget.map(|percent| percent / 100.0),
                budget_bytes: None,
            })?;
        }
    }
    let answer = context.admin()?.call(&AdminRequest::PredictorStatus)?;
    let AdminResponse::Predictor(report) = answer else { return Err(CommandError::WrongAnswer) };
    context.form.print(&report, details);
    Ok(())
}

fn share(part: u64, whole: u64) -> String {
    percent_text((whole > 0).then(|| part as f64 / whole as f64))
}

fn details(report: &PredictorReport) -> String {
    let PredictorReport { hits, late, wasted, misses, .. } = *report;
    let reads = hits + late + misses;
    let mut text = format!("prefetch         {}\n", report.prefetch);
    let mut line = |name: &str, value: String| text += &format!("{name:<17}{value}\n");
    line(
        "stages",
        format!("{} made, {} wasted ({})", report.staged, wasted, share(wasted, report.staged)),
    );
    line(
        "cold reads",
        format!(
            "{reads}: {} staged in time, {} on their way, {} missed",
            share(hits, reads),
            share(late, reads),
            share(misses, reads)
        ),
    );
    line(
        "predictions",
        format!(
            "{} crossings; {} needless, {} refused, {} lost",
            report.crossings, report.needless, report.refused, report.lost
        ),
    );
    let without = i64::try_from(report.misses_without).unwrap_or(i64::MAX).max(1);
    let extra = 100.0 * report.extra_fragments as f64 / without as f64;
    line(
        "budget",
        format!(
            "{extra:.1} % extra traffic of {:.1} % allowed",
            100.0 * report.settings.prefetch_budget
        ),
    );
    line(
        "threshold",
        format!(
            "{:.2} now, never below {:.2}; {} stages a request at most",
            report.threshold, report.settings.stage_threshold, report.settings.prefetch_depth
        ),
    );
    if report.unranked > 0 {
        let (unranked, unseen) = (report.unranked, report.unseen);
        let of = share(unranked, report.crossings);
        line(
            "unpredicted",
            format!("{unranked} crossings ({of}) for want of time, {unseen} unseen"),
        );
    }
    let PredictorReport { client_models, models_won, towers_won, .. } = *report;
    let won = format!("won: {models_won} of the pool, {towers_won} of the tower");
    line("models", format!("{client_models} clients have their own; {won}"));
    for ChangeReport { age_s, change } in &report.changes {
        let (name, from, to) = (&change.setting, change.from, change.to);
        let words = format!("{name} {from:.2} -> {to:.2}, {age_s} s ago: {}", change.reason);
        line("changed", words);
    }
    let mut table = Table::new(&[
        ("proposer", Align::Left),
        ("staged", Align::Right),
        ("used", Align::Right),
        ("", Align::Right),
    ]);
    for source in &report.proposers {
        let cells = [source.staged.to_string(), source.used.to_string()];
        let [staged, used] = cells;
        table.row([source.name.clone(), staged, used, share(source.used, source.staged)]);
    }
    format!("{text}\n{table}")
}

fn explain(context: &Context, volume: &str, last: u32) -> Result<(), CommandError> {
    let request = AdminRequest::PredictorExplain { volume: volume.to_owned(), last };
    let AdminResponse::Reasons { reasons } = context.admin()?.call(&request)? else {
        return Err(CommandError::WrongAnswer);
    };
    context.form.print(&reasons, |reasons| reasons_table(volume, reasons));
    Ok(())
}

fn reasons_table(volume: &str, reasons: &[ReasonReport]) -> String {
    if reasons.is_empty() {
        return format!("nothing has been staged of {volume}");
    }
    let mut table = Table::new(&[
        ("ago", Align::Right),
        ("staged at", Align::Right),
        ("client at", Align::Right),
        ("probability", Align::Right),
        ("needed", Align::Right),
        ("proposed by", Align::Left),
    ]);
    for reason in reasons {
        let elsewhere = reason.trigger_volume != volume;
        let at = bytes_text(reason.trigger_byte);
        table.row([
            format!("{:.1} s", reason.age_ms as f64 / 1e3),
            bytes_text(reason.staged_byte),
            if elsewhere { format!("{}:{at}", reason.trigger_volume) } else { at },
            format!("{:.2}", reason.probability),
            format!("{:.2}", reason.threshold),
            reason.proposers.join(" "),
        ]);
    }
    table.to_string()
}

fn train(
    context: &Context,
    vm: &str,
    volume: &str,
    file: &std::path::Path,
) -> Result<(), CommandError> {
    // The server has a working directory of its own.
    let path = std::path::absolute(file).map_err(CommandError::file(file))?;
    let bar = count_bar("learn", 0);
    let request =
        AdminRequest::PredictorTrain { vm: vm.to_owned(), volume: volume.to_owned(), path };
    let answer =
        context.admin()?.call_with_progress(&request, |step| bar.set_position(step.done))?;
    bar.finish_and_clear();
    let AdminResponse::Studied(report) = answer else { return Err(CommandError::WrongAnswer) };
    context.form.print(&report, |StudyReport { requests, skipped }| match skipped {
        0 => format!("{vm}: learned from {requests} requests"),
        _ => format!("{vm}: learned from {requests} requests; {skipped} lines were none"),
    });
    Ok(())
}
