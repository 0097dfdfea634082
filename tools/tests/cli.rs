//! The `tessera` binary from outside: exit codes, messages, JSON, and its
//! clients against an admin server of this test and qemu-nbd as the volume.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use tools::admin::{
    AdminError, AdminRequest, AdminResponse, DeviceReport, ErrorCode, StatsReport, StatusReport,
    VolumeReport, listen, serve_connection,
};

const VOLUME_BYTES: u64 = 4 << 20;

fn tessera(data: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tessera"))
        .arg("--data")
        .arg(data)
        .args(arguments)
        .output()
        .expect("the binary starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("one JSON value")
}

/// Answers every connection on `data`, as long as the test process lives.
fn admin_server(data: &Path, listeners: Vec<String>) {
    let listener = listen(data).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let listeners = listeners.clone();
            thread::spawn(move || serve_connection(stream, |request| answer(request, &listeners)));
        }
    });
}

fn answer(request: AdminRequest, listeners: &[String]) -> Result<AdminResponse, AdminError> {
    match request {
        AdminRequest::Status => {
            let listeners = listeners.to_vec();
            Ok(AdminResponse::Status(StatusReport { listeners, ..Default::default() }))
        }
        AdminRequest::Stats { .. } => Ok(AdminResponse::Stats(StatsReport::default())),
        AdminRequest::DeviceList => {
            let emulate = Some("hdd".to_owned());
            let devices = vec![DeviceReport { id: 3, emulate, ..Default::default() }];
            Ok(AdminResponse::Devices { devices })
        }
        AdminRequest::VolumeShow { name } if name == "vm1" => {
            Ok(AdminResponse::Volume(VolumeReport { name, ..Default::default() }))
        }
        AdminRequest::VolumeShow { name } | AdminRequest::VolumeDelete { name } => {
            Err(AdminError::new(ErrorCode::VolumeNotFound, format!("no volume `{name}`")))
        }
        _ => Ok(AdminResponse::Done),
    }
}

struct Disk(Child);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A volume `vm1` of qemu-nbd; `None`, with a line, where that is absent.
fn disk(dir: &Path) -> Option<(Disk, String)> {
    let (file, socket) = (dir.join("disk"), dir.join("s"));
    File::create(&file).unwrap().set_len(VOLUME_BYTES).unwrap();
    let arguments = ["-f", "raw", "-x", "vm1", "--persistent", "-k"];
    let Ok(child) = Command::new("qemu-nbd").args(arguments).args([&socket, &file]).spawn() else {
        println!("skipped: qemu-nbd is not installed");
        return None;
    };
    let disk = Disk(child);
    let limit = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < limit, "qemu-nbd does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    Some((disk, format!("nbd+unix:///?socket={}", socket.display())))
}

#[test]
fn wrong_usage_exits_2_and_a_missing_server_1() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = tessera(dir.path(), &["volume", "create", "--sise", "1GiB"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("--sise"), "{}", stderr(&wrong));
    let missing = tessera(dir.path(), &["status"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("no server runs on"), "{}", stderr(&missing));
    assert!(missing.stdout.is_empty());
}

#[test]
fn reports_are_tables_or_json_and_refusals_name_the_thing() {
    let dir = tempfile::tempdir().unwrap();
    admin_server(dir.path(), Vec::new());
    assert_eq!(json(&tessera(dir.path(), &["status", "--json"]))["status"]["prefetch"], "learned");
    assert_eq!(json(&tessera(dir.path(), &["device", "show", "3", "--json"]))["emulate"], "hdd");
    let table = tessera(dir.path(), &["device", "list"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("emulating hdd"));
    for (arguments, message) in [
        (&["volume", "delete", "vm9"][..], "no volume `vm9`"),
        (&["device", "show", "4"], "no device 4"),
        (&["image", "export", "vm1", "x"], "no NBD listener"),
    ] {
        let output = tessera(dir.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}

#[test]
fn an_image_goes_in_and_out_and_a_trace_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_disk, uri)) = disk(dir.path()) else { return };
    admin_server(dir.path(), vec![uri]);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut image = vec![0; 1 << 20];
    image[5000..700_000].fill(3);
    fs::write(path("in"), &image).unwrap();
    let moved = json(&tessera(dir.path(), &["--json", "image", "import", &path("in"), "vm1"]));
    assert_eq!(moved["image_bytes"], 1 << 20);
    json(&tessera(dir.path(), &["--json", "image", "export", "vm1", &path("out")]));
    let out = fs::read(path("out")).unwrap();
    assert_eq!(out.len() as u64, VOLUME_BYTES);
    assert!(out.starts_with(&image) && out[image.len()..].iter().all(|byte| *byte == 0));
    let again = tessera(dir.path(), &["image", "export", "vm1", &path("out")]);
    assert!(stderr(&again).contains("exists already"), "{}", stderr(&again));

    let text = "seq_no,op,offset_bytes,size_bytes\n0,R,0,4096\n1,W,8388608,512\n2,R,512,1024\n";
    fs::write(path("trace"), text).unwrap();
    let replay = ["--json", "replay", &path("trace"), "--live", "--volume", "vm1", "--speed", "2"];
    let report = json(&tessera(dir.path(), &replay));
    assert_eq!(report["mode"], "closed-loop", "the trace has no clock");
    assert_eq!((&report["read"]["count"], &report["write"]["count"]), (&2.into(), &1.into()));
    assert_eq!((&report["folded"], &report["failed"]), (&1.into(), &0.into()));

    for (more, names) in [
        (&["--prefetch", "oracle"][..], "--prefetch oracle with --live"),
        (&["--prefetch", "none,readahead"], "takes one --prefetch"),
        (&[&path("trace")], "takes one trace"),
    ] {
        let wrong = tessera(dir.path(), &[&replay[..], more].concat());
        assert_eq!(wrong.status.code(), Some(2));
        assert!(stderr(&wrong).contains(names), "{}", stderr(&wrong));
    }

    fs::write(path("trace"), &text[..text.len() - 3]).unwrap();
    let damaged = tessera(dir.path(), &replay);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(stderr(&damaged).contains("line 4: the trace is truncated"), "{}", stderr(&damaged));
    let none = tessera(dir.path(), &["replay", &path("none"), "--live", "--volume", "vm1"]);
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(stderr(&none).matches(&path("none")).count(), 1, "{}", stderr(&none));
    fs::write(path("trace"), text).unwrap();
    let lost = tessera(dir.path(), &["replay", &path("trace"), "--live", "--volume", "vm9"]);
    assert_eq!(lost.status.code(), Some(1));
    assert!(stderr(&lost).contains("volume vm9"), "{}", stderr(&lost));
}
