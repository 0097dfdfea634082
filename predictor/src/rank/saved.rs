//! What models have learned, to outlive the process and to follow clients between cores.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;

use super::features::WEIGHTS;
use crate::sealed::{self, Rows, SealError};

/// The name of the file's seal: another set of features is another version.
const SEAL: &str = "tessera.rank.v1";
/// Clients in a file; those that learned most stay.
const CLIENTS: usize = 64;
/// Room for them, at half a MiB each.
const MOST_BYTES: u64 = 64 << 20;

/// Whose a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// All clients': where a client's own begins.
    Pool,
    /// All clients': whether they stay in a fragment.
    Again,
    /// One client's.
    Client(u64),
}

/// What a model has learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub(super) weights: Vec<f32>,
    pub(super) squares: Vec<f32>,
    /// Lessons that it has had, fading as they are merged.
    pub(super) steps: f32,
}

/// The models of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    models: BTreeMap<Owner, Model>,
}

impl Model {
    fn is_sound(&self) -> bool {
        let finite =
            |values: &[f32]| values.len() == WEIGHTS && values.iter().all(|v| v.is_finite());
        let squares = self.squares.iter().all(|square| *square >= 0.0);
        finite(&self.weights) && finite(&self.squares) && squares && self.steps >= 0.0
    }

    /// Becomes the average of both by what each has learned (McMahan et al., "Communication-
    /// Efficient Learning of Deep Networks from Decentralized Data", 2017).
    fn merge(&mut self, other: &Model) {
        let steps = self.steps + other.steps;
        if steps <= 0.0 {
            return;
        }
        let share = other.steps / steps;
        let blend = |mine: &mut [f32], others: &[f32]| {
            mine.iter_mut().zip(others).for_each(|(m, o)| *m += (o - *m) * share);
        };
        blend(&mut self.weights, &other.weights);
        blend(&mut self.squares, &other.squares);
        self.steps = steps;
    }
}

impl Saved {
    /// An owner's model.
    pub fn get(&self, owner: Owner) -> Option<&Model> {
        self.models.get(&owner)
    }

    /// Clients with a model.
    pub fn clients(&self) -> usize {
        self.models.keys().filter(|owner| matches!(owner, Owner::Client(_))).count()
    }

    /// Puts together what the cores have learned: a client's models of several cores become
    /// one, and so does the pool's of all clients'. What only `before` has stays.
    pub fn gather(before: &Saved, learned: Vec<(Owner, Model)>) -> Saved {
        let mut models = BTreeMap::<Owner, Model>::new();
        for (owner, model) in learned.into_iter().filter(|(_, model)| model.is_sound()) {
            if matches!(owner, Owner::Client(_)) {
                add(&mut models, Owner::Pool, &model);
            }
            add(&mut models, owner, &model);
        }
        for (owner, model) in &before.models {
            models.entry(*owner).or_insert_with(|| model.clone());
        }
        let mut clients: Vec<_> = models
            .iter()
            .filter(|(owner, _)| matches!(owner, Owner::Client(_)))
            .map(|(owner, model)| (*owner, model.steps))
            .collect();
        clients.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (owner, _) in clients.iter().skip(CLIENTS) {
            models.remove(owner);
        }
        Saved { models }
    }

    /// Writes a file that takes the place of what was there.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), SealError> {
        let mut rows = Rows::new();
        for (owner, model) in &self.models {
            rows.insert(row(*owner, "weights"), model.weights.clone());
            rows.insert(row(*owner, "squares"), model.squares.clone());
            rows.insert(row(*owner, "steps"), vec![model.steps]);
        }
        sealed::save(path, SEAL, &rows)
    }

    /// Reads a file that [`Saved::save`] wrote.
    ///
    /// # Errors
    /// If it is missing, damaged, or not such a file.
    pub fn load(path: &Path) -> Result<Saved, SealError> {
        let mut rows = sealed::load(path, SEAL, MOST_BYTES)?;
        let mut models = BTreeMap::new();
        while let Some(name) = rows.keys().next().cloned() {
            let owner = owner_of(&name).ok_or_else(|| SealError::Content(name.clone()))?;
            let mut take = |part| {
                let name = row(owner, part);
                rows.remove(&name).ok_or(SealError::Content(name))
            };
            let (weights, squares) = (take("weights")?, take("squares")?);
            let steps = take("steps")?.first().copied().unwrap_or(f32::NAN);
            let model = Model { weights, squares, steps };
            if !model.is_sound() {
                return Err(SealError::Content(name));
            }
            models.insert(owner, model);
        }
        Ok(Saved { models })
    }
}

