//! Golden pools: a pool of each format version, as a killed server left it.
//!
//! `golden/vN.pool.zst` holds the blocks of its files that are not all zero,
//! `golden/vN.manifest` what its volumes read as. A pool is made once, by the
//! first program of its version, and never again: `cargo test -p tools --test
//! golden -- make --ignored` writes one for this program's version if there is
//! none.

mod rig;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};
use engine::format::superblock::VERSION;
use rig::Rig;

const BLOCK: usize = 4096;
/// Bytes that one line of a manifest speaks of.
const STRETCH: usize = 128 << 10;
const CONFIG: &str = r#"
memory_per_core = "96MiB"
stage_budget = "16MiB"

[[pool.devices]]
path = "fast.img"
role = "fast"
size = "256MiB"

[[pool.devices]]
path = "cold.img"
role = "cold"
size = "160MiB"
"#;

fn path(version: u32, kind: &str) -> PathBuf {
    rig::workspace().join(format!("tools/tests/golden/v{version}.{kind}"))
}

/// The files of a pool, relative to its data directory.
fn names() -> Vec<String> {
    let logs = (0..=64).map(|slice| format!("log/slice-{slice:02}"));
    ["tessera.toml", "fast.img", "cold.img"].into_iter().map(str::to_owned).chain(logs).collect()
}

/// For each file: length of the name (1 byte), name, size (8), number of blocks (4), and for each
/// block its offset (8) and bytes.
fn pack(data: &Path) -> Vec<u8> {
    let mut packed = Vec::new();
    for name in names() {
        let mut bytes = fs::read(data.join(&name)).unwrap();
        let size = bytes.len() as u64;
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let blocks = bytes.chunks(BLOCK).enumerate();
        let blocks: Vec<_> = blocks.filter(|(_, b)| b.iter().any(|byte| *byte != 0)).collect();
        packed.push(u8::try_from(name.len()).unwrap());
        packed.extend(name.as_bytes());
        packed.extend(size.to_le_bytes());
        packed.extend(u32::try_from(blocks.len()).unwrap().to_le_bytes());
        for (at, block) in blocks {
            packed.extend(((at * BLOCK) as u64).to_le_bytes());
            packed.extend(block);
        }
    }
    packed
}

fn unpack(packed: &[u8], data: &Path) {
    let mut packed = zstd::Decoder::new(packed).unwrap();
    fs::create_dir_all(data.join("log")).unwrap();
    let mut length = [0];
    while packed.read(&mut length).unwrap() == 1 {
        let mut name = vec![0; length[0].into()];
        packed.read_exact(&mut name).unwrap();
        let file = File::create(data.join(String::from_utf8(name).unwrap())).unwrap();
        let mut number = [0; 8];
        packed.read_exact(&mut number).unwrap();
        let size = u64::from_le_bytes(number);
        let mut count = [0; 4];
        packed.read_exact(&mut count).unwrap();
        for _ in 0..u32::from_le_bytes(count) {
            let mut block = [0; BLOCK];
            packed.read_exact(&mut number).unwrap();
            packed.read_exact(&mut block).unwrap();
            file.write_all_at(&block, u64::from_le_bytes(number)).unwrap();
        }
        file.set_len(size).unwrap();
    }
}

/// A golden pool in a directory of its own.
fn golden(version: u32) -> Rig {
    let rig = Rig::with_config(CONFIG);
    unpack(&fs::read(path(version, "pool.zst")).unwrap(), &rig.data());
    for log in fs::read_dir(rig.data().join("log")).unwrap() {
        // Of another boot even where and when it was made: the journal alone has what was flushed.
        let file = File::options().write(true).open(log.unwrap().path()).unwrap();
        file.write_all_at(&[0xff; 16], 8).unwrap();
    }
    rig
}

fn line(volume: &str, at: usize, bytes: &[u8]) -> String {
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, bytes);
    format!("{volume} {at} {} {crc:08x}\n", bytes.len())
}

/// Every stretch of every volume reads as the manifest says.
fn assert_contents(rig: &Rig, manifest: &str) {
    assert!(manifest.lines().count() > 10);
    for expected in manifest.lines() {
        let mut fields = expected.split(' ');
        let mut field = || fields.next().unwrap();
        let (volume, at, len) = (field(), field().parse().unwrap(), field().parse().unwrap());
        let mut bytes = vec![0; len];
        rig.attach(volume).read(at as u64, &mut bytes).unwrap();
        assert_eq!(line(volume, at, &bytes).trim_end(), expected);
    }
}

#[test]
fn every_golden_pool_opens_and_reads_as_it_did() {
    for version in 1..=VERSION {
        let mut rig = golden(version);
        rig.check();
        let said = rig.ok(&["upgrade"]);
        assert!(said.contains(&format!("version {VERSION}")), "{said}");
        rig.check();
        rig.start(&[]);
        let manifest = fs::read_to_string(path(version, "manifest")).unwrap();
        assert_contents(&rig, &manifest);
        rig.attach("small").write(0, &[5; BLOCK], true).unwrap();
        rig.stop_and_check();
        rig.start(&[]);
        let mut first = [0; BLOCK];
        rig.attach("small").read(0, &mut first).unwrap();
        assert!(first == [5; BLOCK], "what was written is there");
    }
}

