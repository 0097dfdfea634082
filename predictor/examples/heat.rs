//! Judges the heat forecasters: `cargo run --release -p predictor --example heat
//! -- [--days 15] [--segments 96] [--seed 1] [TRACE…]`
//!
//! Each trace is forecast 5 minutes ahead, a synthetic load of some days one hour
//! ahead. Prints, for each forecaster, the pinball loss in requests per segment
//! and horizon, the same relative to the mean number of requests, the share of
//! the truly busiest tenth of the segments that it named, and its cost. All learn
//! online and are judged on what follows.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use predictor::Access;
use predictor::heat::synthetic::Load;
use predictor::heat::{
    Arrival, Forecast, ForecastError, Forecaster, ForecasterKind, HeatShape, Heatmap, HorizonBins,
    Segment, evaluate,
};
use predictor::trace;

/// Fragments of 1 MiB.
const FRAGMENT_SHIFT: u8 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    if !predictor::init() {
        eprintln!("candle is not limited to one thread: times will be longer");
    }
    let (mut days, mut segments, mut seed) = (15, 96, 1);
    let mut files = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--days" => days = parsed(&value()?)?,
            "--segments" => segments = parsed(&value()?)?,
            "--seed" => seed = parsed(&value()?)?,
            _ => files.push(PathBuf::from(argument)),
        }
    }
    println!(
        "{:<24} {:<7} {:<15} {:>6} {:>9} {:>8} {:>8} {:>14} {:>12}",
        "load",
        "horizon",
        "forecaster",
        "rounds",
        "pinball",
        "of mean",
        "recall",
        "ns/forecast",
        "ns/bin"
    );
    for file in files {
        let (shape, horizon) = HeatShape::five_minutes();
        let arrivals = arrivals(&file, shape)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        // The first half hour is not judged.
        table(&name, "5 min", &arrivals, shape, horizon, 60, seed)?;
    }
    let (shape, horizon) = HeatShape::one_hour();
    let load: Vec<Arrival> = Load::new(days, segments, seed).arrivals().collect();
    let day = shape.day_bins().ok_or("bins divide a day")?;
    table(&format!("synthetic, {days} days"), "1 h", &load, shape, horizon, day, seed)
}

/// The requests of a trace, one for each segment that they touch.
fn arrivals(file: &Path, shape: HeatShape) -> Result<Vec<Arrival>, Box<dyn Error>> {
    let mut arrivals = Vec::new();
    for record in trace::open(file)? {
        let access = Access::from_record(&record?, 0, FRAGMENT_SHIFT);
        if access.time_ns == 0 {
            return Err(format!("{} has no clock", file.display()).into());
        }
        let size = shape.segment_size();
        let (first, last) = (size.segment(access.fragment), size.segment(access.last_fragment));
        arrivals.extend((first.get()..=last.get()).map(|segment| Arrival {
            time_ns: access.time_ns,
            segment: Segment::new(segment),
            write: access.write,
            requests: 1,
        }));
    }
    Ok(arrivals)
}

fn table(
    load: &str,
    ahead: &str,
    arrivals: &[Arrival],
    shape: HeatShape,
    horizon: HorizonBins,
    warm_up_bins: u64,
    seed: u64,
) -> Result<(), Box<dyn Error>> {
    for kind in ForecasterKind::ALL {
        let mut timed = Timed::new(kind.build(shape, horizon, seed));
        let stride = horizon.get() / 2;
        let arrivals = arrivals.iter().copied();
        let scores = evaluate(arrivals, shape, &mut timed, warm_up_bins, stride)?;
        println!(
            "{load:<24} {ahead:<7} {kind:<15} {:>6} {:>9.3} {:>7.1}% {:>7.1}% {:>14} {:>12}",
            scores.rounds,
            scores.pinball,
            100.0 * scores.pinball / scores.requests.max(f64::MIN_POSITIVE),
            100.0 * scores.recall,
            timed.forecasts.mean_ns(),
            timed.updates.mean_ns(),
        );
    }
    Ok(())
}

/// Measures a forecaster.
struct Timed {
    inner: Box<dyn Forecaster>,
    updates: Clock,
    forecasts: Clock,
}

impl Timed {
    fn new(inner: Box<dyn Forecaster>) -> Self {
        Self { inner, updates: Clock::default(), forecasts: Clock::default() }
    }
}

impl Forecaster for Timed {
    fn kind(&self) -> ForecasterKind {
        self.inner.kind()
    }
    fn update(&mut self, heat: &Heatmap) -> Result<(), ForecastError> {
        self.updates.measure(|| self.inner.update(heat))
    }
    fn forecast(&mut self, heat: &Heatmap) -> Result<Forecast, ForecastError> {
        self.forecasts.measure(|| self.inner.forecast(heat))
    }
}

#[derive(Default)]
struct Clock {
    calls: u32,
    total: Duration,
}

impl Clock {
    fn measure<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let answer = call();
        self.total += start.elapsed();
        self.calls += 1;
        answer
    }

    fn mean_ns(&self) -> u128 {
        (self.total / self.calls.max(1)).as_nanos()
    }
}

fn parsed<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number in range"))
}
