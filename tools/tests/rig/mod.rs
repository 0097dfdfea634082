//! A server of its own for each test: a temporary data directory, a `tessera
//! serve` process that never outlives the test, and the programs that drive it.

#![forbid(unsafe_code)]
#![allow(dead_code, reason = "each test file uses a part of the rig")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use engine::target::nbd::client::Client;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest run of a command, and half of a server's.
const LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for a server to come or go.
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(5);
/// Bytes kept of what a program prints.
const MOST_OUTPUT: u64 = 16 << 20;

/// A pool of two sparse files.
pub const CONFIG: &str = r#"
memory_per_core = "96MiB"
stage_budget = "16MiB"
stop_timeout = 20

[[pool.devices]]
path = "fast.img"
role = "fast"
size = "512MiB"

[[pool.devices]]
path = "cold.img"
role = "cold"
size = "1GiB"
"#;

/// A data directory and its server, if one runs.
pub struct Rig {
    dir: TempDir,
    server: Option<Child>,
    /// Dropped before the server is waited for: its id is its own until then.
    watchdog: Option<Sender<()>>,
}

impl Rig {
    /// A directory with [`CONFIG`]; no server yet.
    pub fn new() -> Rig {
        Rig::with_config(CONFIG)
    }

    /// A directory with another `tessera.toml`.
    pub fn with_config(config: &str) -> Rig {
        let dir = tempfile::Builder::new().prefix("tessera-test-").tempdir().unwrap();
        let rig = Rig { dir, server: None, watchdog: None };
        fs::create_dir(rig.data()).unwrap();
        fs::write(rig.data().join("tessera.toml"), config).unwrap();
        rig
    }

    /// A served pool with one volume.
    pub fn serving(volume: &str, size: &str) -> Rig {
        let mut rig = Rig::new();
        rig.start(&[]);
        rig.ok(&["volume", "create", volume, "--size", size]);
        rig
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A path beside the data directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// The server's process id, also in the file `server.pid`.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("a server runs").id()
    }

