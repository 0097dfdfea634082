//! The keep-alive timer, and how long a controller may stay disabled.

use super::*;

fn at(seconds: u64) -> Nanos {
    Nanos::new((1 + seconds) * SECOND)
}

#[test]
fn it_expires_without_commands() {
    let mut bench = Bench::enabled(Kind::Io);
    assert_eq!(bench.controller.deadline(), Some(at(5)));
    assert_eq!(bench.controller.tick(at(5)), None);
    bench.now = at(5);
    assert_eq!(bench.status(&command(admin::KEEP_ALIVE, 0, &[], 0)), Status::SUCCESS);
    assert_eq!(bench.controller.tick(at(10)), None);
    assert_eq!(bench.controller.tick(at(11)), Some("keep-alive timed out"));
    assert_eq!(bench.get(offset::CSTS, false).result, 0b10, "fatal");
}

#[test]
fn traffic_of_io_queues_counts() {
    let mut bench = Bench::enabled(Kind::Io);
    bench.controller.traffic(at(4));
    assert_eq!(bench.controller.tick(at(9)), None);
    bench.controller.traffic(at(3));
    assert_eq!(bench.controller.tick(at(10)), Some("keep-alive timed out"), "time goes on");
}

#[test]
fn the_timeout_is_rounded_up_and_can_be_changed() {
    let mut bench = Bench::enabled(Kind::Io);
    let set = |ms| command(admin::SET_FEATURES, 0, &[0x0f, ms], 0);
    assert_eq!(bench.status(&set(1001)), Status::SUCCESS);
    assert_eq!(bench.controller.tick(at(2)), None);
    assert!(bench.controller.tick(at(3)).is_some());
    let mut bench = Bench::enabled(Kind::Io);
    assert_eq!(bench.status(&set(0)), Status::SUCCESS);
    assert_eq!(bench.controller.tick(at(100_000)), None);
    assert_eq!(bench.status(&set(u32::MAX)), Status::KEEP_ALIVE_INVALID.with_dnr());
    assert_eq!(bench.controller.kato_ms(), 0);
}

#[test]
fn discovery_without_a_timeout_ends_after_two_minutes() {
    let identity = Bench::connected(Kind::Discovery).controller.identity().clone();
    let mut controller = Controller::new(identity, LIMITS, 0, at(0));
    assert_eq!(controller.kato_ms(), DISCOVERY_KATO_MS);
    assert_eq!(controller.tick(at(120)), None);
    assert!(controller.tick(at(121)).is_some());
}

#[test]
fn a_controller_is_not_kept_disabled() {
    let identity = Bench::connected(Kind::Io).controller.identity().clone();
    let mut controller = Controller::new(identity, LIMITS, 0, at(0));
    assert_eq!(controller.deadline(), Some(at(120)));
    assert_eq!(controller.tick(at(120)), None);
    assert!(controller.tick(at(121)).is_some_and(|why| why.contains("not enabled")));
}
