//! `cargo xtask compare`: Tessera beside its peers, on this machine, now.
//!
//! The contenders of a case take turns in one run, so that what the machine does
//! meanwhile hits both; beside each round stand the round trip time of a cache line
//! between the CPUs and how long either side waited for a CPU. Raw output is kept
//! under `benches/results/`.

mod cases;
mod contenders;
mod contest;
mod figures;
mod machine;
mod nvmf;
mod process;
mod servers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use cases::{Case, Ground};
use contenders::Lab;

/// Options of `compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a list of {"name","ours","peer","peer_name","ratio","goal"}
    #[arg(long)]
    json: bool,
    /// Two short rounds of each, on less data: to try the laboratory, not to quote
    #[arg(long)]
    quick: bool,
    /// Undisturbed rounds of each [default: 5, quick 2]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: Option<u16>,
    /// Seconds measured in each round [default: 3, quick 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: Option<u16>,
    /// Where the files under test are made; the same file system for all
    #[arg(long, value_name = "DIR", default_value = "target/compare")]
    dir: PathBuf,
    /// SPDK's bdevperf, built elsewhere
    #[arg(long, env = "BDEVPERF", value_name = "PATH")]
    bdevperf: Option<PathBuf>,
    /// SPDK's build directory, which has bin/nvmf_tgt and bin/spdk_nvme_perf; built elsewhere
    #[arg(long, env = "SPDK_BUILD", value_name = "DIR")]
    spdk: Option<PathBuf>,
    /// Put results into benches/results/DATE-NAME
    #[arg(long, default_value = "compare", value_name = "NAME", value_parser = folder_name)]
    results: String,
    /// Only cases whose names contain one of these
    names: Vec<String>,
}

fn folder_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let good = !text.is_empty() && text.chars().all(plain);
    if good { Ok(text.to_owned()) } else { Err("letters, digits and '-' only".to_owned()) }
}

/// Runs the comparisons; false if one could not be made although its peer is there.
pub fn run(root: &Path, args: &Args) -> bool {
    let cases = match cases::chosen(&args.names) {
        Ok(cases) => cases,
        Err(error) => {
            println!("{error}");
            return false;
        }
    };
    match compare(root, args, &cases) {
        Ok((list, whole)) => {
            if args.json {
                println!("{}", serde_json::to_string_pretty(&list).unwrap_or_default());
            }
            whole
        }
        Err(error) => {
            eprintln!("{error}");
            false
        }
    }
}

/// The list for `--json`, and whether every case whose peer is there was compared.
fn compare(root: &Path, args: &Args, cases: &[Case]) -> Result<(Value, bool), String> {
    if !crate::build_tessera() {
        return Err("tessera does not build".to_owned());
    }
    let results = root.join("benches/results").join(format!("{}-{}", today()?, args.results));
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(&results).map_err(|e| failed(&results, e))?;
    fs::create_dir_all(&args.dir).map_err(|e| failed(&args.dir, e))?;
    let dir = args.dir.canonicalize().map_err(|e| failed(&args.dir, e))?;
    // Its programs run elsewhere.
    let spdk = args.spdk.clone().map(|dir| dir.canonicalize().unwrap_or(dir));
    let peers = (args.bdevperf.clone(), spdk);
    let mut lab = Lab::new(crate::tessera(), dir, results.clone(), peers);
    lab.seconds = args.seconds.unwrap_or(if args.quick { 1 } else { 3 }).into();
    lab.region_mib = if args.quick { 256 } else { 1024 };
    let rounds = args.rounds.unwrap_or(if args.quick { 2 } else { 5 });
    let (mut list, mut records, mut whole) = (Vec::new(), Vec::new(), true);
    for case in cases {
        if let Some(missing) = lab.missing(case) {
            eprintln!("{:<30} skipped: {missing}", case.name);
            continue;
        }
        match one(&mut lab, case, rounds.into()) {
            Ok((line, record)) => {
                list.push(line);
                records.push(record);
            }
            Err(error) => {
                eprintln!("{:<30} FAILED: {error}", case.name);
                whole = false;
            }
        }
        let report = json!({ "machine": machine_report(), "cases": &records });
        let text = serde_json::to_string_pretty(&report).unwrap_or_default();
        let path = results.join("report.json");
        fs::write(&path, text + "\n").map_err(|e| failed(&path, e))?;
    }
    eprintln!("raw output: {}", results.display());
    Ok((list.into(), whole))
}

