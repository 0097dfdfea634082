//! Several inputs as one, in the order of time.
//!
//! Each is held by its next event only. That suffices as the records of one input are in
//! order, as blktrace writes them for each CPU; where they are not, what comes out is as
//! unordered as they are.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::TraceError;
use super::event::Event;
use super::skipped::Tolerance;
use super::source::Source;

/// The events of all inputs; at equal times the first input leads.
pub(super) struct Merge<'a> {
    sources: Vec<Source<'a>>,
    /// The next event of each source, and by time which have one.
    heads: Vec<Option<Event>>,
    order: BinaryHeap<Reverse<(u64, usize)>>,
    /// Sources whose next event is still to be read: never before the last was handed out,
    /// so that an error comes after it.
    behind: Vec<usize>,
}

impl<'a> Merge<'a> {
    pub fn new(sources: Vec<Source<'a>>) -> Self {
        assert!(!sources.is_empty(), "nothing cannot be read");
        Self {
            heads: vec![None; sources.len()],
            order: BinaryHeap::with_capacity(sources.len()),
            behind: (0..sources.len()).rev().collect(),
            sources,
        }
    }

    pub fn has_clock(&self) -> bool {
        self.sources[0].has_clock()
    }

    /// The next event, or the error of a source and that source's index among the files.
    pub fn next(
        &mut self,
        tolerance: &mut Tolerance,
    ) -> Result<Option<Event>, (usize, TraceError)> {
        while let Some(at) = self.behind.pop() {
            let source = &mut self.sources[at];
            let event = source.next(tolerance).map_err(|error| (source.file(), error))?;
            self.order.extend(event.map(|event| Reverse((event.time, at))));
            self.heads[at] = event;
        }
        let Some(Reverse((_, at))) = self.order.pop() else { return Ok(None) };
        self.behind.push(at);
        let event = self.heads[at].take();
        assert!(event.is_some(), "the order names sources with an event");
        Ok(event)
    }
}
