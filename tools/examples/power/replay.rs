//! Replays: images of power cuts, opened again and compared.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use engine::admin::config::Config;
use engine::admin::report::Role;
use engine::check::{CheckError, Depth, check};

use crate::content::BLOCK;
use crate::cut::{Fate, image, moment};
use crate::history::History;
use crate::mark::Mark;
use crate::random::Random;
use crate::served::Program;
use crate::trace::{Moment, Trace};
use crate::workload::{CONNECTIONS, VOLUMES, batch};
use crate::write_log::WriteLog;
use crate::{PowerError, system};

/// Violations of one replay that are printed.
const PRINTED: usize = 4;
/// Longest wait for the locks of a server that has ended.
const UNLOCKING: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(5);
/// Where memory is a file system: images come and go without a disk.
const MEMORY: &str = "/dev/shm";

/// A recorded run.
struct Recorded {
    seed: u64,
    trace: Trace,
    logs: Vec<WriteLog>,
    config: Config,
    toml: String,
}

/// Cuts, reopens and compares; true if no replay violates anything.
///
/// # Errors
/// If the record or the machine is unfit: says nothing about the engine.
pub fn run(
    recorded: &Path,
    tessera: &Path,
    seed: u64,
    replays: Range<u64>,
) -> Result<bool, PowerError> {
    let recorded = Recorded::open(recorded, seed)?;
    recorded.describe();
    let (one, mut total) = (replays.end - replays.start == 1, Fate::default());
    let mut violated = 0;
    for number in replays.clone() {
        let dir = tempfile::Builder::new().prefix("tessera-power-").tempdir_in(MEMORY);
        let dir = dir.map_err(system(MEMORY))?;
        let program = Program { tessera: tessera.into(), data: dir.path().into() };
        let (at, fate, violations) = recorded.replay(number, &program)?;
        total.add(fate);
        if !violations.is_empty() {
            violated += 1;
            println!("replay {number} VIOLATED, cut at {at}, {fate:?}");
            violations.iter().take(PRINTED).for_each(|what| println!("    {what}"));
            println!("    {} violations in all", violations.len());
        }
        if one {
            println!("cut at {at}, {fate:?}; images are kept in {}", dir.keep().display());
        }
    }
    println!("writes at the cuts: {total:?}");
    println!("{} replays of seed {seed}, {violated} violated", replays.end - replays.start);
    Ok(violated == 0)
}

impl Fate {
    fn add(&mut self, other: Fate) {
        self.durable += other.durable;
        self.kept += other.kept;
        self.torn += other.torn;
        self.lost += other.lost;
    }
}

impl Recorded {
    fn open(dir: &Path, seed: u64) -> Result<Recorded, PowerError> {
        let path = dir.join("tessera.toml");
        let unfit = |why| PowerError::Record { file: path.display().to_string(), why };
        let toml = fs::read_to_string(&path).map_err(system(path.display().to_string()))?;
        let config = Config::parse(&toml, &path).map_err(|e| unfit(e.to_string()))?;
        let count = config.pool.devices.len();
        if config.pool.devices.iter().any(|device| device.size.is_none())
            || !config.pool.devices.is_sorted_by_key(|device| device.role != Role::Fast)
        {
            return Err(unfit("its devices need sizes, fast ones first".into()));
        }
        let open = |index| WriteLog::open(&dir.join(format!("log{index}")));
        let mut logs = (0..count).map(open).collect::<Result<Vec<_>, _>>()?;
        let trace = Trace::read(&dir.join("trace"), &mut logs)?;
        Ok(Recorded { seed, trace, logs, config, toml })
    }

    fn describe(&self) {
        for (index, device) in self.trace.devices.iter().enumerate() {
            let fua = device.writes.iter().filter(|write| write.fua).count();
            let (writes, flushes) = (device.writes.len(), device.flushes.len());
            println!("device {index}: {writes} writes, {fua} with FUA, {flushes} flushes");
        }
        let acknowledged = |mark: &Mark| matches!(mark, Mark::Flushed { .. } | Mark::Fua { .. });
        let marks = self.trace.marks.iter().filter(|(_, mark)| acknowledged(mark)).count();
        println!("{} events, {marks} acknowledged flushes and FUA writes", self.trace.end);
    }

