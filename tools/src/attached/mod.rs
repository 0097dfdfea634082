//! A volume attached over NBD: [`BlockClient`] on the engine's client.
//!
//! Invariants: the socket never blocks, so a server that waits for us to read
//! is always read while we send; a reply never makes more memory grow than its
//! request announced.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::Duration;

use engine::target::nbd::client::{Client, Done, Error, Info, Part, Receiver, Sender, Uri};
use engine::target::nbd::wire::{STATE_ZERO, export_flag};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::block::{BlockClient, BlockError, BlockOp, BlockReply, Extent, Payload};

/// Our own limit on one transfer.
const MAX_BYTES: u32 = 8 << 20;
/// Alignment where the server takes single bytes: it still stores sectors.
const SECTOR_BYTES: u32 = 512;

/// What a request in flight waits for.
enum Want {
    Nothing,
    Data { offset: u64, bytes: Vec<u8> },
    Extents(Vec<Extent>),
}

/// An attached volume.
pub struct Attached {
    info: Info,
    sender: Sender,
    receiver: Receiver,
    pending: HashMap<u64, Want>,
    /// Completions not handed out yet.
    done: Vec<BlockReply>,
}

impl Attached {
    /// Attaches to `export` of the server at an NBD URI, whose own export does not count.
    pub fn connect(uri: &str, export: &str) -> Result<Self, BlockError> {
        let mut uri: Uri = uri.parse()?;
        export.clone_into(&mut uri.export);
        let client = Client::connect(&uri)?;
        let info = client.info().clone();
        if !Self::block_bytes(&info).is_power_of_two() {
            return Err(BlockError::Protocol("a block size that is no power of two"));
        }
        let (sender, receiver) = client.split_nonblocking()?;
        Ok(Self { info, sender, receiver, pending: HashMap::new(), done: Vec::new() })
    }

    fn block_bytes(info: &Info) -> u32 {
        info.minimum_block.max(SECTOR_BYTES)
    }

    fn can(&self, flag: u16) -> bool {
        self.info.flags & flag != 0
    }

    /// Waits until the socket can be read (or written, if bytes wait for it),
    /// and does both as far as it goes without waiting.
    fn exchange(&mut self, timeout: Duration) -> Result<(), BlockError> {
        let mut wanted = PollFlags::IN;
        if self.sender.unsent() > 0 {
            wanted |= PollFlags::OUT;
        }
        let time = Timespec::try_from(timeout).map_err(|_| BlockError::Protocol("a timeout"))?;
        let mut fds = [PollFd::from_borrowed_fd(self.receiver.as_fd(), wanted)];
        match rustix::event::poll(&mut fds, Some(&time)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(Error::Lost(errno.into()).into()),
        }
        let ready = fds[0].revents();
        if ready.contains(PollFlags::OUT) {
            self.sender.push()?;
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.receive()?;
        }
        Ok(())
    }

    /// Takes in what has come.
    fn receive(&mut self) -> Result<(), BlockError> {
        loop {
            let mut broken = Ok(());
            let pending = &mut self.pending;
            let done = self.receiver.try_receive(|part| {
                if broken.is_ok() {
                    broken = take(pending, &part);
                }
            })?;
            broken?;
            let Some(done) = done else { return Ok(()) };
            self.finish(done)?;
        }
    }

    fn finish(&mut self, done: Done) -> Result<(), BlockError> {
        let want = self.pending.remove(&done.cookie);
        let want = want.ok_or(BlockError::Protocol("a reply to no request"))?;
        let payload = match want {
            Want::Data { bytes, .. } if done.bytes != bytes.len() as u64 && done.result.is_ok() => {
                return Err(BlockError::Protocol("a read of another length"));
            }
            Want::Data { bytes, .. } => Payload::Data(bytes),
            Want::Extents(extents) => Payload::Extents(extents),
            Want::Nothing => Payload::None,
        };
        let result = done.result.map(|()| payload).map_err(BlockError::from);
        self.done.push(BlockReply { id: done.cookie, result });
        Ok(())
    }
}

