//! Bad input: a clear error that names the thing, the right exit code, nothing
//! lost, and everyone else goes on.

mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crc_fast::{CrcAlgorithm, checksum};
use engine::target::nbd::client::{Client, Error};
use engine::target::nbd::wire::{Errno, command};
use rig::{CONFIG, Rig, workspace};

// Where fields of a superblock stand: docs/format.md.
const VERSION_AT: usize = 8;
const COMPAT_AT: usize = 56;
const RO_COMPAT_AT: usize = 64;
const INCOMPAT_AT: usize = 72;

#[test]
fn an_unknown_option_exits_2() {
    let rig = Rig::new();
    rig.fails(&["serve", "--frobnicate"], 2, "--frobnicate");
    rig.fails(&["serve", "--cores", "0"], 2, "--cores");
    rig.fails(&["sreve"], 2, "sreve");
    assert!(!rig.data().join("fast.img").exists(), "nothing was made");
}

#[test]
fn a_malformed_configuration_names_file_line_and_key() {
    for (config, names) in [
        (format!("coers = 2\n{CONFIG}"), "tessera.toml:1: `coers`"),
        (format!("cores = \"two\"\n{CONFIG}"), "tessera.toml:1: `cores`"),
        (format!("nbd = [\"tcp:0.0.0.0:0\"]\n{CONFIG}"), "insecure_listen"),
        (CONFIG.replace("512MiB", "512 potatoes"), "`size`"),
        (CONFIG.replace("512MiB", "1MiB"), "fast.img is too small"),
        ("[[pool".to_owned(), "tessera.toml:1:"),
        ("[[pool.devices]]\npath = \"c\"\nrole = \"cold\"\n".to_owned(), "role = \"fast\""),
    ] {
        let rig = Rig::with_config(&config);
        rig.fails(&["serve"], 2, names);
        rig.fails(&["check"], 2, names);
        assert!(!rig.data().join("fast.img").exists(), "nothing was made");
    }
}

/// A stopped pool with a volume in it.
fn stopped() -> Rig {
    let mut rig = Rig::serving("vm1", "16MiB");
    rig.attach("vm1").write(0, &[7; 8192], true).unwrap();
    rig.stop_and_check();
    rig
}

/// The pool serves what [`stopped`] wrote.
fn assert_whole(rig: &mut Rig) {
    rig.start(&[]);
    let mut back = [0; 8192];
    rig.attach("vm1").read(0, &mut back).unwrap();
    assert!(back == [7; 8192]);
    rig.stop_and_check();
}

/// Changes a field of every superblock of the pool's devices, with a good CRC.
fn set_superblocks(rig: &Rig, at: usize, field: &[u8]) {
    for device in ["fast.img", "cold.img"] {
        set_superblock(&rig.data().join(device), at, field);
    }
}

fn set_superblock(device: &Path, at: usize, field: &[u8]) {
    let file = OpenOptions::new().read(true).write(true).open(device).unwrap();
    for offset in [0, 64 << 10] {
        let mut block = [0; 4096];
        file.read_exact_at(&mut block, offset).unwrap();
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        block[at..at + field.len()].copy_from_slice(field);
        block[12..16].fill(0);
        let crc = u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, &block)).unwrap();
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&block, offset).unwrap();
    }
}

#[test]
fn another_format_version_is_refused_by_name() {
    let mut rig = stopped();
    set_superblocks(&rig, VERSION_AT, &2_u32.to_le_bytes());
    rig.fails(&["serve"], 1, "version 2");
    rig.fails(&["upgrade"], 1, "version 2");
    assert_eq!(rig.tessera(&["check"]).status.code(), Some(1));
    set_superblocks(&rig, VERSION_AT, &1_u32.to_le_bytes());
    assert_whole(&mut rig);
}

