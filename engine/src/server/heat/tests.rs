//! Tests of following volumes, and of spilling by what is expected of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use predictor::heat::keep::{Kept, ModelName};
use predictor::heat::worth::SegmentHeat;
use predictor::heat::{ForecasterKind, Horizon};

use super::follow::{Follower, MOST_BYTES, Settings, shape_for};
use super::report;
use crate::admin::config::Config;
use crate::admin::protocol::{AdminRequest, AdminResponse, PrefetchKind};
use crate::device::Store;
use crate::format::superblock::Role;
use crate::server::by_hand::ByHand;
use crate::server::command::Command;
use crate::server::open::OpenDevice;
use crate::target::load::{Job, Mix, Order, Span};
use crate::tier::heat::{HeatForecast, SegmentCount, VolumeHeat};
use crate::units::{SEGMENT_BYTES, VolumeId};

const BIN_NS: u64 = 1_000_000_000;
const SIZE: u64 = 100 * SEGMENT_BYTES;

fn settings(forecaster: ForecasterKind) -> Settings {
    Settings { forecaster, horizon: "10s".parse().unwrap() }
}

fn seen(volume: u32, segment: u32, reads: u32) -> SegmentCount {
    SegmentCount { volume: VolumeId::new(volume), segment, reads, writes: 1 }
}

/// So many bins in which two segments of a volume are hot and one has a request now and then.
fn follow(follower: &mut Follower, first: u64, bins: u64) -> HeatForecast {
    let mut forecast = HeatForecast::new(1, Vec::new());
    for bin in first..first + bins {
        for (segment, reads) in [(3, 50), (70, 20)] {
            follower.count(bin * BIN_NS, "u1", SIZE, &seen(1, segment, reads));
        }
        if bin % 8 == 0 {
            follower.count(bin * BIN_NS, "u1", SIZE, &seen(1, 9, 1));
        }
        follower.close((bin + 1) * BIN_NS, |_| true);
        forecast = follower.look_ahead(|_| SIZE);
    }
    forecast
}

#[test]
fn hot_segments_are_foreseen_by_every_forecaster() {
    let volume = VolumeId::new(1);
    for kind in ForecasterKind::ALL {
        let mut follower = Follower::new(settings(kind), Kept::new());
        let forecast = follow(&mut follower, 1000, 40);
        let expected = |segment| forecast.of(volume, segment).expected;
        assert!((300.0..800.0).contains(&expected(3)), "{kind}: {}", expected(3));
        assert!((100.0..350.0).contains(&expected(70)), "{kind}: {}", expected(70));
        assert!(expected(9) < 20.0 && expected(50) < 1.0, "{kind}: {}", expected(9));
        assert_eq!(forecast.of(volume, 3).recent, 510.0, "{kind}");
        let report = report::of(&follower, volume, SIZE, &[], 1040 * BIN_NS, true);
        assert!(report.chosen.is_some());
        let hottest = report.segments.iter().max_by(|a, b| a.probability.total_cmp(&b.probability));
        assert_eq!(hottest.map(|s| (s.offset_bytes, s.reads)), Some((3 * SEGMENT_BYTES, 500)));
        let all = report.segments.iter().map(|s| s.probability).sum::<f64>();
        assert!((all + report.other.probability - 1.0).abs() < 1e-6, "{kind}: {all}");
        let map = report.map.expect("it was asked for");
        let counted: u64 = map.rows.iter().flatten().sum();
        assert_eq!(counted, 40 * (51 + 21) + 5 * 2, "{kind}: every request is in the map");
    }
}

#[test]
fn settings_change_while_volumes_are_followed() {
    let mut follower = Follower::new(settings(ForecasterKind::Lstm), Kept::new());
    follow(&mut follower, 0, 60);
    let weights = follower.keep(|_| true).clone();
    let name = ModelName::new("u1", "10s".parse().unwrap());
    assert!(weights.contains_key(&name), "the network has learned");
    let volume = VolumeId::new(1);
    let kept = |follower: &Follower| follower.volume(volume).expect("followed").heat.closed_bins();
    follower.set(settings(ForecasterKind::Ewma));
    assert_eq!(kept(&follower), 60, "counts outlive their forecaster");
    assert!(follow(&mut follower, 60, 1).of(volume, 3).expected > 300.0);
    follower.set(Settings { horizon: Horizon::FIVE_MINUTES, ..settings(ForecasterKind::Lstm) });
    assert_eq!((kept(&follower), follower.bin_ns()), (2, 30 * BIN_NS), "in longer bins");
    // Shorter bins cannot be made of longer ones; the weights of that horizon are still there.
    follower.set(settings(ForecasterKind::Lstm));
    assert_eq!(kept(&follower), 0);
    assert_eq!(follower.keep(|_| true).get(&name), weights.get(&name));
    assert_eq!(follower.keep(|owner| owner != "u1").len(), 0, "a deleted volume's go");
}

#[test]
fn what_was_learned_is_gone_on_from() {
    let mut first = Follower::new(settings(ForecasterKind::Lstm), Kept::new());
    follow(&mut first, 0, 60);
    let mut second = Follower::new(settings(ForecasterKind::Lstm), first.keep(|_| true).clone());
    let mut fresh = Follower::new(settings(ForecasterKind::Lstm), Kept::new());
    // Too few bins to train on.
    let (resumed, begun) = (follow(&mut second, 60, 10), follow(&mut fresh, 60, 10));
    assert_ne!(resumed, begun);
    assert_eq!(second.keep(|_| true), first.keep(|_| true));
}

