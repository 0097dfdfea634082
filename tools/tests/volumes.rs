//! Volumes: resizing online, deleting, and what is read afterwards.

mod rig;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rig::{Random, Rig};

const MIB: u64 = 1 << 20;

#[test]
fn a_volume_grows_online_and_shrinks_by_force_only() {
    let mut rig = Rig::serving("vm1", "16MiB");
    let data = Random::new(2).bytes(4 << 20);
    let mut client = rig.attach("vm1");
    client.write(10 * MIB, &data, true).unwrap();
    let grown = rig.json(&["volume", "resize", "vm1", "--size", "32MiB"]);
    assert_eq!(grown["size_bytes"], 32 * MIB);
    // A connection that was there before goes on within the old size.
    let mut back = vec![0; data.len()];
    client.read(10 * MIB, &mut back).unwrap();
    assert!(back == data);
    let mut client = rig.attach("vm1");
    assert_eq!(client.size(), 32 * MIB);
    client.write(28 * MIB, &data, true).unwrap();
    rig.fails(&["volume", "resize", "vm1", "--size", "12MiB"], 1, "force");
    client.read(28 * MIB, &mut back).unwrap();
    assert!(back == data, "a refused shrink changes nothing");
    drop(client);
    // In the middle of a block.
    rig.ok(&["volume", "resize", "vm1", "--size", &(12 * MIB + 512).to_string(), "--force"]);
    assert_eq!(rig.attach("vm1").size(), 12 * MIB + 512);
    rig.ok(&["volume", "resize", "vm1", "--size", "32MiB"]);
    assert_shrunk(&rig, &data);
    rig.stop_and_check();
    rig.start(&[]);
    assert_shrunk(&rig, &data);
    rig.stop_and_check();
}

/// What was cut off reads as zeros, what was not is there.
fn assert_shrunk(rig: &Rig, data: &[u8]) {
    let mut all = vec![1; 32 << 20];
    rig.attach("vm1").read(0, &mut all).unwrap();
    let (start, end) = (10 << 20, (12 << 20) + 512);
    assert!(all[start..end] == data[..end - start]);
    assert!(all[end..].iter().all(|byte| *byte == 0), "re-grown space reads as zeros");
}

#[test]
fn a_deleted_volume_leaves_nothing_behind() {
    let mut rig = Rig::serving("vm1", "16MiB");
    let uuid = |rig: &Rig| rig.json(&["volume", "show", "vm1"])["uuid"].clone();
    let first = uuid(&rig);
    rig.attach("vm1").write(0, &Random::new(8).bytes(16 << 20), true).unwrap();
    rig.ok(&["volume", "delete", "vm1"]);
    rig.fails(&["volume", "show", "vm1"], 1, "vm1");
    assert_eq!(rig.json(&["volume", "list"]), serde_json::json!([]));
    assert_eq!(rig.json(&["status"])["status"]["fast"]["used_bytes"], 0, "space is back");
    rig.ok(&["volume", "create", "vm1", "--size", "16MiB"]);
    assert_ne!(uuid(&rig), first);
    for _ in 0..2 {
        let mut all = vec![1; 16 << 20];
        rig.attach("vm1").read(0, &mut all).unwrap();
        assert!(all.iter().all(|byte| *byte == 0), "old data of another volume");
        rig.stop_and_check();
        rig.start(&[]);
    }
}

#[test]
fn block_and_fragment_sizes_are_kept() {
    let mut rig = Rig::new();
    rig.start(&[]);
    for (name, fragment, block) in [("small", "64KiB", "512"), ("large", "16MiB", "4096")] {
        rig.ok(&[
            "volume",
            "create",
            name,
            "--size",
            "64MiB",
            "--fragment-size",
            fragment,
            "--block-size",
            block,
        ]);
    }
    let data = Random::new(5).bytes(3 << 20);
    rig.attach("small").write(512, &data, false).unwrap();
    let mut large = rig.attach("large");
    assert_eq!(large.info().minimum_block, 4096);
    assert!(large.write(512, &[1; 512], false).is_err(), "off the block");
    large.write(4096, &data, false).unwrap();
    drop(large);
    rig.stop_and_check();
    rig.start(&["--cores", "1"]);
    for (name, at, fragment) in [("small", 512, 64 << 10), ("large", 4096, 16 << 20)] {
        let mut back = vec![0; data.len()];
        rig.attach(name).read(at, &mut back).unwrap();
        assert!(back == data, "{name}");
        assert_eq!(rig.json(&["volume", "show", name])["fragment_bytes"], fragment);
    }
    rig.stop_and_check();
}

#[test]
fn a_spilled_volume_reads_as_before() {
    let mut rig = Rig::serving("vm1", "16MiB");
    let data = Random::new(11).bytes(16 << 20);
    rig.attach("vm1").write(0, &data, true).unwrap();
    let mut admin = engine::admin::AdminClient::connect(&rig.data()).unwrap();
    admin.call(&engine::admin::AdminRequest::VolumeSpill { name: "vm1".into() }).unwrap();
    drop(admin);
    let report = rig.json(&["volume", "show", "vm1"]);
    assert_eq!((&report["fast_bytes"], &report["cold_bytes"]), (&0.into(), &(16 << 20).into()));
    let mut back = vec![0; data.len()];
    rig.attach("vm1").read(0, &mut back).unwrap();
    assert!(back == data);
    rig.attach("vm1").write(5 << 20, &[9; 4096], true).unwrap();
    rig.kill();
    rig.check();
    rig.start(&[]);
    rig.attach("vm1").read(0, &mut back).unwrap();
    assert!(back[5 << 20..][..4096] == [9; 4096] && back[..5 << 20] == data[..5 << 20]);
    rig.stop_and_check();
}

#[test]
fn spilling_a_volume_that_is_being_written_ends() {
    let mut rig = Rig::serving("vm1", "64MiB");
    let data = Random::new(12).bytes(16 << 20);
    (0..4).for_each(|at| rig.attach("vm1").write(at * 16 * MIB, &data, true).unwrap());
    let (spilled, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for writer in 1..5u8 {
            let (mut client, mut random) = (rig.attach("vm1"), Random::new(writer.into()));
            let (spilled, written) = (&spilled, &written);
            scope.spawn(move || {
                while !spilled.load(Ordering::Relaxed) {
                    let block = random.below(8 * MIB / 4096);
                    client.write(block * 4096, &[writer; 4096], false).unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while written.load(Ordering::Relaxed) < 1000 {
            std::thread::yield_now();
        }
        rig.ok(&["tier", "spill", "vm1"]);
        let cold = rig.json(&["volume", "show", "vm1"])["cold_bytes"].as_u64().unwrap();
        spilled.store(true, Ordering::Relaxed);
        assert!(cold >= 56 * MIB, "only {cold} bytes are cold, and only 8 MiB are in use");
    });
    let mut back = vec![0; data.len()];
    rig.attach("vm1").read(16 * MIB, &mut back).unwrap();
    assert!(back == data);
    rig.stop_and_check();
}
