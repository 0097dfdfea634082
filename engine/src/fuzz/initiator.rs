//! Fuzz target of the NVMe/TCP initiator: what a target that is none of ours may send.

use std::time::Instant;

use nvme::tcp::Digests;
use nvme::tcp::initiator::{Batch, Command, Completion, Data, Memory, QueuePair, Tag};

/// Commands under way: reads and writes in turn, the writes too long for a capsule.
const COMMANDS: u32 = 6;
const BYTES: usize = 8192;
const IN_CAPSULE: u32 = 4096;

/// Buffers in pieces of a length that divides nothing.
struct Buffers(Vec<[u8; BYTES]>);

impl Memory for Buffers {
    fn source(&self, tag: Tag, offset: usize, len: usize) -> &[u8] {
        &self.0[tag.0 as usize][offset..][..len.min(3001)]
    }
    fn target(&mut self, tag: Tag, offset: usize, len: usize) -> &mut [u8] {
        &mut self.0[tag.0 as usize][offset..][..len.min(3001)]
    }
}

/// The first byte says which digests are asked for, the second how the bytes are cut: the
/// cuts change no outcome, whether they are copied or received in place.
pub fn nvmf_initiator(bytes: &[u8]) {
    let Some((&[options, step], bytes)) = bytes.split_first_chunk() else { return };
    let digests = Digests::from_bits(options & 0b11);
    let whole = run(digests, bytes, bytes.len().max(1), false);
    let cut = run(digests, bytes, usize::from(step) + 1, options & 4 != 0);
    // A target that asks for data too early is found out only if that is seen in time.
    if whole.is_some() {
        assert_eq!(whole, cut);
    }
}

/// Completions and buffers; `None` if the connection ended.
type Outcome = Option<(Vec<(u32, u16, u64)>, Vec<[u8; BYTES]>)>;

fn run(digests: Digests, bytes: &[u8], step: usize, in_place: bool) -> Outcome {
    let mut queue = QueuePair::new(8, digests, IN_CAPSULE);
    let mut memory = Buffers(vec![[0x11; BYTES]; COMMANDS as usize]);
    let (mut done, mut asked): (Vec<Completion>, u32) = (Vec::new(), 0);
    // Commands wait for ICResp: what follows it in one piece would come before them.
    let (mut parsed, mut filled, mut step) = (0, 0, step);
    let after = std::mem::replace(&mut step, 128);
    loop {
        while asked < COMMANDS && queue.has_room() {
            let command = match asked % 2 {
                0 => Command::read(1, 0, 16, 8192),
                _ => Command::write(1, 0, 16, 8192, false),
            };
            assert!(matches!(command.data, Data::In(8192) | Data::Out(8192)));
            assert!(queue.submit(Instant::now(), &command, Tag(asked), &memory));
            asked += 1;
        }
        drain(&mut queue, &memory);
        done.extend(std::iter::from_fn(|| queue.pop()));
        assert!(queue.under_way() + done.len() == asked as usize, "no command is lost");
        if filled == bytes.len() {
            break;
        }
        filled = (filled + step).min(bytes.len());
        step = after;
        if let Some((tag, at, left)) = queue.direct().filter(|_| in_place) {
            let n = left.min(filled - parsed);
            let place = memory.target(tag, at, n);
            let n = place.len();
            place.copy_from_slice(&bytes[parsed..parsed + n]);
            queue.received(n, &mut memory);
            parsed += n;
        }
        match queue.take(&bytes[parsed..filled], &mut memory) {
            Ok(n) => parsed += n,
            Err(_) => {
                drain(&mut queue, &memory);
                assert!(!queue.has_room(), "nothing goes on after a violation");
                return None;
            }
        }
        assert!(filled - parsed <= 132, "no more than a header is kept");
    }
    let mut ends: Vec<_> =
        done.iter().map(|end| (end.tag.0, end.status.to_bits(), end.result)).collect();
    ends.sort_unstable();
    assert!(ends.windows(2).all(|pair| pair[0].0 != pair[1].0), "a command ends once");
    Some((ends, memory.0))
}

fn drain(queue: &mut QueuePair, memory: &Buffers) {
    while queue.wants_to_send() {
        let mut batch = Batch::new();
        queue.gather(memory, &mut batch);
        let n = batch.iter().map(|slice| slice.len()).sum();
        assert!(n > 0, "else it would never end");
        drop(batch);
        queue.sent(n, memory);
    }
}
