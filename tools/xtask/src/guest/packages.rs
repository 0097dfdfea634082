//! QEMU, kernels, busybox and the programs of a guest: of this machine, or fetched from
//! Debian and unpacked in the target directory. Nothing is installed: the packages of a
//! system emulator may conflict with what is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Failure, output};

const QEMU: &str = "qemu-system-x86_64";
/// What `qemu-system-x86` cannot do without and the shared libraries' list does not name.
const FIRMWARE: [&str; 4] = ["qemu-system-common", "qemu-system-data", "seabios", "ipxe-qemu"];
/// Where packages of this machine's kind keep libraries.
const LIBRARIES: [&str; 3] =
    ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph"];
/// Kernels by the name that options give them, and the package that depends on the newest
/// of each. The first, Debian 12's own, is the one that a guest gets unless it asks.
const KERNELS: [(&str, &str); 2] =
    [("6.1", "linux-image-cloud-amd64"), ("6.12", "linux-image-6.12-cloud-amd64")];

/// What every guest is made of.
pub struct Kit {
    dir: PathBuf,
    qemu: PathBuf,
    /// Root of QEMU's unpacked packages; `None` if it is installed.
    unpacked: Option<PathBuf>,
    /// The kernel of guests that do not ask for another.
    pub kernel: Kernel,
    /// A static busybox.
    pub busybox: PathBuf,
}

/// A kernel that guests boot.
pub struct Kernel {
    /// Its image.
    pub image: PathBuf,
    /// `lib/modules/VERSION` of the kernel, with `modules.dep`.
    pub modules: PathBuf,
}

impl Kernel {
    /// True if the kernel has it without loading it.
    pub fn has_built_in(&self, module: &str) -> bool {
        let file = format!("/{}.ko", module.replace('-', "_"));
        let text = fs::read_to_string(self.modules.join("modules.builtin")).unwrap_or_default();
        text.lines().any(|line| line.replace('-', "_").ends_with(&file))
    }
}

/// Programs that a guest may take along, and the libraries they were linked with.
pub struct Programs {
    /// Root of the packages that this machine lacks.
    root: PathBuf,
}

impl Programs {
    /// A program of these packages.
    ///
    /// # Errors
    /// If it is neither unpacked nor installed.
    pub fn find(&self, name: &str) -> Result<PathBuf, Failure> {
        let places = ["usr/bin", "usr/sbin", "bin", "sbin"];
        let unpacked = places.iter().map(|place| self.root.join(place).join(name));
        let installed = places.iter().map(|place| Path::new("/").join(place).join(name));
        let found = unpacked.chain(installed).find(|path| path.is_file());
        found.ok_or_else(|| Failure(format!("no program {name}")))
    }

    /// The shared libraries of a program: where each belongs, and where it is.
    pub fn libraries(&self, program: &Path) -> Result<Vec<(String, PathBuf)>, Failure> {
        libraries(program, Some(&self.root))
    }
}

/// The shared libraries of a program, which `root` may hold: where each belongs, and where
/// it is.
pub fn libraries(program: &Path, root: Option<&Path>) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut ldd = Command::new("ldd");
    if let Some(root) = root {
        ldd.env("LD_LIBRARY_PATH", library_path(root));
    }
    let text = output(ldd.arg(program))?;
    if let Some(line) = text.lines().find(|line| line.ends_with("not found")) {
        return Err(Failure(format!("{}: {}", program.display(), line.trim())));
    }
    let paths = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from);
    let placed = paths.map(|path| {
        let inside = root.and_then(|root| path.strip_prefix(root).ok());
        (inside.unwrap_or(&path).display().to_string(), path)
    });
    Ok(placed.collect())
}

