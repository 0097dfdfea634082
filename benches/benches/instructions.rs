//! Instructions of one request, counted by Valgrind: no neighbour disturbs that.
//!
//! A whole core on devices in memory serves [`REQUESTS`] random requests of 4 KiB at
//! depth 32, from the target's side of the contract to the device's memory and
//! back; those of the NVMe/TCP target from the socket on and back to it, without what the
//! kernel and the host spend. Each bench fails above its limit: what was counted when it was set, and
//! [`TOLERANCE_PERCENT`]. Whoever makes the path longer on purpose raises the limit
//! in the same change and says why; whoever makes it shorter lowers it.
//!
//! Copies and checksums count as the instructions of a machine with AVX2, which is
//! what Valgrind shows to the program.

#![allow(missing_docs, reason = "the macros make items without any")]

use std::hint::black_box;

use benches::attached::Attached;
use benches::core::{Core, Tier, Work};
use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint, EventKind, LibraryBenchmarkConfig};

const REQUESTS: u64 = 1000;
/// Room above the count: timers of the core fire by the clock.
const TOLERANCE_PERCENT: u64 = 5;

/// Instructions of a read of a fast block.
const FAST_READ: u64 = 6_550;
/// Instructions of a read of a staged block.
const STAGED_READ: u64 = 6_270;
/// Instructions of a write of a fast block.
const FAST_WRITE: u64 = 8_050;
/// Instructions of a read over NVMe/TCP.
const NVMF_READ: u64 = 7_820;
/// Instructions of a write over NVMe/TCP.
const NVMF_WRITE: u64 = 9_920;

fn limited(instructions: u64) -> LibraryBenchmarkConfig {
    config(instructions, EntryPoint::Default)
}

/// Counts on the core's side alone.
fn limited_on_core(instructions: u64) -> LibraryBenchmarkConfig {
    config(instructions, EntryPoint::Custom("*::ByHand::turn".to_owned()))
}

fn config(instructions: u64, entry: EntryPoint) -> LibraryBenchmarkConfig {
    let limit = instructions * REQUESTS * (100 + TOLERANCE_PERCENT) / 100;
    let mut callgrind = Callgrind::with_args(["--cache-sim=no"]);
    callgrind.entry_point(entry);
    callgrind.hard_limits([(EventKind::Ir, limit)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

fn reader(tier: Tier) -> Core {
    let mut core = Core::new(tier);
    core.begin(Work::Read, REQUESTS);
    core
}

fn writer(tier: Tier) -> Core {
    let mut core = Core::new(tier);
    core.begin(Work::Write, REQUESTS);
    core
}

#[library_benchmark(config = limited(FAST_READ))]
#[bench::qd32(args = (Tier::Fast), setup = reader)]
fn fast_read(mut core: Core) -> Core {
    black_box(core.finish());
    core
}

#[library_benchmark(config = limited(STAGED_READ))]
#[bench::qd32(args = (Tier::Staged), setup = reader)]
fn staged_read(mut core: Core) -> Core {
    black_box(core.finish());
    core
}

#[library_benchmark(config = limited(FAST_WRITE))]
#[bench::qd32(args = (Tier::Fast), setup = writer)]
fn fast_write(mut core: Core) -> Core {
    black_box(core.finish());
    core
}

fn attached(work: Work) -> Attached {
    Attached::new(Core::new(Tier::Fast), work, REQUESTS)
}

#[library_benchmark(config = limited_on_core(NVMF_READ))]
#[bench::qd32(args = (Work::Read), setup = attached)]
fn nvmf_read(mut host: Attached) -> Attached {
    host.finish();
    black_box(host)
}

#[library_benchmark(config = limited_on_core(NVMF_WRITE))]
#[bench::qd32(args = (Work::Write), setup = attached)]
fn nvmf_write(mut host: Attached) -> Attached {
    host.finish();
    black_box(host)
}

library_benchmark_group!(
    name = requests,
    benchmarks = [fast_read, staged_read, fast_write, nvmf_read, nvmf_write]
);
main!(library_benchmark_groups = requests);
