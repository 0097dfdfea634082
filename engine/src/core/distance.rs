//! How far apart two CPUs are: the time a cache line takes there and back.
//!
//! Hypervisors place virtual CPUs near or far from each other, and move them; every
//! figure of two cores depends on it, so it is measured beside them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::cpus::keep_this_thread_on;

/// Round trips of one sample.
const ROUND_TRIPS: u32 = 20_000;
/// Samples, of which the median counts.
const SAMPLES: usize = 5;

/// Nanoseconds for a cache line to go from CPU `a` to CPU `b` and back; `None` if this
/// process may not run on both.
pub fn cache_line_round_trip_ns(a: usize, b: usize) -> Option<f64> {
    let mut samples: Vec<f64> = (0..SAMPLES).map(|_| sample(a, b)).collect::<Option<_>>()?;
    samples.sort_by(f64::total_cmp);
    Some(samples[SAMPLES / 2])
}

fn sample(a: usize, b: usize) -> Option<f64> {
    let ball = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let there = keep_this_thread_on(&[b]);
            for turn in 0..ROUND_TRIPS {
                wait_for(&ball, 2 * turn + 1);
                ball.store(2 * turn + 2, Ordering::Release);
            }
            there
        });
        let own = scope.spawn(|| {
            let there = keep_this_thread_on(&[a]);
            // The first round trip waits for the other thread to start.
            ball.store(1, Ordering::Release);
            wait_for(&ball, 2);
            let began = Instant::now();
            for turn in 1..ROUND_TRIPS {
                ball.store(2 * turn + 1, Ordering::Release);
                wait_for(&ball, 2 * turn + 2);
            }
            let ns = began.elapsed().as_secs_f64() * 1e9 / f64::from(ROUND_TRIPS - 1);
            there.then_some(ns)
        });
        let (ns, there) = (own.join().ok()??, other.join().ok()?);
        there.then_some(ns)
    })
}

fn wait_for(ball: &AtomicU32, value: u32) {
    while ball.load(Ordering::Acquire) != value {
        std::hint::spin_loop();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::core::cpus::allowed_cpus;

    #[test]
    fn a_line_travels_between_cpus_that_are_ours() {
        if let [a, b, ..] = allowed_cpus()[..] {
            assert!(cache_line_round_trip_ns(a, b).is_some_and(|ns| ns > 1.0));
        } else {
            println!("skipped: a single CPU");
        }
    }
}
