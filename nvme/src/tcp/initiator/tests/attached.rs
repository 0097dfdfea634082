//! Attachments over real sockets to a fake target that runs in a thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::discovery::{DiscoveryEntry, subtype};
use crate::tcp::check::Digests;
use crate::tcp::initiator::socket::Connection;
use crate::tcp::initiator::{Attachment, Discovery, HOST_PATHING_ERROR, Settings, Timers};
use crate::{Nqn, Status};

const LIMIT: Duration = Duration::from_secs(20);
const DISK: usize = 1 << 20;

/// A target in threads that end with it.
struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    manners: Mutex<Manners>,
    disk: Mutex<Vec<u8>>,
    /// Connections are closed as soon as this changes.
    life: AtomicU32,
    /// New connections are closed at once.
    refuses: AtomicBool,
    ends: AtomicBool,
    seen: Mutex<Vec<(u8, u8)>>,
}

impl Server {
    fn new(manners: Manners) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let state = Arc::new(State {
            manners: Mutex::new(manners),
            disk: Mutex::new(pattern(DISK)),
            life: AtomicU32::new(0),
            refuses: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            seen: Mutex::new(Vec::new()),
        });
        let server = Server { address: listener.local_addr().unwrap(), state: state.clone() };
        std::thread::spawn(move || {
            while !state.ends.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((socket, _)) if !state.refuses.load(Ordering::Acquire) => {
                        let state = state.clone();
                        std::thread::spawn(move || serve(&socket, &state));
                    }
                    Ok(_) => {}
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        server
    }

    /// Every connection ends, as if the process had died.
    fn kill(&self) {
        self.state.life.fetch_add(1, Ordering::AcqRel);
    }

    fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::Release);
    }

    fn settings(&self) -> Settings {
        let subsystem = Nqn::new("nqn.2026-11.example:v").unwrap();
        let host = Nqn::new("nqn.2026-11.example:host").unwrap();
        let mut settings = Settings::new(self.address, subsystem, host, [5; 16]);
        settings.digests = self.state.manners.lock().unwrap().digests;
        settings.timers.first_delay = Duration::from_millis(5);
        settings.timers.longest_delay = Duration::from_millis(20);
        settings
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::Release);
        self.kill();
    }
}

fn serve(mut socket: &TcpStream, state: &State) {
    let life = state.life.load(Ordering::Acquire);
    let mut fake = Fake::new(state.manners.lock().unwrap().clone());
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    while state.life.load(Ordering::Acquire) == life {
        let n = match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => n,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(_) => return,
        };
        fake.manners.statuses = std::mem::take(&mut state.manners.lock().unwrap().statuses);
        fake.hear(&buffer[..n], &mut state.disk.lock().unwrap());
        state.manners.lock().unwrap().statuses = std::mem::take(&mut fake.manners.statuses);
        state.seen.lock().unwrap().append(&mut fake.seen);
        if socket.write_all(&fake.answer()).is_err() {
            return;
        }
    }
}

/// An attachment that is live.
fn attach(settings: Settings) -> Result<Attachment, Error> {
    let mut attachment = Attachment::begin(Instant::now(), settings, 64)?;
    let mut memory = Buffers::new(1, 0, 1);
    let limit = Instant::now() + LIMIT;
    while !attachment.is_live() {
        assert!(Instant::now() < limit, "it does not become live");
        attachment.poll(Instant::now(), &mut memory)?;
    }
    Ok(attachment)
}

/// Polls until so many completions are there.
fn wait(attachment: &mut Attachment, memory: &mut Buffers, count: usize) -> Vec<Completion> {
    let (mut done, limit) = (Vec::new(), Instant::now() + LIMIT);
    while done.len() < count {
        assert!(Instant::now() < limit, "only {done:?}");
        attachment.poll(Instant::now(), memory).unwrap();
        while let Some(completion) = attachment.pop() {
            done.push(completion);
        }
    }
    done
}

