//! The reports of the admin protocol: what a server says of itself.
//!
//! Fields are only ever added, with a default, so that a client and a server
//! of different versions understand each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::protocol::PrefetchKind;
pub use crate::format::superblock::Role;

/// The server as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReport {
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it began to serve.
    pub uptime_s: u64,
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// Identity of the pool.
    pub pool_uuid: String,
    /// Cores that serve.
    pub cores: u32,
    /// Volumes in the pool.
    pub volumes: u32,
    /// Client connections now.
    pub connections: u32,
    /// Where clients attach: NBD URIs without the export name, and `nvme+tcp://ADDRESS:PORT`.
    pub listeners: Vec<String>,
    /// Who prefetches.
    pub prefetch: PrefetchKind,
    /// The fast tier.
    pub fast: TierUsage,
    /// The cold tier.
    pub cold: TierUsage,
    /// Each core, in order.
    pub per_core: Vec<CoreReport>,
}

/// One core that serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoreReport {
    /// The CPU its thread is pinned to, if it is.
    pub cpu: Option<u32>,
    /// Slices of the fragment table that it owns.
    pub slices: u32,
    /// Fragments in them.
    pub fragments: u64,
    /// Client connections that it serves.
    pub connections: u32,
}

/// Space of one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TierUsage {
    /// Bytes allocated.
    pub used_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// One volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeReport {
    /// Its number in the pool.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Its identity, stable for life.
    pub uuid: String,
    /// Presented size.
    pub size_bytes: u64,
    /// Presented block size, 512 or 4096.
    pub block_bytes: u32,
    /// Fragment size for new fragments.
    pub fragment_bytes: u64,
    /// Writes are refused.
    pub read_only: bool,
    /// Bytes whose authority is on the fast tier.
    pub fast_bytes: u64,
    /// Bytes whose authority is on the cold tier.
    pub cold_bytes: u64,
    /// Connections that have it open.
    pub connections: u32,
}

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceReport {
    /// Its index in the pool.
    pub id: u8,
    /// Its role.
    pub role: Role,
    /// File or block device.
    pub path: PathBuf,
    /// How it is driven: `uring`, `memory`, …
    pub driver: String,
    /// The slower device it behaves like, if any: `hdd`.
    pub emulate: Option<String>,
    /// Its identity.
    pub uuid: String,
    /// False after a failure: it is not trusted any more.
    pub online: bool,
    /// Bytes allocated.
    pub used_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Read operations since start.
    pub reads: u64,
    /// Write operations since start.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Failed operations and checksum mismatches.
    pub errors: u64,
}

/// Counters since the start or the last reset.
///
/// Every client read of a fragment piece is one hit or one miss; `late` counts
/// the misses whose stage was already under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatsReport {
    /// Seconds counted.
    pub seconds: f64,
    /// Client reads.
    pub reads: u64,
    /// Client writes.
    pub writes: u64,
    /// Client flushes.
    pub flushes: u64,
    /// Bytes read by clients.
    pub read_bytes: u64,
    /// Bytes written by clients.
    pub write_bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Client requests per second over `seconds`.
    pub iops: f64,
    /// Reads served from a stage.
    pub hits: u64,
    /// Reads served from a device.
    pub misses: u64,
    /// Misses whose stage came too late.
    pub late: u64,
    /// Stages evicted unused.
    pub wasted: u64,
    /// Bytes staged ahead in all.
    pub prefetched_bytes: u64,
    /// Bytes that stages hold now.
    pub staged_bytes: u64,
    /// Bytes that stages may hold.
    pub stage_budget_bytes: u64,
    /// Reads of cold devices for any reason.
    pub cold_reads: u64,
    /// Client reads that waited for a cold device.
    pub cold_stalls: u64,
    /// Fragments moved to the cold tier.
    pub spilled_fragments: u64,
    /// The fast tier.
    pub fast: TierUsage,
    /// The cold tier.
    pub cold: TierUsage,
}

impl StatsReport {
    /// Hits among all reads, 0 to 1; `None` before the first read.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn hit_ratio(&self) -> Option<f64> {
        let reads = self.hits + self.misses;
        (reads > 0).then(|| self.hits as f64 / reads as f64)
    }
}

/// A finished trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TraceReport {
    /// The file.
    pub path: PathBuf,
    /// Requests in it.
    pub records: u64,
    /// Requests it misses because the writer fell behind.
    pub dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hit_ratio_needs_reads() {
        assert_eq!(StatsReport::default().hit_ratio(), None);
        let stats = StatsReport { hits: 3, misses: 1, ..Default::default() };
        assert_eq!(stats.hit_ratio(), Some(0.75));
    }
}
