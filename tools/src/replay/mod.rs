//! Live replay: the requests of a trace, sent to a served volume.
//!
//! Closed loop (no clock in the trace, or no speed asked for): a fixed number
//! of requests is kept in flight. Open loop: each request is sent at its time,
//! divided by the speed; what could not be sent in time, because `depth`
//! requests were in flight, is counted as lateness and not hidden.
//!
//! Latency runs from sending to completion. Offsets fold into the volume
//! ([`fold`]). Writes carry a fixed pattern: a replay overwrites the volume.

mod fold;
pub mod report;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use predictor::trace::{Op, Record, TraceError};

use crate::block::{BlockClient, BlockError, BlockOp, BlockReply};
use crate::interrupt::Interrupt;
pub use fold::{Folded, fold};

/// Longest wait without a look at the interrupt flag.
const WAIT: Duration = Duration::from_millis(200);
/// Latencies above a minute are recorded as a minute.
const MAX_MICROS: u64 = 60_000_000;

/// How to replay.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests in flight at most, ≥ 1.
    pub depth: usize,
    /// Open loop at this multiple of the trace's clock; closed loop if absent.
    pub speed: Option<f64>,
    /// A read slower than this counts as slow.
    pub slow_read: Duration,
    /// End early after this many requests.
    pub max_requests: Option<u64>,
    /// End early after this time.
    pub max_time: Option<Duration>,
}

/// What happened. Latencies in microseconds.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Reads completed.
    pub reads: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Requests that the server refused.
    pub failed: u64,
    /// Requests moved into the volume.
    pub folded: u64,
    /// Requests cut to the longest transfer.
    pub clipped: u64,
    /// Latency of the reads slower than [`Options::slow_read`]: of those that stall.
    pub slow_micros: Histogram<u64>,
    /// From the first request to the last completion.
    pub elapsed: Duration,
    /// Latency of reads.
    pub read_micros: Histogram<u64>,
    /// Latency of writes.
    pub write_micros: Histogram<u64>,
    /// Open loop: how much later than its time each request was sent.
    pub late_micros: Option<Histogram<u64>>,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The trace is damaged.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The connection failed.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Nothing can be replayed on an empty volume.
    #[error("the volume has no bytes")]
    EmptyVolume,
    /// By a signal.
    #[error("interrupted")]
    Interrupted,
}

struct Sent {
    at: Instant,
    op: Op,
    length: u32,
}

struct Run<'a> {
    client: &'a mut dyn BlockClient,
    options: &'a Options,
    interrupt: &'a Interrupt,
    started: Instant,
    /// Time of the first record, which is sent at once.
    first_us: Option<u64>,
    /// By request id.
    slots: Vec<Option<Sent>>,
    free: Vec<usize>,
    done: Vec<BlockReply>,
    pattern: Vec<u8>,
    outcome: Outcome,
}

