//! Images in formats that qemu-img knows: what they are, and copying them to and from a
//! volume's NBD export.
//!
//! An image may name other files of this host, which whoever made it has chosen. Such an
//! image is refused unless the caller allows it: importing it would put those files' bytes
//! into the volume.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Deserialize;

use crate::interrupt::Interrupt;

const PROGRAM: &str = "qemu-img";
/// The format that needs no qemu-img.
pub const RAW: &str = "raw";
/// First bytes of formats that must not be taken for raw where qemu-img is missing.
const MAGICS: [(&[u8], &str); 4] = [
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "vmdk"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"vhdxfile", "vhdx"),
];
/// Endings of names that say what to export.
const ENDINGS: [&str; 4] = ["qcow2", "vmdk", "vdi", "vhdx"];
/// Longest wait without a look at the interrupt flag.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Bytes of qemu-img's own message that are passed on.
const MESSAGE_BYTES: u64 = 4096;

/// Why an image cannot be used through qemu-img.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// It is not installed.
    #[error(
        "{}: {format} images are read and written by qemu-img, which is not installed: \
         install it (Debian: qemu-utils)", .path.display()
    )]
    Missing {
        /// The image.
        path: PathBuf,
        /// Its format.
        format: String,
    },
    /// It cannot be started or watched.
    #[error("qemu-img: {0}")]
    Run(#[from] io::Error),
    /// It failed.
    #[error("{}: {message}", .path.display())]
    Failed {
        /// The image.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// It says what we do not understand.
    #[error("{}: qemu-img describes it in an unknown way: {source}", .path.display())]
    Description {
        /// The image.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The image names other files.
    #[error(
        "{}: the image takes data from {other}; --allow-backing reads that too, \
         if you trust whoever made the image", .path.display()
    )]
    Backing {
        /// The image.
        path: PathBuf,
        /// The file it names.
        other: String,
    },
    /// By a signal.
    #[error("interrupted")]
    Interrupted,
}

/// What qemu-img says of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageInfo {
    /// Its format, by qemu-img's name.
    pub format: String,
    /// Bytes of the disk in it.
    #[serde(rename = "virtual-size")]
    pub bytes: u64,
    #[serde(default)]
    filename: String,
    backing_filename: Option<String>,
    #[serde(default)]
    format_specific: Specific,
    #[serde(default)]
    children: Vec<Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Specific {
    data: SpecificData,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct SpecificData {
    data_file: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Node {
    info: NodeInfo,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct NodeInfo {
    #[serde(default)]
    filename: String,
}

impl ImageInfo {
    /// A file beside the image itself that its bytes come from.
    pub fn other_file(&self) -> Option<&str> {
        let child = self.children.iter().map(|node| node.info.filename.as_str());
        let data_file = self.format_specific.data.data_file.as_deref();
        let named = self.backing_filename.as_deref().or(data_file);
        named.or_else(|| child.into_iter().find(|name| *name != self.filename))
    }
}

/// The format that a new image's name asks for.
pub fn format_by_name(path: &Path) -> &'static str {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ENDINGS.into_iter().find(|known| ending.eq_ignore_ascii_case(known)).unwrap_or(RAW)
}

/// Finds out what an image is; `None` if it is raw. `format` says it instead.
///
/// # Errors
/// If qemu-img fails or is missing for an image that needs it, and if the image takes data
/// from other files and `allow_backing` is not set.
pub fn inspect(
    path: &Path,
    format: Option<&str>,
    allow_backing: bool,
) -> Result<Option<ImageInfo>, QemuError> {
    if format == Some(RAW) {
        return Ok(None);
    }
    let mut command = Command::new(PROGRAM);
    command.args(["info", "--output=json"]);
    if let Some(format) = format {
        command.args(["-f", format]);
    }
    let output = match command.arg(plain(path)?).stdin(Stdio::null()).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let format = format.map(str::to_owned).or_else(|| by_magic(path).map(str::to_owned));
            return match format {
                Some(format) => Err(QemuError::Missing { path: path.to_path_buf(), format }),
                None => Ok(None),
            };
        }
        output => output?,
    };
    if !output.status.success() {
        return Err(failed(path, &String::from_utf8_lossy(&output.stderr)));
    }
    let info: ImageInfo = serde_json::from_slice(&output.stdout)
        .map_err(|source| QemuError::Description { path: path.to_path_buf(), source })?;
    if info.format == RAW {
        return Ok(None);
    }
    match info.other_file() {
        Some(other) if !allow_backing => {
            Err(QemuError::Backing { path: path.to_path_buf(), other: other.to_owned() })
        }
        _ => Ok(Some(info)),
    }
}

/// Copies an image to an export, which is at least as large; `fresh`: it reads as zeros.
///
/// # Errors
/// If qemu-img fails, or by a signal.
pub fn import(
    path: &Path,
    info: &ImageInfo,
    uri: &str,
    fresh: bool,
    interrupt: &Interrupt,
    progress: impl FnMut(u64),
) -> Result<(), QemuError> {
    let mut command = convert();
    command.args(["-n", "-f", &info.format, "-O", RAW]);
    if fresh {
        command.arg("--target-is-zero");
    }
    command.arg(plain(path)?).arg(uri);
    run(command, path, &info.format, info.bytes, interrupt, progress)
}

