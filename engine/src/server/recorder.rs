//! Recording what clients do: a bounded queue per tap, written by its own thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use predictor::trace::{Record, TraceError, Writer};

use crate::admin::report::TraceReport;
use crate::units::VolumeId;

/// Requests that may wait to be written.
const QUEUED: usize = 1 << 16;
const PAUSE: Duration = Duration::from_millis(20);

/// Where cores copy requests to. When it is full, requests are counted as dropped.
#[derive(Debug)]
pub struct TraceTap {
    only: Option<VolumeId>,
    queue: ArrayQueue<Record>,
    dropped: AtomicU64,
    ending: AtomicBool,
}

impl TraceTap {
    /// Copies a request of a volume.
    pub fn push(&self, volume: VolumeId, record: Record) {
        if self.only.is_none_or(|only| only == volume) && self.queue.push(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A trace being recorded.
#[derive(Debug)]
pub struct Recorder {
    tap: Arc<TraceTap>,
    path: PathBuf,
    thread: JoinHandle<Result<u64, TraceError>>,
}

impl Recorder {
    /// Makes the file, which must not exist, and starts writing.
    pub fn start(path: &Path, only: Option<VolumeId>) -> Result<Self, TraceError> {
        let mut writer = Writer::create(path)?;
        let tap = Arc::new(TraceTap {
            only,
            queue: ArrayQueue::new(QUEUED),
            dropped: AtomicU64::new(0),
            ending: AtomicBool::new(false),
        });
        let source = Arc::clone(&tap);
        let thread = std::thread::spawn(move || {
            let mut records = 0;
            loop {
                let ending = source.ending.load(Ordering::Acquire);
                while let Some(record) = source.queue.pop() {
                    writer.write(&record)?;
                    records += 1;
                }
                if ending {
                    return writer.finish().map(|_| records);
                }
                std::thread::sleep(PAUSE);
            }
        });
        Ok(Self { tap, path: path.to_owned(), thread })
    }

    /// What cores copy to.
    pub fn tap(&self) -> Arc<TraceTap> {
        Arc::clone(&self.tap)
    }

    /// Writes what is queued and ends the file. The cores have let go of the tap.
    pub fn stop(self) -> Result<TraceReport, TraceError> {
        self.tap.ending.store(true, Ordering::Release);
        let records = self.thread.join().expect("the writer does not panic")?;
        let dropped = self.tap.dropped.load(Ordering::Relaxed);
        Ok(TraceReport { path: self.path, records, dropped })
    }
}
