//! `tessera replay` offline: what prediction would bring on a trace.

use std::path::PathBuf;

use indicatif::ProgressBar;
use predictor::lab::Contender;
use predictor::prefetch::Settings;
use predictor::trace::Skipped;

use super::{Args, Choice, Context};
use crate::admin::size::parse_size;
use crate::error::CommandError;
use crate::laboratory::chart::{Panel, draw};
use crate::laboratory::report::{Row, Rows};
use crate::laboratory::spread;
use crate::laboratory::{Conditions, FastTier, Step, Trace, inputs, judge, load, percent};
use crate::progress::count_bar;

/// Options of the laboratory.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Laboratory")]
pub(super) struct Options {
    /// Size of the fragments, a power of two from 64KiB to 16MiB
    #[arg(long, value_parser = parse_fragment_size, default_value = "1MiB", conflicts_with = "live")]
    fragment_size: u64,
    /// Size of the fast tier: a share of what the trace touches, or a size
    #[arg(long, default_value = "5%", value_name = "SHARE|SIZE", conflicts_with = "live")]
    fast_tier: FastTier,
    /// Extra traffic that the learned prefetcher may cause
    #[arg(long, value_parser = percent, default_value = "25%", conflicts_with = "live")]
    budget: f64,
    /// Replay the requests in a random order, at the times of the trace: the control that
    /// tells learning from luck
    #[arg(long, conflicts_with = "live")]
    shuffle: bool,
    /// Let writes be observed only; else they trigger stages as reads do
    #[arg(long, conflicts_with = "live")]
    reads_trigger: bool,
    /// Let writes wait for nothing, as on a server that puts them on the fast tier: they are
    /// followed and trigger, but only reads miss, count and are foreseen
    #[arg(long, conflicts_with = "live")]
    writes_free: bool,
    /// Judge what runs on a core of a server, none or learned: on a miss blocks are read alone or
    /// the fragment follows, stages are all that is kept, writes stay on the fast tier. What
    /// --live sees of a volume that is cold
    #[arg(long, conflicts_with_all = ["live", "reads_trigger", "shuffle", "writes_free"])]
    served: bool,
    /// Seed of models and of the random order
    #[arg(long, default_value_t = 1, value_name = "N", conflicts_with = "live")]
    seed: u64,
    /// Run with so many seeds in turn, and report means and spread
    #[arg(long, default_value_t = 1, value_name = "N", conflicts_with_all = ["live", "svg"],
          value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Draw the misses over time
    #[arg(long, value_name = "FILE", conflicts_with = "live")]
    svg: Option<PathBuf>,
}

fn parse_fragment_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    let is_size = bytes.is_power_of_two() && (64 << 10..=16 << 20).contains(&bytes);
    if is_size { Ok(bytes) } else { Err("expected a power of two from 64KiB to 16MiB".to_owned()) }
}

/// Runs the command. What was judged before a trace that cannot be read is printed all the
/// same.
pub(super) fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    if !predictor::init() {
        eprintln!("candle is not limited to one thread: costs will be higher");
    }
    let mut conditions = conditions(args)?;
    let (first, seeds) = (conditions.seed, args.lab.seeds);
    let mut rows = Rows::default();
    let mut panels = Vec::new();
    let end = inputs(&args.files).iter().try_for_each(|paths| {
        conditions.seed = first;
        let (trace, skipped) = load(paths, &conditions)?;
        if conditions.served && !trace.has_clock {
            let message = format!("{}: no clock: --served needs one", trace.path.display());
            return Err(CommandError::Usage(message));
        }
        warn(&trace, &skipped, paths);
        for seed in 0..seeds {
            conditions.seed = first.wrapping_add(seed);
            let (judged, panel) = judge_one(&trace, &conditions)?;
            rows.extend(judged);
            panels.push(panel);
        }
        Ok(())
    });
    if !rows.is_empty() {
        context.form.print(&rows, |rows| match seeds {
            1 => rows.table(&conditions).to_string(),
            _ => spread::table(rows.as_slice(), &conditions, seeds).to_string(),
        });
        if let Some(path) = &args.lab.svg {
            let text = draw(&conditions.to_string(), &panels);
            std::fs::write(path, text).map_err(CommandError::file(path))?;
        }
    }
    end
}

