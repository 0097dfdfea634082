//! Images and the tools of others: an ext4 file system there and back,
//! qemu-img, qemu-io, nbdinfo, nbdcopy.

mod rig;

use std::fs;
use std::process::Command;

use rig::{Random, Rig, has, workspace};

/// The bytes of both files are the same.
fn assert_identical(rig: &Rig, one: &str, other: &str) {
    rig.run("cmp", &[one, other]);
}

#[test]
fn a_file_system_comes_back_as_it_went() {
    if !has(&["mkfs.ext4", "e2fsck", "nbdcopy", "cmp"]) {
        return;
    }
    let mut rig = Rig::serving("vm1", "128MiB");
    let sources = workspace().display().to_string();
    // Folders without targets of their own: those below tools may have been fuzzed.
    rig.run("mkdir", &["tree"]);
    let tree = rig.path("tree").display().to_string();
    for folder in ["engine", "nvme", "predictor", "docs", "fio-profiles"] {
        rig.run("cp", &["-r", &format!("{sources}/{folder}"), &tree]);
    }
    rig.run("mkfs.ext4", &["-q", "-d", &tree, "fs.img", "128M"]);
    let uri = rig.uri("vm1");
    rig.run("nbdcopy", &["fs.img", &uri]);
    rig.run("nbdcopy", &[&uri, "copy.img"]);
    assert_identical(&rig, "fs.img", "copy.img");
    rig.ok(&["image", "import", "fs.img", "vm2"]);
    rig.ok(&["image", "export", "vm2", "tessera.img"]);
    rig.ok(&["image", "export", "vm1", "both.img"]);
    assert_identical(&rig, "fs.img", "tessera.img");
    assert_identical(&rig, "fs.img", "both.img");
    for image in ["copy.img", "tessera.img", "both.img"] {
        rig.run("e2fsck", &["-fn", image]);
    }
    let used = |volume: &str| {
        let report = rig.json(&["volume", "show", volume]);
        report["fast_bytes"].as_u64().unwrap() + report["cold_bytes"].as_u64().unwrap()
    };
    assert!(used("vm2") < 128 << 20, "holes of the image are holes of the volume");
    rig.stop_and_check();
    rig.start(&[]);
    rig.ok(&["image", "export", "vm2", "again.img"]);
    assert_identical(&rig, "fs.img", "again.img");
    rig.stop_and_check();
}

#[test]
fn qemu_tools_work() {
    if !has(&["qemu-img", "qemu-io"]) {
        return;
    }
    let mut rig = Rig::serving("vm1", "32MiB");
    let uri = rig.uri("vm1");
    let mut bytes = vec![0; 32 << 20];
    let data = Random::new(3).bytes(5_000_000);
    bytes[1_000_000..6_000_000].copy_from_slice(&data);
    fs::write(rig.path("raw.img"), &bytes).unwrap();
    rig.run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", "raw.img", &uri]);
    rig.run("qemu-img", &["compare", "-f", "raw", "-F", "raw", "raw.img", &uri]);
    rig.run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, "copy.qcow2"]);
    rig.run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", "raw.img", "copy.qcow2"]);
    let map = rig.run("qemu-img", &["map", "-f", "raw", "--output=json", &uri]);
    assert!(map.contains("\"data\": true") && map.contains("\"zero\": true"), "{map}");
    let io = rig.run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-c",
            "write -P 0x5a 512 1536",
            "-c",
            "read -P 0x5a 512 1536",
            "-c",
            "write -z 1M 1M",
            "-c",
            "discard 2M 1M",
            "-c",
            "read -P 0 1M 2M",
            "-c",
            "flush",
            &uri,
        ],
    );
    assert!(!io.contains("failed") && !io.contains("rror"), "{io}");
    rig.stop_and_check();
}

