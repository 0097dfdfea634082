//! The newest crossings of all clients, as sequences to learn from.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};

use super::Vocabulary;
use crate::Access;
use crate::stream::{STREAMS, Streams};

/// Clients whose streams are followed at once; the longest quiet one makes room.
const MAX_CLIENTS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A stream begins.
    Start,
    /// It moves by a delta.
    Move(i64),
    /// Its slot was given away: nothing followed.
    End,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    sequence: u64,
    step: Step,
    write: bool,
}

struct Client {
    id: u64,
    used: u64,
    streams: Streams,
    /// The sequence that runs in each slot; 0 for none.
    sequences: [u64; STREAMS],
}

/// One crossing as the network reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Position in the window, oldest first.
    pub order: usize,
    /// Delta, 0 at the start of a stream.
    pub delta: i64,
    pub write: bool,
    pub next: Next,
}

/// What followed a crossing in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Not known yet.
    Open,
    /// The stream ended.
    End,
    Move(i64),
}

impl Next {
    /// The class to be predicted; `None` while unknown.
    pub fn class(self, vocabulary: &Vocabulary) -> Option<u8> {
        match self {
            Self::Open => None,
            Self::End => Some(Vocabulary::OTHER),
            Self::Move(delta) => Some(vocabulary.class(delta)),
        }
    }
}

/// A bounded window; the oldest crossings fall out.
pub(super) struct Window {
    events: VecDeque<Event>,
    capacity: usize,
    clients: Vec<Client>,
    next_sequence: u64,
    clock: u64,
    /// Events ever pushed.
    pub seen: u64,
}

impl Window {
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0);
        Self {
            events: VecDeque::with_capacity(capacity),
            capacity,
            clients: Vec::new(),
            next_sequence: 1,
            clock: 0,
            seen: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }

    pub fn push(&mut self, client: u64, accesses: &[Access]) {
        let place = self.client(client);
        let Self { events, capacity, clients, next_sequence, seen, .. } = self;
        let Client { streams, sequences, .. } = &mut clients[place];
        let mut add = |event: Event| {
            if events.len() == *capacity {
                events.pop_front();
            }
            events.push_back(event);
            *seen += 1;
        };
        for access in accesses {
            streams.observe(access, |crossing| {
                let sequence = &mut sequences[crossing.slot];
                let write = crossing.write;
                if crossing.fresh {
                    if *sequence != 0 {
                        add(Event { sequence: *sequence, step: Step::End, write });
                    }
                    *sequence = *next_sequence;
                    *next_sequence += 1;
                    add(Event { sequence: *sequence, step: Step::Start, write });
                } else {
                    let step = Step::Move(crossing.delta);
                    add(Event { sequence: *sequence, step, write });
                }
            });
        }
    }

    fn client(&mut self, id: u64) -> usize {
        self.clock += 1;
        let used = self.clock;
        if let Some(place) = self.clients.iter().position(|client| client.id == id) {
            self.clients[place].used = used;
            return place;
        }
        let client = Client { id, used, streams: Streams::new(), sequences: [0; STREAMS] };
        if self.clients.len() < MAX_CLIENTS {
            self.clients.push(client);
            return self.clients.len() - 1;
        }
        let oldest = (0..MAX_CLIENTS).min_by_key(|i| self.clients[*i].used).expect("not empty");
        self.clients[oldest] = client;
        oldest
    }

    /// Deltas of the oldest `until` events.
    pub fn deltas(&self, until: usize) -> impl Iterator<Item = i64> {
        self.events.iter().take(until).filter_map(|event| match event.step {
            Step::Move(delta) => Some(delta),
            Step::Start | Step::End => None,
        })
    }

    /// The window cut into streams, in the order in which they began.
    pub fn sequences(&self) -> Vec<Vec<Item>> {
        let mut places: HashMap<u64, usize> = HashMap::new();
        let mut sequences: Vec<Vec<Item>> = Vec::new();
        for (order, event) in self.events.iter().enumerate() {
            let place = *places.entry(event.sequence).or_insert_with(|| {
                sequences.push(Vec::new());
                sequences.len() - 1
            });
            let sequence = &mut sequences[place];
            let (delta, next) = match event.step {
                Step::Start => (0, Next::Open),
                Step::Move(delta) => (delta, Next::Move(delta)),
                Step::End => (0, Next::End),
            };
            if let Some(previous) = sequence.last_mut() {
                previous.next = next;
            }
            if event.step != Step::End {
                sequence.push(Item { order, delta, write: event.write, next: Next::Open });
            }
        }
        sequences.retain(|sequence| !sequence.is_empty());
        sequences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(fragment: u64) -> Access {
        Access { fragment, last_fragment: fragment, ..Access::default() }
    }

    #[test]
    fn streams_end_when_their_slot_is_given_away() {
        let mut window = Window::new(1000);
        let far: Vec<Access> = (1..=STREAMS as u64).map(|i| read(i << 20)).collect();
        window.push(0, &[read(5), read(6), read(8)]);
        window.push(0, &far);
        let sequences = window.sequences();
        let first: Vec<(i64, Next)> = sequences[0].iter().map(|i| (i.delta, i.next)).collect();
        assert_eq!(first, [(0, Next::Move(1)), (1, Next::Move(2)), (2, Next::End)]);
        assert_eq!(sequences.len(), 1 + STREAMS);
        assert_eq!(sequences[1][0].next, Next::Open);
        assert_eq!(window.deltas(1000).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_window_and_the_clients_are_bounded_and_kept_apart() {
        let mut window = Window::new(50);
        for client in 0..200 {
            window.push(client, &[read(1), read(2)]);
        }
        assert_eq!((window.len(), window.seen), (50, 400));
        assert_eq!(window.clients.len(), MAX_CLIENTS);
        assert!(window.sequences().iter().all(|s| s.len() == 2));
    }
}
