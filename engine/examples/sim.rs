//! Runs the simulator: `cargo xtask sim --seeds N`.
//!
//! Half of the seeds are the numbers from 0, half are fresh each run: `--from`
//! repeats those. A run that fails is shrunk, told, and printed as the options
//! that repeat it; `--trace` then tells all of it.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engine::sim::campaign::{attempt, catch_panics, run_all};
use engine::sim::shrink::{Failed, shrink};
use engine::sim::{Plan, Trace};

/// Longest time spent on making a failing run smaller.
const SHRINKING: Duration = Duration::from_secs(60);
/// Events told of a failing run.
const EVENTS: usize = 60;

const USAGE: &str = "\
sim [--seeds N] [--from F] [--jobs J]    N/2 seeds from 0 and N/2 from F (default: fresh ones)
sim --seed S [--trace] [limits]          one run, as a failure printed it
limits: --lives N --steps N --cores N --clients N --depth N --regime NAME --without FAULT,FAULT";

struct Options {
    seeds: u64,
    from: Option<u64>,
    jobs: usize,
    one: Option<Plan>,
    trace: bool,
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options { seeds: 100, from: None, jobs, one: None, trace: false };
    while let Some(name) = args.next() {
        if name == "--trace" {
            options.trace = true;
            continue;
        }
        let value = args.next().ok_or(format!("{name} takes a value"))?;
        let wrong = || format!("{name} does not take {value:?}");
        let number = || value.parse::<u64>().map_err(|_| wrong());
        match (name.as_str(), &mut options.one) {
            ("--seeds", _) => options.seeds = number()?,
            ("--from", _) => options.from = Some(number()?),
            ("--jobs", _) => options.jobs = value.parse().map_err(|_| wrong())?,
            ("--seed", one) => *one = Some(Plan::of(number()?)),
            (_, Some(plan)) => {
                if !plan.set(&name, &value) {
                    return Err(wrong());
                }
            }
            (_, None) => return Err(format!("{name} is unknown, or comes before --seed")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    catch_panics();
    match &options.one {
        Some(plan) => one(plan, options.trace),
        None => many(&options),
    }
}

fn many(options: &Options) -> ExitCode {
    let from = options.from.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        u64::try_from(since.as_millis()).expect("in the near future") << 20
    });
    let old = options.seeds.div_ceil(2);
    println!("{old} seeds from 0 and {} from {from} (again: --from {from})", options.seeds - old);
    let seeds: Vec<u64> = (0..old).chain(from..from + options.seeds - old).collect();
    let started = Instant::now();
    match run_all(&seeds, options.jobs.max(1)) {
        Ok(outcome) => {
            println!("{outcome:#?}");
            let (took, count) = (started.elapsed().as_secs_f64(), options.seeds);
            println!("{count} seeds in {took:.1} s, {} jobs: no promise broken", options.jobs);
            ExitCode::SUCCESS
        }
        Err(failed) => {
            let took = started.elapsed().as_secs_f64();
            println!("after {took:.1} s, seed {} fails: {}", failed.plan.seed, failed.broken);
            println!("repeat it with: cargo xtask sim {}", failed.plan);
            let small = shrink(*failed, SHRINKING);
            tell(&small);
            println!("repeat the smaller run with: cargo xtask sim {} [--trace]", small.plan);
            ExitCode::FAILURE
        }
    }
}

/// The last of the history of a failing run.
fn tell(failed: &Failed) {
    let trace = Trace::kept();
    let (result, steps) = attempt(&failed.plan, &trace);
    println!("\nhistory of the shrunk run, {steps} steps, of what it is about:");
    for line in trace.touching(failed.broken.sectors(), EVENTS) {
        println!("{line}");
    }
    match result {
        Ok(_) => println!("the run is not exact: made again, it does not fail"),
        Err(broken) => println!("         {broken}\n"),
    }
}

fn one(plan: &Plan, all: bool) -> ExitCode {
    let trace = if all { Trace::kept() } else { Trace::default() };
    let (result, steps) = attempt(plan, &trace);
    for line in trace.all() {
        println!("{line}");
    }
    match result {
        Ok(outcome) => {
            println!("{outcome:#?}\nno promise broken");
            ExitCode::SUCCESS
        }
        Err(broken) => {
            if !all {
                tell(&Failed { plan: plan.clone(), broken: broken.clone(), steps });
            }
            println!("after {steps} steps: {broken}");
            ExitCode::FAILURE
        }
    }
}
