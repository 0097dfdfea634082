//! Volumes over NVMe/TCP, by a host of our own: discovered, connected, read and written;
//! names that are refused; and what `tessera target nvmf` says.

mod rig;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nvme::Nqn;
use nvme::discovery::subtype;
use nvme::tcp::Digests;
use nvme::tcp::initiator::{
    Attachment, Command, Completion, Discovery, Error, Memory, Namespace, Settings, Tag, Timers,
};
use rig::{Random, Rig};

const LIMIT: Duration = Duration::from_secs(60);
const SUBSYSTEM: &str = "nqn.2026-11.example:v1";
const HOST: &str = "nqn.2026-11.example:host1";
const BLOCK: u32 = 512;

fn nqn(text: &str) -> Nqn {
    Nqn::new(text).unwrap()
}

/// One buffer, for one request at a time.
struct Buffer(Vec<u8>);

impl Memory for Buffer {
    fn source(&self, _: Tag, offset: usize, len: usize) -> &[u8] {
        &self.0[offset..][..len]
    }
    fn target(&mut self, _: Tag, offset: usize, len: usize) -> &mut [u8] {
        &mut self.0[offset..][..len]
    }
}

struct Host {
    attachment: Attachment,
    buffer: Buffer,
}

fn settings(address: SocketAddr, subsystem: &str, host: &str) -> Settings {
    let mut settings = Settings::new(address, nqn(subsystem), nqn(host), [7; 16]);
    settings.io_queues = 2;
    settings.timers = Timers { controller_loss: Some(LIMIT), ..Timers::default() };
    settings
}

impl Host {
    /// Connected.
    fn attach(settings: Settings) -> Result<Host, Error> {
        let attachment = Attachment::begin(Instant::now(), settings, 4)?;
        let mut host = Host { attachment, buffer: Buffer(vec![0; 1 << 20]) };
        host.poll_until(|host| host.attachment.is_live().then_some(()))?;
        Ok(host)
    }

