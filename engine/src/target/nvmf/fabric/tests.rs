//! The thread over real sockets, with cores that only note what they get.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nvme::code::admin;
use nvme::discovery::{DiscoveryEntry, DiscoveryHeader};
use nvme::fabrics::{ConnectCommand, ConnectData, DYNAMIC_CNTLID, PropertyCommand};
use nvme::log::{AnaState, LogRequest, lid};
use nvme::property::{Configuration, offset};
use nvme::tcp::pdu::{CapsuleCmd, CapsuleResp, CommonHeader, IcReq, kind};
use nvme::{Nqn, SglDescriptor, Status, SubmissionEntry};
use zerocopy::{FromBytes, IntoBytes};

use super::association::Placement;
use super::*;
use crate::request::VolumeView;
use crate::target::nvmf::exports::{Exports, Hosts, Namespace, Subsystem};
use crate::target::nvmf::{EndReason, QUEUES_PER_CORE};
use crate::units::{FragmentSize, VolumeId};
use crate::volume::{Volume, Volumes};

fn nqn(name: &str) -> Nqn {
    Nqn::new(&format!("nqn.2026-11.example:{name}")).unwrap()
}

fn volumes(sizes: &[u64]) -> Volumes {
    let volume = |(id, size): (u32, &u64)| Volume {
        view: VolumeView {
            id: VolumeId::new(id),
            name: format!("v{id}"),
            size_bytes: *size,
            block_bytes: 512,
            read_only: false,
        },
        uuid: [u8::try_from(id).unwrap(); 16],
        fragment: FragmentSize::DEFAULT,
    };
    Volumes::new((1..).zip(sizes).map(volume).collect())
}

fn namespace(volume: u8) -> Namespace {
    Namespace { volume: [volume; 16], read_only: false, group: 1 }
}

/// What happened on a core.
enum Seen {
    Queue(u8, NewQueue),
    Dropped(u8),
    Namespaces(u8, Arc<Namespaces>),
}

struct FakeCores(Mutex<Sender<Seen>>);

impl FakeCores {
    fn see(&self, seen: Seen) {
        // A test that has ended looks no more.
        let _ = self.0.lock().unwrap().send(seen);
    }
}

impl Cores for FakeCores {
    fn count(&self) -> u8 {
        2
    }
    fn add(&self, core: CoreId, queue: NewQueue) {
        self.see(Seen::Queue(core.get(), queue));
    }
    fn drop_association(&self, core: CoreId, _: AssociationId) {
        self.see(Seen::Dropped(core.get()));
    }
    fn set_namespaces(&self, core: CoreId, _: AssociationId, namespaces: Arc<Namespaces>) {
        self.see(Seen::Namespaces(core.get(), namespaces));
    }
}

struct Rig {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
    io: SocketAddr,
    discovery: SocketAddr,
    seen: Receiver<Seen>,
    _dir: tempfile::TempDir,
}

