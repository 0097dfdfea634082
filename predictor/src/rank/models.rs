//! The pool's model, and those of clients that have one of their own.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::features::Features;
use super::saved::{Model, Owner, Saved};
use super::wide::Wide;

/// Models on one core.
pub(super) const MODELS: usize = 10;
/// The pool's model.
pub(super) const POOL: usize = 0;
/// The model, of all clients, of whether they stay in the fragment that they have come to.
pub(super) const AGAIN: usize = 1;
/// From here on clients' models.
const OWN: usize = 2;
/// Crossings after which a client has a model of its own.
const OWN_AFTER: u64 = 2048;

/// Whose a model is.
#[derive(Clone, Copy, Debug, Default)]
struct Owned {
    client: Option<u64>,
    /// When it was last used, in crossings of all clients.
    used: u64,
}

/// Another model for all clients, which must foretell better to be taken.
struct Contest {
    rival: Wide,
    /// Lessons left to compare.
    left: u32,
    /// Log loss of the model in use less that of the rival, over the lessons so far.
    lead: f32,
}

/// Lessons by which a rival is compared.
const CONTEST: u32 = 1024;

/// A bounded number of models.
pub(super) struct Models {
    wides: Vec<Wide>,
    owners: [Owned; MODELS],
    saved: Option<Arc<Saved>>,
    contest: Contest,
    /// Rivals that have won.
    pub won: u64,
}

impl Models {
    pub fn new() -> Models {
        Models {
            wides: (0..MODELS).map(|_| Wide::new()).collect(),
            owners: [Owned::default(); MODELS],
            saved: None,
            contest: Contest { rival: Wide::new(), left: 0, lead: 0.0 },
            won: 0,
        }
    }

    pub const fn bytes() -> usize {
        Wide::bytes() * (MODELS + 1)
    }

    /// Takes models of an earlier run, or of all cores: from now on clients begin with theirs;
    /// the pool's is taken at once if nothing has been learned yet, else if it wins.
    pub fn remember(&mut self, saved: Arc<Saved>) {
        for (model, owner) in [(POOL, Owner::Pool), (AGAIN, Owner::Again)] {
            let Some(known) = saved.get(owner) else { continue };
            if self.wides[model].is_idle() {
                self.wides[model].restore(known);
            } else if model == POOL {
                self.contest.rival.restore(known);
                (self.contest.left, self.contest.lead) = (CONTEST, 0.0);
            }
        }
        self.saved = Some(saved);
    }

    /// The model to rank a client by, which had `model` before and has crossed `crossings`
    /// times. A client begins with what is saved of it; else its own model begins as the
    /// pool's when it has crossed often. The one unused for longest is given up for it.
    pub fn choose(&mut self, client: u64, model: usize, crossings: u64, now: u64) -> usize {
        if model >= OWN && self.owners[model].client == Some(client) {
            self.owners[model].used = now;
            return model;
        }
        let known = self.saved.as_ref().and_then(|saved| saved.get(Owner::Client(client)));
        if crossings < OWN_AFTER && known.is_none() {
            return POOL;
        }
        let oldest = (OWN..MODELS).min_by_key(|model| self.owners[*model].used).expect("some");
        self.owners[oldest] = Owned { client: Some(client), used: now };
        let (pool, own) = self.wides.split_at_mut(oldest);
        match known {
            Some(known) => own[0].restore(known),
            None => own[0].copy_from(&pool[POOL]),
        }
        oldest
    }

    /// One step of a model towards an outcome (0 or 1), counted `times`.
    pub fn learn(&mut self, model: usize, features: &Features, outcome: f32, times: f32) {
        if model == POOL && self.contest.left > 0 {
            self.compare(features, outcome, times);
        }
        self.wides[model].learn(features, outcome, times);
    }

    fn compare(&mut self, features: &Features, outcome: f32, times: f32) {
        let (contest, pool) = (&mut self.contest, &mut self.wides[POOL]);
        let ahead = pool.loss(features, outcome) - contest.rival.loss(features, outcome);
        contest.lead += ahead * times;
        contest.rival.learn(features, outcome, times);
        contest.left -= 1;
        if contest.left == 0 && contest.lead > 0.0 {
            std::mem::swap(&mut contest.rival, pool);
            self.won += 1;
        }
    }

    /// What a model has learned, and whose it is; `None` if that is nothing since it was last
    /// asked.
    pub fn learned(&mut self, model: usize) -> Option<(Owner, Model)> {
        let owner = match model {
            POOL => Owner::Pool,
            AGAIN => Owner::Again,
            _ => Owner::Client(self.owners[model].client?),
        };
        Some((owner, self.wides[model].model()?))
    }

    /// Clients with a model of their own.
    pub fn owned(&self) -> u64 {
        self.owners.iter().filter(|owner| owner.client.is_some()).count() as u64
    }

    pub fn get(&self, model: usize) -> &Wide {
        &self.wides[model]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_a_model_of_its_own_and_the_idlest_loses_it() {
        let mut models = Models::new();
        assert_eq!(models.choose(7, POOL, 1, 1), POOL);
        let own = models.choose(7, POOL, OWN_AFTER, 2);
        assert_eq!(own, OWN);
        for client in 100..100 + (MODELS - OWN) as u64 - 1 {
            let model = models.choose(client, POOL, OWN_AFTER, client);
            assert_ne!(model, own);
        }
        assert_eq!(models.choose(8, POOL, OWN_AFTER, 1000), own, "unused for longest");
        assert_ne!(models.choose(7, own, OWN_AFTER, 1001), own, "it is another's now");
    }

    fn features(value: usize) -> Features {
        let mut features = Features::default();
        features.put::<15>(value);
        features
    }

    /// Models after lessons in which the value 7 comes and 8 does not, or the other way round.
    fn taught(as_it_is: bool) -> Models {
        let mut models = Models::new();
        for _ in 0..CONTEST {
            let (yes, no) = if as_it_is { (1.0, 0.0) } else { (0.0, 1.0) };
            models.learn(POOL, &features(7), yes, 1.0);
            models.learn(POOL, &features(8), no, 1.0);
        }
        models
    }

    fn saved(models: &mut Models, owner: Owner) -> Arc<Saved> {
        let (_, model) = models.learned(POOL).expect("it has learned");
        Arc::new(Saved::gather(&Saved::default(), vec![(owner, model)]))
    }

    #[test]
    fn a_new_pool_takes_what_is_saved_and_a_client_its_own() {
        let mut knowing = taught(true);
        let mut models = Models::new();
        assert!(models.learned(POOL).is_none());
        models.remember(saved(&mut knowing, Owner::Pool));
        assert_eq!(models.get(POOL).odds(&features(7)), knowing.get(POOL).odds(&features(7)));
        assert!(knowing.learned(POOL).is_none(), "it has been told");
        models.remember(saved(&mut taught(true), Owner::Client(5)));
        assert_eq!(models.choose(6, POOL, 1, 1), POOL);
        let own = models.choose(5, POOL, 1, 1);
        assert!(own >= OWN && models.get(own).odds(&features(7)) > 1.0);
    }

    #[test]
    fn a_rival_is_taken_only_if_it_wins() {
        let mut models = taught(false);
        models.remember(saved(&mut taught(true), Owner::Pool));
        for _ in 0..CONTEST {
            models.learn(POOL, &features(7), 1.0, 1.0);
        }
        assert_eq!(models.won, 1);
        models.remember(saved(&mut taught(false), Owner::Pool));
        for _ in 0..CONTEST {
            models.learn(POOL, &features(7), 1.0, 1.0);
        }
        assert_eq!(models.won, 1, "the worse one is not");
    }
}
