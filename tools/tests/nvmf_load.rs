//! A served volume over NVMe/TCP under the load of our own host: what was written is read back,
//! also after the server was killed, and `tessera bench nvmf` measures it.

mod rig;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use nvme::Nqn;
use nvme::tcp::Digests;
use nvme::tcp::initiator::{Attachment, Command, Completion, Error, Memory, Settings, Tag};
use rig::{Random, Rig};
use serde_json::Value;

const NQN: &str = "nqn.2026-11.example:v";
const BLOCK: usize = 4096;
const LIMIT: Duration = Duration::from_secs(60);

/// A rig that exports volume `v`, and where.
fn exporting(size: &str) -> (Rig, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut rig = Rig::new();
    rig.start(&["--nvmf", &format!("tcp:{address}")]);
    rig.ok(&["volume", "create", "v", "--size", size]);
    rig.ok(&["target", "nvmf", "subsystem", "add", NQN, "--volume", "v", "--any-host"]);
    (rig, address)
}

fn settings(address: SocketAddr, nqn: &str) -> Settings {
    let host = Nqn::new("nqn.2026-11.example:host").unwrap();
    let mut settings = Settings::new(address, Nqn::new(nqn).unwrap(), host, [9; 16]);
    settings.timers.first_delay = Duration::from_millis(20);
    settings.timers.longest_delay = Duration::from_millis(100);
    settings
}

/// Buffers of one length by tag.
struct Buffers(Vec<Vec<u8>>);

impl Memory for Buffers {
    fn source(&self, tag: Tag, offset: usize, len: usize) -> &[u8] {
        &self.0[tag.0 as usize][offset..][..len]
    }

    fn target(&mut self, tag: Tag, offset: usize, len: usize) -> &mut [u8] {
        &mut self.0[tag.0 as usize][offset..][..len]
    }
}

/// An attached namespace, and its requests.
struct Host {
    attachment: Attachment,
    buffers: Buffers,
}

impl Host {
    fn attach(settings: Settings, tags: u32, bytes: usize) -> Result<Host, Error> {
        let attachment = Attachment::begin(Instant::now(), settings, tags)?;
        let buffers = Buffers(vec![vec![0; bytes]; tags as usize]);
        let mut host = Host { attachment, buffers };
        let limit = Instant::now() + LIMIT;
        while !host.attachment.is_live() {
            assert!(Instant::now() < limit, "it does not become live");
            host.poll()?;
        }
        Ok(host)
    }

    fn poll(&mut self) -> Result<(), Error> {
        self.attachment.poll(Instant::now(), &mut self.buffers)
    }

    /// Blocks of the namespace in one of ours.
    fn unit(&self) -> u32 {
        u32::try_from(BLOCK).unwrap() / self.attachment.namespaces()[0].block_bytes
    }

    fn submit(&mut self, link: usize, writes: bool, block: u64, bytes: usize, tag: u32) {
        let (unit, bytes) = (self.unit(), u32::try_from(bytes).unwrap());
        let (lba, blocks) = (block * u64::from(unit), bytes / 4096 * unit);
        let command = match writes {
            true => Command::write(1, lba, blocks, bytes, false),
            false => Command::read(1, lba, blocks, bytes),
        };
        self.attachment.submit(Instant::now(), link, command, Tag(tag), &self.buffers);
    }

    /// Waits for so many completions, all of them successes.
    fn wait(&mut self, count: usize) -> Vec<Completion> {
        let (mut done, limit) = (Vec::new(), Instant::now() + LIMIT);
        while done.len() < count {
            assert!(Instant::now() < limit, "{:?}", self.attachment.last_error());
            self.poll().unwrap();
            done.extend(std::iter::from_fn(|| self.attachment.pop()));
        }
        assert!(done.iter().all(|done| done.status.is_success()), "{done:?}");
        done
    }

    fn flush(&mut self) {
        self.attachment.submit(Instant::now(), 0, Command::flush(1), Tag(0), &self.buffers);
        self.wait(1);
    }
}

#[test]
fn what_is_written_is_read_back() {
    let (mut rig, address) = exporting("64MiB");
    let mut random = Random::new(7);
    let mut known = vec![0; 64 << 20];
    for (header, data, queues) in [(false, false, 1), (true, true, 3), (false, true, 2)] {
        let settings = Settings {
            digests: Digests { header, data },
            io_queues: queues,
            depth: 16,
            ..settings(address, NQN)
        };
        let mut host = Host::attach(settings, 32, 128 << 10).unwrap();
        assert_eq!(host.attachment.links(), usize::from(queues));
        for round in 0..20 {
            // Sizes below and above what a capsule carries, none over another.
            for tag in 0..32 {
                let bytes = BLOCK << random.below(6);
                let block = u64::from(tag) * 512 + random.below(480);
                let fill = random.bytes(bytes);
                let at = usize::try_from(block).unwrap() * BLOCK;
                known[at..at + bytes].copy_from_slice(&fill);
                host.buffers.0[tag as usize][..bytes].copy_from_slice(&fill);
                host.submit(round + tag as usize, true, block, bytes, tag);
            }
            host.wait(32);
        }
        host.flush();
        for (part, blocks) in (0..512).collect::<Vec<u64>>().chunks(32).enumerate() {
            for (tag, part) in (0..).zip(blocks) {
                host.submit(tag as usize, false, part * 32, 128 << 10, tag);
            }
            host.wait(32);
            for (tag, buffer) in host.buffers.0.iter().enumerate() {
                let at = (part * 32 + tag) * (128 << 10);
                assert!(known[at..at + (128 << 10)] == buffer[..], "{at}: {header} {data}");
            }
        }
        host.attachment.close(Instant::now());
    }
    let mut over_nbd = vec![0; known.len()];
    rig.attach("v").read(0, &mut over_nbd).unwrap();
    assert!(over_nbd == known, "both doors show the same");
    rig.stop_and_check();
}