#[test]
fn unknown_features_are_ignored_or_keep_from_writing_or_from_opening() {
    let mut rig = stopped();
    let feature = 0x400_u64.to_le_bytes();
    set_superblocks(&rig, INCOMPAT_AT, &feature);
    rig.fails(&["serve"], 1, "0x400");
    rig.fails(&["upgrade"], 1, "0x400");
    let output = rig.tessera(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(rig::stdout(&output).contains("0x400"), "{}", rig::stdout(&output));
    set_superblocks(&rig, INCOMPAT_AT, &[0; 8]);

    set_superblocks(&rig, RO_COMPAT_AT, &feature);
    rig.fails(&["serve"], 1, "unknown features 0x400");
    rig.fails(&["upgrade"], 1, "unknown features 0x400");
    rig.check();
    set_superblocks(&rig, RO_COMPAT_AT, &[0; 8]);

    set_superblocks(&rig, COMPAT_AT, &feature);
    assert_whole(&mut rig);
    assert_whole(&mut rig);
    assert!(rig.ok(&["upgrade"]).contains("0x400"), "kept in both copies");
}

#[test]
fn an_upgrade_needs_a_pool_that_is_not_in_use() {
    let mut rig = Rig::serving("vm1", "16MiB");
    rig.fails(&["upgrade"], 1, "in use");
    rig.assert_serving("vm1");
    rig.stop_and_check();
    fs::remove_file(rig.data().join("tessera.toml")).unwrap();
    rig.fails(&["upgrade"], 1, "no pool");
}

#[test]
fn a_device_of_another_pool_is_refused() {
    let (mut ours, theirs) = (stopped(), stopped());
    let (cold, kept) = (ours.data().join("cold.img"), ours.path("kept"));
    fs::rename(&cold, &kept).unwrap();
    fs::copy(theirs.data().join("cold.img"), &cold).unwrap();
    ours.fails(&["serve"], 1, "another pool");
    assert_eq!(ours.tessera(&["check"]).status.code(), Some(1));
    fs::rename(&kept, &cold).unwrap();
    assert_whole(&mut ours);
}

#[test]
fn a_vanished_or_shrunk_device_is_named() {
    let mut rig = stopped();
    let (cold, kept) = (rig.data().join("cold.img"), rig.path("kept"));
    fs::rename(&cold, &kept).unwrap();
    rig.fails(&["serve"], 1, "cold.img");
    assert_eq!(rig.tessera(&["check"]).status.code(), Some(1));
    fs::rename(&kept, &cold).unwrap();
    let file = OpenOptions::new().write(true).open(&cold).unwrap();
    file.set_len(100 << 20).unwrap();
    rig.fails(&["serve"], 1, "cold.img");
    file.set_len(1 << 30).unwrap();
    assert_whole(&mut rig);
}

#[test]
fn a_directory_in_use_is_refused_and_its_server_goes_on() {
    let rig = Rig::serving("vm1", "16MiB");
    rig.fails(&["serve"], 1, "in use");
    rig.fails(&["check"], 1, "in use");
    rig.assert_serving("vm1");
}

#[test]
fn a_full_pool_says_enospc_and_discard_helps() {
    const STEP: usize = 1 << 20;
    let config = CONFIG.replace("512MiB", "256MiB").replace("1GiB", "160MiB");
    let mut rig = Rig::with_config(&config);
    rig.start(&[]);
    rig.ok(&["volume", "create", "vm1", "--size", "1GiB"]);
    let mut client = rig.attach("vm1");
    let data = |step: u64| vec![u8::try_from(step % 255 + 1).unwrap(); STEP];
    let mut full = None;
    for step in 0..1024 {
        match client.write(step * STEP as u64, &data(step), false) {
            Ok(()) => {}
            Err(Error::Failed(error)) => {
                assert_eq!(error.errno, Errno::NoSpace, "{error}");
                full = Some(step);
                break;
            }
            Err(error) => panic!("the connection must stay: {error}"),
        }
    }
    let full = full.expect("a pool of 416 MiB does not hold 1 GiB");
    assert!(full > 16, "only {full} MiB fitted");
    client.flush().unwrap();
    let mut back = vec![0; STEP];
    for step in 0..full {
        client.read(step * STEP as u64, &mut back).unwrap();
        assert!(back == data(step), "MiB {step} of {full}");
    }
    client.trim(0, full / 2 * STEP as u64).unwrap();
    client.flush().unwrap();
    for step in 0..full / 4 {
        client.write(step * STEP as u64, &data(step + 9), false).unwrap();
    }
    client.flush().unwrap();
    for step in full / 2..full {
        client.read(step * STEP as u64, &mut back).unwrap();
        assert!(back == data(step), "MiB {step} of {full}");
    }
    drop(client);
    rig.stop_and_check();
}

#[test]
fn garbage_on_the_sockets_harms_nobody() {
    let mut rig = Rig::serving("vm1", "16MiB");
    let mut other = rig.attach("vm1");
    other.write(0, &[1; 4096], false).unwrap();
    for garbage in [&[0xee; 4096][..], &[0; 100], b"GET / HTTP/1.1\r\n\r\n"] {
        for socket in ["nbd.sock", "admin.sock"] {
            let mut stream = rig.connect(socket);
            // The server may hang up before it has taken all.
            let _ = stream.write_all(garbage);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    let mut admin = rig.connect("admin.sock");
    admin.write_all(b"{\"op\":\"reboot\"}\n").unwrap();
    let mut answer = [0; 512];
    let n = admin.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
    assert!(answer.contains("bad-request"), "{answer}");
    // Garbage after a good negotiation.
    let (mut sender, mut receiver) = rig.attach("vm1").split();
    sender.send(command::READ, 0, 1, 0, 512, &[0x77; 64]).unwrap();
    while receiver.receive(|_| {}).is_ok() {}
    let mut back = [0; 4096];
    other.read(0, &mut back).unwrap();
    assert!(back == [1; 4096]);
    rig.assert_serving("vm1");
    drop(other);
    rig.stop_and_check();
}

#[test]
fn requests_past_the_end_fail_alone() {
    const SIZE: u64 = 16 << 20;
    let mut rig = Rig::serving("vm1", "16MiB");
    let (mut sender, mut receiver) = rig.attach("vm1").split();
    for (command, offset, length, data) in [
        (command::READ, SIZE, 512, &[][..]),
        (command::READ, SIZE - 512, 1024, &[]),
        (command::READ, u64::MAX - 511, 512, &[]),
        (command::WRITE, SIZE - 512, 1024, &[9; 1024]),
        (command::WRITE, u64::MAX - 511, 512, &[9; 512]),
        (command::TRIM, SIZE, 4096, &[]),
        (command::WRITE_ZEROES, SIZE - 512, 1024, &[]),
    ] {
        sender.send(command, 0, 5, offset, length, data).unwrap();
        let error = receiver.receive(|_| {}).unwrap().result.unwrap_err();
        assert!(matches!(error.errno, Errno::Inval | Errno::NoSpace), "{error}");
    }
    sender.read(6, SIZE - 512, 512).unwrap();
    let mut last = Vec::new();
    let done = receiver.receive(|part| last.push(format!("{part:?}"))).unwrap();
    assert!(done.result.is_ok() && done.bytes == 512, "the connection goes on");
    assert!(!last.concat().contains('9'), "nothing was written: {last:?}");
    drop((sender, receiver));
    rig.stop_and_check();
}

#[test]
fn a_damaged_trace_is_refused_before_the_first_write() {
    let mut rig = Rig::serving("vm1", "16MiB");
    let path = |name: &str| rig.path(name).display().to_string();
    let text = "time_us,op,offset_bytes,size_bytes\n0,W,0,4096\n5,W,4096,4096\n";
    let replay = |file: &str| {
        vec!["replay".to_owned(), path(file), "--live".into(), "--volume".into(), "vm1".into()]
    };
    for (file, content, names) in [
        ("cut", &text.as_bytes()[..text.len() - 3], "line 3"),
        ("letters", b"time_us,op,offset_bytes,size_bytes\n0,W,0,4096\nx,W,0,512\n", "line 3"),
        ("operation", b"time_us,op,offset_bytes,size_bytes\n0,W,0,4096\n0,Z,0,512\n", "line 3"),
        ("header", b"a,b\n0,1\n", "header"),
        ("empty", b"", "empty"),
    ] {
        fs::write(path(file), content).unwrap();
        let arguments = replay(file);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        rig.fails(&arguments, 1, file);
        rig.fails(&arguments, 1, names);
    }
    let shared = workspace().join("../shared/traces/cloudphysics.csv.zst");
    if let Ok(bytes) = fs::read(&shared) {
        fs::write(path("cut.zst"), &bytes[..bytes.len() / 2]).unwrap();
        let arguments = replay("cut.zst");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        rig.fails(&arguments, 1, "cut.zst");
    } else {
        println!("skipped: no shared traces here");
    }
    let mut first = [1; 4096];
    rig.attach("vm1").read(0, &mut first).unwrap();
    assert!(first == [0; 4096], "a damaged trace writes nothing");
    rig.stop_and_check();
}

#[test]
fn names_that_exist_or_do_not() {
    let mut rig = Rig::serving("vm1", "16MiB");
    let image = rig.path("image").display().to_string();
    File::create(&image).unwrap().set_len(32 << 20).unwrap();
    for (arguments, names) in [
        (&["volume", "create", "vm1", "--size", "1MiB"][..], "vm1"),
        (&["volume", "create", "a/b\n", "--size", "1MiB"], "name"),
        (&["volume", "create", "odd", "--size", "1000"], "1000"),
        (&["volume", "create", "f", "--size", "1MiB", "--fragment-size", "100000"], "100000"),
        (&["volume", "show", "vm9"], "vm9"),
        (&["volume", "resize", "vm9", "--size", "1MiB"], "vm9"),
        (&["volume", "delete", "vm9"], "vm9"),
        (&["image", "export", "vm9", "out"], "vm9"),
        (&["image", "import", &image, "vm1"], "vm1"),
        (&["image", "import", "nothing", "vm1"], "nothing"),
        (&["device", "show", "9"], "9"),
        (&["trace", "record", &image, "--seconds", "1"], "image"),
    ] {
        rig.fails(arguments, 1, names);
    }
    let refused = Client::connect(&rig.uri("vm9").parse().unwrap()).err().expect("no such volume");
    assert!(matches!(&refused, Error::Refused { .. }), "{refused}");
    rig.assert_serving("vm1");
    rig.stop_and_check();
}
