//! The prefetchers and the training behind them, through the public interface.

use std::sync::{Arc, OnceLock};

use predictor::Access;
use predictor::lstm::{Budget, Trainer, Weights};
use predictor::prefetch::{Outcome, Predictions, PrefetchKind, Prefetcher, Settings};

/// A step of this cycle never repeats its predecessor: readahead sees nothing.
const CYCLE: [i64; 4] = [3, 5, -2, 7];
const MILLISECOND: u64 = 1_000_000;

fn read(fragment: u64, time_ns: u64) -> Access {
    Access { time_ns, fragment, last_fragment: fragment, ..Access::default() }
}

/// A walk along [`CYCLE`] from `start`, one step each `gap_ns`.
fn walk(start: u64, steps: usize, gap_ns: u64) -> Vec<Access> {
    let mut fragment = start;
    let mut out = vec![read(fragment, gap_ns)];
    for step in 0..steps {
        fragment = fragment.checked_add_signed(CYCLE[step % CYCLE.len()]).unwrap();
        out.push(read(fragment, gap_ns * (step as u64 + 2)));
    }
    out
}

fn settings() -> Settings {
    Settings { stage_threshold: 0.4, ..Settings::default() }
}

/// Weights that know [`CYCLE`].
fn train() -> Arc<Weights> {
    let mut trainer = Trainer::new(settings(), 7).unwrap();
    for i in 0..40 {
        trainer.push(&walk(i << 32, 60, MILLISECOND));
    }
    let report = trainer.train(Budget { steps: 100 }).unwrap();
    assert_eq!(report.steps, 100);
    assert_eq!(report.baseline.right, 0, "the cycle never repeats a step");
    assert!(report.candidate.right * 10 > report.candidate.triggers * 9, "{report:?}");
    report.weights.expect("the candidate won")
}

/// The same, trained once for all tests.
fn trained() -> Arc<Weights> {
    static WEIGHTS: OnceLock<Arc<Weights>> = OnceLock::new();
    Arc::clone(WEIGHTS.get_or_init(train))
}

fn proposals(prefetcher: &mut Prefetcher, access: &Access) -> Vec<u64> {
    let mut out = Predictions::new();
    prefetcher.observe(access, &mut out);
    assert!(out.as_slice().iter().all(|p| p.volume == access.volume && p.score <= 1.0));
    out.as_slice().iter().map(|p| p.fragment).collect()
}

#[test]
fn the_lstm_learns_what_readahead_cannot() {
    let weights = trained();
    let test = walk(1 << 50, 100, MILLISECOND);
    let right = |prefetcher: &mut Prefetcher| {
        let next = test.windows(2);
        next.filter(|pair| proposals(prefetcher, &pair[0]).contains(&pair[1].fragment)).count()
    };
    let mut readahead = Prefetcher::new(PrefetchKind::Readahead, settings()).unwrap();
    assert_eq!(right(&mut readahead), 0);
    let mut lstm = Prefetcher::new(PrefetchKind::Lstm, settings()).unwrap();
    lstm.install(Arc::clone(&weights));
    let found = right(&mut lstm);
    assert!(found > 90, "{found} of 100");
    let kept = Weights::from_bytes(&weights.to_bytes()).unwrap();
    let mut restored = Prefetcher::new(PrefetchKind::Lstm, settings()).unwrap();
    restored.install(Arc::new(kept));
    assert_eq!(right(&mut restored), found);
}

#[test]
fn new_weights_know_the_streams_that_run() {
    let weights = trained();
    let mut prefetcher = Prefetcher::new(PrefetchKind::Lstm, settings()).unwrap();
    let test = walk(1 << 50, 12, MILLISECOND);
    for access in &test[..10] {
        assert!(proposals(&mut prefetcher, access).is_empty(), "nothing is confirmed");
    }
    prefetcher.install(weights);
    assert!(proposals(&mut prefetcher, &test[10]).contains(&test[11].fragment));
}

