//! What the target says, checked against the commands under way.

use zerocopy::{FromBytes, IntoBytes};

use super::{QueuePair, release_held};
use crate::tcp::check::{self, Digests, Fatal, Received, Receiver, Stage, offset};
use crate::tcp::digest::{DIGEST_BYTES, Digest};
use crate::tcp::initiator::error::Error;
use crate::tcp::initiator::memory::{Data, Memory, Tag};
use crate::tcp::initiator::slots::Wanted;
use crate::tcp::pdu::{CommonHeader, Data as DataPdu, IcResp, R2t, TermReq, flags, kind};
use crate::{CompletionEntry, Status};

/// The data of a C2HData that have not all come.
pub(super) struct Incoming {
    slot: u16,
    at: u32,
    left: u32,
    /// Padding before them.
    skip: usize,
    success: bool,
    digest: Option<Digest>,
}

impl QueuePair {
    /// Where the next bytes belong and how many they are, if they are data and not the last
    /// piece of a digest or a header.
    pub fn direct(&self) -> Option<(Tag, usize, usize)> {
        let incoming = self.incoming.as_ref().filter(|i| i.skip == 0 && i.left > 0)?;
        let tag = self.slots.get(incoming.slot).tag;
        Some((tag, incoming.at as usize, incoming.left as usize))
    }

    /// `n` bytes have been received where [`QueuePair::direct`] said.
    pub fn received(&mut self, n: usize, memory: &mut impl Memory) {
        let incoming = self.incoming.as_mut().expect("direct was asked");
        let tag = self.slots.get(incoming.slot).tag;
        if let Some(digest) = &mut incoming.digest {
            let (mut at, end) = (incoming.at as usize, incoming.at as usize + n);
            while at < end {
                let bytes = memory.target(tag, at, end - at);
                digest.update(bytes);
                at += bytes.len();
            }
        }
        incoming.advance(n);
        self.end_of_data();
    }

