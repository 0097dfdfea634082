//! What the lines on `DATA/admin.sock` say.
//!
//! ```text
//! → {"op":"volume-create","name":"vm1","size_bytes":1073741824}
//! ← {"progress":{"what":"…","done":1,"total":4}}          any number of these
//! ← {"ok":{"kind":"volume","id":1,"name":"vm1", …}}       one of these two
//! ← {"error":{"code":"volume-exists","message":"…"}}
//! ```
//!
//! Names and codes are stable; fields are only ever added, with a default.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use predictor::prefetch::PrefetchKind;

use super::heat::{ForecasterKind, HeatReport, Horizon};
use super::nvmf::{NvmfConnectionReport, NvmfListenerReport, NvmfSubsystemReport};
use super::prediction::{PredictorReport, ReasonReport, StudyReport};
use super::report::{DeviceReport, StatsReport, StatusReport, TraceReport, VolumeReport};

/// Name of the socket in a data directory.
pub const SOCKET_NAME: &str = "admin.sock";
/// Longest request line in bytes, newline included.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;
/// Longest reply line in bytes, newline included: room for ten thousands of volumes.
pub const MAX_REPLY_BYTES: usize = 16 << 20;

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminRequest {
    /// → [`AdminResponse::Status`].
    Status,
    /// → [`AdminResponse::Volume`].
    VolumeCreate {
        /// Unique in the pool.
        name: String,
        /// Presented size in bytes, a multiple of the block size.
        size_bytes: u64,
        /// Bytes of a fragment; the pool's `fragment_size` if absent.
        #[serde(default)]
        fragment_size: Option<u64>,
        /// 512 or 4096; 512 if absent.
        #[serde(default)]
        block_bytes: Option<u32>,
        /// Refuse writes.
        #[serde(default)]
        read_only: bool,
    },
    /// → [`AdminResponse::Volumes`], sorted by name.
    VolumeList,
    /// → [`AdminResponse::Volume`].
    VolumeShow {
        /// The volume.
        name: String,
    },
    /// → [`AdminResponse::Volume`] with the new size.
    VolumeResize {
        /// The volume.
        name: String,
        /// New size in bytes.
        size_bytes: u64,
        /// Shrink although the cut-off range is lost.
        #[serde(default)]
        force: bool,
    },
    /// → [`AdminResponse::Done`].
    VolumeDelete {
        /// The volume.
        name: String,
    },
    /// Moves every fragment of the volume to the cold tier and drops its fast
    /// copies and stages, so that a measurement starts cold.
    /// → [`AdminResponse::Done`], with progress.
    VolumeSpill {
        /// The volume.
        name: String,
    },
    /// → [`AdminResponse::Devices`], in pool order.
    DeviceList,
    /// → [`AdminResponse::Stats`].
    Stats {
        /// Start counting from zero after this report.
        #[serde(default)]
        reset: bool,
    },
    /// Switches prefetching; absent settings stay. → [`AdminResponse::Done`].
    SetPrefetch {
        /// Who decides.
        kind: PrefetchKind,
        /// Fragments ahead at most.
        #[serde(default)]
        depth: Option<u32>,
        /// Least probability that is staged, 0 to 1.
        #[serde(default)]
        threshold: Option<f32>,
        /// Extra traffic that staging may cause, as a share of what there would be without.
        #[serde(default)]
        share: Option<f32>,
        /// Bytes that stages may hold, all cores together.
        #[serde(default)]
        budget_bytes: Option<u64>,
    },
    /// → [`AdminResponse::Predictor`].
    PredictorStatus,
    /// → [`AdminResponse::Reasons`].
    PredictorExplain {
        /// The volume.
        volume: String,
        /// Stages told of, at most.
        last: u32,
    },
    /// Learns a client's pattern from a trace. → [`AdminResponse::Studied`], with progress.
    PredictorTrain {
        /// The client's name.
        vm: String,
        /// The volume that the trace is of.
        volume: String,
        /// Absolute path on the server's host.
        path: PathBuf,
    },
    /// How hot a volume is and is expected to be. → [`AdminResponse::Heat`].
    HeatShow {
        /// The volume.
        name: String,
        /// Heat over time, too.
        #[serde(default)]
        map: bool,
    },
    /// Changes the heat forecast until the server stops; absent settings stay.
    /// → [`AdminResponse::Done`].
    HeatSet {
        /// Who forecasts.
        #[serde(default)]
        forecaster: Option<ForecasterKind>,
        /// How far ahead.
        #[serde(default)]
        horizon: Option<Horizon>,
    },
    /// Starts writing the served I/O to a trace file. → [`AdminResponse::Done`].
    TraceStart {
        /// Absolute path on the server's host; must not exist.
        path: PathBuf,
        /// Only this volume.
        #[serde(default)]
        volume: Option<String>,
    },
    /// Ends the trace. → [`AdminResponse::Trace`].
    TraceStop,
    /// Listens for NVMe/TCP hosts, also after a restart. → [`AdminResponse::NvmfListeners`].
    NvmfListen {
        /// Where.
        address: SocketAddr,
    },
    /// Ends a listener of [`AdminRequest::NvmfListen`]. → [`AdminResponse::NvmfListeners`].
    NvmfUnlisten {
        /// Where.
        address: SocketAddr,
    },
    /// Refers hosts that ask for discovery to another such service. →
    /// [`AdminResponse::NvmfReferrals`].
    NvmfReferralAdd {
        /// Where it is.
        address: SocketAddr,
    },
    /// Ends a referral. → [`AdminResponse::NvmfReferrals`].
    NvmfReferralRemove {
        /// Where the other service is.
        address: SocketAddr,
    },
    /// Lists the referrals. → [`AdminResponse::NvmfReferrals`].
    NvmfReferralList,
    /// Makes a subsystem. → [`AdminResponse::NvmfSubsystem`].
    NvmfSubsystemAdd {
        /// Its name.
        nqn: String,
        /// Volumes that become its namespaces, from 1.
        volumes: Vec<String>,
        /// Hosts that may connect; any if absent.
        #[serde(default)]
        hosts: Option<Vec<String>>,
        /// Refuse writes to all of its namespaces.
        #[serde(default)]
        read_only: bool,
        /// Its serial number; made of its name if absent.
        #[serde(default)]
        serial: Option<String>,
    },
    /// Removes a subsystem and disconnects its hosts. → [`AdminResponse::Done`].
    NvmfSubsystemRemove {
        /// Its name.
        nqn: String,
    },
    /// → [`AdminResponse::NvmfSubsystems`], sorted by name.
    NvmfSubsystemList,
    /// → [`AdminResponse::NvmfSubsystem`].
    NvmfSubsystemShow {
        /// Its name.
        nqn: String,
    },
    /// Adds a volume to a subsystem. → [`AdminResponse::NvmfSubsystem`].
    NvmfNamespaceAdd {
        /// The subsystem.
        nqn: String,
        /// The volume.
        volume: String,
        /// The namespace's number; the least free one if absent.
        #[serde(default)]
        nsid: Option<u32>,
        /// Refuse writes.
        #[serde(default)]
        read_only: bool,
        /// ANA group; 1 if absent.
        #[serde(default)]
        group: Option<u32>,
    },
    /// Removes a namespace. → [`AdminResponse::NvmfSubsystem`].
    NvmfNamespaceRemove {
        /// The subsystem.
        nqn: String,
        /// The namespace.
        nsid: u32,
    },
    /// Lets a host in. → [`AdminResponse::NvmfSubsystem`].
    NvmfHostAdd {
        /// The subsystem.
        nqn: String,
        /// The host's name.
        host: String,
    },
    /// No longer lets a host in, and disconnects it. → [`AdminResponse::NvmfSubsystem`].
    NvmfHostRemove {
        /// The subsystem.
        nqn: String,
        /// The host's name.
        host: String,
    },
    /// Sets the state of an ANA group. → [`AdminResponse::NvmfSubsystem`].
    NvmfAnaSet {
        /// The subsystem.
        nqn: String,
        /// The group.
        group: u32,
        /// `optimized`, `non-optimized`, `inaccessible`, `persistent-loss` or `change`.
        state: String,
    },
    /// → [`AdminResponse::NvmfConnections`], by host.
    NvmfConnections,
    /// Makes everything completed durable. → [`AdminResponse::Done`].
    Flush,
    /// Drain, flush, checkpoint and exit; the reply comes before the exit.
    /// → [`AdminResponse::Done`].
    Stop,
}

