//! Judges the prefetchers on traces: `cargo run --release -p predictor --example
//! lab -- [--shift 20] [--percent 5] [--prefetch NAME,…] [--extra 25] [--depth 4]
//! [--threshold 0.3] [--seed 1] FILE…`
//!
//! With `--reads-trigger` writes are observed only. Prints, for each trace and prefetcher, the reduction of demand misses and of
//! misses or late stages, the extra traffic, and what it cost in time.

use std::error::Error;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use predictor::Access;
use predictor::lab::{self, Contender, Setup};
use predictor::prefetch::Settings;
use predictor::trace;

fn main() -> Result<(), Box<dyn Error>> {
    if !predictor::init() {
        eprintln!("candle is not limited to one thread: times will be longer");
    }
    let mut settings = Settings::default();
    let mut percent = 5;
    let mut writes_trigger = true;
    let mut extra_share = 0.25;
    let mut contenders: Vec<Contender> = Contender::all().collect();
    let mut seed = 1;
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--reads-trigger" => writes_trigger = false,
            "--prefetch" => {
                contenders = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--extra" => extra_share = parsed::<f64>(&value()?)? / 100.0,
            "--seed" => seed = parsed(&value()?)?,
            "--shift" => settings.fragment_shift = parsed(&value()?)?,
            "--percent" => percent = parsed(&value()?)?,
            "--depth" => settings.prefetch_depth = parsed(&value()?)?,
            "--threshold" => settings.stage_threshold = parsed(&value()?)?,
            _ => files.push(PathBuf::from(argument)),
        }
    }
    println!(
        "{:<28} {:<12} {:>7} {:>7} {:>7} {:>7} {:>9} {:>8} {:>8} {:>7} {:>7} {:>8}",
        "trace",
        "prefetch",
        "gain %",
        "reads %",
        "timely%",
        "extra %",
        "issued",
        "misses",
        "ghost",
        "rounds",
        "won",
        "ns/cross"
    );
    for file in files {
        let mut reader = trace::open(&file)?;
        let records = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
        let skipped = reader.skipped();
        if let Some(first) = skipped.first.first() {
            let (count, place, problem) = (skipped.count, first.place, first.problem);
            eprintln!("{}: {count} bad, the first at {place}: {problem}", file.display());
        }
        let accesses: Vec<Access> =
            records.iter().map(|r| Access::from_record(r, 0, settings.fragment_shift)).collect();
        let tier = (lab::footprint(&accesses) * percent / 100).max(1);
        for &contender in &contenders {
            let start = Instant::now();
            let setup = Setup::new(contender, settings, tier);
            let setup = Setup { seed, writes_trigger, extra_share, ..setup };
            let verdict = lab::run(&accesses, &setup)?;
            println!(
                "{:<28} {:<12} {:>7.1} {:>7.1} {:>7.1} {:>7.1} {:>9} {:>8} {:>8} {:>7} {:>7} {:>8.0}",
                file.file_name().unwrap_or_default().display(),
                contender,
                verdict.reduction_percent(),
                verdict.read_reduction_percent(),
                verdict.timely_percent(),
                verdict.extra_percent(),
                verdict.ledger.issued,
                verdict.ledger.misses,
                verdict.ghost_misses,
                verdict.rounds,
                verdict.installed,
                start.elapsed().as_secs_f64() * 1e9 / verdict.crossings.max(1) as f64,
            );
        }
    }
    Ok(())
}

fn parsed<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number in range"))
}
