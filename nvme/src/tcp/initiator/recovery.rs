//! When to connect again, when requests fail, and when the controller is given up.
//!
//! A state machine of times alone. After a loss requests wait; from the fast-I/O-fail timer
//! on they fail at once, while attempts go on; from the controller-loss timer on there are
//! no more attempts.

use std::time::{Duration, Instant};

/// How long what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Before the first attempt to connect again; each further wait is twice the last.
    pub first_delay: Duration,
    /// Longest wait between two attempts.
    pub longest_delay: Duration,
    /// From the loss on, until requests fail; `None` for never.
    pub fast_fail: Option<Duration>,
    /// From the loss on, until the controller is given up; `None` for never.
    pub controller_loss: Option<Duration>,
}

impl Default for Timers {
    /// Linux's controller-loss timer of ten minutes, but earlier attempts.
    fn default() -> Self {
        Timers {
            first_delay: Duration::from_millis(100),
            longest_delay: Duration::from_secs(10),
            fast_fail: None,
            controller_loss: Some(Duration::from_secs(600)),
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing.
    Wait,
    /// Connect.
    Connect,
    /// The controller is lost.
    GiveUp,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Live,
    Down { since: Instant, attempts: u32, next: Instant, trying: bool },
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Recovery {
    timers: Timers,
    state: State,
}

impl Recovery {
    /// Of a controller that is connected.
    pub fn new(timers: Timers) -> Recovery {
        Recovery { timers, state: State::Live }
    }

    /// A connection is made, or an attempt failed.
    pub fn lost(&mut self, now: Instant) {
        let Timers { first_delay, longest_delay, .. } = self.timers;
        self.state = match self.state {
            State::Live => {
                State::Down { since: now, attempts: 0, next: now + first_delay, trying: false }
            }
            State::Down { since, attempts, .. } => {
                let attempts = attempts.saturating_add(1);
                let delay = first_delay.saturating_mul(1 << attempts.min(20)).min(longest_delay);
                State::Down { since, attempts, next: now + delay, trying: false }
            }
        };
    }

    /// The controller is live.
    pub fn connected(&mut self) {
        self.state = State::Live;
    }

    /// What to do now. [`Advice::Connect`] comes once for each attempt.
    pub fn tick(&mut self, now: Instant) -> Advice {
        let State::Down { since, next, trying, .. } = &mut self.state else { return Advice::Wait };
        let down = now.saturating_duration_since(*since);
        if self.timers.controller_loss.is_some_and(|limit| down >= limit) {
            return Advice::GiveUp;
        }
        if *trying || now < *next {
            return Advice::Wait;
        }
        *trying = true;
        Advice::Connect
    }

    /// Requests are not to wait any longer.
    pub fn fails_fast(&self, now: Instant) -> bool {
        match (self.state, self.timers.fast_fail) {
            (State::Down { since, .. }, Some(limit)) => {
                now.saturating_duration_since(since) >= limit
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const TIMERS: Timers = Timers {
        first_delay: Duration::from_millis(100),
        longest_delay: Duration::from_millis(350),
        fast_fail: Some(Duration::from_millis(500)),
        controller_loss: Some(Duration::from_millis(2000)),
    };

    #[test]
    fn attempts_back_off_and_the_timers_run_from_the_loss() {
        let start = Instant::now();
        let mut recovery = Recovery::new(TIMERS);
        assert_eq!(recovery.tick(start), Advice::Wait);
        recovery.lost(start);
        let (mut tries, mut failed_at, mut gone_at) = (Vec::new(), None, None);
        for at in 0..3000 {
            let now = start + ms(at);
            if recovery.fails_fast(now) {
                failed_at.get_or_insert(at);
            }
            match recovery.tick(now) {
                Advice::Connect => {
                    tries.push(at);
                    assert_eq!(recovery.tick(now), Advice::Wait, "one attempt at a time");
                    recovery.lost(now);
                }
                Advice::GiveUp => {
                    gone_at.get_or_insert(at);
                }
                Advice::Wait => {}
            }
        }
        assert_eq!(tries, [100, 300, 650, 1000, 1350, 1700]);
        assert_eq!((failed_at, gone_at), (Some(500), Some(2000)));
    }

    #[test]
    fn a_success_begins_anew() {
        let start = Instant::now();
        let mut recovery = Recovery::new(TIMERS);
        recovery.lost(start);
        assert_eq!(recovery.tick(start + ms(400)), Advice::Connect);
        recovery.connected();
        assert!(!recovery.fails_fast(start + ms(5000)));
        assert_eq!(recovery.tick(start + ms(5000)), Advice::Wait);
        recovery.lost(start + ms(5000));
        assert_eq!(recovery.tick(start + ms(5099)), Advice::Wait);
        assert_eq!(recovery.tick(start + ms(5100)), Advice::Connect);
    }

    #[test]
    fn without_timers_it_goes_on_for_ever() {
        let start = Instant::now();
        let timers = Timers { fast_fail: None, controller_loss: None, ..TIMERS };
        let mut recovery = Recovery::new(timers);
        recovery.lost(start);
        let later = start + Duration::from_secs(86_400);
        assert!(!recovery.fails_fast(later));
        assert_eq!(recovery.tick(later), Advice::Connect);
        for _ in 0..100 {
            recovery.lost(later);
        }
        assert_eq!(recovery.tick(later + ms(350)), Advice::Connect, "the delay does not overflow");
    }
}
