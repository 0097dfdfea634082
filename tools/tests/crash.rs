//! `kill -9` under load: what was completed is there after the restart.

mod rig;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rig::{Random, Rig, has};

const ROUNDS: u64 = 5;
const SECTOR: usize = 512;
const WRITERS: u64 = 4;
/// Not a multiple of 4 KiB: neighbouring writers share blocks.
const REGION: usize = (6 << 20) + 1536;

/// A connection's own part of the volume, and what must be in it.
struct Writer {
    base: u64,
    bytes: Vec<u8>,
    /// The write that was under way when the server died: begun, not completed.
    pending: Option<(usize, Vec<u8>)>,
    random: Random,
    completed: u64,
}

impl Writer {
    fn new(number: u64) -> Writer {
        Writer {
            base: number * REGION as u64,
            bytes: vec![0; REGION],
            pending: None,
            random: Random::new(number * 77 + 5),
            completed: 0,
        }
    }

    /// Writes until the server dies; every completed write is logged.
    fn write(&mut self, rig: &Rig, died: &AtomicBool) {
        let mut client = rig.attach("vm1");
        while !died.load(Ordering::Relaxed) {
            let most = if self.random.below(8) == 0 { 300 } else { 20 };
            let sectors = 1 + self.random.below(most);
            let length = usize::try_from(sectors).unwrap() * SECTOR;
            let last = (REGION - length) / SECTOR;
            let at = usize::try_from(self.random.below(last as u64 + 1)).unwrap() * SECTOR;
            let data = self.random.bytes(length);
            let fua = self.random.below(50) == 0;
            let sent = client.write(self.base + at as u64, &data, fua);
            if sent.is_err() {
                self.pending = Some((at, data));
                return;
            }
            self.bytes[at..at + length].copy_from_slice(&data);
            self.completed += 1;
            if self.random.below(40) == 0 && client.flush().is_err() {
                return;
            }
        }
    }

    /// Everything logged is there; of the write under way each sector is old or new.
    fn verify(&mut self, rig: &Rig) {
        let mut found = vec![0; REGION];
        rig.attach("vm1").read(self.base, &mut found).unwrap();
        let pending = self.pending.take();
        for at in (0..REGION).step_by(SECTOR) {
            let got = &found[at..at + SECTOR];
            let new = pending
                .as_ref()
                .and_then(|(start, data)| data.get(at.checked_sub(*start)?..)?.get(..SECTOR));
            assert!(
                got == &self.bytes[at..at + SECTOR] || Some(got) == new,
                "byte {} is not what was completed",
                self.base + at as u64
            );
        }
        self.bytes = found;
    }
}