    /// Starts a server and waits until it answers.
    pub fn start(&mut self, options: &[&str]) {
        assert!(self.server.is_none(), "a server runs already");
        let log = File::options().create(true).append(true).open(self.path("server.log")).unwrap();
        let mut command = self.command(&["serve"]);
        command.args(options).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        self.watchdog = Some(watch(self.pid()));
        fs::write(self.path("server.pid"), self.pid().to_string()).unwrap();
        let limit = Instant::now() + PATIENCE;
        while !self.tessera(&["status"]).status.success() {
            let ended = self.server.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < limit,
                "no server: {ended:?}\n{}",
                self.log()
            );
            thread::sleep(STEP);
        }
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("a server runs");
        self.watchdog = None;
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// SIGTERM; how it ended and after what time.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let mut server = self.server.take().expect("a server runs");
        self.watchdog = None;
        let pid = Pid::from_child(&server);
        let started = Instant::now();
        kill_process(pid, Signal::TERM).unwrap();
        loop {
            if let Some(status) = server.try_wait().unwrap() {
                return (status, started.elapsed());
            }
            if started.elapsed() > PATIENCE {
                let _ = server.kill();
                let _ = server.wait();
                panic!("SIGTERM did not end the server\n{}", self.log());
            }
            thread::sleep(STEP);
        }
    }

    /// Stops the server, which must end well, and examines what it left.
    pub fn stop_and_check(&mut self) {
        let (status, _) = self.stop();
        assert!(status.success(), "{status}\n{}", self.log());
        self.check();
    }

    /// `tessera check` finds nothing.
    pub fn check(&self) {
        let output = self.tessera(&["check", "--deep"]);
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    }

    /// The server still answers admin requests and serves a volume.
    pub fn assert_serving(&self, volume: &str) {
        self.ok(&["status"]);
        let mut client = self.attach(volume);
        client.read(0, &mut [0; 512]).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
        command.arg("--data").arg(self.data()).args(arguments).current_dir(self.dir.path());
        command
    }

    /// Runs `tessera` on the data directory.
    pub fn tessera(&self, arguments: &[&str]) -> Output {
        limited(&self.command(arguments))
    }

    /// As [`Rig::tessera`], which must succeed; its output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.tessera(arguments);
        assert!(output.status.success(), "{arguments:?}: {}\n{}", stderr(&output), self.log());
        stdout(&output)
    }

    /// As [`Rig::ok`] with `--json`.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.ok(&[&["--json"], arguments].concat());
        serde_json::from_str(&text).expect("one JSON value")
    }

    /// Runs `tessera`, which must fail with this code and name the thing.
    pub fn fails(&self, arguments: &[&str], code: i32, names: &str) {
        let output = self.tessera(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(names), "{arguments:?}: no `{names}` in: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }

    /// The NBD URI of a volume.
    pub fn uri(&self, volume: &str) -> String {
        format!("nbd+unix:///{volume}?socket={}", self.socket().display())
    }

    /// The NBD socket.
    pub fn socket(&self) -> PathBuf {
        self.data().join("nbd.sock")
    }

    /// A raw connection to one of the server's sockets.
    pub fn connect(&self, socket: &str) -> UnixStream {
        let stream = UnixStream::connect(self.data().join(socket)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// An attached volume.
    pub fn attach(&self, volume: &str) -> Client {
        Client::connect(&self.uri(volume).parse().unwrap()).unwrap()
    }

    /// Runs a program in the rig's directory, which must succeed; its output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.program(program, arguments);
        let text = stdout(&output) + &stderr(&output);
        assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
        text
    }

    /// Runs a program in the rig's directory.
    pub fn program(&self, program: &str, arguments: &[&str]) -> Output {
        let program = find(program).expect("the test asked `has` first");
        limited(Command::new(program).args(arguments).current_dir(self.dir.path()))
    }

    /// The same for one that may never end: after `limit` its process group is killed.
    pub fn program_until(&self, limit: Duration, program: &str, arguments: &[&str]) -> Output {
        let program = find(program).expect("the test asked `has` first");
        let mut command = Command::new(program);
        killed_after(limit, command.args(arguments).current_dir(self.dir.path()))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.watchdog = None;
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Runs a command, which must end in time.
fn limited(command: &Command) -> Output {
    let output = killed_after(LIMIT, command);
    assert!(output.status.signal().is_none(), "still running after {LIMIT:?}: {command:?}");
    output
}

/// Runs a command; kills its process group, `timeout` included, after `limit`.
fn killed_after(limit: Duration, command: &Command) -> Output {
    let mut timed = Command::new("timeout");
    timed.args(["-s", "KILL", &limit.as_secs().to_string()]);
    timed.arg(command.get_program()).args(command.get_args());
    timed.current_dir(command.get_current_dir().unwrap());
    timed.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = timed.spawn().unwrap();
    let errors = child.stderr.take().unwrap();
    let errors = thread::spawn(move || beginning(errors));
    let stdout = beginning(child.stdout.take().unwrap());
    let stderr = errors.join().unwrap();
    Output { status: child.wait().unwrap(), stdout, stderr }
}

/// Reads to the end, but keeps no more than [`MOST_OUTPUT`]: a program may print without end.
fn beginning(mut stream: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    stream.by_ref().take(MOST_OUTPUT).read_to_end(&mut kept).unwrap();
    io::copy(&mut stream, &mut io::sink()).unwrap();
    kept
}

/// Kills a server that a test still waits for after [`LIMIT`], so that the test fails.
fn watch(pid: u32) -> Sender<()> {
    let (alive, ended) = channel();
    thread::spawn(move || {
        if ended.recv_timeout(2 * LIMIT) == Err(RecvTimeoutError::Timeout) {
            let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    alive
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps those of root elsewhere.
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// True if all programs are installed; else says which is not.
pub fn has(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| find(program).is_none());
    if let Some(program) = missing {
        println!("skipped: {program} is not installed");
    }
    missing.is_none()
}

/// What a program printed.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a program complained of.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The workspace's directory.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools is a folder of the workspace")
}

/// Pseudo-random numbers (xorshift64*), the same for the same seed.
pub struct Random(u64);

impl Random {
    /// From a seed that is not 0.
    pub fn new(seed: u64) -> Random {
        assert!(seed != 0, "xorshift stays at 0");
        Random(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }

    /// Bytes that are not zero.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| u8::try_from(self.below(255) + 1).expect("below 256")).collect()
    }
}
