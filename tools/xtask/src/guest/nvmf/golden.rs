//! Golden texts: what tools print about the target, with what differs from run to run masked.
//!
//! A text is kept in `golden/NAME.txt`. Any other line, missing or new, is a failure;
//! `cargo xtask guest run nvmf-cli --bless` rewrites the texts.

use std::fs;
use std::path::{Path, PathBuf};

use crate::guest::Failure;

/// What stands in for a masked value.
const MASK: &str = "(varies)";

/// A value that differs from run to run.
#[derive(Clone, Copy)]
pub enum Mask {
    /// In lines that begin with this word and a colon: all that follows the colon.
    Field(&'static str),
    /// The text between these two, wherever they are in a line.
    Between(&'static str, &'static str),
}

/// Compares what a tool printed with the golden text of that name, or writes it.
///
/// # Errors
/// Names the first line that differs.
pub fn compare(name: &str, text: &str, masks: &[Mask], bless: bool) -> Result<(), Failure> {
    let path = folder().join(format!("{name}.txt"));
    let masked = mask(text, masks);
    if masked.trim().is_empty() {
        return Err(Failure(format!("{name} prints nothing")));
    }
    if bless {
        let written = fs::create_dir_all(folder()).and_then(|()| fs::write(&path, &masked));
        return written.map_err(Failure::at(path.display()));
    }
    let golden = fs::read_to_string(&path).map_err(Failure::at(path.display()))?;
    match difference(&golden, &masked) {
        None => Ok(()),
        Some(what) => Err(Failure(format!("{name} differs from {}: {what}", path.display()))),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guest/nvmf/golden")
}

fn difference(golden: &str, text: &str) -> Option<String> {
    let (mut expected, mut seen) = (golden.lines(), text.lines());
    for number in 1.. {
        match (expected.next(), seen.next()) {
            (None, None) => return None,
            (expected, seen) if expected == seen => {}
            (expected, seen) => {
                let [expected, seen] = [expected, seen].map(|line| line.unwrap_or("(no line)"));
                return Some(format!("line {number}: expected `{expected}`, saw `{seen}`"));
            }
        }
    }
    None
}

fn mask(text: &str, masks: &[Mask]) -> String {
    let one = |line: &str| masks.iter().fold(line.trim_end().to_owned(), apply) + "\n";
    text.lines().map(one).collect()
}

fn apply(line: String, mask: &Mask) -> String {
    let hidden = match mask {
        Mask::Field(word) => {
            let field = line.split_once(':').filter(|(before, _)| before.trim() == *word);
            field.map(|(before, _)| format!("{before}: {MASK}"))
        }
        Mask::Between(start, end) => line.split_once(start).and_then(|(before, rest)| {
            let end_at = if end.is_empty() { rest.len() } else { rest.find(end)? };
            Some(format!("{before}{start}{MASK}{}", &rest[end_at..]))
        }),
    };
    hidden.unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_masked_values_may_differ() {
        let masks = [Mask::Field("cntlid"), Mask::Between("trsvcid=", " ")];
        let golden = mask("nn : 4\ncntlid    : 0x1\n +- nvme1 trsvcid=4420 live\n", &masks);
        let same = mask("nn : 4\ncntlid    : 0x2f\n +- nvme1 trsvcid=9 live\n", &masks);
        assert_eq!(golden, "nn : 4\ncntlid    : (varies)\n +- nvme1 trsvcid=(varies) live\n");
        assert_eq!(difference(&golden, &same), None);
        for other in ["nn : 5\ncntlid : 0x1\n", "nn : 4\n", "nn : 4\ncntlid : 1\nx\ny\n"] {
            assert!(difference(&golden, &mask(other, &masks)).is_some(), "{other}");
        }
        let more = golden.clone() + "more\n";
        let why = difference(&golden, &more).unwrap();
        assert_eq!(why, "line 4: expected `(no line)`, saw `more`");
    }
}