#[test]
fn a_killed_server_costs_no_request_and_no_completed_write() {
    const TAGS: u32 = 16;
    let (mut rig, address) = exporting("64MiB");
    let listen = format!("tcp:{address}");
    let settings = Settings { io_queues: 2, ..settings(address, NQN) };
    let mut host = Host::attach(settings, TAGS, BLOCK).unwrap();
    let mut random = Random::new(11);
    // Each tag writes blocks of its own, so that the last value of each is certain.
    let mut known = vec![0u8; 256 * TAGS as usize];
    let mut under_way = vec![0usize; TAGS as usize];
    for death in 0..4u8 {
        let until = Instant::now() + Duration::from_millis(300);
        for tag in 0..TAGS {
            write_one(&mut host, tag, death, &mut random, &mut under_way);
        }
        let mut killed = false;
        let limit = Instant::now() + LIMIT;
        while !killed || host.attachment.under_way() > 0 {
            assert!(Instant::now() < limit, "{:?}", host.attachment.last_error());
            host.poll().unwrap();
            while let Some(done) = host.attachment.pop() {
                assert!(done.status.is_success(), "{done:?}");
                known[under_way[done.tag.0 as usize]] = host.buffers.0[done.tag.0 as usize][0];
                if !killed {
                    write_one(&mut host, done.tag.0, death, &mut random, &mut under_way);
                }
            }
            if !killed && Instant::now() > until {
                rig.kill();
                rig.start(&["--nvmf", &listen]);
                killed = true;
            }
        }
        check(&mut host, &known);
    }
    let counts = host.attachment.counts();
    assert!(counts.reconnects >= 4 && counts.requeued > 0, "{counts:?}");
    rig.stop_and_check();
}

/// Writes one of a tag's blocks.
fn write_one(host: &mut Host, tag: u32, death: u8, random: &mut Random, at: &mut [usize]) {
    let block = u64::from(tag) * 256 + random.below(256);
    at[tag as usize] = usize::try_from(block).unwrap();
    let value = u8::try_from(random.below(50)).unwrap() + 50 * death + 1;
    host.buffers.0[tag as usize].fill(value);
    host.submit(tag as usize, true, block, BLOCK, tag);
}

/// Reads every block and compares it with its one value.
fn check(host: &mut Host, known: &[u8]) {
    let blocks: Vec<_> = (0..).zip(known).collect();
    for blocks in blocks.chunks(host.buffers.0.len()) {
        for (tag, (block, _)) in (0..).zip(blocks) {
            host.submit(tag as usize, false, *block, BLOCK, tag);
        }
        host.wait(blocks.len());
        for ((block, value), buffer) in blocks.iter().zip(&host.buffers.0) {
            assert!(buffer.iter().all(|byte| byte == *value), "block {block}");
        }
    }
}

#[test]
fn wrong_names_end_a_measurement_with_their_reason() {
    let (mut rig, address) = exporting("16MiB");
    let at = format!("tcp:{address}");
    let bench = ["bench", "nvmf", &at, "--nqn"];
    for (options, code, names) in [
        (&["nqn.2026-11.example:w"][..], 1, "is the NQN right?"),
        (&["nonsense"], 2, "nqn.yyyy-mm."),
        (&[NQN, "--nsid", "2"], 1, "no namespace 2"),
    ] {
        rig.fails(&[&bench[..], options].concat(), code, names);
    }
    rig.fails(&["bench", "nvmf", "tcp:127.0.0.1:1", "--nqn", NQN], 1, "refused");
    rig.assert_serving("v");
    rig.stop_and_check();
}

fn number(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or_else(|| panic!("{name} in {report}"))
}

#[test]
fn a_target_is_measured() {
    let (mut rig, address) = exporting("32MiB");
    let at = format!("tcp:{address}");
    let measure = |options: &[&str]| {
        let short = ["--seconds", "0.3", "--warm-up", "0.1", "--nqn", NQN];
        let report = rig.json(&[&["bench", "nvmf", &at], &short[..], options].concat());
        assert!(number(&report, "requests") > 0.0, "{report}");
        let latencies = ["p50_us", "p99_us", "p999_us"].map(|name| number(&report, name));
        assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{report}");
        assert!(number(&report, "syscalls_per_io") > 0.0, "{report}");
        assert!(number(&report, "allocations_per_io") < 0.01, "{report}");
        report
    };
    let load = ["--fill", "--read", "70", "--fsync", "4", "--connections", "2", "--depth", "4"];
    assert!(number(&measure(&load), "flushes") > 0.0);
    measure(&["--digests", "--block-size", "128KiB", "--depth", "4", "--read", "50"]);
    measure(&["--discard-reads", "--depth", "32"]);
    let paced = measure(&["--rate", "500", "--threads", "2", "--connections", "2"]);
    assert!((350.0..=550.0).contains(&number(&paced, "iops")), "{paced}");
    rig.stop_and_check();
}
