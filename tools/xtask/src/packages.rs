//! Programs that tests drive, and the Debian packages they come in.

use std::path::Path;
use std::process::{Command, Stdio};

const PROGRAMS: [(&str, &str); 7] = [
    ("fio", "fio"),
    ("nbdcopy", "libnbd-bin"),
    ("nbdinfo", "libnbd-bin"),
    ("qemu-img", "qemu-utils"),
    ("mkfs.ext4", "e2fsprogs"),
    ("zstd", "zstd"),
    ("valgrind", "valgrind"),
];

/// Starts the benches that count instructions; its version is that of the crate they use.
const RUNNER: (&str, &str) = ("gungraun-runner", "0.20.0");

/// What counting instructions lacks here. With `install` the runner is built if it is
/// missing: it is no Debian package.
pub fn counting_lacks(install: bool) -> Option<&'static str> {
    if !installed("valgrind") {
        return Some("valgrind is not installed");
    }
    let (name, version) = RUNNER;
    if install && !installed(name) {
        crate::steps::run(crate::cargo(&["install", name, "--version", version, "--locked"]));
    }
    (!installed(name)).then_some("gungraun-runner is not installed (cargo install)")
}

/// Installs what is missing, on Debian as root and if `install`; else names it.
/// Tests that need a missing program skip themselves with a line.
pub fn provide(install: bool) {
    if install && !missing().is_empty() && Path::new("/etc/debian_version").exists() && is_root() {
        let packages = missing();
        println!("==> packages: {}", packages.join(" "));
        let _ = apt(&["update"])
            && apt(&[&["install", "--no-install-recommends"], &packages[..]].concat());
    }
    let packages = missing();
    if !packages.is_empty() {
        println!("missing, and tests that need them will skip: {}", packages.join(" "));
    }
}

fn missing() -> Vec<&'static str> {
    let absent = PROGRAMS.iter().filter(|(program, _)| !installed(program));
    let mut packages: Vec<&str> = absent.map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

/// True if the program is in PATH or where Debian keeps those of root.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    id.is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

fn apt(arguments: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.arg("-qy").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    crate::steps::run(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_is_of_the_locked_version() {
        let lock = std::fs::read_to_string(crate::root().join("Cargo.lock")).unwrap();
        let crate_and_version = format!("name = \"gungraun\"\nversion = \"{}\"", RUNNER.1);
        assert!(lock.contains(&crate_and_version), "{RUNNER:?}");
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(installed("sh"));
        assert!(!installed("a-program-that-nobody-has"));
    }
}
