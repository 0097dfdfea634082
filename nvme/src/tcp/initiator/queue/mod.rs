//! A queue pair as a state machine: bytes in, bytes out, commands between (TCP 3).
//!
//! It has no socket: [`QueuePair::gather`] says what to send, [`QueuePair::take`] eats what
//! was received, and [`QueuePair::direct`] names the place where the next bytes belong, so
//! that they can be received straight into it. Every length, offset, CCCID and TTAG of the
//! target is checked against the command it names; a violation is answered with a request
//! to terminate, and nothing is believed after it.
//!
//! After it is made nothing is allocated. Not here: what commands mean; time-outs; what
//! becomes of commands under way when the connection ends.

mod receive;

use std::collections::VecDeque;
use std::time::Instant;

use zerocopy::IntoBytes;

use super::command::Command;
use super::memory::{Data, Memory, Tag};
use super::outbox::{Batch, Outbox};
use super::slots::{MAX_DEPTH, Slots};
use crate::tcp::ADMIN_IN_CAPSULE_BYTES;
use crate::tcp::check::{Digests, Stage};
use crate::tcp::digest::{Digest, crc32c};
use crate::tcp::pdu::{CapsuleCmd, CommonHeader, Data as DataPdu, IcReq, kind};
use crate::{SglDescriptor, Status};
use receive::Incoming;

/// Most padding before data: an alignment of 32 dwords.
const PADDING: [u8; 124] = [0; 124];

/// The end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The command.
    pub tag: Tag,
    /// How it ended.
    pub status: Status,
    /// DW0 and DW1.
    pub result: u64,
}

/// See the module.
pub struct QueuePair {
    stage: Stage,
    digests: Digests,
    /// Alignment of data that the controller wants.
    alignment: usize,
    max_h2c: u32,
    in_capsule: u32,
    slots: Slots,
    outbox: Outbox,
    /// Slots whose R2T waits for room in the outbox; each at most once.
    wanting: VecDeque<u16>,
    incoming: Option<Incoming>,
    done: VecDeque<Completion>,
    broken: bool,
}

impl QueuePair {
    /// A queue for `depth` commands, whose ICReq asks for these digests. Commands carry up
    /// to `in_capsule` bytes of data with them.
    ///
    /// # Panics
    /// If `depth` is 0 or above [`MAX_DEPTH`].
    pub fn new(depth: u16, digests: Digests, in_capsule: u32) -> QueuePair {
        const { assert!(MAX_DEPTH == 1024) }
        let mut outbox = Outbox::new(depth);
        outbox.push_head(IcReq::new(digests.bits()).as_bytes());
        QueuePair {
            stage: Stage::Initial,
            digests,
            alignment: 4,
            max_h2c: 0,
            in_capsule,
            slots: Slots::new(depth),
            outbox,
            wanting: VecDeque::with_capacity(depth.into()),
            incoming: None,
            done: VecDeque::with_capacity(depth.into()),
            broken: false,
        }
    }

