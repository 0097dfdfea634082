//! Turns of cores, and their sleep.
//!
//! The rings and the wake handshake are the real ones ([`crate::core::mailbox`],
//! [`crate::core::wake`]), in the order of [`crate::core::park`]: without work
//! a core says that it sleeps, looks once more, and then does nothing until its
//! eventfd is rung or a deadline comes. There is no beat: a lost wake-up is
//! found and reported.

use super::broken::Broken;
use super::core::{Sleep, core_id};
use super::world::World;
use crate::core::wake::Waker;

impl World {
    fn waker(&self, core: usize) -> &Waker {
        self.wake.waker(core_id(core))
    }

    /// True if a sleeping core has reason to wake, or is about to be given one.
    pub(super) fn is_quiet(&self, core: usize) -> bool {
        let it = &self.cores[core];
        let due = it.next_tick.is_some_and(|at| at <= self.now);
        it.sleep == Sleep::Asleep && !it.rung && !due && self.waker(core).flag().is_sleeping()
    }

    /// One thing happens on a core; false if it sleeps.
    pub(super) fn turn(&mut self, core: usize) -> Result<bool, Broken> {
        if self.stalled.is_some_and(|(who, until)| who == core && self.outcome.steps < until) {
            return Ok(false);
        }
        if self.cores[core].sleep == Sleep::Asleep {
            if self.is_quiet(core) {
                // A send and its notification are one step here: whatever waits has been rung for.
                if self.cores[core].mail.overdue() {
                    return Err(Broken::LostWake(core_id(core)));
                }
                return Ok(false);
            }
            self.wake_up(core)?;
        }
        if self.pass(core) {
            if self.cores[core].sleep == Sleep::Falling {
                self.wake_up(core)?;
            }
            return Ok(true);
        }
        self.cores[core].sleep = match self.cores[core].sleep {
            Sleep::Awake => {
                self.waker(core).flag().fall_asleep();
                Sleep::Falling
            }
            _ => Sleep::Asleep,
        };
        Ok(true)
    }

    fn wake_up(&mut self, core: usize) -> Result<(), Broken> {
        let waker = self.waker(core);
        let claimed = !waker.flag().is_sleeping();
        let read = rustix::io::read(waker, &mut [0; 8]);
        // Whoever claims to wake a core rings, and does so within its step.
        if claimed && read.is_err() {
            return Err(Broken::LostWake(core_id(core)));
        }
        waker.flag().wake_up();
        self.outcome.wakes += u64::from(claimed || self.cores[core].rung);
        let core = &mut self.cores[core];
        core.sleep = Sleep::Awake;
        core.rung = false;
        Ok(())
    }
}
