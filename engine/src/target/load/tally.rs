//! What came of a load.

use hdrhistogram::Histogram;

/// Latencies above this are counted as this.
const MAX_NS: u64 = 60_000_000_000;

/// Counts and latencies of the requests that ended within a window of time.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Reads that ended well.
    pub reads: u64,
    /// Writes that ended well.
    pub writes: u64,
    /// Flushes that ended well.
    pub flushes: u64,
    /// Bytes read and written.
    pub bytes: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The window's length.
    pub elapsed_ns: u64,
    /// Latencies of reads and writes in nanoseconds, two digits exact.
    pub latency_ns: Histogram<u32>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency_ns = Histogram::new_with_max(MAX_NS, 2).expect("valid bounds");
        Tally { reads: 0, writes: 0, flushes: 0, bytes: 0, failed: 0, elapsed_ns: 0, latency_ns }
    }
}

impl Tally {
    /// Reads and writes.
    pub fn requests(&self) -> u64 {
        self.reads + self.writes
    }

    /// Counts a read or write that ended well.
    pub fn count(&mut self, write: bool, bytes: u32, took_ns: u64) {
        if write {
            self.writes += 1;
        } else {
            self.reads += 1;
        }
        self.bytes += u64::from(bytes);
        self.latency_ns.saturating_record(took_ns);
    }

    /// Adds what another load did in the same time.
    pub fn add(&mut self, other: &Tally) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.flushes += other.flushes;
        self.bytes += other.bytes;
        self.failed += other.failed;
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
        self.latency_ns.add(&other.latency_ns).expect("the same bounds");
    }
}
