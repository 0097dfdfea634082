//! A guest's first and only file system: busybox, programs with their libraries, kernel
//! modules, and the script that the guest runs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::cpio::Archive;
use super::packages::{Kernel, Programs, libraries};
use super::{Failure, Kit};

/// What a guest contains and does.
pub struct Contents<'a> {
    /// What the guest boots.
    pub kernel: &'a Kernel,
    /// Kernel modules loaded before the script, with what they need; those that the kernel
    /// has built in may be among them.
    pub modules: &'a [&'a str],
    /// Programs of this machine, put into `/bin` with the libraries they link to.
    pub programs: &'a [&'a Path],
    /// Programs of packages, put there likewise.
    pub packaged: Option<(&'a Programs, &'a [&'a str])>,
    /// Other files: path and contents.
    pub files: &'a [(&'a str, &'a str)],
    /// Shell commands, run in `/out`; the first that fails ends them. What is in `/out` then
    /// comes back.
    pub script: &'a str,
    /// Seconds after which the script is ended: it has failed then.
    pub seconds: u64,
    /// The device that `/out` comes back on.
    pub results: &'a str,
}

/// Builds the archive.
pub fn build(kit: &Kit, contents: &Contents<'_>) -> Result<Vec<u8>, Failure> {
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "sys", "tmp", "out", "run", "bin", "sbin"] {
        archive.directory(directory);
    }
    let add = |archive: &mut Archive, path: &str, from: &Path| {
        archive.copy(path, from).map_err(Failure::at(from.display()))
    };
    add(&mut archive, "bin/busybox", &kit.busybox)?;
    for program in contents.programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        add(&mut archive, &format!("bin/{name}"), program)?;
        for (library, from) in libraries(program, None)? {
            add(&mut archive, &library, &from)?;
        }
    }
    if let Some((packaged, names)) = contents.packaged {
        for name in names {
            let program = packaged.find(name)?;
            add(&mut archive, &format!("bin/{name}"), &program)?;
            for (library, from) in packaged.libraries(&program)? {
                add(&mut archive, &library, &from)?;
            }
        }
    }
    for (path, text) in contents.files {
        archive.file(path, text.as_bytes());
    }
    let modules = loadable(contents);
    if !modules.is_empty() {
        add_modules(&mut archive, contents.kernel, &modules)?;
    }
    archive.file("script", contents.script.as_bytes());
    archive.file("init", init(contents).as_bytes());
    Ok(archive.finish())
}

/// The modules that the kernel does not have already.
fn loadable<'a>(contents: &Contents<'a>) -> Vec<&'a str> {
    let built_in = |name: &&&str| contents.kernel.has_built_in(name);
    contents.modules.iter().filter(|name| !built_in(name)).copied().collect()
}

/// The first process: everything that all guests have in common.
fn init(contents: &Contents<'_>) -> String {
    let load: String =
        loadable(contents).iter().map(|name| format!("modprobe {name} || exit 1\n")).collect();
    let (results, seconds) = (contents.results, contents.seconds);
    format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tracefs trace /sys/kernel/tracing
ip link set lo up
cd /out
({load}timeout -s KILL {seconds} sh -e /script) > /out/printed 2>&1 < /dev/null
echo $? > /out/status
dmesg > /out/dmesg
tar cf {results} . && sync
reboot -f
"
    )
}

/// Adds modules and all that they depend on, with the map that modprobe reads.
fn add_modules(archive: &mut Archive, kernel: &Kernel, names: &[&str]) -> Result<(), Failure> {
    let map = kernel.modules.join("modules.dep");
    let text = fs::read_to_string(&map).map_err(Failure::at(map.display()))?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let all: Vec<(&str, Vec<&str>)> =
        lines.map(|(path, needs)| (path, needs.split_whitespace().collect())).collect();
    let version = kernel.modules.file_name().unwrap_or_default().to_string_lossy();
    let mut wanted = BTreeSet::new();
    for name in names {
        let stem = |path: &str| {
            let file = path.rsplit('/').next().unwrap_or(path);
            file.split('.').next().unwrap_or(file).replace('_', "-")
        };
        let found = all.iter().find(|(path, _)| stem(path) == name.replace('_', "-"));
        let (path, needs) = found.ok_or_else(|| Failure(format!("no kernel module {name}")))?;
        wanted.insert(*path);
        wanted.extend(needs);
    }
    let directory = format!("lib/modules/{version}");
    for path in wanted {
        let from = kernel.modules.join(path);
        archive.copy(&format!("{directory}/{path}"), &from).map_err(Failure::at(from.display()))?;
    }
    archive.file(&format!("{directory}/modules.dep"), text.as_bytes());
    Ok(())
}
