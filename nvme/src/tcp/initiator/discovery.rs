//! What a discovery service knows (Base 5.16.1.23): read in pages, and read again if it
//! changed meanwhile.

use std::collections::VecDeque;
use std::time::Instant;

use zerocopy::FromBytes;

use super::admin::AdminQueue;
use super::bringup::{Ask, Bringup, Script};
use super::command::Command;
use super::error::Error;
use super::memory::Data;
use super::settings::Settings;
use crate::code::admin;
use crate::discovery::{DiscoveryEntry, DiscoveryHeader, RECORD_BYTES};
use crate::log::{LogRequest, lid};
use crate::{Nqn, Status};

/// Entries that are read; a service with more is not believed.
const MOST_ENTRIES: u64 = 4096;
/// Entries of one read.
const STEP: u64 = 4;
/// Times that the log may change while it is read.
const ATTEMPTS: u8 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Head,
    Entries,
    Again,
    Done,
}

/// Reads the log.
struct Log {
    step: Step,
    genctr: u64,
    numrec: u64,
    attempts: u8,
    entries: VecDeque<DiscoveryEntry>,
}

impl Log {
    fn new() -> Log {
        Log { step: Step::Head, genctr: 0, numrec: 0, attempts: 0, entries: VecDeque::new() }
    }

    /// Offset and length of the next read.
    fn range(&self) -> (u64, u32) {
        let record = RECORD_BYTES as u64;
        match self.step {
            Step::Entries => {
                let have = self.entries.len() as u64;
                let bytes = (self.numrec - have).min(STEP) * record;
                ((have + 1) * record, u32::try_from(bytes).expect("4 KiB at most"))
            }
            _ => (0, 1024),
        }
    }

    fn head(&mut self, data: &[u8]) -> Result<(), Error> {
        let (head, _) = DiscoveryHeader::ref_from_prefix(data)
            .map_err(|_| Error::Unfit("its log is too short"))?;
        let (genctr, numrec) = (head.genctr.get(), head.numrec.get());
        if numrec > MOST_ENTRIES {
            return Err(Error::Unfit("its log has too many entries"));
        }
        if self.step == Step::Again && (genctr, numrec) == (self.genctr, self.numrec) {
            self.step = Step::Done;
            return Ok(());
        }
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            return Err(Error::Unfit("its log does not stand still"));
        }
        (self.genctr, self.numrec) = (genctr, numrec);
        self.entries.clear();
        self.step = if numrec == 0 { Step::Done } else { Step::Entries };
        Ok(())
    }

    fn entries(&mut self, data: &[u8]) {
        let (_, bytes) = self.range();
        for record in data[..bytes as usize].chunks_exact(RECORD_BYTES) {
            let entry = DiscoveryEntry::read_from_bytes(record).expect("as long");
            self.entries.push_back(entry);
        }
        if self.entries.len() as u64 == self.numrec {
            self.step = Step::Again;
        }
    }
}

impl Script for Log {
    fn ask(&mut self, _: Instant) -> Ask {
        if self.step == Step::Done {
            return Ask::Done;
        }
        let (offset, bytes) = self.range();
        let mut command = Command::plain(admin::GET_LOG_PAGE, 0);
        let request = LogRequest {
            lid: lid::DISCOVERY,
            lsp: 0,
            retain: false,
            bytes: bytes.into(),
            offset,
            by_index: false,
        };
        request.put(&mut command.entry);
        command.data = Data::In(bytes);
        Ask::Command(command)
    }

    fn data(&self) -> &[u8] {
        &[]
    }

    fn answer(
        &mut self,
        _: Instant,
        status: Status,
        result: u64,
        data: &[u8],
    ) -> Result<(), Error> {
        if !status.is_success() {
            return Err(Error::Refused { what: "Get Log Page Discovery", status, result });
        }
        match self.step {
            Step::Entries => self.entries(data),
            _ => self.head(data)?,
        }
        Ok(())
    }
}

/// A connection to a discovery service.
pub struct Discovery {
    admin: AdminQueue,
    bringup: Bringup,
    log: Log,
}

impl Discovery {
    /// Begins to connect to the well-known subsystem at the settings' address.
    ///
    /// # Errors
    /// If the system refuses at once.
    pub fn begin(now: Instant, mut settings: Settings) -> Result<Discovery, Error> {
        settings.subsystem = Nqn::discovery();
        // The service ends the association by itself when nothing comes (Base 3.1.2.3).
        settings.kato = std::time::Duration::ZERO;
        let times = (settings.timeout, settings.kato);
        let admin = AdminQueue::begin(now, settings.address, settings.digests, times)?;
        Ok(Discovery { admin, bringup: Bringup::new(settings), log: Log::new() })
    }

    /// Goes on; true when the log has been read.
    ///
    /// # Errors
    /// If the service fails.
    pub fn poll(&mut self, now: Instant) -> Result<bool, Error> {
        if !self.bringup.is_done() {
            self.admin.poll(now, &mut self.bringup, false)?;
            return Ok(false);
        }
        self.admin.poll(now, &mut self.log, false)
    }

    /// The entries read.
    pub fn entries(&self) -> impl Iterator<Item = &DiscoveryEntry> {
        self.log.entries.iter()
    }
}