#[test]
fn libnbd_tools_work() {
    if !has(&["nbdinfo", "nbdcopy"]) {
        return;
    }
    let mut rig = Rig::serving("vm1", "32MiB");
    let uri = rig.uri("vm1");
    rig.attach("vm1").write(1 << 20, &[3; 1 << 20], false).unwrap();
    let info = rig.run("nbdinfo", &["--json", &uri]);
    for word in ["\"export-size\": 33554432", "\"can_multi_conn\": true", "base:allocation"] {
        assert!(info.contains(word), "no {word}: {info}");
    }
    let list = rig.run("nbdinfo", &["--list", &rig.uri("")]);
    assert!(list.contains("vm1"), "{list}");
    let map = rig.run("nbdinfo", &["--map", &uri]);
    assert!(map.contains("hole,zero") && map.contains("data"), "{map}");
    fs::write(rig.path("raw.img"), Random::new(9).bytes(32 << 20)).unwrap();
    rig.run("nbdcopy", &["--connections=4", "--requests=16", "--flush", "raw.img", &uri]);
    rig.run("nbdcopy", &["--connections=4", &uri, "copy.img"]);
    assert_identical(&rig, "raw.img", "copy.img");
    rig.stop_and_check();
}

#[test]
fn a_flush_on_one_connection_covers_the_other() {
    let mut rig = Rig::serving("vm1", "32MiB");
    let (mut one, mut other) = (rig.attach("vm1"), rig.attach("vm1"));
    let data = Random::new(4).bytes(1 << 20);
    one.write(512, &data, false).unwrap();
    other.flush().unwrap();
    rig.kill();
    // Without the log of completed writes only what was flushed is left, as after a power cut.
    fs::remove_dir_all(rig.data().join("log")).unwrap();
    rig.start(&[]);
    let mut back = vec![0; data.len()];
    rig.attach("vm1").read(512, &mut back).unwrap();
    assert!(back == data);
    rig.stop_and_check();
}

#[test]
fn a_raw_image_that_is_no_multiple_of_a_block_fits() {
    let mut rig = Rig::new();
    rig.start(&[]);
    let data = Random::new(6).bytes(1_000_001);
    fs::write(rig.path("odd.img"), &data).unwrap();
    rig.ok(&["image", "import", "odd.img", "odd"]);
    rig.ok(&["image", "export", "odd", "back.img"]);
    let back = fs::read(rig.path("back.img")).unwrap();
    assert!(back.starts_with(&data) && back[data.len()..].iter().all(|byte| *byte == 0));
    rig.fails(&["image", "export", "odd", "back.img"], 1, "exists already");
    rig.ok(&["image", "export", "odd", "back.img", "--force"]);
    rig.stop_and_check();
}

#[test]
fn progress_goes_to_stderr_and_reports_to_stdout() {
    let rig = Rig::serving("vm1", "16MiB");
    fs::write(rig.path("a.img"), [1; 8192]).unwrap();
    let report = rig.json(&["image", "import", "a.img", "vm1"]);
    assert_eq!(report["image_bytes"], 8192);
    let closed = Command::new("sh")
        .args([
            "-c",
            &format!(
                "{} --data {} status | true",
                env!("CARGO_BIN_EXE_tessera"),
                rig.data().display()
            ),
        ])
        .status()
        .unwrap();
    assert!(closed.success(), "a reader that goes away is no failure");
}

/// A disk with data in two places and a hole between, as a qcow2 with these options.
fn qcow2(rig: &Rig, name: &str, options: &[&str]) {
    let mut bytes = vec![0; 24 << 20];
    bytes[1_000_000..3_000_000].copy_from_slice(&Random::new(7).bytes(2_000_000));
    bytes[20 << 20..(20 << 20) + 5000].copy_from_slice(&Random::new(8).bytes(5000));
    fs::write(rig.path("disk.raw"), &bytes).unwrap();
    let convert = ["convert", "-f", "raw", "-O", "qcow2"];
    rig.run("qemu-img", &[&convert, options, &["disk.raw", name]].concat());
}

