//! A server that starts, idles, and stops.

mod rig;

use std::fs;
use std::thread;
use std::time::Duration;

use rig::{Random, Rig};

/// Nanoseconds that all threads of a process have run.
fn cpu_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |entry: fs::DirEntry| {
        // A thread may end meanwhile.
        let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0)
    };
    threads.flatten().map(of).sum()
}

#[test]
fn a_quiet_server_sleeps() {
    const QUIET: Duration = Duration::from_secs(10);
    let mut rig = Rig::serving("vm1", "16MiB");
    let mut client = rig.attach("vm1");
    client.write(0, &[1; 4096], true).unwrap();
    thread::sleep(Duration::from_secs(2));
    let before = cpu_ns(rig.pid());
    thread::sleep(QUIET);
    let used = u128::from(cpu_ns(rig.pid()) - before);
    let (millionths, cores) =
        (used * 1_000_000 / QUIET.as_nanos(), rig.json(&["status"])["status"]["cores"].clone());
    println!(
        "quiet for {QUIET:?} with a volume attached, {cores} cores: {millionths} millionths of one core"
    );
    assert!(millionths < 10_000, "more than 1 % of a core: {millionths} millionths");
    client.read(0, &mut [0; 4096]).unwrap();
    drop(client);
    rig.stop_and_check();
}

#[test]
fn sigterm_drains_and_exits_0() {
    let mut rig = Rig::serving("vm1", "64MiB");
    let data = Random::new(12).bytes(32 << 20);
    let mut client = rig.attach("vm1");
    client.write(0, &data, false).unwrap();
    let (status, took) = rig.stop();
    assert!(status.success(), "{status}\n{}", rig.log());
    assert!(took < Duration::from_secs(20), "stop_timeout is 20 s, it took {took:?}");
    println!("stopped in {took:?} with a client attached and 32 MiB unflushed");
    assert!(client.flush().is_err(), "the server is gone");
    rig.fails(&["status"], 1, "no server runs on");
    assert!(!rig.socket().exists(), "the socket is removed");
    rig.check();
    // A clean stop leaves nothing to replay.
    fs::remove_dir_all(rig.data().join("log")).unwrap();
    rig.start(&[]);
    let mut back = vec![0; data.len()];
    rig.attach("vm1").read(0, &mut back).unwrap();
    assert!(back == data);
    rig.stop_and_check();
}

#[test]
fn a_new_directory_becomes_an_embedded_pool() {
    use std::os::unix::fs::PermissionsExt;
    let mut rig = Rig::new();
    fs::remove_dir_all(rig.data()).unwrap();
    rig.start(&["--nbd", "unix:nbd.sock"]);
    for file in ["tessera.toml", "fast.img", "cold.img", "admin.sock", "nbd.sock"] {
        assert!(rig.data().join(file).exists(), "{file}");
    }
    for socket in ["admin.sock", "nbd.sock"] {
        let mode = fs::metadata(rig.data().join(socket)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{socket}");
    }
    rig.ok(&["volume", "create", "vm1", "--size", "1GiB"]);
    rig.assert_serving("vm1");
    rig.stop_and_check();
    rig.start(&[]);
    rig.assert_serving("vm1");
    rig.stop_and_check();
}

#[test]
fn a_trace_is_recorded_and_replayed() {
    let mut rig = Rig::serving("vm1", "16MiB");
    let trace = rig.path("t.csv.zst").display().to_string();
    let report = thread::scope(|scope| {
        let recording = scope
            .spawn(|| rig.json(&["trace", "record", &trace, "--volume", "vm1", "--seconds", "3"]));
        thread::sleep(Duration::from_secs(1));
        let mut client = rig.attach("vm1");
        for at in 0..100 {
            client.write(at * 8192 + 512, &[1; 1024], false).unwrap();
            client.read(at * 8192, &mut [0; 4096]).unwrap();
        }
        recording.join().unwrap()
    });
    assert_eq!((&report["records"], &report["dropped"]), (&200.into(), &0.into()));
    let replayed = rig.json(&[
        "replay",
        &trace,
        "--live",
        "--volume",
        "vm1",
        "--prefetch",
        "none",
        "--speed",
        "2",
    ]);
    assert_eq!(
        (&replayed["read"]["count"], &replayed["write"]["count"]),
        (&100.into(), &100.into())
    );
    assert_eq!(replayed["failed"], 0);
    for kind in ["readahead", "learned"] {
        let replayed =
            rig.json(&["trace", "replay", &trace, "--live", "--volume", "vm1", "--prefetch", kind]);
        assert_eq!(replayed["prefetch"], kind);
    }
    rig.stop_and_check();
}
