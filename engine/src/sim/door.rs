//! NVMe/TCP in a world: a queue of the target on a core, the initiator's queue pair at a host,
//! and a stream between them that delivers any number of bytes at any time.
//!
//! Both are the real ones. Connecting is left out (it has no part in promises), and so are
//! sockets: a stream here never breaks while the process lives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use nvme::Status;
use nvme::entry::{DEAC, DsmRange, FUA};
use nvme::tcp::Digests;
use nvme::tcp::initiator::{Batch, Command, Completion, QueuePair, Tag};
use nvme::tcp::pdu::{IcReq, IcResp};
use rustc_hash::FxHashMap;
use zerocopy::IntoBytes;

use super::playground::Want;
use super::wire::{DoorHost, HostMemory, Pipe, failure, namespaces};
use crate::device::sim::Rng;
use crate::request::{self, Failure, Op};
use crate::target::nvmf::queue::{Queue, Setup};
use crate::target::nvmf::{IN_CAPSULE_BYTES, MAX_H2C_DATA_BYTES, QueueCounters, transport};
use crate::units::ClientId;
use crate::volume::Volumes;

/// Set in the tags of a door's engine requests; the door's number stands below.
const DOOR: u64 = 1 << 63;
/// Bits 1:0 of a command's flags.
const FIRST_OF_TWO: u8 = 1;
const SECOND_OF_TWO: u8 = 2;

/// The door whose request this is, if it is one's.
pub(super) fn door_of(tag: u64) -> Option<usize> {
    (tag & DOOR != 0).then(|| usize::try_from((tag & !DOOR) >> 16).expect("few doors"))
}

/// What a host has under way.
#[derive(Debug)]
struct Open {
    /// Commands to come.
    left: u8,
    /// The first that failed.
    failed: Option<Status>,
}

/// A host's connection to a core.
pub(super) struct Door {
    /// Whose.
    pub client: u64,
    /// The core that it leads to.
    pub core: usize,
    target: Queue,
    /// The target has something to look at beside bytes.
    stirred: bool,
    host: QueuePair,
    memory: HostMemory,
    open: FxHashMap<u32, Open>,
    to_target: VecDeque<u8>,
    to_host: VecDeque<u8>,
    /// Of all commands: nothing here looks at the time.
    since: Instant,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client, core, open, to_target, to_host, .. } = self;
        let bytes = (to_target.len(), to_host.len());
        write!(f, "door of client {client} to core {core}: {open:?} under way, bytes {bytes:?}")
    }
}

impl Door {
    /// A connected queue: `number` among the doors.
    pub(super) fn new(
        number: usize,
        client: u64,
        core: usize,
        volumes: &Volumes,
        rng: &mut Rng,
    ) -> Door {
        let digests = Digests { header: rng.one_in(2), data: rng.one_in(2) };
        let entries = u16::try_from(4 + rng.below(60)).expect("small");
        let setup = Setup {
            tag: DOOR | (number as u64) << 16,
            entries,
            digests,
            flow_control_off: rng.one_in(2),
            client: ClientId::new(1 + client),
            namespaces: namespaces(volumes),
            counters: Arc::new(QueueCounters::default()),
        };
        let in_capsule = [0, 4096, IN_CAPSULE_BYTES][rng.index(3)];
        let mut door = Door {
            client,
            core,
            target: Queue::new(setup, &[]),
            stirred: false,
            host: QueuePair::new(entries - 1, digests, in_capsule),
            memory: HostMemory::default(),
            open: FxHashMap::default(),
            to_target: VecDeque::new(),
            to_host: VecDeque::new(),
            since: Instant::now(),
        };
        door.host_sends(size_of::<IcReq>());
        door.to_target.clear();
        let answer = IcResp::new(digests.bits(), MAX_H2C_DATA_BYTES);
        let taken = door.host.take(answer.as_bytes(), &mut door.memory);
        assert_eq!(taken.ok(), Some(size_of::<IcResp>()), "the queue pair is ready");
        door
    }

    /// The core has learned of other volumes.
    pub(super) fn set_volumes(&mut self, volumes: &Volumes) {
        self.target.set_namespaces(namespaces(volumes));
    }

    /// Such a command could be sent now.
    pub(super) fn takes(&self, want: &Want) -> bool {
        let fits = match want.op {
            Op::Flush => true,
            // A pair of commands compares one logical block.
            Op::CompareAndWrite => want.sectors.1 == 1,
            _ => want.sectors.1 > 0,
        };
        fits && self.host.has_room() && self.host.under_way() + 2 <= self.host.depth().into()
    }