    /// ICResp has come: commands may be submitted.
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Running && !self.broken
    }

    /// Commands that may be under way at once.
    pub fn depth(&self) -> u16 {
        self.slots.depth()
    }

    /// Commands under way.
    pub fn under_way(&self) -> usize {
        usize::from(self.slots.depth()) - self.slots.free()
    }

    /// Another command would be taken. Completions that were not popped count, too: they
    /// have no room beyond the depth.
    pub fn has_room(&self) -> bool {
        self.is_ready() && self.slots.free() > self.done.len() && self.outbox.has_room()
    }

    /// When the oldest command under way was submitted.
    pub fn oldest(&self) -> Option<Instant> {
        self.slots.busy().map(|slot| slot.since).min()
    }

    /// Takes a command, or leaves it to be tried again when there is room.
    #[must_use]
    pub fn submit(
        &mut self,
        now: Instant,
        command: &Command,
        tag: Tag,
        memory: &impl Memory,
    ) -> bool {
        if !self.has_room() {
            return false;
        }
        let (slot, cid) = self.slots.take(tag, command.data, now).expect("a slot is free");
        let mut entry = command.entry;
        entry.cid = cid.into();
        // Fabrics commands carry their data whatever IOCCSZ says (TCP 3.3.2.1).
        let fabrics = entry.opcode == crate::code::admin::FABRICS;
        let most = if fabrics { ADMIN_IN_CAPSULE_BYTES } else { self.in_capsule };
        let (sgl, carried) = match command.data {
            Data::Out(len) if len <= most => (SglDescriptor::in_capsule(len), len),
            Data::Out(len) | Data::In(len) => (SglDescriptor::transport(len), 0),
            Data::None => (SglDescriptor::transport(0), 0),
        };
        entry.set_sgl(sgl);
        let pdu = CapsuleCmd::new(entry, self.digests.header, self.digests.data, carried);
        self.slots.get_mut(slot).moved = carried;
        self.push(pdu.common, &pdu.as_bytes()[8..], slot, 0, carried, memory);
        true
    }

    /// Appends a PDU with `len` bytes of the slot's data from `at` on.
    fn push(
        &mut self,
        mut common: CommonHeader,
        rest: &[u8],
        slot: u16,
        at: u32,
        len: u32,
        memory: &impl Memory,
    ) {
        let mut padding = 0;
        if len > 0 {
            let pdo = usize::from(common.pdo);
            padding = pdo.next_multiple_of(self.alignment) - pdo;
            let more = u8::try_from(padding).expect("at most 124");
            common.pdo += more;
            common.plen = (common.plen.get() + u32::from(more)).into();
        }
        let mut head = [0; 72];
        let head = &mut head[..8 + rest.len()];
        head[..8].copy_from_slice(common.as_bytes());
        head[8..].copy_from_slice(rest);
        self.outbox.push_head(head);
        if self.digests.header {
            self.outbox.push_head(&crc32c(head).to_le_bytes());
        }
        if len == 0 {
            return;
        }
        if padding > 0 {
            self.outbox.push_head(&PADDING[..padding]);
        }
        let (at, len) = (at as usize, len as usize);
        let slot_ref = self.slots.get_mut(slot);
        slot_ref.queued += 1;
        let tag = slot_ref.tag;
        self.outbox.push_data(slot, tag, at, len);
        if self.digests.data {
            self.outbox.push_head(&digest_of(memory, tag, at, len).to_le_bytes());
        }
    }

    /// What is to be sent, as far as it fits into one vectored write.
    pub fn gather<'a>(&'a self, memory: &'a impl Memory, out: &mut Batch<'a>) {
        self.outbox.gather(memory, out);
    }

    /// Something is to be sent.
    pub fn wants_to_send(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// `n` of the bytes gathered have been sent.
    pub fn sent(&mut self, n: usize, memory: &impl Memory) {
        let (slots, done) = (&mut self.slots, &mut self.done);
        self.outbox.sent(n, |slot| {
            slots.get_mut(slot).queued -= 1;
            release_held(slots, done, slot);
        });
        self.answer_r2ts(memory);
    }

    /// Puts H2CData into the outbox while it has room, one chunk of each command in turn.
    fn answer_r2ts(&mut self, memory: &impl Memory) {
        while self.outbox.has_room() && !self.broken {
            let Some(number) = self.wanting.pop_front() else { return };
            let cid = self.slots.cid(number);
            let slot = self.slots.get_mut(number);
            let wanted = slot.wanted.as_mut().expect("it stands in the queue");
            let (ttag, at, len) = (wanted.ttag, wanted.at, wanted.left.min(self.max_h2c));
            wanted.at += len;
            wanted.left -= len;
            let last = wanted.left == 0;
            if last {
                slot.wanted = None;
            } else {
                self.wanting.push_back(number);
            }
            let pdu = DataPdu::new(kind::H2C_DATA, cid, ttag, at, len, last)
                .with_digests(self.digests.header, self.digests.data);
            self.push(pdu.common, &pdu.as_bytes()[8..], number, at, len, memory);
        }
    }

    /// A completion waits to be taken.
    pub fn has_ended(&self) -> bool {
        !self.done.is_empty()
    }

    /// The next completion.
    pub fn pop(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    /// Everything under way, for a connection that has ended.
    pub fn tags_under_way(&self) -> impl Iterator<Item = Tag> + '_ {
        self.slots.busy().map(|slot| slot.tag)
    }
}

/// Ends a command whose completion has come, if no byte of it is to be sent any more.
fn release_held(slots: &mut Slots, done: &mut VecDeque<Completion>, number: u16) {
    let slot = slots.get(number);
    let Some(entry) = slot.held.filter(|_| !slot.is_sending()) else { return };
    let slot = slots.release(number);
    let status = match entry.status() {
        // What came is not what was sent (TCP 3.4.1.2); another attempt may succeed.
        status if status.is_success() && slot.spoilt => Status::TRANSIENT_TRANSPORT_ERROR,
        status => status,
    };
    done.push_back(Completion { tag: slot.tag, status, result: entry.result.get() });
}

fn digest_of(memory: &impl Memory, tag: Tag, mut at: usize, len: usize) -> u32 {
    let end = at + len;
    let mut digest = Digest::new();
    while at < end {
        let bytes = memory.source(tag, at, end - at);
        digest.update(bytes);
        at += bytes.len();
    }
    digest.value()
}
