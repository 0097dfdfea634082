//! The laboratory's report: a line for each trace and prefetcher.

use std::fmt::{self, Display};

use predictor::lab::{Contender, Model, Run, Waits};
use serde::Serialize;

use super::{Conditions, Runs, Trace};
use crate::table::{Align, Table};

/// One prefetcher on one trace. What needs a clock is absent where the trace has none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The trace's file, as given.
    pub trace: String,
    /// The prefetcher.
    pub prefetch: String,
    /// Bytes of a fragment.
    pub fragment_size: u64,
    /// The fast tier as asked for.
    pub fast_tier: String,
    /// The same in bytes.
    pub fast_tier_bytes: u64,
    /// Extra traffic that the learned prefetcher may cause, in %.
    pub budget_pct: f64,
    /// The requests came in a random order.
    pub shuffled: bool,
    /// Writes triggered stages.
    pub writes_trigger: bool,
    /// Only reads missed, counted and were foreseen.
    pub writes_free: bool,
    /// Judged as on a server.
    pub served: bool,
    /// Seed of models and order.
    pub seed: u64,
    /// Requests of the trace.
    pub requests: u64,
    /// Fragments that they touch.
    pub footprint_fragments: u64,
    /// Demand accesses that found their fragment there or on its way, 0 to 1.
    pub hit_ratio: f64,
    /// Demand misses removed, in % of those without prefetch.
    pub miss_reduction_pct: f64,
    /// The same of reads alone.
    pub read_miss_reduction_pct: f64,
    /// The same as `miss_reduction_pct`, with stages used within 6 ms counted as misses.
    pub timely_reduction_pct: f64,
    /// Fetches beyond those without prefetch, in %.
    pub extra_pct: f64,
    /// Stages used among those issued, 0 to 1; absent if none was.
    pub accuracy: Option<f64>,
    /// Stages used, as a share of the misses without prefetch.
    pub coverage: f64,
    /// Processor time of the prefetcher for each crossing, its learning but for training in
    /// rounds included; absent for oracles.
    pub ns_per_crossing: Option<f64>,
    /// Training in rounds, beside the replay.
    pub training_ms: f64,
    /// Touches of another fragment than the one before.
    pub crossings: u64,
    /// Demand misses.
    pub misses: u64,
    /// The same without prefetch.
    pub misses_without: u64,
    /// Stages issued.
    pub issued: u64,
    /// Stages used within 6 ms.
    pub late: u64,
    /// Stages driven out unused.
    pub wasted: u64,
    /// Waiting for the cold device that prefetch saved, in milliseconds over all reads.
    pub ms_hidden: Option<f64>,
    /// The cold device with prefetch.
    pub device: Option<DeviceRow>,
    /// The cold device without.
    pub device_without: Option<DeviceRow>,
}

/// The cold device of one run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DeviceRow {
    /// Reads that waited; writes wait for nothing.
    pub stalled: u64,
    /// What they waited in all.
    pub stall_ms: f64,
    /// Median of those that waited.
    pub stall_p50_ms: f64,
    /// 99 % of those that waited.
    pub stall_p99_ms: f64,
    /// 99 % of all reads.
    pub read_p99_ms: f64,
    /// Reads that waited for more than half a seek.
    pub slow_reads: u64,
    /// Median of these.
    pub slow_p50_ms: f64,
    /// 99 % of these.
    pub slow_p99_ms: f64,
    /// Time that the head spent.
    pub head_time_ms: f64,
    /// Stages that a read had to wait for.
    pub late: u64,
    /// Stages given up, as too many waited.
    pub dropped: u64,
}