#[test]
fn a_controller_is_brought_up_in_linux_order() {
    let server = Server::new(Manners { ready_after: 3, ..Manners::default() });
    let mut settings = server.settings();
    settings.io_queues = 2;
    settings.kato = Duration::from_millis(100);
    let mut attachment = attach(settings).unwrap();
    let namespaces: Vec<u32> = attachment.namespaces().iter().map(|n| n.nsid).collect();
    assert_eq!((attachment.links(), namespaces), (2, vec![1, 3]));
    assert_eq!(attachment.namespaces()[0].uuid, Some([2; 16]));
    assert_eq!(attachment.controller().depth, 127, "MQES");
    let mut memory = Buffers::new(1, 0, 1);
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        attachment.poll(Instant::now(), &mut memory).unwrap();
    }
    let seen = server.state.seen.lock().unwrap().clone();
    let admin: Vec<_> = seen.iter().copied().filter(|s| *s != (0x7f, 4)).collect();
    let start = [(0x7f, 1), (0x7f, 0), (0x7f, 0), (0x06, 1), (0x09, 7), (0x7f, 1), (0x7f, 1)];
    assert_eq!(admin[..7], start, "Connect, CC, CC, Identify, queues, two I/O queues");
    let rest = [(0x09, 11), (0x06, 2), (0x06, 0), (0x06, 3), (0x06, 0), (0x06, 3), (0x0c, 0)];
    assert_eq!(admin[7..14], rest, "events, list, namespaces, event request");
    let kept = admin[14..].iter().filter(|s| **s == (0x18, 0)).count();
    assert!((3..=8).contains(&kept), "{admin:?}");
    let looks = seen.iter().filter(|s| **s == (0x7f, 4)).count();
    assert_eq!(looks, 1 + 1 + 4 + 1, "CAP, CSTS, CSTS until it is ready, VS");
}

#[test]
fn data_go_to_and_fro_over_sockets() {
    for (header, data) in [(false, false), (true, true), (false, true)] {
        let digests = Digests { header, data };
        let server = Server::new(Manners { digests, c2h_bytes: 100_000, ..Manners::default() });
        let mut attachment = attach(server.settings()).unwrap();
        let mut memory = Buffers::new(8, 128 << 10, usize::MAX);
        for tag in 0..4u32 {
            memory.bytes[tag as usize].fill(u8::try_from(tag).unwrap() + 100);
            let command = write(u64::from(tag) * 256, 128 << 10);
            attachment.submit(Instant::now(), 0, command, Tag(tag), &memory);
        }
        assert!(wait(&mut attachment, &mut memory, 4).iter().all(|d| d.status.is_success()));
        for tag in 4..8u32 {
            let command = read(u64::from(tag - 4) * 256, 128 << 10);
            attachment.submit(Instant::now(), 1, command, Tag(tag), &memory);
        }
        wait(&mut attachment, &mut memory, 4);
        for tag in 0..4 {
            assert_eq!(memory.bytes[tag + 4], memory.bytes[tag], "{digests:?}");
        }
        attachment.close(Instant::now());
    }
}

#[test]
fn a_death_under_load_costs_no_request() {
    let server = Server::new(Manners::default());
    let mut attachment = attach(server.settings()).unwrap();
    let mut memory = Buffers::new(32, 16 << 10, usize::MAX);
    for round in 0..10u8 {
        for tag in 0..32u32 {
            let lba = u64::from(tag) * 32;
            let odd = (tag + u32::from(round)) % 2 == 1;
            if odd {
                memory.bytes[tag as usize].fill(round + 1);
            }
            let command = if odd { write(lba, 16 << 10) } else { read(lba, 16 << 10) };
            attachment.submit(Instant::now(), 0, command, Tag(tag), &memory);
        }
        attachment.poll(Instant::now(), &mut memory).unwrap();
        server.kill();
        let done = wait(&mut attachment, &mut memory, 32);
        assert!(done.iter().all(|done| done.status.is_success()), "{done:?}");
        let disk = server.state.disk.lock().unwrap();
        for (tag, bytes) in memory.bytes.iter().enumerate() {
            assert_eq!(bytes[..], disk[tag * 32 * BLOCK..][..16 << 10]);
        }
    }
    let counts = attachment.counts();
    assert!(counts.reconnects >= 5 && counts.requeued >= 5, "{counts:?}");
}

