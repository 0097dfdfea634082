//! Heat: what clients did is counted, foreseen, shown and drawn; what was learned outlives the
//! server.

mod rig;

use std::fs;
use std::time::{Duration, Instant};

use rig::Rig;
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SEGMENT: u64 = 16 * MIB;
const PATIENCE: Duration = Duration::from_secs(100);

fn config(forecaster: &str) -> String {
    format!("forecaster = \"{forecaster}\"\nprediction_horizon = \"10s\"\n{}", rig::CONFIG)
}

/// Drives two regions of a volume until the report is as wanted.
fn drive_until(rig: &Rig, volume: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut client = rig.attach(volume);
    let limit = Instant::now() + PATIENCE;
    let mut block = [1; 4096];
    loop {
        for at in 0..16 {
            client.write(40 * SEGMENT + at * 65_536, &block, false).unwrap();
            client.read(3 * SEGMENT + at * 65_536, &mut block).unwrap();
            client.read(3 * SEGMENT + at * 65_536, &mut block).unwrap();
        }
        let report = rig.json(&["heat", volume]);
        if wanted(&report) {
            return report;
        }
        assert!(Instant::now() < limit, "still not as wanted: {report:#}");
    }
}

fn offsets(report: &Value, by: &str) -> Vec<u64> {
    let mut segments = report["segments"].as_array().unwrap().clone();
    segments.sort_by(|a, b| b[by].as_f64().unwrap().total_cmp(&a[by].as_f64().unwrap()));
    segments.iter().map(|segment| segment["offset_bytes"].as_u64().unwrap()).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn two_hot_regions_are_counted_foreseen_and_drawn() {
    let mut rig = Rig::with_config(&config("ewma"));
    rig.start(&[]);
    rig.ok(&["volume", "create", "vm1", "--size", "1GiB"]);
    assert!(rig.ok(&["heat", "vm1"]).contains("No request was counted yet."));
    rig.fails(&["heat", "vm2"], 1, "vm2");
    let report = drive_until(&rig, "vm1", |report| {
        let foreseen = report["segments"].as_array().unwrap().iter();
        foreseen.filter(|segment| segment["probability"].as_f64().unwrap() > 0.1).count() >= 2
    });
    assert_eq!(offsets(&report, "expected_per_s"), [3 * SEGMENT, 40 * SEGMENT]);
    assert_eq!(offsets(&report, "per_s"), [3 * SEGMENT, 40 * SEGMENT]);
    let [first, second] = [&report["segments"][0], &report["segments"][1]];
    assert_eq!((&first["writes"], &second["reads"]), (&Value::from(0), &Value::from(0)));
    assert_eq!(report["chosen"], "ewma");
    assert_eq!((&report["horizon"], &report["bin_s"]), (&Value::from("10s"), &Value::from(1)));
    assert_eq!((&report["size_bytes"], &report["lost"]), (&Value::from(1 << 30), &Value::from(0)));
    // The names are a promise to scripts.
    assert_eq!(
        keys(&report),
        [
            "bin_s",
            "bins",
            "chosen",
            "forecast_age_s",
            "forecaster",
            "horizon",
            "lost",
            "map",
            "other",
            "recent_s",
            "segment_bytes",
            "segments",
            "size_bytes",
            "tiering",
            "volume"
        ]
    );
    assert_eq!(
        keys(first),
        [
            "expected_per_s",
            "offset_bytes",
            "per_s",
            "probability",
            "quantiles_per_s",
            "reads",
            "writes"
        ]
    );
    assert_eq!(
        keys(&report["map"]),
        ["column_s", "offset_bytes", "row_bytes", "rows", "start_unix_s"]
    );
    let picture = rig.path("heat.svg");
    let view = rig.ok(&["heat", "vm1", "--svg", picture.to_str().unwrap()]);
    let lines: Vec<&str> = view.lines().collect();
    let table = lines.iter().position(|line| line.contains("segment at")).unwrap();
    assert!(
        lines[table + 1].contains("48.0 MiB") && lines[table + 2].contains("640 MiB"),
        "{view}"
    );
    let picture = fs::read_to_string(picture).unwrap();
    assert!(picture.starts_with("<svg ") && picture.contains("Heat of vm1, 1.00 GiB"));
    assert!(picture.contains("48.0 MiB") && picture.contains("rgb(253,231,37)"));
    rig.ok(&["heat", "--forecaster", "holt-winters", "--horizon", "30s"]);
    let report = rig.json(&["heat", "vm1"]);
    assert_eq!(
        (&report["forecaster"], &report["horizon"]),
        (&"holt-winters".into(), &"30s".into())
    );
    assert_eq!(report["chosen"], Value::Null, "the others' forecast is gone");
    assert!(rig.log().contains("the heat forecast is set anew"), "{}", rig.log());
    rig.stop_and_check();
}

#[test]
fn what_the_network_learned_outlives_the_server_and_damage_does_not() {
    let mut rig = Rig::with_config(&config("lstm"));
    rig.start(&[]);
    rig.ok(&["volume", "create", "vm1", "--size", "1GiB"]);
    // It begins to learn when it has seen 16 bins and a horizon behind them.
    drive_until(&rig, "vm1", |report| report["bins"].as_u64().unwrap() > 30);
    rig.stop_and_check();
    let file = rig.data().join("heat.safetensors");
    let learned = fs::read(&file).expect("what was learned");
    rig.start(&[]);
    rig.stop_and_check();
    assert!(!rig.log().contains("learning anew"), "{}", rig.log());
    assert_eq!(fs::read(&file).unwrap(), learned, "nothing was learned, nothing is forgotten");
    let mut damaged = learned.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (bytes, lines) in [(damaged, 1), (b"something else".to_vec(), 2)] {
        fs::write(&file, bytes).unwrap();
        rig.start(&[]);
        rig.assert_serving("vm1");
        rig.stop_and_check();
        assert_eq!(rig.log().matches("learning anew").count(), lines, "{}", rig.log());
    }
}
