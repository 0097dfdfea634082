//! Two cores, for real: messages, sleep and wakes.

use super::*;
use crate::core::clock;
use crate::core::mailbox::{Mailboxes, Source, mesh};
use crate::core::park::Park;
use crate::core::reactor::{self, Poll};
use crate::core::wake::WakeSet;
use crate::units::{CoreId, Nanos};

/// Answers every message from a core with one; core 0 starts.
struct Peer {
    mail: Mailboxes<u64>,
    /// Answers still awaited (core 0), or messages still to answer (core 1).
    left: u64,
    waiting: bool,
    /// Random pauses before sending, or none.
    pause_seed: Option<u64>,
    send_at: Option<Nanos>,
}

impl Peer {
    fn new(mail: Mailboxes<u64>, rounds: u64, pause_seed: Option<u64>) -> Peer {
        let first = mail.core().get() == 0;
        let send_at = first.then(clock::now);
        Peer { mail, left: rounds, waiting: !first, pause_seed, send_at }
    }

    /// A pause of mostly nothing, sometimes around the spinning time, sometimes long.
    fn pause_ns(&mut self) -> u64 {
        let Some(seed) = &mut self.pause_seed else { return 0 };
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match *seed >> 48 {
            0..64_000 => 0,
            bits @ 64_000..65_500 => (bits - 64_000) * 40,
            bits => (bits - 65_500) * 20_000,
        }
    }
}

impl Poll for Peer {
    fn poll(&mut self, now: Nanos) -> bool {
        let mut worked = false;
        while let Some((source, n)) = self.mail.receive() {
            assert!(matches!(source, Source::Core(_)), "only cores send here");
            assert_eq!(n, self.left, "messages arrive once each and in order");
            self.waiting = false;
            if self.mail.core().get() == 0 {
                self.left -= 1;
            }
            let pause_ns = self.pause_ns();
            self.send_at = (self.left > 0).then(|| now.after(pause_ns));
            worked = true;
        }
        if self.send_at.is_some_and(|at| at <= now) {
            self.send_at = None;
            let to = CoreId::new(1 - self.mail.core().get());
            self.mail.send(to, self.left);
            if self.mail.core().get() == 1 {
                self.left -= 1;
            }
            self.waiting = true;
            worked = true;
        }
        worked
    }
    fn next_deadline(&self) -> Option<Nanos> {
        self.send_at
    }
    fn arm(&mut self) {}
    fn disarm(&mut self) {}
    fn overdue(&mut self) -> bool {
        self.mail.overdue()
    }
    fn done(&self) -> bool {
        self.left == 0
    }
}

/// Plays `rounds` round trips; (nanoseconds, sleeps, lost wakes).
fn ping_pong(rounds: u64, pause: bool, spin_ns: u64) -> (u64, u64, u64) {
    let wake = WakeSet::new(2).expect("eventfds");
    let (boxes, _control) = mesh(&wake, 4, 4);
    let cpus = allowed_cpus();
    let start = clock::now();
    let threads: Vec<_> = boxes
        .into_iter()
        .enumerate()
        .map(|(n, mail)| {
            let wake = wake.clone();
            let cpu = cpus[n % cpus.len()];
            spawn_core(Some(cpu), "ping", move || async move {
                let mut park = Park::new(wake, mail.core(), spin_ns);
                let mut peer = Peer::new(mail, rounds, pause.then_some(n as u64 + 1));
                reactor::run(&mut peer, &mut park);
                (park.sleeps(), park.lost_wakes())
            })
            .expect("a core starts")
        })
        .collect();
    let ends: Vec<(u64, u64)> = threads.into_iter().map(|t| t.join().expect("ends well")).collect();
    let ns = clock::now().since(start);
    (ns, ends.iter().map(|e| e.0).sum(), ends.iter().map(|e| e.1).sum())
}

