//! What prediction costs: `cargo run --release -p predictor --example cost`.
//!
//! Prints nanoseconds for one `observe` with and without a crossing, and for a crossing of the
//! learned predictor, its learning included: where all fragments are near, and where all are
//! cold, without a tower and with one; of traces too, whose files are the arguments.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use predictor::Access;
use predictor::deep::Trainer;
use predictor::ledger::Lru;
use predictor::online::{Answer, Met, Predictor};
use predictor::prefetch::{Predictions, PrefetchKind, Prefetcher, Settings};
use predictor::trace;

/// Calls in a batch, and batches of which the fastest counts: others are disturbed.
const CALLS: u64 = 500;
const BATCHES: u64 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::default();
    for depth in [1, 4, 8, 16] {
        let settings = Settings { prefetch_depth: depth, ..settings };
        for kind in [PrefetchKind::None, PrefetchKind::Readahead] {
            let mut prefetcher = Prefetcher::new(kind, settings)?;
            let same = measure(&mut prefetcher, |_| 5);
            let cross = measure(&mut prefetcher, |i| i * 3);
            let random = measure(&mut prefetcher, |i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24);
            println!(
                "depth {depth:>2} {kind:<9} ns per observe: same fragment {:>6.1}, step of a walk \
                 {:>7.1} ({:.2} proposals), random {:>7.1} ({:.2} proposals)",
                same.0, cross.0, cross.1, random.0, random.1
            );
        }
    }
    let walk = (0..200_000).map(|i| read(i / 2 * 8 + i % 2 * 7, i));
    learned("a walk", &walk.collect::<Vec<_>>())?;
    let random = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    learned("random", &(0..200_000).map(|i| read(random(i), i)).collect::<Vec<_>>())?;
    for file in std::env::args().skip(1) {
        let records = trace::open(file.as_ref())?.collect::<Result<Vec<_>, _>>()?;
        let of = |record| Access::from_record(record, 0, settings.fragment_shift);
        learned(&file, &records.iter().map(of).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Where the fragments lie, and whether a tower is at work.
#[derive(Clone, Copy)]
enum Case {
    Near,
    Cold,
    ColdWithTower,
}

fn learned(name: &str, accesses: &[Access]) -> Result<(), Box<dyn std::error::Error>> {
    let mut told = String::new();
    for (case, what) in [
        (Case::Near, "near"),
        (Case::Cold, "cold, without tower"),
        (Case::ColdWithTower, "cold, with tower"),
    ] {
        let mut fastest = f64::MAX;
        for _ in 0..3 {
            fastest = fastest.min(crossing_ns(case, accesses)?);
        }
        told += &format!(" {what} {fastest:>7.1}");
    }
    println!("learned   ns per crossing:{told} of {name}");
    Ok(())
}

/// Nanoseconds for a crossing of the learned predictor, its learning included. Only its own
/// time counts; the clock's is within it.
fn crossing_ns(case: Case, accesses: &[Access]) -> Result<f64, Box<dyn std::error::Error>> {
    let mut predictor = Predictor::new(Settings::default(), 2048)?;
    if let Case::ColdWithTower = case {
        // What it says does not matter here, nor what it has learned.
        predictor.install(Arc::clone(Trainer::new(1)?.model()), true);
    }
    let mut tier = Lru::new(2048);
    let mut spent = Duration::ZERO;
    let mut crossings = 0;
    for access in accesses {
        for fragment in access.fragment..=access.last_fragment {
            let there = tier
                .insert((access.volume, fragment), ())
                .is_some_and(|(old, ())| old == (access.volume, fragment));
            let met = match case {
                Case::Near => Met::Near,
                _ if there => Met::Staged,
                _ => Met::Fetched,
            };
            let mut stages = [(0, 0); 16];
            let mut count = 0;
            let start = Instant::now();
            let crossed = predictor.touch(
                1,
                black_box(access),
                fragment,
                || access.time_ns,
                |volume, stage| {
                    stages[count] = (volume, stage);
                    count += 1;
                },
            );
            predictor.settled(|crossing| {
                black_box(*crossing);
                true
            });
            predictor.met(access.volume, fragment..=fragment, met, true);
            for (volume, stage) in &stages[..count] {
                if let Case::Near = case {
                    predictor.answered(*volume, *stage, Answer::Needless);
                }
            }
            spent += start.elapsed();
            crossings += u32::from(crossed.is_some());
            for stage in &stages[..count] {
                tier.insert(*stage, ());
            }
        }
    }
    Ok(spent.as_nanos() as f64 / f64::from(crossings))
}

fn read(fragment: u64, millisecond: u64) -> Access {
    let time_ns = (millisecond + 1) * 1_000_000;
    Access { time_ns, fragment, last_fragment: fragment, ..Access::default() }
}

/// Nanoseconds and proposals of one call over a pattern of fragments.
fn measure(prefetcher: &mut Prefetcher, fragment: impl Fn(u64) -> u64) -> (f64, f64) {
    let mut out = Predictions::new();
    let mut proposals = 0;
    let mut fastest = f64::MAX;
    for batch in 0..BATCHES {
        let start = Instant::now();
        for i in batch * CALLS..(batch + 1) * CALLS {
            prefetcher.observe(black_box(&read(fragment(i), i)), &mut out);
            proposals += out.as_slice().len();
        }
        fastest = fastest.min(start.elapsed().as_nanos() as f64);
    }
    (fastest / CALLS as f64, proposals as f64 / (BATCHES * CALLS) as f64)
}
