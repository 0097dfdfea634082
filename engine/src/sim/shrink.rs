//! Making a run that fails smaller, while it fails in the same way.
//!
//! A smaller plan is another run, so each is tried with a few seeds. What is
//! kept is the last plan that failed in the same way; it prints as the options
//! that repeat it exactly.

use std::time::{Duration, Instant};

use super::broken::Broken;
use super::campaign::attempt;
use super::plan::Plan;
use super::trace::Trace;

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What was run.
    pub plan: Plan,
    /// How it failed.
    pub broken: Broken,
    /// Steps until it did.
    pub steps: u64,
}

/// Seeds tried for each smaller plan.
const SEEDS: u64 = 12;

/// Shrinks for at most `limit`.
pub fn shrink(mut failed: Failed, limit: Duration) -> Failed {
    let deadline = Instant::now() + limit;
    while let Some(smaller) =
        candidates(&failed.plan).into_iter().find_map(|plan| fails(&plan, &failed, deadline))
    {
        failed = smaller;
    }
    failed
}

/// Plans one size smaller, the greatest gains first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        smaller
    };
    let mut all = vec![plan.faults().fold(plan.clone(), Plan::without)];
    all.extend([
        with(&|plan| plan.lives = plan.lives.min(1)),
        with(&|plan| plan.lives = plan.lives.div_ceil(2)),
        with(&|plan| plan.cores = 1),
        with(&|plan| plan.cores = plan.cores.min(2)),
        with(&|plan| plan.steps = plan.steps.div_ceil(4)),
        with(&|plan| plan.steps = plan.steps * 2 / 3),
        with(&|plan| plan.depth = plan.depth.div_ceil(3)),
        with(&|plan| plan.depth = plan.depth.saturating_sub(1).max(1)),
        with(&|plan| plan.clients = plan.clients.div_ceil(2)),
    ]);
    all.extend(plan.faults().map(|fault| plan.clone().without(fault)));
    all.retain(|smaller| smaller != plan);
    all
}

/// The plan, with some seed, if it fails as `before` did.
fn fails(plan: &Plan, before: &Failed, deadline: Instant) -> Option<Failed> {
    let seeds = (0..SEEDS).map(|at| plan.seed.wrapping_add(at));
    let mut plans = seeds.map(|seed| plan.clone().with_seed(seed));
    plans.find_map(|plan| {
        if Instant::now() >= deadline {
            return None;
        }
        let (result, steps) = attempt(&plan, &Trace::default());
        let broken = result.err()?;
        (broken.class() == before.broken.class()).then_some(Failed { plan, broken, steps })
    })
}
