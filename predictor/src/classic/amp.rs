//! Sequential prefetch with an adaptive degree and trigger distance per stream.
//!
//! Source: B. S. Gill and L. A. D. Bathen, "AMP: Adaptive Multi-stream Prefetching
//! in a Shared Cache", FAST '07, the text of "AMP Algorithm"; not checked against its
//! figures 3 and 4, in whose place stands the AMP of PyMimircache. The degree p and
//! the trigger distance g of a stream are kept in the last page of each of its sets
//! (pages read or prefetched together), so any number of streams is followed:
//!
//! - a miss behind a known page prefetches the p of that page, synchronously;
//! - once p exceeds [`ASYNC_THRESHOLD`], the page g before a set's end is its
//!   trigger, and reading it prefetches p pages behind the set;
//! - p grows by the size of the read when a set's last page is used, and shrinks
//!   with each page that leaves unused; g shrinks with it;
//! - g grows when a read has to wait for the first page of a set.
//!
//! The paper keeps p and g with the pages in the cache and gives an unused page a
//! second round in it before it goes. A rule does not see the cache: it remembers
//! the [`PAGES`] pages used last, and p shrinks when the page is gone. A page that is
//! not the last of its set has no degree: a miss behind it prefetches as much as is
//! read. Degrees are limited to what one touch may propose.
#![forbid(unsafe_code)]

use super::request::{Request, Requests};
use super::{Key, Rule, Touch, propose_run};
use crate::ledger::Lru;
use crate::prefetch::Predictions;

/// Pages remembered.
const PAGES: usize = 1 << 13;
/// Degree above which a set gets a trigger, `APT`.
const ASYNC_THRESHOLD: usize = 4;
/// Largest degree.
const MAX_DEGREE: usize = Predictions::CAPACITY;

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// Last page of its set.
    last: u64,
    /// p and g of the stream; only in the last page of a set.
    degree: usize,
    distance: usize,
    trigger: bool,
    /// Prefetched and not yet used.
    unused: bool,
    /// Not known to have left.
    present: bool,
}

/// The pages of all streams.
#[derive(Clone, Debug)]
pub(super) struct Amp {
    requests: Requests,
    pages: Lru<Key, Page>,
}

impl Amp {
    pub fn new() -> Self {
        Self { requests: Requests::new(), pages: Lru::new(PAGES) }
    }

    fn page(&mut self, volume: u32, fragment: u64) -> Option<&mut Page> {
        self.pages.get(&(volume, fragment)).filter(|page| page.present)
    }

    /// The page that holds p and g where its stream has got to: the last of the next
    /// set if that is there already, else the last of its own.
    fn front(&mut self, volume: u32, last: u64) -> Option<&mut Page> {
        let next = last.checked_add(1).and_then(|next| self.page(volume, next));
        let front = next.map_or(last, |page| page.last);
        self.pages.get(&(volume, front))
    }

    /// Marks the resident pages of a request as used. Returns the end of the set
    /// whose trigger was among them.
    fn hit(&mut self, request: &Request) -> Option<u64> {
        let read_size = usize::try_from(request.last - request.first + 1).unwrap_or(MAX_DEGREE);
        let mut behind = None;
        for fragment in request.span().take_while(|f| request.miss.is_none_or(|miss| *f < miss)) {
            let key = (request.volume, fragment);
            let Some(page) = self.page(key.0, fragment) else {
                self.pages.insert(key, Page { last: fragment, present: true, ..Page::default() });
                continue;
            };
            let first_use = std::mem::take(&mut page.unused);
            if request.write {
                continue;
            }
            let last = page.last;
            if std::mem::take(&mut page.trigger) {
                behind = Some(last);
            }
            let grows = first_use && fragment == last;
            if grows && let Some(front) = self.front(key.0, last) {
                front.degree = front.degree.saturating_add(read_size).min(MAX_DEGREE);
            }
        }
        behind
    }

    /// Makes a set of what was read from disk. Returns the degree of the page before
    /// it, if that is known.
    fn miss(&mut self, request: &Request, miss: u64) -> Option<usize> {
        let read_size = usize::try_from(request.last - miss + 1).unwrap_or(MAX_DEGREE);
        let before = miss.checked_sub(1).and_then(|f| self.page(request.volume, f)).copied();
        let inherited = before.unwrap_or_default();
        let read = Page { last: request.last, present: true, ..Page::default() };
        for fragment in request.span().filter(|f| *f >= miss) {
            self.pages.insert((request.volume, fragment), read);
        }
        let degree = inherited.degree.saturating_add(read_size).min(MAX_DEGREE);
        let distance = inherited.distance;
        self.pages.insert((request.volume, request.last), Page { degree, distance, ..read });
        before.map(|page| if page.degree > 0 { page.degree } else { read_size.min(MAX_DEGREE) })
    }

    /// Prefetches a set of `length` pages behind the one that ends at `behind`.
    fn prefetch(&mut self, volume: u32, behind: u64, length: usize, out: &mut Predictions) {
        let before = self.pages.get(&(volume, behind)).copied().unwrap_or_default();
        let end = u64::try_from(length).ok().and_then(|length| behind.checked_add(length));
        let Some(last) = end else { return };
        let degree = before.degree.max(before.distance + 1);
        let distance = match before.distance {
            0 if degree > ASYNC_THRESHOLD => ASYNC_THRESHOLD / 2,
            distance => distance,
        };
        let trigger = last.saturating_sub(u64::try_from(distance).expect("below 16"));
        let trigger = (degree > ASYNC_THRESHOLD).then_some(trigger.max(behind + 1));
        for fragment in behind + 1..=last {
            let mut page = Page { last, unused: true, present: true, ..Page::default() };
            page.trigger = trigger == Some(fragment);
            if fragment == last {
                (page.degree, page.distance) = (degree, distance);
            }
            self.pages.insert((volume, fragment), page);
        }
        propose_run(out, volume, behind + 1, length);
    }
}

