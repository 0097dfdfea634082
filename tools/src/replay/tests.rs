//! Tests of the replay loop on a volume in memory.

use super::*;
use crate::block::memory::MemoryClient;

const CLOSED: Options = Options {
    depth: 4,
    speed: None,
    slow_read: Duration::from_millis(4),
    max_requests: None,
    max_time: None,
};

fn record(time_us: Option<u64>, op: Op, offset_bytes: u64, size_bytes: u32) -> Record {
    Record { time_us, op, offset_bytes, size_bytes, client: 0 }
}

fn replay(client: &mut MemoryClient, records: &[Record], options: &Options) -> Outcome {
    let records = records.iter().copied().map(Ok);
    run(client, records, options, &Interrupt::default(), |_| ()).unwrap()
}

#[test]
fn a_closed_loop_keeps_its_depth_and_counts() {
    let mut client = MemoryClient::new(vec![0; 1 << 20]);
    let mut records: Vec<Record> =
        (0..20).map(|i| record(None, Op::Read, i * 4096, 4096)).collect();
    records.push(record(None, Op::Write, (1 << 20) + 8192, 512));
    let mut seen = 0;
    let all = records.iter().copied().map(Ok);
    let got = run(&mut client, all, &CLOSED, &Interrupt::default(), |sent| seen = sent).unwrap();
    assert_eq!((got.reads, got.writes, got.folded, got.failed), (20, 1, 1, 0));
    assert_eq!((got.read_bytes, got.write_bytes), (20 * 4096, 512));
    assert_eq!((got.read_micros.len(), got.slow_micros.len()), (20, 0));
    assert_eq!((client.most_in_flight, seen), (4, 21));
    assert!(client.bytes[8192..8704].iter().all(|byte| *byte != 0), "the write has landed");
    assert!(got.late_micros.is_none());
}

#[test]
fn an_open_loop_is_never_early() {
    let mut client = MemoryClient::new(vec![0; 1 << 20]);
    // A clock that starts late and once runs backwards.
    let times = [1_000_000, 1_020_000, 1_010_000, 1_040_000];
    let records = times.map(|at| record(Some(at), Op::Read, 0, 512));
    let got = replay(&mut client, &records, &Options { speed: Some(2.0), ..CLOSED });
    assert_eq!(got.reads, 4);
    assert!(got.elapsed >= Duration::from_millis(20), "40 ms at twice the speed");
    assert_eq!(got.late_micros.unwrap().len(), 4);
}

#[test]
fn slow_reads_are_told_apart() {
    let mut client = MemoryClient::new(vec![0; 1 << 20]);
    let records = [record(None, Op::Read, 0, 4096), record(None, Op::Write, 0, 4096)];
    let all_slow = Options { slow_read: Duration::ZERO, ..CLOSED };
    let got = replay(&mut client, &records, &all_slow);
    assert_eq!((got.slow_micros.len(), got.reads), (1, 1));
    assert_eq!(got.slow_micros.max(), got.read_micros.max());
}

#[test]
fn refused_requests_are_counted_and_the_rest_goes_on() {
    let mut client = MemoryClient::new(vec![0; 1 << 20]);
    client.bad_offset = Some(4096);
    let records: Vec<Record> = (0..8).map(|i| record(None, Op::Read, i * 4096, 4096)).collect();
    let got = replay(&mut client, &records, &CLOSED);
    assert_eq!((got.reads, got.failed), (7, 1));
}

#[test]
fn it_ends_at_a_limit_a_signal_or_an_error_of_the_trace() {
    let mut client = MemoryClient::new(vec![0; 1 << 20]);
    let records = vec![record(None, Op::Read, 0, 512); 10];
    let got = replay(&mut client, &records, &Options { max_requests: Some(3), ..CLOSED });
    assert_eq!(got.reads, 3);

    let signal = Interrupt::default();
    signal.set();
    let all = records.iter().copied().map(Ok);
    let got = run(&mut client, all, &CLOSED, &signal, |_| ());
    assert!(matches!(got, Err(ReplayError::Interrupted)));

    let text: &[u8] = b"time_us,op,offset_bytes,size_bytes\n0,R,0,512\n0,X,0,512\n";
    let reader = predictor::trace::Reader::new(text).unwrap().strict();
    let mut client = MemoryClient::new(vec![0; 1 << 20]);
    let got = run(&mut client, reader, &CLOSED, &Interrupt::default(), |_| ());
    let Err(ReplayError::Trace(error)) = got else { panic!("the trace is damaged") };
    assert!(error.to_string().contains("line 3"), "{error}");

    let mut empty = MemoryClient::new(Vec::new());
    let all = records.iter().copied().map(Ok);
    let got = run(&mut empty, all, &CLOSED, &Interrupt::default(), |_| ());
    assert!(matches!(got, Err(ReplayError::EmptyVolume)));
}
