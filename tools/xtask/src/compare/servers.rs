//! An NBD server of each side, both running for a whole contest: an idle one sleeps.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::contenders::{Lab, written_file};
use super::process::{Running, run};

/// The peer's socket beside ours.
const PEER_SOCKET: &str = "peer.sock";

/// The two servers and what they serve.
pub struct Servers {
    ours: Running,
    peer: Running,
    uris: [String; 2],
    dir: tempfile::TempDir,
    /// Removed at the end, if they are in memory.
    files: Vec<PathBuf>,
}

impl Servers {
    /// Starts both on files in `at`, as seen from the lab's directory; `direct`: without the
    /// page cache.
    pub fn start(lab: &Lab, at: &Path, direct: bool) -> Result<Servers, String> {
        let dir = tempfile::Builder::new().prefix("tessera-compare-").tempdir_in(&lab.dir);
        let dir = dir.map_err(|e| format!("{}: {e}", lab.dir.display()))?;
        let from = lab.dir.join(at);
        let names = ["tessera-compare-ours", "tessera-compare-peer"];
        let files = names.map(|name| from.join(name));
        let mib = 2 * lab.region_mib + 1024;
        files.iter().try_for_each(|file| written_file(file, mib))?;
        clear_edges(&files[0])?;
        let ours = start_ours(lab, dir.path(), &files[0])?;
        let peer = start_peer(lab, dir.path(), &at.join(names[1]), direct)?;
        let name = Path::new(dir.path().file_name().expect("a new directory has a name"));
        let uri = |socket| format!("nbd+unix:///v?socket={}", name.join(socket).display());
        let servers = Servers {
            ours,
            peer,
            uris: [uri("nbd.sock"), uri(PEER_SOCKET)],
            dir,
            files: if direct { Vec::new() } else { files.to_vec() },
        };
        for ours in [true, false] {
            servers.fill(lab, ours)?;
        }
        Ok(servers)
    }

    /// Where a side serves.
    pub fn uri(&self, ours: bool) -> &str {
        &self.uris[usize::from(!ours)]
    }

    /// The process of a side.
    pub fn pid(&self, ours: bool) -> u32 {
        if ours { self.ours.pid() } else { self.peer.pid() }
    }

    /// Writes the whole region once.
    fn fill(&self, lab: &Lab, ours: bool) -> Result<(), String> {
        let mut command = lab.program(None, "fio");
        command
            .args(["--name=fill", "--thread", "--rw=write", "--bs=128k", "--iodepth=16"])
            .args(["--end_fsync=1", "--ioengine=nbd"])
            .arg(format!("--size={}m", lab.region_mib))
            .arg(format!("--uri={}", self.uri(ours)));
        let raw = self.dir.path().join("fill.txt");
        run(command, &raw, &[], std::time::Duration::from_secs(300)).map(drop)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for file in &self.files {
            // One that is gone already is what is wanted.
            let _ = fs::remove_file(file);
        }
    }
}

/// A pool is made on devices with blank edges only.
fn clear_edges(path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
    let zeros = vec![0; 1 << 20];
    let end = file.metadata().map_err(failed)?.len() - (1 << 20);
    [0, end].iter().try_for_each(|at| file.write_all_at(&zeros, *at)).map_err(failed)
}

fn start_ours(lab: &Lab, data: &Path, file: &Path) -> Result<Running, String> {
    let config = format!(
        "cores = 1\nprefetch = \"none\"\n[[pool.devices]]\npath = {:?}\nrole = \"fast\"\n",
        file.display().to_string()
    );
    fs::write(data.join("tessera.toml"), config).map_err(|e| format!("tessera.toml: {e}"))?;
    // Its one core takes the first CPU by itself.
    let mut command = lab.program(None, &lab.tessera);
    command.arg("--data").arg(data.file_name().unwrap_or_default()).arg("serve");
    let log = lab.dir.join("tessera-serve.log");
    let server = Running::serve(command, &log, &data.join("nbd.sock"))?;
    let size = format!("{}MiB", lab.region_mib);
    let mut create = Command::new(&lab.tessera);
    create.arg("--data").arg(data).args(["volume", "create", "v", "--size", &size]);
    run(create, &data.join("create.txt"), &[], std::time::Duration::from_secs(60))?;
    Ok(server)
}

fn start_peer(lab: &Lab, dir: &Path, file: &Path, direct: bool) -> Result<Running, String> {
    let socket = dir.join(PEER_SOCKET);
    let cache = if direct { "on" } else { "off" };
    let mut command = lab.program(lab.cpus.1, "qemu-storage-daemon");
    command
        .arg("--blockdev")
        .arg(format!(
            "driver=file,node-name=f,filename={},aio=io_uring,cache.direct={cache}",
            file.display()
        ))
        .args(["--blockdev", "driver=raw,node-name=r,file=f"])
        .arg("--nbd-server")
        .arg(format!("addr.type=unix,addr.path={}", socket.display()))
        .args(["--export", "type=nbd,id=e,node-name=r,name=v,writable=on"]);
    let log = lab.dir.join("qemu-storage-daemon.log");
    Running::serve(command, &log, &socket)
}
