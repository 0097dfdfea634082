//! One record for each request, of traces that see a request at several stages.
//!
//! The stage is the best that appears: queued, else issued, else completed. Whether a
//! better one follows cannot be known without reading on, so up to [`LOOK_AHEAD`] events
//! are read before the choice: no trace in practice issues as many requests before it
//! queues one, except several CPUs' binary files behind each other, which should be given
//! separately.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use super::Record;
use super::event::{Event, Stage};

/// Most events that are read before the stage is chosen; each takes below 64 bytes.
pub(super) const LOOK_AHEAD: usize = 1 << 16;

/// The choice of a stage, and what it lets through.
#[derive(Debug, Default)]
pub(super) struct Select {
    stage: Option<Stage>,
    seen: usize,
    /// Records of the best stage so far that are still to be handed out.
    held: VecDeque<Record>,
}

impl Select {
    /// Whether nothing that follows can change the choice.
    pub fn is_settled(&self) -> bool {
        self.seen >= LOOK_AHEAD || self.stage == Some(Stage::Queue)
    }

    pub fn push(&mut self, event: Event) {
        if !self.is_settled() && self.stage.is_none_or(|best| event.stage < best) {
            self.stage = Some(event.stage);
            self.held.clear();
        }
        self.seen = self.seen.saturating_add(1);
        if self.stage == Some(event.stage) {
            self.held.push_back(event.record);
        }
        assert!(self.held.len() <= LOOK_AHEAD, "the look-ahead is bounded");
    }

    pub fn pop(&mut self) -> Option<Record> {
        self.held.pop_front()
    }
}
