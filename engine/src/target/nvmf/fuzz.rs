//! Drives the PDU layer and the I/O queue without a socket: fuzz targets (see
//! [`crate::fuzz`]), and tests.
//!
//! Nothing may panic, what a queue holds stays bounded, and what it sends are PDUs that a
//! host's checks find good.

use std::sync::Arc;

use nvme::log::AnaState;
use nvme::tcp::pdu::CommonHeader;
use nvme::tcp::{Digests, Fatal, Received, Receiver as Side, Stage, check, crc32c};
use zerocopy::FromBytes;

use super::queue::{BUFFER_BYTES, Queue, Setup};
use super::transport::{Event, Heap, Receiver, Target};
use super::{Namespace, Namespaces, QueueCounters};
use crate::target::fake::{Fake, volume};
use crate::units::{ClientId, VolumeId};

/// A PDU that was sent, and its data.
#[derive(Debug)]
pub struct Sent {
    /// Its header.
    pub header: Received,
    /// Flags of the common header.
    pub flags: u8,
    /// Its data.
    pub data: Vec<u8>,
}

/// A queue, its host, and what it has sent.
pub struct Harness {
    /// The queue.
    pub queue: Queue,
    /// Its host.
    pub host: Fake,
    /// Everything sent so far.
    pub sent: Vec<u8>,
    digests: Digests,
}

/// Namespaces 1 and 2 of [`Harness::host`]: blocks of 512 and 4096 bytes. Number 3 is the
/// first one read-only, 4 to 6 cannot be reached.
pub fn namespaces() -> Namespaces {
    let namespace = |nsid, volume, block_bytes, read_only, ana_state| Namespace {
        nsid,
        volume: VolumeId::new(volume),
        block_bytes,
        size_bytes: VOLUME_BYTES,
        read_only,
        ana_state,
        ana_group: 1,
    };
    Namespaces::new(vec![
        namespace(1, 1, 512, false, AnaState::Optimized),
        namespace(2, 2, 4096, false, AnaState::NonOptimized),
        namespace(3, 1, 512, true, AnaState::Optimized),
        namespace(4, 1, 512, false, AnaState::Inaccessible),
        namespace(5, 1, 512, false, AnaState::PersistentLoss),
        namespace(6, 1, 512, false, AnaState::Change),
    ])
}

/// Bytes of the volumes behind [`namespaces`].
pub const VOLUME_BYTES: u64 = 4 << 20;

impl Harness {
    /// A queue of `entries` over both volumes; `seed` orders completions.
    pub fn new(entries: u16, digests: Digests, flow_control_off: bool, seed: u64) -> Harness {
        let volumes = vec![volume(1, "a", VOLUME_BYTES, 512), volume(2, "b", VOLUME_BYTES, 4096)];
        let setup = Setup {
            tag: 7 << 48,
            entries,
            digests,
            flow_control_off,
            client: ClientId::of("nqn.2014-08.org.nvmexpress:uuid:host"),
            namespaces: Arc::new(namespaces()),
            counters: Arc::new(QueueCounters::default()),
        };
        let (queue, host) = (Queue::new(setup, &[]), Fake::new(volumes, seed));
        Harness { queue, host, sent: Vec::new(), digests }
    }

    /// Receives `bytes`, `step` at a time, completing requests when there is no room. Ends
    /// early when the queue takes no more.
    ///
    /// # Errors
    /// When the bytes break the protocol.
    pub fn feed(&mut self, bytes: &[u8], step: usize) -> Result<(), Fatal> {
        let mut left = bytes;
        while !left.is_empty() && self.queue.terminated().is_none() {
            let mut n = 0;
            if self.queue.wants_input()
                && let Some(space) = self.queue.receiver.space(&mut self.host)
            {
                for mut slice in space {
                    let part = slice.len().min(left.len()).min(step.max(1) - n);
                    slice[..part].copy_from_slice(&left[..part]);
                    left = &left[part..];
                    n += part;
                }
                self.queue.receiver.received(n);
            }
            self.queue.pump(&mut self.host)?;
            assert!(self.host.held_bytes() <= BUFFER_BYTES, "buffers are bounded");
            if n == 0 && !self.turn()? {
                break;
            }
        }
        Ok(())
    }

    /// Completes one request and sends what is ready; false if nothing happened.
    ///
    /// # Errors
    /// When bytes that were received before break the protocol.
    pub fn turn(&mut self) -> Result<bool, Fatal> {
        let completion = self.host.step();
        let mut moved = completion.is_some();
        if let Some(completion) = completion {
            self.queue.complete(completion, &mut self.host);
        }
        moved |= self.send(usize::MAX);
        self.queue.pump(&mut self.host)?;
        Ok(moved || self.host.in_flight() > 0)
    }

