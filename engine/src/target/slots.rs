//! Fixed pools: memory is taken when a connection is made, never per I/O.
//!
//! Invariant: neither type grows. Room is asked for beforehand ([`Slots::is_full`])
//! or known by construction, so that an overflow is a broken invariant.

use std::collections::VecDeque;

/// A pool of `T`, each under a small number while it lives.
pub(in crate::target) struct Slots<T> {
    entries: Vec<Option<T>>,
    vacant: Vec<u16>,
}

impl<T> Slots<T> {
    pub(in crate::target) fn new(capacity: u16) -> Self {
        Self {
            entries: (0..capacity).map(|_| None).collect(),
            vacant: (0..capacity).rev().collect(),
        }
    }

    pub(in crate::target) fn is_full(&self) -> bool {
        self.vacant.is_empty()
    }

    pub(in crate::target) fn is_empty(&self) -> bool {
        self.vacant.len() == self.entries.len()
    }

    /// Slots that are free.
    pub(in crate::target) fn vacant(&self) -> usize {
        self.vacant.len()
    }

    /// # Panics
    /// If the pool is full.
    pub(in crate::target) fn insert(&mut self, value: T) -> u16 {
        let index = self.vacant.pop().expect("room was asked for");
        let old = self.entries[usize::from(index)].replace(value);
        assert!(old.is_none(), "a vacant slot is empty");
        index
    }

    /// # Panics
    /// If nothing lives under `index`.
    pub(in crate::target) fn remove(&mut self, index: u16) -> T {
        let value = self.entries[usize::from(index)].take().expect("a live slot");
        self.vacant.push(index);
        value
    }

    /// # Panics
    /// If nothing lives under `index`.
    pub(in crate::target) fn get(&self, index: u16) -> &T {
        self.entries[usize::from(index)].as_ref().expect("a live slot")
    }

    /// # Panics
    /// If nothing lives under `index`.
    pub(in crate::target) fn get_mut(&mut self, index: u16) -> &mut T {
        self.entries[usize::from(index)].as_mut().expect("a live slot")
    }

    /// The numbers that could be live.
    pub(in crate::target) fn indices(&self) -> std::ops::Range<u16> {
        0..u16::try_from(self.entries.len()).expect("made from a u16")
    }

    pub(in crate::target) fn contains(&self, index: u16) -> bool {
        self.entries.get(usize::from(index)).is_some_and(Option::is_some)
    }
}

/// A queue of bounded length.
pub(in crate::target) struct Queue<T> {
    items: VecDeque<T>,
    capacity: usize,
}

impl<T> Queue<T> {
    pub(in crate::target) fn new(capacity: usize) -> Self {
        Self { items: VecDeque::with_capacity(capacity), capacity }
    }

    /// # Panics
    /// If the queue is full.
    pub(in crate::target) fn push(&mut self, item: T) {
        assert!(self.items.len() < self.capacity, "a queue holds all that its slots can produce");
        self.items.push_back(item);
    }

    pub(in crate::target) fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }

    pub(in crate::target) fn front(&self) -> Option<&T> {
        self.items.front()
    }

    pub(in crate::target) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter()
    }

    pub(in crate::target) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reused_and_never_shared() {
        let mut slots = Slots::new(2);
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        assert!(slots.is_full() && a != b);
        assert_eq!(slots.remove(a), 'a');
        assert!(!slots.contains(a) && slots.contains(b));
        assert_eq!(slots.insert('c'), a);
        assert_eq!((*slots.get(a), *slots.get(b)), ('c', 'b'));
    }

    #[test]
    #[should_panic(expected = "a queue holds all")]
    fn a_queue_never_grows() {
        let mut queue = Queue::new(1);
        queue.push(1);
        queue.push(2);
    }
}
