//! Requests that outlive connections.
//!
//! The caller numbers its requests: a tag is free again when its completion was popped. A
//! request whose connection ends before its completion is sent again on the next one; it
//! fails only when the timers of [`super::Timers`] say so, or the controller does
//! ([`super::retry`]).

use std::collections::VecDeque;
use std::time::Instant;

use super::association::Association;
use super::bringup::{Controller, Namespace};
use super::command::Command;
use super::error::Error;
use super::memory::{Memory, Tag};
use super::queue::Completion;
use super::recovery::{Advice, Recovery};
use super::retry::{HOST_PATHING_ERROR, Verdict, judge};
use super::settings::Settings;
use super::socket::Connection;

struct Request {
    command: Command,
    link: usize,
    retries: u8,
    /// Not before this it is sent; `None` while it is under way.
    waits_until: Option<Instant>,
    since: Instant,
}

/// How often things happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections made again.
    pub reconnects: u64,
    /// Requests sent again after a loss.
    pub requeued: u64,
    /// Requests tried again after a failure.
    pub retried: u64,
}

/// See the module.
pub struct Attachment {
    settings: Settings,
    association: Option<Association>,
    recovery: Recovery,
    /// The controller was live at least once.
    proved: bool,
    live: bool,
    controller: Controller,
    namespaces: Vec<Namespace>,
    /// By tag.
    requests: Vec<Option<Request>>,
    waiting: VecDeque<Tag>,
    done: VecDeque<Completion>,
    counts: Counts,
    syscalls: u64,
    last_error: Option<Error>,
}

impl Attachment {
    /// Begins to connect. Tags are below `tags`.
    ///
    /// # Errors
    /// If the system refuses at once.
    pub fn begin(now: Instant, settings: Settings, tags: u32) -> Result<Attachment, Error> {
        let association = Association::begin(now, settings.clone())?;
        let tags = tags as usize;
        Ok(Attachment {
            recovery: Recovery::new(settings.timers),
            settings,
            association: Some(association),
            proved: false,
            live: false,
            controller: Controller::default(),
            namespaces: Vec::new(),
            requests: (0..tags).map(|_| None).collect(),
            waiting: VecDeque::with_capacity(tags),
            done: VecDeque::with_capacity(tags),
            counts: Counts::default(),
            syscalls: 0,
            last_error: None,
        })
    }

    /// Commands go out without waiting.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The controller, as it was last identified.
    pub fn controller(&self) -> &Controller {
        &self.controller
    }

    /// The namespaces, as they were last identified.
    pub fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// I/O queues of the connection that there is.
    pub fn links(&self) -> usize {
        self.association.as_ref().map_or(0, Association::links)
    }

    /// The sockets of the I/O queues, to sleep on.
    pub fn sockets(&self) -> impl Iterator<Item = &Connection> {
        self.association.iter().flat_map(Association::sockets)
    }

    /// How often things happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// System calls so far.
    pub fn syscalls(&self) -> u64 {
        self.syscalls + self.association.as_ref().map_or(0, Association::syscalls)
    }

    /// Why the last connection ended.
    pub fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    /// The result of an asynchronous event since the last call.
    pub fn take_event(&mut self) -> Option<u32> {
        self.association.as_mut().and_then(Association::take_event)
    }

    /// Requests that the caller has not popped.
    pub fn under_way(&self) -> usize {
        self.requests.iter().flatten().count() + self.done.len()
    }

    /// Takes a request for an I/O queue, counted round. It is sent with the next poll.
    ///
    /// # Panics
    /// If the tag is in use.
    pub fn submit(
        &mut self,
        now: Instant,
        link: usize,
        command: Command,
        tag: Tag,
        memory: &impl Memory,
    ) {
        let request = Request { command, link, retries: 0, waits_until: Some(now), since: now };
        let old = self.requests[tag.0 as usize].replace(request);
        assert!(old.is_none(), "a tag is used once at a time");
        if !self.waiting.is_empty() || !self.send(now, tag, memory) {
            self.waiting.push_back(tag);
        }
    }

