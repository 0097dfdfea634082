//! What the deep half of the ranker costs: `cargo run --profile ci -p predictor --example deep`.
//!
//! Prints nanoseconds for a step of the encoder, for the view that the candidates are met
//! with, and for a candidate, each with its inputs' rows found anew, and milliseconds for a
//! round of training.

use std::hint::black_box;
use std::time::Instant;

use predictor::deep::{CANDIDATES, Candidate, Context, Model, Replay, State, Trainer, Window};

/// Calls in a batch, and batches of which the fastest counts: others are disturbed.
const CALLS: u32 = 256;
const BATCHES: u32 = 400;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if !predictor::init() {
        eprintln!("candle is not limited to one thread: times will be longer");
    }
    let mut trainer = Trainer::new(1)?;
    let model = Model::clone(trainer.model());
    println!(
        "{} KiB of weights, {} KiB of waiting crossings, {} KiB to learn from",
        Model::BYTES >> 10,
        Window::BYTES >> 10,
        Replay::BYTES >> 10
    );
    let contexts: Vec<Context> = (0..CALLS).map(context).collect();
    let candidates: Vec<Candidate> = (0..CALLS).map(candidate).collect();

    let mut state = State::NONE;
    let step = fastest(&contexts, |context| model.step(&mut state, &black_box(context).rows()));
    let view = fastest(&contexts, |_| {
        black_box(model.view(black_box(&state)));
    });
    let met = model.view(&state);
    let odds = fastest(&candidates, |candidate| {
        black_box(model.odds(&met, &black_box(candidate).rows(&contexts[0])));
    });
    println!("a step {step:.0} ns, a view {view:.0} ns, a candidate {odds:.0} ns");
    println!("{CANDIDATES} candidates: {:.0} ns", step + view + odds * CANDIDATES as f64);

    let mut window = Window::new();
    let mut rounds = Vec::new();
    while rounds.len() < 8 {
        for (now, context) in (0..).zip(&contexts) {
            window.open(1, now, context.rows(), state);
            for candidate in &candidates[..CANDIDATES] {
                let tag = window.add(candidate.rows(context));
                if now.is_multiple_of(3) {
                    window.came(tag);
                }
            }
            let crossing = window.settled(now + 1).ok_or("nothing waits")?;
            if trainer.push(crossing) {
                let start = Instant::now();
                trainer.round()?;
                rounds.push(start.elapsed());
            }
        }
    }
    println!("a round of training {:.1} ms", fastest_ms(&rounds));
    Ok(())
}

fn fastest<T>(items: &[T], mut call: impl FnMut(&T)) -> f64 {
    let mut fastest = f64::MAX;
    for _ in 0..BATCHES {
        let start = Instant::now();
        items.iter().for_each(&mut call);
        fastest = fastest.min(start.elapsed().as_nanos() as f64);
    }
    fastest / items.len() as f64
}

fn fastest_ms(rounds: &[std::time::Duration]) -> f64 {
    rounds.iter().min().map_or(f64::NAN, |least| least.as_secs_f64() * 1e3)
}

/// Inputs spread over all rows.
fn spread(n: u32, below: usize) -> usize {
    n.wrapping_mul(0x9e37_79b9) as usize % below
}

fn context(n: u32) -> Context {
    Context {
        jump: Some(i64::from(n % 97) - 48),
        step: i64::from(n % 31) - 15,
        run: n % 9,
        write: n.is_multiple_of(2),
        arrival: spread(n, 4),
        entry: spread(n, 8),
        size_bytes: n << 12,
        gap_ns: u64::from(n) << (n % 30),
        dwelt: spread(n, 16),
        requests: spread(n, 8),
        recency: spread(n, 34),
        visits: spread(n, 13),
        foreseen: Some((spread(n, 12), 0.5)),
        pace: spread(n, 32),
        next_total: spread(n, 8),
    }
}

fn candidate(n: u32) -> Candidate {
    Candidate {
        sources: u16::try_from(n % 512).unwrap_or(0),
        distance: Some(i64::from(n % 97) - 48),
        steps: spread(n, 16),
        next: spread(n, 12),
        pair: spread(n + 1, 12),
        near: spread(n + 2, 12),
        votes: spread(n + 3, 12),
        recency: spread(n, 34),
        visits: spread(n, 13),
        rates: [1, 2, 3, 4, 5].map(|k| spread(n * k, 76)),
        replay: spread(n, 72),
        around: spread(n, 16),
        below: spread(n, 22),
        written: n.is_multiple_of(3),
    }
}
