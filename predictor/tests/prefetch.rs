//! What a core stages ahead, through the public interface.

use predictor::Access;
use predictor::ledger::Lru;
use predictor::online::{Met, Predictor};
use predictor::prefetch::{Outcome, Predictions, PrefetchKind, Prefetcher, Settings};

const MILLISECOND: u64 = 1_000_000;

fn read(fragment: u64, time_ns: u64) -> Access {
    Access::new(time_ns, 0, false, fragment << 20, 1 << 20, 20)
}

/// A walk over fragments, one each `gap_ns`.
fn walk(steps: u64, gap_ns: u64) -> impl Iterator<Item = Access> {
    (0..steps).map(move |step| read(1000 + step, gap_ns * (step + 1)))
}

fn proposals(prefetcher: &mut Prefetcher, access: &Access) -> Vec<u64> {
    let mut out = Predictions::new();
    prefetcher.observe(access, &mut out);
    assert!(out.as_slice().iter().all(|p| p.volume == access.volume && p.score <= 1.0));
    out.as_slice().iter().map(|p| p.fragment).collect()
}

#[test]
fn fast_streams_are_followed_further() {
    let farthest = |gap_ns: u64, prefetch_depth: usize| {
        let settings = Settings { prefetch_depth, ..Settings::default() };
        let mut prefetcher = Prefetcher::new(PrefetchKind::Readahead, settings).unwrap();
        let ahead = |access: Access| {
            let proposed = proposals(&mut prefetcher, &access);
            proposed.into_iter().map(|fragment| fragment - access.fragment).max()
        };
        walk(40, gap_ns).filter_map(ahead).max()
    };
    assert_eq!(farthest(1000 * MILLISECOND, 4), Some(1));
    assert_eq!(farthest(MILLISECOND, 4), Some(4));
    assert_eq!(farthest(MILLISECOND, 2), Some(2));
}

#[test]
fn no_request_stages_more_than_the_depth() {
    // Forty groups of eight fragments far apart, each announced by its first: all of what
    // follows could be staged there.
    let places = (0..8000_u64).map(|n| n / 8 % 40 * 64 + (n % 8).pow(2) * 5000);
    let most = |prefetch_depth: usize| {
        let settings = Settings { prefetch_depth, ..Settings::default() };
        let mut predictor = Predictor::new(settings, 200).unwrap();
        let mut tier = Lru::new(200);
        let mut most = 0;
        for (fragment, n) in places.clone().zip(1..) {
            let access = read(fragment, n * 50 * MILLISECOND);
            let there = tier.get(&fragment).is_some();
            let mut stages = Vec::new();
            predictor.touch(1, &access, fragment, || 0, |_, fragment| stages.push(fragment));
            let met = if there { Met::Staged } else { Met::Fetched };
            predictor.met(0, access.fragments(), met, true);
            most = most.max(stages.len());
            for fragment in stages.into_iter().chain([fragment]) {
                tier.insert(fragment, ());
            }
        }
        most
    };
    assert_eq!([1, 2, 3].map(most), [1, 2, 3]);
    assert!((4..=16).contains(&most(16)), "{}", most(16));
}

#[test]
fn writes_and_repeated_fragments_trigger_nothing() {
    for kind in [PrefetchKind::None, PrefetchKind::Readahead] {
        let mut prefetcher = Prefetcher::new(kind, Settings::default()).unwrap();
        for access in walk(30, MILLISECOND) {
            let write = Access { write: true, ..access };
            assert!(proposals(&mut prefetcher, &write).is_empty());
            assert!(proposals(&mut prefetcher, &access).is_empty(), "no crossing, {kind}");
        }
        assert_eq!(prefetcher.kind(), kind);
    }
}

#[test]
fn a_harmful_prefetcher_falls_silent() {
    let mut prefetcher = Prefetcher::new(PrefetchKind::Readahead, Settings::default()).unwrap();
    while !prefetcher.is_silent() {
        prefetcher.feedback(Outcome::Wasted);
    }
    assert!(walk(200, 0).all(|access| proposals(&mut prefetcher, &access).is_empty()));
}

#[test]
fn what_crosses_threads_may() {
    fn send<T: Send>() {}
    send::<Prefetcher>();
    send::<Predictor>();
    send::<predictor::deep::Trainer>();
}
