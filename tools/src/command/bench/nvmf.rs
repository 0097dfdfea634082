//! `tessera bench nvmf`: any NVMe/TCP target, its I/O queues polled by one thread or several.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use engine::core::meter::Meter;
use engine::target::load::plan::Random;
use engine::target::load::{Plan, Step, Tally};
use nvme::Nqn;
use nvme::tcp::Digests;
use nvme::tcp::initiator::{
    Attachment, Command, Completion, Memory, Namespace, Settings, Tag, describe,
};

use super::report::BenchReport;
use super::{BenchError, Load};
use crate::admin::size::parse_size;

/// Bytes of a write while the region is filled, if the controller takes as many.
const FILL_BYTES: u32 = 128 << 10;

/// Options of `bench nvmf`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the target listens: tcp:HOST:PORT. Writes destroy what the namespace holds
    #[arg(value_parser = parse_address)]
    address: SocketAddr,
    /// The subsystem
    #[arg(long, value_name = "NQN")]
    nqn: Nqn,
    /// The namespace
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), default_value_t = 1)]
    nsid: u32,
    /// Who connects [default: a name of its own]
    #[arg(long, value_name = "NQN")]
    host_nqn: Option<Nqn>,
    #[command(flatten)]
    load: Load,
    /// I/O queues, each a connection
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64), default_value_t = 1)]
    connections: u16,
    /// Threads that the connections are dealt out to, each an association of its own
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64), default_value_t = 1)]
    threads: u16,
    /// Header and data digests
    #[arg(long)]
    digests: bool,
    /// Put what is read into one buffer over and over: a client that costs less
    #[arg(long)]
    discard_reads: bool,
    /// Requests per second in all, at even intervals [default: as many as go]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "IOPS")]
    rate: Option<u32>,
    /// Bytes from the start of the namespace that are visited [default: all]
    #[arg(long, value_parser = parse_size)]
    region: Option<u64>,
    /// Write the region first
    #[arg(long)]
    fill: bool,
    /// Seconds for which a lost target is connected to again, before the measurement fails
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    reconnect: u32,
}

impl Args {
    /// None without a connection.
    fn threads(&self) -> u16 {
        self.threads.min(self.connections)
    }
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || "expected tcp:HOST:PORT".to_owned();
    let host_and_port = text.strip_prefix("tcp:").ok_or_else(wrong)?;
    if !host_and_port.contains(':') {
        return Err(wrong());
    }
    let mut found = host_and_port.to_socket_addrs().map_err(|e| e.to_string())?;
    found.next().ok_or_else(|| format!("{host_and_port} has no address"))
}

/// Buffers: one that all writes send, and one for each read, or for all.
struct Buffers {
    written: Vec<u8>,
    read: Vec<u8>,
    /// Between the buffers of two tags.
    stride: usize,
}

impl Memory for Buffers {
    fn source(&self, _: Tag, offset: usize, len: usize) -> &[u8] {
        &self.written[offset..][..len]
    }

    fn target(&mut self, tag: Tag, offset: usize, len: usize) -> &mut [u8] {
        &mut self.read[tag.0 as usize * self.stride + offset..][..len]
    }
}

/// One thread's connections and what is under way on them.
struct Client {
    attachment: Attachment,
    namespace: Namespace,
    buffers: Buffers,
    plan: Plan,
    /// By tag.
    under_way: Vec<Option<(Step, Instant)>>,
    free: Vec<Tag>,
    links: usize,
    /// Between two requests, if they are paced.
    interval: Option<Duration>,
    tally: Tally,
}

