//! A bounded number of requests in flight.

use std::time::Duration;

use super::ImageError;
use crate::block::{BlockClient, BlockError, BlockOp, BlockReply, Payload};
use crate::interrupt::Interrupt;

const IN_FLIGHT: usize = 16;
/// Longest wait without a look at the interrupt flag.
const WAIT: Duration = Duration::from_millis(200);

/// Takes the payload of the request at an offset.
type Take<'a> = &'a mut dyn FnMut(u64, Payload) -> Result<(), ImageError>;

/// Requests in flight: the id is a slot, which knows its offset.
pub(super) struct Pipe<'a> {
    client: &'a mut dyn BlockClient,
    interrupt: &'a Interrupt,
    offsets: [Option<u64>; IN_FLIGHT],
    done: Vec<BlockReply>,
}

impl<'a> Pipe<'a> {
    pub(super) fn new(client: &'a mut dyn BlockClient, interrupt: &'a Interrupt) -> Self {
        Self { client, interrupt, offsets: [None; IN_FLIGHT], done: Vec::new() }
    }

    fn is_idle(&self) -> bool {
        self.offsets.iter().all(Option::is_none)
    }

    /// Sends as soon as there is a slot; completions go to `take`.
    pub(super) fn send(
        &mut self,
        offset: u64,
        op: BlockOp<'_>,
        take: Take<'_>,
    ) -> Result<(), ImageError> {
        let slot = loop {
            match self.offsets.iter().position(Option::is_none) {
                Some(slot) => break slot,
                None => self.wait(take)?,
            }
        };
        self.offsets[slot] = Some(offset);
        self.client.send(slot as u64, op).map_err(ImageError::lost)
    }

    fn wait(&mut self, take: Take<'_>) -> Result<(), ImageError> {
        if self.interrupt.is_set() {
            return Err(ImageError::Interrupted);
        }
        self.client.poll(WAIT, &mut self.done).map_err(ImageError::lost)?;
        for reply in self.done.drain(..) {
            let slot = usize::try_from(reply.id).ok().and_then(|at| self.offsets.get_mut(at));
            let Some(offset) = slot.and_then(Option::take) else {
                return Err(ImageError::lost(BlockError::Protocol("a reply to no request")));
            };
            let payload = reply.result.map_err(|source| ImageError::Volume { offset, source })?;
            take(offset, payload)?;
        }
        Ok(())
    }

    pub(super) fn drain(&mut self, take: Take<'_>) -> Result<(), ImageError> {
        while !self.is_idle() {
            self.wait(take)?;
        }
        Ok(())
    }

    /// One request alone.
    pub(super) fn call(&mut self, offset: u64, op: BlockOp<'_>) -> Result<Payload, ImageError> {
        let mut answer = Payload::None;
        let mut take = |_, payload| {
            answer = payload;
            Ok(())
        };
        self.send(offset, op, &mut take)?;
        self.drain(&mut take)?;
        Ok(answer)
    }
}
