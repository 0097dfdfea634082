//! Tolerance and the choice of a stage, through the reader.

use proptest::prelude::*;

use super::super::select::LOOK_AHEAD;
use super::super::{Op, Place, Skip};
use super::*;

pub(super) const CSV: &str = "time_us,op,offset_bytes,size_bytes\n";

/// A binary record without a payload: 4096 bytes at a sector, little-endian.
pub(super) fn binary(time_ns: u64, action: u32, sector: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(0x6561_7407_u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(time_ns.to_le_bytes());
    bytes.extend(sector.to_le_bytes());
    bytes.extend(4096_u32.to_le_bytes());
    bytes.extend(action.to_le_bytes());
    bytes.extend(697_u32.to_le_bytes());
    bytes.extend([0; 12]);
    bytes
}

/// Queued, issued and completed reads.
pub(super) const ACTIONS: [u32; 3] = [1 | 0x11 << 16, 7 | 0x41 << 16, 8 | 0x81 << 16];

fn tolerant(bytes: impl AsRef<[u8]>) -> (Vec<u64>, Result<Skipped, TraceError>) {
    let mut reader = Reader::new(bytes.as_ref()).unwrap();
    drain(&mut reader)
}

/// The sectors of all records, and how it ended.
pub(super) fn drain(reader: &mut Reader<'_>) -> (Vec<u64>, Result<Skipped, TraceError>) {
    let mut sectors = Vec::new();
    loop {
        match reader.next() {
            Some(Ok(record)) => sectors.push(record.offset_bytes / 512),
            Some(Err(error)) => {
                assert!(reader.next().is_none(), "nothing follows an error");
                return (sectors, Err(error));
            }
            None => return (sectors, Ok(reader.skipped().clone())),
        }
    }
}

#[test]
fn bad_lines_are_counted_and_the_first_are_named() {
    let long = "9".repeat(3 * super::super::MAX_LINE_BYTES);
    let mut text = format!("{CSV}x,R,0,512\n1,R,512,512\n{long}\n2,R,1024,512\n\n");
    text += &"3,R,0,0\n".repeat(10);
    let mut bytes = text.into_bytes();
    bytes.extend(b"\xff\n4,R,1536,512\n5,R,0,51");
    let (sectors, skipped) = tolerant(bytes);
    let skipped = skipped.unwrap();
    assert_eq!((sectors, skipped.count), (vec![1, 2, 3], 15));
    let mut expected = vec![
        (2, Problem::Number("time_us")),
        (4, Problem::TooLong),
        (6, Problem::Fields { want: 4, got: 1 }),
    ];
    expected.extend((7..=11).map(|line| (line, Problem::ZeroSize)));
    let skip = |(line, problem)| Skip { file: 0, place: Place::Line(line), problem };
    assert_eq!(skipped.first, expected.into_iter().map(skip).collect::<Vec<_>>());
}

#[test]
fn a_trace_of_bad_lines_only_is_an_error() {
    let cases = [
        (format!("{CSV}x\n1,R,0,51"), "nothing can be read, 2 bad, the first at line 2: "),
        ("fio version 2 iolog\nx\n".into(), "nothing can be read, 1 bad, the first at line 2: "),
        ("Input file a added\n\nx\n".into(), "nothing can be read, 1 bad, the first at line 3: "),
        ("\u{7}tae".into(), "nothing can be read, 1 bad, the first at byte 0: "),
    ];
    for (text, expected) in cases {
        let (sectors, end) = tolerant(&text);
        let error = end.unwrap_err().to_string();
        assert!(sectors.is_empty() && error.starts_with(expected), "{error}");
    }
    // Lines that move no data are good ones, and no lines are not bad.
    assert_eq!(tolerant("fio version 2 iolog\nv add\nx\n").1.unwrap().count, 1);
    assert_eq!(tolerant(CSV).1.unwrap().count, 0);
    for unknown in ["\u{8}tae", "\n", "a b (42)\n", "CPU0 (sda):\n"] {
        let error = Reader::new(unknown.as_bytes()).err().unwrap();
        assert!(matches!(error, TraceError::Bad { .. }), "{error}");
    }
}

#[test]
fn blkparse_text_ends_at_its_summary() {
    let head = "  8,0    1        1     0.000000100    42";
    let text = format!(
        "Input file sda.blktrace.0 added\n{head}  C   R 0 + 8 [0]\n{head}  Q   R 8 + 8 [a b]\n\
         {head}  D   R 8 + 8 [a b]\nrubbish\n{head}  Q   R 16 + 8 [x]\n\na b (42)\n\
         CPU0 (sda):\n Reads Queued:           2,        8KiB\n{head}  Q   R 99 + 8 [x]\n\nThroughp"
    );
    let (sectors, skipped) = tolerant(&text);
    let skipped = skipped.unwrap();
    assert_eq!((sectors, skipped.count), (vec![8, 16], 1));
    assert_eq!(skipped.first[0].place, Place::Line(5));
    let mut bytes = format!("{head}  Q   W 8 + 8 [").into_bytes();
    bytes.extend(b"\xff\xfe]\n");
    let record = Reader::new(&bytes[..]).unwrap().strict().next().unwrap().unwrap();
    assert_eq!((record.op, record.client, record.size_bytes), (Op::Write, 42, 4096));
}

#[test]
fn the_best_stage_of_a_trace_is_taken() {
    let [queue, issue, complete] = ACTIONS;
    let cases: [(&[u32], &[u64]); 5] = [
        (&[complete, issue, queue, issue, queue], &[2, 4]),
        (&[complete, issue, complete, issue], &[1, 3]),
        (&[complete, complete], &[0, 1]),
        (&[queue], &[0]),
        (&[2 | 0x11 << 16], &[]),
    ];
    for (actions, expected) in cases {
        let bytes: Vec<u8> =
            (0..).zip(actions).flat_map(|(at, action)| binary(at * 1000, *action, at)).collect();
        let (sectors, skipped) = tolerant(bytes);
        assert_eq!((&sectors[..], skipped.unwrap().count), (expected, 0), "{actions:x?}");
    }
    // The choice is made once, after so many events.
    for (before, expected) in [(LOOK_AHEAD - 1, 1), (LOOK_AHEAD, LOOK_AHEAD)] {
        let mut bytes = binary(0, issue, 0).repeat(before);
        bytes.extend(binary(1, queue, 1));
        assert_eq!(tolerant(bytes).0.len(), expected);
    }
}

#[test]
fn binary_data_end_where_they_lose_their_structure() {
    let [queue, ..] = ACTIONS;
    let with_payload = |length: u16| {
        let mut bytes = binary(2000, queue, 2);
        bytes[46..48].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    let whole = [binary(1000, queue, 1), with_payload(5), b"12345".to_vec()].concat();
    let (sectors, end) = tolerant([&whole[..], &binary(3000, queue, 3)].concat());
    assert_eq!((sectors, end.unwrap().count), (vec![1, 2, 3], 0));
    let past_end = binary(0, queue, u64::MAX);
    let (sectors, end) = tolerant([&whole[..], &past_end, &whole].concat());
    let first = end.unwrap().first;
    assert_eq!((sectors, first[0].place), (vec![1, 2, 1, 2], Place::Byte(101)));
    let (sectors, end) = tolerant([&whole[..], &[0; 64]].concat());
    assert_eq!(sectors, [1, 2]);
    let lost = TraceError::Bad { place: Place::Byte(101), problem: Problem::LostSync };
    assert_eq!(end.unwrap_err().to_string(), lost.to_string());
    for cut in 1..whole.len() {
        let (sectors, end) = tolerant([&whole[..], &whole[..cut]].concat());
        let skipped = end.unwrap();
        let place = Place::Byte(101 + if cut > 48 { 48 } else { 0 });
        let truncated = Skip { file: 0, place, problem: Problem::Truncated };
        let expected: &[Skip] = if cut == 48 { &[] } else { &[truncated] };
        assert_eq!(skipped.first, expected, "cut at {cut}");
        assert_eq!(sectors.len(), if cut < 48 { 2 } else { 3 }, "cut at {cut}");
    }
}

proptest! {
    /// Damage in a binary trace is found, or changes records; it never panics.
    #[test]
    fn damaged_binary_never_panics(
        records in prop::collection::vec((0..3_usize, any::<u64>()), 1..20),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut bytes: Vec<u8> = records
            .iter()
            .flat_map(|&(action, sector)| binary(sector, ACTIONS[action], sector))
            .collect();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(mut reader) = Reader::new(&bytes[..]) {
            let _ = drain(&mut reader);
        }
    }

    #[test]
    fn any_blkparse_line_never_panics(rest in "([QDCWRFNS0-9.,+\\[(]{0,9} ){0,12}\n") {
        let start = "8,0 3 1 0.000000000 697 Q W 8 + 8 [x]\n";
        let (sectors, _) = tolerant(format!("{start}{rest}{start}"));
        prop_assert!(sectors.len() >= 2);
    }
}