#[test]
fn fast_streams_are_followed_further() {
    let weights = trained();
    let ahead = |gap_ns: u64, depth: usize| {
        let settings = Settings { prefetch_depth: depth, ..settings() };
        let mut prefetcher = Prefetcher::new(PrefetchKind::Lstm, settings).unwrap();
        prefetcher.install(Arc::clone(&weights));
        let proposed =
            walk(1 << 50, 20, gap_ns).iter().map(|a| proposals(&mut prefetcher, a)).last();
        proposed.unwrap().len()
    };
    assert_eq!(ahead(1000 * MILLISECOND, 4), 1);
    assert_eq!(ahead(MILLISECOND, 4), 4);
    assert_eq!(ahead(MILLISECOND, 2), 2);
}

#[test]
fn without_weights_only_confirmed_streams_are_read_ahead() {
    let mut prefetcher = Prefetcher::new(PrefetchKind::Lstm, settings()).unwrap();
    assert!(proposals(&mut prefetcher, &read(10, 0)).is_empty());
    assert!(proposals(&mut prefetcher, &read(11, 0)).is_empty());
    assert_eq!(proposals(&mut prefetcher, &read(12, 0)), [13]);
}

#[test]
fn writes_and_repeated_fragments_trigger_nothing() {
    let weights = trained();
    for kind in [PrefetchKind::None, PrefetchKind::Readahead, PrefetchKind::Lstm] {
        let mut prefetcher = Prefetcher::new(kind, settings()).unwrap();
        prefetcher.install(Arc::clone(&weights));
        for access in walk(1 << 50, 30, MILLISECOND) {
            let write = Access { write: true, ..access };
            assert!(proposals(&mut prefetcher, &write).is_empty());
            assert!(proposals(&mut prefetcher, &access).is_empty(), "no crossing, {kind}");
        }
        assert_eq!(prefetcher.kind(), kind);
    }
}

#[test]
fn a_harmful_prefetcher_falls_silent() {
    let mut prefetcher = Prefetcher::new(PrefetchKind::Readahead, settings()).unwrap();
    while !prefetcher.is_silent() {
        prefetcher.feedback(Outcome::Wasted);
    }
    assert!((0..200).all(|f| proposals(&mut prefetcher, &read(f, 0)).is_empty()));
}

#[test]
fn chance_is_not_learned_and_too_little_is_not_tried() {
    let mut trainer = Trainer::new(settings(), 1).unwrap();
    trainer.push(&walk(0, 20, MILLISECOND));
    let report = trainer.train(Budget::default()).unwrap();
    assert_eq!((report.steps, report.crossings), (0, 21));
    let mut state = 1_u64;
    let random: Vec<Access> = (0..3000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            read(state >> 44, 0)
        })
        .collect();
    let mut trainer = Trainer::new(settings(), 1).unwrap();
    trainer.push(&random);
    let report = trainer.train(Budget { steps: 40 }).unwrap();
    assert_eq!(report.steps, 40);
    assert!(report.weights.is_none(), "{report:?}");
    assert!(trainer.installed().is_none());
}

#[test]
fn only_winners_are_handed_out_and_training_resumes() {
    let weights = trained();
    let mut trainer = Trainer::new(settings(), 99).unwrap();
    trainer.resume(Arc::clone(&weights));
    for client in 0..8 {
        trainer.push_from(client, &walk(client << 40, 60, MILLISECOND));
    }
    assert_eq!(trainer.fresh(), 8 * 61);
    let report = trainer.train(Budget { steps: 1 }).unwrap();
    assert_eq!(trainer.fresh(), 0);
    let installed = report.installed.expect("resumed weights are judged");
    assert!(installed.right * 10 > installed.triggers * 9);
    match report.weights {
        Some(winner) => {
            assert!(winner.serial() > weights.serial());
            assert!(report.candidate.utility(0.4) > installed.utility(0.4));
        }
        None => assert_eq!(trainer.installed(), Some(&weights)),
    }
    assert!(report.candidate.right * 10 > report.candidate.triggers * 8, "training went on");
}

#[test]
fn equal_seeds_give_equal_weights() {
    assert_eq!(trained(), train());
}

#[test]
fn what_crosses_threads_may() {
    fn send<T: Send>() {}
    send::<Trainer>();
    send::<Prefetcher>();
    send::<Arc<Weights>>();
}
