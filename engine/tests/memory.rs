//! The table's memory is what ARCHITECTURE.md says.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::format::record::{FragmentKey, Mapped, Placement};
use engine::format::superblock::Role;
use engine::table::entry::SlotRef;
use engine::table::index::Index;
use engine::table::open::claim_slots;
use engine::table::space::{DeviceGeometry, Space};
use engine::units::{DeviceId, FragmentSize, Generation, SLICES, VolumeId};
use engine::volume::placement::slice_of;

static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The number in the row of ARCHITECTURE.md's table of memory that starts with `what`, in the
/// unit of that row.
fn documented(what: &str) -> usize {
    let document = include_str!("../../ARCHITECTURE.md");
    let row = document.lines().find(|line| line.starts_with(&format!("| {what} |")));
    let cell = row.and_then(|row| row.split('|').nth(2)).expect("a row of the table");
    let digits: String = cell.trim().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number of bytes")
}

#[test]
fn a_fragment_takes_what_is_documented() {
    let fragments = 1_000_000u32;
    let size = FragmentSize::DEFAULT;
    let device = DeviceGeometry {
        id: DeviceId::new(0),
        role: Role::Fast,
        data_offset: 0,
        chunk_bytes: 18 << 20,
        chunks: 1 << 20,
    };
    let before = HELD.load(Ordering::Relaxed);
    let mut slices: Vec<_> =
        (0..SLICES).map(|_| (Index::default(), vec![Space::new(device)])).collect();
    let volume = VolumeId::new(1);
    for fragment in 0..fragments {
        let slice = slice_of(volume, u64::from(fragment) << 20);
        let (index, space) = &mut slices[usize::from(slice.get())];
        let slot = SlotRef { device: device.id, block: u64::from(fragment) * 288 };
        let placement = Placement {
            size,
            generation: Generation::new(1),
            fast: [Some(slot), None],
            cold: None,
        };
        let mapped = Mapped { page: Some(fragment / 2), written: 1, present: 1, cold_blocks: 0 };
        let key = FragmentKey { volume, start: fragment * 16 };
        index.adopt(key, &placement, &mapped).expect("a new fragment");
        claim_slots(&placement, &[device], space).expect("a free slot");
    }
    let held = HELD.load(Ordering::Relaxed) - before;
    let each = held as f64 / f64::from(fragments);
    println!("{each:.1} bytes for each fragment");
    assert!(each <= documented("fragment") as f64, "{each} bytes for each fragment");
}

#[test]
fn a_pending_log_takes_what_is_documented() {
    let (bytes, documented) = (engine::journal::log::LOG_BYTES, documented("slice") << 10);
    assert!(bytes <= documented, "{bytes} bytes for each slice");
}
