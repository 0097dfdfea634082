//! The client against an independent server, qemu-nbd.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

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
    let mut client = NbdClient::connect(&uri, "vm1").unwrap();
    assert_eq!(client.size_bytes(), SIZE);
    assert!(client.export.allocation_context.is_some());
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
    let unknown = NbdClient::connect(&uri, "vm2").err().expect("no such export");
    assert!(unknown.to_string().contains("no such volume"), "{unknown}");
    let mut client = NbdClient::connect(&uri, "vm1").unwrap();
    let mut done = Vec::new();
    client.send(1, BlockOp::Read { offset: SIZE, length: 512 }).unwrap();
    client.send(2, BlockOp::Read { offset: 0, length: 512 }).unwrap();
    while done.len() < 2 {
        client.poll(Duration::from_secs(10), &mut done).unwrap();
    }
    done.sort_by_key(|reply| reply.id);
    assert!(matches!(done[0].result, Err(BlockError::Refused { errno: 22 })), "{done:?}");
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
            assert!(NbdClient::connect(&uri, "vm1").is_err(), "{greeting:?}");
        });
    }
}

#[test]
fn escapes_of_a_uri_are_undone() {
    for (text, want) in
        [("/a%20b/s", "/a b/s"), ("%C3%BC", "ü"), ("100%", "100%"), ("%zz%2", "%zz%2")]
    {
        assert_eq!(percent_decoded(text), want);
    }
}

#[test]
fn a_dead_server_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let Some((server, uri)) = serve(dir.path()) else { return };
    let mut client = NbdClient::connect(&uri, "vm1").unwrap();
    drop(server);
    let mut done = Vec::new();
    assert!(client.poll(Duration::from_secs(10), &mut done).is_err());
    assert!(NbdClient::connect("http://x", "vm1").is_err());
}
