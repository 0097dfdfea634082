//! Trace formats through the public interface.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use predictor::trace::{
    MAX_LINE_BYTES, Op, Place, Problem, Reader, Record, TraceError, Writer, open, open_all,
};
use proptest::prelude::*;

fn read(text: impl AsRef<[u8]>) -> Result<Vec<Record>, TraceError> {
    Reader::new(text.as_ref())?.strict().collect()
}

fn problem(text: impl AsRef<[u8]>) -> (u64, Problem) {
    match read(text) {
        Err(TraceError::Bad { place: Place::Line(line), problem }) => (line, problem),
        other => panic!("expected an error on a line, got {other:?}"),
    }
}

fn read_at(time_us: Option<u64>, offset_bytes: u64, size_bytes: u32, client: u32) -> Record {
    Record { time_us, op: Op::Read, offset_bytes, size_bytes, client }
}

#[test]
fn our_csv_in_its_four_headers() {
    let plain = read("time_us,op,offset_bytes,size_bytes\n7,R,512,4096\n").unwrap();
    assert_eq!(plain, [read_at(Some(7), 512, 4096, 0)]);
    let pid = read("time_us,op,offset_bytes,size_bytes,pid\r\n7,W,512,1,99\r\n").unwrap();
    assert_eq!(pid, [Record { op: Op::Write, ..read_at(Some(7), 512, 1, 99) }]);
    let clockless = Reader::new(&b"seq_no,op,offset_bytes,size_bytes\n0,R,0,512\n"[..]).unwrap();
    assert!(!clockless.has_clock());
    let records: Result<Vec<_>, _> = clockless.collect();
    assert_eq!(records.unwrap(), [read_at(None, 0, 512, 0)]);
    let both = read("seq_no,op,offset_bytes,size_bytes,pid\n0,R,0,512,3\n").unwrap();
    assert_eq!(both, [read_at(None, 0, 512, 3)]);
    assert_eq!(read("time_us,op,offset_bytes,size_bytes\n").unwrap(), []);
}

#[test]
fn msr_cambridge() {
    let text = "128166372003061629,usr,0,Read,7014609920,24576,41286\n\
                128166372016382155,usr,0,Write,2517696512,4096,703\n";
    let records = read(text).unwrap();
    assert_eq!(records[0], read_at(Some(12_816_637_200_306_162), 7_014_609_920, 24_576, 0));
    assert_eq!(records[1].op, Op::Write);
    assert_eq!(problem(format!("{text}1,usr,0,Flush,0,4096,1\n")), (3, Problem::Operation));
}

#[test]
fn fio_iologs() {
    let two = "fio version 2 iolog\n/dev/x add\n/dev/x open\n/dev/x read 4096 512\n\
               /dev/x wait 100 0\n/dev/x trim 0 4096\n/dev/x write 0 8192\n/dev/x close\n";
    let records = read(two).unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(records[0], read_at(None, 4096, 512, 0));
    let three = "fio version 3 iolog\n0 /dev/x add\n5 /dev/x read 4096 512\n9 /dev/x close\n";
    assert_eq!(read(three).unwrap(), [read_at(Some(5), 4096, 512, 0)]);
    let fields = Problem::Fields { want: 4, got: 3 };
    assert_eq!(problem("fio version 2 iolog\n/dev/x read 4096\n"), (2, fields));
    assert_eq!(problem("fio version 3 iolog\n\n"), (2, Problem::Number("timestamp")));
}

#[test]
fn errors_name_the_line_and_the_fault() {
    let with = |line: &str| format!("time_us,op,offset_bytes,size_bytes\n1,R,0,512\n{line}");
    let max = u64::MAX;
    let cases = [
        (with("2,R,0\n"), Problem::Fields { want: 4, got: 3 }),
        (with("2,R,0,512,7\n"), Problem::Fields { want: 4, got: 5 }),
        (with("\n"), Problem::Fields { want: 4, got: 1 }),
        (with("2,X,0,512\n"), Problem::Operation),
        (with("-2,R,0,512\n"), Problem::Number("time_us")),
        (with("2,R,+1,512\n"), Problem::Number("offset_bytes")),
        (with("2,R,0,4294967296\n"), Problem::Number("size_bytes")),
        (with("2,R,0,0\n"), Problem::ZeroSize),
        (with(&format!("2,R,{max},1\n")), Problem::PastEnd),
        (with("2,R,0,51"), Problem::Truncated),
        (with(&"9".repeat(MAX_LINE_BYTES + 1)), Problem::TooLong),
    ];
    for (text, expected) in cases {
        assert_eq!(problem(&text), (3, expected), "{text}");
    }
    assert_eq!(problem(""), (1, Problem::Empty));
    assert_eq!(problem("hello\n"), (1, Problem::UnknownFormat));
    assert_eq!(problem(b"time_us,op,offset_bytes,size_bytes\n\xff\n"), (2, Problem::NotText));
    let error = read(with("2,X,0,512\n")).unwrap_err().to_string();
    assert_eq!(error, "line 3: field op is not a known operation");
    assert!(matches!(open(Path::new("/nonexistent")), Err(TraceError::Open { .. })));
    assert!(matches!(open_all(&[] as &[&Path]), Err(TraceError::NoFiles)));
}

#[test]
fn a_strict_reader_ends_at_a_bad_line_and_another_goes_on() {
    let text = b"time_us,op,offset_bytes,size_bytes\nbad\n1,R,0,512\n";
    let mut reader = Reader::new(&text[..]).unwrap();
    assert_eq!(reader.next().unwrap().unwrap(), read_at(Some(1), 0, 512, 0));
    assert!(reader.next().is_none());
    assert_eq!(reader.skipped().count, 1);
    let mut reader = Reader::new(&text[..]).unwrap().strict();
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}

