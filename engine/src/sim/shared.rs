//! What the simulated cores share: disks, arenas, space, and the way between them.

use std::collections::VecDeque;

pub use super::pool_io::SimPool;
use crate::core::buddy::Buddy;
use crate::device::sim::{Ended, How, Rng, SimDisk};
use crate::pool::space_map::SpaceMap;
use crate::request::{Buf, Completion};
use crate::table::sink::{Done, Io, IoResult, Mem, Met, Sink};
use crate::units::{BLOCK_BYTES, CoreId, DeviceId};
use crate::volume::composer::{Composer, Message, Outlet, Watched};

/// Pages of a simulated core's arena: 40 MiB.
const ARENA_PAGES: u32 = 10 * 1024;
const POISON: [u8; 32] = [0xdb; 32];

/// One core's memory.
#[derive(Debug)]
pub struct SimArena {
    memory: Vec<u8>,
    buddy: Buddy,
}

impl SimArena {
    fn new() -> Self {
        Self { memory: vec![0; ARENA_PAGES as usize * BLOCK_BYTES], buddy: Buddy::new(ARENA_PAGES) }
    }
}

/// Everything outside the state machines that dies with the process, and the disks, which do not.
#[derive(Debug)]
pub struct Shared {
    /// The disks.
    pub disks: Vec<SimDisk>,
    /// Chunks and extents.
    pub space: SpaceMap,
    /// Arenas, by core.
    pub arenas: Vec<SimArena>,
    /// Messages not yet in their ring, by sender and receiver.
    pub leaving: Vec<Vec<VecDeque<Message>>>,
    /// Messages of cores to themselves.
    pub local: Vec<VecDeque<Message>>,
    /// Completions not yet seen by their client.
    pub completions: Vec<Completion>,
    /// What watched requests have met.
    pub met: Vec<(Watched, Met)>,
    /// Ends of what the control thread asked for.
    pub control: Vec<Done>,
    /// Refuses memory and extents once in so many times; 0: never.
    pub refuses: u64,
    rng: Rng,
}

/// Origins of the control thread start with this byte.
pub const CONTROL: u8 = 0xff;

impl Shared {
    /// Mailboxes and memory for `cores` cores over existing disks. Memory of a dead process is
    /// used again as it is: nobody may believe what it finds there.
    pub fn new(
        disks: Vec<SimDisk>,
        space: SpaceMap,
        cores: u8,
        mut arenas: Vec<SimArena>,
        rng: Rng,
    ) -> Self {
        for arena in &mut arenas {
            arena.buddy = Buddy::new(ARENA_PAGES);
        }
        while arenas.len() < usize::from(cores) {
            arenas.push(SimArena::new());
        }
        let queues = || (0..cores).map(|_| VecDeque::new()).collect();
        Self {
            disks,
            space,
            arenas,
            leaving: (0..cores).map(|_| queues()).collect(),
            local: queues(),
            completions: Vec::new(),
            met: Vec::new(),
            control: Vec::new(),
            refuses: 0,
            rng,
        }
    }

    /// The bytes that an operation moves, copied.
    pub fn io_bytes(arenas: &[SimArena], io: &Io) -> Vec<u8> {
        let start = usize::try_from(io.mem.byte).expect("an arena offset");
        arenas[usize::from(io.mem.arena)].memory[start..start + io.bytes as usize].to_vec()
    }

    /// Completes an operation of a disk: now its bytes move.
    pub fn complete_io(&mut self, disk: usize, at: usize, how: How) -> Ended {
        let io = *self.disks[disk].peek(at);
        let start = usize::try_from(io.mem.byte).expect("an arena offset");
        let memory = &mut self.arenas[usize::from(io.mem.arena)].memory;
        self.disks[disk].complete(at, &mut memory[start..start + io.bytes as usize], how)
    }

    /// Fails an operation of a disk: a write may have happened in part.
    pub fn fail_io(&mut self, disk: usize, at: usize, rng: &mut Rng) -> Ended {
        let bytes = Self::io_bytes(&self.arenas, self.disks[disk].peek(at));
        self.disks[disk].fail(at, &bytes, rng)
    }

    /// Pages that a core has given out.
    pub fn taken_pages(&self, core: usize) -> u32 {
        ARENA_PAGES - self.arenas[core].buddy.free_pages()
    }

    /// A buffer of a core.
    pub fn alloc(&mut self, core: CoreId, bytes: usize) -> Option<Buf> {
        let pages = bytes.div_ceil(BLOCK_BYTES).next_power_of_two();
        let order = u8::try_from(pages.trailing_zeros()).expect("small");
        let page = self.arenas[usize::from(core.get())].buddy.alloc(order)?;
        Some(Buf { arena: core.get(), order, page })
    }

