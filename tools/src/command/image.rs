//! `tessera image import|export` of raw images.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Context, attach, volume};
use crate::admin::{AdminClient, AdminRequest, ClientError, ErrorCode};
use crate::block::BlockClient;
use crate::error::CommandError;
use crate::image::{self, Moved};
use crate::interrupt::Interrupt;
use crate::output::bytes_text;
use crate::progress::byte_bar;

/// What to copy.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Write a raw image to the start of a volume, which is made if there is none
    Import {
        /// Raw image: a file or block device
        file: PathBuf,
        /// The volume
        volume: String,
    },
    /// Write a volume to a raw image, sparse where the volume is
    Export {
        /// The volume
        volume: String,
        /// The image to make
        file: PathBuf,
        /// Overwrite the file
        #[arg(long)]
        force: bool,
    },
}

/// Runs the command.
pub fn run(action: &Action, context: &Context) -> Result<(), CommandError> {
    let moved = match action {
        Action::Import { file, volume } => import(file, volume, context)?,
        Action::Export { volume, file, force } => export(volume, file, *force, context)?,
    };
    context.form.print(&moved, |m| {
        let [image, data, zero] = [m.image_bytes, m.data_bytes, m.zero_bytes].map(bytes_text);
        format!("{image} image: {data} data transferred, {zero} zeros skipped")
    });
    Ok(())
}

fn import(file: &Path, name: &str, context: &Context) -> Result<Moved, CommandError> {
    let mut source = File::open(file).map_err(CommandError::file(file))?;
    // The end of a block device is found only by seeking.
    let image_bytes = source.seek(SeekFrom::End(0)).map_err(CommandError::file(file))?;
    let mut admin = context.admin()?;
    let fresh = create_if_missing(&mut admin, name, image_bytes)?;
    let mut client = attach(&mut admin, name)?;
    if image_bytes > client.size_bytes() {
        return Err(CommandError::TooLarge {
            path: file.to_path_buf(),
            image_bytes,
            volume: name.to_owned(),
            volume_bytes: client.size_bytes(),
        });
    }
    let interrupt = Interrupt::install().map_err(CommandError::file(file))?;
    let bar = byte_bar("import", image_bytes);
    let done = |at| bar.set_position(at);
    Ok(image::import(&mut client, &source, image_bytes, fresh, &interrupt, done)?)
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

fn export(name: &str, file: &Path, force: bool, context: &Context) -> Result<Moved, CommandError> {
    let mut client = attach(&mut context.admin()?, name)?;
    let mut options = OpenOptions::new();
    options.write(true);
    let options =
        if force { options.create(true).truncate(true) } else { options.create_new(true) };
    let target = options.open(file).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => CommandError::FileExists(file.to_path_buf()),
        _ => CommandError::File { path: file.to_path_buf(), source },
    })?;
    let interrupt = Interrupt::install().map_err(CommandError::file(file))?;
    let bar = byte_bar("export", client.size_bytes());
    Ok(image::export(&mut client, &target, &interrupt, |at| bar.set_position(at))?)
}