    /// Sends a command with the bytes of [`super::client::Clients::send_out`].
    pub(super) fn send(&mut self, want: &Want, tag: u64, mut bytes: Vec<u8>, rng: &mut Rng) {
        let tag = u32::try_from(tag).expect("few requests in a world") << 1;
        let nsid = want.volume.get();
        let (lba, blocks) = (want.sectors.0, u32::try_from(want.sectors.1).expect("a window"));
        let length = u32::try_from(want.bytes_long()).expect("a window");
        let mut command = match want.op {
            Op::Read => Command::read(nsid, lba, blocks, length),
            Op::Write | Op::CompareAndWrite => Command::write(nsid, lba, blocks, length, want.fua),
            Op::Discard => {
                let range = DsmRange {
                    blocks: blocks.into(),
                    start_lba: lba.into(),
                    ..DsmRange::default()
                };
                bytes = range.as_bytes().to_vec();
                Command::deallocate(nsid, 1)
            }
            Op::WriteZeroes => {
                let mut command = Command::write_zeroes(nsid, lba, blocks);
                let bits = if want.fua { FUA } else { 0 } | if rng.one_in(2) { DEAC } else { 0 };
                command.entry.cdw10[2] = (command.entry.cdw10[2].get() | bits).into();
                command
            }
            Op::Flush => Command::flush(nsid),
            Op::Status => unreachable!("clients do not ask for it"),
        };
        let mut left = 1;
        if want.op == Op::CompareAndWrite {
            let expected = bytes.split_off(want.bytes_long());
            let mut compare = Command::compare(nsid, lba, blocks, length);
            compare.entry.flags |= FIRST_OF_TWO;
            command.entry.flags |= SECOND_OF_TWO;
            left = 2;
            self.submit(&compare, tag | 1, expected);
        }
        self.open.insert(tag, Open { left, failed: None });
        self.submit(&command, tag, bytes);
    }

    fn submit(&mut self, command: &Command, tag: u32, bytes: Vec<u8>) {
        self.memory.0.insert(tag, bytes);
        let taken = self.host.submit(self.since, command, Tag(tag), &self.memory);
        assert!(taken, "there is room for two");
    }

    /// Nothing of it moves before something else happens.
    pub(super) fn is_idle(&self) -> bool {
        !self.host_has_work() && !self.target_has_work()
    }

    /// The host has bytes to take or to send.
    pub(super) fn host_has_work(&self) -> bool {
        self.host.wants_to_send() || !self.to_host.is_empty()
    }

    /// The target has bytes to take or to send.
    pub(super) fn target_has_work(&self) -> bool {
        let input = !self.to_target.is_empty() && self.target.wants_input();
        input || self.stirred || self.target.sender.has_output() || self.target.is_starved()
    }

    /// A request of the target's has ended, on the core.
    pub(super) fn complete(
        &mut self,
        completion: request::Completion,
        host: &mut DoorHost<'_, '_>,
    ) {
        self.target.complete(completion, host);
        self.stirred = true;
    }

    /// One look of the core at its side of the stream.
    pub(super) fn target_turn(&mut self, host: &mut DoorHost<'_, '_>, rng: &mut Rng) {
        self.stirred = false;
        self.pump(host);
        let most = some(rng, self.to_target.len());
        if rng.one_in(2) && most > 0 && self.target.wants_input() {
            let mut pipe = Pipe { bytes: &mut self.to_target, most };
            let taken = transport::receive(&mut pipe, &mut self.target.receiver, host);
            taken.expect("a pipe does not fail");
            self.pump(host);
        } else {
            let mut pipe = Pipe { bytes: &mut self.to_host, most: some(rng, 1 << 20) };
            transport::send(&mut pipe, &mut self.target.sender, host).expect("nor this way");
            self.target.retire(host);
            self.stirred = true;
        }
    }

    fn pump(&mut self, host: &mut DoorHost<'_, '_>) {
        self.target.pump(host).expect("the host keeps to the protocol");
        assert_eq!(self.target.terminated(), None, "so does the target");
    }

    /// The host sends or receives some bytes; true if the core is to look.
    pub(super) fn host_turn(&mut self, rng: &mut Rng) -> bool {
        if self.host.wants_to_send() && rng.one_in(2) {
            self.host_sends(some(rng, 1 << 20));
            return true;
        }
        let most = some(rng, self.to_host.len());
        let bytes = &self.to_host.make_contiguous()[..most];
        let taken = self.host.take(bytes, &mut self.memory).expect("the target keeps to it");
        self.to_host.drain(..taken);
        false
    }

    fn host_sends(&mut self, most: usize) {
        let mut batch = Batch::new();
        self.host.gather(&self.memory, &mut batch);
        let mut left = most;
        for slice in &batch {
            let n = slice.len().min(left);
            self.to_target.extend(&slice[..n]);
            left -= n;
        }
        drop(batch);
        self.host.sent(most - left, &self.memory);
    }

    /// The next request that has ended: its tag, how, and its bytes.
    pub(super) fn ended(&mut self) -> Option<(u64, Result<(), Failure>, Vec<u8>)> {
        while let Some(Completion { tag, status, .. }) = self.host.pop() {
            let whole = tag.0 & !1;
            let bytes = self.memory.0.remove(&tag.0).expect("a command under way");
            let open = self.open.get_mut(&whole).expect("a request under way");
            open.left -= 1;
            // Of a pair, the one that was given up with the other says less.
            if !status.is_success() && status != Status::ABORTED_FAILED_FUSED {
                open.failed = Some(status);
            }
            if open.left == 0 {
                let result = open.failed.map_or(Ok(()), |status| Err(failure(status)));
                self.open.remove(&whole);
                return Some((u64::from(whole >> 1), result, bytes));
            }
        }
        None
    }
}

/// Up to `most`: often all, often few.
fn some(rng: &mut Rng, most: usize) -> usize {
    match rng.below(4) {
        0 => most.min(rng.index(64)),
        1 => rng.index(most + 1),
        _ => most,
    }
}