impl Client {
    fn connect(args: &Args, number: u16) -> Result<Client, BenchError> {
        let threads = args.threads();
        let links = args.connections / threads + u16::from(number < args.connections % threads);
        let tags = u32::from(links) * u32::from(args.load.depth);
        let mut attachment = Attachment::begin(Instant::now(), settings(args, links), tags)?;
        let block = args.load.block_size;
        let mut random = Random::new(args.load.seed);
        let mut buffers = Buffers {
            written: (0..block.max(FILL_BYTES)).map(|_| random.draw().to_le_bytes()[0]).collect(),
            read: vec![0; if args.discard_reads { 1 } else { tags as usize } * block as usize],
            stride: if args.discard_reads { 0 } else { block as usize },
        };
        while !attachment.is_live() {
            attachment.poll(Instant::now(), &mut buffers)?;
            std::thread::sleep(Duration::from_micros(100));
        }
        let found = attachment.links();
        if found < links.into() {
            return Err(BenchError::TooFewQueues { wanted: links, found });
        }
        let namespace = attachment.namespaces().first().expect("it was asked for").clone();
        let most = attachment.controller().most_bytes.unwrap_or(u64::MAX);
        if !block.is_multiple_of(namespace.block_bytes) || u64::from(block) > most {
            return Err(BenchError::BlockSize { block_bytes: namespace.block_bytes, most });
        }
        let region = region(args, &namespace);
        if region == 0 {
            return Err(BenchError::SmallExport);
        }
        let seed = args.load.seed + u64::from(number);
        Ok(Client {
            attachment,
            namespace,
            buffers,
            plan: Plan::new(args.load.mix(), vec![0], region, seed),
            under_way: vec![None; tags as usize],
            free: (0..tags).rev().map(Tag).collect(),
            links: links.into(),
            interval: args.rate.map(|iops| Duration::from_secs(1) * threads.into() / iops),
            tally: Tally::default(),
        })
    }

    /// Sends the next step of the plan; its time begins at `began`.
    fn send(&mut self, now: Instant, began: Instant, tag: Tag) {
        let step = self.plan.step();
        let bytes = self.plan.mix().block_bytes;
        let Namespace { nsid, block_bytes, .. } = self.namespace;
        let blocks = bytes / block_bytes;
        let lba = |at: u64| at / u64::from(block_bytes);
        let command = match step {
            Step::Read(at) => Command::read(nsid, lba(at), blocks, bytes),
            Step::Write(at) => Command::write(nsid, lba(at), blocks, bytes, false),
            Step::Flush => Command::flush(nsid),
        };
        self.under_way[tag.0 as usize] = Some((step, began));
        let link = tag.0 as usize % self.links;
        self.attachment.submit(now, link, command, tag, &self.buffers);
    }

    /// Frees the tag of a completion; counts it if `measured`.
    fn end(&mut self, now: Instant, done: Completion, measured: bool) -> Result<(), BenchError> {
        let ended = self.under_way[done.tag.0 as usize].take();
        let (step, began) = ended.expect("a completion belongs to a request");
        self.free.push(done.tag);
        if !done.status.is_success() {
            return Err(BenchError::Command(describe(done.status)));
        }
        if !measured {
            return Ok(());
        }
        match step {
            Step::Flush => self.tally.flushes += 1,
            step => {
                let took = nanos(now.saturating_duration_since(began));
                let bytes = self.plan.mix().block_bytes;
                self.tally.count(matches!(step, Step::Write(_)), bytes, took);
            }
        }
        Ok(())
    }

    fn poll(&mut self, measured: bool) -> Result<Instant, BenchError> {
        self.attachment.poll(Instant::now(), &mut self.buffers)?;
        let now = Instant::now();
        while let Some(done) = self.attachment.pop() {
            self.end(now, done, measured)?;
        }
        Ok(now)
    }

    /// Runs for some time with all slots in use, or at the pace asked for.
    fn run(&mut self, time: Duration, measured: bool) -> Result<(), BenchError> {
        let began = Instant::now();
        let (mut now, mut due) = (began, began);
        while now.duration_since(began) < time {
            while let Some(tag) = self.free.pop() {
                match self.interval {
                    None => self.send(now, now, tag),
                    // What is late counts as having waited since it was due.
                    Some(interval) if due <= now => {
                        self.send(now, due, tag);
                        due += interval;
                    }
                    Some(_) => {
                        self.free.push(tag);
                        break;
                    }
                }
            }
            now = self.poll(measured)?;
        }
        self.tally.elapsed_ns = nanos(began.elapsed());
        while self.attachment.under_way() > 0 {
            self.poll(false)?;
        }
        Ok(())
    }

