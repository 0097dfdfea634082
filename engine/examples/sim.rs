//! Runs the simulator: `cargo run --profile ci -p engine --features sim --example sim -- --seeds N`.
//!
//! Half of the seeds are the numbers from 0, half are fresh each run. A failing
//! seed is printed and can be repeated with `--seed S`.

use std::time::{SystemTime, UNIX_EPOCH};

use engine::sim::{Outcome, run};

const EPISODES: u64 = 6;

fn option(name: &str) -> Option<u64> {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    let value = args.next()?;
    Some(value.parse().unwrap_or_else(|_| {
        eprintln!("{name} takes a number, not {value:?}");
        std::process::exit(2)
    }))
}

fn one(seed: u64, totals: &mut Outcome) {
    let outcome = std::panic::catch_unwind(|| run(seed, EPISODES));
    match outcome {
        Ok(Ok(outcome)) => totals.add(&outcome),
        Ok(Err(violation)) => fail(seed, &violation.to_string()),
        Err(_) => fail(seed, "an invariant broke"),
    }
}

fn fail(seed: u64, what: &str) -> ! {
    println!("seed {seed}: {what}");
    println!("repeat it with: cargo xtask sim --seed {seed}");
    std::process::exit(1)
}

fn main() {
    let mut totals = Outcome::default();
    if let Some(seed) = option("--seed") {
        one(seed, &mut totals);
    } else {
        let seeds = option("--seeds").unwrap_or(100);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        let fresh = u64::try_from(since.as_micros()).expect("before 2554") << 16;
        println!("seeds 0 to {} and from {fresh}", seeds.div_ceil(2) - 1);
        for seed in 0..seeds.div_ceil(2) {
            one(seed, &mut totals);
        }
        for seed in 0..seeds / 2 {
            one(fresh + seed, &mut totals);
        }
    }
    println!("{totals:#?}");
    println!("no promise broken");
}