#[test]
fn a_golden_pool_holds_what_it_is_for() {
    let rig = golden(VERSION);
    let fast = fs::read(rig.data().join("fast.img")).unwrap();
    let has = |magic: &[u8]| fast.chunks(BLOCK).filter(|block| block.starts_with(magic)).count();
    for magic in [b"TJN1", b"TCR1", b"TCP1", b"TMP1"] {
        assert!(has(magic) > 0, "{}", String::from_utf8_lossy(magic));
    }
    let cold = fs::read(rig.data().join("cold.img")).unwrap();
    assert!(cold[1 << 20..].iter().any(|byte| *byte != 0), "something was spilled");
}

#[test]
fn upgrading_this_version_changes_nothing_and_says_so() {
    let rig = golden(VERSION);
    let devices = ["fast.img", "cold.img"].map(|name| rig.data().join(name));
    let before = devices.each_ref().map(|path| fs::read(path).unwrap());
    let already = format!("version {VERSION} already");
    assert!(rig.ok(&["upgrade"]).contains(&already));
    let report = rig.json(&["upgrade"]);
    assert_eq!((&report["from"], &report["to"]), (&VERSION.into(), &VERSION.into()));
    assert_eq!((&report["compat"], &report["ro_compat"]), (&0.into(), &0.into()));
    assert!(devices.each_ref().map(|path| fs::read(path).unwrap()) == before);
}

#[test]
#[ignore = "makes the golden pool of this version, if there is none"]
fn make() {
    if path(VERSION, "pool.zst").exists() {
        return println!("skipped: version {VERSION} has one");
    }
    let mut rig = Rig::with_config(CONFIG);
    rig.start(&[]);
    rig.ok(&["volume", "create", "big", "--size", "6MiB"]);
    rig.ok(&["volume", "create", "empty", "--size", "1GiB", "--read-only"]);
    let small = ["--size", "1MiB", "--fragment-size", "64KiB", "--block-size", "512"];
    rig.ok(&[&["volume", "create", "small"], &small[..]].concat());
    let mut big = vec![0; 6 << 20];
    let mut small = vec![0; 1 << 20];
    // On the cold tier, then behind a checkpoint.
    let whole = 0..6 << 20;
    write(&rig, "big", &mut big, 1, whole);
    rig.ok(&["tier", "spill", "big"]);
    write(&rig, "small", &mut small, 2, 0..800 << 10);
    discard(&rig, "small", &mut small, 64 << 10..200 << 10);
    rig.stop_and_check();
    // In the journal only: overwrites on both tiers, parts of blocks, discards.
    rig.start(&[]);
    write(&rig, "big", &mut big, 3, 300 << 10..500 << 10);
    write(&rig, "big", &mut big, 4, 400 << 10..404 << 10);
    discard(&rig, "big", &mut big, 3 << 20..4 << 20);
    write(&rig, "small", &mut small, 5, 100 << 10..101 << 10);
    write(&rig, "small", &mut small, 6, 300_032..301_056);
    write(&rig, "small", &mut small, 7, 900 << 10..1 << 20);
    for (volume, model) in [("big", &big), ("small", &small)] {
        let mut client = rig.attach(volume);
        client.flush().unwrap();
        let mut read = vec![0; model.len()];
        client.read(0, &mut read).unwrap();
        assert!(read == *model, "{volume} reads as it was written");
    }
    rig.kill();
    rig.check();
    let lines = |volume: &str, model: &[u8]| -> String {
        let stretches = model.chunks(STRETCH).enumerate();
        stretches.map(|(at, bytes)| line(volume, at * STRETCH, bytes)).collect()
    };
    let packed = zstd::encode_all(&*pack(&rig.data()), 19).unwrap();
    assert!(packed.len() < 200 << 10, "{} bytes", packed.len());
    fs::write(path(VERSION, "pool.zst"), packed).unwrap();
    fs::write(path(VERSION, "manifest"), lines("big", &big) + &lines("small", &small)).unwrap();
}

/// Fills a range with numbers that say where they stand and which write they are of.
fn write(rig: &Rig, volume: &str, model: &mut [u8], number: u8, range: std::ops::Range<usize>) {
    let start = range.start;
    for (at, bytes) in model[range.clone()].chunks_mut(512).enumerate() {
        let sector = u32::try_from(start / 512 + at).unwrap();
        bytes.fill(number);
        bytes[..4].copy_from_slice(&sector.to_le_bytes());
    }
    rig.attach(volume).write(start as u64, &model[range], false).unwrap();
}

fn discard(rig: &Rig, volume: &str, model: &mut [u8], range: std::ops::Range<usize>) {
    rig.attach(volume).trim(range.start as u64, range.len() as u64).unwrap();
    model[range].fill(0);
}
