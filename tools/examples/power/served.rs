//! The server as a process: started, asked, killed, stopped.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use engine::target::nbd::client::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::{PowerError, system};

/// Longest wait for a server to come or go; a guest without KVM is slow.
const PATIENCE: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(5);

/// The program and its data directory.
pub struct Program {
    /// The `tessera` command.
    pub tessera: PathBuf,
    /// Its `--data`.
    pub data: PathBuf,
}

/// A running server; killed when dropped.
pub struct Server(Child);

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.tessera);
        command.arg("--data").arg(&self.data);
        command
    }

    /// Starts a server and waits until it serves NBD.
    pub fn serve(&self) -> Result<Server, PowerError> {
        let mut command = self.command();
        let log = std::fs::File::create(self.data.join("serve.log"));
        let log = log.map_err(system("the server's log"))?;
        command.arg("serve").stdin(Stdio::null());
        command.stderr(log.try_clone().map_err(system("the server's log"))?).stdout(log);
        // Left by a server that was killed.
        let _ = std::fs::remove_file(self.data.join("nbd.sock"));
        let mut server = Server(command.spawn().map_err(system("starting the server"))?);
        let limit = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(self.data.join("nbd.sock")).is_err() {
            let ended = server.0.try_wait().map_err(system("waiting for the server"))?;
            if ended.is_some() || Instant::now() > limit {
                let log = std::fs::read_to_string(self.data.join("serve.log")).unwrap_or_default();
                return Err(PowerError::Server(format!("no server: {ended:?}\n{log}")));
            }
            thread::sleep(STEP);
        }
        Ok(server)
    }

    /// Runs a command of the server, which must succeed.
    pub fn ask(&self, arguments: &[&str]) -> Result<(), PowerError> {
        let output = self.command().args(arguments).output().map_err(system("tessera"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(PowerError::Server(format!("{arguments:?}: {text}")))
    }

    /// Starts a command and ends it if it is not done after `limit`; it must not fail sooner.
    pub fn ask_within(&self, arguments: &[&str], limit: Duration) -> Result<(), PowerError> {
        let mut command = self.command();
        let started = command.args(arguments).stdout(Stdio::null()).spawn();
        let mut child = Server(started.map_err(system("tessera"))?);
        let limit = Instant::now() + limit;
        while Instant::now() < limit {
            match child.0.try_wait().map_err(system("waiting for tessera"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(PowerError::Server(format!("{arguments:?}: {status}"))),
                None => thread::sleep(STEP),
            }
        }
        Ok(())
    }

    /// Attaches a volume.
    pub fn attach(&self, volume: &str) -> Result<Client, PowerError> {
        let uri = format!("nbd+unix:///{volume}?socket={}", self.data.join("nbd.sock").display());
        Ok(Client::connect(&uri.parse().expect("made by us"))?)
    }
}

impl Server {
    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) -> Result<(), PowerError> {
        self.0.kill().and_then(|()| self.0.wait()).map_err(system("killing the server"))?;
        Ok(())
    }

    /// SIGTERM, and waits for the end, which must be a good one.
    pub fn stop(mut self) -> Result<(), PowerError> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)
            .map_err(|errno| system("stopping the server")(errno.into()))?;
        let limit = Instant::now() + PATIENCE;
        loop {
            match self.0.try_wait().map_err(system("waiting for the server"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(PowerError::Server(format!("stopped with {status}"))),
                None if Instant::now() > limit => {
                    return Err(PowerError::Server("SIGTERM does not stop it".into()));
                }
                None => thread::sleep(STEP),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
