//! Developer tasks: `cargo xtask test`, `sim`, `planted`, `guest`, `crash`, `compare`, `rows`, `fuzz`, `loom` and `miri`.

#![forbid(unsafe_code)]

mod compare;
mod fuzz;
mod guest;
mod miri;
mod packages;
mod planted;
mod rows;
mod steps;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::{Parser, Subcommand};
use steps::Steps;

/// Developer tasks of Tessera
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every test; on Debian as root, install what they need first
    Test {
        /// Install nothing, run 200 seeds of the simulator instead of 2,000, no guest, no planted bugs
        #[arg(long)]
        quick: bool,
    },
    /// Run the crash simulator: --seeds N [--from F] [--jobs J], or --seed S [--trace] [limits]
    Sim {
        /// Options of the simulator
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Plant bugs in the engine and look for the seeds that catch them
    Planted {
        /// Only these bugs, for example SkippedFlush
        bugs: Vec<String>,
    },
    /// Run tests in a virtual machine
    #[command(subcommand)]
    Guest(guest::Action),
    /// Kill a server under fio's verified writes, again and again
    Crash {
        /// How often
        #[arg(long, default_value_t = 50)]
        rounds: u32,
    },
    /// Run the commands of docs/rows.md and compare what they print
    Rows {
        /// Only these rows, for example A1
        rows: Vec<String>,
    },
    /// Run the fuzz targets one after the other; installs cargo-fuzz if it is missing
    Fuzz(fuzz::Args),
    /// Run the lock-free parts in every interleaving
    Loom,
    /// Run the modules with unsafe code, and the codecs, under Miri; needs a nightly with miri
    Miri,
    /// Measure Tessera beside its peers, in turns
    Compare(compare::Args),
}

fn main() -> ExitCode {
    let passed = match Cli::parse().task {
        Task::Test { quick } => test(quick),
        Task::Sim { options } => sim(&options),
        Task::Planted { bugs } => planted::hunt(&bugs),
        Task::Guest(action) => guest::act(&action) != guest::End::Failed,
        Task::Crash { rounds } => steps::run(crash(rounds)),
        Task::Rows { rows } => rows::run(&root(), &rows),
        Task::Fuzz(args) => fuzz::run(&root(), &args),
        Task::Loom => steps::run(cargo(&["test", "--profile", "ci", "-p", "loom-models"])),
        Task::Miri => miri::run(),
        Task::Compare(args) => compare::run(&root(), &args),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The workspace's directory.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("tools/xtask lies two levels deep").to_path_buf()
}

/// Where cargo builds.
fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where `cargo build --profile ci` puts the command.
fn tessera() -> PathBuf {
    target_dir().join("ci/tessera")
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Builds `what` as `cargo test --workspace` would: with the features that all packages and
/// their tests together ask for, so that what that has built is not built again.
fn build(what: &[&str]) -> bool {
    let mut command = cargo(&["build", "--workspace", "--profile", "ci"]);
    // Standard output is for results.
    command.args(what).stdout(Stdio::null());
    steps::run(command)
}

/// Builds the command, and the program for tests of power cuts.
fn build_tessera() -> bool {
    build(&["--bin", "tessera", "--example", "power"])
}

/// Builds an example of the engine with a feature, and runs it.
fn run_example(name: &str, feature: &str, arguments: &[String]) -> bool {
    let mut command = Command::new(target_dir().join("ci/examples").join(name));
    command.args(arguments).current_dir(root());
    build(&["--example", name, "--features", feature]) && steps::run(command)
}

fn sim(options: &[String]) -> bool {
    run_example("sim", "engine/sim", options)
}

fn crash(rounds: u32) -> Command {
    let mut command = cargo(&["test", "--profile", "ci", "-p", "tools", "--test", "crash", "--"]);
    command.args(["--nocapture", "fio"]).env("TESSERA_CRASH_ROUNDS", rounds.to_string());
    command
}

fn test(quick: bool) -> bool {
    packages::provide(!quick);
    let seeds = if quick { "200" } else { "2000" };
    let mut steps = Steps::default();
    steps.add("format", cargo(&["fmt", "--all", "--check"]));
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--profile", "ci", "--", "-D", "warnings"];
    steps.add("clippy", cargo(&clippy));
    steps.add("tests", cargo(&["test", "--workspace", "--profile", "ci"]));
    let simulated = || Ok(sim(&["--seeds".to_owned(), seeds.to_owned()]));
    steps.attempt("crash simulator", simulated);
    if quick {
        steps.skip("planted bugs", "quick");
        steps.skip("guests", "quick");
    } else {
        steps.attempt("planted bugs", || Ok(planted::hunt(&[])));
        steps.attempt("guests", || match guest::act(&guest::Action::short()) {
            guest::End::Skipped => Err("no guest can run here"),
            end => Ok(end == guest::End::Passed),
        });
    }
    match packages::counting_lacks(!quick) {
        None => {
            let bench = ["bench", "--workspace", "--bench", "instructions", "--profile", "ci"];
            steps.add("instructions", cargo(&bench));
        }
        Some(lack) => steps.skip("instructions", lack),
    }
    if packages::installed("cargo-deny") {
        steps.add("licences", cargo(&["deny", "check", "licenses", "bans", "sources"]));
    } else {
        steps.skip("licences", "cargo-deny is not installed");
    }
    steps.finish()
}
