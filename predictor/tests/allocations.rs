//! The predictor of a core allocates nothing for requests and answers: a counting allocator
//! watches.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use predictor::Access;
use predictor::deep::Trainer;
use predictor::online::{Answer, Met, Predictor};
use predictor::prefetch::Settings;

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
fn requests_and_answers_do_not_allocate() {
    let model = Arc::clone(Trainer::new(1).unwrap().model());
    let mut predictor = Predictor::new(Settings::default(), 64).unwrap();
    predictor.install(model, true);
    let before = COUNT.get();
    assert!(before > 0, "the tables are allocated, and counted");
    let (mut staged, mut settled) = (0, 0);
    for n in 0..20_000_u64 {
        let fragment = if n % 3 == 0 { n } else { n * n % 1009 };
        let access = Access::new(n, 0, n % 17 == 0, fragment << 20, 4096, 20);
        let mut last = None;
        let crossed = predictor.touch(
            n % 300,
            &access,
            fragment,
            || n * 300_000,
            |volume, fragment| {
                staged += 1;
                last = Some((volume, fragment));
            },
        );
        if let Some((volume, fragment)) = last.filter(|_| n % 5 == 0) {
            let answer = if n % 2 == 0 { Answer::Refused } else { Answer::Needless };
            predictor.answered(volume, fragment, answer);
        }
        predictor.settled(|_| {
            settled += 1;
            true
        });
        if crossed.is_some() {
            let met = match n % 4 {
                0 => Met::Near,
                1 => Met::Staged,
                2 => Met::Fetched,
                _ => Met::Missed,
            };
            predictor.met(0, access.fragments(), met, n % 2 == 0);
        }
    }
    assert!(staged > 100 && settled > 10_000, "{staged}, {settled}: it was at work");
    assert_eq!(COUNT.get(), before);
}
