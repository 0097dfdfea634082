//! Plants each bug of the engine in turn and looks for a seed that catches it:
//! `cargo run --profile ci -p engine --features planted --example planted -- [BUG…]`.
//!
//! Fails if a bug shows in none of [`SEEDS`] seeds, or if a seed that caught one fails as well
//! with no bug planted.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use engine::planted::{Bug, enable};
use engine::sim::campaign::{attempt, catch_panics};
use engine::sim::{Plan, Trace};

/// Seeds within which a bug must be caught.
const SEEDS: u64 = 2_000;

/// A read that returned what it may not.
const PROMISE: &str = "may be one of";
/// A block that nothing damaged fails its checksum.
const CHECKSUM: &str = "stored data fails its checksum";

/// What a failure says that shows a bug for what it is; any other failure does not count.
fn signs(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::FlushOfOneConnection
        | Bug::FlushOfOneCore
        | Bug::FlushOfOneSlice
        | Bug::GroupNotFlushed
        | Bug::IgnoredCrc
        | Bug::IgnoredCrcOfMerge
        | Bug::IgnoredCrcOfStage
        | Bug::StaleSlot
        | Bug::DiscardNotJournaled
        | Bug::LostNeighbour
        | Bug::FuaDropped
        | Bug::RacingNeighbours
        | Bug::WriteRacingPromotionLost
        | Bug::StageNotForgotten
        | Bug::HandoverWithoutDrain
        | Bug::TrimWithoutDrain => &[PROMISE],
        Bug::SkippedFlush
        | Bug::CrcBeforeData
        | Bug::EntryBeforeData
        | Bug::FlushJoinedLate
        | Bug::IgnoredCrcOfSpill
        | Bug::PlaceFreedEarly
        | Bug::SlotFreedEarly
        | Bug::SlotReusedUnderRead
        | Bug::WriteRacingSpillLost => &[CHECKSUM],
        // The fragment may get its slot back, and then frees its old places once more.
        Bug::SpillFreesSlotEarly => &[CHECKSUM, "of a slot freed twice"],
        Bug::CheckpointBeforeData | Bug::ExtentsFreedEarly => &["of checkpoint"],
        Bug::CheckpointBeforeGroups | Bug::JournalFreedEarly => &["journal block"],
        Bug::FlushByEachCore => &[PROMISE, CHECKSUM, "journal block"],
        Bug::DroppedRecord => &[PROMISE, "contradicts the table"],
        Bug::BrokenChain | Bug::TornGroup | Bug::TailLeft | Bug::RecoveryAppliedTwice => {
            &["contradicts the table", CHECKSUM, PROMISE]
        }
        Bug::IgnoredCrcOfMap | Bug::ReplayForgotten | Bug::MapLeftUnsaved => {
            &[PROMISE, CHECKSUM, "contradicts the table", "read failed", "claimed twice"]
        }
        Bug::MapPageFreedEarly => &["map page", PROMISE, CHECKSUM],
        Bug::ComparisonIgnored => &["misses the difference"],
        Bug::SuperblockInPlace => &["superblock"],
        Bug::LostWakeUp => &["lost wake-up"],
        Bug::HoardedSpace => &["no space left in the pool"],
        Bug::LostKick => &["never ends", "never comes back", "can happen"],
    }
}

/// Runs a seed on this thread; the failure it ends with.
fn failure(bug: Option<Bug>, seed: u64) -> Option<String> {
    enable(bug);
    let (outcome, _) = attempt(&Plan::of(seed), &Trace::default());
    enable(None);
    outcome.err().map(|broken| broken.to_string())
}

/// Looks for the first seed that shows the bug, and prints it.
fn hunt(bug: Bug) -> Option<u64> {
    let started = Instant::now();
    let mut others = 0;
    let caught = (0..SEEDS).find_map(|seed| {
        let what = failure(Some(bug), seed)?;
        let shown = signs(bug).iter().any(|sign| what.contains(sign));
        others += u32::from(!shown);
        shown.then_some((seed, what))
    });
    let (name, seconds) = (format!("{bug:?}"), started.elapsed().as_secs_f64());
    match &caught {
        Some((seed, what)) => {
            println!("{name:<26} seed {seed:<5} {seconds:>6.1} s  {}", brief(what))
        }
        None => println!("{name:<26} NOT CAUGHT by {SEEDS} seeds, {seconds:.1} s: {}", bug.what()),
    }
    if others > 0 {
        println!("{:<26} {others} seeds before failed without showing it", "");
    }
    caught.map(|(seed, _)| seed)
}

/// Beginning and end of a message.
fn brief(what: &str) -> String {
    let line: Vec<char> = what.lines().next().unwrap_or_default().chars().collect();
    if line.len() <= 160 {
        return line.iter().collect();
    }
    let (head, tail) = (line[..90].iter(), line[line.len() - 67..].iter());
    head.chain(&['…']).chain(tail).collect()
}

/// Calls `each` with the numbers below `count`, on all cores.
fn spread(count: usize, each: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < count);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| std::iter::from_fn(take).for_each(&each));
        }
    });
}

/// The bugs named on the command line, or all; an unknown name is the error.
fn chosen() -> Result<Vec<Bug>, String> {
    let find = |name: String| {
        let found = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
        found.copied().ok_or(name)
    };
    let named: Vec<Bug> = std::env::args().skip(1).map(find).collect::<Result<_, _>>()?;
    Ok(if named.is_empty() { Bug::ALL.to_vec() } else { named })
}

fn main() -> ExitCode {
    let bugs = match chosen() {
        Ok(bugs) => bugs,
        Err(name) => {
            println!("no bug is named {name}; there are");
            Bug::ALL.iter().for_each(|bug| println!("{:<26} {}", format!("{bug:?}"), bug.what()));
            return ExitCode::from(2);
        }
    };
    catch_panics();
    let seeds = Mutex::new(Vec::new());
    spread(bugs.len(), |at| {
        let seed = hunt(bugs[at]);
        seeds.lock().expect("no thread panics").extend(seed);
    });
    let seeds = seeds.into_inner().expect("no thread panics");
    let missed = bugs.len() - seeds.len();
    let distinct: Vec<u64> = BTreeSet::from_iter(seeds).into_iter().collect();
    let failed = AtomicUsize::new(0);
    spread(distinct.len(), |at| {
        if let Some(what) = failure(None, distinct[at]) {
            println!("seed {} fails with no bug planted: {}", distinct[at], brief(&what));
            failed.fetch_add(1, Ordering::Relaxed);
        }
    });
    let failed = failed.into_inner();
    println!("{} bugs planted, {missed} not caught", bugs.len());
    println!("{} seeds run with none planted, {failed} failed", distinct.len());
    if missed == 0 && failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
