//! One module per command.

pub mod bench;
pub mod check;
pub mod demo;
pub mod device;
pub mod heat;
pub mod image;
pub mod predictor;
pub mod replay;
pub mod serve;
pub mod shell;
pub mod status;
pub mod target;
pub mod tier;
pub mod trace;
pub mod upgrade;
pub mod volume;

use std::path::PathBuf;
use std::time::{Duration, Instant};

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

/// Longest wait for the devices of a process that has just died.
const UNLOCK_LIMIT: Duration = Duration::from_secs(5);

/// Runs `open` until the devices are not in use or `alive` says that somebody uses them. The
/// kernel releases the locks of a dead process with its rings, a moment after it.
fn until_unlocked<T, E>(
    in_use: impl Fn(&E) -> bool,
    alive: impl Fn() -> bool,
    open: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    let limit = Instant::now() + UNLOCK_LIMIT;
    loop {
        match open() {
            Err(e) if in_use(&e) && Instant::now() < limit && !alive() => {
                std::thread::sleep(Duration::from_millis(10));
            }
            end => return end,
        }
    }
}

/// [`until_unlocked`] for a data directory: a server that answers is not waited for.
fn when_unlocked<T, E>(
    context: &Context,
    in_use: impl Fn(&E) -> bool,
    open: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    until_unlocked(in_use, || context.admin().is_ok(), open)
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn locks_of_a_dead_server_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context { data_dir: dir.path().to_path_buf(), form: Form::Human };
        let tries = Cell::new(0);
        let open = || {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err("in use") } else { Ok(()) }
        };
        assert_eq!(when_unlocked(&context, |e| *e == "in use", open), Ok(()));
        assert_eq!(tries.get(), 3);
        assert_eq!(
            when_unlocked(&context, |e| *e == "in use", || Err::<(), _>("other")),
            Err("other")
        );
        let _answers = crate::admin::listen(dir.path()).unwrap();
        tries.set(0);
        assert_eq!(when_unlocked(&context, |e| *e == "in use", open), Err("in use"));
        assert_eq!(tries.get(), 1, "a server that answers is not waited for");
    }
}