/// Holds one contest: its line for `--json`, and its whole record.
fn one(lab: &mut Lab, case: &Case, rounds: usize) -> Result<(Value, Value), String> {
    let mut arena = lab.prepare(case)?;
    let tessera = lab.tessera.clone();
    let line = || machine::cache_line_ns(&tessera);
    let verdict =
        contest::hold(rounds, line, |ours, round| lab.turn(&mut arena, case, ours, round))?;
    let ratio = verdict.ours / verdict.peer;
    let met = if ratio >= case.goal { "met" } else { "MISSED" };
    eprintln!(
        "{:<30} ours {:>9.0}  {} {:>9.0}  ratio {ratio:.3}  goal {:.2} {met}  ({} rounds, {} disturbed)",
        case.name,
        verdict.ours,
        case.peer_name(),
        verdict.peer,
        case.goal,
        verdict.rounds,
        verdict.discarded,
    );
    let line = json!({
        "name": case.name,
        "ours": verdict.ours,
        "peer": verdict.peer,
        "peer_name": case.peer_name(),
        "ratio": ratio,
        "goal": case.goal,
    });
    let mut record = line.clone();
    record["rounds"] = verdict.rounds.into();
    record["discarded"] = verdict.discarded.into();
    if let Some((ours, peer)) = verdict.p99_us {
        eprintln!("{:<30} p99 ours {ours:.1} µs, {} {peer:.1} µs", "", case.peer_name());
        record["p99_us"] = json!({ "ours": ours, "peer": peer });
    }
    record["each"] = verdict.record;
    record["load"] = format!("{:?}", case.load).into();
    record["ground"] = ground_text(case.ground).into();
    Ok((line, record))
}

fn ground_text(ground: Ground) -> &'static str {
    match ground {
        Ground::File { scattered: false } => {
            "one preallocated file, O_DIRECT; fio with fixed buffers and files, fdatasync"
        }
        Ground::File { scattered: true } => {
            "the same after all of it was overwritten 4 KiB at a time in random order"
        }
        Ground::Memory { copy: true } => {
            "memory; ours verifies checksums and copies once more, to a client's memory"
        }
        Ground::Memory { copy: false } => {
            "memory; ours verifies checksums; both leave the bytes in the request's buffer"
        }
        Ground::NbdFile => {
            "unix socket, the same fio; ours on one core without prediction; files of one size on one file system, O_DIRECT; qemu-storage-daemon with aio=io_uring"
        }
        Ground::NvmfMemory => {
            "TCP over loopback, spdk_nvme_perf; one core each; ours on memory with checksums, after the region was written; SPDK's malloc device; each target stopped while it is the other's turn"
        }
        Ground::NvmfNull => {
            "TCP over loopback, tessera bench nvmf --discard-reads; one core each; ours an unwritten volume, SPDK's null device; each target stopped while it is the other's turn"
        }
        Ground::NbdMemory => {
            "unix socket, the same fio; ours on one core without prediction; files in /dev/shm, through the page cache on both sides"
        }
    }
}

fn machine_report() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    json!({
        "cpus": machine::cpus().len(),
        "model": model.trim_start_matches([' ', '\t', ':']),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "load": read("/proc/loadavg"),
        "huge_pages": read("/proc/sys/vm/nr_hugepages"),
    })
}

fn today() -> Result<String, String> {
    let date = Command::new("date").arg("+%F").output().map_err(|e| format!("date: {e}"))?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}
