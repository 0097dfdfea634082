//! A server inside another program: a pool and its cores, without admin and NBD sockets and
//! without signals.
//!
//! The cores are those of [`super::serve`]; requests come from loads
//! ([`crate::target::load`]) that are handed to them, and from NVMe/TCP hosts if the
//! configuration names listeners for them.

use std::path::Path;

use super::ServeError;
use super::admin;
use super::command::{Command, CoreStats};
use super::control::{self, Launched};
use super::nvmf::Fabric;
use super::open::{self, OpenDevice};
use super::start::{self, CoreEnd};
use crate::admin::config::Config;
use crate::admin::protocol::{AdminError, AdminRequest, AdminResponse};
use crate::core::executor::CoreThread;
use crate::target::load::Load;
use crate::units::CoreId;

/// A running server without listeners.
pub struct Embedded {
    launched: Launched<Vec<CoreThread<CoreEnd>>>,
    /// Where hosts connect, if they do.
    fabric: Option<Fabric>,
}

impl Embedded {
    /// Opens the pool on `devices`, fast ones first, or makes it if all are blank, and starts
    /// the cores; `config` names no devices. Locks and pending logs are in `data_dir`.
    pub fn start(
        data_dir: &Path,
        config: Config,
        devices: Vec<OpenDevice>,
    ) -> Result<Embedded, ServeError> {
        let opened = open::open_on(data_dir, devices)?;
        let launched = control::launch(data_dir, config, opened, start::spawn)?;
        Ok(Embedded { launched, fabric: None })
    }

    /// Starts the NVMe/TCP target, which listens where its configuration says and where it is
    /// asked to.
    pub fn start_nvmf(&mut self) -> Result<(), ServeError> {
        self.fabric = Some(Fabric::start(&self.launched.server)?);
        Ok(())
    }

    /// Carries out an admin request, except `stop`.
    pub fn ask(&self, request: AdminRequest) -> Result<AdminResponse, AdminError> {
        admin::handle(&self.launched.server, request, &mut |_| ())
    }

    /// Starts a load on a core; the load before it there has ended.
    pub fn load(&self, core: CoreId, load: Load) {
        self.launched.server.send(core, Command::Load(Box::new(load)));
    }

    /// The counters of every core.
    pub fn stats(&self) -> Vec<CoreStats> {
        self.launched.server.ask_all(Command::Stats)
    }

    /// Drains, flushes and checkpoints.
    pub fn stop(self) -> Result<(), ServeError> {
        let Launched { server, cores, lock, .. } = self.launched;
        if let Some(fabric) = &self.fabric {
            fabric.close();
        }
        let stopped = control::stop_cores(&server, cores);
        // Its queues have ended with the cores.
        if let Some(fabric) = self.fabric {
            fabric.stop();
        }
        drop(lock);
        stopped
    }
}
