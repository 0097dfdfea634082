//! The command line: options that all commands share, and the way to each.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::command::{
    Context, bench, check, demo, device, heat, image, predictor, replay, serve, shell, status,
    target, tier, trace, upgrade, volume,
};
use crate::error::CommandError;
use crate::output::Form;

/// A block store for virtual machines that learns.
#[derive(Debug, Parser)]
#[command(name = "tessera", version, propagate_version = true)]
pub struct Cli {
    /// Data directory: pool files, tessera.toml, admin.sock, nbd.sock
    #[arg(
        long,
        global = true,
        env = "TESSERA_DATA",
        default_value = "./tessera-data",
        value_name = "DIR"
    )]
    data: PathBuf,
    /// Print reports as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a data directory; a new one gets a pool of sparse files
    Serve(serve::Args),
    /// Show the running server
    Status(status::Args),
    /// Examine a stopped data directory; exit 1 on any damage
    Check(check::Args),
    /// Bring a stopped data directory to this program's format version
    Upgrade,
    /// Create, list, show, resize and delete volumes
    #[command(subcommand)]
    Volume(volume::Action),
    /// List and show the pool's devices
    #[command(subcommand)]
    Device(device::Action),
    /// Export volumes to hosts
    #[command(subcommand)]
    Target(target::Action),
    /// Move data between the tiers
    #[command(subcommand)]
    Tier(tier::Action),
    /// Show how hot the parts of a volume are, and are expected to be
    Heat(heat::Args),
    /// Copy images in and out of volumes
    #[command(subcommand)]
    Image(image::Action),
    /// Record served I/O, or replay it
    #[command(subcommand)]
    Trace(trace::Action),
    /// Judge prefetchers on traces, or replay a trace against a served volume
    Replay(replay::Args),
    /// Show, set and teach prediction
    #[command(subcommand)]
    Predictor(predictor::Action),
    /// Measure the engine in this process, or an NBD server
    #[command(subcommand)]
    Bench(bench::What),
    /// Show everything at work in three minutes, and clean up
    Demo(demo::Args),
    /// Print the completions of a shell
    Completions(shell::Completions),
    /// Write the manual pages to a folder
    Man(shell::Man),
}

/// Runs a parsed command line.
pub fn run(cli: &Cli) -> ExitCode {
    let form = if cli.json { Form::Json } else { Form::Human };
    let context = Context { data_dir: cli.data.clone(), form };
    match dispatch(&cli.command, &context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "tessera: {}", Chain(&error));
            error.exit_code()
        }
    }
}

fn dispatch(command: &Command, context: &Context) -> Result<(), CommandError> {
    match command {
        Command::Serve(args) => serve::run(args, context),
        Command::Check(args) => check::run(args, context),
        Command::Upgrade => upgrade::run(context),
        Command::Status(args) => status::run(args, context),
        Command::Volume(action) => volume::run(action, context),
        Command::Device(action) => device::run(action, context),
        Command::Target(action) => target::run(action, context),
        Command::Tier(action) => tier::run(action, context),
        Command::Heat(args) => heat::run(args, context),
        Command::Image(action) => image::run(action, context),
        Command::Trace(action) => trace::run(action, context),
        Command::Replay(args) => replay::run(args, context),
        Command::Predictor(action) => predictor::run(action, context),
        Command::Bench(what) => bench::run(what, context),
        Command::Demo(args) => demo::run(args, context),
        Command::Completions(args) => shell::completions(args, Cli::command()),
        Command::Man(args) => shell::man(args, Cli::command(), context),
    }
}