#[test]
fn requests_fail_fast_and_the_controller_is_given_up() {
    let server = Server::new(Manners::default());
    let mut settings = server.settings();
    settings.timers = Timers {
        fast_fail: Some(Duration::from_millis(60)),
        controller_loss: Some(Duration::from_millis(400)),
        ..settings.timers
    };
    let mut attachment = attach(settings).unwrap();
    let mut memory = Buffers::new(2, 4096, usize::MAX);
    server.refuse(true);
    attachment.submit(Instant::now(), 0, read(0, 4096), Tag(0), &memory);
    server.kill();
    let began = Instant::now();
    // The read may have been answered before the end; the next one cannot be.
    wait(&mut attachment, &mut memory, 1);
    while attachment.is_live() {
        attachment.poll(Instant::now(), &mut memory).unwrap();
    }
    attachment.submit(Instant::now(), 0, read(0, 4096), Tag(1), &memory);
    let done = wait(&mut attachment, &mut memory, 1);
    assert_eq!(done[0].status, HOST_PATHING_ERROR);
    assert!(began.elapsed() >= Duration::from_millis(60));
    let error = loop {
        if let Err(error) = attachment.poll(Instant::now(), &mut memory) {
            break error;
        }
        assert!(began.elapsed() < LIMIT);
    };
    assert!(began.elapsed() >= Duration::from_millis(400), "{error}");
}

#[test]
fn failed_commands_are_tried_again_unless_that_is_no_use() {
    let server = Server::new(Manners::default());
    let mut attachment = attach(server.settings()).unwrap();
    let mut memory = Buffers::new(1, 4096, usize::MAX);
    for (statuses, end, retried) in [
        (vec![Status::INTERNAL, Status::ANA_TRANSITION], Status::SUCCESS, 2),
        (vec![Status::INTERNAL.with_dnr()], Status::INTERNAL.with_dnr(), 0),
        (vec![Status::INTERNAL; 6], Status::INTERNAL, 5),
    ] {
        server.state.manners.lock().unwrap().statuses = statuses.into();
        let before = attachment.counts().retried;
        attachment.submit(Instant::now(), 0, read(0, 4096), Tag(0), &memory);
        let done = wait(&mut attachment, &mut memory, 1);
        assert_eq!((done[0].status, attachment.counts().retried - before), (end, retried));
    }
}

#[test]
fn what_never_worked_is_told_at_once() {
    let refused = Status::CONNECT_PARAMETERS.with_dnr();
    let server = Server::new(Manners { connect: refused, ..Manners::default() });
    match attach(server.settings()) {
        Err(Error::Refused { what: "Connect", status, .. }) => assert_eq!(status, refused),
        other => panic!("{:?}", other.err()),
    }
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = attach(Settings { address: gone, ..server.settings() }).err();
    assert!(matches!(error, Some(Error::Socket(_))), "{error:?}");
    let server = Server::new(Manners::default());
    let settings = Settings { nsid: Some(2), ..server.settings() };
    assert!(matches!(attach(settings).err(), Some(Error::NoNamespace(2))));
}