/// Copies an export of `bytes` to an image, in place of what is there.
///
/// # Errors
/// If qemu-img fails, or by a signal.
pub fn export(
    uri: &str,
    path: &Path,
    format: &str,
    bytes: u64,
    interrupt: &Interrupt,
    progress: impl FnMut(u64),
) -> Result<(), QemuError> {
    let mut command = convert();
    command.args(["-f", RAW, "-O", format, uri]).arg(plain(path)?);
    run(command, path, format, bytes, interrupt, progress)?;
    Ok(File::open(path)?.sync_all()?)
}

fn convert() -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["convert", "-p", "-t", "writeback"]);
    command
}

/// The path in a form that qemu-img takes for nothing else: not `nbd:…`, nor an option.
fn plain(path: &Path) -> io::Result<PathBuf> {
    std::path::absolute(path)
}

fn by_magic(path: &Path) -> Option<&'static str> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(32).read_to_end(&mut head).ok()?;
    MAGICS.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, format)| *format)
}

fn failed(path: &Path, said: &str) -> QemuError {
    let message = said.trim().strip_prefix("qemu-img: ").unwrap_or(said.trim()).replace('\n', "; ");
    let message = if message.is_empty() { "qemu-img failed".to_owned() } else { message };
    QemuError::Failed { path: path.to_path_buf(), message }
}

/// Ends qemu-img whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(
    mut command: Command,
    path: &Path,
    format: &str,
    bytes: u64,
    interrupt: &Interrupt,
    mut progress: impl FnMut(u64),
) -> Result<(), QemuError> {
    let mut errors = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors.try_clone()?);
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            QemuError::Missing { path: path.to_path_buf(), format: format.to_owned() }
        }
        _ => error.into(),
    })?;
    let mut child = Running(child);
    let mut output = child.0.stdout.take().expect("it is piped");
    let mut text = Vec::new();
    while let Some(more) = receive(&mut output, &mut text)? {
        if interrupt.is_set() {
            return Err(QemuError::Interrupted);
        }
        if let Some(share) = more.then(|| take_share(&mut text)).flatten() {
            progress(bytes / 10_000 * share + bytes % 10_000 * share / 10_000);
        }
    }
    let status = child.0.wait()?;
    // From a terminal, the signal ends qemu-img too.
    if interrupt.is_set() {
        return Err(QemuError::Interrupted);
    }
    if !status.success() {
        let mut said = Vec::new();
        errors.rewind()?;
        errors.take(MESSAGE_BYTES).read_to_end(&mut said)?;
        return Err(failed(path, &String::from_utf8_lossy(&said)));
    }
    progress(bytes);
    Ok(())
}

/// Whether something came in time; `None` at the end.
fn receive(output: &mut ChildStdout, text: &mut Vec<u8>) -> io::Result<Option<bool>> {
    let mut fds = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)];
    match rustix::event::poll(&mut fds, Some(&WAIT)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Some(false)),
        Ok(_) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut bytes = [0; 512];
    let n = output.read(&mut bytes)?;
    text.extend_from_slice(&bytes[..n]);
    Ok((n > 0).then_some(true))
}

/// The last whole `(12.34/100%)` in 1/10,000, and forgets all before it.
fn take_share(text: &mut Vec<u8>) -> Option<u64> {
    let end = text.iter().rposition(|byte| *byte == b'/')?;
    let start = text[..end].iter().rposition(|byte| *byte == b'(')? + 1;
    let (whole, part) = std::str::from_utf8(&text[start..end]).ok()?.split_once('.')?;
    let share = whole.parse::<u64>().ok()? * 100 + part.parse::<u64>().ok()?;
    text.drain(..=end);
    Some(share.min(10_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_piece_by_piece() {
        let mut text = b"    (0.00/100%)\r    (12.".to_vec();
        assert_eq!(take_share(&mut text), Some(0));
        assert_eq!(take_share(&mut text), None);
        text.extend_from_slice(b"34/100%)\r    (100.00/1");
        assert_eq!(take_share(&mut text), Some(10_000));
        assert_eq!(take_share(&mut text), None);
    }

    #[test]
    fn images_of_several_files_are_noticed() {
        let info = |more: &str| -> ImageInfo {
            let text = format!(r#"{{"format":"f","virtual-size":1,"filename":"/a"{more}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let own = r#","children":[{"name":"file","info":{"filename":"/a"}}]"#;
        assert_eq!(info(own).other_file(), None);
        for more in [
            r#","backing-filename":"/b""#,
            r#","format-specific":{"type":"qcow2","data":{"data-file":"/b"}}"#,
            r#","children":[{"name":"file","info":{"filename":"/a"}},{"info":{"filename":"/b"}}]"#,
        ] {
            assert_eq!(info(more).other_file(), Some("/b"), "{more}");
        }
    }

    #[test]
    fn names_say_what_to_export() {
        for (name, format) in [("a.qcow2", "qcow2"), ("a.VMDK", "vmdk"), ("a.img", RAW), ("a", RAW)]
        {
            assert_eq!(format_by_name(Path::new(name)), format);
        }
    }

    #[test]
    fn known_formats_are_not_raw_without_qemu_img() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"QFI\xfb....").unwrap();
        assert_eq!(by_magic(file.path()), Some("qcow2"));
        std::fs::write(file.path(), b"bootable").unwrap();
        assert_eq!(by_magic(file.path()), None);
    }
}
