//! What spilling by the heat forecast saves over spilling what was used least
//! recently: `cargo run --release -p predictor --example tiering -- [--days 6]
//! [--segments 64] [--tier 20] [--seed 1] [TRACE…]`
//!
//! A model of two tiers: fragments of 1 MiB in segments of 16 MiB, of which the
//! fast tier holds a part of all that are ever used, in per cent. A request to
//! another fragment is a cold read and brings it in, and the coldest of 256 that
//! are drawn from the fast tier goes. Traces are forecast 5 minutes ahead; the
//! synthetic days, whose requests go to the fragments of a segment with a skew,
//! one hour. Forecasters learn online, as a server's do. There is no staging ahead.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use predictor::Access;
use predictor::heat::synthetic::{Load, STEP_S};
use predictor::heat::worth::{SegmentHeat, step};
use predictor::heat::{Forecaster, ForecasterKind, Heatmap, Horizon, HorizonBins, Segment};
use predictor::trace;

const FRAGMENT_SHIFT: u8 = 20;
/// Fragments in a segment.
const FRAGMENTS: u16 = 16;
/// Fragments of which the coldest goes.
const SAMPLE: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    if !predictor::init() {
        return Err("this must start before any other thread".into());
    }
    let (mut days, mut segments, mut tier, mut seed) = (6, 64, 20, 1);
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--days" => days = parsed(&value()?)?,
            "--segments" => segments = parsed(&value()?)?,
            "--tier" => tier = parsed(&value()?)?,
            "--seed" => seed = parsed(&value()?)?,
            _ => files.push(PathBuf::from(argument)),
        }
    }
    println!(
        "{:<22} {:<7} {:>5} {:<15} {:>10} {:>10} {:>9}",
        "load", "horizon", "tier", "spilled by", "requests", "cold reads", "against"
    );
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        table(&name, &of_trace(&file)?, Horizon::FIVE_MINUTES, tier, seed)?;
    }
    let load = of_days(days, segments, seed);
    table(&format!("synthetic, {days} days"), &load, Horizon::ONE_HOUR, tier, seed)
}

/// When, and which fragment.
type Touch = (u64, u64);

fn of_trace(file: &Path) -> Result<Vec<Touch>, Box<dyn Error>> {
    let mut touches = Vec::new();
    for record in trace::open(file)? {
        let access = Access::from_record(&record?, 0, FRAGMENT_SHIFT);
        touches.extend((access.fragment..=access.last_fragment).map(|f| (access.time_ns, f)));
    }
    Ok(touches)
}

fn of_days(days: u64, segments: usize, seed: u64) -> Vec<Touch> {
    let mut draw = Draw(seed);
    let mut touches = Vec::new();
    for arrival in Load::new(days, segments, seed).arrivals() {
        for _ in 0..arrival.requests {
            // The smallest of two: the first fragments of a segment are the busiest.
            let within = draw.below(FRAGMENTS.into()).min(draw.below(FRAGMENTS.into()));
            // Arrivals are of a minute: anywhere in it.
            let time_ns = arrival.time_ns + draw.below(STEP_S * 1_000_000_000);
            touches.push((time_ns, arrival.segment.get() * u64::from(FRAGMENTS) + within));
        }
    }
    touches.sort_unstable();
    touches
}

fn table(
    load: &str,
    touches: &[Touch],
    horizon: Horizon,
    tier_percent: usize,
    seed: u64,
) -> Result<(), Box<dyn Error>> {
    let footprint = touches.iter().map(|touch| touch.1).collect::<HashSet<_>>().len();
    let room = (footprint * tier_percent / 100).max(1);
    let mut plain = 0;
    let kinds = ForecasterKind::ALL.into_iter().map(Some);
    for kind in std::iter::once(None).chain(kinds) {
        let mut forecast = kind.map(|kind| Ahead::new(kind, horizon, seed));
        let cold = Tiers::new(room, seed).run(touches, forecast.as_mut())?;
        plain = if kind.is_none() { cold } else { plain };
        let name = kind.map_or_else(|| "last use".to_owned(), |kind| kind.to_string());
        println!(
            "{load:<22} {horizon:<7} {tier_percent:>4}% {name:<15} {:>10} {cold:>10} {:>+8.1}%",
            touches.len(),
            100.0 * (cold as f64 / plain.max(1) as f64 - 1.0)
        );
    }
    Ok(())
}

