//! Golden bytes of format version 1: every structure with fixed values, held
//! to bytes that are committed and never change while the version is 1.
//!
//! `golden/NAME` is a text: a line for every 16 bytes that are not all zero,
//! their offset and the bytes in hexadecimal. A structure that a later version
//! changes gets new files beside these; these stay, for their decoder stays.
//! `cargo test -p engine --lib -- golden_tests::write --ignored` writes those
//! that are missing.

use std::fmt::Write;
use std::path::PathBuf;

use super::checkpoint::{PAGE_HEADER_BYTES, Root, open_page, seal_page};
use super::journal_block::{self, HEADER_BYTES, Header};
use super::map_page::{self, MapId, PAGE_BLOCKS};
use super::record::{
    Entry, FragmentKey, Mapped, Placement, Record, Records, VolumeRecord, put_blocks, put_drop,
    put_fragment, put_holes, put_seat, put_volume, put_volume_gone,
};
use super::superblock::{Role, Superblock};
use crate::journal::log::{LOG_BYTES, LogMemory, LogTag, PendingLog, survivors};
use crate::table::entry::{Place, SlotRef};
use crate::units::{BLOCK_BYTES, Crc, DeviceId, FragmentSize, Generation, SliceId, VolumeId};

const POOL: u64 = 0x0807_0605_0403_0201;
const SLICE: SliceId = SliceId::new(37);
const NAMES: [&str; 6] = [
    "superblock",
    "journal_block",
    "checkpoint_root",
    "checkpoint_page",
    "map_page",
    "pending_log",
];

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "src/format/golden", name].iter().collect()
}

fn text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, line) in bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|b| *b != 0))
    {
        write!(text, "{:05x}:", at * 16).expect("a string takes all");
        line.iter().for_each(|byte| write!(text, " {byte:02x}").expect("a string takes all"));
        text.push('\n');
    }
    text
}

fn committed(name: &str, len: usize) -> Vec<u8> {
    let text = std::fs::read_to_string(path(name)).expect("a committed file");
    let mut bytes = vec![0; len];
    for line in text.lines() {
        let (at, line) = line.split_once(':').expect("an offset");
        let at = usize::from_str_radix(at, 16).expect("an offset");
        for (byte, digits) in bytes[at..].iter_mut().zip(line.split_whitespace()) {
            *byte = u8::from_str_radix(digits, 16).expect("a byte");
        }
    }
    bytes
}

/// The structure as it is encoded today.
fn encoded(name: &str) -> Vec<u8> {
    match name {
        "superblock" => superblock().encode().into(),
        "journal_block" => {
            let mut block = vec![0; BLOCK_BYTES];
            let records = records();
            block[HEADER_BYTES..HEADER_BYTES + records.len()].copy_from_slice(&records);
            journal_block::seal(&mut block, &header());
            block
        }
        "checkpoint_root" => root().encode(POOL, SLICE).into(),
        "checkpoint_page" => {
            let mut page = vec![0; BLOCK_BYTES];
            let len = put_seat(&mut page[PAGE_HEADER_BYTES..], key(), &placement(), &mapped());
            let len = u16::try_from(len).expect("a short record");
            seal_page(&mut page, POOL, SLICE, 0x1112_1314_1516_1718, 0x2122_2324, len);
            page
        }
        "map_page" => {
            let mut page = vec![0; BLOCK_BYTES];
            map_page::encode(&mut page, &map_id(), map_entry);
            page
        }
        "pending_log" => {
            let mut log = PendingLog::start(LogMemory::heap(), &tag(), 41);
            log.append(|out| put_holes(out, key(), 3, 4));
            assert_eq!(log.begin_commit(), 41);
            log.append(|out| put_drop(out, key()));
            match log.into_memory() {
                LogMemory::Heap(bytes) => bytes.into(),
                LogMemory::Mapped(_) => unreachable!("made on the heap"),
            }
        }
        _ => unreachable!("one of NAMES"),
    }
}

/// The committed bytes, after the encoder was held to them.
fn golden(name: &str) -> Vec<u8> {
    let now = encoded(name);
    let bytes = committed(name, now.len());
    assert_eq!(text(&now), text(&bytes), "the layout of {name} is no longer version 1");
    bytes
}

