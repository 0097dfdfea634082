//! One module per command.

pub mod demo;
pub mod device;
pub mod image;
pub mod replay;
pub mod serve;
pub mod status;
pub mod trace;
pub mod volume;

use std::path::PathBuf;

use crate::admin::{AdminClient, AdminRequest, AdminResponse, StatusReport, VolumeReport};
use crate::attached::Attached;
use crate::error::CommandError;
use crate::output::Form;

/// What every command knows.
#[derive(Clone, Debug)]
pub struct Context {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The form of reports.
    pub form: Form,
}

impl Context {
    fn admin(&self) -> Result<AdminClient, CommandError> {
        Ok(AdminClient::connect(&self.data_dir)?)
    }
}

fn status(admin: &mut AdminClient) -> Result<StatusReport, CommandError> {
    match admin.call(&AdminRequest::Status)? {
        AdminResponse::Status(status) => Ok(status),
        _ => Err(CommandError::WrongAnswer),
    }
}

/// Makes a request that is answered with a volume.
fn volume(admin: &mut AdminClient, request: &AdminRequest) -> Result<VolumeReport, CommandError> {
    match admin.call(request)? {
        AdminResponse::Volume(volume) => Ok(volume),
        _ => Err(CommandError::WrongAnswer),
    }
}

/// Attaches to a volume as a client, at the server's first listener.
fn attach(admin: &mut AdminClient, volume: &str) -> Result<Attached, CommandError> {
    let listeners = status(admin)?.listeners;
    let uri = listeners.first().ok_or(CommandError::NoListener)?;
    Attached::connect(uri, volume)
        .map_err(|source| CommandError::Block { volume: volume.to_owned(), source })
}
