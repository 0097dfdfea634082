//! Programs that run while somebody looks how long they wait for a CPU.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(20);

/// Time that the threads of some processes have waited for a CPU, by thread.
#[derive(Debug, Default)]
struct Waits(BTreeMap<String, (u64, u64)>);

impl Waits {
    fn look(&mut self, pid: u32) {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
        for thread in threads.flatten() {
            let Some(waited) = waited_ns(&thread.path()) else { continue };
            let name = thread.file_name().to_string_lossy().into_owned();
            self.0.entry(name).or_insert((waited, waited)).1 = waited;
        }
    }

    /// Since each thread was first looked at.
    fn sum_ns(&self) -> u64 {
        self.0.values().map(|(first, last)| last - first).sum()
    }
}

/// Nanoseconds on the run queue: the second number of `schedstat`.
fn waited_ns(thread: &Path) -> Option<u64> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    text.split_whitespace().nth(1)?.parse().ok()
}

/// What a program has said, and how long it and its servers waited for a CPU.
#[derive(Debug)]
pub struct Ended {
    /// Its standard output.
    pub output: String,
    /// Waiting in per cent of the time it ran, all threads together.
    pub waited_percent: f64,
}

/// Runs a program to its end; its output is kept in `raw`. `beside`: other processes to look at.
pub fn run(
    mut command: Command,
    raw: &Path,
    beside: &[u32],
    limit: Duration,
) -> Result<Ended, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let out = File::create(raw).map_err(failed)?;
    let errors_path = raw.with_extension("err");
    let errors = File::create(&errors_path).map_err(failed)?;
    let began = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(out).stderr(errors).spawn().map_err(failed)?;
    let mut child = Running(child);
    let mut waits = Waits::default();
    let status = loop {
        waits.look(child.0.id());
        beside.iter().for_each(|pid| waits.look(*pid));
        if let Some(status) = child.0.try_wait().map_err(failed)? {
            break status;
        }
        if began.elapsed() > limit {
            return Err(format!("{name} did not end within {} s", limit.as_secs()));
        }
        std::thread::sleep(LOOK);
    };
    let waited = Duration::from_nanos(waits.sum_ns());
    let waited_percent = 100.0 * waited.as_secs_f64() / began.elapsed().as_secs_f64();
    let errors = fs::read_to_string(&errors_path).unwrap_or_default();
    if errors.is_empty() {
        let _ = fs::remove_file(&errors_path);
    }
    if !status.success() {
        return Err(format!("{name}: {status}: {}", errors.trim()));
    }
    let output = fs::read_to_string(raw).map_err(failed)?;
    Ok(Ended { output, waited_percent })
}

/// A process that ends with its owner.
pub struct Running(Child);

impl Running {
    /// Starts a server that logs to `log` and waits until `socket` answers.
    pub fn serve(command: Command, log: &Path, socket: &Path) -> Result<Running, String> {
        let answers = || std::os::unix::net::UnixStream::connect(socket).is_ok();
        Running::serve_until(command, log, &socket.display().to_string(), answers)
    }

    /// Starts a server that logs to `log` and waits until it `answers` at `place`.
    pub fn serve_until(
        mut command: Command,
        log: &Path,
        place: &str,
        answers: impl Fn() -> bool,
    ) -> Result<Running, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |error: std::io::Error| format!("{name}: {error}");
        let file = File::create(log).map_err(failed)?;
        let errors = file.try_clone().map_err(failed)?;
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        let mut server = Running(child.map_err(failed)?);
        let limit = Instant::now() + Duration::from_secs(60);
        while !answers() {
            let ended = server.0.try_wait().map_err(failed)?.is_some();
            if ended || Instant::now() > limit {
                let log = fs::read_to_string(log).unwrap_or_default();
                return Err(format!("{name} does not serve {place}: {}", log.trim()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(server)
    }

    /// Lets it run, or stops it without ending it: one that polls takes a CPU from others.
    pub fn let_run(&self, runs: bool) -> Result<(), String> {
        let signal = if runs { "-CONT" } else { "-STOP" };
        let status = Command::new("kill").args([signal, &self.pid().to_string()]).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("kill {signal}: {status}")),
            Err(error) => Err(format!("kill: {error}")),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error says that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command bound to one CPU, where `taskset` is to be had.
pub fn on_cpu(cpu: Option<usize>, program: impl Into<PathBuf>) -> Command {
    let program = program.into();
    match cpu {
        Some(cpu) if crate::packages::installed("taskset") => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(cpu.to_string()).arg(program);
            command
        }
        _ => Command::new(program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_and_failures_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("raw");
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let ended = run(shell("echo 42; sleep 0.1"), &raw, &[], Duration::from_secs(60)).unwrap();
        assert_eq!(ended.output, "42\n");
        assert!(ended.waited_percent >= 0.0);
        assert_eq!(fs::read_to_string(&raw).unwrap(), "42\n");
        let error = run(shell("echo why >&2; exit 3"), &raw, &[], Duration::from_secs(60));
        assert!(error.unwrap_err().contains("why"));
        let error = run(shell("exec sleep 600"), &raw, &[], Duration::from_millis(50));
        assert!(error.unwrap_err().contains("did not end"));
    }
}