#[test]
#[ignore = "writes the golden bytes of structures that have none"]
fn write() {
    for name in NAMES.into_iter().filter(|name| !path(name).exists()) {
        std::fs::write(path(name), text(&encoded(name))).expect("written");
    }
}

fn superblock() -> Superblock {
    Superblock {
        version: 1,
        compat: 0x8000_0000_0000_0001,
        ro_compat: 0x4000_0000_0000_0002,
        pool_uuid: *b"\x01\x02\x03\x04\x05\x06\x07\x08pooluuid",
        device_uuid: *b"the device's own",
        sequence: 0x3132_3334_3536_3738,
        incarnation: 0x4142_4344,
        size_bytes: 0x51_5253_5455_5657,
        device: DeviceId::new(1),
        devices: 3,
        role: Role::Fast,
        fast_devices: 2,
        journal_blocks: 0x0101,
        extent_bytes: 0x1_0000,
        extents: 0x6162_6364,
        chunks: 0x0071_7273,
        meta_offset: [0x10_0000, 0x2_0000_0000],
        meta_bytes: 0x1_2345_6000,
        data_offset: 0x4_5678_9000,
        chunk_bytes: 18 << 20,
    }
}

#[test]
fn superblock_of_version_1() {
    let bytes = golden("superblock");
    let block = bytes.as_slice().try_into().expect("a block");
    assert_eq!(Superblock::decode(block), Ok(superblock()));
}

fn key() -> FragmentKey {
    FragmentKey { volume: VolumeId::new(0x8182_8384), start: 0x0091_9290 }
}

fn placement() -> Placement {
    let slot = SlotRef::from_raw;
    Placement {
        size: FragmentSize::DEFAULT,
        generation: Generation::new(0xa1a2_a3a4),
        fast: [slot(0x0100_0000_0102_0304), slot(0x0200_0000_0506_0708)],
        cold: slot(0x0300_0000_090a_0b0c),
    }
}

fn mapped() -> Mapped {
    Mapped { page: Some(0xb1b2_b3b4), written: 0xc1c2_c3c4, present: 0x00d1, cold_blocks: 0x00a0 }
}

fn entries() -> [Entry; 3] {
    let entry = |place, crc| Entry { place, crc: Crc::new(crc) };
    [
        entry(Place::fast(0, 5), 0xe1e2_e3e4),
        entry(Place::fast(1, 287), 0xf1f2_f3f4),
        entry(Place::COLD, 0x0102_0304),
    ]
}

fn volume() -> VolumeRecord<'static> {
    VolumeRecord {
        id: VolumeId::new(0x1112_1314),
        uuid: *b"volume's own id!",
        size_bytes: 0x2122_2324_2526_2728,
        fragment: FragmentSize::MIN,
        block_shift: 12,
        flags: 5,
        name: "boot disk \u{fc}",
    }
}

/// A record of every kind, one behind the other.
fn records() -> Vec<u8> {
    let mut out = vec![0; BLOCK_BYTES];
    let mut at = put_fragment(&mut out, key(), &placement());
    at += put_blocks(&mut out[at..], key(), 0x0102, entries().into_iter());
    at += put_holes(&mut out[at..], key(), 0x0304, 0x0506);
    at += put_drop(&mut out[at..], key());
    at += put_seat(&mut out[at..], key(), &placement(), &mapped());
    let nowhere = Placement { fast: [None; 2], cold: None, ..placement() };
    at += put_seat(&mut out[at..], key(), &nowhere, &Mapped { page: None, ..mapped() });
    at += put_volume(&mut out[at..], &volume());
    at += put_volume_gone(&mut out[at..], VolumeId::new(0x3132_3334));
    out.truncate(at);
    out
}

fn header() -> Header {
    Header {
        pool: POOL,
        slice: SLICE,
        index: 6,
        blocks: 15,
        bytes: u16::try_from(records().len()).expect("fits a block"),
        seq: 0x4142_4344_4546_4748,
        group: 0x5152_5354_5556_5758,
        durable: 0x6162_6364_6566_6768,
        prev: Crc::new(0x7172_7374),
        incarnation: 0x8182_8384,
    }
}

