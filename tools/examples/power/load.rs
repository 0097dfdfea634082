//! The load: clients that write, flush and read, a server that is killed once, spills.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine::admin::config::{Config, DeviceConfig};
use engine::admin::report::Role;
use engine::target::nbd::client::{Client, Part, Receiver, Sender};

use crate::content::{BLOCK, Place, SECTOR, fill};
use crate::history::History;
use crate::mark::{Mark, Marks};
use crate::random::Random;
use crate::served::{Program, Server};
use crate::workload::{Action, CONNECTIONS, Op, VOLUMES, batch};
use crate::{PowerError, system};

/// Batches after which a client reads some blocks back, and how many at most.
const READ_PERCENT: u64 = 30;
const READ_BLOCKS: u64 = 64;
const SPILL_PAUSE: Duration = Duration::from_secs(4);
const SPILL_LIMIT: Duration = Duration::from_secs(2);

/// Runs the load for about `length` and leaves the server running.
///
/// # Errors
/// If anything fails that must not, or a client reads what it did not write.
pub fn run(program: &Program, marks: &Path, seed: u64, length: Duration) -> Result<(), PowerError> {
    let marks = Marks::open(marks)?;
    let started = Instant::now();
    let phase = |what: &str| println!("{:>6.1} s  {what}", started.elapsed().as_secs_f64());
    mark_devices(&program.data, &marks)?;
    let mut server = program.serve()?;
    for (name, mib, fragment) in VOLUMES {
        let size = format!("{mib}MiB");
        program.ask(&["volume", "create", name, "--size", &size, "--fragment-size", fragment])?;
    }
    marks.leave(Mark::Ready)?;
    phase("volumes are made");
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|number| Load::new(seed, number)).collect();
    // Its death between the halves: what a restart recovers is cut as well.
    drive(program, &marks, &mut clients, length / 2, Some(server))?;
    phase("the server is dead");
    server = program.serve()?;
    phase("and serves again");
    drive(program, &marks, &mut clients, length / 2, None)?;
    phase("the load has ended");
    println!("batches: {:?}", clients.iter().map(|client| client.number).collect::<Vec<_>>());
    // The machine is cut off now, so nothing has to end in order.
    server.kill()
}

/// Names the pool's devices by their kernel numbers, in the pool's order.
fn mark_devices(data: &Path, marks: &Marks) -> Result<(), PowerError> {
    let config = Config::load(data).map_err(|e| PowerError::Server(e.to_string()))?;
    let config = config.ok_or_else(|| PowerError::Server("no tessera.toml".into()))?;
    let mut devices: Vec<&DeviceConfig> = config.pool.devices.iter().collect();
    devices.sort_by_key(|device| device.role != Role::Fast);
    for (index, device) in devices.into_iter().enumerate() {
        let name = device.path.file_name().unwrap_or_default();
        let path = Path::new("/sys/class/block").join(name).join("dev");
        let text = fs::read_to_string(&path).map_err(system(path.display().to_string()))?;
        let (major, minor) = text.trim().split_once(':').unwrap_or_default();
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else {
            return Err(PowerError::Server(format!("{}: {text}", path.display())));
        };
        marks.leave(Mark::Device { index, number: (major, minor) })?;
    }
    Ok(())
}

/// All clients at once, with spills beside them; kills `victim` at the end if there is one.
fn drive(
    program: &Program,
    marks: &Marks,
    clients: &mut [Load],
    length: Duration,
    victim: Option<Server>,
) -> Result<(), PowerError> {
    let (stop, dying) = (AtomicBool::new(false), victim.is_some());
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(|| client.run(program, marks, &stop, dying)))
            .collect();
        let limit = Instant::now() + length;
        let mut spilled = Ok(());
        for (name, ..) in VOLUMES.iter().cycle() {
            thread::sleep(SPILL_PAUSE.min(limit.saturating_duration_since(Instant::now())));
            if spilled.is_err()
                || Instant::now() >= limit
                || threads.iter().any(|t| t.is_finished())
            {
                break;
            }
            // While clients write, a spill need not come to an end.
            spilled = program.ask_within(&["tier", "spill", name], SPILL_LIMIT);
        }
        let killed = victim.map_or(Ok(()), Server::kill);
        stop.store(true, Ordering::Relaxed);
        let mut ended: Vec<_> =
            threads.into_iter().map(|thread| thread.join().expect("a client's thread")).collect();
        ended.extend([spilled, killed]);
        ended.into_iter().collect()
    })
}

/// A client and what it wrote.
struct Load {
    seed: u64,
    connection: u32,
    /// The batch under way, or the last.
    number: u32,
    history: History,
    random: Random,
}

