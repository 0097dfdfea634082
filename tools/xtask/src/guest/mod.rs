//! `cargo xtask guest`: tests that need a kernel and hardware of their own, in QEMU.
//!
//! A [`Scenario`] names its disks, kernel modules and what the guest runs, and
//! judges what came out. The rig fetches QEMU and a kernel from Debian where
//! they are absent ([`packages`]), builds the guest's file system ([`initramfs`])
//! and runs the machine ([`machine`]). Emulation alone (TCG): no KVM is needed.
//! A guest with a network card reaches a server beside it ([`served`]).
//!
//! What the guest leaves comes back on a disk of its own as a tar archive with
//! the file `status`. QEMU's exit status says nothing: it is 0 after a panic.

mod cpio;
mod initramfs;
mod machine;
mod nvmf;
mod packages;
mod power_cut;
mod self_test;
mod served;

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};

pub use packages::Kit;

/// What to do with guests.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Name the scenarios
    List,
    /// Run scenarios
    Run {
        /// Which
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
}

impl Action {
    /// The share of `cargo xtask test`: the rig itself, a few cuts of a short load, and a Linux
    /// host that attaches volumes and outlives the server.
    pub fn short() -> Action {
        let options = Options {
            replays: 20,
            seeds: vec![1],
            seconds: 30,
            kernels: vec!["6.1".into()],
            kills: 2,
            bless: false,
            tessera: None,
        };
        let names = ["self-test", "power-cut", "nvmf-basic", "nvmf-kill"];
        Action::Run { names: names.map(str::to_owned).into(), options }
    }
}

/// How much of a scenario runs.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Power cuts that are replayed for each run of the guest
    #[arg(long, default_value_t = 200)]
    pub replays: u64,
    /// Seeds of the guest's runs
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    pub seeds: Vec<u64>,
    /// Length of the load in each of them
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Kernels of the guests that attach volumes over NVMe/TCP
    #[arg(long, value_delimiter = ',', default_values = ["6.1", "6.12"])]
    pub kernels: Vec<String>,
    /// How often `nvmf-kill` kills the server
    #[arg(long, default_value_t = 10)]
    pub kills: u32,
    /// Rewrite the golden texts of the scenarios that have some
    #[arg(long)]
    pub bless: bool,
    /// Serve with this program instead of a fresh build
    #[arg(long)]
    pub tessera: Option<PathBuf>,
}

/// What a scenario may use.
pub struct Rig<'a> {
    /// QEMU, kernel and busybox.
    pub kit: &'a Kit,
    /// The scenario's own directory; everything big goes there.
    pub dir: &'a Path,
    /// From the command line.
    pub options: &'a Options,
}

impl Rig<'_> {
    /// The server to test: the one that is named, or a fresh build.
    fn tessera(&self) -> Result<PathBuf, Failure> {
        if let Some(named) = &self.options.tessera {
            return named.canonicalize().map_err(Failure::at(named.display()));
        }
        if crate::build_tessera() {
            Ok(crate::tessera())
        } else {
            Err(Failure("the server does not build".into()))
        }
    }
}

/// A test in a guest.
struct Scenario {
    name: &'static str,
    what: &'static str,
    /// Runs and judges it.
    run: fn(&Rig<'_>) -> Result<(), Failure>,
}

const SCENARIOS: [Scenario; 9] = [
    Scenario {
        name: "self-test",
        what: "the rig: modules load, failures, hangs and panics of a guest are failures",
        run: self_test::run,
    },
    Scenario {
        name: "power-cut",
        what: "power cuts of a served pool on NVMe devices with volatile write caches",
        run: power_cut::run,
    },
    Scenario {
        name: "nvmf-basic",
        what: "discovery, several queues, digests, verified data, disconnecting and reconnecting",
        run: nvmf::basic::scenario,
    },
    Scenario {
        name: "nvmf-fs",
        what: "ext4 and XFS on a volume, discard, write zeroes",
        run: nvmf::filesystem::scenario,
    },
    Scenario {
        name: "nvmf-cli",
        what: "what nvme-cli prints, against golden texts",
        run: nvmf::cli::scenario,
    },
    Scenario {
        name: "nvmf-change",
        what: "size, namespaces, ANA states and allowed hosts change; hosts are refused",
        run: nvmf::change::scenario,
    },
    Scenario {
        name: "nvmf-kill",
        what: "the server killed again and again under verified writes; the host reconnects",
        run: nvmf::kill::scenario,
    },
    Scenario {
        name: "nvmf-keepalive",
        what: "server and host fall silent, a host vanishes",
        run: nvmf::keepalive::scenario,
    },
    Scenario {
        name: "nvmf-blktests",
        what: "the nvme group of blktests, written anew",
        run: nvmf::blktests::scenario,
    },
];

/// Why a scenario did not pass.
#[derive(Debug)]
pub struct Failure(pub String);

impl Failure {
    /// For [`Result::map_err`].
    pub fn at<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Failure {
        move |error| Failure(format!("{what}: {error}"))
    }
}

/// What became of the scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All passed.
    Passed,
    /// One did not.
    Failed,
    /// This machine cannot run guests.
    Skipped,
}

/// Lists or runs.
pub fn act(action: &Action) -> End {
    match action {
        Action::List => {
            SCENARIOS
                .iter()
                .for_each(|scenario| println!("{:<14} {}", scenario.name, scenario.what));
            End::Passed
        }
        Action::Run { names, options } => run(names, options),
    }
}

fn run(names: &[String], options: &Options) -> End {
    let unknown = names.iter().find(|name| SCENARIOS.iter().all(|s| s.name != **name));
    if let Some(name) = unknown {
        println!("no scenario {name}: see `cargo xtask guest list`");
        return End::Failed;
    }
    let dir = crate::target_dir().join("guest");
    let kit = match Kit::provide(&dir) {
        Ok(kit) => kit,
        Err(Failure(why)) => {
            println!("skipped: no guest can run here: {why}");
            return End::Skipped;
        }
    };
    let mut end = End::Passed;
    for scenario in SCENARIOS.iter().filter(|s| names.iter().any(|name| name == s.name)) {
        let rig = Rig { kit: &kit, dir: &dir.join(scenario.name), options };
        let made = std::fs::create_dir_all(rig.dir).map_err(Failure::at(rig.dir.display()));
        match made.and_then(|()| (scenario.run)(&rig)) {
            Ok(()) => println!("{}: passed", scenario.name),
            Err(Failure(why)) => {
                println!("{}: FAILED: {why}", scenario.name);
                end = End::Failed;
            }
        }
    }
    end
}

/// Runs a program quietly; its output.
fn output(command: &mut Command) -> Result<String, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(Failure::at(&name))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Failure(format!("{name}: {}: {}", output.status, text.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
