//! The device against schedules by hand, and what holds in any.

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

/// Fragments of 10 ms of transfer, 1.5 MB; two stages may wait.
fn disk() -> Disk {
    Disk::new(Model { depth: 2, near_bytes: 0, ..Model::HDD }, 1_500_000)
}

fn key(fragment: u64) -> Key {
    (0, fragment)
}

#[test]
fn seeks_queue_up_and_neighbours_are_cheap() {
    let mut disk = disk();
    assert_eq!(disk.demand(key(7)), 18 * MS);
    assert_eq!(disk.demand(key(8)), 28 * MS, "it begins where the head stands");
    assert_eq!((disk.demand(key(20)), disk.demanded()), (46 * MS, 3));
    disk.advance(28 * MS);
    assert_eq!(disk.demanded(), 1, "two have ended by then");
    disk.advance(40 * MS);
    assert_eq!(disk.demand((1, 21)), 64 * MS, "the same place of another volume is far");
    disk.stage((1, 90));
    assert_eq!(disk.demanded(), 2, "a stage is no demand");
    disk.forget((1, 90));
    disk.advance(100 * MS);
    assert_eq!(disk.demanded(), 0);
    assert_eq!(disk.demand((1, 22)), 110 * MS, "idle time is not saved up");
    assert_eq!(disk.busy_ns, 74 * MS);
}

#[test]
fn demand_goes_before_stages_but_lets_the_head_end() {
    let mut disk = disk();
    disk.stage(key(5));
    disk.stage(key(50));
    // At the same moment demand comes first.
    assert_eq!(disk.demand(key(9)), 18 * MS);
    disk.advance(19 * MS);
    // The stage of 5 began at 18 ms and ends at 36 ms; 50 still waits.
    assert_eq!(disk.demand(key(30)), 54 * MS);
    assert_eq!(disk.need(key(5)), 36 * MS);
    disk.advance(80 * MS);
    assert_eq!(disk.need(key(50)), 72 * MS);
    let order: Vec<u64> = disk.served.iter().map(|served| served.key.1).collect();
    assert_eq!(order, [9, 5, 30, 50]);
}

#[test]
fn a_stage_that_is_needed_while_it_waits_becomes_demand() {
    let mut disk = disk();
    disk.demand(key(1));
    disk.stage(key(40));
    disk.stage(key(60));
    disk.advance(5 * MS);
    assert_eq!(disk.need(key(60)), 36 * MS, "before the stage that came earlier");
    disk.advance(200 * MS);
    assert_eq!(disk.need(key(40)), 54 * MS);
    assert_eq!(disk.served.len(), 3, "60 is fetched once");
}

#[test]
fn the_oldest_stage_is_dropped_and_fetched_on_demand() {
    let mut disk = disk();
    disk.demand(key(1));
    [40, 60, 80].into_iter().for_each(|fragment| disk.stage(key(fragment)));
    assert_eq!(disk.dropped, 1);
    disk.advance(200 * MS);
    assert_eq!((disk.need(key(60)), disk.need(key(80))), (36 * MS, 54 * MS));
    assert_eq!(disk.need(key(40)), 218 * MS);
    assert_eq!(disk.need(key(40)), 218 * MS, "the second in need of it waits as long");
}

#[test]
fn what_is_forgotten_is_not_fetched() {
    let mut disk = disk();
    disk.demand(key(1));
    disk.stage(key(40));
    disk.forget(key(40));
    disk.advance(500 * MS);
    assert_eq!((disk.served.len(), disk.busy_ns), (1, 18 * MS));
    assert_eq!(disk.need(key(40)), 500 * MS, "resident by other means");
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Demand(u64),
    Stage(u64),
    Forget(u64),
}

fn event() -> impl Strategy<Value = (u64, Event)> {
    let what = prop_oneof![
        (0..30_u64).prop_map(Event::Demand),
        (0..30_u64).prop_map(Event::Stage),
        (0..30_u64).prop_map(Event::Forget),
    ];
    (prop_oneof![Just(0), 1..60 * MS], what)
}

proptest! {
    #[test]
    fn any_schedule_is_possible_for_one_head(events in prop::collection::vec(event(), 1..200)) {
        let mut disk = disk();
        let mut now = 0;
        for (gap, event) in events {
            now += gap;
            disk.advance(now);
            let (begun, waited) = (disk.served.len(), disk.waiting.len());
            let head_free = disk.free_ns;
            match event {
                Event::Demand(n) => {
                    let known = disk.states.get(&key(n)).copied();
                    let end = if known.is_some() { disk.need(key(n)) } else { disk.demand(key(n)) };
                    if !matches!(known, Some(State::Arrives(_))) {
                        // Whatever stages wait, it is the next that the head takes.
                        prop_assert_eq!(disk.served.len(), begun + 1);
                        prop_assert_eq!(disk.served[begun].key, key(n));
                        prop_assert_eq!(disk.served[begun].begin_ns, head_free.max(now));
                        prop_assert!(end >= now + 10 * MS);
                    }
                }
                Event::Stage(n) if !disk.states.contains_key(&key(n)) => {
                    disk.stage(key(n));
                    prop_assert_eq!(disk.waiting.len(), (waited + 1).min(2));
                }
                Event::Stage(_) => {}
                Event::Forget(n) => disk.forget(key(n)),
            }
            prop_assert_eq!(disk.served.last().map_or(0, |served| served.end_ns), disk.free_ns);
        }
        for pair in disk.served.windows(2) {
            prop_assert!(pair[0].end_ns <= pair[1].begin_ns, "one thing at a time");
        }
        for served in &disk.served {
            prop_assert!(served.since_ns <= served.begin_ns);
            prop_assert!(served.begin_ns + 10 * MS <= served.end_ns);
        }
        let spent: u64 = disk.served.iter().map(|served| served.end_ns - served.begin_ns).sum();
        prop_assert_eq!(spent, disk.busy_ns);
    }
}