    /// Writes the region once.
    fn fill(&mut self, region: u64) -> Result<(), BenchError> {
        let most = self.attachment.controller().most_bytes.unwrap_or(u64::MAX);
        let Namespace { nsid, block_bytes, .. } = self.namespace;
        let step = u64::from(FILL_BYTES).min(most) / u64::from(block_bytes);
        let (mut lba, end) = (0, region / u64::from(block_bytes));
        while lba < end || self.attachment.under_way() > 0 {
            while let Some(tag) = (lba < end).then(|| self.free.pop()).flatten() {
                let blocks = u32::try_from(step.min(end - lba)).expect("128 KiB at most");
                let command = Command::write(nsid, lba, blocks, blocks * block_bytes, false);
                let now = Instant::now();
                self.under_way[tag.0 as usize] = Some((Step::Flush, now));
                self.attachment.submit(now, tag.0 as usize, command, tag, &self.buffers);
                lba += u64::from(blocks);
            }
            self.poll(false)?;
        }
        Ok(())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn region(args: &Args, namespace: &Namespace) -> u64 {
    let size = namespace.blocks.saturating_mul(namespace.block_bytes.into());
    let block = u64::from(args.load.block_size);
    args.region.unwrap_or(size).min(size) / block * block
}

fn settings(args: &Args, links: u16) -> Settings {
    let host_id = u128::from(std::process::id()).to_be_bytes();
    let host = args.host_nqn.clone().unwrap_or_else(|| {
        let name = format!("nqn.2014-08.org.nvmexpress:tessera-bench-{}", std::process::id());
        Nqn::new(&name).expect("well-formed")
    });
    let mut settings = Settings::new(args.address, args.nqn.clone(), host, host_id);
    settings.digests = Digests { header: args.digests, data: args.digests };
    settings.io_queues = links;
    settings.depth = args.load.depth;
    settings.nsid = Some(args.nsid);
    settings.timers.controller_loss = Some(Duration::from_secs(args.reconnect.into()));
    settings
}

/// Measures.
pub(super) fn run(args: &Args) -> Result<BenchReport, BenchError> {
    let threads = args.threads();
    let mut clients = Vec::new();
    for number in 0..threads {
        clients.push(Client::connect(args, number)?);
    }
    let region = region(args, &clients[0].namespace);
    if args.fill {
        clients[0].fill(region)?;
    }
    let start = Barrier::new(threads.into());
    let failed = AtomicU32::new(0);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let (start, failed, load) = (&start, &failed, &args.load);
        let threads: Vec<_> = clients
            .into_iter()
            .map(|client| scope.spawn(move || job(load, client, start, failed)))
            .collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let (mut sum, mut cost) = (Tally::default(), Meter::default());
    for outcome in outcomes {
        let (tally, meter) = outcome.map_err(|_| BenchError::ThreadGone)??;
        sum.add(&tally);
        cost = cost.plus(meter);
    }
    let what = format!("NVMe/TCP target at {}, {}", args.address, args.nqn);
    Ok(BenchReport::new(what, &args.load, (args.connections, region), &sum, ("clients", cost)))
}

/// The body of one thread.
fn job(
    load: &Load,
    mut client: Client,
    start: &Barrier,
    failed: &AtomicU32,
) -> Result<(Tally, Meter), BenchError> {
    let warmed = client.run(Duration::from_secs_f64(load.warm_up), false);
    failed.fetch_add(u32::from(warmed.is_err()), Ordering::AcqRel);
    start.wait();
    warmed?;
    if failed.load(Ordering::Acquire) > 0 {
        return Err(BenchError::ThreadGone);
    }
    let (before, calls) = (Meter::of_this_thread(), client.attachment.syscalls());
    client.run(Duration::from_secs_f64(load.seconds), true)?;
    let mut cost = Meter::of_this_thread().since(before);
    cost.syscalls += client.attachment.syscalls() - calls;
    let counts = client.attachment.counts();
    if counts.reconnects > 0 {
        eprintln!("connected again {} times: times include the waits", counts.reconnects);
    }
    client.attachment.close(Instant::now());
    Ok((client.tally, cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_the_transport() {
        assert_eq!(parse_address("tcp:127.0.0.1:4420"), Ok(([127, 0, 0, 1], 4420).into()));
        assert!(parse_address("tcp:[::1]:4420").is_ok());
        for text in ["127.0.0.1:4420", "tcp:127.0.0.1", "tcp:", "rdma:127.0.0.1:4420"] {
            assert!(parse_address(text).unwrap_err().contains("tcp:HOST:PORT"), "{text}");
        }
    }
}