#[test]
fn memory_is_bounded_and_idle_volumes_make_room() {
    let mut follower = Follower::new(settings(ForecasterKind::Ewma), Kept::new());
    let huge = 1 << 50;
    let count = |follower: &mut Follower, bin: u64, volume: u32| {
        let before = follower.lost;
        follower.count(bin * BIN_NS, &format!("u{volume}"), huge, &seen(volume, 1, 3));
        follower.lost == before
    };
    let followed = (0..1000).filter(|volume| count(&mut follower, 0, *volume)).count();
    assert!((4..10).contains(&followed), "{followed}");
    assert_eq!(follower.lost, (1000 - followed as u64) * 4);
    // A volume of many segments is followed in as many rows as there is room for.
    for segment in 0..20_000 {
        follower.count(0, "u0", huge, &seen(0, segment, 1));
    }
    let rows = follower.volume(VolumeId::new(0)).expect("followed").heat.rows();
    assert!((1000..5000).contains(&rows), "{rows}");
    // As ARCHITECTURE.md says.
    let rows_for = |horizon| shape_for(horizon, huge).0.max_segments();
    assert!((1400..1500).contains(&rows_for(Horizon::FIVE_MINUTES)));
    assert!((360..400).contains(&rows_for(Horizon::ONE_HOUR)));
    let bytes: usize = (0..1000)
        .filter_map(|volume| follower.volume(VolumeId::new(volume)))
        .map(|followed| followed.heat.memory_bytes())
        .sum();
    assert!(bytes <= MOST_BYTES, "{bytes}");
    // A ring later only one of them had a request.
    count(&mut follower, 200, 0);
    follower.close(500 * BIN_NS, |_| true);
    assert!(follower.volume(VolumeId::new(0)).is_none(), "idle for a whole ring");
    assert!(count(&mut follower, 500, 999), "there is room again");
    follower.close(501 * BIN_NS, |_| false);
    assert!(follower.volume(VolumeId::new(999)).is_none(), "deleted");
}

#[test]
fn a_volume_that_grows_gets_more_rows() {
    let mut follower = Follower::new(settings(ForecasterKind::Ewma), Kept::new());
    follower.count(0, "u1", 2 * SEGMENT_BYTES, &seen(1, 1, 1));
    for segment in 0..9 {
        follower.count(0, "u1", 9 * SEGMENT_BYTES, &seen(1, segment, 1));
    }
    let heat = &follower.volume(VolumeId::new(1)).expect("followed").heat;
    assert_eq!(heat.rows(), 10, "nine segments and the rest");
}

/// Bytes on the cold tier of three volumes that were written one after the other until the fast
/// tier was short, with and without a forecast that the first one is hot and the second is not.
fn spilled(forecast: bool) -> [u64; 3] {
    let dir = tempfile::tempdir().expect("a directory");
    let device = |role| OpenDevice {
        store: Arc::new(Store::memory(512 << 20).expect("memory")),
        path: "memory".into(),
        role,
    };
    let mut config = Config::with_devices(Vec::new());
    config.prefetch = PrefetchKind::None;
    // Only this test gives forecasts.
    config.tier_policy.forecast = false;
    let devices = vec![device(Role::Fast), device(Role::Cold)];
    let mut core = ByHand::start(dir.path(), config, devices).expect("a pool");
    let volumes = ["a", "b", "c"].map(|name| {
        let (name, size_bytes) = (name.to_owned(), 8 * SEGMENT_BYTES);
        let (fragment_size, block_bytes, read_only) = (None, None, false);
        let create =
            AdminRequest::VolumeCreate { name, size_bytes, fragment_size, block_bytes, read_only };
        let Ok(AdminResponse::Volume(volume)) = core.ask(create) else { panic!("a volume") };
        VolumeId::new(volume.id)
    });
    let heat = |volume, expected| VolumeHeat {
        volume,
        segments: (0..8).map(|s| (s, SegmentHeat { expected, recent: 0.0 })).collect(),
        other: SegmentHeat::default(),
    };
    for (number, volume) in volumes.into_iter().enumerate() {
        if forecast && number == 2 {
            let volumes = vec![heat(volumes[0], 1e6), heat(volumes[1], 0.0)];
            let made = HeatForecast::new(3600 * BIN_NS, volumes);
            core.send(Command::Forecast(Some(Arc::new(made))));
        }
        core.begin(fill(volume));
        core.finish().expect("no failure");
    }
    let patience = Instant::now() + Duration::from_secs(60);
    while core.stats().counters.spills < 8 {
        assert!(Instant::now() < patience, "nothing is spilled");
        core.turn();
    }
    let stats = core.stats();
    volumes.map(|id| stats.volumes.iter().find(|(of, ..)| *of == id).map_or(0, |of| of.3))
}

/// Writes the whole of a volume of eight segments.
fn fill(volume: VolumeId) -> Job {
    let mix = Mix { block_bytes: 4096, read_percent: 0, order: Order::Sequential, flush_every: 64 };
    Job {
        volume,
        mix,
        extents: vec![0],
        extent_bytes: 8 * SEGMENT_BYTES,
        depth: 4,
        fill: true,
        scatter: false,
        copy: true,
        warm_up: Span::Requests(0),
        measure: Span::Requests(1),
        seed: 1,
    }
}

#[test]
fn what_is_expected_least_is_spilled_first() {
    let [first, second, _] = spilled(false);
    assert!(first > 0 && second == 0, "what was used least recently goes: {first} {second}");
    let [first, second, _] = spilled(true);
    assert!(first == 0 && second > 0, "what is expected to be hot stays: {first} {second}");
}
