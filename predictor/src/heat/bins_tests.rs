//! The heatmap by hand and against a plain list of requests.

use proptest::prelude::*;

use super::*;

const BIN_NS: u64 = 1_000_000_000;

fn heat(ring_bins: u64, max_segments: usize) -> Heatmap {
    Heatmap::new(HeatShape::new(1, ring_bins, max_segments).unwrap())
}

#[test]
fn reads_and_writes_are_kept_apart() {
    let mut heat = heat(4, 2);
    let segment = Segment::new(7);
    heat.record(10 * BIN_NS, segment, false, 3);
    heat.record(10 * BIN_NS + 5, segment, true, 2);
    heat.advance(12 * BIN_NS);
    let row = heat.row(segment).unwrap();
    assert_eq!(heat.counts(row, 10), Counts { reads: 3, writes: 2 });
    assert_eq!((heat.oldest(), heat.open(), heat.closed_bins()), (10, 12, 2));
    assert_eq!(heat.history(row, 9).collect::<Vec<_>>(), [5.0, 0.0]);
    assert_eq!(heat.volume_total(10), 5.0);
}

#[test]
fn late_requests_count_in_the_open_bin() {
    let mut heat = heat(4, 2);
    heat.record(10 * BIN_NS, Segment::new(1), false, 1);
    heat.record(9 * BIN_NS, Segment::new(1), false, 1);
    assert_eq!(heat.total(1, 10), 2.0);
}

#[test]
fn a_full_heatmap_gives_away_idle_rows_only() {
    let mut heat = heat(4, 2);
    heat.record(0, Segment::new(1), false, 1);
    heat.record(3 * BIN_NS, Segment::new(2), false, 1);
    heat.record(3 * BIN_NS, Segment::new(3), false, 1);
    assert_eq!((heat.row(Segment::new(3)), heat.total(0, 3)), (None, 1.0));
    heat.record(6 * BIN_NS, Segment::new(3), false, 1);
    assert_eq!(heat.row(Segment::new(3)), Some(1));
    assert_eq!(heat.row(Segment::new(1)), None);
    assert_eq!(heat.history(1, 9).sum::<f64>(), 0.0);
}

#[test]
fn a_leap_in_time_empties_the_ring() {
    let mut heat = heat(4, 2);
    heat.record(0, Segment::new(1), false, 1);
    heat.record(u64::MAX, Segment::new(1), false, 1);
    assert_eq!(heat.closed_bins(), 4);
    assert_eq!(heat.history(1, 9).sum::<f64>(), 0.0);
    heat.record(0, Segment::new(1), false, u32::MAX);
    heat.record(0, Segment::new(1), false, u32::MAX);
    assert_eq!(heat.total(1, heat.open()), f64::from(u32::MAX));
}

#[test]
fn an_access_counts_in_each_segment_it_touches() {
    let mut heat = heat(4, 100);
    let access = Access {
        time_ns: 1,
        volume: 0,
        write: true,
        fragment: 63,
        last_fragment: 128,
        ..Access::default()
    };
    heat.record_access(&access);
    let counted = (0..3).map(|s| heat.total(heat.row(Segment::new(s)).unwrap(), 0));
    assert_eq!(counted.collect::<Vec<_>>(), [1.0, 1.0, 1.0]);
    heat.record_access(&Access { fragment: 0, last_fragment: u64::MAX, ..access });
    assert_eq!(heat.rows(), 65);
}

proptest! {
    #[test]
    fn the_ring_holds_what_was_counted(
        steps in proptest::collection::vec((0_u64..4, 0_u64..6, 0_u32..5), 1..80),
    ) {
        let mut heat = heat(8, 3);
        let mut bin = 0;
        let mut list = Vec::new();
        for (step, segment, requests) in steps {
            bin += step;
            heat.record(bin * BIN_NS, Segment::new(segment), false, requests);
            list.push((bin, f64::from(requests)));
            prop_assert!(heat.memory_bytes() <= Heatmap::memory_bound_bytes(heat.shape()));
            prop_assert!(heat.rows() <= 4);
        }
        for bin in heat.oldest()..=heat.open() {
            let listed: f64 = list.iter().filter(|(b, _)| *b == bin).map(|(_, r)| r).sum();
            let rows: f64 = (0..heat.rows()).map(|row| heat.total(row, bin)).sum();
            prop_assert_eq!(listed, rows);
            prop_assert_eq!(listed, heat.volume_total(bin));
        }
    }
}

#[test]
fn longer_bins_hold_the_same_requests() {
    let mut heat = Heatmap::new(HeatShape::new(30, 40, 4).unwrap());
    for bin in 0..25_u64 {
        let time_ns = bin * heat.shape().bin_ns();
        heat.record(time_ns, Segment::new(bin % 2), bin % 3 == 0, 2);
    }
    let longer = heat.rebinned(HeatShape::new(300, 40, 4).unwrap());
    assert_eq!((longer.oldest(), longer.open()), (0, 2));
    for segment in [0, 1].map(Segment::new) {
        let (row, other) = (heat.row(segment).unwrap(), longer.row(segment).unwrap());
        for bin in 0..3 {
            assert_eq!(longer.total(other, bin), heat.sum(row, 10 * bin..10 * bin + 10));
        }
        assert_eq!(longer.counts(other, 0), Counts { reads: 6, writes: 4 });
    }
    assert_eq!(heat.rebinned(HeatShape::new(40, 40, 4).unwrap()).rows(), 1, "30 divides no 40");
}