fn library_path(root: &Path) -> String {
    LIBRARIES.map(|path| root.join(path).display().to_string()).join(":")
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
        unpack(&["busybox-static"], &boot)?;
        let busybox = boot.join("bin/busybox");
        let kernel = kernel(&boot, &busybox, KERNELS[0].1)?;
        let (qemu, unpacked) = match installed(QEMU) {
            Some(qemu) => (qemu, None),
            None => {
                let root = dir.join("qemu");
                let packages = qemu_packages()?;
                unpack(&packages.iter().map(String::as_str).collect::<Vec<_>>(), &root)?;
                (root.join("usr/bin").join(QEMU), Some(root))
            }
        };
        let kit = Kit { dir: dir.to_path_buf(), qemu, unpacked, kernel, busybox };
        output(kit.qemu().arg("--version"))?;
        Ok(kit)
    }

    /// A kernel by its name in options.
    ///
    /// # Errors
    /// If apt does not know it.
    pub fn kernel(&self, name: &str) -> Result<Kernel, Failure> {
        let found = KERNELS.iter().find(|(known, _)| *known == name);
        let (_, package) = found.ok_or_else(|| {
            Failure(format!("no kernel {name}: {}", KERNELS.map(|(name, _)| name).join(", ")))
        })?;
        kernel(&self.dir.join("boot"), &self.busybox, package)
    }

    /// Programs of packages, which are unpacked with all that they depend on as far as this
    /// machine has not installed them.
    ///
    /// # Errors
    /// If apt does not know one.
    pub fn programs(&self, packages: &[&str]) -> Result<Programs, Failure> {
        let root = self.dir.join("programs");
        if packages.iter().any(|package| absent(package)) {
            let mut depends = Command::new("apt-cache");
            depends.args(["depends", "--recurse", "--no-recommends", "--no-suggests"]);
            depends.args(["--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"]);
            let text = output(depends.args(packages))?;
            // Beside libraries only scripts of installation need anything.
            let needed = |name: &&str| name.starts_with("lib") || packages.contains(name);
            let missing = text.lines().filter(needed).filter(|name| absent(name));
            unpack(&missing.collect::<Vec<_>>(), &root)?;
        }
        Ok(Programs { root })
    }

    /// QEMU, with the way to its libraries and firmware.
    pub fn qemu(&self) -> Command {
        let mut command = Command::new(&self.qemu);
        if let Some(root) = &self.unpacked {
            command.env("LD_LIBRARY_PATH", library_path(root));
            for data in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
                command.arg("-L").arg(root.join(data));
            }
        }
        command
    }
}

/// Fetches the kernel that `package` depends on, and makes the map of its modules.
fn kernel(boot: &Path, busybox: &Path, package: &str) -> Result<Kernel, Failure> {
    let newest = depends(package)?.into_iter().find(|name| name.starts_with("linux-image-"));
    let newest = newest.ok_or_else(|| Failure(format!("apt knows no {package}")))?;
    unpack(&[&newest], boot)?;
    let version = newest.trim_start_matches("linux-image-");
    let modules = boot.join("lib/modules").join(version);
    if !modules.join("modules.dep").exists() {
        // Newer kernels compress their modules; busybox's modprobe and depmod need not know.
        let mut unpack = Command::new(busybox);
        unpack.arg("find").arg(&modules).args(["-name", "*.ko.xz", "-exec"]);
        output(unpack.arg(busybox).args(["unxz", "-f", "{}", "+"]))?;
        let mut depmod = Command::new(busybox);
        output(depmod.arg("depmod").arg("-b").arg(boot).arg(version))?;
    }
    Ok(Kernel { image: boot.join(format!("boot/vmlinuz-{version}")), modules })
}

fn qemu_packages() -> Result<Vec<String>, Failure> {
    let name = "qemu-system-x86";
    let mut packages: Vec<String> =
        depends(name)?.into_iter().filter(|package| absent(package)).collect();
    packages.extend([name].into_iter().chain(FIRMWARE).map(str::to_owned));
    packages.sort();
    packages.dedup();
    Ok(packages)
}

/// True unless the package is installed.
fn absent(package: &str) -> bool {
    let state = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).output();
    !state.is_ok_and(|state| state.stdout.ends_with(b" installed"))
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
    let mark = |package: &str| debs.join(format!("{package}.unpacked"));
    let missing: Vec<&str> =
        packages.iter().copied().filter(|package| !mark(package).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("==> fetching {}", missing.join(" "));
    let mut apt = Command::new("apt-get");
    apt.args(["-o", "APT::Sandbox::User=root", "download", "-qq"]).args(&missing);
    output(apt.current_dir(&debs))?;
    for package in missing {
        let prefix = format!("{package}_");
        let entries = fs::read_dir(&debs).map_err(Failure::at(debs.display()))?;
        let file = entries
            .filter_map(Result::ok)
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .ok_or_else(|| Failure(format!("apt-get download left no {prefix}*.deb")))?;
        output(Command::new("dpkg").arg("-x").arg(file.path()).arg(root))?;
        fs::remove_file(file.path()).map_err(Failure::at(file.path().display()))?;
        let mark = mark(package);
        fs::write(&mark, "").map_err(Failure::at(mark.display()))?;
    }
    Ok(())
}

fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}
