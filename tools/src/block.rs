//! What the tools need of a block protocol: requests by id, completions in any
//! order. An implementation connects to one volume.

use std::time::Duration;

use engine::target::nbd::client;

/// One request. Offsets and lengths are multiples of the block size.
#[derive(Clone, Copy, Debug)]
pub enum BlockOp<'a> {
    /// Completes with [`Payload::Data`].
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// Completes with [`Payload::None`].
    Write {
        /// First byte.
        offset: u64,
        /// The bytes, taken over before `send` returns.
        data: &'a [u8],
    },
    /// Completes with [`Payload::None`].
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// Completes with [`Payload::Extents`].
    Status {
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// Everything completed before becomes durable.
    Flush,
}

/// A run of equal allocation state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub length: u64,
    /// The range reads as zeros.
    pub zero: bool,
}

/// What a completion carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    None,
    /// All bytes of a read.
    Data(Vec<u8>),
    /// State of the range from its first byte on; may end early, but not empty.
    Extents(Vec<Extent>),
}

/// A completed request.
#[derive(Debug)]
pub struct BlockReply {
    /// The id it was sent with.
    pub id: u64,
    /// Its end. An error here leaves the connection usable.
    pub result: Result<Payload, BlockError>,
}

/// Why a request or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The server refused one request.
    #[error(transparent)]
    Refused(#[from] client::RequestError),
    /// The address is none.
    #[error(transparent)]
    Address(#[from] client::UriError),
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] client::Error),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
}

/// A connection to one volume.
pub trait BlockClient {
    /// Size of the volume in bytes.
    fn size_bytes(&self) -> u64;
    /// Alignment of requests in bytes.
    fn block_bytes(&self) -> u32;
    /// Longest read or write in bytes, a multiple of the block size.
    fn max_transfer_bytes(&self) -> u32;
    /// Sends a request. `id` must differ from those of requests in flight.
    /// May wait until the server takes it; the caller bounds how many are in flight.
    fn send(&mut self, id: u64, op: BlockOp<'_>) -> Result<(), BlockError>;
    /// Appends completions to `done`: at once if there are any, else after at
    /// most `timeout` (then possibly none). An error ends the connection.
    fn poll(&mut self, timeout: Duration, done: &mut Vec<BlockReply>) -> Result<(), BlockError>;
}

#[cfg(test)]
pub(crate) mod memory {
    //! A volume in memory that completes in reverse order, for tests.

    use engine::target::nbd::wire::Errno;

    use super::*;

    pub(crate) struct MemoryClient {
        pub bytes: Vec<u8>,
        pub written: u64,
        pub zeroed: u64,
        pub read: u64,
        pub flushes: u64,
        /// Requests that touch this offset fail.
        pub bad_offset: Option<u64>,
        pub most_in_flight: usize,
        pending: Vec<BlockReply>,
    }

    impl MemoryClient {
        pub(crate) fn new(bytes: Vec<u8>) -> Self {
            Self {
                bytes,
                written: 0,
                zeroed: 0,
                read: 0,
                flushes: 0,
                bad_offset: None,
                most_in_flight: 0,
                pending: Vec::new(),
            }
        }

        fn range(&self, offset: u64, length: usize) -> Result<std::ops::Range<usize>, BlockError> {
            let start = usize::try_from(offset).unwrap();
            assert!(offset.is_multiple_of(512) && length.is_multiple_of(512), "aligned");
            assert!(start + length <= self.bytes.len(), "{offset}+{length} past the end");
            match self.bad_offset {
                Some(bad) if (offset..offset + length as u64).contains(&bad) => {
                    let (errno, offset) = (Errno::Io, Some(bad));
                    Err(client::RequestError { errno, offset, message: String::new() }.into())
                }
                _ => Ok(start..start + length),
            }
        }

        fn run(&mut self, op: BlockOp<'_>) -> Result<Payload, BlockError> {
            match op {
                BlockOp::Read { offset, length } => {
                    let range = self.range(offset, length as usize)?;
                    self.read += u64::from(length);
                    Ok(Payload::Data(self.bytes[range].to_vec()))
                }
                BlockOp::Write { offset, data } => {
                    let range = self.range(offset, data.len())?;
                    self.written += data.len() as u64;
                    self.bytes[range].copy_from_slice(data);
                    Ok(Payload::None)
                }
                BlockOp::WriteZeroes { offset, length } => {
                    let range = self.range(offset, length as usize)?;
                    self.zeroed += u64::from(length);
                    self.bytes[range].fill(0);
                    Ok(Payload::None)
                }
                BlockOp::Status { offset, length } => {
                    // Short answers, as servers may give: one extent at a time.
                    let range = self.range(offset, length as usize)?;
                    let mut blocks =
                        self.bytes[range].chunks(4096).map(|b| b.iter().all(|x| *x == 0));
                    let zero = blocks.next().unwrap();
                    let run = 1 + blocks.take_while(|z| *z == zero).count() as u64;
                    let length = (run * 4096).min(u64::from(length));
                    Ok(Payload::Extents(vec![Extent { length, zero }]))
                }
                BlockOp::Flush => {
                    self.flushes += 1;
                    Ok(Payload::None)
                }
            }
        }
    }

    impl BlockClient for MemoryClient {
        fn size_bytes(&self) -> u64 {
            self.bytes.len() as u64
        }
        fn block_bytes(&self) -> u32 {
            512
        }
        fn max_transfer_bytes(&self) -> u32 {
            1 << 20
        }
        fn send(&mut self, id: u64, op: BlockOp<'_>) -> Result<(), BlockError> {
            assert!(self.pending.iter().all(|r| r.id != id), "id {id} is in flight");
            let result = self.run(op);
            self.pending.push(BlockReply { id, result });
            self.most_in_flight = self.most_in_flight.max(self.pending.len());
            Ok(())
        }
        fn poll(&mut self, _: Duration, done: &mut Vec<BlockReply>) -> Result<(), BlockError> {
            done.extend(self.pending.pop());
            Ok(())
        }
    }
}