fn add(models: &mut BTreeMap<Owner, Model>, owner: Owner, model: &Model) {
    match models.get_mut(&owner) {
        Some(mine) => mine.merge(model),
        None => drop(models.insert(owner, model.clone())),
    }
}

fn row(owner: Owner, part: &str) -> String {
    match owner {
        Owner::Pool => format!("pool/{part}"),
        Owner::Again => format!("again/{part}"),
        Owner::Client(id) => format!("client-{id:016x}/{part}"),
    }
}

fn owner_of(name: &str) -> Option<Owner> {
    match name.split_once('/')?.0 {
        "pool" => Some(Owner::Pool),
        "again" => Some(Owner::Again),
        client => {
            let id = client.strip_prefix("client-").filter(|id| id.len() == 16)?;
            Some(Owner::Client(u64::from_str_radix(id, 16).ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(weight: f32, steps: f32) -> Model {
        Model { weights: vec![weight; WEIGHTS], squares: vec![1.0; WEIGHTS], steps }
    }

    #[test]
    fn models_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models");
        let learned = vec![(Owner::Pool, model(0.5, 1.0)), (Owner::Client(7), model(-1.0, 3.0))];
        let saved = Saved::gather(&Saved::default(), learned);
        saved.save(&path).unwrap();
        let loaded = Saved::load(&path).unwrap();
        assert_eq!(loaded, saved);
        assert_eq!(loaded.clients(), 1);
        std::fs::write(&path, b"nonsense").unwrap();
        assert!(matches!(Saved::load(&path), Err(SealError::Format(_))));
    }

    #[test]
    fn content_that_is_not_a_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models");
        let whole = |weight| {
            Rows::from([
                ("pool/weights".to_owned(), vec![weight; WEIGHTS]),
                ("pool/squares".to_owned(), vec![0.0; WEIGHTS]),
                ("pool/steps".to_owned(), vec![1.0]),
            ])
        };
        let mut lacking = whole(0.0);
        lacking.remove("pool/squares");
        let mut foreign = whole(0.0);
        foreign.insert("vm/weights".into(), vec![0.0]);
        let mut short = whole(0.0);
        short.insert("pool/weights".into(), vec![0.0; 5]);
        for rows in [whole(f32::NAN), lacking, foreign, short] {
            sealed::save(&path, SEAL, &rows).unwrap();
            assert!(matches!(Saved::load(&path), Err(SealError::Content(_))));
        }
        sealed::save(&path, SEAL, &whole(2.0)).unwrap();
        assert!(Saved::load(&path).is_ok());
    }

    #[test]
    fn cores_and_clients_are_averaged_by_what_they_learned() {
        let first = Saved::gather(&Saved::default(), vec![(Owner::Client(9), model(8.0, 1.0))]);
        let learned = vec![
            (Owner::Client(7), model(0.0, 1.0)),
            (Owner::Client(7), model(4.0, 3.0)),
            (Owner::Client(8), model(f32::NAN, 100.0)),
        ];
        let saved = Saved::gather(&first, learned);
        let weight = |owner| saved.get(owner).map(|model| model.weights[0]);
        assert_eq!(weight(Owner::Client(7)), Some(3.0));
        assert_eq!(weight(Owner::Pool), Some(3.0), "what is no number is left out");
        assert_eq!(weight(Owner::Client(8)), None);
        assert_eq!(weight(Owner::Client(9)), Some(8.0), "as before");
    }

    #[test]
    fn the_number_of_clients_is_bounded() {
        let learned =
            (0..100_u8).map(|n| (Owner::Client(n.into()), model(1.0, n.into()))).collect();
        let saved = Saved::gather(&Saved::default(), learned);
        assert_eq!(saved.clients(), CLIENTS);
        assert!(saved.get(Owner::Client(0)).is_none() && saved.get(Owner::Client(99)).is_some());
    }
}
