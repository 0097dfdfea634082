//! `tessera serve`.

use std::path::Path;

use engine::device::file::OpenError;
use engine::server::ServeError;

use super::{Context, when_unlocked};
use crate::admin::config::{CONFIG_NAME, Emulate};
use crate::admin::listener::{ListenerError, NbdListener, NvmfListener, NvmfListenerError};
use crate::admin::{Config, Role};
use crate::error::CommandError;

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Cores that serve [default: the configuration's, else all]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    cores: Option<u16>,
    /// Make the cold devices behave like a slower one
    #[arg(long, value_name = "DEVICE", value_parser = ["hdd"])]
    emulate: Option<String>,
    /// Listen here instead: unix:PATH or tcp:ADDRESS:PORT
    #[arg(long, value_name = "LISTENER", value_parser = parse_listener)]
    nbd: Vec<NbdListener>,
    /// Listen for NVMe/TCP hosts here instead: tcp:ADDRESS:PORT
    #[arg(long, value_name = "LISTENER", value_parser = parse_nvmf)]
    nvmf: Vec<NvmfListener>,
    /// Serve NVMe/TCP discovery alone here instead: tcp:ADDRESS:PORT
    #[arg(long, value_name = "LISTENER", value_parser = parse_nvmf)]
    nvmf_discovery: Vec<NvmfListener>,
    /// Allow listeners beyond this host although clients are not authenticated
    #[arg(long)]
    insecure_listen: bool,
}

fn parse_listener(text: &str) -> Result<NbdListener, ListenerError> {
    NbdListener::try_from(text.to_owned())
}

fn parse_nvmf(text: &str) -> Result<NvmfListener, NvmfListenerError> {
    NvmfListener::try_from(text.to_owned())
}

/// Serves until SIGTERM or SIGINT; a new directory gets the embedded default.
pub fn run(args: &Args, context: &Context) -> Result<(), CommandError> {
    // Before the first thread: it sets the environment of the model's library.
    let training_is_alone = predictor::init();
    let data_dir = &context.data_dir;
    std::fs::create_dir_all(data_dir).map_err(CommandError::file(data_dir))?;
    let data_dir = data_dir.canonicalize().map_err(CommandError::file(data_dir))?;
    let mut config = match Config::load(&data_dir)? {
        Some(config) => config,
        None => embedded(&data_dir)?,
    };
    override_config(args, &mut config);
    // Options obey the rules of the file.
    let config = Config::parse(&config.to_toml(), Path::new("command line"))?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    if !training_is_alone {
        tracing::warn!("training will start threads beside the cores: set RAYON_NUM_THREADS=1");
    }
    let serve = || engine::server::serve(&data_dir, config.clone());
    let in_use = |error: &ServeError| {
        matches!(
            error,
            ServeError::InUse { .. } | ServeError::Device { source: OpenError::InUse { .. }, .. }
        )
    };
    Ok(when_unlocked(context, in_use, serve)?)
}

fn override_config(args: &Args, config: &mut Config) {
    config.cores = args.cores.or(config.cores);
    config.insecure_listen |= args.insecure_listen;
    if !args.nbd.is_empty() {
        config.nbd.clone_from(&args.nbd);
    }
    if !args.nvmf.is_empty() {
        config.nvmf.clone_from(&args.nvmf);
    }
    if !args.nvmf_discovery.is_empty() {
        config.nvmf_discovery.clone_from(&args.nvmf_discovery);
    }
    if args.emulate.is_some() {
        for device in config.pool.devices.iter_mut().filter(|d| d.role == Role::Cold) {
            device.emulate = Some(Emulate::Hdd);
        }
    }
}

/// Makes and keeps the default configuration, so that a later start finds the
/// same pool whatever space is free then.
fn embedded(data_dir: &Path) -> Result<Config, CommandError> {
    let space = rustix::fs::statvfs(data_dir)
        .map_err(|e| CommandError::file(data_dir)(std::io::Error::from(e)))?;
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    let config = Config::embedded(data_dir, free_bytes)?;
    let path = data_dir.join(CONFIG_NAME);
    std::fs::write(&path, config.to_toml()).map_err(CommandError::file(path))?;
    Ok(config)
}
