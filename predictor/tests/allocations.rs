//! The ranker allocates nothing once it is made: a counting allocator watches.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use predictor::Access;
use predictor::rank::{Budget, Ranker};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn ranking_and_its_budget_do_not_allocate() {
    let mut ranker = Ranker::new(256, 15_000_000);
    let mut budget = Budget::new(64, 0.25, 0.15);
    let before = COUNT.get();
    assert!(before > 0, "the tables are allocated, and counted");
    let mut admitted = 0;
    for n in 0..20_000_u64 {
        let fragment = if n % 3 == 0 { n } else { n * n % 1009 };
        let offset_bytes = fragment << 20;
        let access = Access { time_ns: n, offset_bytes, size_bytes: 4096, ..Access::default() };
        budget.demand(0, fragment, true);
        let Some(crossing) = ranker.touch(1, &access, fragment, |_, _| false) else { continue };
        admitted +=
            crossing.ranked.iter().filter(|ranked| budget.admit(ranked.probability)).count();
        budget.crossed();
    }
    assert!(admitted > 100, "{admitted}: it was at work");
    assert_eq!(COUNT.get(), before);
}
