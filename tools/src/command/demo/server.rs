//! The demo's server: a child process that never outlives its owner.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use super::Context;
use crate::admin::AdminRequest;
use crate::error::CommandError;
use crate::interrupt::Interrupt;

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(40);
const STEP: Duration = Duration::from_millis(20);

/// A running server; killed when dropped.
pub(super) struct Server {
    child: Child,
}

impl Server {
    /// Starts `tessera serve` on the context's data directory and waits until
    /// it answers.
    pub(super) fn start(context: &Context, interrupt: &Interrupt) -> Result<Self, CommandError> {
        let program = std::env::current_exe().map_err(CommandError::file("tessera"))?;
        let mut command = Command::new(&program);
        command.arg("--data").arg(&context.data_dir).arg("serve");
        Self::spawn(command, program, context, interrupt)
    }

    fn spawn(
        mut command: Command,
        program: PathBuf,
        context: &Context,
        interrupt: &Interrupt,
    ) -> Result<Self, CommandError> {
        let log_path = context.data_dir.join("server.log");
        let log = File::create(&log_path).map_err(CommandError::file(&log_path))?;
        let errors = log.try_clone().map_err(CommandError::file(&log_path))?;
        let child =
            command.stdout(log).stderr(errors).spawn().map_err(CommandError::file(program))?;
        let mut server = Self { child };
        let limit = Instant::now() + START_LIMIT;
        loop {
            if interrupt.is_set() {
                return Err(CommandError::Interrupted);
            }
            if context.admin().is_ok() {
                return Ok(server);
            }
            let ended = server.child.try_wait().map_err(CommandError::file(&log_path))?;
            if ended.is_some() || Instant::now() > limit {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                let mut last: Vec<&str> = log.trim_end().rsplit('\n').take(5).collect();
                last.reverse();
                return Err(CommandError::NoServer { log: last.join("\n") });
            }
            thread::sleep(STEP);
        }
    }

    /// Asks it to stop and waits; what does not stop in time is killed.
    pub(super) fn stop(mut self, context: &Context) {
        // Whether it hears the request or not, the end is the same.
        let _ = context.admin().map(|mut admin| admin.call(&AdminRequest::Stop));
        let limit = Instant::now() + STOP_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < limit {
            thread::sleep(STEP);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{AdminResponse, listen, serve_connection};
    use crate::output::Form;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_server_that_fails_leaves_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context { data_dir: dir.path().to_path_buf(), form: Form::Human };
        let got = Server::spawn(
            shell("echo one; echo no device >&2; exit 1"),
            "sh".into(),
            &context,
            &Interrupt::default(),
        );
        let error = got.err().expect("it has exited");
        assert!(error.to_string().ends_with("one\nno device"), "{error}");
    }

    #[test]
    fn a_dropped_server_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context { data_dir: dir.path().to_path_buf(), form: Form::Human };
        let listener = listen(dir.path()).unwrap();
        let answers = thread::spawn(move || {
            let stream = listener.accept().unwrap().0;
            let _ = serve_connection(stream, |_| Ok(AdminResponse::Done));
        });
        let none = Interrupt::default();
        let server = Server::spawn(shell("exec sleep 600"), "sh".into(), &context, &none).unwrap();
        let process = PathBuf::from(format!("/proc/{}", server.child.id()));
        assert!(process.exists());
        drop(server);
        assert!(!process.exists());
        answers.join().unwrap();
    }
}
