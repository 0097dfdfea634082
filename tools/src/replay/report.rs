//! The report of a replay: what the client measured and what the server counted.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Outcome;
use crate::admin::{PrefetchKind, StatsReport};
use crate::output::{bytes_text, micros_text, percent_text};
use crate::table::{Align, Pairs, Table};

/// Points of a latency distribution in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Requests counted.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

/// What the server counted during the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ServerDelta {
    /// Reads served from a stage.
    pub hits: u64,
    /// Reads served from a device.
    pub misses: u64,
    /// Misses whose stage came too late.
    pub late: u64,
    /// Stages evicted unused.
    pub wasted: u64,
    /// Bytes staged ahead.
    pub prefetched_bytes: u64,
    /// Reads of cold devices.
    pub cold_reads: u64,
    /// Client reads that waited for a cold device.
    pub cold_stalls: u64,
}

impl ServerDelta {
    /// The difference of two reports of one server without a reset between.
    pub fn between(before: &StatsReport, after: &StatsReport) -> Self {
        let delta = |field: fn(&StatsReport) -> u64| field(after).saturating_sub(field(before));
        Self {
            hits: delta(|s| s.hits),
            misses: delta(|s| s.misses),
            late: delta(|s| s.late),
            wasted: delta(|s| s.wasted),
            prefetched_bytes: delta(|s| s.prefetched_bytes),
            cold_reads: delta(|s| s.cold_reads),
            cold_stalls: delta(|s| s.cold_stalls),
        }
    }
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayReport {
    /// Who prefetched.
    pub prefetch: PrefetchKind,
    /// `closed-loop` or `open-loop`.
    pub mode: &'static str,
    /// Seconds from the first request to the last completion.
    pub seconds: f64,
    /// Completed requests per second.
    pub iops: f64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests moved into the volume.
    pub folded: u64,
    /// Requests cut to the longest transfer.
    pub clipped: u64,
    /// Reads slower than the threshold.
    pub slow_reads: u64,
    /// Latency of reads.
    pub read: Latency,
    /// Latency of the slow ones alone.
    pub slow_read: Latency,
    /// Latency of writes.
    pub write: Latency,
    /// Lateness of sending, in an open loop.
    pub lateness: Option<Latency>,
    /// Hits among the server's reads, 0 to 1.
    pub hit_ratio: Option<f64>,
    /// The server's counters.
    pub server: ServerDelta,
}

impl ReplayReport {
    /// Puts both sides together.
    #[expect(clippy::cast_precision_loss, reason = "rates and ratios for people")]
    pub fn new(prefetch: PrefetchKind, outcome: &Outcome, server: ServerDelta) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        let requests = outcome.reads + outcome.writes;
        let looked_up = server.hits + server.misses;
        Self {
            prefetch,
            mode: if outcome.late_micros.is_some() { "open-loop" } else { "closed-loop" },
            seconds,
            iops: if seconds > 0.0 { requests as f64 / seconds } else { 0.0 },
            read_bytes: outcome.read_bytes,
            write_bytes: outcome.write_bytes,
            failed: outcome.failed,
            folded: outcome.folded,
            clipped: outcome.clipped,
            slow_reads: outcome.slow_micros.len(),
            read: Latency::from(&outcome.read_micros),
            slow_read: Latency::from(&outcome.slow_micros),
            write: Latency::from(&outcome.write_micros),
            lateness: outcome.late_micros.as_ref().map(Latency::from),
            hit_ratio: (looked_up > 0).then(|| server.hits as f64 / looked_up as f64),
            server,
        }
    }

    /// One replay in full.
    pub fn table(&self) -> String {
        let server = &self.server;
        let pairs = Pairs::default()
            .with("prefetch", self.prefetch)
            .with("mode", self.mode)
            .with("time", format!("{:.1} s", self.seconds))
            .with("requests/s", format!("{:.0}", self.iops))
            .with("read", bytes_text(self.read_bytes))
            .with("written", bytes_text(self.write_bytes))
            .with("failed", self.failed)
            .with("folded", self.folded)
            .with("clipped", self.clipped)
            .with("hit ratio", percent_text(self.hit_ratio))
            .with("hits", server.hits)
            .with("misses", format!("{} (late {})", server.misses, server.late))
            .with("stages wasted", server.wasted)
            .with("staged ahead", bytes_text(server.prefetched_bytes))
            .with("stalls on the cold tier", server.cold_stalls)
            .with("slow reads", self.slow_reads);
        let mut table = Table::new(&[
            ("latency", Align::Left),
            ("count", Align::Right),
            ("p50", Align::Right),
            ("p99", Align::Right),
            ("p99.9", Align::Right),
            ("max", Align::Right),
        ]);
        let rows = [
            ("read", Some(self.read)),
            ("slow read", Some(self.slow_read)),
            ("write", Some(self.write)),
            ("lateness", self.lateness),
        ];
        for (name, latency) in rows {
            let Some(l) = latency else { continue };
            let micros = [l.p50_us, l.p99_us, l.p999_us, l.max_us].map(micros_text);
            table.row([name.to_owned(), l.count.to_string()].into_iter().chain(micros));
        }
        format!("{pairs}\n{table}")
    }
}

/// Several replays of one trace side by side.
pub fn comparison(reports: &[ReplayReport]) -> Table {
    let mut table = Table::new(&[
        ("prefetch", Align::Left),
        ("hit ratio", Align::Right),
        ("cold stalls", Align::Right),
        ("read p50", Align::Right),
        ("p99", Align::Right),
        ("p99.9", Align::Right),
        ("mean", Align::Right),
        ("time", Align::Right),
        ("wasted", Align::Right),
    ]);
    for r in reports {
        table.row([
            r.prefetch.to_string(),
            percent_text(r.hit_ratio),
            r.server.cold_stalls.to_string(),
            micros_text(r.read.p50_us),
            micros_text(r.read.p99_us),
            micros_text(r.read.p999_us),
            format!("{:.0} µs", r.read.mean_us),
            format!("{:.1} s", r.seconds),
            r.server.wasted.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_joins_both_sides() {
        let before = StatsReport { hits: 10, misses: 5, cold_stalls: 7, ..Default::default() };
        let after = StatsReport { hits: 13, misses: 6, cold_stalls: 9, ..Default::default() };
        let server = ServerDelta::between(&before, &after);
        assert_eq!((server.hits, server.misses, server.cold_stalls), (3, 1, 2));
        let mut outcome = Outcome::new(true);
        outcome.read_micros.saturating_record(100);
        let report = ReplayReport::new(PrefetchKind::Learned, &outcome, server);
        assert_eq!(report.hit_ratio, Some(0.75));
        let text = report.table();
        assert!(text.contains("75.0 %") && text.contains("lateness"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["read"]["p99_us"], 100);
        assert_eq!(json["server"]["cold_stalls"], 2);
        assert!(comparison(&[report]).to_string().contains("learned"));
    }
}
