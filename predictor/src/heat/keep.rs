//! The network's weights in a file, to outlive the process.
//!
//! One file in the safetensors format for all volumes and horizons. Of each
//! model there are four tensors of 32-bit numbers, named
//! `OWNER/HORIZON/input|recurrent|head|bias`, and the format has no checksum,
//! so there is one more, `tessera.heat.v1`: the CRC-32C of names and numbers, in
//! the order of the names. A file that is damaged, foreign or of another version
//! is refused whole: a forecaster that begins anew is better than one that has
//! half a memory.
//!
//! A file is written beside its place, made durable and renamed: whoever reads
//! finds the old one or the new one.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use crc_fast::{CrcAlgorithm, Digest};

use super::{Horizon, LstmWeights};

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

/// Why a file is not used or not written.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not the format, or not within bounds.
    #[error("no safetensors file: {0}")]
    Format(#[from] candle_core::Error),
    /// Too large for weights.
    #[error("{0} bytes are too many for weights")]
    Size(u64),
    /// Without the checksum of this version.
    #[error("no weights of this version's heat forecast")]
    Foreign,
    /// The checksum is another.
    #[error("weights fail their checksum")]
    Checksum,
    /// A tensor that is no parameter, or a model that lacks one.
    #[error("unexpected content: {0}")]
    Content(String),
}

/// Writes weights to a file that takes the place of what was there.
///
/// # Errors
/// If the system refuses.
pub fn save(path: &Path, kept: &Kept) -> Result<(), KeepError> {
    let mut tensors = BTreeMap::new();
    for (model, weights) in kept {
        for (parameter, values) in LstmWeights::NAMES.iter().zip(weights.parameters()) {
            let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
            tensors.insert(model.tensor(parameter), tensor);
        }
    }
    let seal = Tensor::from_slice(&[checksum(&tensors)?], 1, &Device::Cpu)?;
    let mut tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
    tensors.insert(SEAL.to_owned(), seal);
    let fresh = path.with_extension("new");
    candle_core::safetensors::save(&tensors, &fresh)?;
    File::open(&fresh)?.sync_all()?;
    Ok(fs::rename(fresh, path)?)
}

/// Reads a file that [`save`] wrote.
///
/// # Errors
/// If it is missing, damaged, or not such a file.
pub fn load(path: &Path) -> Result<Kept, KeepError> {
    let bytes = fs::metadata(path)?.len();
    if bytes > MOST_BYTES {
        return Err(KeepError::Size(bytes));
    }
    let tensors = candle_core::safetensors::load_buffer(&fs::read(path)?, &Device::Cpu)?;
    let mut tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let seal = tensors.remove(SEAL).ok_or(KeepError::Foreign)?;
    if let Some((name, _)) = tensors.iter().find(|(_, tensor)| tensor.dtype() != DType::F32) {
        return Err(KeepError::Content(name.clone()));
    }
    if seal.dtype() != DType::U32 || seal.flatten_all()?.to_vec1::<u32>()? != [checksum(&tensors)?]
    {
        return Err(KeepError::Checksum);
    }
    let mut kept = Kept::new();
    while let Some(name) = tensors.keys().next().cloned() {
        let model = model_of(&name).ok_or_else(|| KeepError::Content(name.clone()))?;
        let mut take = |parameter: &str| -> Result<Vec<f32>, KeepError> {
            let name = model.tensor(parameter);
            let tensor = tensors.remove(&name).ok_or(KeepError::Content(name))?;
            Ok(tensor.flatten_all()?.to_vec1()?)
        };
        let [input, recurrent, head, bias] = LstmWeights::NAMES.map(&mut take);
        let weights = LstmWeights::new([input?, recurrent?, head?, bias?]);
        kept.insert(model, weights.ok_or(KeepError::Content(name))?);
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

fn checksum(tensors: &BTreeMap<String, Tensor>) -> Result<u32, candle_core::Error> {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for (name, tensor) in tensors {
        digest.update(name.as_bytes());
        for value in tensor.flatten_all()?.to_vec1::<f32>()? {
            digest.update(&value.to_le_bytes());
        }
    }
    Ok(u32::try_from(digest.finalize()).expect("a 32-bit CRC"))
}

#[cfg(test)]
mod tests {
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
        assert!(matches!(load(&path), Err(KeepError::Io(_))));
        for kept in [two(), Kept::new()] {
            save(&path, &kept).unwrap();
            assert_eq!(load(&path).unwrap(), kept);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn any_changed_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heat.safetensors");
        save(&path, &two()).unwrap();
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7).chain([good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            // A changed space between names is still the same content.
            let outcome = load(&path);
            assert!(outcome.is_err() || outcome.unwrap() == two(), "byte {at}");
        }
        for short in [0, 7, 8, 100, good.len() - 1] {
            fs::write(&path, &good[..short]).unwrap();
            assert!(load(&path).is_err(), "{short} bytes");
        }
    }

    #[test]
    fn foreign_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heat.safetensors");
        fs::write(&path, b"PK\x03\x04 something else entirely").unwrap();
        assert!(matches!(load(&path), Err(KeepError::Format(_))));
        let tensor = Tensor::from_slice(&[1.0_f32], 1, &Device::Cpu).unwrap();
        let foreign = HashMap::from([("weight".to_owned(), tensor.clone())]);
        candle_core::safetensors::save(&foreign, &path).unwrap();
        assert!(matches!(load(&path), Err(KeepError::Foreign)));
        // With a good seal, but of something else.
        for name in ["a/5min/weight", "a/5min/input", "a/60s/input", "a/input", "a/1h/input/x"] {
            let mut tensors = BTreeMap::from([(name.to_owned(), tensor.clone())]);
            let seal = Tensor::from_slice(&[checksum(&tensors).unwrap()], 1, &Device::Cpu).unwrap();
            tensors.insert(SEAL.to_owned(), seal);
            let all: HashMap<_, _> = tensors.into_iter().collect();
            candle_core::safetensors::save(&all, &path).unwrap();
            assert!(matches!(load(&path), Err(KeepError::Content(_))), "{name}");
        }
    }
}
