//! The laboratory on made and on real traces.

use std::path::PathBuf;
use std::time::Duration;

use predictor::Access;
use predictor::lab::{self, Contender, Setup, Verdict, footprint, shuffled};
use predictor::prefetch::Settings;
use predictor::rank::Part;
use predictor::trace;

const SEEK_NS: u64 = 8_000_000;
/// Transfer of 1 MiB at 150 MB/s.
const FETCH_NS: u64 = 6_990_506;

fn setup(contender: Contender, tier: usize) -> Setup {
    Setup::new(contender, Settings::default(), tier)
}

fn run(accesses: &[Access], setup: &Setup) -> Verdict {
    lab::run(accesses, setup, Duration::default, |_| ()).unwrap().verdict
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
    let Some(device) = verdict.device else { return };
    let fetches = ledger.misses + ledger.issued;
    assert!(device.with.head_ns >= verdict.read_misses * FETCH_NS);
    assert!(device.with.head_ns <= fetches * (FETCH_NS + SEEK_NS));
    assert!(device.with.late <= ledger.hits + ledger.late);
    assert!(device.with.dropped <= ledger.issued);
    assert!(device.with.p50_ns <= device.with.p99_ns);
    if contender == Contender::None {
        assert_eq!(device.with, device.without);
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
    let follows =
        ["next-1", "readahead", "readahead-core", "stride", "amp", "sarc", "wide", "learned"];
    for contender in Contender::all() {
        let verdict = run(&scan, &setup(contender, 50));
        check(&verdict, contender);
        assert_eq!((verdict.touches, verdict.ghost_misses), (6000, 1500));
        if follows.contains(&contender.to_string().as_str()) {
            assert!(verdict.reduction_percent() > 95.0, "{contender}: {verdict:?}");
            assert!(verdict.extra_percent() < 3.0, "{contender}: {verdict:?}");
        }
    }
}

/// Reads of eight fragments far apart, over and over, among strangers: followers that come
/// back, no walk. One each 50 ms, so that a disk has time to stage.
fn associations() -> Vec<Access> {
    let stranger = |n: u64| (1 << 20) + n * 7919;
    let fragments = (0..12_000_u64).map(|n| match n % 12 {
        m if m < 8 => (n / 12 % 40) * 64 + m * m * 5000,
        m => stranger(n * 5 + m),
    });
    let reads = fragments.zip(1..).map(|(fragment, n)| Access {
        time_ns: n * 50_000_000,
        fragment,
        last_fragment: fragment,
        offset_bytes: fragment << 20,
        size_bytes: 4096,
        ..Access::default()
    });
    reads.collect()
}

#[test]
fn the_oracles_bound_what_can_be_learned() {
    let accesses = associations();
    let of = |contender| run(&accesses, &setup(contender, 200));
    let [learned, chosen, oracle] =
        [Contender::Learned, Contender::OracleCandidates, Contender::Oracle].map(of);
    for verdict in [learned, chosen, oracle] {
        check(&verdict, Contender::Oracle);
    }
    assert!(oracle.reduction_percent() > 99.9 && oracle.timely_percent() > 99.9, "{oracle:?}");
    assert!(oracle.extra_percent().abs() < 0.1 && oracle.accuracy() > Some(0.99), "{oracle:?}");
    let device = oracle.device.unwrap();
    assert!(device.with.total_ns * 100 < device.without.total_ns, "{device:?}");
    // Two thirds come back, the strangers do not and cannot be candidates.
    let gain = [learned, chosen].map(|verdict| verdict.reduction_percent());
    assert!(gain[0] > 30.0 && gain[1] > gain[0] && gain[1] < 70.0, "{gain:?}");
    assert!(chosen.accuracy() > Some(0.9), "{chosen:?}");
    let hidden = [learned, chosen, oracle].map(|verdict| verdict.device.unwrap().hidden_ms());
    assert!(0.0 < hidden[0] && hidden[0] < hidden[1] && hidden[1] < hidden[2], "{hidden:?}");
}

/// A write after each read, of a fragment that is never read.
fn with_writes(reads: &[Access]) -> Vec<Access> {
    let write = |read: &Access| {
        let fragment = (1 << 30) + read.fragment;
        Access { write: true, fragment, last_fragment: fragment, ..*read }
    };
    reads.iter().flat_map(|read| [*read, write(read)]).collect()
}

#[test]
fn writes_that_wait_for_nothing_are_no_misses() {
    let reads = associations();
    let both = with_writes(&reads);
    let none = run(&reads, &setup(Contender::None, 200));
    for contender in [Contender::None, Contender::Without(Part::Tower), Contender::Oracle] {
        let verdict = run(&both, &Setup { writes_free: true, ..setup(contender, 200) });
        check(&verdict, contender);
        assert_eq!((verdict.touches, verdict.ghost_misses), (12_000, none.ghost_misses));
        assert_eq!(verdict.read_misses, verdict.ledger.misses);
        assert_eq!(verdict.crossings, 24_000, "but they are followed");
        match contender {
            Contender::None => assert_eq!(verdict.device, none.device),
            Contender::Without(Part::Tower) => {
                assert!(verdict.reduction_percent() > 30.0, "{verdict:?}")
            }
            _ => assert!(verdict.reduction_percent() > 99.9, "{verdict:?}"),
        }
    }
}

#[test]
fn where_demand_waits_nobody_is_made_to_wait_longer() {
    let slow = associations();
    // Fifty times as fast, a disk cannot keep up with demand alone.
    let fast = |read: &Access| Access { time_ns: read.time_ns / 50, ..*read };
    let fast: Vec<Access> = slow.iter().map(fast).collect();
    let of = |accesses: &[Access], writes_free| {
        run(accesses, &Setup { writes_free, ..setup(Contender::Without(Part::Tower), 200) })
    };
    let [slow, quiet, counted] = [of(&slow, true), of(&fast, true), of(&fast, false)];
    let hidden = |verdict: &Verdict| verdict.device.unwrap().hidden_ms();
    assert!(hidden(&slow) > 0.0 && slow.ledger.issued > 2000, "{slow:?}");
    assert!(hidden(&quiet) >= 0.0 && quiet.ledger.issued < 100, "{quiet:?}");
    assert!(counted.ledger.issued > 2000, "the counts alone know no device: {counted:?}");
}

#[test]
fn in_a_random_order_the_ranker_does_no_harm() {
    let accesses = associations();
    let mixed = shuffled(&accesses, 5);
    let of = |accesses: &[Access], contender| run(accesses, &setup(contender, 200));
    let learned = of(&mixed, Contender::Learned);
    assert!(learned.reduction_percent() > -0.2, "{learned:?}");
    assert!(learned.extra_percent() < 25.5, "{learned:?}");
    let ordered = of(&accesses, Contender::Learned);
    let [gain, without] = [ordered, learned].map(|verdict| verdict.reduction_percent());
    assert!(gain > without + 20.0, "its gain came from the order: {gain} and {without}");
    // The control shows those who do harm.
    let blind = of(&mixed, "next-4".parse().unwrap());
    assert!(blind.reduction_percent() < -1.0, "{blind:?}");
}

#[test]
fn without_a_clock_all_is_in_time_and_no_device_is_imagined() {
    let mut accesses = associations();
    accesses.iter_mut().for_each(|access| access.time_ns = 0);
    let made =
        lab::run(&accesses, &setup(Contender::Learned, 200), Duration::default, |_| ()).unwrap();
    let verdict = made.verdict;
    assert_eq!((verdict.device, verdict.ledger.late), (None, 0));
    assert!((verdict.timely_percent() - verdict.reduction_percent()).abs() < 1e-9);
    let last = made.curve.last().unwrap();
    assert_eq!((last.at, last.misses), (12_000, verdict.ledger.misses));
    assert!(made.curve.is_sorted_by_key(|point| (point.at, point.misses)));
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
        let verdict = run(&accesses, &setup(contender, tier));
        check(&verdict, contender);
        assert_eq!(verdict, run(&accesses, &setup(contender, tier)), "runs repeat exactly");
        println!("{contender} {:.1} {:.1}", verdict.reduction_percent(), verdict.extra_percent());
        if contender == Contender::Learned {
            assert!(verdict.extra_percent() <= 25.5, "{verdict:?}");
            assert!(verdict.reduction_percent() > 50.0, "{verdict:?}");
            assert!(verdict.rounds > 10 && verdict.installed > 0, "{verdict:?}");
        }
    }
}
