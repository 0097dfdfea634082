//! No heap allocation per I/O on the staged and the fast path: a counting
//! allocator watches the core threads of a real server under load.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::admin::{AdminClient, AdminRequest, Config};
use engine::target::nbd::client::Client;

static ON_CORES: AtomicU64 = AtomicU64::new(0);

struct Counting;

/// True on threads named `core-…`, as the executor names them.
fn is_core() -> bool {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes to the buffer, which has 16.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name.starts_with(b"core-")
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_core() {
            ON_CORES.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DEPTH: u64 = 32;
const IOS: u64 = 20_000;
const FOOTPRINT: u64 = 32 << 20;

/// Random 4 KiB operations at a fixed depth; returns the cores' allocations meanwhile,
/// less what the executor's 1 ms heartbeat takes.
fn load(uri: &str, write: bool) -> u64 {
    let client = Client::connect(&uri.parse().expect("a URI")).expect("a server");
    let (mut sender, mut receiver) = client.split();
    let (began, before) = (Instant::now(), ON_CORES.load(Ordering::Relaxed));
    let data = [7; 4096];
    let mut random = 1u64;
    let mut send = |cookie: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(cookie);
        let offset = (random >> 33) % (FOOTPRINT / 4096) * 4096;
        if write {
            sender.write(cookie, offset, &data, false).expect("sent");
        } else {
            sender.read(cookie, offset, 4096).expect("sent");
        }
    };
    (0..DEPTH).for_each(&mut send);
    for done in 0..IOS {
        let end = receiver.receive(|_| ()).expect("an answer");
        assert_eq!(end.result, Ok(()));
        if done + DEPTH < IOS {
            send(done + DEPTH);
        }
    }
    let beats = u64::try_from(began.elapsed().as_millis()).expect("a short time");
    (ON_CORES.load(Ordering::Relaxed) - before).saturating_sub(2 * beats)
}

fn call(data: &Path, request: &AdminRequest) {
    AdminClient::connect(data).expect("a server").call(request).expect("it is done");
}

#[test]
fn staged_and_fast_paths_do_not_allocate() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().to_owned();
    let mut config = Config::embedded(&data, 32 << 30).expect("room");
    config.cores = Some(1);
    // Going to sleep allocates in the executor; a busy core does not sleep.
    config.spin_us = 10_000_000;
    config.prefetch = engine::admin::PrefetchKind::Readahead;
    let serving = data.clone();
    let server = std::thread::spawn(move || engine::server::serve(&serving, config));
    while AdminClient::connect(&data).is_err() {
        assert!(!server.is_finished(), "{:?}", server.join());
        std::thread::sleep(Duration::from_millis(20));
    }
    let create = r#"{"op":"volume-create","name":"v","size_bytes":67108864}"#;
    call(&data, &serde_json::from_str(create).expect("a request"));
    let uri = format!("nbd+unix:///v?socket={}/nbd.sock", data.display());
    let mut client = Client::connect(&uri.parse().expect("a URI")).expect("a server");
    for at in (0..FOOTPRINT).step_by(1 << 20) {
        client.write(at, &vec![1; 1 << 20], false).expect("written");
    }
    client.flush().expect("flushed");
    load(&uri, false);
    let fast_reads = load(&uri, false);
    load(&uri, true);
    let fast_writes = load(&uri, true);
    call(&data, &AdminRequest::VolumeSpill { name: "v".into() });
    let mut byte = [0; 4096];
    for at in (0..FOOTPRINT).step_by(4096) {
        client.read(at, &mut byte).expect("read");
    }
    let staged_reads = load(&uri, false);
    call(&data, &AdminRequest::Stop);
    server.join().expect("no panic").expect("a clean end");
    let counts = [fast_reads, fast_writes, staged_reads];
    println!("allocations in {IOS} fast reads, fast writes, staged reads: {counts:?}");
    // A connection and a list that grows are not per I/O.
    assert!(counts.iter().all(|count| *count < IOS / 50), "{counts:?}");
}