    /// Sends up to `limit` bytes; true if there were any.
    pub fn send(&mut self, limit: usize) -> bool {
        let before = self.sent.len();
        for slice in self.queue.sender.slices(&self.host) {
            let room = limit - (self.sent.len() - before).min(limit);
            self.sent.extend_from_slice(&slice[..slice.len().min(room)]);
        }
        let n = self.sent.len() - before;
        self.queue.sender.advance(n);
        self.queue.retire(&mut self.host);
        n > 0
    }

    /// Turns until nothing happens any more; what was sent since the last time.
    ///
    /// # Errors
    /// When bytes that were received before break the protocol.
    pub fn settle(&mut self) -> Result<Vec<Sent>, Fatal> {
        while self.turn()? {}
        assert!(!self.queue.sender.has_output());
        let sent = std::mem::take(&mut self.sent);
        Ok(heard(&sent, self.digests))
    }

    /// Gives the queue up, and asserts that nothing is left of it.
    pub fn end(mut self) {
        self.queue.abort(&mut self.host);
        while let Some(completion) = self.host.step() {
            self.queue.complete(completion, &mut self.host);
        }
        assert!(self.queue.is_finished(), "a queue ends when its requests have");
        assert_eq!(self.host.held_bytes(), 0, "every buffer is given back");
    }
}

/// The PDUs in what was sent.
///
/// # Panics
/// If a host would not take them.
pub fn heard(mut bytes: &[u8], digests: Digests) -> Vec<Sent> {
    let mut sent = Vec::new();
    while !bytes.is_empty() {
        let (common, _) = CommonHeader::read_from_prefix(bytes).expect("a header");
        let shape = check::shape(&common, Side::Host, Stage::Running, digests).expect("a shape");
        let header = check::header(bytes, &shape).expect("a good header");
        let end = shape.data_start + shape.data_bytes as usize;
        let data = bytes[shape.data_start..end].to_vec();
        if shape.data_digest {
            assert_eq!(bytes[end..][..4], crc32c(&data).to_le_bytes(), "a good digest");
        }
        sent.push(Sent { header, flags: common.flags, data });
        bytes = &bytes[common.plen.get() as usize..];
    }
    sent
}

/// Bytes to the PDU layer; the first three say how they are cut, and choose the rest.
pub fn nvmf_pdus(bytes: &[u8]) {
    let Some((&[split, mode, target], bytes)) = bytes.split_first_chunk::<3>() else { return };
    let digests = Digests::from_bits(mode);
    let mut receiver = match mode & 4 {
        0 => Receiver::new(1024 + usize::from(target)),
        _ => Receiver::resume(1024 + usize::from(target), digests, &[]),
    };
    let mut left = bytes;
    loop {
        let (mut n, mut heap) = (0, Heap);
        if let Some(space) = receiver.space(&mut heap) {
            for mut slice in space {
                let part = slice.len().min(left.len()).min(usize::from(split) + 1 - n);
                slice[..part].copy_from_slice(&left[..part]);
                left = &left[part..];
                n += part;
            }
            receiver.received(n);
        }
        loop {
            let event = match receiver.next(&mut Heap) {
                Err(_) => return assert!(receiver.offender().len() <= 128),
                Ok(None) => break,
                Ok(Some(event)) => event,
            };
            let more = match event {
                Event::Pdu { header: Received::IcReq(req), .. } => {
                    receiver.begin(Digests::from_bits(req.dgst));
                    false
                }
                Event::Pdu { data, .. } => data > 0,
                Event::Filled { end, .. } => end.is_none(),
                Event::Skipped => false,
            };
            match (more, target & 1) {
                (false, _) => {}
                (true, 0) => receiver.skip(),
                (true, _) => {
                    let end = usize::from(target) + 1;
                    receiver.fill(Target { buf: vec![0; end], at: 0, end });
                }
            }
        }
        if n == 0 {
            return;
        }
    }
}

/// Bytes to an I/O queue; the first three say how they are cut, and choose the queue.
pub fn nvmf_queue(bytes: &[u8]) {
    let Some((&[split, mode, seed], bytes)) = bytes.split_first_chunk::<3>() else { return };
    let entries = 2 + u16::from(mode >> 4);
    let digests = Digests::from_bits(mode);
    let mut harness = Harness::new(entries, digests, mode & 4 != 0, u64::from(seed));
    harness.host.depth = 1 + usize::from(seed >> 4);
    if seed & 1 != 0 {
        harness.host.arena_bytes = 64 << 10;
    }
    if harness.feed(bytes, usize::from(split) + 1).is_ok() && mode & 8 == 0 {
        // What was received before may still break the protocol.
        let _ = harness.settle();
    }
    harness.end();
}
