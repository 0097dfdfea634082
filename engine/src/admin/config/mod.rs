//! `DATA/tessera.toml`.
//!
//! Every key has a default except the pool's devices, unknown keys are
//! refused, and an error names file, line and key. Sizes are written as
//! `"8GiB"` or in bytes; relative paths start at the data directory.

mod check;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::admin::heat::{ForecasterKind, Horizon};
use crate::admin::listener::{NbdListener, NvmfListener};
use crate::admin::protocol::PrefetchKind;
use crate::admin::report::Role;
use crate::admin::size::{ByteSize, exact_size};
use crate::units::FragmentSize;

/// Name of the file in a data directory.
pub const CONFIG_NAME: &str = "tessera.toml";
/// Least size of a device.
pub const MIN_DEVICE_BYTES: u64 = 64 << 20;
/// Least size of the fast device of an embedded pool.
pub const MIN_EMBEDDED_FAST_BYTES: u64 = 512 << 20;

/// The whole configuration of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Cores that serve; all of the machine's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u16>,
    /// Microseconds that a core polls without finding work before it sleeps.
    #[serde(default = "default_spin_us")]
    pub spin_us: u32,
    /// Arena of each core: request buffers and stages.
    #[serde(default = "default_memory_per_core")]
    pub memory_per_core: ByteSize,
    /// Bytes that block maps may take on each core, beside `memory_per_core`: 2.5 KiB for each
    /// 1 MiB fragment in use. The maps of the others are read when they are needed.
    #[serde(default = "default_map_budget")]
    pub map_budget: ByteSize,
    /// Who decides what is staged ahead.
    #[serde(default)]
    pub prefetch: PrefetchKind,
    /// Fragments staged ahead at most.
    #[serde(default = "default_prefetch_depth")]
    pub prefetch_depth: u32,
    /// Least probability that is staged, 0 to 1.
    #[serde(default = "default_stage_threshold")]
    pub stage_threshold: f32,
    /// Traffic to the cold devices that staging may add, as a share of what there would be
    /// without it, 0 to 1.
    #[serde(default = "default_prefetch_budget")]
    pub prefetch_budget: f32,
    /// Bytes that stages may hold on each core, within `memory_per_core`.
    #[serde(default = "default_stage_budget")]
    pub stage_budget: ByteSize,
    /// Crossings of a client in a row that the LSTM is trained on.
    #[serde(default = "default_sequence_length")]
    pub sequence_length: u32,
    /// Size of fragments allocated from now on: a power of two, 64 KiB to 16 MiB.
    #[serde(default = "default_fragment_size")]
    pub fragment_size: ByteSize,
    /// Share of one core that training and the heat forecast may use, 0 to 1.
    #[serde(default = "default_train_cpu")]
    pub train_cpu: f32,
    /// Who forecasts the heat of volumes.
    #[serde(default)]
    pub forecaster: ForecasterKind,
    /// How far ahead, from 10s to 24h.
    #[serde(default)]
    pub prediction_horizon: Horizon,
    /// Seconds that a stop may take to drain and flush.
    #[serde(default = "default_stop_timeout")]
    pub stop_timeout: u32,
    /// Where NBD clients attach.
    #[serde(default = "default_nbd")]
    pub nbd: Vec<NbdListener>,
    /// Where NVMe/TCP hosts connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nvmf: Vec<NvmfListener>,
    /// Where NVMe/TCP hosts ask what there is, and nothing else.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub nvmf_discovery: Vec<NvmfListener>,
    /// Allow listeners beyond this host although clients are not authenticated.
    #[serde(default)]
    pub insecure_listen: bool,
    /// When fragments move between the tiers.
    #[serde(default)]
    pub tier_policy: TierPolicy,
    /// Which settings of prediction the server adjusts by itself, within which bounds.
    #[serde(default)]
    pub tuning: Tuning,
    /// The storage.
    pub pool: PoolConfig,
}

/// When fragments move between the tiers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TierPolicy {
    /// Used share of the fast tier above which the coldest fragments spill, 0 to 1.
    pub spill_watermark: f32,
    /// Seconds without a request after which a fragment spills in any case, unless it is
    /// expected soon; 0: never.
    pub idle_seconds: u32,
    /// Spill by the heat forecast; else what was used least recently goes first.
    pub forecast: bool,
}

impl Default for TierPolicy {
    fn default() -> Self {
        Self { spill_watermark: 0.8, idle_seconds: 600, forecast: true }
    }
}

/// Bounds of what the server adjusts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tuning {
    /// Adjust at all.
    pub enabled: bool,
    /// Least and most of `stage_threshold`.
    pub stage_threshold: [f32; 2],
    /// Least and most of `prefetch_depth`.
    pub prefetch_depth: [u32; 2],
}

impl Default for Tuning {
    fn default() -> Self {
        Self { enabled: true, stage_threshold: [0.1, 0.5], prefetch_depth: [4, 16] }
    }
}

/// The storage of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Its data devices; at least one is fast.
    pub devices: Vec<DeviceConfig>,
}

/// One device of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfig {
    /// File or block device. A file is created, sparse, if `size` is given.
    pub path: PathBuf,
    /// Its purpose.
    pub role: Role,
    /// Bytes to use; all of an existing file or block device if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// Behave like a slower device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulate: Option<Emulate>,
}

/// A slower device to behave like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Emulate {
    /// One head, 8 ms seek, 150 MB/s, queueing.
    Hdd,
}

