//! The newest settled crossings, to be learned from more than once.
#![forbid(unsafe_code)]

use rustc_hash::FxHashMap;

use super::Crossing;

/// Crossings kept.
const KEPT: usize = 1 << 15;
/// Clients whose newest crossing is known.
const CLIENTS: usize = 1024;
/// No crossing.
const NONE: u64 = u64::MAX;

/// A crossing's serial number and that of its client's next.
type Link = (u64, u64);

/// A bounded ring of crossings, each linked to its client's next.
pub struct Replay {
    ring: Vec<Crossing>,
    after: Vec<u64>,
    newest: FxHashMap<u64, u64>,
    next: u64,
}

impl Default for Replay {
    fn default() -> Self {
        Self::new()
    }
}

impl Replay {
    /// Memory that a full one takes.
    pub const BYTES: usize =
        (size_of::<Crossing>() + size_of::<u64>()) * KEPT + 4 * CLIENTS * size_of::<Link>();

    /// An empty one.
    pub fn new() -> Replay {
        Replay {
            ring: Vec::with_capacity(KEPT),
            after: Vec::with_capacity(KEPT),
            newest: FxHashMap::default(),
            next: 0,
        }
    }

    /// Adds a crossing; those of a client come in order.
    pub fn push(&mut self, crossing: &Crossing) {
        let serial = self.next;
        if self.ring.len() < KEPT {
            self.ring.push(*crossing);
            self.after.push(NONE);
        } else {
            self.ring[place(serial)] = *crossing;
            self.after[place(serial)] = NONE;
        }
        self.next += 1;
        if let Some(before) = self.newest.insert(crossing.client, serial)
            && before >= self.oldest()
        {
            self.after[place(before)] = serial;
        }
        if self.newest.len() > CLIENTS {
            self.forget();
        }
    }

    /// Forgets half of the clients, those that crossed longest ago.
    fn forget(&mut self) {
        let mut newest: Vec<u64> = self.newest.values().copied().collect();
        newest.sort_unstable();
        let median = newest[newest.len() / 2];
        self.newest.retain(|_, serial| *serial >= median);
    }

    /// Serial numbers of the crossings kept.
    pub fn serials(&self) -> std::ops::Range<u64> {
        self.oldest()..self.next
    }

    /// The crossing of a serial number.
    ///
    /// # Panics
    /// If it is not kept.
    pub fn get(&self, serial: u64) -> &Crossing {
        assert!(self.serials().contains(&serial), "a crossing that is kept");
        &self.ring[place(serial)]
    }

    /// Up to `length` crossings of one client in a row, from a serial number on.
    pub fn from(&self, serial: u64, length: usize) -> impl Iterator<Item = &Crossing> {
        let kept = self.serials();
        let first = Some(serial).filter(|serial| kept.contains(serial));
        let next = move |serial: &u64| {
            Some(self.after[place(*serial)]).filter(|serial| kept.contains(serial))
        };
        std::iter::successors(first, next).map(|serial| &self.ring[place(serial)]).take(length)
    }

    fn oldest(&self) -> u64 {
        self.next.saturating_sub(KEPT as u64)
    }
}

fn place(serial: u64) -> usize {
    usize::try_from(serial % KEPT as u64).expect("a place in the ring")
}

#[cfg(test)]
mod tests {
    use super::super::{ContextRows, State, Window};
    use super::*;

    fn push(replay: &mut Replay, client: u64) {
        let mut window = Window::new();
        window.open(client, 0, ContextRows::default(), State::NONE);
        replay.push(window.settled(1).unwrap());
    }

    fn clients(replay: &Replay, serial: u64) -> Vec<u64> {
        replay.from(serial, 3).map(|crossing| crossing.client).collect()
    }

    #[test]
    fn crossings_follow_their_client() {
        let mut replay = Replay::new();
        for client in [7, 8, 7, 7, 8, 7] {
            push(&mut replay, client);
        }
        assert_eq!(replay.serials(), 0..6);
        assert_eq!(clients(&replay, 0), [7, 7, 7]);
        assert_eq!(clients(&replay, 1), [8, 8]);
        assert_eq!(clients(&replay, 5), [7]);
        assert_eq!(clients(&replay, 6), [0; 0]);
    }

    #[test]
    fn the_oldest_are_overwritten_and_clients_bounded() {
        let mut replay = Replay::new();
        let mut window = Window::new();
        for serial in 0..2 * KEPT as u64 + 5 {
            window.open(serial % 3000, serial, ContextRows::default(), State::NONE);
            replay.push(window.settled(serial + 1).unwrap());
        }
        assert_eq!(replay.serials(), KEPT as u64 + 5..2 * KEPT as u64 + 5);
        assert!(replay.newest.len() <= CLIENTS && replay.ring.len() == KEPT);
        assert_eq!(clients(&replay, 5), [0; 0], "overwritten");
    }
}
