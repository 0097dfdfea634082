//! Asynchronous events (Base 5.2): requests that the controller holds, what is pending, and
//! the list of changed namespaces.
//!
//! An event is sent once, when a request for it is held and feature 0Bh enables it; then it
//! is silent until the host has read its log page, which arms it again. What happens
//! meanwhile is pending and is sent after that. Nothing grows: events are bits.

use std::collections::BTreeSet;

use nvme::feature::Event;
use nvme::identify::NAMESPACES_PER_LIST;
use smallvec::SmallVec;

use super::{EVENT_REQUESTS, Kind};

/// Events of one controller.
#[derive(Debug)]
pub struct Events {
    held: SmallVec<[u16; EVENT_REQUESTS]>,
    aborted: SmallVec<[u16; EVENT_REQUESTS]>,
    /// Offered by the controller: bits of OAES.
    offered: u32,
    /// Happened and not yet told.
    pending: u32,
    /// Told, and its log not yet read.
    silent: u32,
    /// `None`: too many to list.
    changed: Option<BTreeSet<u32>>,
}

impl Events {
    /// Of a new controller.
    pub fn new(kind: Kind) -> Self {
        let offered = match kind {
            Kind::Io => Event::NamespaceChanged.bit() | Event::AnaChanged.bit(),
            Kind::Discovery => Event::DiscoveryChanged.bit(),
        };
        Self {
            held: SmallVec::new(),
            aborted: SmallVec::new(),
            offered,
            pending: 0,
            silent: 0,
            changed: Some(BTreeSet::new()),
        }
    }

    /// OAES.
    pub fn offered(&self) -> u32 {
        self.offered
    }

    /// Holds a request; false if there are enough.
    pub fn hold(&mut self, cid: u16) -> bool {
        if self.held.len() == EVENT_REQUESTS {
            return false;
        }
        self.held.push(cid);
        true
    }

    /// Requests that are held.
    pub fn held(&self) -> &[u16] {
        &self.held
    }

    /// Ends a held request; false if it is not held.
    pub fn abort(&mut self, cid: u16) -> bool {
        let Some(at) = self.held.iter().position(|held| *held == cid) else { return false };
        self.aborted.push(self.held.remove(at));
        true
    }

    /// A request that was ended and is still to be answered.
    pub fn next_aborted(&mut self) -> Option<u16> {
        self.aborted.pop()
    }

    /// Something happened.
    pub fn raise(&mut self, event: Event) {
        self.pending |= event.bit() & self.offered;
    }

    /// A held request and the event that completes it, if one is enabled and not silent.
    pub fn next(&mut self, enabled: u32) -> Option<(u16, Event)> {
        let ready = self.pending & enabled & !self.silent;
        let event = Event::ALL.into_iter().find(|event| ready & event.bit() != 0)?;
        if self.held.is_empty() {
            return None;
        }
        self.pending &= !event.bit();
        self.silent |= event.bit();
        Some((self.held.remove(0), event))
    }

    /// The log page of an event was read, and not to be retained.
    pub fn read(&mut self, event: Event) {
        self.silent &= !event.bit();
        // What the page said includes what was pending.
        self.pending &= !event.bit();
    }

    /// Namespaces that changed.
    pub fn changed(&mut self, namespaces: &[u32]) {
        let Some(changed) = &mut self.changed else { return };
        changed.extend(namespaces);
        if changed.len() > NAMESPACES_PER_LIST {
            self.changed = None;
        }
    }

    /// The changed namespaces, ascending; `None` if there are more than a list holds.
    pub fn changed_list(&self) -> Option<&BTreeSet<u32>> {
        self.changed.as_ref()
    }

    /// The list was read, and not to be retained.
    pub fn forget_changed(&mut self) {
        self.changed = Some(BTreeSet::new());
    }

    /// A reset of the controller: held requests are gone without an answer.
    pub fn reset(&mut self) {
        self.held.clear();
        self.aborted.clear();
        self.pending = 0;
        self.silent = 0;
        self.forget_changed();
    }
}
