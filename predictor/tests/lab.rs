//! The laboratory on made and on real traces.

use std::path::PathBuf;

use predictor::Access;
use predictor::lab::{Contender, Setup, Verdict, footprint, run};
use predictor::lstm::Budget;
use predictor::prefetch::Settings;
use predictor::trace;

fn setup(contender: Contender, tier: usize) -> Setup {
    let budget = Budget { steps: 12 };
    Setup { budget, slice: 2048, ..Setup::new(contender, Settings::default(), tier) }
}

/// What holds for any prefetcher on any trace.
fn check(verdict: &Verdict, contender: Contender) {
    let ledger = verdict.ledger;
    assert!(verdict.ghost_misses <= verdict.touches);
    assert!(verdict.read_misses <= ledger.misses);
    assert!(ledger.hits + ledger.late + ledger.wasted <= ledger.issued);
    assert!(verdict.timely_percent() <= verdict.reduction_percent());
    // A fetch without need displaces at most one fragment that was needed.
    assert!(ledger.misses <= verdict.ghost_misses + ledger.issued);
    assert!(verdict.installed <= verdict.rounds);
    if contender == Contender::None {
        assert_eq!((ledger.issued, ledger.misses), (0, verdict.ghost_misses));
    }
}

#[test]
fn a_sequential_scan_is_foreseen() {
    let scan: Vec<Access> = (0..6000)
        .map(|i| {
            let fragment = i / 4;
            let time_ns = (i + 1) * 10_000_000;
            Access { time_ns, fragment, last_fragment: fragment, ..Access::default() }
        })
        .collect();
    assert_eq!(footprint(&scan), 1500);
    let follows = ["next-1", "readahead", "stride", "amp", "sarc", "lstm", "learned"];
    for contender in Contender::all() {
        let verdict = run(&scan, &setup(contender, 50)).unwrap();
        check(&verdict, contender);
        assert_eq!((verdict.touches, verdict.ghost_misses), (6000, 1500));
        if follows.contains(&contender.to_string().as_str()) {
            assert!(verdict.reduction_percent() > 95.0, "{contender}: {verdict:?}");
            assert!(verdict.extra_percent() < 3.0, "{contender}: {verdict:?}");
        }
    }
}

#[test]
fn a_real_trace_keeps_the_books_balanced() {
    let parts = [env!("CARGO_MANIFEST_DIR"), "..", "..", "shared", "traces", "msdtrs.csv.zst"];
    let path: PathBuf = parts.iter().collect();
    if !path.is_file() {
        println!("skipped: no shared traces beside the repository");
        return;
    }
    let shift = Settings::default().fragment_shift;
    let accesses: Vec<Access> = trace::open(&path)
        .unwrap()
        .take(12_000)
        .map(|record| Access::from_record(&record.unwrap(), 0, shift))
        .collect();
    let tier = footprint(&accesses) / 20;
    for contender in Contender::all() {
        let verdict = run(&accesses, &setup(contender, tier)).unwrap();
        check(&verdict, contender);
        assert_eq!(
            verdict,
            run(&accesses, &setup(contender, tier)).unwrap(),
            "runs repeat exactly"
        );
        println!("{contender} {:.1} {:.1}", verdict.reduction_percent(), verdict.extra_percent());
        if contender == Contender::Learned {
            assert!(verdict.extra_percent() <= 25.5, "{verdict:?}");
            assert!(verdict.reduction_percent() > 50.0, "{verdict:?}");
        }
        if contender == Contender::Lstm {
            assert!(verdict.rounds >= 4, "{verdict:?}");
        }
    }
}
