//! A release cannot be built with planted bugs.

use std::process::{Command, Output};

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/planted.rs");
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");

/// Compiles the module alone, with the feature.
fn compile(panic: &str) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    Command::new("rustc")
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
        .args(["--cfg", "feature=\"planted\"", "-C", panic, "--out-dir"])
        .arg(dir.path())
        .arg(MODULE)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the compiler that built this test")
}

#[test]
fn a_build_that_aborts_on_panics_refuses_them() {
    let refused = compile("panic=abort");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(text.contains("a release must not be built with them"), "{text}");
    let taken = compile("panic=unwind");
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
}

#[test]
fn releases_abort_on_panics() {
    let manifest = std::fs::read_to_string(MANIFEST).expect("the workspace's manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    assert_eq!(manifest["profile"]["release"]["panic"].as_str(), Some("abort"));
}
