//! `tessera image import|export`: raw images by our own client, others through qemu-img.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use engine::target::nbd::client::Uri;

use super::{Context, attach, status, volume};
use crate::admin::{AdminClient, AdminRequest, ClientError, ErrorCode};
use crate::attached::Attached;
use crate::block::BlockClient;
use crate::error::CommandError;
use crate::image::{self, Moved};
use crate::interrupt::Interrupt;
use crate::output::bytes_text;
use crate::progress::byte_bar;
use crate::qemu::{self, ImageInfo};

/// What to copy.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Write an image to the start of a volume, which is made if there is none
    Import {
        /// The image: a file or block device, raw or of any format that qemu-img knows
        file: PathBuf,
        /// The volume
        volume: String,
        /// The image's format, for example raw or qcow2 [default: what qemu-img finds]
        #[arg(long)]
        format: Option<String>,
        /// Read other files of this host too that the image names
        #[arg(long)]
        allow_backing: bool,
    },
    /// Write a volume to an image, sparse where the volume is
    Export {
        /// The volume
        volume: String,
        /// The image to make
        file: PathBuf,
        /// Its format, for example raw or qcow2 [default: what the name ends in, else raw]
        #[arg(long)]
        format: Option<String>,
        /// Overwrite the file
        #[arg(long)]
        force: bool,
    },
}

/// What went through qemu-img.
#[derive(Debug, serde::Serialize)]
struct Converted {
    image_bytes: u64,
    format: String,
}

/// Runs the command.
pub fn run(action: &Action, context: &Context) -> Result<(), CommandError> {
    match action {
        Action::Import { file, volume, format, allow_backing } => {
            // A missing file is ours to report.
            File::open(file).map_err(CommandError::file(file))?;
            match qemu::inspect(file, format.as_deref(), *allow_backing)? {
                None => print_moved(import(file, volume, context)?, context),
                Some(info) => print_converted(convert_in(file, info, volume, context)?, context),
            }
        }
        Action::Export { volume, file, format, force } => {
            match format.as_deref().unwrap_or_else(|| qemu::format_by_name(file)) {
                qemu::RAW => print_moved(export(volume, file, *force, context)?, context),
                format => {
                    let converted = convert_out(volume, file, format, *force, context)?;
                    print_converted(converted, context);
                }
            }
        }
    }
    Ok(())
}

fn print_moved(moved: Moved, context: &Context) {
    context.form.print(&moved, |m| {
        let [image, data, zero] = [m.image_bytes, m.data_bytes, m.zero_bytes].map(bytes_text);
        format!("{image} image: {data} data transferred, {zero} zeros skipped")
    });
}

fn print_converted(converted: Converted, context: &Context) {
    context.form.print(&converted, |c| format!("{} {} image", bytes_text(c.image_bytes), c.format));
}

fn import(file: &Path, name: &str, context: &Context) -> Result<Moved, CommandError> {
    let mut source = File::open(file).map_err(CommandError::file(file))?;
    // The end of a block device is found only by seeking.
    let image_bytes = source.seek(SeekFrom::End(0)).map_err(CommandError::file(file))?;
    let (mut client, fresh) = target(file, image_bytes, name, &mut context.admin()?)?;
    let interrupt = Interrupt::install().map_err(CommandError::file(file))?;
    let bar = byte_bar("import", image_bytes);
    let done = |at| bar.set_position(at);
    Ok(image::import(&mut client, &source, image_bytes, fresh, &interrupt, done)?)
}

fn convert_in(
    file: &Path,
    info: ImageInfo,
    name: &str,
    context: &Context,
) -> Result<Converted, CommandError> {
    let mut admin = context.admin()?;
    let (mut client, fresh) = target(file, info.bytes, name, &mut admin)?;
    let uri = export_uri(&mut admin, name)?;
    let interrupt = Interrupt::install().map_err(CommandError::file(file))?;
    let bar = byte_bar("import", info.bytes);
    qemu::import(file, &info, &uri, fresh, &interrupt, |at| bar.set_position(at))?;
    // A flush on one connection covers all.
    image::flush(&mut client, &interrupt)?;
    Ok(Converted { image_bytes: info.bytes, format: info.format })
}

/// Attaches to a volume that an image fits, and makes it if there is none: true if just now.
fn target(
    file: &Path,
    image_bytes: u64,
    name: &str,
    admin: &mut AdminClient,
) -> Result<(Attached, bool), CommandError> {
    let fresh = create_if_missing(admin, name, image_bytes)?;
    let client = attach(admin, name)?;
    if image_bytes > client.size_bytes() {
        return Err(CommandError::TooLarge {
            path: file.to_path_buf(),
            image_bytes,
            volume: name.to_owned(),
            volume_bytes: client.size_bytes(),
        });
    }
    Ok((client, fresh))
}

/// True if the volume was made just now.
fn create_if_missing(
    admin: &mut AdminClient,
    name: &str,
    image_bytes: u64,
) -> Result<bool, CommandError> {
    match volume(admin, &AdminRequest::VolumeShow { name: name.to_owned() }) {
        Ok(_) => Ok(false),
        Err(CommandError::Server(ClientError::Refused(e)))
            if e.code == ErrorCode::VolumeNotFound =>
        {
            let create = AdminRequest::VolumeCreate {
                name: name.to_owned(),
                size_bytes: image_bytes.next_multiple_of(4096).max(4096),
                fragment_size: None,
                block_bytes: None,
                read_only: false,
            };
            volume(admin, &create).map(|_| true)
        }
        Err(error) => Err(error),
    }
}

/// The address of a volume at the server's first listener.
fn export_uri(admin: &mut AdminClient, name: &str) -> Result<String, CommandError> {
    let listeners = status(admin)?.listeners;
    let uri = listeners.first().ok_or(CommandError::NoListener)?;
    let mut uri: Uri = uri.parse().map_err(|error: <Uri as std::str::FromStr>::Err| {
        CommandError::Block { volume: name.to_owned(), source: error.into() }
    })?;
    name.clone_into(&mut uri.export);
    Ok(uri.to_string())
}

/// The new image's file, empty.
fn create_image(file: &Path, force: bool) -> Result<File, CommandError> {
    let mut options = OpenOptions::new();
    options.write(true);
    let options =
        if force { options.create(true).truncate(true) } else { options.create_new(true) };
    options.open(file).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => CommandError::FileExists(file.to_path_buf()),
        _ => CommandError::File { path: file.to_path_buf(), source },
    })
}

fn export(name: &str, file: &Path, force: bool, context: &Context) -> Result<Moved, CommandError> {
    let mut client = attach(&mut context.admin()?, name)?;
    let target = create_image(file, force)?;
    let interrupt = Interrupt::install().map_err(CommandError::file(file))?;
    let bar = byte_bar("export", client.size_bytes());
    Ok(image::export(&mut client, &target, &interrupt, |at| bar.set_position(at))?)
}

fn convert_out(
    name: &str,
    file: &Path,
    format: &str,
    force: bool,
    context: &Context,
) -> Result<Converted, CommandError> {
    let mut admin = context.admin()?;
    let image_bytes = attach(&mut admin, name)?.size_bytes();
    let uri = export_uri(&mut admin, name)?;
    create_image(file, force)?;
    let interrupt = Interrupt::install().map_err(CommandError::file(file))?;
    let bar = byte_bar("export", image_bytes);
    let done = |at| bar.set_position(at);
    qemu::export(&uri, file, format, image_bytes, &interrupt, done)?;
    Ok(Converted { image_bytes, format: format.to_owned() })
}
