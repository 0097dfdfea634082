//! `cargo xtask fuzz`: the targets of `tools/fuzz` under libFuzzer.
//!
//! What a run finds new goes to a folder under `target`; `--keep` makes the corpus in the
//! tree of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::steps::{Steps, run as passes};

const FOLDER: &str = "tools/fuzz";
/// Longest input: more than any structure has.
const MAX_BYTES: &str = "-max_len=8192";

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these targets, for example recovery
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Bring what was found into the corpus
    #[arg(long)]
    keep: bool,
}

/// Runs the targets; true if none found anything.
pub fn run(root: &Path, args: &Args) -> bool {
    let all = match targets(root) {
        Ok(all) => all,
        Err(error) => {
            println!("{FOLDER}/targets: {error}");
            return false;
        }
    };
    if let Some(unknown) = args.targets.iter().find(|name| !all.contains(name)) {
        println!("no target {unknown}; there are {}", all.join(" "));
        return false;
    }
    if !crate::packages::installed("cargo-fuzz") {
        println!("==> installing cargo-fuzz");
        if !passes(crate::cargo(&["install", "--locked", "cargo-fuzz"])) {
            return false;
        }
    }
    let mut steps = Steps::default();
    for name in all.iter().filter(|name| args.targets.is_empty() || args.targets.contains(name)) {
        let found = found(root, name);
        if let Err(error) = fs::create_dir_all(&found) {
            println!("{}: {error}", found.display());
            return false;
        }
        let mut command = fuzz("run", name);
        command.arg(&found).arg(corpus(root, name)).arg("--").arg(MAX_BYTES);
        command.args([format!("-max_total_time={}", args.seconds), "-print_final_stats=1".into()]);
        command.args(["-rss_limit_mb=2500", "-timeout=60"]);
        steps.add(name.clone(), command);
        if args.keep && !keep(root, name, &mut steps) {
            return false;
        }
    }
    steps.finish()
}

/// Replaces the corpus by the fewest inputs, of it and of what was found, that reach the
/// same code; false if a file cannot be moved.
fn keep(root: &Path, name: &str, steps: &mut Steps) -> bool {
    let (corpus, fresh) = (corpus(root, name), found(root, name).with_extension("fewest"));
    let mut moved = || -> std::io::Result<()> {
        fs::create_dir_all(&fresh)?;
        let mut command = fuzz("run", name);
        command.args([&fresh, &corpus, &found(root, name)]);
        command.args(["--", "-set_cover_merge=1", "-use_counters=0", "-max_len=1024"]);
        steps.add(format!("{name}: corpus"), command);
        if fs::read_dir(&fresh)?.next().is_none() {
            return Err(std::io::Error::other("nothing to keep"));
        }
        fs::remove_dir_all(&corpus)?;
        fs::create_dir(&corpus)?;
        for entry in fs::read_dir(&fresh)? {
            let entry = entry?;
            fs::copy(entry.path(), corpus.join(entry.file_name()))?;
        }
        fs::remove_dir_all(&fresh)
    };
    moved().inspect_err(|error| println!("{}: {error}", corpus.display())).is_ok()
}

/// cargo-fuzz asks for what only a nightly compiler has; the pinned one has it too if told.
fn fuzz(what: &str, name: &str) -> Command {
    let mut command = crate::cargo(&["fuzz", what, "--fuzz-dir", FOLDER, name]);
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}

fn corpus(root: &Path, name: &str) -> PathBuf {
    root.join(FOLDER).join("corpus").join(name)
}

fn found(root: &Path, name: &str) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("fuzz-found").join(name)
}

fn targets(root: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(FOLDER).join("targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}
