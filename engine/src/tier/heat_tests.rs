//! Tests of counting and of looking forecasts up.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn volume(number: u32) -> VolumeId {
    VolumeId::new(number)
}

proptest! {
    /// Against a map without bounds: as long as nothing is lost, every count is exact; what is
    /// lost is counted.
    #[test]
    fn counts_are_exact_or_lost(
        requests in proptest::collection::vec((0_u32..3, 0_u32..6000, any::<bool>()), 0..6000),
    ) {
        let mut counts = HeatCounts::default();
        let mut truth: HashMap<(u32, u32), (u32, u32)> = HashMap::new();
        for (number, segment, write) in &requests {
            counts.count(volume(*number), *segment, *write);
            let entry = truth.entry((*number, *segment)).or_default();
            if *write { entry.1 += 1 } else { entry.0 += 1 }
        }
        let mut counted = 0;
        for place in counts.iter() {
            let (reads, writes) = truth[&(place.volume.get(), place.segment)];
            prop_assert_eq!((place.reads, place.writes), (reads, writes));
            prop_assert_eq!(counts.of(place.volume, place.segment), reads + writes);
            counted += u64::from(reads + writes);
        }
        prop_assert_eq!(counted + counts.lost(), requests.len() as u64);
    }
}

#[test]
fn all_places_are_used_before_much_is_lost() {
    let mut counts = HeatCounts::default();
    let quarter = u32::try_from(MOST_SEGMENTS / 4).unwrap();
    (0..quarter).for_each(|segment| counts.count(volume(1), segment, false));
    assert_eq!((counts.iter().count(), counts.lost()), (MOST_SEGMENTS / 4, 0));
    (0..7 * quarter).for_each(|segment| counts.count(volume(2), segment, true));
    assert!(counts.iter().count() > MOST_SEGMENTS * 95 / 100, "{}", counts.iter().count());
    assert_eq!(counts.iter().count() as u64 + counts.lost(), u64::from(8 * quarter));
    let known = counts.lost();
    counts.count(volume(1), 0, true);
    assert_eq!((counts.of(volume(1), 0), counts.lost()), (2, known), "the known are still counted");
    counts.clear();
    assert_eq!((counts.iter().count(), counts.lost(), counts.of(volume(1), 0)), (0, 0, 0));
}

#[test]
fn forecasts_are_found_by_volume_and_segment() {
    let heat = |expected: f32| SegmentHeat { expected, recent: 1.0 };
    let of = |number, segments: &[u32], other| VolumeHeat {
        volume: volume(number),
        segments: segments.iter().map(|s| (*s, heat(*s as f32))).collect(),
        other: heat(other),
    };
    let forecast = HeatForecast::new(1, vec![of(7, &[1, 5], 0.5), of(3, &[2], 0.0)]);
    assert_eq!(forecast.of(volume(7), 5), heat(5.0));
    assert_eq!(forecast.of(volume(7), 4), heat(0.5));
    assert_eq!(forecast.of(volume(3), 2), heat(2.0));
    assert_eq!(forecast.of(volume(4), 2), SegmentHeat::default());
}
