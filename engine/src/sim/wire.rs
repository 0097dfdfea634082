//! What stands around the two ends of a [`super::door`]: memory, stream, and the core as its
//! target sees it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;

use nvme::Status;
use nvme::log::AnaState;
use nvme::tcp::initiator::{Memory, Tag, describe};
use rustc_hash::FxHashMap;

use super::core::SimCore;
use super::shared::SimSink;
use crate::device::sim::SECTOR_BYTES;
use crate::request::{Buf, Failure, Host, Request, VolumeView};
use crate::table::sink::Sink;
use crate::target::nvmf::{Namespace, Namespaces};
use crate::volume::composer::Foresight;
use crate::volume::{Volume, Volumes};

/// Bytes of commands by their tags.
#[derive(Debug, Default)]
pub(super) struct HostMemory(pub FxHashMap<u32, Vec<u8>>);

impl Memory for HostMemory {
    fn source(&self, tag: Tag, offset: usize, len: usize) -> &[u8] {
        &self.0[&tag.0][offset..][..len]
    }
    fn target(&mut self, tag: Tag, offset: usize, len: usize) -> &mut [u8] {
        &mut self.0.get_mut(&tag.0).expect("a command under way")[offset..][..len]
    }
}

/// One end of a stream that moves at most `most` bytes.
pub(super) struct Pipe<'a> {
    pub bytes: &'a mut VecDeque<u8>,
    pub most: usize,
}

impl Read for Pipe<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = out.len().min(self.most);
        self.most -= n;
        match self.bytes.read(&mut out[..n])? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.most);
        self.most -= n;
        self.bytes.write(&bytes[..n])
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A core, as a target on it sees it.
pub(super) struct DoorHost<'a, 'b> {
    pub core: &'a mut SimCore,
    pub sink: &'a mut SimSink<'b>,
    /// Stage what misses.
    pub stage: bool,
}

impl Host for DoorHost<'_, '_> {
    fn alloc(&mut self, bytes: usize) -> Option<Buf> {
        self.sink.alloc(bytes)
    }
    fn free(&mut self, buf: Buf) {
        self.sink.free(buf);
    }
    fn bytes<'a>(&'a self, buf: &'a Buf) -> &'a [u8] {
        self.sink.bytes(buf.mem(), buf.capacity())
    }
    fn bytes_mut<'a>(&'a mut self, buf: &'a mut Buf) -> &'a mut [u8] {
        self.sink.bytes_mut(buf.mem(), buf.capacity())
    }
    fn can_submit(&self) -> bool {
        self.core.composer.can_submit()
    }
    fn submit(&mut self, request: Request) {
        let foresight = Foresight { whole: self.stage, watched: false };
        self.core.composer.submit(request, foresight, self.sink);
    }
    fn volumes(&self) -> &[VolumeView] {
        unreachable!("queues know their namespaces")
    }
}

/// What the status says of the engine.
pub(super) fn failure(status: Status) -> Failure {
    match status {
        _ if status == Status::LBA_OUT_OF_RANGE.with_dnr()
            || status == Status::INVALID_NAMESPACE.with_dnr() =>
        {
            Failure::OutOfRange
        }
        _ if status == Status::CAPACITY_EXCEEDED.with_dnr() => Failure::NoSpace,
        _ if status == Status::UNRECOVERED_READ.with_dnr()
            || status == Status::WRITE_FAULT.with_dnr() =>
        {
            Failure::Media
        }
        _ if status == Status::COMPARE_FAILURE.with_dnr() => Failure::Miscompare,
        Status::INTERNAL => Failure::Device,
        other => panic!("no failure of the engine is {}", describe(other)),
    }
}

/// Each volume is the namespace of its number.
pub(super) fn namespaces(volumes: &Volumes) -> Arc<Namespaces> {
    let namespace = |volume: &Volume| Namespace {
        nsid: volume.view.id.get(),
        volume: volume.view.id,
        block_bytes: volume.view.block_bytes,
        size_bytes: volume.view.size_bytes,
        read_only: volume.view.read_only,
        ana_state: AnaState::Optimized,
        ana_group: 1,
    };
    assert_eq!(SECTOR_BYTES, 512, "a sector is a logical block");
    Arc::new(Namespaces::new(volumes.list().iter().map(namespace).collect()))
}