fn default_spin_us() -> u32 {
    50
}
fn default_memory_per_core() -> ByteSize {
    ByteSize::new(256 << 20)
}
fn default_map_budget() -> ByteSize {
    ByteSize::new(256 << 20)
}
fn default_prefetch_depth() -> u32 {
    16
}
fn default_stage_threshold() -> f32 {
    0.15
}
fn default_prefetch_budget() -> f32 {
    0.25
}
fn default_stage_budget() -> ByteSize {
    ByteSize::new(128 << 20)
}
fn default_sequence_length() -> u32 {
    32
}
fn default_fragment_size() -> ByteSize {
    ByteSize::new(FragmentSize::DEFAULT.bytes())
}
fn default_train_cpu() -> f32 {
    0.25
}
fn default_stop_timeout() -> u32 {
    30
}
fn default_nbd() -> Vec<NbdListener> {
    vec![NbdListener::Unix(PathBuf::from("nbd.sock"))]
}

/// A listener, or a list of them.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<NvmfListener>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected tcp:ADDRESS:PORT, or a list of them")]
    enum Given {
        One(NvmfListener),
        Many(Vec<NvmfListener>),
    }
    Ok(match Given::deserialize(from)? {
        Given::One(listener) => vec![listener],
        Given::Many(listeners) => listeners,
    })
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{}:{line}: `{key}`: {message}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What stands left of the `=`, or the line.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// Too little space for an embedded pool.
    #[error(
        "{}: {} bytes are free and an embedded pool takes at most 10 % of them, of which {} for \
         its fast device are too few: it needs {}. Free some space, or write a {CONFIG_NAME} \
         that names devices and sizes", .data_dir.display(), .free_bytes, .fast_bytes,
        exact_size(MIN_EMBEDDED_FAST_BYTES)
    )]
    NoRoom {
        /// The data directory.
        data_dir: PathBuf,
        /// Free bytes of its file system.
        free_bytes: u64,
        /// What the fast device would get.
        fast_bytes: u64,
    },
}

impl Config {
    /// Reads `data_dir/tessera.toml`; `None` if there is no such file.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, ConfigError> {
        let path = data_dir.join(CONFIG_NAME);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, &path).map(Some),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Read { path, source }),
        }
    }

    /// Parses and checks; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| {
            let line = text[..e.span().map_or(0, |s| s.start)].lines().count().max(1);
            // A span that starts a line counts the line before it.
            let starts_line = e.span().is_some_and(|s| text[..s.start].ends_with('\n'));
            let line = if starts_line { line + 1 } else { line };
            located(path, text, line, e.message())
        })?;
        config.check().map_err(|(key, message)| {
            let names_key = |l: &str| {
                l.trim_start()
                    .strip_prefix(key)
                    .is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '.']))
                    || l.trim_start().trim_start_matches('[').starts_with(key)
            };
            let line = text.lines().position(names_key).map_or(1, |at| at + 1);
            let path = path.to_path_buf();
            ConfigError::Line { path, line, key: key.to_owned(), message }
        })?;
        Ok(config)
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every field has a TOML form")
    }

    /// The default of a first run: `fast.img` and `cold.img`, three times as
    /// large, sparse, together at most 10 % of `free_bytes`; all cores.
    pub fn embedded(data_dir: &Path, free_bytes: u64) -> Result<Self, ConfigError> {
        const MIB: u64 = 1 << 20;
        let fast_bytes = free_bytes / 10 / 4 / MIB * MIB;
        if fast_bytes < MIN_EMBEDDED_FAST_BYTES {
            let data_dir = data_dir.to_path_buf();
            return Err(ConfigError::NoRoom { data_dir, free_bytes, fast_bytes });
        }
        let device = |path: &str, role, bytes| DeviceConfig {
            path: PathBuf::from(path),
            role,
            size: Some(ByteSize::new(bytes)),
            emulate: None,
        };
        let devices = vec![
            device("fast.img", Role::Fast, fast_bytes),
            device("cold.img", Role::Cold, 3 * fast_bytes),
        ];
        Ok(Self::with_devices(devices))
    }

    /// Defaults for a pool of these devices.
    pub fn with_devices(devices: Vec<DeviceConfig>) -> Self {
        Self {
            cores: None,
            spin_us: default_spin_us(),
            memory_per_core: default_memory_per_core(),
            map_budget: default_map_budget(),
            prefetch: PrefetchKind::default(),
            prefetch_depth: default_prefetch_depth(),
            stage_threshold: default_stage_threshold(),
            prefetch_budget: default_prefetch_budget(),
            stage_budget: default_stage_budget(),
            sequence_length: default_sequence_length(),
            fragment_size: default_fragment_size(),
            train_cpu: default_train_cpu(),
            forecaster: ForecasterKind::default(),
            prediction_horizon: Horizon::default(),
            stop_timeout: default_stop_timeout(),
            nbd: default_nbd(),
            nvmf: Vec::new(),
            nvmf_discovery: Vec::new(),
            insecure_listen: false,
            tier_policy: TierPolicy::default(),
            tuning: Tuning::default(),
            pool: PoolConfig { devices },
        }
    }

    /// The fragment size as the engine's unit.
    ///
    /// # Panics
    /// If the configuration was changed to an invalid one after it was checked.
    pub fn fragment_size(&self) -> FragmentSize {
        FragmentSize::from_bytes(self.fragment_size.bytes()).expect("checked when parsed")
    }
}

/// An error at a line, with the key that stands there.
fn located(path: &Path, text: &str, line: usize, message: &str) -> ConfigError {
    let content = text.lines().nth(line - 1).unwrap_or("").trim();
    let key = content.split('=').next().unwrap_or(content).trim().to_owned();
    let message = message.trim_end().replace('\n', "; ");
    ConfigError::Line { path: path.to_path_buf(), line, key, message }
}
