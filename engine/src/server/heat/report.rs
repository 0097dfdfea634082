//! What is said of a volume's heat.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use predictor::heat::{Heatmap, Segment};

use super::follow::{Followed, Follower, segments_of};
use crate::admin::heat::{HeatMapReport, HeatReport, SegmentReport};
use crate::tier::heat::HeatCounts;
use crate::units::{SEGMENT_BYTES, VolumeId};

/// Rows and columns of a map at most.
const MAP_ROWS: u64 = 96;
const MAP_COLUMNS: u64 = 240;

/// Reads and writes by segment since the last bin was closed.
type Open = BTreeMap<u64, (u64, u64)>;

/// A report of a volume; `open` is what the cores have counted since.
pub(super) fn of(
    follower: &Follower,
    volume: VolumeId,
    size_bytes: u64,
    open: &[HeatCounts],
    now_ns: u64,
    map: bool,
) -> HeatReport {
    let settings = follower.settings();
    let mut report = HeatReport {
        size_bytes,
        segment_bytes: SEGMENT_BYTES,
        forecaster: settings.forecaster,
        horizon: settings.horizon,
        bin_s: follower.bin_ns() / 1_000_000_000,
        lost: follower.lost + open.iter().map(HeatCounts::lost).sum::<u64>(),
        ..HeatReport::default()
    };
    let fresh = open.iter().flat_map(HeatCounts::iter).filter(|seen| seen.volume == volume);
    let mut since = Open::new();
    for seen in fresh {
        let counts = since.entry(seen.segment.into()).or_default();
        counts.0 += u64::from(seen.reads);
        counts.1 += u64::from(seen.writes);
    }
    let Some(followed) = follower.volume(volume) else {
        // No bin of it has closed yet.
        let recent_s = now_ns % follower.bin_ns() / 1_000_000_000;
        report.recent_s = recent_s.max(1);
        report.segments = since.iter().map(|(s, c)| segment(*s, *c, report.recent_s)).collect();
        let mut heat = Heatmap::new(settings.horizon.shape().0);
        heat.advance(now_ns);
        report.map = (map && !since.is_empty()).then(|| map_of(&heat, size_bytes, &since));
        return report;
    };
    fill(&mut report, followed, &since, now_ns);
    report.map = map.then(|| map_of(&followed.heat, size_bytes, &since));
    report
}

fn segment(number: u64, (reads, writes): (u64, u64), seconds: u64) -> SegmentReport {
    SegmentReport {
        offset_bytes: number.saturating_mul(SEGMENT_BYTES),
        reads,
        writes,
        per_s: (reads + writes) as f64 / seconds.max(1) as f64,
        ..SegmentReport::default()
    }
}

/// The segments of late and to come.
fn fill(report: &mut HeatReport, followed: &Followed, since: &Open, now_ns: u64) {
    let Followed { heat, forecast, chosen, .. } = followed;
    (report.chosen, report.bins) = (*chosen, heat.closed_bins());
    let horizon_bins = report.horizon.shape().1.get();
    let first = heat.open().saturating_sub(horizon_bins).max(heat.oldest());
    let closed_s = (heat.open() - first) * report.bin_s;
    let open_s = now_ns.saturating_sub(heat.open() * heat.shape().bin_ns()) / 1_000_000_000;
    report.recent_s = (closed_s + open_s).max(1);
    let mut found: BTreeMap<u64, SegmentReport> = BTreeMap::new();
    for row in 0..heat.rows() {
        let number = heat.segment(row).get();
        let bins = || (first..=heat.open()).map(|bin| heat.counts(row, bin));
        let mut counts = since.get(&number).copied().unwrap_or_default();
        counts.0 += bins().map(|c| u64::from(c.reads)).sum::<u64>();
        counts.1 += bins().map(|c| u64::from(c.writes)).sum::<u64>();
        found.insert(number, segment(number, counts, report.recent_s));
    }
    for (number, counts) in since {
        found.entry(*number).or_insert_with(|| segment(*number, *counts, report.recent_s));
    }
    if let Some(forecast) = forecast {
        let horizon_s = f64::from(report.horizon.seconds());
        let all = forecast.segments().iter().zip(forecast.probabilities());
        for (known, (of, probability)) in all {
            let said = found.entry(of.get()).or_insert_with(|| segment(of.get(), (0, 0), 1));
            said.expected_per_s = known.expected / horizon_s;
            said.quantiles_per_s = known.quantiles.map(|requests| requests / horizon_s);
            said.probability = probability;
        }
    }
    report.other = found.remove(&Segment::REST.get()).unwrap_or_default();
    report.other.offset_bytes = 0;
    let idle = |s: &SegmentReport| s.reads + s.writes == 0 && s.expected_per_s == 0.0;
    report.segments = found.into_values().filter(|segment| !idle(segment)).collect();
}

/// The volume's counts over time, from the first segment that had requests to the last.
fn map_of(heat: &Heatmap, size_bytes: u64, since: &Open) -> HeatMapReport {
    let known = (1..heat.rows()).map(|row| heat.segment(row).get());
    let all: Vec<u64> = known.chain(since.keys().copied()).collect();
    let last = segments_of(size_bytes).saturating_sub(1);
    let (low, high) = (all.iter().min().copied(), all.iter().max().copied());
    let (low, high) = (low.unwrap_or(0).min(last), high.unwrap_or(last).min(last));
    let per_row = (high - low + 1).div_ceil(MAP_ROWS);
    let per_column = (heat.closed_bins() + 1).div_ceil(MAP_COLUMNS);
    let count = |of: u64, each: u64| usize::try_from(of.div_ceil(each)).expect("at most 240");
    let columns = count(heat.closed_bins() + 1, per_column);
    let mut rows = vec![vec![0; columns]; count(high - low + 1, per_row)];
    let mut add = |segment: u64, bin: u64, requests: u64| {
        if (low..=high).contains(&segment) {
            let row = usize::try_from((segment - low) / per_row).expect("a row");
            let column = usize::try_from((bin - heat.oldest()) / per_column).expect("a column");
            rows[row][column] += requests;
        }
    };
    for row in 1..heat.rows() {
        for bin in heat.oldest()..=heat.open() {
            let counts = heat.counts(row, bin);
            add(heat.segment(row).get(), bin, u64::from(counts.reads) + u64::from(counts.writes));
        }
    }
    since.iter().for_each(|(segment, (reads, writes))| add(*segment, heat.open(), reads + writes));
    let bin_s = heat.shape().bin_ns() / 1_000_000_000;
    HeatMapReport {
        start_unix_s: heat.oldest() * bin_s,
        column_s: per_column * bin_s,
        offset_bytes: low * SEGMENT_BYTES,
        row_bytes: per_row * SEGMENT_BYTES,
        rows,
    }
}
