//! Marks that the load leaves in the kernel's trace, in order with the block requests.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::{PowerError, system};

/// One mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The kernel's number of a device of the pool, in the order of the pool.
    Device {
        /// Position in the pool.
        index: usize,
        /// `major`, `minor`.
        number: (u32, u32),
    },
    /// The volumes are made; the load begins.
    Ready,
    /// A connection is about to send a batch.
    Begin {
        /// Whose.
        connection: u32,
        /// Which.
        batch: u32,
    },
    /// A flush is acknowledged that was sent when all batches before this one had ended.
    Flushed {
        /// Whose.
        connection: u32,
        /// The flush's batch.
        batch: u32,
    },
    /// A write with FUA is acknowledged.
    Fua {
        /// Whose.
        connection: u32,
        /// Its batch.
        batch: u32,
        /// Its position there.
        op: usize,
    },
}

const PREFIX: &str = "power";

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Device { index, number: (major, minor) } => {
                write!(f, "{PREFIX} device {index} {major} {minor}")
            }
            Mark::Ready => write!(f, "{PREFIX} ready"),
            Mark::Begin { connection, batch } => write!(f, "{PREFIX} begin {connection} {batch}"),
            Mark::Flushed { connection, batch } => {
                write!(f, "{PREFIX} flushed {connection} {batch}")
            }
            Mark::Fua { connection, batch, op } => {
                write!(f, "{PREFIX} fua {connection} {batch} {op}")
            }
        }
    }
}

impl Mark {
    /// Reads what [`fmt::Display`] wrote; `None` if it is not a mark of ours.
    pub fn parse(text: &str) -> Option<Mark> {
        let mut words = text.split_whitespace();
        if words.next() != Some(PREFIX) {
            return None;
        }
        let kind = words.next()?;
        let numbers: Vec<u32> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        match (kind, &numbers[..]) {
            ("device", &[index, major, minor]) => {
                Some(Mark::Device { index: index as usize, number: (major, minor) })
            }
            ("ready", []) => Some(Mark::Ready),
            ("begin", &[connection, batch]) => Some(Mark::Begin { connection, batch }),
            ("flushed", &[connection, batch]) => Some(Mark::Flushed { connection, batch }),
            ("fua", &[connection, batch, op]) => {
                Some(Mark::Fua { connection, batch, op: op as usize })
            }
            _ => None,
        }
    }
}

/// Where marks go.
#[derive(Debug)]
pub struct Marks(File);

impl Marks {
    /// Opens the trace's marker file.
    pub fn open(path: &Path) -> Result<Marks, PowerError> {
        let file = File::options().append(true).open(path);
        file.map(Marks).map_err(system(path.display().to_string()))
    }

    /// Leaves a mark: it is in the trace when this returns.
    pub fn leave(&self, mark: Mark) -> Result<(), PowerError> {
        let line = format!("{mark}\n");
        (&self.0).write_all(line.as_bytes()).map_err(system("leaving a mark"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_written() {
        for mark in [
            Mark::Device { index: 2, number: (259, 3) },
            Mark::Ready,
            Mark::Begin { connection: 1, batch: 77 },
            Mark::Flushed { connection: 3, batch: 9 },
            Mark::Fua { connection: 0, batch: 8, op: 4 },
        ] {
            assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        }
        assert_eq!(Mark::parse("power fua 1 2"), None);
        assert_eq!(Mark::parse("somebody else"), None);
    }
}
