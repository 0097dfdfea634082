//! A [`Host`] in memory, for tests: it completes requests out of order, by
//! seed, and asserts the contract of [`crate::request`].

use std::collections::HashMap;

use crate::request::{Buf, Completion, Failure, Host, Op, Request, VolumeView, buffer_bytes};
use crate::units::{BLOCK_BYTES, SEGMENT_BYTES, VolumeId, WINDOW_BYTES};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Requests that touch a range fail.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The operation.
    pub op: Op,
    /// Bytes of any volume.
    pub range: std::ops::Range<u64>,
    /// How it fails.
    pub failure: Failure,
}

struct Disk {
    data: Vec<u8>,
    allocated: Vec<bool>,
}

/// The host.
pub struct Fake {
    volumes: Vec<VolumeView>,
    disks: HashMap<VolumeId, Disk>,
    buffers: Vec<Option<Vec<u8>>>,
    held_bytes: usize,
    queue: Vec<Request>,
    random: u64,
    /// Bytes of buffers that there are.
    pub arena_bytes: usize,
    /// Requests that may be under way.
    pub depth: usize,
    /// What fails.
    pub faults: Vec<Fault>,
    /// What was submitted: operation, offset, length, FUA.
    pub log: Vec<(Op, u64, u32, bool)>,
    /// Most bytes of buffers that were ever held.
    pub peak_bytes: usize,
}

/// A volume of the fake.
pub fn volume(id: u32, name: &str, size_bytes: u64, block_bytes: u32) -> VolumeView {
    let (id, name) = (VolumeId::new(id), name.into());
    VolumeView { id, name, size_bytes, block_bytes, read_only: false }
}

impl Fake {
    /// A host of these volumes; `seed` orders its completions.
    pub fn new(volumes: Vec<VolumeView>, seed: u64) -> Fake {
        let disk = |v: &VolumeView| {
            let bytes = usize::try_from(v.size_bytes).expect("fits memory");
            Disk { data: vec![0; bytes], allocated: vec![false; bytes.div_ceil(BLOCK_BYTES)] }
        };
        Fake {
            disks: volumes.iter().map(|v| (v.id, disk(v))).collect(),
            volumes,
            buffers: Vec::new(),
            held_bytes: 0,
            queue: Vec::new(),
            random: seed | 1,
            arena_bytes: 64 << 20,
            depth: 256,
            faults: Vec::new(),
            log: Vec::new(),
            peak_bytes: 0,
        }
    }

    /// A volume's bytes.
    pub fn data(&mut self, id: VolumeId) -> &mut [u8] {
        &mut self.disks.get_mut(&id).expect("a volume").data
    }

