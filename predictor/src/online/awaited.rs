//! Reads that probably wait for a cold device, as a core sees it: what stands before a stage.
//!
//! A read that comes to a fragment which is believed neither near nor staged waits until it is
//! known what it has met. That takes microseconds where the belief was wrong, so it hardly
//! counts; and it takes as long as the device takes, whatever its speed.
#![forbid(unsafe_code)]

/// More tell nothing more: what stands behind so many is not staged.
const PLACES: usize = 16;
/// One that has not been answered for so long is lost: the volume was removed meanwhile, or
/// the server is so far behind that newer ones tell the same.
const LOST_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct Read {
    volume: u32,
    fragment: u64,
    since_ns: u64,
}

/// The last of them.
pub(super) struct Awaited {
    reads: [Option<Read>; PLACES],
}

impl Awaited {
    pub fn new() -> Awaited {
        Awaited { reads: [None; PLACES] }
    }

    /// A read begins to wait: in a free place, else in that of the oldest.
    pub fn begin(&mut self, volume: u32, fragment: u64, since_ns: u64) {
        let since = |read: &Option<Read>| read.map(|read| read.since_ns);
        let place = self.reads.iter_mut().min_by_key(|read| since(read)).expect("places");
        *place = Some(Read { volume, fragment, since_ns });
    }

    /// What it met is known.
    pub fn end(&mut self, volume: u32, fragment: u64) {
        let is_it = |read: &Read| (read.volume, read.fragment) == (volume, fragment);
        for read in &mut self.reads {
            *read = read.filter(|read| !is_it(read));
        }
    }

    /// How many wait.
    pub fn count(&self, now_ns: u64) -> usize {
        let waits = |read: &&Read| now_ns.saturating_sub(read.since_ns) < LOST_NS;
        self.reads.iter().flatten().filter(waits).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_were_answered_or_lost_do_not_wait() {
        let mut awaited = Awaited::new();
        for fragment in 0..3 {
            awaited.begin(7, fragment, fragment * 1000);
        }
        assert_eq!(awaited.count(3000), 3);
        awaited.end(7, 1);
        awaited.end(8, 2);
        assert_eq!(awaited.count(3000), 2, "another volume's is another");
        assert_eq!(awaited.count(LOST_NS + 1000), 1, "0 is lost, 2 was later");
        assert_eq!(awaited.count(LOST_NS + 2000), 0);
    }

    #[test]
    fn of_many_the_last_are_counted() {
        let mut awaited = Awaited::new();
        (0..100).for_each(|fragment| awaited.begin(0, fragment, fragment));
        assert_eq!(awaited.count(0), PLACES);
        (0..84).for_each(|fragment| awaited.end(0, fragment));
        assert_eq!(awaited.count(0), PLACES, "84 to 99");
        (84..100).for_each(|fragment| awaited.end(0, fragment));
        assert_eq!(awaited.count(0), 0);
    }

    #[test]
    fn those_who_are_answered_at_once_drive_nobody_out() {
        let mut awaited = Awaited::new();
        (0..3).for_each(|fragment| awaited.begin(0, fragment, fragment));
        for fragment in 10..100 {
            awaited.begin(0, fragment, fragment);
            awaited.end(0, fragment);
        }
        assert_eq!(awaited.count(100), 3);
    }
}