#[test]
fn qcow2_images_go_in_and_out_identically() {
    if !has(&["qemu-img", "cmp"]) {
        return;
    }
    let mut rig = Rig::new();
    rig.start(&[]);
    for (name, options) in [("plain", &[][..]), ("packed", &["-c"])] {
        let image = format!("{name}.qcow2");
        qcow2(&rig, &image, options);
        let report = rig.json(&["image", "import", &image, name]);
        assert_eq!(
            (&report["image_bytes"], &report["format"]),
            (&(24 << 20).into(), &"qcow2".into())
        );
        rig.ok(&["image", "export", name, "back.raw", "--force"]);
        assert_identical(&rig, "disk.raw", "back.raw");
        let used = rig.json(&["volume", "show", name])["fast_bytes"].as_u64().unwrap();
        assert!(used < 8 << 20, "holes of the image are holes of the volume: {used}");
        let report = rig.json(&["image", "export", name, "back.qcow2", "--force"]);
        assert_eq!(report["format"], "qcow2");
        rig.run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", "disk.raw", "back.qcow2"]);
    }
    // Over what is there, zeros too, and durable when it is reported.
    rig.attach("plain").write(8 << 20, &[9; 1 << 20], false).unwrap();
    rig.ok(&["image", "import", "plain.qcow2", "plain"]);
    rig.kill();
    fs::remove_dir_all(rig.data().join("log")).unwrap();
    rig.start(&[]);
    rig.ok(&["image", "export", "plain", "again.raw"]);
    assert_identical(&rig, "disk.raw", "again.raw");
    rig.fails(&["image", "export", "plain", "back.qcow2"], 1, "exists already");
    rig.stop_and_check();
}

#[test]
fn an_image_that_names_other_files_is_refused() {
    if !has(&["qemu-img", "cmp"]) {
        return;
    }
    let mut rig = Rig::new();
    rig.start(&[]);
    qcow2(&rig, "base.qcow2", &[]);
    let create = ["create", "-q", "-f", "qcow2"];
    rig.run(
        "qemu-img",
        &[&create[..], &["-b", "base.qcow2", "-F", "qcow2", "over.qcow2"]].concat(),
    );
    rig.run("qemu-img", &[&create[..], &["-o", "data_file=other", "data.qcow2", "1M"]].concat());
    rig.run(
        "qemu-img",
        &["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", "flat.vmdk", "1M"],
    );
    for (image, other) in
        [("over.qcow2", "base.qcow2"), ("data.qcow2", "other"), ("flat.vmdk", "flat-flat.vmdk")]
    {
        rig.fails(&["image", "import", image, "vm1"], 1, other);
        rig.fails(&["image", "import", image, "vm1"], 1, "--allow-backing");
    }
    rig.fails(&["volume", "show", "vm1"], 1, "vm1");
    rig.ok(&["image", "import", "over.qcow2", "vm1", "--allow-backing"]);
    rig.ok(&["image", "export", "vm1", "back.raw"]);
    assert_identical(&rig, "disk.raw", "back.raw");
    // What a guest wrote into a raw disk is not taken for a format if that is said.
    fs::copy(rig.path("over.qcow2"), rig.path("guest.raw")).unwrap();
    rig.ok(&["image", "import", "guest.raw", "vm2", "--format", "raw"]);
    rig.ok(&["image", "export", "vm2", "guest.back"]);
    let [given, back] = ["guest.raw", "guest.back"].map(|name| fs::read(rig.path(name)).unwrap());
    assert!(back.starts_with(&given));
    rig.stop_and_check();
}

#[test]
fn a_missing_or_broken_qemu_img_is_named() {
    let mut rig = Rig::new();
    rig.start(&[]);
    fs::write(rig.path("a.qcow2"), b"QFI\xfb and nothing else").unwrap();
    fs::write(rig.path("a.raw"), [1; 4096]).unwrap();
    let without = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
        command.arg("--data").arg(rig.data()).args(arguments).env("PATH", "/nowhere");
        command.current_dir(rig.path("")).output().unwrap()
    };
    let missing = without(&["image", "import", "a.qcow2", "vm1"]);
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(1));
    assert!(text.contains("a.qcow2") && text.contains("qemu-utils"), "{text}");
    assert!(
        without(&["image", "import", "a.raw", "vm1"]).status.success(),
        "raw needs no qemu-img"
    );
    let export = without(&["image", "export", "vm1", "b.qcow2"]);
    assert!(String::from_utf8_lossy(&export.stderr).contains("qemu-utils"));
    if has(&["qemu-img"]) {
        rig.fails(&["image", "import", "a.qcow2", "vm2"], 1, "a.qcow2");
        rig.fails(&["image", "export", "vm1", "c", "--format", "no-such"], 1, "no-such");
    }
    rig.stop_and_check();
}