#[test]
fn controllers_that_are_no_use_are_refused() {
    type Case = (&'static str, fn(&mut crate::identify::IdentifyController));
    let cases: [Case; 6] = [
        ("identifier", |id| id.cntlid = 78.into()),
        ("type", |id| id.cntrltype = 2),
        ("keep-alive", |id| id.kas = 0.into()),
        ("SGLs", |id| id.sgls = 0.into()),
        ("capsules", |id| id.ioccsz = 3.into()),
        ("offset", |id| id.icdoff = 1.into()),
    ];
    for (why, identify) in cases {
        let server = Server::new(Manners { identify, ..Manners::default() });
        match attach(server.settings()).err() {
            Some(Error::Unfit(text)) => assert!(text.contains(why), "{why}: {text}"),
            other => panic!("{why}: {other:?}"),
        }
    }
    let extreme = |id: &mut crate::identify::IdentifyController| {
        id.ioccsz = u32::MAX.into();
        id.mdts = 255;
        id.maxcmd = u16::MAX.into();
        id.crdt = [u16::MAX.into(); 3];
    };
    let server = Server::new(Manners { identify: extreme, ..Manners::default() });
    let attachment = attach(server.settings()).unwrap();
    assert_eq!(attachment.controller().most_bytes, None, "no limit that could be reached");
}

#[test]
fn a_target_that_does_not_keep_alive_is_left() {
    let server = Server::new(Manners { deaf: true, ..Manners::default() });
    let settings = Settings { kato: Duration::from_millis(40), ..server.settings() };
    let mut attachment = attach(settings).unwrap();
    let mut memory = Buffers::new(1, 0, 1);
    let limit = Instant::now() + LIMIT;
    while attachment.counts().reconnects == 0 {
        attachment.poll(Instant::now(), &mut memory).unwrap();
        assert!(Instant::now() < limit);
    }
    assert!(matches!(attachment.last_error(), Some(Error::Silent)));
}

#[test]
fn a_discovery_service_tells_what_it_knows() {
    let entry = |n: u16| {
        let name = Nqn::new(&format!("nqn.2026-11.example:v{n}")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 4420 + n));
        DiscoveryEntry::tcp(&name, subtype::NVM, address, n, 32)
    };
    for count in [0, 1, 4, 9] {
        let entries: Vec<_> = (0..count).map(entry).collect();
        let server = Server::new(Manners { entries, ..Manners::default() });
        let mut discovery = Discovery::begin(Instant::now(), server.settings()).unwrap();
        let limit = Instant::now() + LIMIT;
        while !discovery.poll(Instant::now()).unwrap() {
            assert!(Instant::now() < limit);
        }
        let ports: Vec<u16> =
            discovery.entries().map(|entry| entry.address().unwrap().port()).collect();
        assert_eq!(ports, (4420..4420 + count).collect::<Vec<_>>());
    }
}

/// However late the caller looks: what the target said last is told, and then that it is gone.
#[test]
fn an_answer_counts_though_the_target_hangs_up_behind_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let manners = Manners::default();
    let queue = QueuePair::new(4, manners.digests, manners.in_capsule);
    let address = listener.local_addr().unwrap();
    let mut connection = Connection::begin(Instant::now(), address, queue).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    let mut fake = Fake::new(manners);
    let (mut disk, mut buffer) = (pattern(BLOCK), [0; 4096]);
    let mut memory = Buffers::new(1, BLOCK, usize::MAX);
    let mut answer = |peer: &mut TcpStream| {
        let n = peer.read(&mut buffer).unwrap();
        fake.hear(&buffer[..n], &mut disk);
        peer.write_all(&fake.answer()).unwrap();
    };
    let limit = Instant::now() + LIMIT;
    connection.poll(Instant::now(), &mut memory).unwrap();
    answer(&mut peer);
    while !connection.queue().is_ready() {
        assert!(Instant::now() < limit, "no ICResp");
        connection.poll(Instant::now(), &mut memory).unwrap();
    }
    assert!(connection.queue().submit(Instant::now(), &read(0, BLOCK), Tag(0), &memory));
    connection.poll(Instant::now(), &mut memory).unwrap();
    answer(&mut peer);
    drop(peer);
    while !connection.queue().has_ended() {
        assert!(Instant::now() < limit, "no answer");
        connection.poll(Instant::now(), &mut memory).unwrap();
    }
    for _ in 0..3 {
        connection.poll(Instant::now(), &mut memory).unwrap();
    }
    assert!(connection.queue().pop().unwrap().status.is_success());
    assert_eq!(memory.bytes[0], pattern(BLOCK));
    let gone = connection.poll(Instant::now(), &mut memory);
    assert!(matches!(gone, Err(Error::Closed)), "{gone:?}");
}