    /// One cut; what it violates.
    fn replay(
        &self,
        number: u64,
        program: &Program,
    ) -> Result<(Moment, Fate, Vec<String>), PowerError> {
        let mut random = Random::of(&[self.seed, number]);
        let at = moment(&self.trace, &mut random).ok_or_else(|| PowerError::Record {
            file: "trace".into(),
            why: "the load never began".into(),
        })?;
        let mut fate = Fate::default();
        let devices = self.trace.devices.iter().zip(&self.logs).zip(&self.config.pool.devices);
        for ((device, log), config) in devices {
            let bytes = config.size.expect("checked when opened").bytes();
            let path = program.data.join(&config.path);
            fate.add(image(device, log, at, &mut random, (&path, bytes))?);
        }
        fs::write(program.data.join("tessera.toml"), &self.toml).map_err(system("tessera.toml"))?;
        let mut violations = Vec::new();
        // One copy of what is kept twice may be torn; opening mends it.
        examine(program, true, &mut violations);
        match program.serve() {
            Err(error @ PowerError::Server(_)) => violations.push(error.to_string()),
            Err(error) => return Err(error),
            Ok(server) => {
                for connection in 0..CONNECTIONS {
                    self.compare(connection, at, program, &mut violations)?;
                }
                if let Err(error) = server.stop() {
                    violations.push(error.to_string());
                }
                examine(program, false, &mut violations);
            }
        }
        Ok((at, fate, violations))
    }

    /// Reads a connection's region and compares every block with what may be there.
    fn compare(
        &self,
        connection: u32,
        at: Moment,
        program: &Program,
        violations: &mut Vec<String>,
    ) -> Result<(), PowerError> {
        let before = self.trace.marks.iter().take_while(|(when, _)| *when < at);
        let marks: Vec<Mark> = before.map(|(_, mark)| *mark).collect();
        let begun = marks.iter().filter_map(|mark| match mark {
            Mark::Begin { connection: c, batch } if *c == connection => Some(*batch),
            _ => None,
        });
        let history = History::after(self.seed, connection, begun.max().unwrap_or(0));
        let region = history.region();
        let mut floors = vec![0; usize::try_from(region.blocks).expect("a small volume")];
        self.raise(connection, &marks, &mut floors, region.first);
        let mut client = program.attach(VOLUMES[region.volume as usize].0)?;
        for (floors, first) in floors.chunks(256).zip((region.first..).step_by(256)) {
            let mut found = vec![0; floors.len() * BLOCK];
            let read = client.read(first * BLOCK as u64, &mut found);
            if let Err(error) = read {
                violations.push(format!("volume {} block {first}+: {error}", region.volume));
                continue;
            }
            for ((block, floor), bytes) in (first..).zip(floors).zip(found.chunks_exact(BLOCK)) {
                if let Err(why) = history.allows(block, *floor, bytes) {
                    violations.push(format!("volume {} block {block}: {why}", region.volume));
                }
            }
        }
        Ok(())
    }

    /// The last batch, for each block, whose value there is durable by what was acknowledged.
    fn raise(&self, connection: u32, marks: &[Mark], floors: &mut [u32], first: u64) {
        let flushed = marks.iter().filter_map(|mark| match mark {
            Mark::Flushed { connection: c, batch } if *c == connection => Some(batch - 1),
            _ => None,
        });
        floors.fill(flushed.max().unwrap_or(0));
        for mark in marks {
            let Mark::Fua { connection: c, batch: number, op } = *mark else { continue };
            if c == connection {
                for block in batch(self.seed, connection, number)[op].blocks() {
                    let at = usize::try_from(block - first).expect("inside the region");
                    floors[at] = floors[at].max(number);
                }
            }
        }
    }
}

/// `tessera check --deep` in process: finds nothing, or at most copies that opening mends.
fn examine(program: &Program, mending: bool, violations: &mut Vec<String>) {
    let limit = Instant::now() + UNLOCKING;
    let examined = loop {
        match check(&program.data, Depth::Deep) {
            // The kernel lets go of a dead server's files a moment later.
            Err(CheckError::InUse { .. }) if Instant::now() < limit => thread::sleep(STEP),
            examined => break examined,
        }
    };
    match examined {
        Err(error) => violations.push(format!("check: {error}")),
        Ok(report) => violations.extend(
            report
                .damage
                .iter()
                .filter(|damage| !(mending && damage.what.is_repairable()))
                .map(|damage| format!("check: {}: {}", damage.place, damage.what)),
        ),
    }
}