impl From<Waits> for DeviceRow {
    fn from(waits: Waits) -> Self {
        Self {
            stalled: waits.stalled,
            stall_ms: ms(waits.total_ns),
            stall_p50_ms: ms(waits.p50_ns),
            stall_p99_ms: ms(waits.p99_ns),
            read_p99_ms: ms(waits.p99_of_all_ns),
            slow_reads: waits.slow,
            slow_p50_ms: ms(waits.slow_p50_ns),
            slow_p99_ms: ms(waits.slow_p99_ns),
            head_time_ms: ms(waits.head_ns),
            late: waits.late,
            dropped: waits.dropped,
        }
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

impl Row {
    /// The rows of one trace.
    pub fn of(trace: &Trace, conditions: &Conditions, runs: &Runs) -> Vec<Row> {
        let row = |(contender, run): &(Contender, Run)| {
            Row::new(trace, conditions, *contender, run, &runs.none)
        };
        runs.runs.iter().map(row).collect()
    }

    fn new(
        trace: &Trace,
        conditions: &Conditions,
        contender: Contender,
        run: &Run,
        none: &Run,
    ) -> Row {
        let (verdict, ledger) = (&run.verdict, &run.verdict.ledger);
        let fragment_size = conditions.fragment_bytes();
        let ns_per_crossing = run.cost.ns_per_crossing(&none.cost, verdict.crossings);
        Row {
            trace: trace.path.display().to_string(),
            prefetch: contender.to_string(),
            fragment_size,
            fast_tier: conditions.fast_tier.to_string(),
            fast_tier_bytes: conditions.tier_fragments(trace) as u64 * fragment_size,
            budget_pct: conditions.budget_pct,
            shuffled: conditions.shuffle,
            writes_trigger: conditions.writes_trigger,
            writes_free: conditions.writes_free,
            served: conditions.served,
            seed: conditions.seed,
            requests: trace.accesses.len() as u64,
            footprint_fragments: trace.footprint as u64,
            hit_ratio: verdict.hit_ratio(),
            miss_reduction_pct: verdict.reduction_percent(),
            read_miss_reduction_pct: verdict.read_reduction_percent(),
            timely_reduction_pct: verdict.timely_percent(),
            extra_pct: verdict.extra_percent(),
            accuracy: verdict.accuracy(),
            coverage: verdict.coverage(),
            ns_per_crossing: (!contender.is_oracle()).then_some(ns_per_crossing),
            training_ms: run.cost.training.as_secs_f64() * 1e3,
            crossings: verdict.crossings,
            misses: ledger.misses,
            misses_without: verdict.ghost_misses,
            issued: ledger.issued,
            late: ledger.late,
            wasted: ledger.wasted,
            ms_hidden: verdict.device.map(|device| device.hidden_ms()),
            device: verdict.device.map(|device| device.with.into()),
            device_without: verdict.device.map(|device| device.without.into()),
        }
    }

    /// What to say where the device cannot keep up with demand even without prefetch.
    pub fn falls_behind(&self, trace: &Trace) -> Option<String> {
        let head_ms = self.device_without?.head_time_ms;
        let times = || trace.accesses.iter().map(|access| access.time_ns);
        let span_ms = ms(times().max()? - times().min()?);
        (head_ms > span_ms).then(|| {
            format!(
                "its reads alone keep the cold device busy for {:.0} s of {:.0} s: \
                 it falls behind, and waiting grows without limit",
                head_ms / 1e3,
                span_ms / 1e3
            )
        })
    }
}

/// All rows.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Rows(Vec<Row>);

impl Rows {
    /// Appends.
    pub fn extend(&mut self, rows: Vec<Row>) {
        self.0.extend(rows);
    }

    /// All of them, in the order of the runs.
    pub fn as_slice(&self) -> &[Row] {
        &self.0
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The report for people.
    pub fn table(&self, conditions: &Conditions) -> impl Display + use<> {
        let mut table = Table::new(&[
            ("trace", Align::Left),
            ("prefetch", Align::Left),
            ("hits %", Align::Right),
            ("misses −%", Align::Right),
            ("in time −%", Align::Right),
            ("extra %", Align::Right),
            ("accurate %", Align::Right),
            ("covered %", Align::Right),
            ("hidden s", Align::Right),
            ("stall s", Align::Right),
            ("p50 ms", Align::Right),
            ("p99 ms", Align::Right),
            ("head s", Align::Right),
            ("ns/crossing", Align::Right),
        ]);
        self.0.iter().for_each(|row| table.row(cells(row)));
        Report { table, conditions: conditions.to_string() }
    }
}

fn cells(row: &Row) -> [String; 14] {
    let known = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let device = |field: fn(&DeviceRow) -> f64| row.device.as_ref().map(field);
    let name = std::path::Path::new(&row.trace).file_name();
    [
        name.map_or_else(|| row.trace.clone(), |name| name.to_string_lossy().into_owned()),
        row.prefetch.clone(),
        format!("{:.2}", 100.0 * row.hit_ratio),
        format!("{:.1}", row.miss_reduction_pct),
        format!("{:.1}", row.timely_reduction_pct),
        format!("{:.1}", row.extra_pct),
        known(row.accuracy.map(|share| 100.0 * share), 1),
        format!("{:.1}", 100.0 * row.coverage),
        known(row.ms_hidden.map(|ms| ms / 1e3), 1),
        known(device(|d| d.stall_ms / 1e3), 1),
        known(device(|d| d.stall_p50_ms), 1),
        known(device(|d| d.stall_p99_ms), 1),
        known(device(|d| d.head_time_ms / 1e3), 1),
        known(row.ns_per_crossing, 0),
    ]
}

struct Report {
    table: Table,
    conditions: String,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Model { seek_ns, bytes_per_second, depth, .. } = Model::HDD;
        writeln!(f, "{}\n", self.conditions)?;
        writeln!(f, "{}", self.table)?;
        writeln!(
            f,
            "misses −%: demand misses removed; in time: the same, stages used within 6 ms counted \
             as misses.\nhidden: waiting of reads for the cold device that was saved; stall: what \
             is left; p50, p99: of the reads that wait.\nThe cold device is imagined: one head, {} ms seek, {} MB/s, demand first, {depth} stages waiting at most.",
            seek_ns / 1_000_000,
            bytes_per_second / 1_000_000
        )
    }
}