impl Load {
    fn new(seed: u64, connection: u32) -> Load {
        let history = History::new(seed, connection);
        let random = Random::of(&[seed, u64::from(connection)]);
        Load { seed, connection, number: 1, history, random }
    }

    /// Batches until told to stop. The server may die if `dying`; the batch under way is then
    /// repeated by the next run: doing an operation twice leaves what doing it once does.
    fn run(
        &mut self,
        program: &Program,
        marks: &Marks,
        stop: &AtomicBool,
        dying: bool,
    ) -> Result<(), PowerError> {
        let (name, ..) = VOLUMES[self.history.region().volume as usize];
        let (mut sender, mut receiver) = match program.attach(name).map(Client::split) {
            Err(PowerError::Client(_)) if dying => return Ok(()),
            halves => halves?,
        };
        while !stop.load(Ordering::Relaxed) {
            let ops = batch(self.seed, self.connection, self.number);
            let (connection, batch) = (self.connection, self.number);
            marks.leave(Mark::Begin { connection, batch })?;
            match self.perform(&ops, marks, &mut sender, &mut receiver) {
                Err(PowerError::Client(_)) if dying => return Ok(()),
                ended => ended?,
            }
            self.history.add(self.number, &ops);
            self.number += 1;
            if !self.random.chance(READ_PERCENT) {
                continue;
            }
            match self.read_back(&mut sender, &mut receiver) {
                Err(PowerError::Client(_)) if dying => return Ok(()),
                ended => ended?,
            }
        }
        Ok(())
    }

    /// Sends a batch and waits for all of it.
    fn perform(
        &self,
        ops: &[Op],
        marks: &Marks,
        sender: &mut Sender,
        receiver: &mut Receiver,
    ) -> Result<(), PowerError> {
        for (cookie, op) in (0..).zip(ops) {
            self.send(cookie, op, sender)?;
        }
        for _ in ops {
            let done = receiver.receive(|_| {})?;
            done.result.map_err(engine::target::nbd::client::Error::from)?;
            let op = usize::try_from(done.cookie).expect("an index");
            let (connection, batch) = (self.connection, self.number);
            match ops[op].action {
                Action::Flush => marks.leave(Mark::Flushed { connection, batch })?,
                Action::Write { fua: true } => marks.leave(Mark::Fua { connection, batch, op })?,
                _ => {}
            }
        }
        Ok(())
    }

    fn send(&self, cookie: u64, op: &Op, sender: &mut Sender) -> Result<(), PowerError> {
        let offset = op.sector * SECTOR as u64;
        let bytes = op.sectors * SECTOR as u64;
        let length = u32::try_from(bytes).expect("a short operation");
        match op.action {
            Action::Flush => sender.flush(cookie)?,
            Action::Trim => sender.trim(cookie, offset, length)?,
            Action::WriteZeroes => sender.write_zeroes(cookie, offset, length, false)?,
            Action::Write { fua } => {
                let mut data = vec![0; length as usize];
                let volume = self.history.region().volume;
                for (sector, out) in (op.sector..).zip(data.chunks_exact_mut(SECTOR)) {
                    fill(Place { seed: self.seed, volume, sector }, self.number, out);
                }
                sender.write(cookie, offset, &data, fua)?;
            }
        }
        Ok(())
    }

    /// Reads some blocks, which promotes what was spilled, and compares them.
    fn read_back(
        &mut self,
        sender: &mut Sender,
        receiver: &mut Receiver,
    ) -> Result<(), PowerError> {
        let region = self.history.region();
        let blocks = 1 + self.random.below(READ_BLOCKS);
        let first = region.first + self.random.below(region.blocks - blocks + 1);
        let mut found = vec![0; usize::try_from(blocks).expect("few") * BLOCK];
        let start = first * BLOCK as u64;
        sender.read(0, start, u32::try_from(found.len()).expect("a short read"))?;
        let done = receiver.receive(|part| {
            if let Part::Data { offset, bytes, .. } = part {
                let at = usize::try_from(offset - start).expect("inside the read");
                found[at..at + bytes.len()].copy_from_slice(bytes);
            }
        })?;
        done.result.map_err(engine::target::nbd::client::Error::from)?;
        for (block, bytes) in (first..).zip(found.chunks_exact(BLOCK)) {
            let wrong = |why| PowerError::Wrong { volume: region.volume, block, why };
            let value = self.history.value(block, bytes).map_err(wrong)?;
            let newest = self.history.newest(block);
            if value != newest {
                return Err(wrong(format!("{value:?} was read, {newest:?} was written")));
            }
        }
        Ok(())
    }
}
