//! The pool's model, and those of clients that have one of their own.
#![forbid(unsafe_code)]

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
struct Owner {
    client: Option<u64>,
    /// When it was last used, in crossings of all clients.
    used: u64,
}

/// A bounded number of models.
pub(super) struct Models {
    wides: Vec<Wide>,
    owners: [Owner; MODELS],
}

impl Models {
    pub fn new() -> Models {
        let wides = (0..MODELS).map(|_| Wide::new()).collect();
        Models { wides, owners: [Owner::default(); MODELS] }
    }

    pub const fn bytes() -> usize {
        Wide::bytes() * MODELS
    }

    /// The model to rank a client by, which had `model` before and has crossed `crossings`
    /// times. Its first own model begins as the pool's; the one unused for longest is given up
    /// for it.
    pub fn choose(&mut self, client: u64, model: usize, crossings: u64, now: u64) -> usize {
        if model >= OWN && self.owners[model].client == Some(client) {
            self.owners[model].used = now;
            return model;
        }
        if crossings < OWN_AFTER {
            return POOL;
        }
        let oldest = (OWN..MODELS).min_by_key(|model| self.owners[*model].used).expect("some");
        self.owners[oldest] = Owner { client: Some(client), used: now };
        let (pool, own) = self.wides.split_at_mut(oldest);
        own[0].copy_from(&pool[POOL]);
        oldest
    }

    /// Clients with a model of their own.
    pub fn owned(&self) -> u64 {
        self.owners.iter().filter(|owner| owner.client.is_some()).count() as u64
    }

    pub fn get(&self, model: usize) -> &Wide {
        &self.wides[model]
    }

    pub fn get_mut(&mut self, model: usize) -> &mut Wide {
        &mut self.wides[model]
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
}
