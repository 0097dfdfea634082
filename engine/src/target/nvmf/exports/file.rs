//! `DATA/nvmf.json`: what is exported, across restarts.
//!
//! ```text
//! { "version": 1, "generation": 3, "listeners": ["127.0.0.1:4420"],
//!   "referrals": ["10.0.0.2:8009"],
//!   "subsystems": [ { "nqn": "nqn.…", "serial": "…", "hosts": null or ["nqn.…"],
//!     "ana_changes": 1,
//!     "namespaces": [ { "nsid": 1, "volume": "UUID", "read_only": false, "group": 1 } ],
//!     "groups": [ { "group": 1, "state": "optimized", "changes": 1 } ] } ] }
//! ```
//!
//! Written whole beside the old one, synced, renamed, and the folder synced: a crash leaves
//! the old file or the new. A file that does not say something exact is refused, naming the
//! place; it is never repaired by guessing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nvme::Nqn;
use nvme::log::AnaState;
use serde::{Deserialize, Serialize};

use super::change::ExportError;
use super::{Exports, Group, Hosts, MAX_ANA_GROUP, Namespace, Subsystem};
use crate::server::open::uuid_text;

/// Name of the file in a data directory.
pub const EXPORTS_NAME: &str = "nvmf.json";
const VERSION: u32 = 1;
/// Longer than any file that is written here.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A newer program wrote it.
    #[error("{}: version {version} is newer than this program's {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It is not what it should be.
    #[error("{}: {place}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: String,
        /// What is wrong there.
        what: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    generation: u64,
    listeners: Vec<std::net::SocketAddr>,
    #[serde(default)]
    referrals: Vec<std::net::SocketAddr>,
    subsystems: Vec<StoredSubsystem>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSubsystem {
    nqn: String,
    serial: String,
    hosts: Option<Vec<String>>,
    ana_changes: u64,
    namespaces: Vec<StoredNamespace>,
    groups: Vec<StoredGroup>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredNamespace {
    nsid: u32,
    volume: String,
    read_only: bool,
    group: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredGroup {
    group: u32,
    state: String,
    changes: u64,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// What users call the states.
pub const ANA_STATES: [(&str, AnaState); 5] = [
    ("optimized", AnaState::Optimized),
    ("non-optimized", AnaState::NonOptimized),
    ("inaccessible", AnaState::Inaccessible),
    ("persistent-loss", AnaState::PersistentLoss),
    ("change", AnaState::Change),
];

/// The name of a state.
pub fn ana_name(state: AnaState) -> &'static str {
    ANA_STATES.iter().find(|(_, named)| *named == state).expect("all have names").0
}

/// The state of a name.
pub fn ana_state(name: &str) -> Option<AnaState> {
    ANA_STATES.iter().find(|(named, _)| *named == name).map(|(_, state)| *state)
}

/// A UUID from its usual text.
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut uuid = [0; 16];
    if digits.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in uuid.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    (uuid_text(&uuid) == text.to_ascii_lowercase()).then_some(uuid)
}

/// Reads the file; nothing is exported where there is none.
///
/// # Errors
/// If it cannot be read, or not everything in it makes sense.
pub fn load(data_dir: &Path) -> Result<Exports, FileError> {
    let path = data_dir.join(EXPORTS_NAME);
    let system = |source| FileError::System { path: path.clone(), source };
    match fs::metadata(&path) {
        Ok(meta) if meta.len() > MAX_FILE_BYTES => {
            return Err(content(&path, "the file", "it is too long"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Exports::default()),
        Err(error) => return Err(system(error)),
    }
    parse(&path, &fs::read(&path).map_err(system)?)
}

fn content(path: &Path, place: impl Into<String>, what: impl std::fmt::Display) -> FileError {
    FileError::Content { path: path.to_owned(), place: place.into(), what: what.to_string() }
}

/// What the bytes say; `path` is for messages.
///
/// # Errors
/// If not everything in them makes sense.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Exports, FileError> {
    let located = |error: serde_json::Error| {
        content(path, format!("line {}, column {}", error.line(), error.column()), error)
    };
    // First the version alone: what else a newer file has is not for this program to judge.
    let Version { version } = serde_json::from_slice(bytes).map_err(located)?;
    if version > VERSION {
        return Err(FileError::Version { path: path.to_owned(), version });
    }
    let stored: Stored = serde_json::from_slice(bytes).map_err(located)?;
    let mut exports = Exports::default();
    for subsystem in &stored.subsystems {
        let named = |what: &dyn std::fmt::Display| {
            content(path, format!("subsystem {:?}", subsystem.nqn), what)
        };
        let nqn = Nqn::new(&subsystem.nqn).map_err(|error| named(&error))?;
        add(&mut exports, &nqn, subsystem).map_err(|error| named(&error))?;
    }
    for address in stored.listeners {
        let listed = exports.add_listener(address);
        listed.map_err(|error| content(path, format!("listener {address}"), error))?;
    }
    for address in stored.referrals {
        let listed = exports.add_referral(address);
        listed.map_err(|error| content(path, format!("referral {address}"), error))?;
    }
    exports.generation = stored.generation;
    Ok(exports)
}

/// What is wrong in a subsystem.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("host {0:?}: {1}")]
    Host(String, nvme::nqn::NqnError),
    #[error("namespace {0}: {1:?} is no UUID")]
    Uuid(u32, String),
    #[error("ANA group {0}: {1:?} is no state")]
    State(u32, String),
    #[error("ANA group {0} stands there twice")]
    Twice(u32),
}

fn add(exports: &mut Exports, nqn: &Nqn, stored: &StoredSubsystem) -> Result<(), Wrong> {
    let host = |text: &String| Nqn::new(text).map_err(|error| Wrong::Host(text.clone(), error));
    let hosts = match &stored.hosts {
        None => Hosts::Any,
        Some(hosts) => Hosts::Listed(hosts.iter().map(host).collect::<Result<_, _>>()?),
    };
    exports.add_subsystem(nqn.clone(), Subsystem::new(&stored.serial, hosts)?)?;
    for namespace in &stored.namespaces {
        let volume = parse_uuid(&namespace.volume)
            .ok_or_else(|| Wrong::Uuid(namespace.nsid, namespace.volume.clone()))?;
        let new = Namespace { volume, read_only: namespace.read_only, group: namespace.group };
        exports.add_namespace(nqn, Some(namespace.nsid), new)?;
    }
    let subsystem = exports.subsystems.get_mut(nqn).expect("just added");
    subsystem.groups.clear();
    for group in &stored.groups {
        if !(1..=MAX_ANA_GROUP).contains(&group.group) {
            return Err(ExportError::Group(group.group).into());
        }
        let state = ana_state(&group.state)
            .ok_or_else(|| Wrong::State(group.group, group.state.clone()))?;
        let new = Group { state, changes: group.changes };
        if subsystem.groups.insert(group.group, new).is_some() {
            return Err(Wrong::Twice(group.group));
        }
    }
    subsystem.ana_changes = stored.ana_changes;
    Ok(())
}

/// The file's bytes.
pub fn to_bytes(exports: &Exports) -> Vec<u8> {
    let subsystem = |(nqn, subsystem): (&Nqn, &Subsystem)| StoredSubsystem {
        nqn: nqn.to_string(),
        serial: subsystem.serial.clone(),
        hosts: match &subsystem.hosts {
            Hosts::Any => None,
            Hosts::Listed(hosts) => Some(hosts.iter().map(Nqn::to_string).collect()),
        },
        ana_changes: subsystem.ana_changes,
        namespaces: subsystem.namespaces.iter().map(stored_namespace).collect(),
        groups: subsystem.groups.iter().map(stored_group).collect(),
    };
    let stored = Stored {
        version: VERSION,
        generation: exports.generation,
        listeners: exports.listeners.iter().copied().collect(),
        referrals: exports.referrals.iter().copied().collect(),
        subsystems: exports.subsystems.iter().map(subsystem).collect(),
    };
    let mut bytes = serde_json::to_vec_pretty(&stored).expect("every field has a JSON form");
    bytes.push(b'\n');
    bytes
}

fn stored_namespace((&nsid, namespace): (&u32, &Namespace)) -> StoredNamespace {
    StoredNamespace {
        nsid,
        volume: uuid_text(&namespace.volume),
        read_only: namespace.read_only,
        group: namespace.group,
    }
}

fn stored_group((&group, found): (&u32, &Group)) -> StoredGroup {
    StoredGroup { group, state: ana_name(found.state).to_owned(), changes: found.changes }
}

/// Replaces the file; when this returns it is durable.
///
/// # Errors
/// If the system refuses; the old file is still there.
pub fn save(data_dir: &Path, exports: &Exports) -> Result<(), FileError> {
    let path = data_dir.join(EXPORTS_NAME);
    let new = data_dir.join(format!(".{EXPORTS_NAME}.new"));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(&to_bytes(exports))?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(data_dir)?.sync_all()
    };
    write().map_err(|source| FileError::System { path: path.clone(), source })
}