#[test]
fn journal_block_and_records_of_version_1() {
    let bytes = golden("journal_block");
    let (found, _, payload) = journal_block::open(&bytes).expect("a block of version 1");
    assert_eq!(found, header());
    let records: Vec<_> = Records::new(payload).map(|r| r.expect("of version 1")).collect();
    let [fragment, blocks, holes, drop, seat, unmapped, made, gone] = records[..] else {
        panic!("{} records", records.len())
    };
    assert_eq!(fragment, Record::Fragment(key(), placement()));
    let Record::Blocks { key: of, first: 0x0102, entries: found } = blocks else {
        panic!("{blocks:?}")
    };
    assert_eq!((of, found.iter().collect::<Vec<_>>()), (key(), entries().to_vec()));
    assert_eq!(holes, Record::Holes { key: key(), first: 0x0304, count: 0x0506 });
    assert_eq!(drop, Record::Drop(key()));
    assert_eq!(seat, Record::Seat(key(), placement(), mapped()));
    let nowhere = Placement { fast: [None; 2], cold: None, ..placement() };
    assert_eq!(unmapped, Record::Seat(key(), nowhere, Mapped { page: None, ..mapped() }));
    assert_eq!(made, Record::Volume(volume()));
    assert_eq!(gone, Record::VolumeGone(VolumeId::new(0x3132_3334)));
}

fn root() -> Root {
    Root {
        sequence: 0x0102_0304_0506_0708,
        start_seq: 0x1112_1314_1516_1718,
        start_prev: Crc::new(0x2122_2324),
        incarnation: 0x3132_3334,
        start_group: 0x0142_4344_4546_4748,
        fuzzy_group: 0x5152_5354_5556_5758,
        pages: 0x6162_6364_6566_6768,
        extents: vec![0x7172_7374, 0x8182_8384, 5],
    }
}

#[test]
fn checkpoint_root_of_version_1() {
    assert_eq!(Root::decode(&golden("checkpoint_root"), POOL, SLICE), Ok(root()));
}

#[test]
fn checkpoint_page_of_version_1() {
    let bytes = golden("checkpoint_page");
    let payload = open_page(&bytes, POOL, SLICE, 0x1112_1314_1516_1718, 0x2122_2324);
    let records: Vec<_> = Records::new(payload.expect("of version 1")).collect();
    assert_eq!(records, [Ok(Record::Seat(key(), placement(), mapped()))]);
}

fn map_id() -> MapId {
    let volume = VolumeId::new(0x0102_0304);
    MapId { pool: POOL, slice: SLICE, volume, unit: 0x1112_1314, written: 0x2122_2324 }
}

/// Of every five blocks two are holes and the others as in [`entries`].
fn map_entry(block: usize) -> Option<Entry> {
    (block % 5 < 3).then(|| entries()[block % 5])
}

#[test]
fn map_page_of_version_1() {
    let bytes = golden("map_page");
    let page = map_page::open(&bytes, &map_id()).expect("of version 1");
    for block in 0..PAGE_BLOCKS {
        assert_eq!(page.entry(block), map_entry(block), "block {block}");
    }
}

fn tag() -> LogTag {
    LogTag { boot: *b"a kernel's boot.", pool: *b"the pool's own i", slice: SLICE }
}

#[test]
fn pending_log_of_version_1() {
    let bytes = golden("pending_log");
    assert_eq!(bytes.len(), LOG_BYTES);
    let left = survivors(&LogMemory::Heap(bytes.into()), &tag());
    let decoded = |records: &[u8]| match Records::new(records).collect::<Vec<_>>()[..] {
        [Ok(Record::Holes { key, first, count })] => (key, first, count),
        [Ok(Record::Drop(key))] => (key, 0, 0),
        _ => panic!("one record"),
    };
    let left: Vec<_> = left.iter().map(|(group, records)| (*group, decoded(records))).collect();
    assert_eq!(left, [(41, (key(), 3, 4)), (42, (key(), 0, 0))]);
}
