//! Many seeds, side by side, until one breaks a promise.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::broken::Broken;
use super::outcome::Outcome;
use super::plan::Plan;
use super::shrink::Failed;
use super::trace::Trace;
use super::world::run_counting;

thread_local! {
    /// Panics on this thread belong to a run: they are told, not printed.
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Lets panics of runs be reported as broken promises, without a backtrace for each.
pub fn catch_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !RUNNING.get() {
            return usual(info);
        }
        let place = info.location().map(|at| format!("{}:{}: ", at.file(), at.line()));
        let what = info.payload_as_str().unwrap_or("no message");
        CAUGHT.set(Some(format!("{}{what}", place.unwrap_or_default())));
    }));
}

/// Makes a run; a panic is a broken promise. Returns also how many steps it took.
pub fn attempt(plan: &Plan, trace: &Trace) -> (Result<Outcome, Broken>, u64) {
    let steps = Rc::new(Cell::new(0));
    RUNNING.set(true);
    // What the run leaves behind when it panics is never looked at, but for the trace.
    let result = catch_unwind(AssertUnwindSafe(|| run_counting(plan, trace, &steps)));
    RUNNING.set(false);
    let result = result.unwrap_or_else(|_| {
        let what = CAUGHT.take().unwrap_or_else(|| "somewhere".to_owned());
        Err(Broken::Panic(what))
    });
    (result, steps.get())
}

/// Runs all `seeds` on `threads` threads. Stops at a failure: of several, the first in order.
pub fn run_all(seeds: &[u64], threads: usize) -> Result<Outcome, Box<Failed>> {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let ended = Mutex::new((Outcome::default(), None::<(usize, Box<Failed>)>));
    let work = || {
        let mut mine = Outcome::default();
        while !stop.load(Ordering::Relaxed) {
            let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("an index");
            let Some(seed) = seeds.get(at) else { break };
            let plan = Plan::of(*seed);
            match attempt(&plan, &Trace::default()) {
                (Ok(outcome), _) => mine.add(&outcome),
                (Err(broken), steps) => {
                    stop.store(true, Ordering::Relaxed);
                    let failed = Box::new(Failed { plan, broken, steps });
                    let mut ended = ended.lock().expect("nobody panics with it");
                    if ended.1.as_ref().is_none_or(|(first, _)| at < *first) {
                        ended.1 = Some((at, failed));
                    }
                }
            }
        }
        ended.lock().expect("nobody panics with it").0.add(&mine);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (outcome, failed) = ended.into_inner().expect("nobody panics with it");
    failed.map_or(Ok(outcome), |(_, failed)| Err(failed))
}