/// A line of a long operation: `done` of `total`, in the unit that `what` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is counted, for example "fragments spilled".
    pub what: String,
    /// So far.
    pub done: u64,
    /// In all; 0 if unknown.
    pub total: u64,
}

/// The good end of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum AdminResponse {
    /// It is done, and there is nothing to say.
    Done,
    /// The server.
    Status(StatusReport),
    /// One volume.
    Volume(VolumeReport),
    /// All volumes.
    Volumes {
        /// Sorted by name.
        volumes: Vec<VolumeReport>,
    },
    /// All devices.
    Devices {
        /// In pool order.
        devices: Vec<DeviceReport>,
    },
    /// Counters.
    Stats(StatsReport),
    /// The heat of a volume.
    Heat(Box<HeatReport>),
    /// A finished trace.
    Trace(TraceReport),
    /// What prediction does.
    Predictor(PredictorReport),
    /// Why the last stages were made.
    Reasons {
        /// Newest first.
        reasons: Vec<ReasonReport>,
    },
    /// A trace has been learned from.
    Studied(StudyReport),
    /// Other discovery services that hosts are referred to.
    NvmfReferrals {
        /// Where they are.
        referrals: Vec<SocketAddr>,
    },
    /// Where NVMe/TCP hosts connect.
    NvmfListeners {
        /// In the order in which discovery tells them.
        listeners: Vec<NvmfListenerReport>,
    },
    /// One subsystem.
    NvmfSubsystem(NvmfSubsystemReport),
    /// All subsystems.
    NvmfSubsystems {
        /// Sorted by name.
        subsystems: Vec<NvmfSubsystemReport>,
    },
    /// Queues of NVMe/TCP hosts.
    NvmfConnections {
        /// By host.
        connections: Vec<NvmfConnectionReport>,
    },
}

