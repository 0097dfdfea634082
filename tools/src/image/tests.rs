//! Tests of import and export on a volume in memory.

use super::*;
use crate::block::memory::MemoryClient;
use std::os::unix::fs::MetadataExt;

const VOLUME: usize = 4 << 20;

/// Data, a hole of a MiB, data, and a last partial block.
fn sample() -> Vec<u8> {
    let mut bytes = vec![0; (3 << 20) + 300];
    bytes[..200_000].fill(7);
    let end = bytes.len();
    bytes[(2 << 20)..end].fill(9);
    bytes
}

fn file(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

#[test]
fn an_image_goes_in_and_comes_out_identical() {
    let image = sample();
    let mut client = MemoryClient::new(vec![0; VOLUME]);
    let mut last = 0;
    let moved =
        import(&mut client, &file(&image), image.len() as u64, true, &Interrupt::default(), |at| {
            last = at
        })
        .unwrap();
    assert_eq!(last, image.len() as u64);
    assert_eq!(client.bytes[..image.len()], image);
    assert!(client.bytes[image.len()..].iter().all(|b| *b == 0));
    assert_eq!((client.written, client.zeroed, client.flushes), (moved.data_bytes, 0, 1));
    assert!(moved.zero_bytes >= 1 << 20 && client.most_in_flight > 1);

    let out = tempfile::tempfile().unwrap();
    let moved = export(&mut client, &out, &Interrupt::default(), |_| ()).unwrap();
    let mut bytes = vec![1; VOLUME];
    out.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, client.bytes);
    assert_eq!(out.metadata().unwrap().len(), VOLUME as u64);
    assert_eq!(client.read, moved.data_bytes);
    assert!(moved.data_bytes < 2 << 20, "holes are not read");
    assert!(out.metadata().unwrap().blocks() * 512 <= 2 << 20, "holes stay holes");
}

#[test]
fn zeros_overwrite_what_a_used_volume_held() {
    let image = sample();
    let mut client = MemoryClient::new(vec![0xee; VOLUME]);
    let bytes = image.len() as u64;
    import(&mut client, &file(&image), bytes, false, &Interrupt::default(), |_| ()).unwrap();
    assert_eq!(client.bytes[..image.len()], image);
    assert!(client.zeroed >= 1 << 20);
    assert!(client.bytes[image.len().next_multiple_of(512)..].iter().all(|b| *b == 0xee));
}

#[test]
fn failures_name_the_place() {
    let image = sample();
    let mut client = MemoryClient::new(vec![0; VOLUME]);
    client.bad_offset = Some(2 << 20);
    let bytes = image.len() as u64;
    let none = Interrupt::default();
    let got = import(&mut client, &file(&image), bytes, true, &none, |_| ());
    assert_eq!(got.unwrap_err().to_string().split(':').next(), Some("volume at byte 2097152"));
    let mut client = MemoryClient::new(vec![0; VOLUME]);
    let short = file(&image[..image.len() - 1]);
    let got = import(&mut client, &short, bytes, true, &none, |_| ());
    assert!(matches!(got, Err(ImageError::File { .. })), "{got:?}");
    none.set();
    let mut client = MemoryClient::new(vec![0; VOLUME]);
    let got = export(&mut client, &tempfile::tempfile().unwrap(), &none, |_| ());
    assert!(matches!(got, Err(ImageError::Interrupted)));
}