impl Rig {
    /// Exports volume 1 to any host and volume 2 to `host1`.
    fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let settings = Settings {
            data_dir: dir.path().to_owned(),
            listen: vec![any],
            discovery: vec![any],
            insecure: false,
        };
        let (sender, seen) = channel();
        let cores = Box::new(FakeCores(Mutex::new(sender)));
        let (service, handle) = Service::new(settings, volumes(&[1 << 20; 3]), cores).unwrap();
        let listening = service.listening();
        let at = |only| listening.iter().find(|(_, d)| *d == only).unwrap().0;
        let (io, discovery) = (at(false), at(true));
        let thread = Some(std::thread::spawn(move || service.run()));
        let rig = Rig { handle, thread, io, discovery, seen, _dir: dir };
        rig.call(|s| {
            let any = Subsystem::new("1", Hosts::Any).unwrap();
            s.add_subsystem(nqn("any"), any, vec![namespace(1)]).unwrap();
            let one = Subsystem::new("2", Exports::listed([nqn("host1")])).unwrap();
            s.add_subsystem(nqn("one"), one, vec![namespace(2)]).unwrap();
        });
        rig
    }

    fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Service) -> T + Send + 'static) -> T {
        self.handle.call(work).expect("the thread runs")
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_secs(10)).expect("something happens")
    }

    fn queue(&self) -> (u8, NewQueue) {
        match self.next() {
            Seen::Queue(core, queue) => (core, queue),
            _ => panic!("not a queue"),
        }
    }

    fn nothing_is_left(&self) -> bool {
        self.call(|s| s.associations.is_empty() && s.ending.is_empty() && s.placement.total() == 0)
    }

    fn wait_until(&self, what: impl Fn(&Rig) -> bool) {
        for _ in 0..1000 {
            if what(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not happen");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// A host with one connection.
struct Host {
    stream: TcpStream,
    cid: u16,
}

impl Host {
    fn raw(address: SocketAddr) -> Host {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Host { stream, cid: 0 }
    }

    fn new(address: SocketAddr) -> Host {
        let mut host = Host::raw(address);
        host.stream.write_all(IcReq::new(0).as_bytes()).unwrap();
        let mut response = [0; 128];
        host.stream.read_exact(&mut response).unwrap();
        assert_eq!(response[0], kind::IC_RESP);
        host
    }

    fn send(&mut self, mut entry: SubmissionEntry, data: &[u8]) {
        self.cid += 1;
        entry.cid = self.cid.into();
        if !data.is_empty() {
            entry.set_sgl(SglDescriptor::in_capsule(u32::try_from(data.len()).unwrap()));
        }
        let length = u32::try_from(data.len()).unwrap();
        let capsule = CapsuleCmd::new(entry, false, false, length);
        self.stream.write_all(&[capsule.as_bytes(), data].concat()).unwrap();
    }

    /// The next completion: status, result, data before it.
    fn completion(&mut self) -> (Status, u64, Vec<u8>) {
        let mut data = Vec::new();
        loop {
            let mut head = [0; 24];
            self.stream.read_exact(&mut head).unwrap();
            let common = CommonHeader::read_from_prefix(&head).unwrap().0;
            if common.kind == kind::CAPSULE_RESP {
                let entry = CapsuleResp::read_from_bytes(&head).unwrap().entry;
                return (entry.status(), entry.result.get(), data);
            }
            assert_eq!(common.kind, kind::C2H_DATA);
            data.resize(common.plen.get() as usize - 24, 0);
            self.stream.read_exact(&mut data).unwrap();
        }
    }

    fn ask(&mut self, entry: SubmissionEntry, data: &[u8]) -> (Status, u64, Vec<u8>) {
        self.send(entry, data);
        self.completion()
    }

    fn connect(&mut self, qid: u16, cntlid: u16, subsystem: &Nqn, host: &Nqn) -> (Status, u64) {
        let command = ConnectCommand::new(0, qid, 31, 0).into_entry();
        let data = ConnectData::new([1; 16], cntlid, subsystem, host);
        let (status, result, _) = self.ask(command, data.as_bytes());
        (status, result)
    }

    fn set_cc(&mut self, value: u32) {
        let set = PropertyCommand::set(0, offset::CC, value).into_entry();
        assert_eq!(self.ask(set, &[]).0, Status::SUCCESS);
    }

    /// Connected and enabled; its controller.
    fn enabled(address: SocketAddr, subsystem: &Nqn, host: &Nqn) -> (Host, u16) {
        let mut admin = Host::new(address);
        let (status, result) = admin.connect(0, DYNAMIC_CNTLID, subsystem, host);
        assert_eq!(status, Status::SUCCESS);
        admin.set_cc(Configuration::ENABLED.bits());
        (admin, u16::try_from(result).unwrap())
    }

    /// The server hangs up.
    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).is_ok()
    }

    fn log(&mut self, lid: u8, bytes: u64, offset: u64) -> Vec<u8> {
        let mut entry = SubmissionEntry { opcode: admin::GET_LOG_PAGE, ..Default::default() };
        entry.set_sgl(SglDescriptor::transport(u32::try_from(bytes).unwrap()));
        LogRequest { lid, lsp: 0, retain: false, bytes, offset, by_index: false }.put(&mut entry);
        let (status, _, data) = self.ask(entry, &[]);
        assert_eq!(status, Status::SUCCESS);
        data
    }

    fn enable_events(&mut self, bits: u32) {
        let mut set = SubmissionEntry { opcode: admin::SET_FEATURES, ..Default::default() };
        set.cdw10[0] = 0x0b.into();
        set.cdw10[1] = bits.into();
        assert_eq!(self.ask(set, &[]).0, Status::SUCCESS);
        let aer = SubmissionEntry { opcode: admin::ASYNC_EVENT_REQUEST, ..Default::default() };
        self.send(aer, &[]);
    }

    fn discovered(&mut self) -> Vec<(Nqn, SocketAddr)> {
        let head = self.log(lid::DISCOVERY, 1024, 0);
        let records = DiscoveryHeader::read_from_bytes(&head).unwrap().numrec.get();
        let entries = self.log(lid::DISCOVERY, records * 1024, 1024);
        let entry = |bytes: &[u8]| {
            let entry = DiscoveryEntry::read_from_bytes(bytes).unwrap();
            (Nqn::from_field(&entry.subnqn).unwrap(), entry.address().unwrap())
        };
        entries.chunks(1024).map(entry).filter(|(nqn, _)| !nqn.is_discovery()).collect()
    }
}

#[test]
fn hosts_discover_what_lets_them_in_and_hear_of_changes() {
    let rig = Rig::new();
    for address in [rig.io, rig.discovery] {
        let (mut host1, _) = Host::enabled(address, &Nqn::discovery(), &nqn("host1"));
        assert_eq!(host1.discovered(), [(nqn("any"), rig.io), (nqn("one"), rig.io)]);
        let (mut host2, _) = Host::enabled(address, &Nqn::discovery(), &nqn("host2"));
        assert_eq!(host2.discovered(), [(nqn("any"), rig.io)]);
    }
    let (mut host2, _) = Host::enabled(rig.discovery, &Nqn::discovery(), &nqn("host2"));
    host2.enable_events(1 << 31);
    rig.call(|s| s.add_host(&nqn("one"), nqn("host2")).unwrap());
    assert_eq!(host2.completion().1, 0x0070_f002);
    assert_eq!(host2.discovered().len(), 2);
    rig.call(|s| s.remove_host(&nqn("one"), &nqn("host2")).unwrap());
    host2.enable_events(1 << 31);
    assert_eq!(host2.completion().1, 0x0070_f002, "what happened before the request");
}

#[test]
fn connects_are_refused_with_the_status_of_their_reason() {
    let rig = Rig::new();
    let parameters = |result| (Status::CONNECT_PARAMETERS.with_dnr(), result);
    let (host, any) = (nqn("host2"), nqn("any"));
    let (_admin, cntlid) = Host::enabled(rig.io, &any, &host);
    let (_other, disabled) = {
        let mut admin = Host::new(rig.io);
        let (_, result) = admin.connect(0, DYNAMIC_CNTLID, &any, &host);
        (admin, u16::try_from(result).unwrap())
    };
    for (address, qid, id, subsystem, host, wanted) in [
        (rig.io, 0, DYNAMIC_CNTLID, nqn("none"), &host, parameters(0x1_0100)),
        (rig.discovery, 0, DYNAMIC_CNTLID, any.clone(), &host, parameters(0x1_0100)),
        (rig.io, 0, DYNAMIC_CNTLID, nqn("one"), &host, (Status::CONNECT_HOST.with_dnr(), 0)),
        (rig.io, 0, 7, any.clone(), &host, parameters(0x1_0010)),
        (rig.io, 1, 999, any.clone(), &host, parameters(0x1_0010)),
        (rig.io, 1, cntlid, nqn("one"), &host, parameters(0x1_0010)),
        (rig.io, 1, cntlid, Nqn::discovery(), &host, parameters(42)),
        (rig.io, 1, cntlid, any.clone(), &nqn("host1"), (Status::CONNECT_HOST.with_dnr(), 0)),
        (rig.io, MAX_IO_QUEUES + 1, cntlid, any.clone(), &host, parameters(42)),
        (rig.io, 1, disabled, any.clone(), &host, (Status::COMMAND_SEQUENCE.with_dnr(), 0)),
    ] {
        let mut connection = Host::new(address);
        assert_eq!(connection.connect(qid, id, &subsystem, host), wanted, "{qid} {id}");
        assert!(connection.is_closed());
    }
    let mut first = Host::new(rig.io);
    let keep_alive = SubmissionEntry { opcode: admin::KEEP_ALIVE, ..Default::default() };
    assert_eq!(first.ask(keep_alive, &[]).0, Status::COMMAND_SEQUENCE.with_dnr());
    assert!(rig.seen.try_recv().is_err(), "no core has heard of any of it");
}

#[test]
fn queues_go_round_the_cores_with_what_came_behind_the_connect() {
    let rig = Rig::new();
    let (_admin, cntlid) = Host::enabled(rig.io, &nqn("one"), &nqn("host1"));
    let mut queues = Vec::new();
    for qid in 1..=4 {
        let mut io = Host::new(rig.io);
        let command = ConnectCommand::new(1, qid, 31, 0);
        let data = ConnectData::new([1; 16], cntlid, &nqn("one"), &nqn("host1"));
        let mut entry = command.into_entry();
        entry.set_sgl(SglDescriptor::in_capsule(1024));
        let capsule = CapsuleCmd::new(entry, false, false, 1024);
        let behind = [4, 0, 72];
        let bytes = [capsule.as_bytes(), data.as_bytes(), &behind].concat();
        io.stream.write_all(&bytes).unwrap();
        let (status, result, _) = io.completion();
        assert_eq!((status, result), (Status::SUCCESS, cntlid.into()));
        let (core, queue) = rig.queue();
        assert_eq!((queue.qid, queue.cntlid, queue.entries), (qid, cntlid, 32));
        assert_eq!(queue.received, behind);
        assert_eq!(&*queue.host_nqn, nqn("host1").as_str());
        assert_eq!(queue.namespaces.get(1).unwrap().volume, VolumeId::new(2));
        queues.push((core, queue));
    }
    let cores: Vec<u8> = queues.iter().map(|(core, _)| *core).collect();
    assert_eq!(cores, [0, 1, 0, 1]);
    assert_eq!(rig.call(|s| s.connected().len()), 5);
}

fn io_queue(rig: &Rig, cntlid: u16, qid: u16) -> (u8, NewQueue) {
    let mut io = Host::new(rig.io);
    assert_eq!(io.connect(qid, cntlid, &nqn("any"), &nqn("h")).0, Status::SUCCESS);
    rig.queue()
}

fn end(queue: NewQueue, reason: EndReason) {
    let (association, qid) = (queue.association, queue.qid);
    (queue.on_end)(QueueEnd { association, qid, reason });
}

#[test]
fn a_number_in_use_waits_for_its_queue_to_end() {
    let rig = Rig::new();
    let (_admin, cntlid) = Host::enabled(rig.io, &nqn("any"), &nqn("h"));
    let (_, first) = io_queue(&rig, cntlid, 1);
    let mut second = Host::new(rig.io);
    let command = ConnectCommand::new(0, 1, 31, 0).into_entry();
    let data = ConnectData::new([1; 16], cntlid, &nqn("any"), &nqn("h"));
    second.send(command, data.as_bytes());
    rig.wait_until(|rig| {
        rig.call(|s| {
            s.connections.values().any(|c| matches!(c.state, super::connection::State::Waiting(..)))
        })
    });
    end(first, EndReason::Closed);
    assert_eq!(second.completion().0, Status::SUCCESS);
    let (_, queue) = rig.queue();
    // And one whose predecessor stays is refused, so that it may try again.
    let mut third = Host::new(rig.io);
    let command = ConnectCommand::new(0, 1, 31, 0).into_entry();
    third.send(command, data.as_bytes());
    let (status, result, _) = third.completion();
    assert_eq!((status, result), (Status::CONNECT_PARAMETERS, 42));
    end(queue, EndReason::Closed);
}

#[test]
fn an_association_ends_with_its_admin_connection_and_leaves_nothing() {
    let rig = Rig::new();
    let (admin, cntlid) = Host::enabled(rig.io, &nqn("any"), &nqn("h"));
    let (core, queue) = io_queue(&rig, cntlid, 1);
    drop(admin);
    assert!(matches!(rig.next(), Seen::Dropped(dropped) if dropped == core));
    assert!(!rig.nothing_is_left(), "its queue has not ended");
    end(queue, EndReason::Dropped);
    rig.wait_until(Rig::nothing_is_left);
}

#[test]
fn a_reset_drops_queues_and_keeps_the_association() {
    let rig = Rig::new();
    let (mut admin, cntlid) = Host::enabled(rig.io, &nqn("any"), &nqn("h"));
    let (_, queue) = io_queue(&rig, cntlid, 1);
    admin.set_cc(Configuration::ENABLED.with_enable(false).bits());
    assert!(matches!(rig.next(), Seen::Dropped(_)));
    end(queue, EndReason::Dropped);
    admin.set_cc(Configuration::ENABLED.bits());
    let (_, queue) = io_queue(&rig, cntlid, 1);
    end(queue, EndReason::Closed);
}

#[test]
fn changes_reach_cores_and_hosts() {
    let rig = Rig::new();
    let (mut admin, cntlid) = Host::enabled(rig.io, &nqn("any"), &nqn("h"));
    let (core, queue) = io_queue(&rig, cntlid, 1);
    admin.enable_events(0x900);
    rig.call(|s| s.add_namespace(&nqn("any"), Some(5), namespace(3)).unwrap());
    let Seen::Namespaces(at, namespaces) = rig.next() else { panic!("not namespaces") };
    assert_eq!((at, namespaces.list().len()), (core, 2));
    assert_eq!(admin.completion().1, 0x0004_0002);
    assert_eq!(admin.log(lid::CHANGED_NAMESPACES, 8, 0), [5, 0, 0, 0, 0, 0, 0, 0]);
    admin.enable_events(0x900);
    rig.call(|s| s.set_volumes(volumes(&[2 << 20, 1 << 20, 1 << 20])));
    let Seen::Namespaces(_, namespaces) = rig.next() else { panic!("not namespaces") };
    assert_eq!(namespaces.get(1).unwrap().size_bytes, 2 << 20);
    assert_eq!(admin.completion().1, 0x0004_0002);
    assert_eq!(admin.log(lid::CHANGED_NAMESPACES, 8, 0), [1, 0, 0, 0, 0, 0, 0, 0]);
    admin.enable_events(0x900);
    rig.call(|s| s.set_ana(&nqn("any"), 1, AnaState::Inaccessible).unwrap());
    let Seen::Namespaces(_, namespaces) = rig.next() else { panic!("not namespaces") };
    assert_eq!(namespaces.get(5).unwrap().ana_state, AnaState::Inaccessible);
    assert_eq!(admin.completion().1, 0x000c_0302);
    rig.call(|s| s.remove_subsystem(&nqn("any")).unwrap());
    assert!(matches!(rig.next(), Seen::Dropped(_)));
    assert!(admin.is_closed());
    end(queue, EndReason::Dropped);
    rig.wait_until(Rig::nothing_is_left);
}

#[test]
fn a_host_that_is_no_longer_allowed_is_disconnected() {
    let rig = Rig::new();
    let (mut admin, _) = Host::enabled(rig.io, &nqn("one"), &nqn("host1"));
    rig.call(|s| s.remove_host(&nqn("one"), &nqn("host1")).unwrap());
    assert!(admin.is_closed());
    assert!(rig.nothing_is_left());
}

#[test]
fn who_does_not_connect_or_breaks_the_protocol_is_hung_up_on() {
    let rig = Rig::new();
    let mut silent = Host::raw(rig.io);
    rig.wait_until(|rig| rig.call(|s| s.connections.len()) == 1);
    rig.call(|s| {
        s.now = s.now.after(CONNECT_NS + 1);
        s.tick();
    });
    assert!(silent.is_closed());
    let mut wrong = Host::raw(rig.io);
    wrong.stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1]).unwrap();
    let mut answer = [0; 8];
    wrong.stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], kind::C2H_TERM_REQ);
    assert!(wrong.is_closed());
    drop(wrong);
    rig.wait_until(|rig| rig.call(|s| s.connections.is_empty()));
}

