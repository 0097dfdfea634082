//! What the simulated cores share: disks, arenas, space, and the way between them.

use std::collections::VecDeque;
use std::io;

use crate::core::buddy::Buddy;
use crate::device::sim::{Rng, SimDisk};
use crate::journal::recover::{IoError, PoolIo};
use crate::pool::space_map::SpaceMap;
use crate::request::{Buf, Completion};
use crate::table::sink::{Done, Io, Mem, Sink};
use crate::units::{BLOCK_BYTES, CoreId, DeviceId, DeviceOffset};
use crate::volume::composer::{Composer, Message, Outlet};

/// Pages of a simulated core's arena: 40 MiB.
const ARENA_PAGES: u32 = 10 * 1024;
const POISON: u8 = 0xdb;

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
    /// Messages under way, by receiver and sender.
    pub mail: Vec<Vec<VecDeque<Message>>>,
    /// Completions not yet seen by their client.
    pub completions: Vec<Completion>,
    /// Ends of what the control thread asked for.
    pub control: Vec<Done>,
}

/// Origins of the control thread start with this byte.
pub const CONTROL: u8 = 0xff;

impl Shared {
    /// Fresh memory and mailboxes for `cores` cores over existing disks.
    pub fn new(disks: Vec<SimDisk>, space: SpaceMap, cores: u8) -> Self {
        let row = || (0..cores).map(|_| VecDeque::new()).collect();
        Self {
            disks,
            space,
            arenas: (0..cores).map(|_| SimArena::new()).collect(),
            mail: (0..cores).map(|_| row()).collect(),
            completions: Vec::new(),
            control: Vec::new(),
        }
    }

    /// The bytes that an operation moves, copied.
    pub fn io_bytes(arenas: &[SimArena], io: &Io) -> Vec<u8> {
        let start = usize::try_from(io.mem.byte).expect("an arena offset");
        arenas[usize::from(io.mem.arena)].memory[start..start + io.bytes as usize].to_vec()
    }

    /// Completes an operation of a disk.
    pub fn complete_io(&mut self, disk: usize, at: usize) -> (Io, CoreId) {
        let io = *self.disks[disk].peek(at);
        let start = usize::try_from(io.mem.byte).expect("an arena offset");
        let memory = &mut self.arenas[usize::from(io.mem.arena)].memory;
        self.disks[disk].complete(at, &mut memory[start..start + io.bytes as usize])
    }

    /// Fails an operation of a disk: a write may have happened in part.
    pub fn fail_io(&mut self, disk: usize, at: usize, rng: &mut Rng) -> (Io, CoreId) {
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

    /// Frees a buffer and poisons it.
    pub fn free(&mut self, buf: Buf) {
        let arena = &mut self.arenas[usize::from(buf.arena)];
        let start = buf.page as usize * BLOCK_BYTES;
        arena.memory[start..start + buf.capacity()].fill(POISON);
        arena.buddy.free(buf.page, buf.order);
    }

    /// Bytes of a buffer.
    pub fn bytes_mut(&mut self, at: Mem, len: usize) -> &mut [u8] {
        let start = usize::try_from(at.byte).expect("an arena offset");
        &mut self.arenas[usize::from(at.arena)].memory[start..start + len]
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
        self.shared.alloc(self.core, bytes)
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
    fn claim_extent(&mut self) -> Option<u32> {
        self.shared.space.extents.claim(0)
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
        let row = &mut self.shared.mail[usize::from(to.get())];
        row[usize::from(self.core.get())].push_back(message);
    }
    fn complete(&mut self, completion: Completion) {
        self.shared.completions.push(completion);
    }
}

/// Synchronous access for making, opening and recovering; stops after a number of steps.
pub struct SimPool<'a> {
    /// The disks.
    pub disks: &'a mut Vec<SimDisk>,
    /// Steps left; `None`: no crash.
    pub fuel: Option<u64>,
    /// Chooses what an interrupted write leaves.
    pub rng: &'a mut Rng,
}

impl SimPool<'_> {
    fn burn(&mut self, device: DeviceId) -> Result<(), IoError> {
        match &mut self.fuel {
            Some(0) => Err(IoError { device, cause: io::Error::other("simulated crash") }),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl PoolIo for SimPool<'_> {
    fn read(
        &mut self,
        device: DeviceId,
        offset: DeviceOffset,
        buf: &mut [u8],
    ) -> Result<(), IoError> {
        let first = offset.get() / BLOCK_BYTES as u64;
        for (block, out) in (first..).zip(buf.chunks_exact_mut(BLOCK_BYTES)) {
            self.disks[usize::from(device.get())].read_block(block, out);
        }
        Ok(())
    }
    fn write(&mut self, device: DeviceId, offset: DeviceOffset, buf: &[u8]) -> Result<(), IoError> {
        let crash = self.burn(device);
        let first = offset.get() / BLOCK_BYTES as u64;
        for (block, bytes) in (first..).zip(buf.chunks_exact(BLOCK_BYTES)) {
            if crash.is_ok() || self.rng.one_in(2) {
                self.disks[usize::from(device.get())].write_block(block, bytes);
            }
        }
        crash
    }
    fn flush(&mut self, device: DeviceId) -> Result<(), IoError> {
        self.burn(device)?;
        self.disks[usize::from(device.get())].flush();
        Ok(())
    }
    fn devices(&self) -> u8 {
        u8::try_from(self.disks.len()).expect("few disks")
    }
}
