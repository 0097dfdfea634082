//! A server on this machine's loopback beside a guest, and what the guest may ask of this
//! machine: commands at the server, and its death, halt and return.
//!
//! A guest asks with one line over TCP and reads the answer up to its end; the last line of
//! an answer is `ok` or begins with `failed`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use super::machine::{Watch, signal};
use super::{Failure, output};

/// Longest wait for a server to come or go, and for a guest's line.
const PATIENCE: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_millis(20);
/// Small, so that what one scenario leaves is soon made and read.
const POOL: &str = "memory_per_core = \"96MiB\"
stage_budget = \"16MiB\"
stop_timeout = 60

[[pool.devices]]
path = \"fast.img\"
role = \"fast\"
size = \"1GiB\"

[[pool.devices]]
path = \"cold.img\"
role = \"cold\"
size = \"1GiB\"
";

/// A server with a data directory of its own, and the door for guests.
pub struct Served {
    tessera: PathBuf,
    data: PathBuf,
    log: PathBuf,
    process: Option<Child>,
    door: TcpListener,
    /// Of the NVMe/TCP target.
    pub port: u16,
    /// Of its discovery service.
    pub discovery_port: u16,
}

impl Served {
    /// Starts a server on a fresh directory under `dir`, and runs commands at it.
    ///
    /// # Errors
    /// If it does not come up, or refuses a command.
    pub fn start(tessera: &Path, dir: &Path, commands: &[&str]) -> Result<Served, Failure> {
        let data = dir.join("data");
        let _ = fs::remove_dir_all(&data);
        fs::create_dir_all(&data).map_err(Failure::at(data.display()))?;
        let listen =
            || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Failure::at("loopback"));
        let door = listen()?;
        door.set_nonblocking(true).map_err(Failure::at("loopback"))?;
        // Both are free when found, and nobody else asks for ports by number.
        let ports = [listen()?, listen()?].map(|found| found.local_addr().map(|at| at.port()));
        let [port, discovery_port] = ports.map(|port| port.map_err(Failure::at("loopback")));
        let (port, discovery_port) = (port?, discovery_port?);
        let config = format!(
            "nvmf = [\"tcp:127.0.0.1:{port}\"]\nnvmf_discovery = \"tcp:127.0.0.1:{discovery_port}\"\n{POOL}"
        );
        fs::write(data.join("tessera.toml"), config).map_err(Failure::at(data.display()))?;
        let (tessera, log) = (tessera.to_path_buf(), dir.join("server.log"));
        File::create(&log).map_err(Failure::at(log.display()))?;
        let mut served = Served { tessera, data, log, process: None, door, port, discovery_port };
        served.serve()?;
        for command in commands {
            served.tessera(&command.split_whitespace().collect::<Vec<_>>())?;
        }
        Ok(served)
    }

    /// What it was started in.
    pub fn dir(&self) -> &Path {
        self.data.parent().expect("the data directory lies in one")
    }

    /// Where the guest asks.
    pub fn door(&self) -> Result<u16, Failure> {
        Ok(self.door.local_addr().map_err(Failure::at("loopback"))?.port())
    }

    /// Answers a guest that asks, if one does.
    ///
    /// # Errors
    /// If this machine fails; what the guest may have caused goes to the guest.
    pub fn attend(&mut self) -> Result<Watch, Failure> {
        let Ok((stream, _)) = self.door.accept() else { return Ok(Watch::GoOn) };
        let line = read_line(&stream).map_err(Failure::at("the guest's line"))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["vanish"] => return Ok(Watch::PullThePlug),
            ["freeze", seconds] => match seconds.parse() {
                Ok(seconds) => {
                    let _ = (&stream).write_all(b"ok\n");
                    return Ok(Watch::Freeze(Duration::from_secs(seconds)));
                }
                Err(error) => Err(Failure(format!("{line}: {error}"))),
            },
            ["tessera", arguments @ ..] => self.tessera(arguments),
            ["server", "kill"] => self.kill(),
            ["server", "start"] => self.serve(),
            ["server", "pause"] => self.server().and_then(|process| signal(process, "STOP")),
            ["server", "resume"] => self.server().and_then(|process| signal(process, "CONT")),
            ["server", "logged", text @ ..] => self.logged(&text.join(" ")),
            _ => Err(Failure(format!("unknown: {line}"))),
        };
        let text = match answer {
            Ok(text) => format!("{text}ok\n"),
            Err(Failure(why)) => format!("{why}\nfailed\n"),
        };
        // A guest that has gone meanwhile shows in its own end.
        let _ = (&stream).write_all(text.as_bytes());
        Ok(Watch::GoOn)
    }

    /// Ends the server as its unit would, and judges its end, its log and what it leaves.
    ///
    /// # Errors
    /// If the server failed, complained or leaves a damaged pool.
    pub fn stop(mut self) -> Result<(), Failure> {
        signal(self.server()?, "TERM")?;
        let mut process = self.process.take().ok_or_else(|| Failure("no server".into()))?;
        let status = wait(&mut process)?;
        if !status.success() {
            return Err(Failure(format!("the server ended with {status}\n{}", self.log_text())));
        }
        let bad = |line: &&str| line.contains("ERROR") || line.contains("panicked");
        if let Some(line) = self.log_text().lines().find(bad) {
            return Err(Failure(format!("the server logged: {line}")));
        }
        output(Command::new(&self.tessera).arg("--data").arg(&self.data).arg("check"))?;
        let _ = fs::remove_dir_all(&self.data);
        Ok(())
    }

    /// All that the server has logged.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts the server and waits until it answers.
    fn serve(&mut self) -> Result<String, Failure> {
        let log = OpenOptions::new().append(true).open(&self.log);
        let log = log.map_err(Failure::at(self.log.display()))?;
        let out = log.try_clone().map_err(Failure::at(self.log.display()))?;
        let mut command = Command::new(&self.tessera);
        command.arg("--data").arg(&self.data).args(["serve", "--cores", "2"]);
        let process = command.env("NO_COLOR", "1").stdout(out).stderr(log).spawn();
        self.process = Some(process.map_err(Failure::at(self.tessera.display()))?);
        let limit = Instant::now() + PATIENCE;
        while self.tessera(&["status"]).is_err() {
            let ended = self
                .process
                .as_mut()
                .is_none_or(|process| process.try_wait().is_ok_and(|ended| ended.is_some()));
            if ended || Instant::now() > limit {
                return Err(Failure(format!("the server is not up\n{}", self.log_text())));
            }
            thread::sleep(STEP);
        }
        Ok(String::new())
    }

    fn tessera(&self, arguments: &[&str]) -> Result<String, Failure> {
        output(Command::new(&self.tessera).arg("--data").arg(&self.data).args(arguments))
    }

    /// kill -9.
    fn kill(&mut self) -> Result<String, Failure> {
        let mut process = self.process.take().ok_or_else(|| Failure("no server".into()))?;
        process.kill().map_err(Failure::at("the server"))?;
        wait(&mut process)?;
        Ok(String::new())
    }

    fn server(&self) -> Result<&Child, Failure> {
        self.process.as_ref().ok_or_else(|| Failure("no server".into()))
    }

    fn logged(&self, text: &str) -> Result<String, Failure> {
        let log = self.log_text();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(text)).collect();
        if lines.is_empty() {
            return Err(Failure(format!("the server has not logged: {text}\n{log}")));
        }
        Ok(lines.join("\n") + "\n")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill().and_then(|()| process.wait());
        }
    }
}

fn read_line(stream: &TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

fn wait(process: &mut Child) -> Result<ExitStatus, Failure> {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = process.try_wait().map_err(Failure::at("the server"))? {
            return Ok(status);
        }
        if Instant::now() > limit {
            return Err(Failure(format!("the server does not end in {PATIENCE:?}")));
        }
        thread::sleep(STEP);
    }
}
