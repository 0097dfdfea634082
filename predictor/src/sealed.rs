//! Named rows of numbers in a file that is whole or refused.
//!
//! The safetensors format, of 32-bit numbers, has no checksum: a further tensor, whose name
//! says what the file is for and in which version, holds the CRC-32C of names and numbers in
//! the order of the names. A file is written beside its place, made durable and renamed:
//! whoever reads finds the old one or the new one.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use crc_fast::{CrcAlgorithm, Digest};

/// Rows by their names.
pub(crate) type Rows = BTreeMap<String, Vec<f32>>;

/// Why a file is not used or not written.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not the format, or not within bounds.
    #[error("no safetensors file: {0}")]
    Format(#[from] candle_core::Error),
    /// Too large for what it is for.
    #[error("{0} bytes are too many for weights")]
    Size(u64),
    /// For something else, or of another version.
    #[error("no weights of this kind and version")]
    Foreign,
    /// The checksum is another.
    #[error("weights fail their checksum")]
    Checksum,
    /// Something that does not belong there, or is missing.
    #[error("unexpected content: {0}")]
    Content(String),
}

fn checksum(rows: &Rows) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for (name, values) in rows {
        digest.update(name.as_bytes());
        values.iter().for_each(|value| digest.update(&value.to_bits().to_le_bytes()));
    }
    u32::try_from(digest.finalize()).expect("a CRC of 32 bits")
}

/// Writes a file that takes the place of what was there.
///
/// # Errors
/// If the system refuses.
pub(crate) fn save(path: &Path, seal: &str, rows: &Rows) -> Result<(), SealError> {
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for (name, values) in rows {
        let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
        tensors.insert(name.clone(), tensor);
    }
    let sum = Tensor::from_slice(&[checksum(rows)], 1, &Device::Cpu)?;
    tensors.insert(seal.to_owned(), sum);
    let fresh = path.with_extension("new");
    candle_core::safetensors::save(&tensors, &fresh)?;
    File::open(&fresh)?.sync_all()?;
    Ok(fs::rename(fresh, path)?)
}

/// Reads a file that [`save`] wrote with the same seal, of `most_bytes` at most.
///
/// # Errors
/// If it is missing, damaged, or not such a file.
pub(crate) fn load(path: &Path, seal: &str, most_bytes: u64) -> Result<Rows, SealError> {
    let bytes = fs::metadata(path)?.len();
    if bytes > most_bytes {
        return Err(SealError::Size(bytes));
    }
    let mut tensors = candle_core::safetensors::load_buffer(&fs::read(path)?, &Device::Cpu)?;
    let sum = tensors.remove(seal).ok_or(SealError::Foreign)?;
    let mut rows = Rows::new();
    for (name, tensor) in tensors {
        if tensor.dtype() != DType::F32 {
            return Err(SealError::Content(name));
        }
        rows.insert(name, tensor.flatten_all()?.to_vec1()?);
    }
    let is_u32 = sum.dtype() == DType::U32;
    if !is_u32 || sum.flatten_all()?.to_vec1::<u32>()? != [checksum(&rows)] {
        return Err(SealError::Checksum);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        let rows = Rows::from([("a".into(), vec![1.0, -2.5]), ("b".into(), vec![0.0])]);
        save(&path, "mine.v1", &rows).unwrap();
        assert_eq!(load(&path, "mine.v1", 4096).unwrap(), rows);
        assert!(matches!(load(&path, "mine.v2", 4096), Err(SealError::Foreign)));
        assert!(matches!(load(&path, "mine.v1", 8), Err(SealError::Size(_))));
        assert!(matches!(load(&dir.path().join("none"), "mine.v1", 8), Err(SealError::Io(_))));
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, bad).unwrap();
            let loaded = load(&path, "mine.v1", 4096);
            assert!(loaded.is_err() || loaded.unwrap() == rows, "byte {at}");
        }
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        assert!(load(&path, "mine.v1", 4096).is_err());
    }
}