/// What a server's core knows of heat.
struct Ahead {
    heat: Heatmap,
    horizon: HorizonBins,
    forecaster: Box<dyn Forecaster>,
    known: HashMap<u64, SegmentHeat>,
    since: HashMap<u64, u32>,
    made_ns: u64,
}

impl Ahead {
    fn new(kind: ForecasterKind, horizon: Horizon, seed: u64) -> Self {
        let (shape, bins) = horizon.shape();
        Self {
            heat: Heatmap::new(shape),
            horizon: bins,
            forecaster: kind.build(shape, bins, seed),
            known: HashMap::new(),
            since: HashMap::new(),
            made_ns: 0,
        }
    }

    fn see(&mut self, time_ns: u64, segment: u64) -> Result<(), Box<dyn Error>> {
        let open = self.heat.open();
        self.heat.record(time_ns, Segment::new(segment), false, 1);
        if self.heat.open() > open {
            self.since.clear();
            self.made_ns = time_ns;
            self.forecaster.update(&self.heat)?;
            let forecast = self.forecaster.forecast(&self.heat)?;
            let bins = self.heat.open().saturating_sub(self.horizon.get())..self.heat.open();
            self.known = forecast
                .segments()
                .iter()
                .enumerate()
                .map(|(row, said)| {
                    let recent = single(self.heat.sum(row, bins.clone()));
                    (said.segment.get(), SegmentHeat { expected: single(said.expected), recent })
                })
                .collect();
        }
        *self.since.entry(segment).or_default() += 1;
        Ok(())
    }

    /// Steps of what a fragment is worth that was last used so long ago.
    fn step(&self, fragment: u64, idle_ns: u64, now_ns: u64) -> u8 {
        let segment = fragment / u64::from(FRAGMENTS);
        let horizon_ns = self.horizon.get() * self.heat.shape().bin_ns();
        let part = |ns: u64| single(ns as f64 / horizon_ns as f64);
        let known = self.known.get(&segment).copied().unwrap_or_default();
        let since = single(self.since.get(&segment).copied().unwrap_or(0).into());
        let heat = known.seen(since, part(now_ns - self.made_ns));
        step(heat.worth(FRAGMENTS, part(idle_ns)))
    }
}

fn single(number: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "to the nearest number that there is")]
    let number = number as f32;
    number
}

/// The fast tier: fragments, and when each was last used.
struct Tiers {
    room: usize,
    fast: Vec<(u64, u64)>,
    places: HashMap<u64, usize>,
    draw: Draw,
}

impl Tiers {
    fn new(room: usize, seed: u64) -> Self {
        Self { room, fast: Vec::new(), places: HashMap::new(), draw: Draw(seed) }
    }

    /// Cold reads of a load.
    fn run(
        mut self,
        touches: &[Touch],
        mut ahead: Option<&mut Ahead>,
    ) -> Result<u64, Box<dyn Error>> {
        let mut cold = 0;
        for (now_ns, fragment) in touches {
            if let Some(ahead) = &mut ahead {
                ahead.see(*now_ns, fragment / u64::from(FRAGMENTS))?;
            }
            if let Some(place) = self.places.get(fragment) {
                self.fast[*place].1 = *now_ns;
                continue;
            }
            cold += 1;
            if self.fast.len() == self.room {
                self.spill(*now_ns, ahead.as_deref());
            }
            self.places.insert(*fragment, self.fast.len());
            self.fast.push((*fragment, *now_ns));
        }
        Ok(cold)
    }

    fn spill(&mut self, now_ns: u64, ahead: Option<&Ahead>) {
        let mut coldest = None;
        for at in 0..SAMPLE.min(self.fast.len()) {
            let all = self.fast.len() <= SAMPLE;
            let place = if all { at } else { self.draw.index(self.fast.len()) };
            let (fragment, last_use) = self.fast[place];
            let step = ahead.map_or(0, |a| a.step(fragment, now_ns - last_use, now_ns));
            let this = (step, last_use, place);
            coldest = Some(coldest.map_or(this, |other| this.min(other)));
        }
        let (.., place) = coldest.expect("the tier is full");
        let (gone, _) = self.fast.swap_remove(place);
        self.places.remove(&gone);
        if let Some((moved, _)) = self.fast.get(place) {
            self.places.insert(*moved, place);
        }
    }
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }
}

fn parsed<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number in range"))
}
