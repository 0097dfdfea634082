//! QEMU, a kernel and busybox: of this machine, or fetched from Debian and unpacked in the
//! target directory. Nothing is installed: the packages of a system emulator may conflict
//! with what is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Failure, output};

const QEMU: &str = "qemu-system-x86_64";
/// What `qemu-system-x86` cannot do without and the shared libraries' list does not name.
const FIRMWARE: [&str; 4] = ["qemu-system-common", "qemu-system-data", "seabios", "ipxe-qemu"];

/// What every guest is made of.
pub struct Kit {
    qemu: PathBuf,
    /// Root of QEMU's unpacked packages; `None` if it is installed.
    unpacked: Option<PathBuf>,
    /// The kernel's image.
    pub kernel: PathBuf,
    /// `lib/modules/VERSION` of the kernel, with `modules.dep`.
    pub modules: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
}

impl Kit {
    /// Finds or fetches everything; what was fetched before is used again.
    ///
    /// # Errors
    /// Says what this machine lacks.
    pub fn provide(dir: &Path) -> Result<Kit, Failure> {
        if std::env::consts::ARCH != "x86_64" {
            return Err(Failure("the guest is an x86_64 machine".into()));
        }
        let boot = dir.join("boot");
        let kernel_package = kernel_package()?;
        unpack(&[&kernel_package, "busybox-static"], &boot)?;
        let version = kernel_package.trim_start_matches("linux-image-");
        let kernel = boot.join(format!("boot/vmlinuz-{version}"));
        let busybox = boot.join("bin/busybox");
        let modules = boot.join("lib/modules").join(version);
        if !modules.join("modules.dep").exists() {
            let mut depmod = Command::new(&busybox);
            output(depmod.arg("depmod").arg("-b").arg(&boot).arg(version))?;
        }
        let (qemu, unpacked) = match installed(QEMU) {
            Some(qemu) => (qemu, None),
            None => {
                let root = dir.join("qemu");
                let packages = qemu_packages()?;
                unpack(&packages.iter().map(String::as_str).collect::<Vec<_>>(), &root)?;
                (root.join("usr/bin").join(QEMU), Some(root))
            }
        };
        let kit = Kit { qemu, unpacked, kernel, modules, busybox };
        output(kit.qemu().arg("--version"))?;
        Ok(kit)
    }

    /// QEMU, with the way to its libraries and firmware.
    pub fn qemu(&self) -> Command {
        let mut command = Command::new(&self.qemu);
        if let Some(root) = &self.unpacked {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
            let paths = libraries.map(|path| root.join(path).display().to_string());
            command.env("LD_LIBRARY_PATH", paths.join(":"));
            for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
                command.arg("-L").arg(root.join(data));
            }
        }
        command
    }
}

/// The package of the newest cloud kernel, which has NVMe built in.
fn kernel_package() -> Result<String, Failure> {
    let name = "linux-image-cloud-amd64";
    let kernel = depends(name)?.into_iter().find(|package| package.starts_with("linux-image-"));
    kernel.ok_or_else(|| Failure(format!("apt knows no {name}")))
}

fn qemu_packages() -> Result<Vec<String>, Failure> {
    let name = "qemu-system-x86";
    let absent = |package: &String| {
        let state = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).output();
        !state.is_ok_and(|state| state.stdout.ends_with(b" installed"))
    };
    let mut packages: Vec<String> = depends(name)?.into_iter().filter(absent).collect();
    packages.extend([name].into_iter().chain(FIRMWARE).map(str::to_owned));
    packages.sort();
    packages.dedup();
    Ok(packages)
}

/// What a package depends on directly.
fn depends(package: &str) -> Result<Vec<String>, Failure> {
    let text = output(Command::new("apt-cache").args(["depends", package]))?;
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(names.filter(|name| !name.starts_with('<')).map(str::to_owned).collect())
}

/// Fetches packages and unpacks them under `root`, each once.
fn unpack(packages: &[&str], root: &Path) -> Result<(), Failure> {
    let debs = root.with_extension("deb");
    for dir in [root, &debs] {
        fs::create_dir_all(dir).map_err(Failure::at(dir.display()))?;
    }
    for package in packages {
        let mark = debs.join(format!("{package}.unpacked"));
        if mark.exists() {
            continue;
        }
        println!("==> fetching {package}");
        let mut apt = Command::new("apt-get");
        apt.args(["-o", "APT::Sandbox::User=root", "download", "-qq", package]);
        output(apt.current_dir(&debs))?;
        let prefix = format!("{package}_");
        let entries = fs::read_dir(&debs).map_err(Failure::at(debs.display()))?;
        let file = entries
            .filter_map(Result::ok)
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .ok_or_else(|| Failure(format!("apt-get download left no {prefix}*.deb")))?;
        output(Command::new("dpkg").arg("-x").arg(file.path()).arg(root))?;
        fs::remove_file(file.path()).map_err(Failure::at(file.path().display()))?;
        fs::write(&mark, "").map_err(Failure::at(mark.display()))?;
    }
    Ok(())
}

fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}
