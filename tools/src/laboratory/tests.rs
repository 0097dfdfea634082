//! Conditions, inputs, the fields of the report, and the picture.

use std::fs;

use engine::device::emulate;
use predictor::lab::Model;

use super::chart::{Panel, draw};
use super::report::{Row, Rows};
use super::*;

/// 300 reads of 64 KiB, ten for each of 30 fragments of 1 MiB, 20 ms apart.
fn scan(clock: bool) -> String {
    let head = if clock { "time_us" } else { "seq_no" };
    let mut text = format!("{head},op,offset_bytes,size_bytes\n");
    for n in 0..300_u64 {
        let time = if clock { n * 20_000 } else { n };
        text += &format!("{time},R,{},65536\n", n / 10 * (1 << 20) + n % 10 * 65536);
    }
    text
}

fn conditions(names: &[&str]) -> Conditions {
    Conditions {
        settings: Settings::default(),
        fast_tier: FastTier::Share(20.0),
        contenders: names.iter().map(|name| name.parse().unwrap()).collect(),
        budget_pct: 25.0,
        shuffle: false,
        writes_trigger: true,
        writes_free: false,
        served: false,
        seed: 1,
    }
}

fn judged(text: &str, conditions: &Conditions) -> (Trace, Runs) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a<b.csv");
    fs::write(&path, text).unwrap();
    let (trace, skipped) = load(&[path], conditions).unwrap();
    assert_eq!(skipped.count, 0);
    let runs = judge(&trace, conditions, |_| ()).unwrap();
    (trace, runs)
}

#[test]
fn tiers_and_budgets_are_read_as_written() {
    for (text, tier) in [
        ("5%", FastTier::Share(5.0)),
        ("0.5%", FastTier::Share(0.5)),
        ("512MiB", FastTier::Bytes(512 << 20)),
    ] {
        assert_eq!(text.parse(), Ok(tier));
        assert_eq!(tier.to_string(), text);
    }
    for wrong in ["0%", "101%", "-5%", "x%", "5x", "%", "NaN%"] {
        assert!(wrong.parse::<FastTier>().is_err(), "{wrong}");
    }
    assert_eq!((percent("25%"), percent("10")), (Ok(25.0), Ok(10.0)));
    assert!(percent("inf").is_err() && percent("").is_err());
    assert_eq!(FastTier::Share(5.0).fragments(1000, 20), 50);
    assert_eq!(FastTier::Share(5.0).fragments(7, 20), 1);
    assert_eq!(FastTier::Bytes(10 << 20).fragments(1000, 20), 10);
    assert_eq!(FastTier::Bytes(1 << 62).fragments(1000, 16), 1000);
}

