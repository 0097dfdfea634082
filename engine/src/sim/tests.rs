//! The simulator itself: seeds pass, runs are exact.

use super::regime::Regime;
use super::*;
use crate::device::sim::Rng;

#[test]
fn a_few_seeds_keep_every_promise() {
    let mut miscompared = 0;
    for seed in 0..30 {
        match run(&Plan::of(seed), &Trace::default()) {
            Ok(outcome) => miscompared += outcome.miscompared,
            Err(broken) => panic!("seed {seed}: {broken}"),
        }
    }
    assert!(miscompared > 0);
}

#[test]
fn a_run_is_a_function_of_its_plan() {
    for seed in 100..106 {
        let plan = Plan::of(seed);
        let trace = Trace::kept();
        let told = run(&plan, &trace).expect("no promise is broken");
        assert_eq!(told, run(&plan, &Trace::default()).expect("as before"));
        let again = Trace::kept();
        run(&plan, &again).expect("as before");
        assert_eq!(trace.all(), again.all());
        assert!(trace.all().len() > 100);
    }
}

/// Space that other slices and cores hold comes back to whoever waits for it: here, a request
/// that finds the pool full or never ends breaks a promise.
#[test]
fn in_a_crowded_fast_tier_everybody_goes_on() {
    for seed in 0..16 {
        let mut plan = Plan::of(seed);
        (plan.regime, plan.lives, plan.steps) = (Regime::Crowded, 2, 8_000);
        let outcome = run(&plan, &Trace::default());
        let outcome = outcome.unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        assert!(outcome.counters.spills > 0, "seed {seed} was not crowded");
    }
}

/// A broken promise is found, named and made smaller: here, one that only the oracle sees.
#[test]
fn a_violation_names_the_sector() {
    let key = sector::SectorKey { volume: crate::units::VolumeId::new(3), sector: 9 };
    let mut oracle = oracle::Oracle::default();
    let mut bytes = [0; 512];
    let mut values = Vec::new();
    for _ in 0..3 {
        values.push(oracle.send(key, false, false));
        oracle.sent(key, true, false);
    }
    let covered = oracle.flush_begins(key.volume);
    assert_eq!(covered.len(), 1);
    sector::fill(key, values[0], &mut bytes);
    assert!(oracle.check_live(key, oracle.mark(key), &bytes).is_err());
    oracle.restart(true);
    assert!(oracle.check_restarted(key, &bytes).is_ok(), "nothing was flushed");
    sector::fill(key, values[2], &mut bytes);
    let broken = Broken::from(oracle.check_restarted(key, &bytes).unwrap_err());
    assert_eq!(broken.sectors(), Some((key.volume, 9..10)));
    let mut rng = Rng::new(1);
    bytes[rng.index(512)] ^= 1;
    let foreign = Broken::from(oracle.check_restarted(key, &bytes).unwrap_err());
    assert_ne!(broken.class(), foreign.class());
}