/// The stable name of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The line is no request, or a value in it is out of range.
    BadRequest,
    /// The name is taken.
    VolumeExists,
    /// No volume of that name.
    VolumeNotFound,
    /// Clients have it open.
    VolumeInUse,
    /// Shrinking loses data: it must be forced.
    ShrinkNeedsForce,
    /// No such device.
    DeviceNotFound,
    /// The name, number or address is taken.
    NvmfExists,
    /// No such subsystem, namespace, host or listener.
    NvmfNotFound,
    /// An address cannot be listened on.
    Listen,
    /// The pool is full.
    NoSpace,
    /// A trace is being recorded already.
    TraceRunning,
    /// No trace is being recorded.
    TraceNotRunning,
    /// A device or file failed.
    Io,
    /// The server is stopping.
    Stopping,
    /// A code that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The bad end of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct AdminError {
    /// For programs.
    pub code: ErrorCode,
    /// For people; names the thing.
    pub message: String,
}

impl AdminError {
    /// An error with its message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A line from the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// More lines follow.
    Progress(Progress),
    /// The last line.
    Ok(AdminResponse),
    /// The last line.
    Error(AdminError),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names on the wire are a promise to scripts: golden lines.
    #[test]
    fn requests_keep_their_wire_form() {
        let cases = [
            (AdminRequest::Status, r#"{"op":"status"}"#),
            (
                AdminRequest::HeatShow { name: "a".into(), map: true },
                r#"{"op":"heat-show","name":"a","map":true}"#,
            ),
            (
                AdminRequest::HeatSet {
                    forecaster: Some(ForecasterKind::HoltWinters),
                    horizon: Some(Horizon::ONE_HOUR),
                },
                r#"{"op":"heat-set","forecaster":"holt-winters","horizon":"1h"}"#,
            ),
            (AdminRequest::Stats { reset: true }, r#"{"op":"stats","reset":true}"#),
            (
                AdminRequest::VolumeResize { name: "a".into(), size_bytes: 8, force: false },
                r#"{"op":"volume-resize","name":"a","size_bytes":8,"force":false}"#,
            ),
            (
                AdminRequest::VolumeDelete { name: "ä\n".into() },
                r#"{"op":"volume-delete","name":"ä\n"}"#,
            ),
        ];
        for (request, line) in cases {
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
            assert_eq!(serde_json::from_str::<AdminRequest>(line).unwrap(), request);
        }
    }

    #[test]
    fn absent_fields_have_defaults_and_unknown_ones_are_refused() {
        let line = r#"{"op":"volume-create","name":"a","size_bytes":4096}"#;
        let AdminRequest::VolumeCreate { fragment_size, block_bytes, read_only, .. } =
            serde_json::from_str(line).unwrap()
        else {
            panic!("another request");
        };
        assert_eq!((fragment_size, block_bytes, read_only), (None, None, false));
        for bad in [
            r#"{"op":"status","x":1,"op":"status"}"#,
            r#"{"op":"volume-show"}"#,
            r#"{"op":"volume-show","name":"a","nmae":"b"}"#,
            r#"{"op":"reboot"}"#,
            r#"{"op":"volume-resize","name":"a","size_bytes":-1}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<AdminRequest>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replies_round_trip() {
        let replies = [
            Reply::Progress(Progress { what: "fragments".into(), done: 1, total: 2 }),
            Reply::Ok(AdminResponse::Done),
            Reply::Ok(AdminResponse::Volumes { volumes: vec![VolumeReport::default()] }),
            Reply::Ok(AdminResponse::Devices { devices: vec![DeviceReport::default()] }),
            Reply::Ok(AdminResponse::Stats(StatsReport { hits: u64::MAX, ..Default::default() })),
            Reply::Ok(AdminResponse::Heat(Box::default())),
            Reply::Error(AdminError::new(ErrorCode::ShrinkNeedsForce, "a")),
        ];
        for reply in replies {
            let line = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply, "{line}");
        }
    }

    #[test]
    fn a_code_from_the_future_is_unknown() {
        let line = r#"{"error":{"code":"sun-flare","message":"m"}}"#;
        let reply: Reply = serde_json::from_str(line).unwrap();
        assert_eq!(reply, Reply::Error(AdminError::new(ErrorCode::Unknown, "m")));
    }
}
