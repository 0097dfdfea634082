//! The client against an independent server, qemu-nbd.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use engine::target::nbd::wire::Errno;

use super::*;
use crate::image::{export, import};
use crate::interrupt::Interrupt;

const SIZE: u64 = 8 << 20;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves a raw file; `None`, with a line, where qemu-nbd is absent.
fn serve(dir: &Path) -> Option<(Server, String)> {
    let disk = dir.join("disk");
    File::create(&disk).unwrap().set_len(SIZE).unwrap();
    let socket = dir.join("s");
    let started = Command::new("qemu-nbd")
        .args(["-f", "raw", "-x", "vm1", "--persistent", "-k"])
        .args([&socket, &disk])
        .spawn();
    let Ok(child) = started else {
        println!("skipped: qemu-nbd is not installed");
        return None;
    };
    let server = Server(child);
    let limit = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < limit, "qemu-nbd does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    Some((server, format!("nbd+unix:///?socket={}", socket.display())))
}

#[test]
fn an_image_passes_through_qemu_nbd() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_server, uri)) = serve(dir.path()) else { return };
    let mut client = Attached::connect(&uri, "vm1").unwrap();
    assert_eq!(client.size_bytes(), SIZE);
    assert!(client.info.allocation);
    let image = tempfile::tempfile().unwrap();
    image.set_len(SIZE).unwrap();
    image.write_all_at(&[7; 300_000], 1 << 20).unwrap();
    let signal = Interrupt::default();
    import(&mut client, &image, SIZE, false, &signal, |_| ()).unwrap();
    let out = tempfile::tempfile().unwrap();
    let moved = export(&mut client, &out, &signal, |_| ()).unwrap();
    assert!(moved.zero_bytes > 0, "holes are seen");
    let bytes = usize::try_from(SIZE).unwrap();
    let (mut want, mut got) = (vec![0; bytes], vec![1; bytes]);
    image.read_exact_at(&mut want, 0).unwrap();
    out.read_exact_at(&mut got, 0).unwrap();
    assert_eq!(want, got);
}

#[test]
fn refusals_leave_the_connection_usable() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_server, uri)) = serve(dir.path()) else { return };
    let unknown = Attached::connect(&uri, "vm2").err().expect("no such export");
    assert!(unknown.to_string().contains("vm2"), "{unknown}");
    let mut client = Attached::connect(&uri, "vm1").unwrap();
    let mut done = Vec::new();
    client.send(1, BlockOp::Read { offset: SIZE, length: 512 }).unwrap();
    client.send(2, BlockOp::Read { offset: 0, length: 512 }).unwrap();
    while done.len() < 2 {
        client.poll(Duration::from_secs(10), &mut done).unwrap();
    }
    done.sort_by_key(|reply| reply.id);
    assert!(
        matches!(&done[0].result, Err(BlockError::Refused(e)) if e.errno == Errno::Inval),
        "{done:?}"
    );
    assert!(matches!(&done[1].result, Ok(Payload::Data(data)) if data.len() == 512));
}

#[test]
fn a_server_that_speaks_something_else_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    for greeting in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"NBDMAGICIHAVEOPT\0\x02", b"NBDMAG"] {
        std::thread::scope(|scope| {
            scope.spawn(|| listener.accept().unwrap().0.write_all(greeting).unwrap());
            assert!(Attached::connect(&uri, "vm1").is_err(), "{greeting:?}");
        });
    }
}

#[test]
fn a_dead_server_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let Some((server, uri)) = serve(dir.path()) else { return };
    let mut client = Attached::connect(&uri, "vm1").unwrap();
    drop(server);
    let mut done = Vec::new();
    assert!(client.poll(Duration::from_secs(10), &mut done).is_err());
    assert!(matches!(Attached::connect("http://x", "vm1"), Err(BlockError::Address(_))));
}

#[test]
#[ignore = "a measurement: cargo test -p tools --profile ci -- --ignored --nocapture rate"]
fn rate_at_depth_8() {
    const REQUESTS: u64 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let Some((_server, uri)) = serve(dir.path()) else { return };
    let mut client = Attached::connect(&uri, "vm1").unwrap();
    let (mut sent, mut completed, mut done) = (0, 0, Vec::new());
    let started = Instant::now();
    while completed < REQUESTS {
        while sent < REQUESTS && sent - completed < 8 {
            let offset = sent * 7919 % (SIZE / 4096) * 4096;
            client.send(sent, BlockOp::Read { offset, length: 4096 }).unwrap();
            sent += 1;
        }
        client.poll(Duration::from_secs(10), &mut done).unwrap();
        for reply in done.drain(..) {
            reply.result.unwrap();
            completed += 1;
        }
    }
    println!("{:.0} reads/s", REQUESTS as f64 / started.elapsed().as_secs_f64());
}
