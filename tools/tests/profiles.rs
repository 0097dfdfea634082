//! Every profile of `fio-profiles/`, shortened, against a served volume.

mod rig;

use std::fs;

use rig::{Rig, has, workspace};

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
    let mut profiles: Vec<_> = fs::read_dir(workspace().join("fio-profiles"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "fio"))
        .collect();
    profiles.sort();
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