impl Rule for Amp {
    fn touch(&mut self, touch: &Touch, out: &mut Predictions) {
        let (_, Some(request)) = self.requests.follow(touch) else { return };
        let trigger = self.hit(&request);
        let volume = request.volume;
        if let Some(miss) = request.miss {
            let degree = self.miss(&request, miss);
            if let Some(length) = degree.filter(|_| !request.write) {
                self.prefetch(volume, request.last, length, out);
            }
        } else if let Some(end) = trigger {
            let degree = self.page(volume, end).map_or(1, |page| page.degree.max(1));
            self.prefetch(volume, end, degree, out);
        }
    }

    fn used(&mut self, volume: u32, fragment: u64, late: bool) {
        let Some(last) = self.page(volume, fragment).map(|page| page.last) else { return };
        let before = fragment.checked_sub(1).and_then(|f| self.page(volume, f));
        let waited = late && before.is_none_or(|page| page.last != last);
        if waited && let Some(front) = self.front(volume, last) {
            front.distance = (front.distance + 1).min(front.degree.saturating_sub(1));
        }
    }

    fn wasted(&mut self, volume: u32, fragment: u64) {
        let Some(page) = self.page(volume, fragment) else { return };
        let (last, unused) = (page.last, page.unused);
        (page.unused, page.present) = (false, false);
        if unused && let Some(front) = self.front(volume, last) {
            front.degree = front.degree.saturating_sub(1).max(1);
            front.distance = front.distance.saturating_sub(1).min(front.degree - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    type Reads = std::ops::Range<u64>;

    fn proposed(amp: &mut Amp, driver: &mut Driver, reads: Reads) -> Vec<(u64, u64, u64)> {
        let mut sets = Vec::new();
        for fragment in reads {
            let got = driver.read(amp, fragment);
            if let (Some(first), Some(last)) = (got.first(), got.last()) {
                sets.push((fragment, *first, *last));
            }
        }
        sets
    }

    /// The degree by hand: 1 for the page read first, and one more for each miss
    /// (+1 inherited) and each last page used.
    ///
    /// | read | p before | set     | p, g of its last page | trigger |
    /// |------|----------|---------|-----------------------|---------|
    /// | 1    | 1        | 2       | 2, 0; 3 once used     |         |
    /// | 3    | 3        | 4..=6   | 4, 0; 5 once used     |         |
    /// | 7    | 5        | 8..=12  | 6, 2                  | 10      |
    /// | 10   | 6        | 13..=18 | 6, 2; 7 as 12 is used | 16      |
    /// | 16   | 7        | 19..=25 | 7, 2; 8 as 18 is used | 23      |
    /// | 23   | 8        | 26..=33 | 8, 2; 9 as 25 is used | 31      |
    #[test]
    fn degree_and_trigger_of_a_sequential_stream() {
        let (mut amp, mut driver) = (Amp::new(), Driver::default());
        let sets = proposed(&mut amp, &mut driver, 0..26);
        let expected = [(1, 2, 2), (3, 4, 6), (7, 8, 12), (10, 13, 18), (16, 19, 25), (23, 26, 33)];
        assert_eq!(sets, expected);
        let front = amp.page(3, 33).expect("prefetched");
        assert_eq!((front.degree, front.distance), (9, 2));
    }

    #[test]
    fn waste_shrinks_both_and_waiting_moves_the_trigger_ahead() {
        let (mut amp, mut driver) = (Amp::new(), Driver::default());
        proposed(&mut amp, &mut driver, 0..19);
        driver.late = true;
        driver.read(&mut amp, 19);
        driver.read(&mut amp, 20);
        let front = amp.page(3, 25).expect("prefetched");
        assert_eq!((front.degree, front.distance), (8, 3), "19 opens its set, 20 does not");
        driver.late = false;
        // The set 26..=33 is triggered at 23 and its trigger is at 30.
        let sets = proposed(&mut amp, &mut driver, 21..31);
        assert_eq!(sets, [(23, 26, 33), (30, 34, 42)]);
        driver.evict(&mut amp, 41);
        driver.evict(&mut amp, 42);
        let front = amp.pages.get(&(3, 42)).map(|page| (page.degree, page.distance));
        assert_eq!(front, Some((7, 1)));
    }

    #[test]
    fn a_wide_read_counts_with_its_size() {
        let (mut amp, mut driver) = (Amp::new(), Driver::default());
        assert!(driver.request(&mut amp, false, &[10, 11, 12]).is_empty());
        // p of 12 is 3; the new set's is 3 + 2, so it has a trigger: 15, not 17.
        assert_eq!(driver.request(&mut amp, false, &[13, 14]), [15, 16, 17]);
        assert_eq!(driver.read(&mut amp, 15), [18, 19, 20, 21, 22]);
        assert!(driver.read(&mut amp, 900).is_empty(), "nothing is known before it");
    }

    #[test]
    fn the_degree_is_limited() {
        let (mut amp, mut driver) = (Amp::new(), Driver::default());
        let sets = proposed(&mut amp, &mut driver, 0..400);
        assert_eq!(sets.iter().map(|(_, first, last)| last - first + 1).max(), Some(16));
    }
}