    /// Eats bytes; what it leaves is the beginning of a header and must come again, with
    /// more behind it.
    ///
    /// # Errors
    /// If the target breaks the protocol or ends the connection. Then a request to
    /// terminate may wait to be sent, and the connection is over.
    pub fn take(&mut self, input: &[u8], memory: &mut impl Memory) -> Result<usize, Error> {
        // Nothing is believed after a violation.
        if self.broken {
            return Err(Error::Closed);
        }
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.step(rest, memory) {
                Ok(0) => break,
                Ok(n) => used += n,
                Err(error) => {
                    self.broken = true;
                    if let Error::Violation(fatal) = error {
                        self.terminate(fatal, rest);
                    }
                    return Err(error);
                }
            }
        }
        self.answer_r2ts(memory);
        Ok(used)
    }

    /// Asks to terminate, with the header that starts at `input` (TCP 3.5).
    fn terminate(&mut self, fatal: Fatal, input: &[u8]) {
        let hlen = input.get(2).map_or(0, |len| usize::from(*len)).max(8);
        let header = &input[..hlen.min(input.len()).min(128)];
        let pdu = TermReq::new(kind::H2C_TERM_REQ, fatal.fes, fatal.fei, header.len());
        self.outbox.push_head(pdu.as_bytes());
        self.outbox.push_head(header);
    }

    /// Eats a header, or a part of data; 0 if it needs more bytes.
    fn step(&mut self, input: &[u8], memory: &mut impl Memory) -> Result<usize, Error> {
        if self.incoming.is_some() {
            return Ok(self.data(input, memory));
        }
        let Ok((common, _)) = CommonHeader::read_from_prefix(input) else { return Ok(0) };
        let shape = check::shape(&common, Receiver::Host, self.stage, self.digests)?;
        if input.len() < shape.header_bytes {
            return Ok(0);
        }
        match check::header(input, &shape)? {
            Received::IcResp(resp) => self.agree(&resp)?,
            Received::TermReq(req) => return Err(terminated(&req)),
            Received::Completion(entry) => self.complete(entry)?,
            Received::R2t(r2t) => self.r2t(&r2t)?,
            Received::Data(data) => {
                self.incoming = Some(self.announce(&data, &shape)?);
            }
            Received::IcReq(_) | Received::Command(_) => return Err(Fatal::SEQUENCE.into()),
        }
        Ok(shape.header_bytes)
    }

    /// ICResp (TCP 3.6.2.3): the digests are those asked for, and the rest has been checked.
    fn agree(&mut self, resp: &IcResp) -> Result<(), Error> {
        if Digests::from_bits(resp.dgst) != self.digests {
            return Err(Fatal::unsupported(offset::DGST).into());
        }
        self.alignment = 4 * (usize::from(resp.cpda) + 1);
        self.max_h2c = resp.maxh2cdata.get();
        self.stage = Stage::Running;
        Ok(())
    }

    /// CapsuleResp.
    fn complete(&mut self, entry: CompletionEntry) -> Result<(), Error> {
        let number = self.slots.find(entry.cid.get()).ok_or(Fatal::field(20))?;
        let slot = self.slots.get_mut(number);
        if slot.held.is_some() {
            return Err(Fatal::SEQUENCE.into());
        }
        // A success that has not moved all data is none (TCP 3.3.2).
        let whole = match slot.data {
            Data::None => true,
            Data::In(len) | Data::Out(len) => slot.moved == len,
        };
        if entry.status().is_success() && !whole {
            return Err(Fatal::SEQUENCE.into());
        }
        slot.held = Some(entry);
        release_held(&mut self.slots, &mut self.done, number);
        Ok(())
    }

    /// R2T (TCP 3.6.2.9): of a write that waits for it, the next bytes, within its data.
    fn r2t(&mut self, r2t: &R2t) -> Result<(), Error> {
        let number = self.slots.find(r2t.cccid.get()).ok_or(Fatal::field(offset::CCCID))?;
        let slot = self.slots.get_mut(number);
        let Data::Out(len) = slot.data else { return Err(Fatal::field(offset::CCCID).into()) };
        // MAXR2T of our ICReq allows one at a time; a chunk in the outbox is as good as sent.
        if slot.wanted.is_some() {
            return Err(Fatal::LIMIT_EXCEEDED.into());
        }
        if slot.held.is_some() {
            return Err(Fatal::SEQUENCE.into());
        }
        let (at, left) = (r2t.r2to.get(), r2t.r2tl.get());
        if at != slot.moved || left > len - slot.moved {
            return Err(Fatal::OUT_OF_RANGE.into());
        }
        slot.moved += left;
        slot.wanted = Some(Wanted { ttag: r2t.ttag.get(), at, left });
        self.wanting.push_back(number);
        Ok(())
    }

    /// C2HData (TCP 3.6.2.8): of a read, in order, within its data.
    fn announce(&mut self, data: &DataPdu, shape: &check::Shape) -> Result<Incoming, Error> {
        let number = self.slots.find(data.cccid.get()).ok_or(Fatal::field(offset::CCCID))?;
        let slot = self.slots.get_mut(number);
        let Data::In(len) = slot.data else { return Err(Fatal::field(offset::CCCID).into()) };
        if slot.whole {
            return Err(Fatal::SEQUENCE.into());
        }
        let (at, left) = (data.datao.get(), data.datal.get());
        if at != slot.moved || left > len - slot.moved {
            return Err(Fatal::OUT_OF_RANGE.into());
        }
        slot.moved += left;
        slot.whole = data.common.flags & flags::LAST != 0;
        let success = data.common.flags & flags::SUCCESS != 0;
        if success && slot.moved != len {
            return Err(Fatal::SEQUENCE.into());
        }
        Ok(Incoming {
            slot: number,
            at,
            left,
            skip: shape.data_start - shape.header_bytes,
            success,
            digest: shape.data_digest.then(Digest::new),
        })
    }

    /// Eats padding, data or their digest.
    fn data(&mut self, input: &[u8], memory: &mut impl Memory) -> usize {
        let incoming = self.incoming.as_mut().expect("the caller has looked");
        if incoming.skip > 0 {
            let n = incoming.skip.min(input.len());
            incoming.skip -= n;
            return n;
        }
        if incoming.left > 0 {
            let n = input.len().min(incoming.left as usize);
            if n == 0 {
                return 0;
            }
            let tag = self.slots.get(incoming.slot).tag;
            let place = memory.target(tag, incoming.at as usize, n);
            let (n, bytes) = (place.len(), &input[..place.len()]);
            assert!(n > 0, "see Memory");
            place.copy_from_slice(bytes);
            if let Some(digest) = &mut incoming.digest {
                digest.update(bytes);
            }
            incoming.advance(n);
            self.end_of_data();
            return n;
        }
        let Some(digest) = input.first_chunk::<DIGEST_BYTES>() else { return 0 };
        let computed = incoming.digest.take().expect("it is waited for").value();
        if computed.to_le_bytes() != *digest {
            self.slots.get_mut(incoming.slot).spoilt = true;
        }
        self.end_of_data();
        DIGEST_BYTES
    }

    /// Ends a C2HData if all of it has come.
    fn end_of_data(&mut self) {
        let Some(incoming) = self.incoming.take_if(|i| i.left == 0 && i.digest.is_none()) else {
            return;
        };
        if incoming.success {
            let cid = self.slots.cid(incoming.slot);
            let entry = CompletionEntry::new(cid, 0, Status::SUCCESS);
            self.slots.get_mut(incoming.slot).held = Some(entry);
            release_held(&mut self.slots, &mut self.done, incoming.slot);
        }
    }
}

impl Incoming {
    fn advance(&mut self, n: usize) {
        let n = u32::try_from(n).expect("at most what is left");
        self.at += n;
        self.left -= n;
    }
}

impl From<Fatal> for Error {
    fn from(fatal: Fatal) -> Error {
        Error::Violation(fatal)
    }
}

fn terminated(req: &TermReq) -> Error {
    Error::Terminated(Fatal { fes: req.fes.get(), fei: req.fei.get() })
}
