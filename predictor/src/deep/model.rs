//! The weights, as rows of plain numbers.
#![forbid(unsafe_code)]

use std::path::Path;

use super::layout::{CANDIDATE_ROWS, CONTEXT_ROWS, GATES, HALF, HIDDEN, WEIGHTS, WIDTH};
use crate::random::Random;
use crate::sealed::{self, Rows, SealError};

/// The name of the file's seal: other groups or sizes are another version.
const SEAL: &str = "tessera.deep.v1";
/// Most bytes of a file: the weights and the format's names.
const MOST_BYTES: u64 = 1 << 20;

/// Weights of encoder and tower.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// A row for each context input.
    pub(super) encoder: Vec<[f32; GATES]>,
    /// A row for each unit of the state.
    pub(super) recurrent: Vec<[f32; GATES]>,
    pub(super) bias: [f32; GATES],
    /// A row for each unit of the state: what it adds to a view.
    pub(super) view: Vec<[f32; WIDTH]>,
    pub(super) view_bias: [f32; WIDTH],
    /// From the rectified half to the odds.
    pub(super) out: [f32; HALF],
    /// A row for each input of a candidate.
    pub(super) candidates: Vec<[f32; WIDTH]>,
}

impl Model {
    /// Bytes of the weights.
    pub const BYTES: usize = size_of::<f32>() * WEIGHTS;

    /// An untrained model: the forget gates are open, the candidates' rows almost silent.
    pub(super) fn untrained(random: &mut Random) -> Model {
        let per_unit = 1.0 / (HIDDEN as f32).sqrt();
        let mut bias = [0.0; GATES];
        bias[HIDDEN..2 * HIDDEN].fill(1.0);
        let mut view_bias = [0.0; WIDTH];
        view_bias[HALF..].iter_mut().for_each(|x| *x = random.symmetric(0.3));
        Model {
            encoder: rows(random, CONTEXT_ROWS, 0.15),
            recurrent: rows(random, HIDDEN, per_unit),
            bias,
            view: rows(random, HIDDEN, 0.5 * per_unit),
            view_bias,
            out: std::array::from_fn(|_| random.symmetric(0.3)),
            candidates: rows(random, CANDIDATE_ROWS, 0.05),
        }
    }

    /// Its parts by name, in the order of the fields.
    pub(super) fn parts(&self) -> [(&'static str, &[f32]); 7] {
        [
            ("encoder", self.encoder.as_flattened()),
            ("recurrent", self.recurrent.as_flattened()),
            ("bias", &self.bias),
            ("view", self.view.as_flattened()),
            ("view_bias", &self.view_bias),
            ("out", &self.out),
            ("candidates", self.candidates.as_flattened()),
        ]
    }

    /// The model with these parts; `None` if a part is missing, has another size, or holds a
    /// number that is not finite.
    pub(super) fn from_parts(
        mut part: impl FnMut(&'static str) -> Option<Vec<f32>>,
    ) -> Option<Model> {
        Some(Model {
            encoder: table(part("encoder")?, CONTEXT_ROWS)?,
            recurrent: table(part("recurrent")?, HIDDEN)?,
            bias: line(part("bias")?)?,
            view: table(part("view")?, HIDDEN)?,
            view_bias: line(part("view_bias")?)?,
            out: line(part("out")?)?,
            candidates: table(part("candidates")?, CANDIDATE_ROWS)?,
        })
    }

    /// Writes a file that takes the place of what was there.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn save(&self, path: &Path) -> Result<(), SealError> {
        let rows = self.parts().map(|(name, values)| (name.to_owned(), values.to_vec()));
        sealed::save(path, SEAL, &Rows::from(rows))
    }

    /// Reads a file that [`Model::save`] wrote.
    ///
    /// # Errors
    /// If it is missing, damaged, or no such model.
    pub fn load(path: &Path) -> Result<Model, SealError> {
        let mut rows = sealed::load(path, SEAL, MOST_BYTES)?;
        let mut missing = "";
        let model = Model::from_parts(|name| {
            missing = name;
            rows.remove(name)
        });
        let model = model.ok_or_else(|| SealError::Content(missing.to_owned()))?;
        match rows.into_keys().next() {
            Some(foreign) => Err(SealError::Content(foreign)),
            None => Ok(model),
        }
    }
}

fn rows<const N: usize>(random: &mut Random, count: usize, bound: f32) -> Vec<[f32; N]> {
    (0..count).map(|_| std::array::from_fn(|_| random.symmetric(bound))).collect()
}

fn table<const N: usize>(values: Vec<f32>, count: usize) -> Option<Vec<[f32; N]>> {
    let (rows, rest) = values.as_chunks::<N>();
    let sound = rest.is_empty() && rows.len() == count && is_finite(&values);
    sound.then(|| rows.to_vec())
}

fn line<const N: usize>(values: Vec<f32>) -> Option<[f32; N]> {
    values.try_into().ok().filter(|row: &[f32; N]| is_finite(row))
}

fn is_finite(values: &[f32]) -> bool {
    values.iter().all(|x| x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_outlive_the_process_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep");
        let model = Model::untrained(&mut Random::new(3));
        model.save(&path).unwrap();
        assert_eq!(Model::load(&path).unwrap(), model);
        let good = std::fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(good.len() / 50) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            std::fs::write(&path, bad).unwrap();
            assert!(Model::load(&path).is_err(), "byte {at}");
        }
    }

    #[test]
    fn content_that_is_no_model_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep");
        let model = Model::untrained(&mut Random::new(3));
        let whole = || Rows::from(model.parts().map(|(name, part)| (name.into(), part.to_vec())));
        for (name, part) in model.parts() {
            for poison in [f32::NAN, f32::INFINITY] {
                let mut rows = whole();
                rows.get_mut(name).unwrap()[part.len() / 2] = poison;
                sealed::save(&path, SEAL, &rows).unwrap();
                assert!(matches!(Model::load(&path), Err(SealError::Content(at)) if at == name));
            }
            let mut lacking = whole();
            lacking.remove(name);
            let mut short = whole();
            short.get_mut(name).unwrap().pop();
            for rows in [lacking, short] {
                sealed::save(&path, SEAL, &rows).unwrap();
                assert!(matches!(Model::load(&path), Err(SealError::Content(at)) if at == name));
            }
        }
        let mut foreign = whole();
        foreign.insert("more".into(), vec![1.0]);
        sealed::save(&path, SEAL, &foreign).unwrap();
        assert!(Model::load(&path).is_err());
        sealed::save(&path, SEAL, &whole()).unwrap();
        assert_eq!(Model::load(&path).unwrap(), model);
    }
}
