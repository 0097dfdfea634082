//! `nvmf.json` from any bytes (see [`crate::fuzz`]): what is accepted stays the same when it
//! is written and read.

use std::path::Path;

use super::file::{parse, to_bytes};

/// A file.
pub fn nvmf_exports(bytes: &[u8]) {
    let path = Path::new("nvmf.json");
    if let Ok(exports) = parse(path, bytes) {
        assert_eq!(parse(path, &to_bytes(&exports)).expect("our own file"), exports);
    }
}
