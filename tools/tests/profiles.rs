//! Every profile of `fio-profiles/`: those for NBD, shortened, against a served volume;
//! those for a Linux host, which needs a kernel of its own, as far as fio understands them.

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rig::{Rig, has, workspace};

/// The profiles of a folder, in order.
fn profiles(folder: &Path) -> Vec<PathBuf> {
    let mut profiles: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "fio"))
        .collect();
    profiles.sort();
    profiles
}

/// The profile with a runtime of 2 s and a quarter of the bytes to verify.
fn shortened(text: &str) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some(("runtime", _)) => "runtime=2".to_owned(),
        Some(("size", "64m")) => "size=16m".to_owned(),
        Some(("size", "8m")) => "size=2m".to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_profile_runs() {
    if !has(&["fio"]) {
        return;
    }
    let mut rig = Rig::serving("vm1", "320MiB");
    let profiles = profiles(&workspace().join("fio-profiles"));
    assert!(profiles.len() >= 6, "{profiles:?}");
    for profile in &profiles {
        let job = shortened(&fs::read_to_string(profile).unwrap());
        let job = job.replace("${TESSERA_NBD_URI}", &rig.uri("vm1"));
        fs::write(rig.path("job.fio"), job).unwrap();
        let report = rig.run("fio", &["job.fio"]);
        let name = profile.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(report.contains("err= 0"), "{name}: {report}");
        for line in report.lines().filter(|line| line.contains("IOPS=")) {
            println!("{name}: {}", line.trim());
        }
    }
    rig.stop_and_check();
}

#[test]
fn every_profile_for_a_linux_host_is_understood() {
    if !has(&["fio"]) {
        return;
    }
    let profiles = profiles(&workspace().join("fio-profiles/nvme-tcp"));
    assert!(profiles.len() >= 7, "{profiles:?}");
    let parse = |profile: &Path| {
        Command::new("fio")
            .arg("--parse-only")
            .arg(profile)
            .env("TESSERA_NVME_DEVICE", "/dev/nvme1n1")
            .output()
            .unwrap()
    };
    for profile in &profiles {
        let output = parse(profile);
        assert!(output.status.success(), "{}: {output:?}", profile.display());
    }
    let dir = tempfile::tempdir().unwrap();
    let wrong = dir.path().join("wrong.fio");
    let text = fs::read_to_string(&profiles[0]).unwrap().replace("rw=", "rv=");
    fs::write(&wrong, text).unwrap();
    assert!(!parse(&wrong).status.success(), "fio finds a misspelt option");
}