#[test]
fn every_truncation_of_a_compressed_trace_is_an_error() {
    let mut writer = Writer::new(Vec::new(), true).unwrap();
    for i in 0..2000_u64 {
        writer.write(&read_at(Some(i * 37), (i * i) << 9, 4096, 1)).unwrap();
    }
    let whole = writer.finish().unwrap();
    assert_eq!(read(&whole).unwrap().len(), 2000);
    for cut in (0..whole.len()).step_by(97) {
        let all = Reader::new(&whole[..cut]).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        assert!(all.is_err(), "cut at {cut}");
    }
}

#[test]
fn files_are_compressed_by_name_and_recognised_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let record = read_at(Some(1), 4096, 512, 2);
    for (name, magic) in [("a.csv", &b"time"[..]), ("a.csv.zst", &[0x28, 0xb5, 0x2f, 0xfd])] {
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path).unwrap();
        writer.write(&record).unwrap();
        writer.finish().unwrap();
        assert_eq!(&std::fs::read(&path).unwrap()[..4], magic);
        let renamed = folder.path().join("renamed");
        std::fs::rename(&path, &renamed).unwrap();
        let records: Result<Vec<_>, _> = open_all(&[&renamed]).unwrap().collect();
        assert_eq!(records.unwrap(), [record]);
        let records: Result<Vec<_>, _> = open_all(&[&renamed, &renamed]).unwrap().collect();
        assert_eq!(records.unwrap(), [record, record]);
    }
}

#[test]
fn clocks_cannot_be_mixed() {
    let mut writer = Writer::new(Vec::new(), false).unwrap();
    writer.write(&read_at(None, 0, 1, 0)).unwrap();
    let error = writer.write(&read_at(Some(1), 0, 1, 0)).unwrap_err();
    assert_eq!(error.to_string(), "record 2 has a time, unlike those before it");
}

#[test]
fn a_failing_medium_names_the_line() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("unplugged"))
        }
    }
    let start = Cursor::new("time_us,op,offset_bytes,size_bytes\n1,R,0,512\n2,R,");
    let mut reader = Reader::new(start.chain(Failing)).unwrap();
    // The buffered reader meets the failure only when it needs more bytes.
    assert!(reader.next().unwrap().is_ok());
    assert!(matches!(reader.next(), Some(Err(TraceError::Read { place: Place::Line(3), .. }))));
}

fn record(clock: bool) -> impl Strategy<Value = Record> {
    (any::<u64>(), any::<bool>(), any::<u64>(), 1..=u32::MAX, any::<u32>()).prop_map(
        move |(time, write, offset, size_bytes, client)| Record {
            time_us: clock.then_some(time),
            op: if write { Op::Write } else { Op::Read },
            offset_bytes: offset.min(u64::MAX - u64::from(size_bytes)),
            size_bytes,
            client,
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_never_panic(
        start in prop::sample::select(vec![
            "", "time_us,op,offset_bytes,size_bytes\n", "seq_no,op,offset_bytes,size_bytes,pid\n",
            "fio version 2 iolog\n", "fio version 3 iolog\n", "1,h,0,Read,0,512,1\n", "(\u{b5}/",
            "8,0 3 1 0.000000000 697 Q W 8 + 8 [x]\n", "\u{7}tae", "eat\u{7}",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start.as_bytes(), &rest].concat();
        let strict = read(&bytes);
        let Ok(mut reader) = Reader::new(&bytes[..]) else { return Ok(()) };
        let tolerant: Result<Vec<_>, _> = reader.by_ref().collect();
        prop_assert!(reader.next().is_none());
        let none_bad = reader.skipped().count == 0 && tolerant.is_ok();
        prop_assert_eq!(strict.is_ok(), none_bad);
        if none_bad {
            prop_assert_eq!(strict.unwrap(), tolerant.unwrap());
        }
    }

    #[test]
    fn any_text_never_panics(rest in "([RW0-9a-z/]{0,9}[, ]){0,6}\n") {
        for start in ["time_us,op,offset_bytes,size_bytes\n", "fio version 2 iolog\n", ""] {
            let _ = read(format!("{start}{rest}"));
        }
    }

    #[test]
    fn what_is_written_is_read(
        records in any::<bool>().prop_flat_map(|clock| prop::collection::vec(record(clock), 0..50)),
        compress: bool,
    ) {
        let mut writer = Writer::new(Vec::new(), compress).unwrap();
        for record in &records {
            writer.write(record).unwrap();
        }
        prop_assert_eq!(read(writer.finish().unwrap()).unwrap(), records);
    }
}

#[test]
fn shared_traces_are_read_whole() {
    let folder: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "..", "..", "shared", "traces"].iter().collect();
    if !folder.is_dir() {
        println!("skipped: no shared traces beside the repository");
        return;
    }
    let expected = [
        ("arc_P3", 238_578),
        ("cloudphysics", 113_872),
        ("hadoop_eternity8", 107_614),
        ("msdtrs", 127_043),
    ];
    for (name, requests) in expected {
        let mut reader = open(&folder.join(format!("{name}.csv.zst"))).unwrap();
        assert_eq!(reader.has_clock(), name != "arc_P3");
        assert_eq!(reader.by_ref().map(Result::unwrap).count(), requests);
        assert_eq!(reader.skipped().count, 0, "{name}");
    }
}