    /// Frees a buffer and poisons a part of every sector: enough to break checksums and values.
    pub fn free(&mut self, buf: Buf) {
        let arena = &mut self.arenas[usize::from(buf.arena)];
        let start = buf.page as usize * BLOCK_BYTES;
        let bytes = &mut arena.memory[start..start + buf.capacity()];
        for sector in bytes.chunks_exact_mut(512) {
            sector[..POISON.len()].copy_from_slice(&POISON);
        }
        arena.buddy.free(buf.page, buf.order);
    }

    /// Bytes of a buffer.
    pub fn bytes_mut(&mut self, at: Mem, len: usize) -> &mut [u8] {
        let start = usize::try_from(at.byte).expect("an arena offset");
        &mut self.arenas[usize::from(at.arena)].memory[start..start + len]
    }

    fn refuses_now(&mut self) -> bool {
        self.refuses > 0 && self.rng.one_in(self.refuses)
    }
}

/// The sink of one core.
pub struct SimSink<'a> {
    /// Everything shared.
    pub shared: &'a mut Shared,
    /// Which core.
    pub core: CoreId,
}

impl Sink for SimSink<'_> {
    fn alloc(&mut self, bytes: usize) -> Option<Buf> {
        if self.shared.refuses_now() { None } else { self.shared.alloc(self.core, bytes) }
    }
    fn free(&mut self, buf: Buf) {
        assert_eq!(buf.arena, self.core.get(), "a core frees its own buffers");
        self.shared.free(buf);
    }
    fn spare_bytes(&self) -> u64 {
        let free = self.shared.arenas[usize::from(self.core.get())].buddy.free_pages();
        u64::from(free) * BLOCK_BYTES as u64
    }
    fn bytes(&self, at: Mem, len: usize) -> &[u8] {
        let start = usize::try_from(at.byte).expect("an arena offset");
        &self.shared.arenas[usize::from(at.arena)].memory[start..start + len]
    }
    fn bytes_mut(&mut self, at: Mem, len: usize) -> &mut [u8] {
        self.shared.bytes_mut(at, len)
    }
    fn copy(&mut self, from: Mem, to: Mem, len: usize) {
        let bytes = self.bytes(from, len).to_vec();
        self.shared.bytes_mut(to, len).copy_from_slice(&bytes);
    }
    /// Nothing waits here for others to end.
    fn hurry(&mut self, _token: u64) {}
    fn io(&mut self, io: Io) {
        self.shared.disks[usize::from(io.device.get())].submit(io, self.core);
    }
    fn claim_chunk(&mut self, device: DeviceId, urgent: bool) -> Option<u32> {
        self.shared.space.claim_chunk(usize::from(device.get()), urgent)
    }
    fn release_chunk(&mut self, device: DeviceId, chunk: u32) {
        self.shared.space.chunks[usize::from(device.get())].release(chunk);
    }
    fn chunks(&self, device: DeviceId) -> (u32, u32) {
        let map = &self.shared.space.chunks[usize::from(device.get())];
        (map.free(), map.len())
    }
    fn ask_space(&mut self, of: CoreId) {
        self.send(of, Message::AskSpace(self.core));
    }
    fn give_space(&mut self, to: CoreId, chunk: Option<(DeviceId, u32)>) {
        self.send(to, Message::GiveSpace(chunk));
    }
    fn ask_flush(&mut self, of: CoreId, device: DeviceId) {
        self.send(of, Message::AskFlush(device, self.core));
    }
    fn tell_flushed(&mut self, to: CoreId, device: DeviceId, result: IoResult) {
        self.send(to, Message::Flushed(device, result));
    }
    fn claim_extent(&mut self) -> Option<u32> {
        if self.shared.refuses_now() { None } else { self.shared.space.extents.claim(0) }
    }
    fn release_extent(&mut self, extent: u32) {
        self.shared.space.extents.release(extent);
    }
    fn fail_device(&mut self, device: DeviceId) {
        self.shared.space.fail_device(device);
    }
    fn has_failed(&self, device: DeviceId) -> bool {
        self.shared.space.has_failed(device)
    }
    fn done(&mut self, done: Done) {
        let home = Composer::home(done.origin);
        if home.get() == CONTROL {
            return self.shared.control.push(done);
        }
        self.send(home, Message::Done(done));
    }
}

impl Outlet for SimSink<'_> {
    fn send(&mut self, to: CoreId, message: Message) {
        let from = usize::from(self.core.get());
        if to == self.core {
            self.shared.local[from].push_back(message);
        } else {
            self.shared.leaving[from][usize::from(to.get())].push_back(message);
        }
    }
    fn complete(&mut self, completion: Completion) {
        self.shared.completions.push(completion);
    }
    fn met(&mut self, watched: Watched, met: Met) {
        self.shared.met.push((watched, met));
    }
}
