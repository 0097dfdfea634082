//! What prediction costs: `cargo run --release -p predictor --example cost`.
//!
//! Prints nanoseconds for one `observe` with and without a crossing, and the
//! time of one round of training.

use std::hint::black_box;
use std::time::Instant;

use predictor::Access;
use predictor::lstm::{Budget, Trainer};
use predictor::prefetch::{Predictions, PrefetchKind, Prefetcher, Settings};

/// Calls in a batch, and batches of which the fastest counts: others are disturbed.
const CALLS: u64 = 500;
const BATCHES: u64 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if !predictor::init() {
        eprintln!("candle is not limited to one thread: times will be longer");
    }
    let settings = Settings::default();
    let mut trainer = Trainer::new(settings, 1)?;
    // Walks of alternating steps, ±1 and ±1 to ±31, fill the vocabulary.
    for stream in 0..400_u64 {
        let stride = stream % 31 + 1;
        let place = |i: u64| (1 << 50) + (stream << 32) + i / 2 * (stride + 1) + i % 2 * stride;
        let walk = (0..40).map(|i| read(place(if stream % 2 == 0 { i } else { 40 - i }), i));
        trainer.push(&walk.collect::<Vec<_>>());
    }
    trainer.train(Budget { steps: 1500 })?;
    let start = Instant::now();
    let report = trainer.train(Budget::default())?;
    let took = start.elapsed();
    println!("round of {} steps on {} crossings: {took:?}", report.steps, report.crossings);
    let weights = trainer.installed().cloned().ok_or("the training produced no weights")?;
    println!("{} parameters, {} classes", weights.parameters(), weights.vocabulary().classes());

    for depth in [1, 4, 8, 16] {
        let settings = Settings { prefetch_depth: depth, ..settings };
        for kind in PrefetchKind::ALL {
            let mut prefetcher = Prefetcher::new(kind, settings)?;
            prefetcher.install(weights.clone());
            let same = measure(&mut prefetcher, |_| 5);
            let cross = measure(&mut prefetcher, |i| i / 2 * 8 + i % 2 * 7);
            let random = measure(&mut prefetcher, |i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24);
            println!(
                "depth {depth:>2} {kind:<9} ns per observe: same fragment {:>6.1}, foreseen crossing \
                 {:>7.1} ({:.2} proposals), random {:>7.1} ({:.2} proposals)",
                same.0, cross.0, cross.1, random.0, random.1
            );
        }
    }
    Ok(())
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