    fn poll_until<T>(&mut self, found: impl Fn(&mut Host) -> Option<T>) -> Result<T, Error> {
        let limit = Instant::now() + LIMIT;
        loop {
            if let Some(found) = found(self) {
                return Ok(found);
            }
            assert!(Instant::now() < limit, "the target does nothing");
            self.attachment.poll(Instant::now(), &mut self.buffer)?;
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// The next asynchronous event.
    fn event(&mut self) -> u32 {
        self.poll_until(|host| host.attachment.take_event()).unwrap()
    }

    fn run(&mut self, link: usize, command: Command) -> Completion {
        self.attachment.submit(Instant::now(), link, command, Tag(0), &self.buffer);
        self.poll_until(|host| host.attachment.pop()).unwrap()
    }

    fn write(&mut self, link: usize, lba: u64, data: &[u8]) {
        self.buffer.0[..data.len()].copy_from_slice(data);
        let bytes = u32::try_from(data.len()).unwrap();
        let done = self.run(link, Command::write(1, lba, bytes / BLOCK, bytes, false));
        assert!(done.status.is_success(), "{:?}", done.status);
    }

    fn read(&mut self, link: usize, lba: u64, length: usize) -> Vec<u8> {
        let bytes = u32::try_from(length).unwrap();
        let done = self.run(link, Command::read(1, lba, bytes / BLOCK, bytes));
        assert!(done.status.is_success(), "{:?}", done.status);
        self.buffer.0[..length].to_vec()
    }

    fn namespace(&self, nsid: u32) -> Option<&Namespace> {
        self.attachment.namespaces().iter().find(|namespace| namespace.nsid == nsid)
    }
}

fn refused(attached: Result<Host, Error>) -> (u16, u64) {
    match attached {
        Err(Error::Refused { status, result, .. }) => (status.to_bits() & 0x7ff, result),
        Err(other) => panic!("ends otherwise: {other}"),
        Ok(_) => panic!("is connected"),
    }
}

/// Listens at a free port of this machine.
fn listen(rig: &Rig) -> SocketAddr {
    let report = rig.json(&["target", "nvmf", "listen", "127.0.0.1:0"]);
    report[0]["address"].as_str().unwrap().parse().unwrap()
}

fn exporting(options: &[&str]) -> (Rig, SocketAddr) {
    let rig = Rig::serving("vm1", "64MiB");
    let address = listen(&rig);
    let add = ["target", "nvmf", "subsystem", "add", SUBSYSTEM, "--volume", "vm1"];
    rig.ok(&[&add, options].concat());
    (rig, address)
}

/// What the discovery service says of one kind.
fn discovered(address: SocketAddr, kind: u8) -> Vec<(Nqn, SocketAddr)> {
    let settings = settings(address, SUBSYSTEM, HOST);
    let mut discovery = Discovery::begin(Instant::now(), settings).unwrap();
    while !discovery.poll(Instant::now()).unwrap() {
        std::thread::sleep(Duration::from_micros(200));
    }
    let found = discovery.entries().filter(|entry| entry.subtype == kind);
    found.map(|e| (Nqn::from_field(&e.subnqn).unwrap(), e.address().unwrap())).collect()
}

#[test]
fn hosts_are_referred_to_other_discovery_services() {
    let (mut rig, _) = exporting(&["--any-host"]);
    let other = "127.0.0.1:18009".parse().unwrap();
    let referral = |what| ["target", "nvmf", "referral", what, "127.0.0.1:18009"];
    assert_eq!(rig.json(&referral("add")), serde_json::json!(["127.0.0.1:18009"]));
    rig.fails(&referral("add"), 1, "127.0.0.1:18009");
    rig.kill();
    rig.start(&[]);
    let address = listen(&rig);
    assert_eq!(discovered(address, subtype::REFERRAL), [(Nqn::discovery(), other)]);
    assert_eq!(rig.json(&referral("remove")), serde_json::json!([]));
    assert_eq!(discovered(address, subtype::REFERRAL), []);
    rig.fails(&referral("remove"), 1, "no host is referred");
    assert_eq!(rig.json(&["target", "nvmf", "referral", "list"]), serde_json::json!([]));
    rig.stop_and_check();
}

#[test]
fn a_volume_is_discovered_connected_and_survives_a_kill() {
    let (mut rig, address) = exporting(&["--any-host"]);
    let status = rig.json(&["status"]).to_string();
    assert!(status.contains(&format!("nvme+tcp://{address}")), "{status}");
    assert_eq!(discovered(address, subtype::NVM), [(nqn(SUBSYSTEM), address)]);

    let mut host = Host::attach(settings(address, SUBSYSTEM, HOST)).unwrap();
    let uuid = rig.json(&["volume", "show", "vm1"])["uuid"].as_str().unwrap().to_owned();
    let namespace = host.namespace(1).unwrap();
    let told = engine::server::open::uuid_text(&namespace.uuid.unwrap());
    assert_eq!((told, namespace.nguid), (uuid, namespace.uuid.unwrap()));
    assert_eq!(namespace.blocks, (64 << 20) / 512);

    let data = Random::new(3).bytes(256 << 10);
    host.write(0, 1000, &data);
    assert!(host.read(1, 1000, data.len()) == data, "another queue reads the same");
    let mut over_nbd = vec![0; data.len()];
    rig.attach("vm1").read(1000 * 512, &mut over_nbd).unwrap();
    assert!(over_nbd == data, "and so does another target");

    let report = rig.json(&["target", "nvmf", "connections"]);
    // The target may not have noticed yet that discovery is over.
    let ours = |queue: &&serde_json::Value| queue["subsystem"] == SUBSYSTEM;
    let queues: Vec<_> = report.as_array().unwrap().iter().filter(ours).collect();
    assert_eq!(queues.iter().map(|q| q["qid"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(queues.iter().all(|q| q["host"] == HOST));
    assert_eq!(
        (&queues[1]["written_bytes"], &queues[2]["read_bytes"]),
        (&data.len().into(), &data.len().into())
    );
    if rig.json(&["status"])["status"]["cores"] != 1 {
        assert_ne!(queues[1]["core"], queues[2]["core"], "queues go round the cores");
    }

    rig.kill();
    rig.start(&[]);
    assert!(host.read(0, 1000, data.len()) == data, "the host has connected again");
    drop(host);
    rig.stop_and_check();
}

#[test]
fn digests_are_used_where_a_host_wants_them() {
    let (_rig, address) = exporting(&["--any-host"]);
    for bits in 0..4 {
        let mut wanted = settings(address, SUBSYSTEM, HOST);
        wanted.digests = Digests::from_bits(bits);
        let mut host = Host::attach(wanted).unwrap();
        let data = Random::new(1 + u64::from(bits)).bytes(128 << 10);
        host.write(0, 0, &data);
        assert!(host.read(1, 0, data.len()) == data);
    }
}

#[test]
fn hosts_are_refused_by_name_and_the_log_says_whom() {
    let (rig, address) = exporting(&["--host", HOST]);
    const INVALID_PARAMETERS: u16 = 0x182;
    const INVALID_HOST: u16 = 0x184;
    const IN_DATA: u64 = 1 << 16;
    let stranger = "nqn.2026-11.example:stranger";
    let attach = |subsystem, host| Host::attach(settings(address, subsystem, host));
    assert_eq!(refused(attach(SUBSYSTEM, stranger)), (INVALID_HOST, 0));
    let absent = "nqn.2026-11.example:absent";
    assert_eq!(refused(attach(absent, HOST)), (INVALID_PARAMETERS, IN_DATA | 256));
    let log = rig.log();
    assert!(log.lines().any(|line| line.contains(stranger) && line.contains("does not list")));
    assert!(log.lines().any(|line| line.contains(absent) && line.contains("no subsystem")));
    let mut host = attach(SUBSYSTEM, HOST).unwrap();
    rig.ok(&["target", "nvmf", "host", "add", SUBSYSTEM, stranger]);
    attach(SUBSYSTEM, stranger).unwrap();
    rig.ok(&["target", "nvmf", "host", "remove", SUBSYSTEM, HOST]);
    let ended = host.poll_until(|_| None::<()>).unwrap_err();
    assert!(ended.is_final(), "{ended}");
    assert!(rig.log().lines().any(|line| line.contains(HOST) && line.contains("no longer")));
}

#[test]
fn namespaces_come_go_and_grow_while_hosts_are_connected() {
    const NAMESPACE_CHANGED: u32 = 0x0004_0002;
    let (rig, address) = exporting(&["--any-host"]);
    rig.ok(&["volume", "create", "vm2", "--size", "32MiB"]);
    let attach = || Host::attach(settings(address, SUBSYSTEM, HOST)).unwrap();
    let nvmf = |arguments: &[&str]| rig.json(&[&["target", "nvmf"], arguments].concat());

    let mut host = attach();
    let shown = nvmf(&["namespace", "add", SUBSYSTEM, "vm2", "--nsid", "7", "--read-only"]);
    assert_eq!(shown["namespaces"][1]["nsid"], 7);
    assert_eq!(host.event(), NAMESPACE_CHANGED);
    let read = Command::read(7, 0, 1, BLOCK);
    assert!(host.run(0, read).status.is_success(), "it is there at once");
    assert!(!host.run(1, Command::write(7, 0, 1, BLOCK, false)).status.is_success());

    let mut host = attach();
    assert!(host.namespace(7).unwrap().read_only);
    rig.ok(&["volume", "resize", "vm1", "--size", "128MiB"]);
    assert_eq!(host.event(), NAMESPACE_CHANGED);
    host.write(0, (100 << 20) / 512, &[5; 4096]);
    assert_eq!(attach().namespace(1).unwrap().blocks, (128 << 20) / 512);

    rig.fails(&["volume", "delete", "vm2"], 1, SUBSYSTEM);
    let mut host = attach();
    nvmf(&["namespace", "remove", SUBSYSTEM, "7"]);
    assert_eq!(host.event(), NAMESPACE_CHANGED);
    assert!(!host.run(0, Command::read(7, 0, 1, BLOCK)).status.is_success());
    assert!(attach().namespace(7).is_none());
    rig.ok(&["volume", "delete", "vm2"]);
}

#[test]
fn wrong_commands_are_refused_with_their_reason() {
    let (mut rig, address) = exporting(&["--any-host"]);
    let add = |nqn: &'static str, volume| {
        ["target", "nvmf", "subsystem", "add", nqn, "--volume", volume, "--any-host"]
    };
    rig.fails(&add(SUBSYSTEM, "vm1"), 1, "exists already");
    rig.fails(&add("nqn.2026-11.example:two", "vm1"), 1, "exports the volume already");
    rig.fails(&add("nqn.2026-11.example:two", "none"), 1, "no volume named");
    rig.fails(&add("iqn.2026-11.example:two", "vm1"), 1, "nqn.yyyy-mm");
    rig.fails(&add("nqn.2014-08.org.nvmexpress.discovery", "vm1"), 1, "discovery");
    let nvmf = |arguments: &[&'static str]| [&["target", "nvmf"], arguments].concat();
    rig.fails(&nvmf(&["subsystem", "show", "nqn.2026-11.example:two"]), 1, "no subsystem");
    rig.fails(&nvmf(&["namespace", "remove", SUBSYSTEM, "2"]), 1, "no namespace 2");
    rig.fails(&nvmf(&["host", "add", SUBSYSTEM, HOST]), 1, "any host");
    rig.fails(&nvmf(&["ana", "set", SUBSYSTEM, "33", "optimized"]), 1, "ANA group 33");
    rig.fails(&nvmf(&["unlisten", "127.0.0.1:1"]), 1, "127.0.0.1:1");
    let taken = address.to_string();
    rig.fails(&["target", "nvmf", "listen", &taken], 1, "listened on already");
    rig.fails(&nvmf(&["listen", "0.0.0.0:0"]), 1, "insecure");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = other.local_addr().unwrap().to_string();
    rig.fails(&["target", "nvmf", "listen", &in_use], 1, &in_use);
    assert_eq!(rig.json(&["target", "nvmf", "subsystem", "list"]).as_array().unwrap().len(), 1);

    rig.stop_and_check();
    rig.fails(&["serve", "--nvmf", &format!("tcp:{in_use}")], 1, &in_use);
    rig.fails(&["serve", "--nvmf", "tcp:0.0.0.0:0"], 2, "insecure_listen");
    let file = rig.data().join("nvmf.json");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("\"nsid\": 1", "\"nsid\": 0")).unwrap();
    rig.fails(&["serve"], 1, "nvmf.json: subsystem \"nqn.2026-11.example:v1\": namespace 0");
    std::fs::write(&file, good).unwrap();
    rig.start(&[]);
    Host::attach(settings(address, SUBSYSTEM, HOST)).unwrap();
}

#[test]
fn who_says_nothing_or_nonsense_is_hung_up_on_and_others_go_on() {
    let (rig, address) = exporting(&["--any-host"]);
    let mut host = Host::attach(settings(address, SUBSYSTEM, HOST)).unwrap();
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut nonsense = TcpStream::connect(address).unwrap();
    nonsense.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 24];
    nonsense.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], 3, "a termination request");
    host.write(0, 0, &[9; 4096]);
    assert_eq!(host.read(1, 0, 4096), [9; 4096]);
    let started = Instant::now();
    for mut stream in silent {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "it is closed");
        host.attachment.poll(Instant::now(), &mut host.buffer).unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(rig.log().contains("no Connect within 10 s"));
    assert_eq!(host.read(1, 0, 4096), [9; 4096]);
}
