//! The figures of one measurement.

use engine::core::meter::Meter;
use engine::target::load::{Order, Tally};
use serde::Serialize;

use super::Load;
use crate::output::bytes_text;
use crate::table::Pairs;

/// What was asked for, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// What was measured.
    pub what: String,
    /// Bytes of a request.
    pub block_bytes: u32,
    /// Requests under way on each core or connection.
    pub depth: u16,
    /// Loaded cores, or connections.
    pub jobs: u16,
    /// Share of reads asked for, in per cent.
    pub read_percent: u8,
    /// `rand` or `seq`.
    pub pattern: &'static str,
    /// Writes before each flush, 0 for never.
    pub fsync: u32,
    /// Bytes that were visited.
    pub region_bytes: u64,
    /// Time measured.
    pub seconds: f64,
    /// Reads and writes that ended.
    pub requests: u64,
    /// Flushes that ended.
    pub flushes: u64,
    /// Reads and writes per second.
    pub iops: f64,
    /// Millions of bytes per second.
    pub mb_per_s: f64,
    /// Mean latency.
    pub mean_us: f64,
    /// Median latency.
    pub p50_us: f64,
    /// 99 of 100 took at most this.
    pub p99_us: f64,
    /// 999 of 1000 took at most this.
    pub p999_us: f64,
    /// Whose cost the next three are: `cores` or `clients`.
    pub cost_of: &'static str,
    /// Processor time per request, polling included.
    pub cpu_us_per_io: f64,
    /// System calls per request.
    pub syscalls_per_io: f64,
    /// Heap allocations per request.
    pub allocations_per_io: f64,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn float(number: u64) -> f64 {
    number as f64
}

impl BenchReport {
    /// From a tally and what the threads that `cost_of` names have cost meanwhile.
    pub(super) fn new(
        what: String,
        load: &Load,
        (jobs, region_bytes): (u16, u64),
        tally: &Tally,
        (cost_of, cost): (&'static str, Meter),
    ) -> Self {
        let seconds = float(tally.elapsed_ns) / 1e9;
        let requests = float(tally.requests().max(1));
        let at = |quantile| float(tally.latency_ns.value_at_quantile(quantile)) / 1e3;
        Self {
            what,
            block_bytes: load.block_size,
            depth: load.depth,
            jobs,
            read_percent: load.read,
            pattern: match load.mix().order {
                Order::Random => "rand",
                Order::Sequential => "seq",
            },
            fsync: load.fsync,
            region_bytes,
            seconds,
            requests: tally.requests(),
            flushes: tally.flushes,
            iops: float(tally.requests()) / seconds.max(1e-9),
            mb_per_s: float(tally.bytes) / 1e6 / seconds.max(1e-9),
            mean_us: tally.latency_ns.mean() / 1e3,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            cost_of,
            cpu_us_per_io: float(cost.cpu_ns) / 1e3 / requests,
            syscalls_per_io: float(cost.syscalls) / requests,
            allocations_per_io: float(cost.allocations) / requests,
        }
    }

    /// For people.
    pub fn table(&self) -> Pairs {
        let Self { block_bytes, depth, jobs, read_percent, pattern, .. } = self;
        let block = bytes_text((*block_bytes).into());
        let region = bytes_text(self.region_bytes);
        let fsync = match self.fsync {
            0 => "never".to_owned(),
            writes => format!("every {writes} writes, {} in all", self.flushes),
        };
        Pairs::default()
            .with("measured", &self.what)
            .with("load", format!("{block} {pattern}, {read_percent} % reads, within {region}"))
            .with("depth", format!("{depth} × {jobs}"))
            .with("flushes", fsync)
            .with("time", format!("{:.1} s", self.seconds))
            .with("IOPS", format!("{:.0}", self.iops))
            .with("throughput", format!("{:.1} MB/s", self.mb_per_s))
            .with("mean", format!("{:.2} µs", self.mean_us))
            .with("p50", format!("{:.2} µs", self.p50_us))
            .with("p99", format!("{:.2} µs", self.p99_us))
            .with("p99.9", format!("{:.2} µs", self.p999_us))
            .with("cost of the", self.cost_of)
            .with("CPU per I/O", format!("{:.3} µs", self.cpu_us_per_io))
            .with("system calls per I/O", format!("{:.4}", self.syscalls_per_io))
            .with("allocations per I/O", format!("{:.4}", self.allocations_per_io))
    }
}
