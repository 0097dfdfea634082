//! A synthetic load with known truth: days, weeks, moving hot spots.
//!
//! Real traces of a week are rarely at hand, and none tells what it would have
//! been without noise. Here each segment has a [`Label`] that says what drives
//! it, and [`Load::mean_per_s`] is the rate that requests were drawn from: as far
//! as anybody could know it. Requests are Poisson around that rate times a slow
//! lognormal disturbance of each segment. It resembles no particular machine.
#![forbid(unsafe_code)]

use std::f64::consts::TAU;

use super::{Arrival, Segment};
use crate::random::Random;

/// Arrivals are drawn for spans of this length.
pub const STEP_S: u64 = 60;
const DAY_S: u64 = 86_400;
/// How long the moving hot spot stays.
const STAY_S: u64 = 4 * 3600;
/// Segments of the hot spot.
const SPOT: u64 = 4;

/// What drives a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// A few requests, always.
    Idle,
    /// The same rate, always.
    Steady,
    /// Busy from 8 to 18 o'clock on the five working days.
    Office,
    /// Busy in the evening, more so at the weekend.
    Evening,
    /// A batch of 90 minutes every night at a time of its own.
    Batch,
    /// A batch of 6 hours once a week.
    Weekly,
    /// Idle but for the hot spot, which stays four hours in a place and moves on.
    Zone,
}

/// A seeded load of a volume.
#[derive(Clone, Debug)]
pub struct Load {
    days: u64,
    seed: u64,
    labels: Vec<Label>,
    /// Of each segment, how busy it is beside others of its label.
    sizes: Vec<f64>,
}

impl Load {
    /// A load of so many days, from a Monday's midnight, on so many segments.
    pub fn new(days: u64, segments: usize, seed: u64) -> Self {
        use Label::{Batch, Evening, Idle, Office, Steady, Weekly, Zone};
        let mut random = Random::new(seed);
        let mut draw = |_| match random.below(16) {
            0..5 => Idle,
            5..6 => Steady,
            6..9 => Office,
            9..10 => Evening,
            10..12 => Batch,
            12..13 => Weekly,
            _ => Zone,
        };
        let labels: Vec<Label> = (0..segments).map(&mut draw).collect();
        let sizes = labels.iter().map(|_| (0.8 * random.normal()).exp().min(8.0)).collect();
        Self { days, seed, labels, sizes }
    }

    /// What drives each segment.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// The rate of a segment at a time, in requests per second, before noise.
    ///
    /// # Panics
    /// If there is no such segment.
    pub fn mean_per_s(&self, segment: usize, time_s: u64) -> f64 {
        let day = time_s / DAY_S % 7;
        let hour = (time_s % DAY_S) as f64 / 3600.0;
        let weekend = day >= 5;
        // A bell of the day, 0 to 1, around an hour.
        let bell =
            |centre: f64, sharp: f64| (sharp * ((TAU * (hour - centre) / 24.0).cos() - 1.0)).exp();
        let number = segment as u64;
        let busy = match self.labels[segment] {
            Label::Idle => 0.0,
            Label::Steady => 0.3,
            Label::Office => bell(13.0, 3.0) * if weekend { 0.05 } else { 1.0 },
            Label::Evening => bell(20.5, 5.0) * if weekend { 1.2 } else { 0.5 },
            Label::Batch => {
                let start = (number * 37 % 24) as f64 / 4.0;
                if (start..start + 1.5).contains(&hour) { 1.5 } else { 0.0 }
            }
            Label::Weekly => {
                let start = (number * 5 % 18) as f64;
                let today = number % 7 == day;
                if today && (start..start + 6.0).contains(&hour) { 1.5 } else { 0.0 }
            }
            Label::Zone => self.spot(number, time_s),
        };
        0.003 + 0.6 * busy * self.sizes[segment]
    }

    /// The hot spot goes from place to place in an order that looks random, by a
    /// stride through all places; nearer segments get more of it.
    fn spot(&self, segment: u64, time_s: u64) -> f64 {
        let places = self.labels.len() as u64 / SPOT;
        let place = (time_s / STAY_S).wrapping_mul(7).wrapping_add(self.seed) % places.max(1);
        if segment / SPOT == place { 2.0 } else { 0.0 }
    }

    /// The arrivals in the order of time.
    pub fn arrivals(&self) -> impl Iterator<Item = Arrival> {
        let mut random = Random::new(self.seed ^ 0x5eed);
        let mut disturbed = vec![0.0_f64; self.labels.len()];
        let steps = (0..self.days * DAY_S / STEP_S).map(|step| step * STEP_S);
        steps.flat_map(move |time_s| {
            let mut arrivals = Vec::new();
            for (segment, disturbance) in disturbed.iter_mut().enumerate() {
                // Forgets by half in about an hour; deviation 0.4.
                *disturbance = 0.99 * *disturbance + 0.056 * random.normal();
                let rate = self.mean_per_s(segment, time_s) * disturbance.exp();
                let requests = random.poisson(rate * STEP_S as f64);
                if requests > 0 {
                    let time_ns = time_s * 1_000_000_000;
                    let write = random.below(3) == 0;
                    let segment = Segment::new(segment as u64);
                    arrivals.push(Arrival { time_ns, segment, write, requests });
                }
            }
            arrivals
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_loads() {
        let load = |seed| Load::new(1, 32, seed).arrivals().take(2000).collect::<Vec<_>>();
        assert_eq!(load(1), load(1));
        assert_ne!(load(1), load(2));
    }

    #[test]
    fn requests_follow_the_known_rates() {
        let load = Load::new(7, 64, 3);
        let mut counted = [0.0; 64];
        let mut last = 0;
        for arrival in load.arrivals() {
            assert!(arrival.time_ns >= last);
            last = arrival.time_ns;
            counted[usize::try_from(arrival.segment.get()).unwrap()] += f64::from(arrival.requests);
        }
        for (segment, label) in load.labels().iter().enumerate() {
            let rates = (0..7 * DAY_S / STEP_S).map(|step| load.mean_per_s(segment, step * STEP_S));
            // The mean of the disturbance is e^0.08; batches see few of its swings.
            let mean = rates.sum::<f64>() * STEP_S as f64 * 0.08_f64.exp();
            assert!((0.5..1.8).contains(&(counted[segment] / mean)), "{label:?}");
        }
    }

    #[test]
    fn labels_mean_what_they_say() {
        let load = Load::new(7, 128, 3);
        let of = |label| load.labels().iter().position(|l| *l == label).unwrap();
        let at = |label, day: u64, hour: u64| load.mean_per_s(of(label), day * DAY_S + hour * 3600);
        assert!(at(Label::Office, 1, 13) > 10.0 * at(Label::Office, 1, 2));
        assert!(at(Label::Office, 1, 13) > 10.0 * at(Label::Office, 6, 13));
        assert!(at(Label::Evening, 6, 20) > at(Label::Evening, 1, 20));
        assert_eq!(at(Label::Steady, 0, 0), at(Label::Steady, 3, 17));
    }
}