/// Replays `records`; `observe` sees the number of requests sent so far.
pub fn run(
    client: &mut dyn BlockClient,
    records: impl Iterator<Item = Result<Record, TraceError>>,
    options: &Options,
    interrupt: &Interrupt,
    mut observe: impl FnMut(u64),
) -> Result<Outcome, ReplayError> {
    assert!(options.depth > 0, "a depth of 0 sends nothing");
    if client.size_bytes() == 0 {
        return Err(ReplayError::EmptyVolume);
    }
    let limit = usize::try_from(options.max_requests.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let mut run = Run {
        slots: (0..options.depth).map(|_| None).collect(),
        free: (0..options.depth).rev().collect(),
        done: Vec::with_capacity(options.depth),
        // Not zero: zeros would leave holes.
        pattern: (0..client.max_transfer_bytes()).map(|i| (i % 251) as u8 | 1).collect(),
        outcome: Outcome::new(options.speed.is_some()),
        started: Instant::now(),
        first_us: None,
        client,
        options,
        interrupt,
    };
    for (sent, record) in (0..).zip(records.take(limit)) {
        let record = record?;
        if options.max_time.is_some_and(|limit| run.started.elapsed() >= limit) {
            break;
        }
        run.step(&record)?;
        observe(sent + 1);
    }
    while run.free.len() < run.slots.len() {
        run.wait(WAIT)?;
    }
    run.outcome.elapsed = run.started.elapsed();
    Ok(run.outcome)
}

impl Run<'_> {
    /// Waits until the record is due and a slot is free, then sends it.
    fn step(&mut self, record: &Record) -> Result<(), ReplayError> {
        let due = self.due(record);
        while let Some(early) = due.and_then(|due| due.checked_duration_since(Instant::now())) {
            if early.is_zero() {
                break;
            }
            self.wait(early.min(WAIT))?;
        }
        while self.free.is_empty() {
            self.wait(WAIT)?;
        }
        if let (Some(due), Some(late)) = (due, &mut self.outcome.late_micros) {
            late.saturating_record(micros(due.elapsed()));
        }
        self.send(record)
    }

    /// When an open loop sends the record.
    fn due(&mut self, record: &Record) -> Option<Instant> {
        let (speed, time_us) = (self.options.speed?, record.time_us?);
        let since_us = time_us.saturating_sub(*self.first_us.get_or_insert(time_us));
        let wait = Duration::from_micros(since_us).as_secs_f64() / speed;
        self.started.checked_add(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
    }

    fn send(&mut self, record: &Record) -> Result<(), ReplayError> {
        let client = &mut *self.client;
        let max = client.max_transfer_bytes();
        let Folded { offset, length, moved, clipped } = fold(
            record.offset_bytes,
            record.size_bytes,
            client.size_bytes(),
            client.block_bytes(),
            max,
        );
        self.outcome.folded += u64::from(moved);
        self.outcome.clipped += u64::from(clipped);
        let slot = self.free.pop().expect("a slot is free");
        self.slots[slot] = Some(Sent { at: Instant::now(), op: record.op, length });
        let op = match record.op {
            Op::Read => BlockOp::Read { offset, length },
            Op::Write => BlockOp::Write { offset, data: &self.pattern[..length as usize] },
        };
        Ok(client.send(slot as u64, op)?)
    }

    /// Takes completions in.
    fn wait(&mut self, timeout: Duration) -> Result<(), ReplayError> {
        if self.interrupt.is_set() {
            return Err(ReplayError::Interrupted);
        }
        if self.free.len() == self.slots.len() {
            std::thread::sleep(timeout);
            return Ok(());
        }
        self.client.poll(timeout, &mut self.done)?;
        let now = Instant::now();
        for reply in self.done.drain(..) {
            let slot = usize::try_from(reply.id).ok().filter(|&at| at < self.slots.len());
            let Some((slot, sent)) = slot.and_then(|at| Some((at, self.slots[at].take()?))) else {
                return Err(BlockError::Protocol("a reply to no request").into());
            };
            self.free.push(slot);
            let slow = self.options.slow_read;
            self.outcome.count(&sent, now - sent.at, slow, reply.result.is_ok());
        }
        Ok(())
    }
}

impl Outcome {
    fn new(open_loop: bool) -> Self {
        let histogram = || Histogram::new_with_max(MAX_MICROS, 3).expect("valid bounds");
        Self {
            reads: 0,
            writes: 0,
            read_bytes: 0,
            write_bytes: 0,
            failed: 0,
            folded: 0,
            clipped: 0,
            slow_micros: histogram(),
            elapsed: Duration::ZERO,
            read_micros: histogram(),
            write_micros: histogram(),
            late_micros: open_loop.then(histogram),
        }
    }

    fn count(&mut self, sent: &Sent, took: Duration, slow_read: Duration, good: bool) {
        if !good {
            self.failed += 1;
            return;
        }
        let bytes = u64::from(sent.length);
        match sent.op {
            Op::Read => {
                self.reads += 1;
                self.read_bytes += bytes;
                self.read_micros.saturating_record(micros(took));
                if took > slow_read {
                    self.slow_micros.saturating_record(micros(took));
                }
            }
            Op::Write => {
                self.writes += 1;
                self.write_bytes += bytes;
                self.write_micros.saturating_record(micros(took));
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