#[test]
fn connections_before_connect_are_limited() {
    let rig = Rig::new();
    let many: Vec<TcpStream> =
        (0..MAX_FRESH).map(|_| TcpStream::connect(rig.io).unwrap()).collect();
    rig.wait_until(|rig| rig.call(|s| s.connections.len()) == MAX_FRESH);
    assert!(Host::raw(rig.io).is_closed(), "one too many");
    drop(many);
    rig.wait_until(|rig| rig.call(|s| s.connections.is_empty()));
    Host::enabled(rig.io, &nqn("any"), &nqn("h"));
}

#[test]
fn commands_behind_long_answers_are_answered_too() {
    let rig = Rig::new();
    let (mut admin, _) = Host::enabled(rig.io, &nqn("any"), &nqn("h"));
    let bytes = 1 << 20;
    let mut entry = SubmissionEntry { opcode: admin::GET_LOG_PAGE, ..Default::default() };
    let request =
        LogRequest { lid: lid::SUPPORTED, lsp: 0, retain: true, bytes, offset: 0, by_index: false };
    request.put(&mut entry);
    entry.set_sgl(SglDescriptor::transport(u32::try_from(bytes).unwrap()));
    (0..8).for_each(|_| admin.send(entry, &[]));
    for _ in 0..8 {
        let (status, _, data) = admin.completion();
        assert_eq!((status, data.len() as u64), (Status::SUCCESS, bytes));
    }
}

