//! A fixed-capacity pool of slots addressed by index: no allocation after start.

/// Slots for `T`, all made at start.
#[derive(Debug)]
pub struct Pool<T> {
    slots: Vec<Option<T>>,
    vacant: Vec<u32>,
}

impl<T> Pool<T> {
    /// A pool of `capacity` slots.
    pub fn new(capacity: u32) -> Self {
        let slots = (0..capacity).map(|_| None).collect();
        Self { slots, vacant: (0..capacity).rev().collect() }
    }

    /// Takes a slot; gives the value back if all are taken.
    pub fn insert(&mut self, value: T) -> Result<u32, T> {
        let Some(index) = self.vacant.pop() else { return Err(value) };
        self.slots[index as usize] = Some(value);
        Ok(index)
    }

    /// Empties a slot.
    pub fn remove(&mut self, index: u32) -> T {
        let value = self.slots[index as usize].take().expect("a taken slot");
        self.vacant.push(index);
        value
    }

    /// The value in a taken slot.
    pub fn get(&self, index: u32) -> &T {
        self.slots[index as usize].as_ref().expect("a taken slot")
    }

    /// The value in a taken slot.
    pub fn get_mut(&mut self, index: u32) -> &mut T {
        self.slots[index as usize].as_mut().expect("a taken slot")
    }

    /// Slots left.
    pub fn free(&self) -> usize {
        self.vacant.len()
    }

    /// Taken slots.
    pub fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// True if no slot is taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The taken slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0u32..).zip(&self.slots).filter_map(|(at, slot)| slot.as_ref().map(|value| (at, value)))
    }
}
