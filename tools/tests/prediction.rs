//! Prediction in a running server: what is staged and why, what is learned and kept.

mod rig;

use std::fmt::Write;
use std::fs;

use rig::Rig;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Fragments of the pattern: more than stages hold, fewer than the volume has.
const FRAGMENTS: u64 = 48;
/// More crossings in all than a client needs for a model of its own.
const ROUNDS: u64 = 48;
/// Between two requests, in microseconds: longer than a stage takes.
const STEP_US: u64 = 2000;

/// A walk through scattered fragments in an order without steps, over and over.
fn pattern(rig: &Rig, name: &str) -> String {
    let mut trace = String::from("time_us,op,offset_bytes,size_bytes\n");
    for n in 0..FRAGMENTS * ROUNDS {
        let place = (n % FRAGMENTS) * 29 % 113;
        writeln!(trace, "{},R,{},4096", n * STEP_US, place * MIB).unwrap();
    }
    let path = rig.path(name);
    fs::write(&path, trace).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A served pool with a volume of which every block is on the cold device.
fn cold_volume() -> Rig {
    let mut rig = Rig::new();
    rig.start(&["--cores", "1"]);
    let image = rig.path("image");
    fs::write(&image, vec![0xa5; 128 << 20]).unwrap();
    rig.ok(&["image", "import", image.to_str().unwrap(), "vm1"]);
    rig.ok(&["tier", "spill", "vm1"]);
    rig
}

fn replay(rig: &Rig, trace: &str) -> Value {
    rig.json(&["replay", trace, "--live", "--volume", "vm1", "--speed", "1"])
}

fn count(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"))
}

#[test]
fn a_pattern_is_staged_explained_and_outlives_the_server() {
    let mut rig = cold_volume();
    let trace = pattern(&rig, "loop.csv");
    replay(&rig, &trace);
    let status = rig.json(&["predictor", "status"]);
    assert_eq!(status["prefetch"], "learned");
    let (hits, late) = (count(&status, "hits"), count(&status, "late"));
    let reads = hits + late + count(&status, "misses");
    // Some fragments get a copy on the fast tier, for they are read often.
    assert!(reads > FRAGMENTS * ROUNDS / 2, "most reads are of cold fragments: {status}");
    // The stages hold a third of the pattern: without prediction each read would miss.
    assert!(2 * (hits + late) > reads, "{status}");
    let used = status["proposers"].as_array().unwrap().iter();
    let used: u64 = used.map(|proposer| count(proposer, "used")).sum();
    assert!(used > reads / 2, "{status}");

    let reasons = rig.json(&["predictor", "explain", "vm1", "--last", "5"]);
    assert_eq!(reasons.as_array().unwrap().len(), 5);
    for reason in reasons.as_array().unwrap() {
        assert!(reason["probability"].as_f64() >= reason["threshold"].as_f64(), "{reason}");
        assert!(!reason["proposers"].as_array().unwrap().is_empty(), "{reason}");
        assert_eq!(reason["trigger_volume"], "vm1");
    }
    // The tower learns beside it, when the training thread gets to it.
    let won = (0..10).any(|_| {
        replay(&rig, &trace);
        count(&rig.json(&["predictor", "status"]), "towers_won") > 0
    });
    assert!(won);
    rig.stop_and_check();
    assert!(rig.data().join("predictor.safetensors").is_file());

    rig.start(&["--cores", "1"]);
    let opening = pattern(&rig, "again.csv");
    rig.json(&["replay", &opening, "--live", "--volume", "vm1", "--speed", "1", "--requests", "5"]);
    let status = rig.json(&["predictor", "status"]);
    assert_eq!(count(&status, "client_models"), 1, "the client has its model at once: {status}");
    rig.stop_and_check();

    for name in ["predictor.safetensors", "tower.safetensors"] {
        fs::write(rig.data().join(name), b"nonsense").unwrap();
    }
    rig.start(&["--cores", "1"]);
    rig.json(&["predictor", "status"]);
    assert!(rig.log().contains("predictor.safetensors: not usable, learning anew"));
    assert!(rig.log().contains("tower.safetensors: not usable, learning anew"));
    rig.stop_and_check();
}

#[test]
fn a_pattern_is_learned_from_a_trace_before_the_vm_runs() {
    let mut rig = cold_volume();
    let trace = pattern(&rig, "loop.csv");
    let learned = rig.json(&["predictor", "train", "--vm", "vm1", &trace]);
    assert_eq!(count(&learned, "requests"), FRAGMENTS * ROUNDS);
    assert_eq!(count(&learned, "skipped"), 0);
    let requests = (2 * FRAGMENTS).to_string();
    let replayed = |rig: &Rig| {
        let options = ["--live", "--volume", "vm1", "--speed", "1", "--requests", &requests];
        rig.json(&[&["replay", &trace], options.as_slice()].concat());
        let status = rig.json(&["predictor", "status"]);
        count(&status, "hits") + count(&status, "late")
    };
    assert!(replayed(&rig) > FRAGMENTS, "the first rounds are foreseen already");

    let set = rig.json(&[
        "predictor",
        "set",
        "--prefetch-depth",
        "2",
        "--stage-threshold",
        "0.5",
        "--prefetch-budget",
        "10",
    ]);
    let settings = &set["settings"];
    assert_eq!(
        (&settings["prefetch_depth"], &settings["stage_threshold"]),
        (&2.into(), &0.5.into())
    );
    let wrong = rig.tessera(&["predictor", "set", "--stage-threshold", "2"]);
    assert!(rig::stderr(&wrong).contains("stage_threshold must be a probability"));
    let missing = rig.tessera(&["predictor", "train", "--vm", "vm1", "/nowhere.csv"]);
    assert!(rig::stderr(&missing).contains("/nowhere.csv"));
    let unknown = rig.tessera(&["predictor", "explain", "nobody"]);
    assert!(rig::stderr(&unknown).contains("nobody"));
    rig.stop_and_check();
}
