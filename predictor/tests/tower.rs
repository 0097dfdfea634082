//! The ranker with its deep half: what it learns that the wide half cannot.

use std::sync::Arc;

use predictor::Access;
use predictor::deep::{Model, Trainer};
use predictor::rank::{Ranked, Ranker};

const LEAD_NS: u64 = 15_000_000;
/// Crossings of a round; an outcome is judged by whether it comes within fewer.
const ROUND: u64 = 18;
const RESIDENCY: u64 = 16;
/// The crossing that asks, ten after the one that decides.
const QUESTION: u64 = 10;
/// Rounds whose questions count.
const ASKED: u64 = 400;
/// What comes then: the one or the other.
const ANSWERS: [u64; 2] = [30_000, 40_000];

/// One client goes round a fixed path, but for its first fragment, which is one of two at
/// random, and the one after [`QUESTION`], which the first decides.
fn path(rounds: u64) -> impl Iterator<Item = (u64, usize)> {
    let mut state = 7_u64;
    (0..rounds).flat_map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let which = usize::from(state >> 63 == 1);
        let place = move |phase| match phase {
            0 => [1_000, 9_000][which],
            1..=9 => 5_000 + phase * 100,
            QUESTION => 20_000,
            11 => ANSWERS[which],
            _ => 50_000 + phase * 1_000,
        };
        (0..ROUND).map(move |phase| (place(phase), which))
    })
}

fn touch(ranker: &mut Ranker, fragment: u64) -> &[Ranked] {
    let access = Access {
        fragment,
        last_fragment: fragment,
        fragment_shift: 20,
        offset_bytes: fragment << 20,
        size_bytes: 65_536,
        ..Access::default()
    };
    ranker.touch(1, &access, fragment, |_, _| false).expect("a crossing").ranked
}

fn with_tower(model: &Arc<Model>) -> Ranker {
    let mut ranker = Ranker::new(RESIDENCY, LEAD_NS);
    ranker.install(Arc::clone(model), false);
    ranker
}

/// Right answers in percent, over the last [`ASKED`] rounds.
fn right_percent(ranker: &mut Ranker, mut trainer: Option<Trainer>, rounds: u64) -> u64 {
    let (mut asked, mut right) = (0, 0);
    for (n, (fragment, which)) in (0..).zip(path(rounds)) {
        let ranked = touch(ranker, fragment);
        if n % ROUND == QUESTION && n / ROUND >= rounds - ASKED {
            let place = |answer| ranked.iter().position(|ranked| ranked.fragment == answer);
            let [one, other] = [which, 1 - which].map(|answer| place(ANSWERS[answer]));
            asked += 1;
            right += u64::from(one.expect("a candidate") < other.expect("a candidate"));
        }
        let Some(trainer) = &mut trainer else { continue };
        let mut due = false;
        while let Some(crossing) = ranker.settled() {
            due |= trainer.push(crossing);
        }
        if due {
            trainer.round().unwrap();
            ranker.install(Arc::clone(trainer.model()), trainer.is_trained());
        }
    }
    100 * right / asked
}

#[test]
fn the_tower_knows_what_was_ten_crossings_ago_and_the_wide_half_does_not() {
    let wide = right_percent(&mut Ranker::new(RESIDENCY, LEAD_NS), None, 2200);
    assert!((35..=65).contains(&wide), "{wide} %");
    let trainer = Trainer::new(1).unwrap();
    let mut ranker = with_tower(trainer.model());
    let both = right_percent(&mut ranker, Some(trainer), 2200);
    assert!(both >= 90, "{both} %");
}

#[test]
fn a_tower_counts_only_once_it_is_trained() {
    let model = Arc::clone(Trainer::new(1).unwrap().model());
    let mut wide = Ranker::new(RESIDENCY, LEAD_NS);
    let mut both = with_tower(&model);
    for (fragment, _) in path(20) {
        assert_eq!(touch(&mut wide, fragment), touch(&mut both, fragment));
    }
    both.install(model, true);
    let mut differs = |(fragment, _)| touch(&mut wide, fragment) != touch(&mut both, fragment);
    assert!(path(1).filter(|at| differs(*at)).count() > 10);
    assert!(wide.settled().is_none());
}

#[test]
fn crossings_settle_with_their_outcomes() {
    let model = Arc::clone(Trainer::new(1).unwrap().model());
    let mut ranker = with_tower(&model);
    let (mut settled, mut came, mut failed) = (0, 0, 0);
    let rounds = 50;
    for (fragment, _) in path(rounds) {
        touch(&mut ranker, fragment);
        while let Some(crossing) = ranker.settled() {
            settled += 1;
            came += crossing.outcomes().filter(|came| *came).count();
            failed += crossing.outcomes().filter(|came| !came).count();
        }
    }
    assert_eq!(settled, rounds * ROUND - RESIDENCY - 1);
    // From the second round on, what follows is known; and neighbours never come.
    assert!(came as u64 > settled && failed as u64 > settled, "{came} {failed} of {settled}");
}
