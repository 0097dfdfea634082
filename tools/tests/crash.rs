//! `kill -9` under load: what was completed is there after the restart.

mod rig;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

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

#[test]
fn fio_verifies_what_it_wrote_before_kill_9() {
    if !has(&["fio"]) {
        return;
    }
    let mut rig = Rig::serving("vm1", "256MiB");
    let uri = format!("--uri={}", rig.uri("vm1"));
    // One write under way in each job: fio's state tells which of the last
    // `iodepth` writes completed, and with a deeper queue an older one may not have.
    let job = [
        "--name=v",
        "--ioengine=nbd",
        &uri,
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=1",
        "--numjobs=4",
        "--size=64m",
        "--offset_increment=64m",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--randseed=7",
    ];
    let mut interrupted = job.to_vec();
    interrupted.extend(["--do_verify=0", "--verify_state_save=1"]);
    thread::scope(|scope| {
        let shared = &rig;
        let fio = scope.spawn(move || shared.program("fio", &interrupted));
        thread::sleep(Duration::from_millis(1500));
        let pid = rustix::process::Pid::from_raw(shared.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let ended = fio.join().unwrap();
        assert!(!ended.status.success(), "fio has lost its server: {}", rig::stdout(&ended));
    });
    rig.kill();
    for job in 0..4 {
        let state = rig.path(&format!("local-v-{job}-verify.state"));
        assert!(state.exists(), "fio has kept how far job {job} came");
    }
    rig.check();
    rig.start(&["--cores", "1"]);
    let mut verify = job.to_vec();
    verify.extend(["--verify_only=1", "--verify_state_load=1"]);
    let report = rig.run("fio", &verify);
    for line in report.lines().filter(|line| line.contains("read:")) {
        println!("verified{}", line.trim_start_matches(' ').trim_start_matches("read"));
    }
    rig.stop_and_check();
}
