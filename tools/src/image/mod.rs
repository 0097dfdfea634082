//! Raw images in and out of volumes, several requests in flight, zeros and
//! holes kept as holes.
//!
//! After an error requests may still be in flight: the client is of no more use.

mod pipe;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::block::{BlockClient, BlockError, BlockOp, Extent, Payload};
use crate::interrupt::Interrupt;
use pipe::Pipe;

/// Bytes of a request, and the grain of holes on import.
const CHUNK_BYTES: u64 = 128 << 10;
/// Range of one status query.
const STATUS_BYTES: u64 = 64 << 20;

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// Size of the image.
    pub image_bytes: u64,
    /// Bytes that were transferred.
    pub data_bytes: u64,
    /// Bytes that are zero and were not.
    pub zero_bytes: u64,
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file failed.
    #[error("image file at byte {offset}: {source}")]
    File {
        /// Where.
        offset: u64,
        /// The cause.
        source: io::Error,
    },
    /// The volume failed.
    #[error("volume at byte {offset}: {source}")]
    Volume {
        /// Where; 0 if the whole connection is lost.
        offset: u64,
        /// The cause.
        source: BlockError,
    },
    /// By a signal.
    #[error("interrupted")]
    Interrupted,
}

impl ImageError {
    fn lost(source: BlockError) -> Self {
        Self::Volume { offset: 0, source }
    }
}

/// Writes an image to the start of a volume and flushes. `fresh`: the volume
/// reads as zeros, so zeros need not be written. A last partial block is
/// padded with zeros. `progress` sees the bytes passed so far.
///
/// # Panics
/// If the image is larger than the volume.
pub fn import(
    client: &mut dyn BlockClient,
    image: &File,
    image_bytes: u64,
    fresh: bool,
    interrupt: &Interrupt,
    mut progress: impl FnMut(u64),
) -> Result<Moved, ImageError> {
    assert!(image_bytes <= client.size_bytes(), "the caller has compared the sizes");
    let block = u64::from(client.block_bytes());
    let chunk = CHUNK_BYTES.min(u64::from(client.max_transfer_bytes()));
    let mut buffer = vec![0; usize::try_from(chunk).expect("fits memory")];
    let mut moved = Moved { image_bytes, ..Moved::default() };
    let mut pipe = Pipe::new(client, interrupt);
    let mut take = |_, _| Ok(());
    let mut offset = 0;
    while offset < image_bytes {
        let valid = chunk.min(image_bytes - offset);
        let length = valid.next_multiple_of(block);
        let in_buffer = |bytes: u64| usize::try_from(bytes).expect("at most a chunk");
        let (valid, padded) = (in_buffer(valid), in_buffer(length));
        buffer[valid..padded].fill(0);
        image
            .read_exact_at(&mut buffer[..valid], offset)
            .map_err(|source| ImageError::File { offset, source })?;
        let data = &buffer[..padded];
        if !is_zero(data) {
            moved.data_bytes += length;
            pipe.send(offset, BlockOp::Write { offset, data }, &mut take)?;
        } else {
            moved.zero_bytes += length;
            if !fresh {
                let length = u32::try_from(length).expect("at most a chunk");
                pipe.send(offset, BlockOp::WriteZeroes { offset, length }, &mut take)?;
            }
        }
        offset += length;
        progress(offset.min(image_bytes));
    }
    pipe.drain(&mut take)?;
    pipe.call(0, BlockOp::Flush)?;
    Ok(moved)
}

/// Makes everything durable that was written to the volume, on any connection.
pub fn flush(client: &mut dyn BlockClient, interrupt: &Interrupt) -> Result<(), ImageError> {
    Pipe::new(client, interrupt).call(0, BlockOp::Flush).map(drop)
}

/// Writes a volume to a new, empty file; holes of the volume are holes of the
/// file. `progress` sees the bytes passed so far.
pub fn export(
    client: &mut dyn BlockClient,
    image: &File,
    interrupt: &Interrupt,
    mut progress: impl FnMut(u64),
) -> Result<Moved, ImageError> {
    let image_bytes = client.size_bytes();
    let chunk = CHUNK_BYTES.min(u64::from(client.max_transfer_bytes()));
    image.set_len(image_bytes).map_err(|source| ImageError::File { offset: 0, source })?;
    let mut moved = Moved { image_bytes, ..Moved::default() };
    let mut pipe = Pipe::new(client, interrupt);
    let mut take = |offset, payload| match payload {
        Payload::Data(data) => {
            image.write_all_at(&data, offset).map_err(|source| ImageError::File { offset, source })
        }
        _ => Err(ImageError::lost(BlockError::Protocol("a read without data"))),
    };
    let mut offset = 0;
    while offset < image_bytes {
        let asked = STATUS_BYTES.min(image_bytes - offset);
        for extent in status(&mut pipe, offset, asked)? {
            let end = (offset + extent.length).min(image_bytes);
            if extent.zero {
                moved.zero_bytes += end - offset;
                offset = end;
            }
            while offset < end {
                let length = chunk.min(end - offset);
                moved.data_bytes += length;
                let wanted = u32::try_from(length).expect("at most a chunk");
                pipe.send(offset, BlockOp::Read { offset, length: wanted }, &mut take)?;
                offset += length;
            }
            progress(offset);
        }
        pipe.drain(&mut take)?;
    }
    image.sync_all().map_err(|source| ImageError::File { offset: image_bytes, source })?;
    Ok(moved)
}

/// Extents from `offset` on: at least one, none empty.
fn status(pipe: &mut Pipe<'_>, offset: u64, length: u64) -> Result<Vec<Extent>, ImageError> {
    let length = u32::try_from(length).expect("at most STATUS_BYTES");
    match pipe.call(offset, BlockOp::Status { offset, length })? {
        Payload::Extents(extents)
            if !extents.is_empty() && extents.iter().all(|e| e.length > 0) =>
        {
            Ok(extents)
        }
        _ => Err(ImageError::lost(BlockError::Protocol("a status without extents"))),
    }
}

fn is_zero(data: &[u8]) -> bool {
    let (words, rest) = data.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|byte| *byte == 0)
}
