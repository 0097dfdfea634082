//! Stages against schedules by hand: a seek is 8 ms, a run of 64 blocks 1 ms, a fragment 4 ms.

use super::*;

const MS: u64 = 1_000_000;
const FRAGMENT: u64 = 1 << 20;
/// A sixty-fourth of a millisecond.
const BLOCK_NS: u64 = 15_625;

fn stages(most: usize) -> Stages {
    let model = Model { bytes_per_second: 262_144_000, depth: 2, ..Model::HDD };
    Stages::new(model, FRAGMENT, most)
}

/// Ends of all reads of clients until then.
fn ends(stages: &mut Stages, until: u64) -> Vec<(Part, u64)> {
    let mut ended = Vec::new();
    stages.advance(until, &mut ended);
    ended.into_iter().map(|(end, part)| (part, end)).collect()
}

fn fate(met: Met, waits: bool) -> Fate {
    Fate { met, waits }
}

/// | time  | what                          | head                                |
/// |-------|-------------------------------|-------------------------------------|
/// | 0     | 5, blocks 0 to 16, are missed | until 8.25; then 16 to 80 until 9.25 |
/// | 9.5   | 16 to 20 of it are read       | they are here                       |
/// | 9.5   | 140 to 150 are read           | 80 to 144 until 10.25, rest until 12 |
/// | 12    |                               | 0 to 16 until 20.25                 |
#[test]
fn what_was_missed_is_read_first_and_the_rest_follows() {
    let mut stages = stages(4);
    assert_eq!(stages.demand(0, 1, (0, 5), 0..16, true), fate(Met::Fetched, true));
    assert_eq!(ends(&mut stages, 9 * MS + MS / 2), [(1, 8 * MS + MS / 4)]);
    let now = 9 * MS + MS / 2;
    assert_eq!(stages.demand(now, 2, (0, 5), 16..20, false), fate(Met::Staged, false));
    assert_eq!(stages.demand(now, 3, (0, 5), 140..150, false), fate(Met::Staged, true));
    assert_eq!(ends(&mut stages, 30 * MS), [(3, 12 * MS)], "144 to 256 came in one read");
    assert_eq!((stages.busy_ns(), stages.ledger), (20 * MS + MS / 4, Ledger::default()));
    assert_eq!(stages.demand(30 * MS, 4, (0, 5), 0..256, false), fate(Met::Staged, false));
}

#[test]
fn demand_waits_for_one_run_of_a_stage() {
    let mut stages = stages(4);
    assert_eq!(stages.predict(0, (0, 9)), Answer::Taken);
    assert_eq!(ends(&mut stages, 8 * MS), []);
    // The run ends at 9 ms; then the block, for which the head has to go away and back.
    assert_eq!(stages.demand(8 * MS, 1, (0, 3), 7..8, false), fate(Met::Missed, true));
    assert_eq!(ends(&mut stages, 100 * MS), [(1, 17 * MS + BLOCK_NS)]);
    assert_eq!(stages.busy_ns(), 3 * 8 * MS + 4 * MS + BLOCK_NS);
}

#[test]
fn where_no_demand_has_come_lately_a_stage_is_read_at_once() {
    let mut stages = stages(4);
    let quiet = QUIET_NS + 1;
    assert_eq!(stages.predict(quiet, (0, 9)), Answer::Taken);
    assert_eq!(stages.demand(quiet + MS, 1, (0, 3), 7..8, false), fate(Met::Missed, true));
    assert_eq!(ends(&mut stages, 2 * quiet), [(1, quiet + 20 * MS + BLOCK_NS)]);
}

#[test]
fn a_stage_lets_demand_pass_but_not_for_ever() {
    let mut stages = stages(4);
    // Blocks of one place, one every microsecond: the first seeks, the head is never idle.
    for part in 1..=40 {
        let fate = stages.demand(part * 1000, part, (0, 3), 7..8, false);
        assert_eq!(fate, self::fate(Met::Missed, true));
        if part == 1 {
            assert_eq!(stages.predict(1000, (0, 9)), Answer::Taken);
        }
    }
    let ends = ends(&mut stages, 100 * MS);
    let first = 1000 + 8 * MS + BLOCK_NS;
    assert_eq!(ends[31], (32, first + 31 * BLOCK_NS), "32 of demand go before");
    // Then a run of the stage, with the seeks to it and back.
    assert_eq!(ends[32], (33, first + 32 * BLOCK_NS + 17 * MS));
    assert_eq!(ends[39], (40, first + 39 * BLOCK_NS + 17 * MS), "and the others stay together");
}

#[test]
fn one_stage_loads_and_few_wait() {
    let mut stages = stages(4);
    for fragment in [10, 20, 30, 40] {
        assert_eq!(stages.predict(0, (0, fragment)), Answer::Taken);
    }
    assert_eq!(stages.dropped, 1, "20 was the oldest of three that waited");
    assert_eq!(stages.demand(0, 1, (0, 20), 0..1, true), fate(Met::Missed, true));
    assert_eq!(stages.dropped, 2, "20 waits again, and 30 does not");
    ends(&mut stages, 100 * MS);
    for (fragment, there) in [(10, true), (20, true), (30, false), (40, true)] {
        assert_eq!(stages.stages.contains_key(&(0, fragment)), there, "{fragment}");
    }
}

#[test]
fn the_least_recently_used_stage_goes() {
    let mut stages = stages(2);
    assert_eq!(stages.predict(0, (0, 1)), Answer::Taken);
    ends(&mut stages, 20 * MS);
    assert_eq!(stages.predict(20 * MS, (0, 5)), Answer::Taken);
    ends(&mut stages, 40 * MS);
    assert_eq!(stages.demand(40 * MS, 1, (0, 1), 3..4, false), fate(Met::Staged, false));
    assert_eq!(stages.predict(40 * MS, (0, 7)), Answer::Taken);
    assert!(stages.stages.contains_key(&(0, 1)) && !stages.stages.contains_key(&(0, 5)));
    let Ledger { hits, late, wasted, .. } = stages.ledger;
    assert_eq!((hits, late, wasted), (1, 0, 1));
    let mut one = self::stages(1);
    assert_eq!(one.predict(0, (0, 1)), Answer::Taken);
    assert_eq!(one.demand(0, 1, (0, 2), 0..1, true), fate(Met::Missed, true));
    assert_eq!(one.predict(1, (0, 1)), Answer::Taken, "it is there");
}
