//! The layout against its table, and what a record's action makes of it.

use super::*;

/// Of version 7, little-endian: 4096 bytes at sector 2^32 + 16, written by process 697.
const GOLDEN: [u8; HEADER_BYTES] = [
    0x07, 0x74, 0x61, 0x65, 0x05, 0x00, 0x00, 0x00, // magic, sequence
    0x15, 0xcd, 0x5b, 0x07, 0x00, 0x00, 0x00, 0x00, // time 123,456,789
    0x10, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, // sector
    0x00, 0x10, 0x00, 0x00, 0x01, 0x00, 0x12, 0x00, // bytes, action: queue; queue | write
    0xb9, 0x02, 0x00, 0x00, 0x00, 0x00, 0x80, 0x00, // pid, device 8,0
    0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x08, 0x01, // cpu, error, pdu_len
];
/// The size of each field in turn.
const SIZES: [usize; 11] = [4, 4, 8, 8, 4, 4, 4, 4, 4, 2, 2];

fn header(bytes: &[u8; HEADER_BYTES], order: ByteOrder) -> Header<'_> {
    Header { bytes, order }
}

/// The golden record with another action.
fn with_action(action: u32) -> Result<Option<Event>, Problem> {
    let mut bytes = GOLDEN;
    bytes[ACTION_AT..ACTION_AT + 4].copy_from_slice(&action.to_le_bytes());
    header(&bytes, ByteOrder::Little).event()
}

/// The same record as a machine of the other byte order writes it.
fn swapped() -> [u8; HEADER_BYTES] {
    let mut bytes = GOLDEN;
    let mut at = 0;
    for size in SIZES {
        bytes[at..at + size].reverse();
        at += size;
    }
    bytes
}

#[test]
fn golden_bytes_read_alike_in_both_orders() {
    let record = Record {
        time_us: Some(123_456),
        op: Op::Write,
        offset_bytes: ((1 << 32) + 16) * 512,
        size_bytes: 4096,
        client: 697,
    };
    let expected = Event { record, stage: Stage::Queue, time: 123_456_789 };
    for (bytes, order) in [(GOLDEN, ByteOrder::Little), (swapped(), ByteOrder::Big)] {
        let head = bytes[..4].try_into().unwrap();
        assert_eq!(ByteOrder::recognise(head), Some(Ok(order)));
        let header = header(&bytes, order);
        assert!(header.in_sync());
        assert_eq!(header.event(), Ok(Some(expected)), "{order:?}");
        assert_eq!(header.payload_bytes(), 0x0108);
    }
}

#[test]
fn the_constants_are_the_documented_offsets() {
    let constants = [
        ("magic", MAGIC_AT),
        ("time", TIME_AT),
        ("sector", SECTOR_AT),
        ("bytes", BYTES_AT),
        ("action", ACTION_AT),
        ("pid", PID_AT),
        ("pdu_len", PDU_LEN_AT),
        ("payload", HEADER_BYTES),
    ];
    let mut end = 0;
    let mut found = Vec::new();
    for line in include_str!("blktrace.rs").lines().filter(|line| line.starts_with("//! | ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Ok(offset) = cells[1].parse::<usize>() else { continue };
        assert_eq!(offset, end, "{line}");
        end += cells[2].parse::<usize>().unwrap_or(0);
        found.extend(constants.into_iter().filter(|constant| *constant == (cells[3], offset)));
    }
    assert_eq!(found, constants);
    assert_eq!(end, HEADER_BYTES);
}

#[test]
fn the_action_decides() {
    let (queue, sync, fs) = (1 << 20, 1 << 19, 1 << 24);
    let of = |stage| Some((stage, Op::Write));
    let cases = [
        (QUEUE | WRITE | queue, of(Stage::Queue)),
        (QUEUE | CGROUP | WRITE | queue | sync | fs, of(Stage::Queue)),
        (ISSUE | WRITE, of(Stage::Issue)),
        (COMPLETE | WRITE, of(Stage::Complete)),
        (QUEUE | READ, Some((Stage::Queue, Op::Read))),
        (QUEUE | WRITE | 1 << 18, of(Stage::Queue)), // a flush in front of data
        (2 | WRITE, None),                           // merged
        (15 | WRITE, None),                          // remapped
        (QUEUE, None),                               // neither read nor write
        (QUEUE | WRITE | DISCARD, None),
        (ISSUE | READ | PACKET, None),
        (17 | DRIVER, None),
        (NOTIFY, None),              // process name
        (QUEUE | NOTIFY, None),      // timestamp
        (2 | NOTIFY | CGROUP, None), // message
    ];
    for (action, expected) in cases {
        let event = with_action(action).unwrap();
        assert_eq!(event.map(|event| (event.stage, event.record.op)), expected, "{action:#x}");
    }
    assert_eq!(with_action(QUEUE | READ | WRITE), Err(Problem::Operation));
}

#[test]
fn ranges_are_checked() {
    let mut bytes = GOLDEN;
    bytes[SECTOR_AT..SECTOR_AT + 8].fill(0xff);
    assert_eq!(header(&bytes, ByteOrder::Little).event(), Err(Problem::PastEnd));
    bytes[SECTOR_AT + 7] = 0;
    bytes[SECTOR_AT + 6] = 0x7f;
    assert_eq!(header(&bytes, ByteOrder::Little).event(), Err(Problem::PastEnd));
    bytes[BYTES_AT..BYTES_AT + 4].fill(0);
    assert_eq!(header(&bytes, ByteOrder::Little).event(), Ok(None));
}

#[test]
fn other_magics_are_told_apart() {
    let version = |version| Some(Err(Problem::Version(version)));
    assert_eq!(ByteOrder::recognise(*b"\x08tae"), version(8));
    assert_eq!(ByteOrder::recognise(*b"eat\x05"), version(5));
    assert_eq!(ByteOrder::recognise(*b"time"), None);
    let mut bytes = GOLDEN;
    bytes[0] = 6;
    assert!(!header(&bytes, ByteOrder::Little).in_sync());
}