    /// The next completion; its tag is free again.
    pub fn pop(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    /// Sends and receives what goes without waiting, and connects again when it is time.
    ///
    /// # Errors
    /// If the controller is given up. What was under way has failed then, and is to be popped.
    pub fn poll(&mut self, now: Instant, memory: &mut impl Memory) -> Result<(), Error> {
        let result = match &mut self.association {
            Some(association) => association.poll(now, memory),
            None => Ok(()),
        };
        self.collect(now);
        match result {
            Ok(()) => self.welcome(),
            Err(error) => self.lose(now, error)?,
        }
        match self.recovery.tick(now) {
            Advice::Wait => {}
            Advice::Connect => match Association::begin(now, self.settings.clone()) {
                Ok(association) => self.association = Some(association),
                Err(error) => self.lose(now, error)?,
            },
            Advice::GiveUp => {
                self.drop_association();
                self.fail_waiting();
                return Err(self.last_error.take().unwrap_or(Error::ControllerLost));
            }
        }
        if self.recovery.fails_fast(now) {
            self.fail_waiting();
        }
        self.send_waiting(now, memory);
        Ok(())
    }

    /// Takes leave of the controller.
    pub fn close(mut self, now: Instant) {
        if let Some(association) = self.association.as_mut().filter(|_| self.live) {
            association.farewell(now);
        }
    }

    /// Notes that the association has become live.
    fn welcome(&mut self) {
        let Some(association) = self.association.as_ref().filter(|a| !self.live && a.is_live())
        else {
            return;
        };
        self.live = true;
        self.counts.reconnects += u64::from(self.proved);
        self.proved = true;
        self.controller.clone_from(association.controller());
        self.namespaces = association.namespaces().to_vec();
        self.recovery.connected();
    }

    /// Puts everything under way back, and waits for the next attempt.
    fn lose(&mut self, now: Instant, error: Error) -> Result<(), Error> {
        self.drop_association();
        for (n, request) in self.requests.iter_mut().enumerate() {
            let Some(request) = request.as_mut().filter(|r| r.waits_until.is_none()) else {
                continue;
            };
            request.waits_until = Some(now);
            self.waiting.push_back(tag_of(n));
            self.counts.requeued += 1;
        }
        self.recovery.lost(now);
        // What never worked is told at once.
        if !self.proved || error.is_final() {
            self.fail_waiting();
            return Err(error);
        }
        self.last_error = Some(error);
        Ok(())
    }

    fn drop_association(&mut self) {
        self.live = false;
        if let Some(association) = self.association.take() {
            self.syscalls += association.syscalls();
        }
    }

    fn collect(&mut self, now: Instant) {
        if !self.live {
            return;
        }
        let Some(association) = &mut self.association else { return };
        for n in 0..association.links() {
            while let Some(done) = association.link(n).pop() {
                let slot = &mut self.requests[done.tag.0 as usize];
                let request = slot.as_mut().expect("a completion belongs to a request");
                match judge(done.status, request.retries, &self.controller.retry_delays) {
                    Verdict::Retry(delay) if patient(&self.settings, request, now) => {
                        request.retries = request.retries.saturating_add(1);
                        request.waits_until = Some(now + delay);
                        self.waiting.push_back(done.tag);
                        self.counts.retried += 1;
                    }
                    _ => {
                        *slot = None;
                        self.done.push_back(done);
                    }
                }
            }
        }
    }

    /// Submits a request if its queue has room.
    fn send(&mut self, now: Instant, tag: Tag, memory: &impl Memory) -> bool {
        let Some(association) = self.association.as_mut().filter(|_| self.live) else {
            return false;
        };
        let request = self.requests[tag.0 as usize].as_mut().expect("it waits");
        let link = request.link % association.links();
        let sent = association.link(link).submit(now, &request.command, tag, memory);
        if sent {
            request.waits_until = None;
        }
        sent
    }

    fn send_waiting(&mut self, now: Instant, memory: &impl Memory) {
        if !self.live {
            return;
        }
        for _ in 0..self.waiting.len() {
            let tag = self.waiting.pop_front().expect("counted");
            let request = self.requests[tag.0 as usize].as_ref().expect("it waits");
            let due = request.waits_until.is_some_and(|at| at <= now);
            if !due || !self.send(now, tag, memory) {
                self.waiting.push_back(tag);
            }
        }
    }

    fn fail_waiting(&mut self) {
        while let Some(tag) = self.waiting.pop_front() {
            self.requests[tag.0 as usize] = None;
            self.done.push_back(Completion { tag, status: HOST_PATHING_ERROR, result: 0 });
        }
    }
}

/// A request that has failed may wait for another attempt: as long as it might after a loss.
fn patient(settings: &Settings, request: &Request, now: Instant) -> bool {
    let limit = settings.timers.fast_fail.or(settings.timers.controller_loss);
    limit.is_none_or(|limit| now.saturating_duration_since(request.since) < limit)
}

fn tag_of(n: usize) -> Tag {
    Tag(u32::try_from(n).expect("tags have 32 bits"))
}
