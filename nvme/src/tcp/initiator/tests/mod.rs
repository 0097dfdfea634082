//! The initiator against a target that obeys, one that does not, and one that vanishes.

mod attached;
mod fake;
mod hostile;
mod random;

use std::time::Instant;

use fake::{BLOCK, Fake, Manners};

use super::memory::{Memory, Tag};
use super::outbox::Batch;
use super::queue::{Completion, QueuePair};
use super::{Command, Error};

/// Buffers by tag, handed out in pieces of at most `piece` bytes.
struct Buffers {
    bytes: Vec<Vec<u8>>,
    piece: usize,
}

impl Buffers {
    fn new(count: usize, len: usize, piece: usize) -> Buffers {
        Buffers { bytes: vec![vec![0; len]; count], piece }
    }
}

impl Memory for Buffers {
    fn source(&self, tag: Tag, offset: usize, len: usize) -> &[u8] {
        &self.bytes[tag.0 as usize][offset..][..len.min(self.piece)]
    }

    fn target(&mut self, tag: Tag, offset: usize, len: usize) -> &mut [u8] {
        &mut self.bytes[tag.0 as usize][offset..][..len.min(self.piece)]
    }
}

/// Bytes that differ from their neighbours.
fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// Sends up to `most` bytes of what waits.
fn send(queue: &mut QueuePair, memory: &Buffers, most: usize) -> Vec<u8> {
    let mut batch = Batch::new();
    queue.gather(memory, &mut batch);
    let mut bytes: Vec<u8> = batch.iter().flat_map(|slice| slice.to_vec()).collect();
    drop(batch);
    bytes.truncate(most);
    queue.sent(bytes.len(), memory);
    bytes
}

/// Goes to and fro until nobody says anything.
fn talk(
    queue: &mut QueuePair,
    fake: &mut Fake,
    disk: &mut [u8],
    memory: &mut Buffers,
) -> Result<Vec<Completion>, Error> {
    let (mut done, mut input) = (Vec::new(), Vec::new());
    loop {
        let sent = send(queue, memory, usize::MAX);
        fake.hear(&sent, disk);
        let answer = fake.answer();
        input.extend_from_slice(&answer);
        let used = queue.take(&input, memory)?;
        input.drain(..used);
        while let Some(completion) = queue.pop() {
            done.push(completion);
        }
        if sent.is_empty() && answer.is_empty() {
            assert!(input.is_empty(), "nothing is left over");
            return Ok(done);
        }
    }
}

/// A queue and a fake that have shaken hands.
fn connected(depth: u16, manners: Manners) -> (QueuePair, Fake) {
    let mut queue = QueuePair::new(depth, manners.digests, manners.in_capsule);
    let mut fake = Fake::new(manners);
    let mut memory = Buffers::new(1, 0, 1);
    assert!(!queue.has_room(), "not before ICResp");
    assert_eq!(talk(&mut queue, &mut fake, &mut [], &mut memory).unwrap(), []);
    assert!(queue.is_ready());
    (queue, fake)
}

fn read(lba: u64, bytes: usize) -> Command {
    let blocks = u32::try_from(bytes / BLOCK).unwrap();
    Command::read(1, lba, blocks, u32::try_from(bytes).unwrap())
}

fn write(lba: u64, bytes: usize) -> Command {
    let blocks = u32::try_from(bytes / BLOCK).unwrap();
    Command::write(1, lba, blocks, u32::try_from(bytes).unwrap(), false)
}
