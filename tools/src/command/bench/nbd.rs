//! `tessera bench nbd`: any NBD server, one thread for each connection.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use engine::core::meter::Meter;
use engine::target::load::{Plan, Step, Tally};
use engine::target::nbd::client::{Client, Receiver, Sender, Uri};

use super::report::BenchReport;
use super::{BenchError, Load};
use crate::admin::size::parse_size;

/// Options of `bench nbd`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The export: nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH. Writes destroy what it holds
    uri: Uri,
    #[command(flatten)]
    load: Load,
    /// Connections
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64), default_value_t = 1)]
    jobs: u16,
    /// Bytes from the start of the export that are visited [default: all]
    #[arg(long, value_parser = parse_size)]
    region: Option<u64>,
    /// Write the region first
    #[arg(long)]
    fill: bool,
}

/// One connection and what is under way on it.
struct Connection {
    sender: Sender,
    receiver: Receiver,
    plan: Plan,
    /// By cookie.
    slots: Vec<Option<(Step, Instant)>>,
    data: Vec<u8>,
    tally: Tally,
}

impl Connection {
    fn send(&mut self, cookie: usize) -> Result<(), BenchError> {
        let step = self.plan.step();
        self.slots[cookie] = Some((step, Instant::now()));
        let bytes = self.plan.mix().block_bytes;
        match step {
            Step::Read(at) => self.sender.read(cookie as u64, at, bytes)?,
            Step::Write(at) => self.sender.write(cookie as u64, at, &self.data, false)?,
            Step::Flush => self.sender.flush(cookie as u64)?,
        }
        Ok(())
    }

    /// Takes one answer; counts it if `measured`. The slot that has become free.
    fn receive(&mut self, measured: bool) -> Result<usize, BenchError> {
        use engine::target::nbd::client::Error;
        let done = self.receiver.receive(|_| ())?;
        done.result.map_err(Error::from)?;
        let cookie = usize::try_from(done.cookie).ok().filter(|&at| at < self.slots.len());
        let sent = cookie.and_then(|at| Some((at, self.slots[at].take()?)));
        let Some((cookie, (step, began))) = sent else {
            return Err(Error::Malformed("an answer to no request").into());
        };
        let bytes = self.plan.mix().block_bytes;
        if matches!(step, Step::Read(_)) && done.bytes != u64::from(bytes) {
            return Err(Error::Malformed("a read's data does not match its request").into());
        }
        if measured {
            match step {
                Step::Flush => self.tally.flushes += 1,
                step => {
                    let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    self.tally.count(matches!(step, Step::Write(_)), bytes, took);
                }
            }
        }
        Ok(cookie)
    }

    /// Runs for some time with all slots in use.
    fn run(&mut self, time: Duration, measured: bool) -> Result<(), BenchError> {
        let began = Instant::now();
        (0..self.slots.len()).try_for_each(|cookie| self.send(cookie))?;
        while began.elapsed() < time {
            let cookie = self.receive(measured)?;
            self.send(cookie)?;
        }
        self.tally.elapsed_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        while self.slots.iter().any(Option::is_some) {
            self.receive(false)?;
        }
        Ok(())
    }
}

/// Measures.
pub(super) fn run(args: &Args) -> Result<BenchReport, BenchError> {
    let mut clients = Vec::new();
    for _ in 0..args.jobs {
        clients.push(Client::connect(&args.uri)?);
    }
    let size = clients[0].size();
    let block = u64::from(args.load.block_size);
    let region = args.region.unwrap_or(size).min(size) / block * block;
    if region == 0 {
        return Err(BenchError::SmallExport);
    }
    if args.fill {
        fill(&mut clients[0], region)?;
    }
    let start = Arc::new(Barrier::new(args.jobs.into()));
    let failed = Arc::new(AtomicU32::new(0));
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0u64..)
            .zip(clients)
            .map(|(n, client)| {
                let (start, failed) = (Arc::clone(&start), Arc::clone(&failed));
                scope.spawn(move || job(&args.load, client, region, n, &start, &failed))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let (mut sum, mut cost) = (Tally::default(), Meter::default());
    for outcome in outcomes {
        let (tally, meter) = outcome.map_err(|_| BenchError::ThreadGone)??;
        sum.add(&tally);
        cost = cost.plus(meter);
    }
    let what = format!("NBD server at {}", args.uri);
    Ok(BenchReport::new(what, &args.load, (args.jobs, region), &sum, ("clients", cost)))
}

fn fill(client: &mut Client, region: u64) -> Result<(), BenchError> {
    const STEP: u64 = 1 << 20;
    let mut random = engine::target::load::plan::Random::new(1);
    let data: Vec<u8> = (0..STEP).map(|_| random.draw().to_le_bytes()[0]).collect();
    for at in (0..region).step_by(1 << 20) {
        let bytes = usize::try_from(STEP.min(region - at)).expect("at most 1 MiB");
        client.write(at, &data[..bytes], false)?;
    }
    Ok(client.flush()?)
}

/// The body of one connection's thread.
fn job(
    load: &Load,
    client: Client,
    region: u64,
    number: u64,
    start: &Barrier,
    failed: &AtomicU32,
) -> Result<(Tally, Meter), BenchError> {
    let (sender, receiver) = client.split();
    let mut connection = Connection {
        sender,
        receiver,
        plan: Plan::new(load.mix(), vec![0], region, load.seed + number),
        slots: vec![None; load.depth.into()],
        data: vec![0x5a; load.block_size as usize],
        tally: Tally::default(),
    };
    let warmed = connection.run(Duration::from_secs_f64(load.warm_up), false);
    failed.fetch_add(u32::from(warmed.is_err()), Ordering::AcqRel);
    start.wait();
    warmed?;
    if failed.load(Ordering::Acquire) > 0 {
        return Err(BenchError::ThreadGone);
    }
    let before = Meter::of_this_thread();
    connection.run(Duration::from_secs_f64(load.seconds), true)?;
    Ok((connection.tally, Meter::of_this_thread().since(before)))
}
