//! The clients whose crossings are followed on a core.
#![forbid(unsafe_code)]

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::history::Recent;
use super::key::Key;
use super::models::POOL;
use super::walks::Walks;

/// Most clients at once; the one that crossed longest ago makes room.
pub(super) const CLIENTS: usize = 256;

/// One client.
pub(super) struct Client {
    id: u64,
    pub walks: Walks,
    pub recent: Recent,
    /// When it was last seen, in requests of all clients.
    seen: u64,
    /// Crossings of it.
    pub crossings: u64,
    /// It has asked for more than once in the fragment it is in.
    pub dwelt: bool,
    /// The model it is ranked by.
    pub model: usize,
}

/// A bounded table of clients.
pub(super) struct Clients {
    table: Vec<Client>,
    places: FxHashMap<u64, usize>,
    clock: u64,
    newest: usize,
}

impl Clients {
    pub fn new() -> Clients {
        Clients {
            table: Vec::with_capacity(CLIENTS),
            // Twice the room: a hash table at its limit rehashes on removal churn.
            places: FxHashMap::with_capacity_and_hasher(2 * CLIENTS, FxBuildHasher),
            clock: 0,
            newest: 0,
        }
    }

    pub const fn bytes() -> usize {
        (size_of::<Client>() + 4 * size_of::<(u64, usize)>()) * CLIENTS
    }

    /// The place of a client, made now if need be; a newcomer has the pool's model.
    pub fn place(&mut self, id: u64) -> usize {
        self.clock += 1;
        if self.table.get(self.newest).is_none_or(|client| client.id != id) {
            self.newest = match self.places.get(&id) {
                Some(place) => *place,
                None => self.admit(id),
            };
        }
        self.table[self.newest].seen = self.clock;
        self.newest
    }

    fn admit(&mut self, id: u64) -> usize {
        let client = Client {
            id,
            walks: Walks::new(),
            recent: Recent::default(),
            seen: 0,
            crossings: 0,
            dwelt: false,
            model: POOL,
        };
        let place = if self.table.len() < CLIENTS {
            self.table.push(client);
            self.table.len() - 1
        } else {
            let oldest = (0..CLIENTS).min_by_key(|place| self.table[*place].seen);
            let oldest = oldest.expect("a table is not empty");
            self.places.remove(&self.table[oldest].id);
            self.table[oldest] = client;
            oldest
        };
        self.places.insert(id, place);
        place
    }

    pub fn get_mut(&mut self, place: usize) -> &mut Client {
        &mut self.table[place]
    }
}

impl Client {
    /// The fragment it is in.
    pub fn at(&self) -> Option<Key> {
        self.recent.get(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_not_seen_for_longest_makes_room() {
        let mut clients = Clients::new();
        for id in 0..CLIENTS as u64 {
            let place = clients.place(id);
            clients.get_mut(place).crossings = id;
        }
        clients.place(0);
        let newcomer = clients.place(1000);
        assert_eq!(newcomer, 1, "client 1 was the oldest");
        assert_eq!(clients.get_mut(1).crossings, 0);
        let again = clients.place(0);
        assert_eq!(again, 0);
        assert_ne!(clients.place(1), 1, "it is a newcomer now");
    }
}
