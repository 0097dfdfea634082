//! The cold device of the laboratory: one head, two queues, no clock of its own.
//!
//! A fetch of a fragment pays a seek, unless it begins close to where the head stands, and
//! its bytes at the transfer rate. The head serves one fetch at a time and lets each end.
//! Fetches on demand go first come, first served, before all stages; a stage begins only when
//! the head is idle and no demand waits. At most [`Model::depth`] stages wait: one more drops
//! the one that waits longest, as a core does. A stage that is demanded while it waits becomes
//! a fetch on demand, and one that was dropped is fetched then.
//!
//! As demand never waits for a stage that has not begun, a demand's end is known when it
//! arrives; only stages are simulated on, by [`Disk::advance`].
//!
//! Not modelled: writes to the device, reordering by position, caches of the disk.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

/// A fragment: its volume and its number in it.
type Key = (u32, u64);

/// The device that is imagined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Nanoseconds of a seek with its rotation.
    pub seek_ns: u64,
    /// Bytes per second once it transfers.
    pub bytes_per_second: u64,
    /// Bytes that a fetch may begin away from the end of the last one and cost no seek.
    pub near_bytes: u64,
    /// Stages that wait at once.
    pub depth: usize,
}

impl Model {
    /// A disk of 7,200 rpm, the one that `--emulate hdd` makes of any device, with as many
    /// stages waiting as a core lets wait.
    pub const HDD: Model = Model {
        seek_ns: 8_000_000,
        bytes_per_second: 150_000_000,
        near_bytes: 64 << 10,
        depth: 32,
    };

    /// Who waits longer waits for the head: half a seek.
    pub(super) fn slow_ns(&self) -> u64 {
        self.seek_ns / 2
    }
}

/// Where a fragment is that was fetched or shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    /// It was pushed out of the queue.
    Dropped,
    /// It arrives at this time, or has.
    Arrives(u64),
}

/// A fetch that the head has begun, for tests: which, when it came, begins and ends.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
struct Served {
    key: Key,
    since_ns: u64,
    begin_ns: u64,
    end_ns: u64,
}

/// The device at work. Times are nanoseconds and never go back.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    model: Model,
    fragment_bytes: u64,
    /// Volume and byte where the last fetch ends.
    position: Option<(u32, u64)>,
    /// The head is idle from then on.
    free_ns: u64,
    /// Stages that wait and since when, the oldest first.
    waiting: VecDeque<(Key, u64)>,
    states: FxHashMap<Key, State>,
    /// When the fetches on demand end that had not when last looked at, in order.
    demands: VecDeque<u64>,
    now: u64,
    /// Time that the head spent.
    pub busy_ns: u64,
    /// Stages pushed out of the queue.
    pub dropped: u64,
    #[cfg(test)]
    served: Vec<Served>,
}

impl Disk {
    pub fn new(model: Model, fragment_bytes: u64) -> Disk {
        assert!(model.bytes_per_second > 0 && model.depth > 0, "a device transfers");
        Disk {
            model,
            fragment_bytes,
            position: None,
            free_ns: 0,
            waiting: VecDeque::with_capacity(model.depth),
            states: FxHashMap::default(),
            demands: VecDeque::new(),
            now: 0,
            busy_ns: 0,
            dropped: 0,
            #[cfg(test)]
            served: Vec::new(),
        }
    }

    /// Lets time pass: stages begin while the head is idle before `now`; at `now` itself
    /// demand may still come.
    pub fn advance(&mut self, now: u64) {
        assert!(now >= self.now, "time goes on");
        self.now = now;
        while let Some(&(key, since_ns)) = self.waiting.front()
            && self.free_ns.max(since_ns) < now
        {
            self.waiting.pop_front();
            self.serve(key, since_ns);
        }
    }

    /// Fetches a fragment on demand; when it arrives.
    pub fn demand(&mut self, key: Key) -> u64 {
        let end_ns = self.serve(key, self.now);
        self.demands.push_back(end_ns);
        end_ns
    }

    /// Fetches on demand that have not ended.
    pub fn demanded(&mut self) -> usize {
        while self.demands.front().is_some_and(|end_ns| *end_ns <= self.now) {
            self.demands.pop_front();
        }
        self.demands.len()
    }

    /// Queues a fragment to be fetched when there is nothing else to do.
    pub fn stage(&mut self, key: Key) {
        if self.waiting.len() == self.model.depth
            && let Some((oldest, _)) = self.waiting.pop_front()
        {
            self.states.insert(oldest, State::Dropped);
            self.dropped += 1;
        }
        self.waiting.push_back((key, self.now));
        self.states.insert(key, State::Waits);
    }

    /// A fragment that was fetched or staged is needed; when it arrives, or has. One that
    /// waits or was dropped is fetched on demand now.
    pub fn need(&mut self, key: Key) -> u64 {
        match self.states.get(&key) {
            None => self.now,
            Some(State::Arrives(end_ns)) => *end_ns,
            Some(State::Dropped) => self.demand(key),
            Some(State::Waits) => {
                self.waiting.retain(|(waiting, _)| *waiting != key);
                self.demand(key)
            }
        }
    }

    /// A fragment is needed no more: if it waits it will not be fetched.
    pub fn forget(&mut self, key: Key) {
        if self.states.remove(&key) == Some(State::Waits) {
            self.waiting.retain(|(waiting, _)| *waiting != key);
        }
    }

    /// The head takes the next fetch, which came at `since_ns`; when it ends.
    fn serve(&mut self, key: Key, since_ns: u64) -> u64 {
        let begin_ns = self.free_ns.max(since_ns);
        let (volume, fragment) = key;
        let offset = fragment.saturating_mul(self.fragment_bytes);
        let is_near = self.position.is_some_and(|(of, position)| {
            of == volume && position.abs_diff(offset) <= self.model.near_bytes
        });
        let seek_ns = if is_near { 0 } else { self.model.seek_ns };
        let transfer_ns = self.fragment_bytes * 1_000_000_000 / self.model.bytes_per_second;
        self.position = Some((volume, offset.saturating_add(self.fragment_bytes)));
        self.busy_ns += seek_ns + transfer_ns;
        self.free_ns = begin_ns + seek_ns + transfer_ns;
        self.states.insert(key, State::Arrives(self.free_ns));
        #[cfg(test)]
        self.served.push(Served { key, since_ns, begin_ns, end_ns: self.free_ns });
        self.free_ns
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
