//! `cargo xtask miri`: undefined behaviour in the modules that can run without a kernel.

use std::process::{Command, Stdio};

use crate::steps::run as passes;

/// Tests by the start of their names: what has unsafe code and makes no system call that
/// Miri lacks, and the codecs. Properties run few cases: Miri is a hundred times slower.
const MODULES: [&str; 6] =
    ["core::arena", "core::buddy", "core::mailbox", "format::", "pool::space_map", "table::entry"];

/// Runs the modules' tests; false if there is no Miri.
pub fn run() -> bool {
    let mut look = nightly(&["miri", "--version"]);
    if !look.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
        println!(
            "no Miri: rustup toolchain install nightly && \
             rustup component add --toolchain nightly miri rust-src"
        );
        return false;
    }
    let mut command = nightly(&["miri", "test", "-p", "engine", "--lib", "--"]);
    command.args(MODULES).env("PROPTEST_CASES", "4");
    // Files and clocks of the host, for property tests that look for saved failures.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-permissive-provenance");
    passes(command)
}

fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly").args(arguments).current_dir(crate::root());
    // Set by the cargo that runs this task, for its own toolchain.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command
}
