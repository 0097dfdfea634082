//! Several files as one.

use std::path::PathBuf;

use proptest::prelude::*;

use super::super::{Place, Writer};
use super::tests::{ACTIONS, CSV, binary, drain};
use super::*;

fn merged(inputs: &[&[u8]]) -> Result<Reader<'static>, TraceError> {
    let named = |(at, bytes): (usize, &&[u8])| {
        (PathBuf::from(format!("sda.blktrace.{at}")), std::io::Cursor::new(bytes.to_vec()))
    };
    Reader::merge(inputs.iter().enumerate().map(named).collect::<Vec<_>>())
}

#[test]
fn files_of_one_trace_are_merged_by_time() {
    let [queue, issue, _] = ACTIONS;
    // Within a microsecond too; at equal times by file.
    let one = [binary(100, queue, 1), binary(300, queue, 3), binary(900, queue, 6)].concat();
    let two = [binary(200, queue, 2), binary(300, queue, 4), binary(500, queue, 5)].concat();
    let issued = [binary(0, issue, 0), binary(600, issue, 0)].concat();
    let mut reader = merged(&[&[], &one, &issued, &two]).unwrap();
    assert!(reader.has_clock());
    assert_eq!(drain(&mut reader).0, [1, 2, 3, 4, 5, 6]);

    let lost = [&two[..], &[1; 48]].concat();
    let (sectors, end) = drain(&mut merged(&[&one, &lost]).unwrap());
    assert_eq!(sectors, [1, 2, 3, 4, 5]);
    let error = end.unwrap_err().to_string();
    assert!(error.starts_with("sda.blktrace.1: byte 144: no blktrace record"), "{error}");

    let (sectors, end) = drain(&mut merged(&[&[], &one[..140], &two]).unwrap());
    assert_eq!(sectors, [1, 2, 3, 4, 5]);
    let skip = end.unwrap().first[0];
    assert_eq!((skip.file, skip.place), (1, Place::Byte(96)));
}

#[test]
fn what_cannot_be_merged_names_the_file() {
    let binary = binary(0, ACTIONS[0], 0);
    let clockless = b"seq_no,op,offset_bytes,size_bytes\n0,R,0,512\n";
    let cases: [(&[&[u8]], &str); 5] = [
        (&[], "no trace is given"),
        (&[&[], &[]], "sda.blktrace.1: line 1: the trace is empty"),
        (&[CSV.as_bytes(), clockless], "sda.blktrace.1: the trace has no clock to be merged by"),
        (&[CSV.as_bytes(), &binary], "sda.blktrace.1: the trace has another format"),
        (&[&binary, b"hello\n"], "sda.blktrace.1: line 1: not a trace"),
    ];
    for (inputs, expected) in cases {
        let error = merged(inputs).err().unwrap().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

proptest! {
    /// A trace dealt out to CPUs comes back as it was, and so does our copy of it.
    #[test]
    fn a_dealt_trace_is_merged_whole(cpus in prop::collection::vec(0..4_usize, 1..60)) {
        let mut files = vec![Vec::new(); 4];
        for (at, cpu) in (0..).zip(&cpus) {
            files[*cpu].extend(binary(at * 500, ACTIONS[0], at));
        }
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let records: Result<Vec<Record>, _> = merged(&files).unwrap().strict().collect();
        let records = records.unwrap();
        prop_assert!((0..).zip(&records).all(|(at, record)| record.offset_bytes == at * 512));
        prop_assert_eq!(records.len(), cpus.len());
        let mut writer = Writer::new(Vec::new(), true).unwrap();
        records.iter().for_each(|record| writer.write(record).unwrap());
        let copy = writer.finish().unwrap();
        let copy: Result<Vec<Record>, _> = Reader::new(&copy[..]).unwrap().strict().collect();
        prop_assert_eq!(copy.unwrap(), records);
    }
}
