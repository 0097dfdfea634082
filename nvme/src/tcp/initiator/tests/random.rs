//! Any load, cut anywhere, with any manners: what is read is what was written.

use proptest::prelude::*;

use super::*;
use crate::tcp::check::Digests;

const BYTES: usize = 64 << 10;

fn manners() -> impl Strategy<Value = Manners> {
    let bits = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let sizes = (0..=31u8, 1..=8u32, 1..=40u32, 1..=40u32, 0..=9u8, 0..=2u32);
    (bits, sizes).prop_map(|((header, data, success, reverse), sizes)| {
        let (cpda, h2c, r2t, c2h, padding, capsule) = sizes;
        Manners {
            digests: Digests { header, data },
            cpda,
            maxh2cdata: 4096 * h2c,
            r2t_bytes: 1000 * r2t,
            c2h_bytes: 1000 * c2h,
            success,
            reverse,
            padding: 4 * padding,
            in_capsule: 4096 * capsule,
            ..Manners::default()
        }
    })
}

/// Cuts of a stream: so many bytes at once, again and again.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..100usize, 1..5000usize, Just(1 << 20)], 1..20)
}

#[derive(Debug, Clone, Copy)]
struct Action {
    writes: bool,
    lba: u64,
    blocks: usize,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = (any::<bool>(), 0..64u64, 1..=64usize).prop_map(|(writes, lba, blocks)| Action {
        writes,
        lba,
        blocks,
    });
    prop::collection::vec(action, 1..40)
}

/// A queue under a load, and the target.
struct Run {
    queue: QueuePair,
    fake: Fake,
    disk: Vec<u8>,
    memory: Buffers,
    free: Vec<u32>,
    under_way: Vec<(Tag, Action)>,
    /// Bytes of the target that were not taken.
    input: Vec<u8>,
}

impl Run {
    fn new(manners: Manners, depth: u16, piece: usize) -> Run {
        let (queue, fake) = connected(depth, manners);
        Run {
            queue,
            fake,
            disk: pattern(BYTES),
            memory: Buffers::new(depth.into(), BYTES, piece),
            free: (0..depth.into()).collect(),
            under_way: Vec::new(),
            input: Vec::new(),
        }
    }

    /// Submits an action if there is room and it overlaps with none under way, so that its
    /// outcome is certain.
    fn submit(&mut self, action: Action) -> bool {
        let overlaps = self.under_way.iter().any(|(_, other)| overlap(&action, other));
        if self.free.is_empty() || overlaps || !self.queue.has_room() {
            return false;
        }
        let tag = Tag(self.free.pop().unwrap());
        let buffer = &mut self.memory.bytes[tag.0 as usize];
        let bytes = action.blocks * BLOCK;
        let command = if action.writes {
            let first = buffer[0].wrapping_mul(31).wrapping_add(7);
            for (n, part) in (0..=255).cycle().zip(buffer.chunks_mut(3)) {
                part.fill(first.wrapping_add(n));
            }
            write(action.lba, bytes)
        } else {
            buffer.fill(0xdd);
            read(action.lba, bytes)
        };
        assert!(self.queue.submit(Instant::now(), &command, tag, &self.memory));
        self.under_way.push((tag, action));
        true
    }

    /// Sends a piece, and takes what is answered in pieces.
    fn exchange(&mut self, mut cut: impl FnMut() -> usize) {
        let sent = send(&mut self.queue, &self.memory, cut());
        self.fake.hear(&sent, &mut self.disk);
        let answer = self.fake.answer();
        let mut answer = &answer[..];
        while !answer.is_empty() {
            let (now, later) = answer.split_at(answer.len().min(cut()));
            self.input.extend_from_slice(now);
            let used = self.queue.take(&self.input, &mut self.memory).unwrap();
            self.input.drain(..used);
            answer = later;
        }
    }

    /// Compares the bytes of what has ended with the disk.
    fn reap(&mut self) {
        while let Some(done) = self.queue.pop() {
            assert_eq!(done.status, crate::Status::SUCCESS);
            let at = self.under_way.iter().position(|(tag, _)| *tag == done.tag).unwrap();
            let (tag, Action { lba, blocks, .. }) = self.under_way.remove(at);
            let at = usize::try_from(lba).unwrap() * BLOCK;
            let bytes = blocks * BLOCK;
            assert!(self.disk[at..at + bytes] == self.memory.bytes[tag.0 as usize][..bytes]);
            self.free.push(tag.0);
        }
    }
}

fn overlap(a: &Action, b: &Action) -> bool {
    a.lba < b.lba + b.blocks as u64 && b.lba < a.lba + a.blocks as u64
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(200)
    })]

    #[test]
    fn what_is_read_is_what_was_written(
        manners in manners(),
        cuts in cuts(),
        actions in actions(),
        piece in 1..9000usize,
        depth in 1..8u16,
    ) {
        let mut run = Run::new(manners, depth, piece);
        let mut cuts = cuts.into_iter().cycle();
        let mut actions = actions.into_iter().peekable();
        loop {
            while actions.peek().is_some_and(|action| run.submit(*action)) {
                actions.next();
            }
            if run.under_way.is_empty() {
                break;
            }
            run.exchange(|| cuts.next().unwrap());
            run.reap();
        }
        prop_assert!(actions.next().is_none() && run.input.is_empty());
        prop_assert_eq!(run.queue.under_way(), 0);
        prop_assert!(!run.queue.wants_to_send() && run.queue.has_room());
    }
}