#[test]
fn files_of_blktrace_belong_together() {
    let files =
        ["a.blktrace.0", "x.csv", "b.blktrace.0", "a.blktrace.11", "x.csv", "a.blktrace.bin"];
    let traces = inputs(&files.map(PathBuf::from));
    let names: Vec<Vec<&str>> =
        traces.iter().map(|t| t.iter().map(|p| p.to_str().unwrap()).collect()).collect();
    let expected: [&[&str]; 5] = [
        &["a.blktrace.0", "a.blktrace.11"],
        &["x.csv"],
        &["b.blktrace.0"],
        &["x.csv"],
        &["a.blktrace.bin"],
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_disk_is_the_one_that_a_server_emulates() {
    let (ours, servers) = (Model::HDD, emulate::Model::HDD);
    assert_eq!(
        (ours.seek_ns, ours.bytes_per_second, ours.near_bytes),
        (servers.seek_ns, servers.bytes_per_second, servers.near_bytes)
    );
}

#[test]
fn the_fields_of_the_report_are_these() {
    let conditions = conditions(&["none", "next-1", "oracle"]);
    let (trace, runs) = judged(&scan(true), &conditions);
    let mut rows = Rows::default();
    rows.extend(Row::of(&trace, &conditions, &runs));
    let json = serde_json::to_value(&rows).unwrap();
    let mut fields: Vec<&str> = json[1].as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    let expected = "accuracy budget_pct coverage crossings device device_without extra_pct \
                    fast_tier fast_tier_bytes footprint_fragments fragment_size hit_ratio issued \
                    late miss_reduction_pct misses misses_without ms_hidden ns_per_crossing \
                    prefetch read_miss_reduction_pct requests seed served shuffled \
                    timely_reduction_pct trace training_ms wasted writes_free writes_trigger";
    assert_eq!(fields, expected.split_whitespace().collect::<Vec<_>>());
    let mut device: Vec<&str> =
        json[1]["device"].as_object().unwrap().keys().map(String::as_str).collect();
    device.sort_unstable();
    let expected = "dropped head_time_ms late read_p99_ms slow_p50_ms slow_p99_ms slow_reads stall_ms \
                    stall_p50_ms stall_p99_ms stalled";
    assert_eq!(device, expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(json[1]["prefetch"], "next-1");
    assert_eq!(
        (&json[1]["fragment_size"], &json[1]["fast_tier"]),
        (&1_048_576.into(), &"20%".into())
    );
    assert_eq!(json[1]["fast_tier_bytes"], 6 << 20);
    assert!(json[2]["ns_per_crossing"].is_null(), "an oracle has no cost");
}

#[test]
fn a_scan_by_hand() {
    let conditions = conditions(&["none", "next-1"]);
    let (trace, runs) = judged(&scan(true), &conditions);
    let rows = Row::of(&trace, &conditions, &runs);
    // Without prefetch each of 30 fragments misses once; they lie side by side, so only the
    // first pays a seek. 1 MiB at 150 MB/s takes 6.990506 ms.
    let without = rows[0].device.unwrap();
    assert_eq!((rows[0].misses, without.stalled), (30, 30));
    assert!((without.stall_ms - (8.0 + 30.0 * 6.990_506)).abs() < 1e-3, "{without:?}");
    assert!((without.stall_p50_ms - 6.990_506).abs() < 1e-6);
    assert!((without.stall_p99_ms - 14.990_506).abs() < 1e-6);
    // Next-1 misses the first, stages the others long before, and one that never comes.
    let with = rows[1].device.unwrap();
    assert_eq!((rows[1].misses, rows[1].issued, with.stalled), (1, 30, 1));
    assert!((rows[1].miss_reduction_pct - 100.0 * 29.0 / 30.0).abs() < 1e-9);
    assert!((rows[1].timely_reduction_pct - rows[1].miss_reduction_pct).abs() < 1e-9);
    assert!((rows[1].extra_pct - 100.0 / 30.0).abs() < 1e-9);
    assert!((rows[1].accuracy.unwrap() - 29.0 / 30.0).abs() < 1e-9);
    assert!((rows[1].coverage - 29.0 / 30.0).abs() < 1e-9);
    assert!((rows[1].ms_hidden.unwrap() - 29.0 * 6.990_506).abs() < 1e-3);
    assert!((rows[1].hit_ratio - 299.0 / 300.0).abs() < 1e-9);
    assert!(rows[1].falls_behind(&trace).is_none());
}

#[test]
fn a_device_that_cannot_keep_up_is_named() {
    let conditions = conditions(&["none"]);
    let fast = scan(true).replace("0000,R", ",R");
    let (trace, runs) = judged(&fast, &conditions);
    let rows = Row::of(&trace, &conditions, &runs);
    let said = rows[0].falls_behind(&trace).expect("30 fragments in a second");
    assert!(said.contains("falls behind"), "{said}");
}

#[test]
fn without_a_clock_nothing_is_said_of_waiting() {
    let conditions = conditions(&["next-1"]);
    let (trace, runs) = judged(&scan(false), &conditions);
    let mut rows = Rows::default();
    rows.extend(Row::of(&trace, &conditions, &runs));
    let json = serde_json::to_value(&rows).unwrap();
    assert!(json[0]["ms_hidden"].is_null() && json[0]["device"].is_null());
    let table = rows.table(&conditions).to_string();
    let line = table.lines().find(|line| line.contains("next-1")).unwrap();
    assert_eq!(line.split_whitespace().filter(|cell| *cell == "-").count(), 5, "{line}");
}

#[test]
fn the_picture_is_well_formed_and_has_all_lines() {
    let conditions = conditions(&["none", "next-1", "learned"]);
    let (trace, runs) = judged(&scan(true), &conditions);
    let panel = Panel::new(&trace, &runs);
    let svg = draw(&conditions.to_string(), &[panel.clone(), panel]);
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<polyline").count(), 2 * 2 * 3, "a line and its legend each");
    for text in ["a&lt;b.csv", "demand misses so far", "seconds", "fast tier 20%", ">learned<"] {
        assert!(svg.contains(text), "{text}");
    }
    let opened = svg.matches("<g ").count() + svg.matches("<text ").count();
    assert_eq!(opened, svg.matches("</g>").count() + svg.matches("</text>").count());
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "finite places only");
}
