//! Fuzz targets: whatever takes bytes from a peer, a medium or a user, driven by any bytes.
//!
//! A target panics if the bytes make the engine panic, or if what was accepted does not
//! come back equal after it was written and read again. `tools/fuzz` runs the targets under
//! libFuzzer; a test here replays the corpus that is kept beside it.
//!
//! A checksum in front of a decoder blinds a fuzzer, so targets that decode metadata decode
//! the bytes as they are and again with their checksum put right.

#![forbid(unsafe_code)]

mod initiator;

use predictor::trace::{Reader, Record, Writer};

pub use crate::admin::fuzz::{admin, config};
pub use crate::format::fuzz::{checkpoint, journal};
pub use crate::journal::fuzz::recovery;
pub use crate::pool::fuzz::superblock;
pub use crate::target::nbd::client::fuzz::nbd_client;
pub use crate::target::nbd::fuzz::{nbd_negotiation, nbd_requests};
pub use crate::target::nvmf::controller::fuzz::nvmf_controller;
pub use crate::target::nvmf::exports::fuzz::nvmf_exports;
pub use crate::target::nvmf::fabric::fuzz::nvmf_link;
pub use crate::target::nvmf::fuzz::{nvmf_pdus, nvmf_queue};
pub use initiator::nvmf_initiator;

/// A target takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by name; `tools/fuzz/targets` has a program of each name.
pub const TARGETS: [(&str, Target); 16] = [
    ("admin", admin),
    ("checkpoint", checkpoint),
    ("config", config),
    ("journal", journal),
    ("nbd_client", nbd_client),
    ("nbd_negotiation", nbd_negotiation),
    ("nbd_requests", nbd_requests),
    ("nvmf_controller", nvmf_controller),
    ("nvmf_exports", nvmf_exports),
    ("nvmf_initiator", nvmf_initiator),
    ("nvmf_link", nvmf_link),
    ("nvmf_pdus", nvmf_pdus),
    ("nvmf_queue", nvmf_queue),
    ("recovery", recovery),
    ("superblock", superblock),
    ("trace", trace),
];

/// Most records of a trace that are compared: a few bytes of zstd can hold millions.
const RECORDS: usize = 4096;

/// Every trace format: what was read is what the writer's copy says, and a strict reader
/// reads the same unless something was bad.
pub fn trace(bytes: &[u8]) {
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let clock = reader.has_clock();
    let records: Vec<Record> = reader.by_ref().take(RECORDS).map_while(Result::ok).collect();
    assert!(records.iter().all(|record| record.time_us.is_some() == clock));
    let skipped = reader.skipped();
    assert_eq!(skipped.first.len() as u64, skipped.count.min(8));
    if skipped.count == 0 {
        let strict = Reader::new(bytes).expect("as before").strict();
        assert!(strict.take(RECORDS).map_while(Result::ok).eq(records.iter().copied()));
    }
    // Its halves as two files, wherever the cut is.
    let (one, two) = bytes.split_at(bytes.len() / 2);
    if let Ok(merged) = Reader::merge([("one".into(), one), ("two".into(), two)]) {
        assert!(merged.take(RECORDS).flatten().all(|record| record.time_us.is_some()));
    }
    // Compressing again takes a thousand times longer than all else.
    let compressed = bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    for compress in [false, compressed] {
        let mut writer = Writer::new(Vec::new(), compress).expect("memory does not fail");
        for record in &records {
            writer.write(record).expect("all records have a clock, or none");
        }
        let written = writer.finish().expect("memory does not fail");
        let again = Reader::new(&written[..]).expect("our own format").strict();
        let again: Vec<Record> = again.map(|record| record.expect("our own lines")).collect();
        assert_eq!(again, records);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A folder of `tools/fuzz`.
    fn folder(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tools/fuzz").join(name)
    }

    #[test]
    fn the_corpus_finds_nothing_new() {
        for (name, target) in TARGETS {
            let inputs: Vec<_> = std::fs::read_dir(folder("corpus").join(name))
                .unwrap_or_else(|error| panic!("the corpus of {name}: {error}"))
                .map(|entry| entry.unwrap().path())
                .collect();
            assert!(!inputs.is_empty(), "{name} has a corpus");
            for input in inputs {
                println!("{}", input.display());
                target(&std::fs::read(&input).unwrap());
            }
        }
    }

    #[test]
    fn every_target_has_a_program_and_every_program_a_target() {
        let mut programs: Vec<_> = std::fs::read_dir(folder("targets"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        programs.sort();
        assert_eq!(programs, TARGETS.map(|(name, _)| name));
    }
}
