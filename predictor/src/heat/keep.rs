//! The network's weights in a file, to outlive the process.
//!
//! One sealed file for all volumes and horizons. Of each model there are four rows of 32-bit
//! numbers, named `OWNER/HORIZON/input|recurrent|head|bias`. A file that is damaged, foreign or
//! of another version is refused whole: a forecaster that begins anew is better than one that
//! has half a memory.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;

use super::{Horizon, LstmWeights};
use crate::sealed::{self, Rows, SealError};

/// The tensor that holds the checksum; its name is the version.
const SEAL: &str = "tessera.heat.v1";
/// Larger files are not read: thousands of models fit in.
const MOST_BYTES: u64 = 64 << 20;

/// Whose weights they are: an owner, such as a volume's UUID, and a horizon.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName {
    owner: String,
    horizon: Horizon,
}

impl ModelName {
    /// The name of an owner's model for a horizon.
    ///
    /// # Panics
    /// If the owner has a slash, which divides names.
    pub fn new(owner: &str, horizon: Horizon) -> Self {
        assert!(!owner.contains('/'), "a slash divides names");
        Self { owner: owner.to_owned(), horizon }
    }

    /// Whose it is.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    fn tensor(&self, parameter: &str) -> String {
        format!("{}/{}/{parameter}", self.owner, self.horizon)
    }
}

/// Everything that is kept.
pub type Kept = BTreeMap<ModelName, LstmWeights>;

/// Writes weights to a file that takes the place of what was there.
///
/// # Errors
/// If the system refuses.
pub fn save(path: &Path, kept: &Kept) -> Result<(), SealError> {
    let mut rows = Rows::new();
    for (model, weights) in kept {
        for (parameter, values) in LstmWeights::NAMES.iter().zip(weights.parameters()) {
            rows.insert(model.tensor(parameter), values.clone());
        }
    }
    sealed::save(path, SEAL, &rows)
}

/// Reads a file that [`save`] wrote.
///
/// # Errors
/// If it is missing, damaged, or not such a file.
pub fn load(path: &Path) -> Result<Kept, SealError> {
    let mut rows = sealed::load(path, SEAL, MOST_BYTES)?;
    let mut kept = Kept::new();
    while let Some(name) = rows.keys().next().cloned() {
        let model = model_of(&name).ok_or_else(|| SealError::Content(name.clone()))?;
        let mut take = |parameter: &str| -> Result<Vec<f32>, SealError> {
            let name = model.tensor(parameter);
            rows.remove(&name).ok_or(SealError::Content(name))
        };
        let [input, recurrent, head, bias] = LstmWeights::NAMES.map(&mut take);
        let weights = LstmWeights::new([input?, recurrent?, head?, bias?]);
        kept.insert(model, weights.ok_or(SealError::Content(name))?);
    }
    Ok(kept)
}

/// The model that a tensor belongs to.
fn model_of(tensor: &str) -> Option<ModelName> {
    let mut parts = tensor.split('/');
    let (owner, horizon, parameter) = (parts.next()?, parts.next()?, parts.next()?);
    let known = LstmWeights::NAMES.contains(&parameter) && parts.next().is_none();
    // The name as it would be written: 60s and 1min must not be two models.
    let model = ModelName::new(owner, horizon.parse().ok()?);
    (known && model.tensor(parameter) == tensor).then_some(model)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::heat::{Forecaster, HeatShape, Heatmap, Lstm, Segment};

    fn taught(seed: u64) -> LstmWeights {
        let shape = HeatShape::new(1, 100, 4).unwrap();
        let mut heat = Heatmap::new(shape);
        let mut lstm = Lstm::with_budget(shape.horizon(2).unwrap(), seed, 1);
        for bin in 0..40 {
            heat.record(bin * shape.bin_ns(), Segment::new(bin % 3), false, 5);
            lstm.update(&heat).unwrap();
        }
        lstm.learned().unwrap().expect("it has learned")
    }

    fn two() -> Kept {
        let name = |owner, horizon| ModelName::new(owner, horizon);
        Kept::from([
            (name("b", Horizon::ONE_HOUR), taught(1)),
            (name("a", Horizon::FIVE_MINUTES), taught(2)),
        ])
    }

    #[test]
    fn weights_come_back_bit_by_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heat.safetensors");
        assert!(matches!(load(&path), Err(SealError::Io(_))));
        for kept in [two(), Kept::new()] {
            save(&path, &kept).unwrap();
            assert_eq!(load(&path).unwrap(), kept);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn foreign_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heat.safetensors");
        sealed::save(&path, "another.v1", &Rows::new()).unwrap();
        assert!(matches!(load(&path), Err(SealError::Foreign)));
        // With a good seal, but of something else.
        for name in ["a/5min/weight", "a/5min/input", "a/60s/input", "a/input", "a/1h/input/x"] {
            sealed::save(&path, SEAL, &Rows::from([(name.to_owned(), vec![1.0])])).unwrap();
            assert!(matches!(load(&path), Err(SealError::Content(_))), "{name}");
        }
    }
}
