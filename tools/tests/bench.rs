//! `tessera bench` measures what it says, and leaves nothing behind.

mod rig;

use rig::Rig;
use serde_json::Value;

fn number(report: &Value, name: &str) -> f64 {
    report[name].as_f64().unwrap_or_else(|| panic!("{name} in {report}"))
}

/// The figures fit together.
fn check(report: &Value) {
    assert!(number(report, "requests") > 0.0, "{report}");
    let per_second = number(report, "requests") / number(report, "seconds");
    assert!((number(report, "iops") / per_second - 1.0).abs() < 1e-6, "{report}");
    let latencies = ["p50_us", "p99_us", "p999_us"].map(|name| number(report, name));
    assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{report}");
    assert!(number(report, "cpu_us_per_io") > 0.0, "{report}");
}

const SHORT: [&str; 6] = ["--region", "16MiB", "--seconds", "0.2", "--warm-up", "0.1"];

fn engine(rig: &Rig, options: &[&str]) -> Value {
    rig.json(&[&["bench", "engine"], &SHORT[..], options].concat())
}

#[test]
fn an_engine_on_memory_is_measured() {
    let rig = Rig::new();
    let report = engine(&rig, &["--depth", "4"]);
    check(&report);
    assert!(number(&report, "syscalls_per_io") < 0.01, "memory needs no system call: {report}");
    assert!(number(&report, "allocations_per_io") < 0.01, "{report}");
    let report = engine(&rig, &["--read", "50", "--fsync", "8", "--cores", "2", "--scatter"]);
    check(&report);
    assert!(number(&report, "flushes") > 0.0, "{report}");
}

#[test]
fn an_engine_on_a_file_is_measured_and_the_file_is_not_lost_by_mistake() {
    let rig = Rig::new();
    let disk = rig.path("disk");
    let disk = disk.to_str().expect("a plain path");
    let on_file = ["--device", "uring", "--path", disk, "--size", "384MiB", "--depth", "2"];
    let report = engine(&rig, &on_file);
    check(&report);
    assert!(number(&report, "syscalls_per_io") > 0.1, "a file needs system calls: {report}");
    rig.fails(&[&["bench", "engine"], &on_file[..]].concat(), 1, "--overwrite");
    let arguments = [&on_file[..], &["--overwrite", "--block-size", "128KiB"]].concat();
    check(&engine(&rig, &arguments));
}

#[test]
fn the_cost_of_a_hop_is_measured() {
    let rig = Rig::new();
    let options = ["--region", "64MiB", "--seconds", "0.2", "--depth", "1", "--hop"];
    let report = rig.json(&[&["bench", "engine"], &options[..]].concat());
    let hops = report["hops"].as_array().expect("a list");
    let waits: Vec<_> = hops.iter().map(|hop| hop["waiting"].as_str()).collect();
    assert_eq!(waits, [Some("polling"), Some("parked")]);
    assert!(hops.iter().all(|hop| number(hop, "own_ns") > 0.0), "{report}");
    let cpus = rig.json(&["bench", "cpus"]);
    assert!(cpus.get("cache_line_round_trip_ns").is_some(), "{cpus}");
}

#[test]
fn a_server_is_measured() {
    let mut rig = Rig::serving("v", "32MiB");
    let uri = rig.uri("v");
    let load = ["--depth", "4", "--read", "70", "--fsync", "4", "--fill", "--jobs", "2"];
    let report = rig.json(&[&["bench", "nbd", &uri], &SHORT[..], &load].concat());
    check(&report);
    assert!(number(&report, "flushes") > 0.0, "{report}");
    assert!(number(&report, "syscalls_per_io") > 1.0, "it sends and receives: {report}");
    rig.stop_and_check();
}