fn conditions(args: &Args) -> Result<Conditions, CommandError> {
    let lab = &args.lab;
    let mut settings = Settings::default();
    settings.fragment_shift = u8::try_from(lab.fragment_size.trailing_zeros()).expect("below 64");
    settings.prefetch_depth = args.depth.map_or(settings.prefetch_depth, usize::from);
    settings.check().map_err(|error| CommandError::Usage(format!("--depth: {error}")))?;
    if let FastTier::Bytes(bytes) = lab.fast_tier
        && bytes < lab.fragment_size
    {
        return Err(CommandError::Usage("--fast-tier holds no fragment".to_owned()));
    }
    let mut contenders: Vec<Contender> = Vec::new();
    let all = [Choice::All];
    let asked = if args.prefetch.is_empty() { all.as_slice() } else { &args.prefetch };
    let can_run = |contender: &Contender| !lab.served || contender.is_served();
    for choice in asked {
        match choice {
            Choice::All => contenders.extend(Contender::usual().filter(can_run)),
            Choice::Ablation => contenders.extend(Contender::ablation()),
            Choice::One(contender) => contenders.push(*contender),
        }
    }
    let mut seen = std::collections::HashSet::new();
    contenders.retain(|contender| seen.insert(*contender));
    if let Some(other) = contenders.iter().find(|contender| !can_run(contender)) {
        let message = format!("--served is for none and learned, not for {other}");
        return Err(CommandError::Usage(message));
    }
    Ok(Conditions {
        settings,
        fast_tier: lab.fast_tier,
        contenders,
        budget_pct: lab.budget,
        shuffle: lab.shuffle,
        writes_trigger: !lab.reads_trigger,
        writes_free: lab.writes_free,
        served: lab.served,
        seed: lab.seed,
    })
}

fn judge_one(trace: &Trace, conditions: &Conditions) -> Result<(Vec<Row>, Panel), CommandError> {
    let bar = count_bar("", 0);
    let runs = judge(trace, conditions, |step| match step {
        Step::Begins(contender) => begin(&bar, trace, contender),
        Step::Went(requests) => bar.inc(requests as u64),
    });
    bar.finish_and_clear();
    let runs = runs.map_err(|source| CommandError::Lab { trace: trace.path.clone(), source })?;
    let rows = Row::of(trace, conditions, &runs);
    if let Some(behind) = rows.iter().find_map(|row| row.falls_behind(trace)) {
        eprintln!("{}: {behind}", trace.name);
    }
    Ok((rows, Panel::new(trace, &runs)))
}

fn begin(bar: &ProgressBar, trace: &Trace, contender: Contender) {
    bar.set_length(trace.accesses.len() as u64);
    bar.set_position(0);
    bar.set_message(format!("{} {contender}", trace.name));
}

/// Says what a reader of the report must know of the trace.
fn warn(trace: &Trace, skipped: &Skipped, paths: &[PathBuf]) {
    if !trace.has_clock {
        eprintln!(
            "{}: no clock: every stage counts as in time, and nothing is said of waiting",
            trace.path.display()
        );
    }
    if skipped.count > 0 {
        eprintln!("{}: {} bad lines or records passed over:", trace.path.display(), skipped.count);
        for skip in &skipped.first {
            let path = paths.get(skip.file).unwrap_or(&trace.path);
            eprintln!("  {}: {}: {}", path.display(), skip.place, skip.problem);
        }
        if skipped.count > skipped.first.len() as u64 {
            eprintln!("  …");
        }
    }
}
