//! A core with an NVMe/TCP host at one of its queues, over a loopback socket.
//!
//! Connecting is left out: the queue comes to the core as the fabric thread would hand it over.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use engine::server::command::Command as CoreCommand;
use engine::target::nvmf::{
    AssociationId, IN_CAPSULE_BYTES, MAX_H2C_DATA_BYTES, Namespace, Namespaces, NewQueue,
};
use engine::target::socket::Socket;
use engine::units::{ClientId, SEGMENT_BYTES};
use nvme::log::AnaState;
use nvme::tcp::Digests;
use nvme::tcp::initiator::{Batch, Command, Memory, QueuePair, Tag};
use nvme::tcp::pdu::{IcReq, IcResp};
use zerocopy::IntoBytes;

use crate::core::{Core, Work};

/// Commands under way.
const DEPTH: u16 = 32;
const BLOCK: usize = 4096;
const BLOCK_U32: u32 = 4096;
/// Bytes received at once.
const RECEIVE_BYTES: usize = 256 << 10;

/// One buffer for each command.
struct Buffers(Vec<u8>);

impl Memory for Buffers {
    fn source(&self, tag: Tag, offset: usize, len: usize) -> &[u8] {
        &self.0[tag.0 as usize * BLOCK + offset..][..len]
    }
    fn target(&mut self, tag: Tag, offset: usize, len: usize) -> &mut [u8] {
        &mut self.0[tag.0 as usize * BLOCK + offset..][..len]
    }
}

/// The host's side.
struct Host {
    queue: QueuePair,
    stream: TcpStream,
    buffers: Buffers,
    received: Vec<u8>,
    free: Vec<Tag>,
    started: Instant,
}

/// A core and its host.
pub struct Attached {
    core: Core,
    host: Host,
    work: Work,
    requests: u64,
    next: u64,
}

impl Attached {
    /// A host at the core's volume, about to make `requests` requests.
    ///
    /// # Panics
    /// If the machine refuses a socket.
    pub fn new(core: Core, work: Work, requests: u64) -> Attached {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
        let (socket, _) = listener.accept().expect("connected");
        for end in [&stream, &socket] {
            end.set_nonblocking(true).expect("a socket");
            end.set_nodelay(true).expect("a socket");
        }
        let namespace = Namespace {
            nsid: 1,
            volume: core.volume,
            block_bytes: BLOCK_U32,
            size_bytes: SEGMENT_BYTES,
            read_only: false,
            ana_state: AnaState::Optimized,
            ana_group: 1,
        };
        core.core.send(CoreCommand::NvmfQueue(Box::new(NewQueue {
            socket: Socket::Tcp(socket),
            received: Vec::new(),
            association: AssociationId(1),
            cntlid: 1,
            qid: 1,
            entries: 128,
            digests: Digests::default(),
            flow_control_off: true,
            host_nqn: "nqn.2014-08.org.nvmexpress:uuid:bench".into(),
            client: ClientId::new(1),
            namespaces: Arc::new(Namespaces::new(vec![namespace])),
            counters: Arc::default(),
            on_end: Box::new(|_| ()),
        })));
        let host = Host::new(stream);
        Attached { core, host, work, requests, next: 0 }
    }

    /// Makes the requests, as many under way as fit.
    ///
    /// # Panics
    /// If one fails.
    pub fn finish(&mut self) {
        let mut left = self.requests;
        let mut to_send = self.requests;
        while left > 0 {
            while to_send > 0 && self.send_one() {
                to_send -= 1;
            }
            self.host.send();
            self.core.core.turn();
            left -= self.host.receive();
        }
    }

    fn send_one(&mut self) -> bool {
        let Some(tag) = self.host.free.pop() else { return false };
        let blocks = SEGMENT_BYTES / BLOCK as u64;
        // All blocks, in an order without neighbours.
        self.next = (self.next + 1_663) % blocks;
        let command = match self.work {
            Work::Read => Command::read(1, self.next, 1, BLOCK_U32),
            Work::Write => Command::write(1, self.next, 1, BLOCK_U32, false),
        };
        let host = &mut self.host;
        assert!(host.queue.submit(host.started, &command, tag, &host.buffers), "there is room");
        true
    }
}

impl Host {
    fn new(stream: TcpStream) -> Host {
        let mut queue = QueuePair::new(DEPTH, Digests::default(), IN_CAPSULE_BYTES);
        let mut buffers = Buffers(vec![7; usize::from(DEPTH) * BLOCK]);
        let mut request = Batch::new();
        queue.gather(&buffers, &mut request);
        drop(request);
        queue.sent(size_of::<IcReq>(), &buffers);
        let answer = IcResp::new(0, MAX_H2C_DATA_BYTES);
        queue.take(answer.as_bytes(), &mut buffers).expect("a good answer");
        let free = (0..DEPTH.into()).map(Tag).collect();
        Host { queue, stream, buffers, received: Vec::new(), free, started: Instant::now() }
    }

    fn send(&mut self) {
        while self.queue.wants_to_send() {
            let mut batch = Batch::new();
            self.queue.gather(&self.buffers, &mut batch);
            let sent = match self.stream.write_vectored(&batch) {
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            };
            drop(batch);
            self.queue.sent(sent, &self.buffers);
        }
    }

    /// Takes what has come; how many requests have ended.
    fn receive(&mut self) -> u64 {
        let held = self.received.len();
        self.received.resize(held + RECEIVE_BYTES, 0);
        let got = match self.stream.read(&mut self.received[held..]) {
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
        self.received.truncate(held + got);
        let taken = self.queue.take(&self.received, &mut self.buffers).expect("a sound target");
        self.received.drain(..taken);
        let mut ended = 0;
        while let Some(completion) = self.queue.pop() {
            assert!(completion.status.is_success(), "{:?}", completion.status);
            self.free.push(completion.tag);
            ended += 1;
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Tier;

    #[test]
    fn requests_end_and_reads_bring_what_was_filled() {
        let mut attached = Attached::new(Core::new(Tier::Fast), Work::Write, 300);
        attached.finish();
        let mut attached = Attached::new(attached.core, Work::Read, 300);
        attached.host.buffers.0.fill(0);
        attached.finish();
        assert!(attached.host.buffers.0.chunks(BLOCK).all(|block| block.iter().all(|b| *b == 7)));
    }
}