    /// Marks a volume's blocks as allocated.
    pub fn allocate(&mut self, id: VolumeId, blocks: std::ops::Range<usize>) {
        self.disks.get_mut(&id).expect("a volume").allocated[blocks].fill(true);
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of buffers with the target or in requests.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Completes any one request.
    pub fn step(&mut self) -> Option<Completion> {
        if self.queue.is_empty() {
            return None;
        }
        // xorshift64: the order only has to vary by seed.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let pick = usize::try_from(self.random % self.queue.len() as u64).expect("an index");
        let mut request = self.queue.swap_remove(pick);
        let result = self.execute(&mut request);
        Some(Completion { tag: request.tag, buf: request.buf, result })
    }

    fn execute(&mut self, request: &mut Request) -> Result<(), Failure> {
        let (offset, length) = (request.offset.get(), u64::from(request.length));
        let touches = |f: &&Fault| {
            let flush = request.op == Op::Flush;
            f.op == request.op
                && (flush || (f.range.start < offset + length && offset < f.range.end))
        };
        if let Some(fault) = self.faults.iter().find(touches) {
            return Err(fault.failure);
        }
        let disk = self.disks.get_mut(&request.volume).expect("checked at submit");
        let (start, end) = (index(offset), index(offset + length));
        let blocks = index(offset / BLOCK)..index((offset + length).div_ceil(BLOCK));
        let head = index(offset % BLOCK);
        let buffer = request.buf.as_ref().map(|buf| buf.page as usize);
        let bytes = buffer.map(|page| self.buffers[page].as_mut().expect("a live buffer"));
        match (request.op, bytes) {
            (Op::Read, Some(bytes)) => {
                bytes[head..][..end - start].copy_from_slice(&disk.data[start..end]);
            }
            (Op::Write, Some(bytes)) => {
                disk.data[start..end].copy_from_slice(&bytes[head..][..end - start]);
                disk.allocated[blocks].fill(true);
            }
            (Op::CompareAndWrite, Some(bytes)) => {
                let (new, expected) = bytes.split_at(BLOCK_BYTES);
                if disk.data[start..end] != expected[head..][..end - start] {
                    return Err(Failure::Miscompare);
                }
                disk.data[start..end].copy_from_slice(&new[head..][..end - start]);
                disk.allocated[blocks].fill(true);
            }
            (Op::Status, Some(bytes)) => {
                for (out, allocated) in bytes.iter_mut().zip(&disk.allocated[blocks]) {
                    *out = u8::from(*allocated);
                }
            }
            (Op::Discard | Op::WriteZeroes, None) => {
                disk.data[start..end].fill(0);
                let whole = index(offset.div_ceil(BLOCK))..index((offset + length) / BLOCK);
                if whole.start < whole.end {
                    disk.allocated[whole].fill(false);
                }
            }
            (Op::Flush, None) => {}
            (op, _) => panic!("{op:?} with the wrong kind of buffer"),
        }
        Ok(())
    }
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("fits memory")
}

impl Host for Fake {
    fn alloc(&mut self, bytes: usize) -> Option<Buf> {
        let pages = bytes.div_ceil(BLOCK_BYTES).next_power_of_two();
        let bytes = pages * BLOCK_BYTES;
        if self.held_bytes + bytes > self.arena_bytes {
            return None;
        }
        self.held_bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.held_bytes);
        let page = self.buffers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.buffers.push(None);
            self.buffers.len() - 1
        });
        // Not zeros, so that bytes nobody wrote are noticed.
        self.buffers[page] = Some(vec![0xa5; bytes]);
        let order = u8::try_from(pages.trailing_zeros()).expect("a log2");
        Some(Buf { arena: 0, order, page: u32::try_from(page).expect("few buffers") })
    }

    fn free(&mut self, buf: Buf) {
        let bytes = self.buffers[buf.page as usize].take().expect("freed once");
        self.held_bytes -= bytes.len();
    }

    fn bytes<'a>(&'a self, buf: &'a Buf) -> &'a [u8] {
        self.buffers[buf.page as usize].as_deref().expect("a live buffer")
    }

    fn bytes_mut<'a>(&'a mut self, buf: &'a mut Buf) -> &'a mut [u8] {
        self.buffers[buf.page as usize].as_deref_mut().expect("a live buffer")
    }

    fn can_submit(&self) -> bool {
        self.queue.len() < self.depth
    }

    fn submit(&mut self, request: Request) {
        assert!(self.can_submit());
        let volume = self.volumes.iter().find(|v| v.id == request.volume).expect("a volume");
        let (offset, length) = (request.offset.get(), u64::from(request.length));
        let unit = if request.op == Op::Status { SEGMENT_BYTES } else { WINDOW_BYTES };
        assert_eq!(request.op == Op::Flush, length == 0, "only a flush is empty");
        assert!(length == 0 || offset / unit == (offset + length - 1) / unit, "crosses a boundary");
        assert!(offset.is_multiple_of(volume.block_bytes.into()));
        assert!(length.is_multiple_of(volume.block_bytes.into()));
        assert!(offset + length <= volume.size_bytes);
        if request.op == Op::CompareAndWrite {
            assert!(offset / BLOCK == (offset + length - 1) / BLOCK, "within one block");
        }
        if let Some(buf) = &request.buf {
            let need = match request.op {
                Op::CompareAndWrite => 2 * BLOCK_BYTES,
                Op::Status => buffer_bytes(offset, request.length) / BLOCK_BYTES,
                _ => buffer_bytes(offset, request.length),
            };
            assert!(self.bytes(buf).len() >= need, "a buffer that is too small");
        }
        self.log.push((request.op, offset, request.length, request.fua));
        self.queue.push(request);
    }

    fn volumes(&self) -> &[VolumeView] {
        &self.volumes
    }
}