/// An error with those causes that its own text does not already name.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_command_lines_parse() {
        for line in [
            "tessera serve --emulate hdd --nbd tcp:127.0.0.1:10809 --cores 2",
            "tessera check --json",
            "tessera --data d upgrade --json",
            "tessera --data d status --json",
            "tessera volume create vm1 --size 8GiB --fragment-size 256KiB --block-size 4096",
            "tessera serve --nvmf tcp:127.0.0.1:4420 --nvmf-discovery tcp:127.0.0.1:8009",
            "tessera target nvmf listen 127.0.0.1:4420",
            "tessera target nvmf unlisten [::1]:4420",
            "tessera target nvmf subsystem add nqn.2026-11.example:v1 --volume a --volume b --any-host",
            "tessera target nvmf subsystem add nqn.2026-11.example:v1 --volume a --host nqn.2026-11.example:h --host nqn.2026-11.example:i --read-only --serial S",
            "tessera target nvmf subsystem remove nqn.2026-11.example:v1",
            "tessera target nvmf subsystem list --json",
            "tessera target nvmf subsystem show nqn.2026-11.example:v1",
            "tessera target nvmf namespace add nqn.2026-11.example:v1 a --nsid 7 --read-only --group 2",
            "tessera target nvmf namespace remove nqn.2026-11.example:v1 7",
            "tessera target nvmf host add nqn.2026-11.example:v1 nqn.2026-11.example:h",
            "tessera target nvmf host remove nqn.2026-11.example:v1 nqn.2026-11.example:h",
            "tessera target nvmf ana set nqn.2026-11.example:v1 1 non-optimized",
            "tessera target nvmf connections --json",
            "tessera tier spill vm1",
            "tessera heat vm1 --svg heat.svg",
            "tessera heat --forecaster holt-winters --horizon 1h",
            "tessera volume list",
            "tessera volume show vm1",
            "tessera volume resize vm1 --size 4GiB --force",
            "tessera volume delete vm1",
            "tessera device list",
            "tessera device show 0",
            "tessera image import disk.img vm1",
            "tessera image export vm1 disk.img --force",
            "tessera image import disk.qcow2 vm1 --format qcow2 --allow-backing",
            "tessera image export vm1 disk --format qcow2",
            "tessera completions zsh",
            "tessera man man1",
            "tessera trace record out.csv.zst --volume vm1 --seconds 10",
            "tessera trace replay in.csv.zst --live --volume vm1",
            "tessera replay in.csv.zst --live --volume vm1 --speed 10 --prefetch readahead",
            "tessera replay a.csv b.csv.zst --json",
            "tessera replay a.csv --fragment-size 256KiB --fast-tier 10% --budget 10% --depth 8",
            "tessera replay a.csv --fast-tier 8GiB --prefetch none,learned --shuffle --seed 7",
            "tessera replay a.csv --prefetch all --svg misses.svg",
            "tessera bench engine --device uring --path f --depth 1 --read 0 --fsync 32 --json",
            "tessera bench engine --hop --depth 1",
            "tessera bench cpus",
            "tessera bench nbd nbd+unix:///v?socket=s --block-size 128KiB --pattern seq",
            "tessera demo",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "tessera",
            "tessera statsu",
            "tessera volume create vm1",
            "tessera heat",
            "tessera heat --svg heat.svg --horizon 1h",
            "tessera heat vm1 --forecaster sarima",
            "tessera heat vm1 --horizon 1s",
            "tessera volume create vm1 --size 8bananas",
            "tessera volume create vm1 --size 1GiB --block-size 1024",
            "tessera replay in.csv --volume vm1",
            "tessera replay in.csv --live",
            "tessera replay",
            "tessera replay in.csv --speed 2",
            "tessera replay in.csv --live --volume vm1 --fast-tier 5%",
            "tessera replay in.csv --live --volume vm1 --fragment-size 1MiB",
            "tessera replay in.csv --live --volume vm1 --shuffle",
            "tessera replay in.csv --live --volume vm1 --svg x.svg",
            "tessera replay in.csv --live --volume vm1 --seed 1",
            "tessera replay in.csv --live --volume vm1 --budget 10%",
            "tessera replay in.csv --prefetch nobody",
            "tessera replay in.csv --fragment-size 100000",
            "tessera replay in.csv --fragment-size 32KiB",
            "tessera replay in.csv --fragment-size 32MiB",
            "tessera replay in.csv --fast-tier 0%",
            "tessera replay in.csv --fast-tier 5x",
            "tessera replay in.csv --budget much",
            "tessera replay in.csv --live --volume vm1 --speed 0",
            "tessera replay in.csv --live --volume vm1 --depth 0",
            "tessera device show -- -1",
            "tessera serve --nvmf unix:x",
            "tessera target nvmf listen 4420",
            "tessera target nvmf subsystem add nqn.2026-11.example:v1 --any-host",
            "tessera target nvmf subsystem add nqn.2026-11.example:v1 --volume a",
            "tessera target nvmf subsystem add nqn.2026-11.example:v1 --volume a --any-host --host nqn.2026-11.example:h",
            "tessera target nvmf ana set nqn.2026-11.example:v1 1 optimised",
            "tessera completions",
            "tessera completions tcsh",
            "tessera man",
            "tessera bench engine --block-size 1MiB",
            "tessera bench engine --read 101",
            "tessera bench nbd http://x",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
