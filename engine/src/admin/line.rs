//! Bounded lines: the framing of the admin protocol.
//!
//! Never holds more than the limit, whatever the peer sends.

use std::io::{self, BufRead, Read};

/// What came before the next newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its newline.
    Text(Vec<u8>),
    /// No newline within the limit: the framing is lost.
    TooLong,
    /// The peer closed; an unfinished last line is dropped.
    End,
}

/// Reads one line of at most `limit` bytes, newline included.
pub(super) fn read_line(reader: &mut impl BufRead, limit: usize) -> io::Result<Line> {
    let mut line = Vec::new();
    reader.by_ref().take(limit as u64).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(Line::Text(line));
    }
    Ok(if line.len() == limit { Line::TooLong } else { Line::End })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_and_bounded() {
        let mut input: &[u8] = b"ab\n\n123\n1234\n";
        assert_eq!(read_line(&mut input, 4).unwrap(), Line::Text(b"ab".to_vec()));
        assert_eq!(read_line(&mut input, 4).unwrap(), Line::Text(b"".to_vec()));
        assert_eq!(read_line(&mut input, 4).unwrap(), Line::Text(b"123".to_vec()));
        assert_eq!(read_line(&mut input, 4).unwrap(), Line::TooLong);
        let mut input: &[u8] = b"ab";
        assert_eq!(read_line(&mut input, 4).unwrap(), Line::End);
        assert_eq!(read_line(&mut input, 4).unwrap(), Line::End);
    }
}