#[test]
fn no_message_is_lost_with_random_pauses() {
    // Spinning for less than a wake takes: one sleep leads to the next. For
    // more: mostly polling, with sleeps at the long pauses.
    for (rounds, spin_ns) in [(15_000, 5_000), (120_000, 200_000)] {
        let (ns, sleeps, lost) = ping_pong(rounds, true, spin_ns);
        println!("{} messages, {sleeps} sleeps in {} ms", 2 * rounds, ns / 1_000_000);
        assert!(sleeps > 0, "the test has to sleep to test anything");
        assert_eq!(lost, 0, "the beat alone found work");
    }
}

#[test]
fn every_message_wakes_a_sleeper() {
    let (ns, sleeps, lost) = ping_pong(2_000, false, 0);
    println!("parked round trip: {} ns, {sleeps} sleeps", ns / 2_000);
    assert!(sleeps > 0, "the test has to sleep to test anything");
    assert_eq!(lost, 0, "the beat alone found work");
}

#[test]
fn polling_round_trip_is_printed() {
    let (ns, _, lost) = ping_pong(200_000, false, 1_000_000_000);
    println!("polling round trip: {} ns", ns / 200_000);
    assert_eq!(lost, 0, "the beat alone found work");
}

/// Waits for one message from the control thread.
struct Quiet {
    mail: Mailboxes<u64>,
    stopped: bool,
}

impl Poll for Quiet {
    fn poll(&mut self, _now: Nanos) -> bool {
        self.stopped |= self.mail.receive().is_some();
        self.stopped
    }
    fn next_deadline(&self) -> Option<Nanos> {
        None
    }
    fn arm(&mut self) {}
    fn disarm(&mut self) {}
    fn overdue(&mut self) -> bool {
        self.mail.overdue()
    }
    fn done(&self) -> bool {
        self.stopped
    }
}

/// Nanoseconds of CPU that all threads named `name` have used.
fn cpu_ns(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    tasks
        .map(|task| task.expect("an entry").path())
        .filter(|task| read(task.join("comm")).starts_with(name))
        .map(|task| read(task.join("schedstat")))
        .filter_map(|stat| stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()))
        .sum()
}

#[test]
fn a_parked_core_wakes_for_the_control_thread() {
    let wake = WakeSet::new(1).expect("eventfds");
    let (mut boxes, mut control) = mesh(&wake, 4, 4);
    let mail = boxes.pop().expect("one core");
    let thread = spawn_core(None, "quiet", move || async move {
        let mut park = Park::new(wake, mail.core(), reactor::SPIN_NS);
        reactor::run(&mut Quiet { mail, stopped: false }, &mut park);
        park.lost_wakes()
    })
    .expect("a core starts");
    std::thread::sleep(Duration::from_millis(500));
    let (before, at) = (cpu_ns("quiet"), clock::now());
    std::thread::sleep(Duration::from_secs(3));
    let (used, passed) = (cpu_ns("quiet") - before, clock::now().since(at));
    println!("parked: {:.3} % of a core over 3 s", 100.0 * used as f64 / passed as f64);
    assert_eq!(control.send(CoreId::new(0), 1), Ok(()));
    assert_eq!(thread.join().expect("ends well"), 0);
}

#[test]
fn a_panic_on_a_core_is_an_error_of_join() {
    let thread = spawn_core(None, "panics", || async { assert_eq!(1, 2, "on purpose") });
    assert!(matches!(thread.expect("starts").join(), Err(ExecutorError::Executor(_))));
}

#[test]
fn small_memlock_names_the_cure() {
    let error = check_memlock(64 << 10).expect_err("too small").to_string();
    assert!(error.contains("64 KiB") && error.contains("LimitMEMLOCK"), "{error}");
}

#[test]
fn a_foreign_cpu_falls_back_to_no_pinning() {
    let thread = spawn_core(Some(100_000), "unpinned", || async { allowed_cpus() });
    assert_eq!(thread.expect("starts").join().expect("ends well"), allowed_cpus());
}
