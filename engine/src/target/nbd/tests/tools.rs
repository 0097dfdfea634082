//! The programs that people use: each test skips where its tool is absent.

use std::path::Path;
use std::process::Command;

use super::super::client::Client;
use super::{Served, pattern};
use crate::target::fake::{Fake, volume};

const SIZE: u64 = 64 << 20;

fn served(block_bytes: u32) -> Served {
    Served::new(Fake::new(vec![volume(1, "a", SIZE, block_bytes)], 3))
}

/// Runs a tool; its output, or `None` where it is not installed.
fn run(tool: &str, args: &[&str]) -> Option<String> {
    let output = match Command::new(tool).args(args).output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {tool} is not installed");
            return None;
        }
        other => other.unwrap(),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{tool} {args:?}: {out}{err}");
    Some(out)
}

fn image(dir: &Path) -> String {
    let mut data = vec![0; usize::try_from(SIZE).unwrap()];
    data[512..(20 << 20) + 5000].copy_from_slice(&pattern(1, (20 << 20) + 4488));
    data[(50 << 20)..(60 << 20)].copy_from_slice(&pattern(2, 10 << 20));
    let path = dir.join("image");
    std::fs::write(&path, data).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn nbdinfo() {
    let served = served(512);
    let uri = served.uri("a").to_string();
    let Some(info) = run("nbdinfo", &[&uri]) else { return };
    for want in [
        "newstyle-fixed without TLS, using structured packets",
        "export-size: 67108864",
        "base:allocation",
        "is_read_only: false",
        "can_multi_conn: true",
        "can_fua: true",
        "can_df: true",
        "can_trim: true",
        "can_zero: true",
        "can_fast_zero: false",
        "block_size_minimum: 512",
        "block_size_preferred: 4096",
        "block_size_maximum: 33554432",
    ] {
        assert!(info.contains(want), "{want} not in:\n{info}");
    }
    let list = run("nbdinfo", &["--list", &served.uri("").to_string()]).unwrap();
    assert!(list.contains("export=\"a\""), "{list}");
    Client::connect(&served.uri("a")).unwrap().write(4096, &[1; 8192], false).unwrap();
    let map = run("nbdinfo", &["--map", &uri]).unwrap();
    let lines: Vec<Vec<&str>> = map.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{map}");
    assert_eq!(lines[1][..3], ["4096", "8192", "0"], "{map}");
}

#[test]
fn nbdcopy() {
    let served = served(4096);
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let uri = served.uri("a").to_string();
    if run("nbdcopy", &["--flush", "--connections=4", &image, &uri]).is_none() {
        return;
    }
    let back = dir.path().join("back");
    run("nbdcopy", &["--connections=4", &uri, back.to_str().unwrap()]);
    assert!(std::fs::read(&image).unwrap() == std::fs::read(back).unwrap());
}

#[test]
fn qemu_img() {
    for block_bytes in [512, 4096] {
        let served = served(block_bytes);
        let dir = tempfile::tempdir().unwrap();
        let image = image(dir.path());
        let uri = served.uri("a@vm").to_string();
        let Some(info) = run("qemu-img", &["info", "--output=json", &uri]) else { return };
        assert!(info.contains("67108864"), "{info}");
        run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &image, &uri]);
        let back = dir.path().join("back");
        let back = back.to_str().unwrap();
        run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &uri, back]);
        run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &image, &uri]);
        assert!(std::fs::read(&image).unwrap() == std::fs::read(back).unwrap());
        let map = run("qemu-img", &["map", "-f", "raw", "--output=json", &uri]).unwrap();
        assert!(map.contains("\"data\": false") && map.contains("\"data\": true"), "{map}");
    }
}

#[test]
fn qemu_io() {
    let served = served(512);
    let uri = served.uri("a").to_string();
    let commands = [
        "write -P 0x31 1536 70000k",
        "write -P 0x31 1536 20480",
        "read -P 0x31 1536 20480",
        "write -f -P 0x32 262144 1M",
        "read -P 0x32 262144 1M",
        "write -z -u 524288 256k",
        "read -P 0 524288 256k",
        "write -z 300k 8k",
        "read -P 0 300k 8k",
        "discard 1M 4k",
        "aio_write -P 0x33 8M 512k",
        "aio_write -P 0x34 9M 512k",
        "aio_flush",
        "read -P 0x33 8M 512k",
        "read -P 0x34 9M 512k",
        "flush",
    ];
    let mut args = vec!["-f", "raw", &uri];
    commands[1..].iter().for_each(|command| args.extend(["-c", command]));
    let Some(out) = run("qemu-io", &args) else { return };
    for bad in ["failed", "rror"] {
        assert!(!out.contains(bad), "{out}");
    }
    // Past the end is an error of the client, not of the connection.
    let output = Command::new("qemu-io").args(["-f", "raw", &uri, "-c", commands[0]]).output();
    assert!(!output.unwrap().status.success());
}

#[test]
fn fio_verifies() {
    let served = served(512);
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("--uri={}", served.uri("a"));
    let args = [
        "--name=verify",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bsrange=512-256k",
        "--size=64M",
        "--iodepth=64",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--fsync=50",
        "--trim_percentage=5",
    ];
    let output = Command::new("fio").args(args).current_dir(dir.path()).output();
    let output = match output {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: fio is not installed");
            return;
        }
        other => other.unwrap(),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if text.contains("engine nbd not loadable") {
        println!("skipped: this fio has no nbd engine");
        return;
    }
    assert!(output.status.success() && text.contains("err= 0"), "{text}");
}