/// Stores a part of an answer with its request.
fn take(pending: &mut HashMap<u64, Want>, part: &Part<'_>) -> Result<(), BlockError> {
    let (Part::Data { cookie, .. } | Part::Zeros { cookie, .. } | Part::Extents { cookie, .. }) =
        part;
    match (pending.get_mut(cookie), part) {
        (Some(Want::Data { offset, bytes }), Part::Data { offset: at, bytes: data, .. }) => {
            place(bytes, *offset, *at, data.len() as u64)?.copy_from_slice(data);
        }
        (Some(Want::Data { offset, bytes }), Part::Zeros { offset: at, length, .. }) => {
            place(bytes, *offset, *at, *length)?.fill(0);
        }
        (Some(Want::Extents(held)), Part::Extents { extents, .. }) => {
            held.extend(extents.iter().map(|&(length, state)| Extent {
                length: length.into(),
                zero: state & STATE_ZERO != 0,
            }));
        }
        _ => return Err(BlockError::Protocol("an answer that was not asked for")),
    }
    Ok(())
}

/// The part of a read's buffer that stands at `at` in the volume.
fn place(bytes: &mut [u8], base: u64, at: u64, length: u64) -> Result<&mut [u8], BlockError> {
    let range = || {
        let from = usize::try_from(at.checked_sub(base)?).ok()?;
        Some(from..from.checked_add(usize::try_from(length).ok()?)?)
    };
    range()
        .and_then(|range| bytes.get_mut(range))
        .ok_or(BlockError::Protocol("data outside the request"))
}

impl BlockClient for Attached {
    fn size_bytes(&self) -> u64 {
        self.info.size - self.info.size % u64::from(Self::block_bytes(&self.info))
    }

    fn block_bytes(&self) -> u32 {
        Self::block_bytes(&self.info)
    }

    fn max_transfer_bytes(&self) -> u32 {
        let block = Self::block_bytes(&self.info);
        let most = self.info.maximum_block.min(MAX_BYTES).max(block);
        most - most % block
    }

    fn send(&mut self, id: u64, op: BlockOp<'_>) -> Result<(), BlockError> {
        assert!(!self.pending.contains_key(&id), "request {id} is in flight");
        let want = match op {
            BlockOp::Read { offset, length } => {
                self.sender.read(id, offset, length)?;
                Want::Data { offset, bytes: vec![0; length as usize] }
            }
            BlockOp::Write { offset, data } => {
                self.sender.write(id, offset, data, false)?;
                Want::Nothing
            }
            BlockOp::WriteZeroes { offset, length } if self.can(export_flag::SEND_WRITE_ZEROES) => {
                self.sender.write_zeroes(id, offset, length, false)?;
                Want::Nothing
            }
            BlockOp::WriteZeroes { offset, length } => {
                self.sender.write(id, offset, &vec![0; length as usize], false)?;
                Want::Nothing
            }
            BlockOp::Status { offset, length } if self.info.allocation => {
                self.sender.block_status(id, offset, length)?;
                Want::Extents(Vec::new())
            }
            BlockOp::Status { length, .. } => {
                let all = Extent { length: length.into(), zero: false };
                self.done.push(BlockReply { id, result: Ok(Payload::Extents(vec![all])) });
                return Ok(());
            }
            BlockOp::Flush if self.can(export_flag::SEND_FLUSH) => {
                self.sender.flush(id)?;
                Want::Nothing
            }
            BlockOp::Flush => {
                self.done.push(BlockReply { id, result: Ok(Payload::None) });
                return Ok(());
            }
        };
        self.pending.insert(id, want);
        while self.sender.unsent() > 0 {
            self.exchange(Duration::from_secs(1))?;
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, done: &mut Vec<BlockReply>) -> Result<(), BlockError> {
        if self.done.is_empty() {
            self.exchange(timeout)?;
        }
        done.append(&mut self.done);
        Ok(())
    }
}

impl Drop for Attached {
    /// Says goodbye, so that the server logs no lost client.
    fn drop(&mut self) {
        let _ = self.sender.disconnect();
    }
}
