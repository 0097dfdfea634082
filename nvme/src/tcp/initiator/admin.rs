//! An admin queue: a script of commands, then keep alive and events.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::bringup::{ADMIN_SQSIZE, Ask, Script, shutdown};
use super::command::Command;
use super::error::Error;
use super::memory::{Memory, Tag};
use super::queue::QueuePair;
use super::socket::Connection;
use crate::code::admin;
use crate::identify::IDENTIFY_BYTES;
use crate::tcp::ADMIN_IN_CAPSULE_BYTES;
use crate::tcp::check::Digests;

/// The command of a script.
const SCRIPT: Tag = Tag(0);
/// Keep Alive.
const KEEP_ALIVE: Tag = Tag(1);
/// Asynchronous Event Request.
const EVENT: Tag = Tag(2);
/// Property Set that shuts down.
const SHUTDOWN: Tag = Tag(3);

/// Data of the one script command under way.
struct Buffers {
    out: Vec<u8>,
    input: Vec<u8>,
}

impl Memory for Buffers {
    fn source(&self, tag: Tag, offset: usize, len: usize) -> &[u8] {
        assert_eq!(tag, SCRIPT, "no other command has data");
        &self.out[offset..][..len]
    }

    fn target(&mut self, tag: Tag, offset: usize, len: usize) -> &mut [u8] {
        assert_eq!(tag, SCRIPT, "no other command has data");
        &mut self.input[offset..][..len]
    }
}

/// See the module.
pub(super) struct AdminQueue {
    connection: Connection,
    buffers: Buffers,
    timeout: Duration,
    kato: Duration,
    /// When the script's command was sent.
    asked: Option<Instant>,
    /// When the last Keep Alive was sent, and whether it was answered.
    kept_alive: Option<(Instant, bool)>,
    listens: bool,
    /// Result of an event that nobody has looked at.
    event: Option<u32>,
}

impl AdminQueue {
    pub fn begin(
        now: Instant,
        address: SocketAddr,
        digests: Digests,
        (timeout, kato): (Duration, Duration),
    ) -> Result<AdminQueue, Error> {
        let queue = QueuePair::new(ADMIN_SQSIZE, digests, ADMIN_IN_CAPSULE_BYTES);
        Ok(AdminQueue {
            connection: Connection::begin(now, address, queue)?,
            buffers: Buffers { out: Vec::new(), input: vec![0; IDENTIFY_BYTES] },
            timeout,
            kato,
            asked: None,
            kept_alive: None,
            listens: false,
            event: None,
        })
    }

    pub fn syscalls(&self) -> u64 {
        self.connection.syscalls()
    }

    /// An event since the last call.
    pub fn take_event(&mut self) -> Option<u32> {
        self.event.take()
    }

    /// Goes on with a script and with what the queue has to do by itself once it is
    /// `live`; true if the script wants I/O queues or is done.
    pub fn poll(
        &mut self,
        now: Instant,
        script: &mut impl Script,
        live: bool,
    ) -> Result<bool, Error> {
        self.connection.poll(now, &mut self.buffers)?;
        let late = match self.asked {
            Some(at) => now.saturating_duration_since(at) > self.timeout,
            None if !self.connection.queue().is_ready() => {
                return self.connection.check_time(now, self.timeout).map(|()| false);
            }
            None => false,
        };
        while let Some(done) = self.connection.queue().pop() {
            match done.tag {
                SCRIPT => {
                    self.asked = None;
                    let data = &self.buffers.input;
                    script.answer(now, done.status, done.result, data)?;
                }
                KEEP_ALIVE => self.kept_alive = Some((now, true)),
                EVENT => {
                    // A limit that is reached means no more of them (Base 5.2).
                    self.listens = !done.status.is_success();
                    let [a, b, c, d, ..] = done.result.to_le_bytes();
                    self.event = Some(u32::from_le_bytes([a, b, c, d]));
                }
                _ => {}
            }
        }
        if late && self.asked.is_some() {
            return Err(Error::Silent);
        }
        if live {
            self.tend(now)?;
        }
        self.go_on(now, script)
    }

    fn go_on(&mut self, now: Instant, script: &mut impl Script) -> Result<bool, Error> {
        if self.asked.is_some() {
            return Ok(false);
        }
        let command = match script.ask(now) {
            Ask::Wait => return Ok(false),
            Ask::IoQueues | Ask::Done => return Ok(true),
            Ask::Command(command) => command,
        };
        self.buffers.out.clear();
        self.buffers.out.extend_from_slice(script.data());
        self.buffers.input.fill(0);
        if self.submit(now, &command, SCRIPT) {
            self.asked = Some(now);
            self.connection.poll(now, &mut self.buffers)?;
        }
        Ok(false)
    }

    /// Keep Alive at half its time-out (Base 3.9), and one event request (Base 5.2).
    fn tend(&mut self, now: Instant) -> Result<(), Error> {
        if !self.listens {
            self.listens = self.submit(now, &Command::plain(admin::ASYNC_EVENT_REQUEST, 0), EVENT);
        }
        if self.kato.is_zero() {
            return Ok(());
        }
        let (at, answered) = *self.kept_alive.get_or_insert((now, true));
        let since = now.saturating_duration_since(at);
        if !answered && since > self.kato {
            return Err(Error::Silent);
        }
        if answered
            && since >= self.kato / 2
            && self.submit(now, &Command::plain(admin::KEEP_ALIVE, 0), KEEP_ALIVE)
        {
            self.kept_alive = Some((now, false));
        }
        self.connection.poll(now, &mut self.buffers)
    }

    /// Tells the controller to shut down, without waiting for the answer.
    pub fn farewell(&mut self, now: Instant) {
        if self.submit(now, &shutdown(), SHUTDOWN) {
            // A connection that is lost needs no farewell.
            let _ = self.connection.poll(now, &mut self.buffers);
        }
    }

    fn submit(&mut self, now: Instant, command: &Command, tag: Tag) -> bool {
        self.connection.queue().submit(now, command, tag, &self.buffers)
    }
}
