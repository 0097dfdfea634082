//! The admin room: configuration, and the protocol of `DATA/admin.sock`.
//!
//! The socket carries one JSON object per line. A client sends a request line;
//! the server answers with any number of progress lines and exactly one result
//! line, then takes the next request. Invariants:
//! - a line is bounded ([`protocol::MAX_REQUEST_BYTES`],
//!   [`protocol::MAX_REPLY_BYTES`]), so a peer cannot make the other grow;
//! - a malformed line gets an error line, never a lost server;
//! - the socket is reachable by its owner alone (mode 0600).
//!
//! Nothing here is on the data path, and nothing here knows how a request is
//! carried out: the control thread gives [`server::serve_connection`] a handler.

#![forbid(unsafe_code)]

pub mod client;
pub mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod heat;
mod line;
pub mod listener;
pub mod nvmf;
pub mod prediction;
pub mod protocol;
pub mod report;
pub mod server;
pub mod size;

pub use client::{AdminClient, ClientError};
pub use config::{Config, ConfigError};
pub use nvmf::{
    NvmfConnectionReport, NvmfListenerReport, NvmfNamespaceReport, NvmfSubsystemReport,
};
pub use prediction::{
    ChangeReport, PredictorReport, PredictorSettings, ReasonReport, SourceReport, StudyReport,
};
pub use protocol::{AdminError, AdminRequest, AdminResponse, ErrorCode, PrefetchKind, Progress};
pub use report::{
    CoreReport, DeviceReport, Role, StatsReport, StatusReport, TierUsage, TraceReport, VolumeReport,
};
pub use server::{listen, serve_connection};