#[test]
fn what_was_exported_is_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        data_dir: dir.path().to_owned(),
        listen: vec![],
        discovery: vec![],
        insecure: false,
    };
    let start = || {
        let cores = Box::new(FakeCores(Mutex::new(channel().0)));
        Service::new(settings.clone(), volumes(&[1 << 20]), cores).unwrap().0
    };
    let mut service = start();
    let subsystem = Subsystem::new("1", Hosts::Any).unwrap();
    service.add_subsystem(nqn("a"), subsystem, vec![namespace(1)]).unwrap();
    let address = service.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    drop(service);
    let mut service = start();
    assert_eq!(service.listening(), [(address, false)]);
    assert_eq!(service.subsystem(&nqn("a")).unwrap().view.namespaces.len(), 1);
    service.unlisten(address).unwrap();
    assert!(service.listening().is_empty());
    // A volume that is gone leaves its namespace out, and the rest goes on.
    service.set_volumes(volumes(&[]));
    assert_eq!(service.subsystem(&nqn("a")).unwrap().view.namespaces.len(), 0);
    assert_eq!(service.exporting(&[1; 16]), [nqn("a")]);
    std::fs::write(dir.path().join("nvmf.json"), "{}").unwrap();
    let cores = Box::new(FakeCores(Mutex::new(channel().0)));
    let error = Service::new(settings.clone(), volumes(&[]), cores).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("nvmf.json"), "{error}");
}

#[test]
fn queues_begin_at_the_least_loaded_core_and_pass_full_ones() {
    let mut placement = Placement::new(3);
    let place = |placement: &mut Placement, last: &mut Option<CoreId>| {
        placement.place(last).map(CoreId::get)
    };
    let mut one = None;
    assert_eq!(place(&mut placement, &mut one), Some(0));
    let mut two = None;
    assert_eq!(place(&mut placement, &mut two), Some(1));
    assert_eq!(place(&mut placement, &mut two), Some(2));
    assert_eq!(place(&mut placement, &mut two), Some(0));
    let mut all = None;
    let placed = (0..1000).map_while(|_| placement.place(&mut all)).count();
    assert_eq!(placed, 3 * usize::from(QUEUES_PER_CORE) - 4);
    placement.ended(CoreId::new(2));
    assert_eq!(place(&mut placement, &mut one), Some(2));
    assert_eq!(place(&mut placement, &mut one), None);
}