/// Kills the server amid the writers.
fn load_and_kill(rig: &mut Rig, writers: &mut [Writer]) {
    let died = AtomicBool::new(false);
    thread::scope(|scope| {
        let shared = &*rig;
        let threads: Vec<_> =
            writers.iter_mut().map(|writer| scope.spawn(|| writer.write(shared, &died))).collect();
        thread::sleep(Duration::from_millis(1500));
        let pid = rustix::process::Pid::from_raw(shared.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        died.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    rig.kill();
}

#[test]
fn completed_writes_survive_kill_9() {
    let mut rig = Rig::new();
    rig.start(&["--cores", "1"]);
    rig.ok(&["volume", "create", "vm1", "--size", "64MiB", "--fragment-size", "256KiB"]);
    let mut writers: Vec<_> = (0..WRITERS).map(Writer::new).collect();
    for round in 1..=ROUNDS {
        let before: u64 = writers.iter().map(|w| w.completed).sum();
        load_and_kill(&mut rig, &mut writers);
        let completed = writers.iter().map(|w| w.completed).sum::<u64>() - before;
        assert!(completed > 0, "a round without writes shows nothing");
        rig.check();
        let cores = if round % 2 == 0 { "1" } else { "2" };
        rig.start(&["--cores", cores]);
        writers.iter_mut().for_each(|writer| writer.verify(&rig));
        println!("round {round}: {completed} completed writes, all there with {cores} cores");
    }
    rig.stop_and_check();
}

/// Rounds of the test with fio unless this variable names another number.
const FIO_ROUNDS: (&str, u64) = ("TESSERA_CRASH_ROUNDS", 3);
const FIO_JOBS: u64 = 4;
const FIO_DEPTH: u64 = 32;
/// Far beyond the time that writing until the server's death takes.
const FIO_LIMIT: Duration = Duration::from_secs(40);
/// Each job's part of the half of the volume that a round writes.
const FIO_PART_MIB: u64 = 64;

/// Options of both fio runs of a round: contents follow from round and offset.
fn fio_options(rig: &Rig, round: u64) -> Vec<String> {
    let uri = format!("--uri={}", rig.uri("vm1"));
    // As four bytes; a pattern of round and offset is in no block of another round or place.
    let pattern = format!("--verify_pattern=0x{:08x}%o", 0x5a00_0000 + round);
    let depth = format!("--iodepth={FIO_DEPTH}");
    let fixed = ["--name=v", "--ioengine=nbd", "--verify=pattern"];
    fixed.map(str::to_owned).into_iter().chain([depth, uri, pattern]).collect()
}

/// Offsets of the writes that fio saw completed: it logs each when its reply is there.
fn fio_completed(rig: &Rig) -> Vec<u64> {
    let mut offsets = Vec::new();
    for job in 1..=FIO_JOBS {
        // Time, latency, direction, bytes, offset, priority.
        let path = rig.path(&format!("v_clat.{job}.log"));
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            let fields: Vec<u64> =
                line.split(',').map_while(|field| field.trim().parse().ok()).collect();
            assert!(fields.len() >= 5 && fields[2] == 1 && fields[3] == 4096, "{line}");
            offsets.push(fields[4]);
        }
        let _ = std::fs::remove_file(rig.path(&format!("v_clat.{job}.log")));
    }
    offsets
}

/// Writes that the server has done.
fn served_writes(rig: &Rig) -> u64 {
    rig.json(&["status"])["stats"]["writes"].as_u64().expect("a count")
}

/// fio writes at depth 32 until the server dies; what it saw completed. A job writes no block
/// twice, so each must hold exactly this round's contents. Rarely a job of fio never ends but
/// complains of the dead connection for ever: it is killed, and only its log is missing.
fn fio_write_and_kill(rig: &mut Rig, round: u64, random: &mut Random) -> Vec<u64> {
    let half = (round % 2) * FIO_JOBS * FIO_PART_MIB;
    let mut options = fio_options(rig, round);
    options.extend([
        "--rw=randwrite".into(),
        "--bs=4k".into(),
        format!("--numjobs={FIO_JOBS}"),
        format!("--size={FIO_PART_MIB}m"),
        format!("--offset={half}m"),
        format!("--offset_increment={FIO_PART_MIB}m"),
        "--do_verify=0".into(),
        // Processes would leave the group that is killed.
        "--thread=1".into(),
        "--write_lat_log=v".into(),
        "--log_offset=1".into(),
        format!("--randseed={}", round + 1),
    ]);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let before = served_writes(rig);
    // Long before fio is done, however fast the server is.
    let enough = before + 1 + random.below(FIO_JOBS * FIO_PART_MIB * 256 / 2);
    let limit = Instant::now() + Duration::from_millis(50 + random.below(1200));
    thread::scope(|scope| {
        let shared = &*rig;
        let fio = scope.spawn(move || shared.program_until(FIO_LIMIT, "fio", &options));
        let mut served = before;
        // More than are under way at once: fio has seen one completed, then.
        let seen = |served| served > before + FIO_JOBS * FIO_DEPTH;
        while (!seen(served) || served < enough && Instant::now() < limit) && !fio.is_finished() {
            thread::sleep(Duration::from_millis(10));
            served = served_writes(shared);
        }
        let pid = rustix::process::Pid::from_raw(shared.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let ended = fio.join().unwrap();
        assert!(!ended.status.success(), "fio was done before: {}", rig::stdout(&ended));
    });
    rig.kill();
    fio_completed(rig)
}

/// fio reads these blocks and compares them with the round's contents.
fn fio_verify(rig: &Rig, round: u64, completed: &[u64]) {
    let mut log = String::from("fio version 2 iolog\nv add\nv open\n");
    completed.iter().for_each(|offset| log += &format!("v read {offset} 4096\n"));
    log += "v close\n";
    std::fs::write(rig.path("completed.iolog"), log).unwrap();
    let mut options = fio_options(rig, round);
    options.extend(["--read_iolog=completed.iolog", "--verify_fatal=1"].map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let report = rig.run("fio", &options);
    let read = format!("total={},", completed.len());
    assert!(report.contains(&read), "not all blocks were read: {report}");
}

#[test]
fn fio_finds_every_completed_write_after_kill_9() {
    if !has(&["fio"]) {
        return;
    }
    let (variable, default) = FIO_ROUNDS;
    let rounds = std::env::var(variable).map_or(default, |n| n.parse().expect("a number"));
    let size = format!("{}MiB", 2 * FIO_JOBS * FIO_PART_MIB);
    let mut rig = Rig::serving("vm1", &size);
    let mut random = Random::new(11);
    let mut before: Vec<u64> = Vec::new();
    let mut total = 0;
    for round in 1..=rounds {
        let completed = fio_write_and_kill(&mut rig, round, &mut random);
        assert!(!completed.is_empty(), "a round without writes shows nothing");
        rig.check();
        let cores = if round % 2 == 0 { "1" } else { "2" };
        rig.start(&["--cores", cores]);
        fio_verify(&rig, round, &completed);
        if !before.is_empty() {
            fio_verify(&rig, round - 1, &before);
        }
        println!(
            "round {round}: {} completed writes, all there with {cores} cores",
            completed.len()
        );
        total += completed.len();
        before = completed;
    }
    println!("{rounds} rounds, {total} completed writes, none lost");
    rig.stop_and_check();
}
