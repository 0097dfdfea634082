//! The catalog over many changes, checkpoints and openings.

use super::catalog::{Catalog, CatalogError, DELETING, NewVolume, TRIMMING};
use crate::device::sim::{Rng, SimDisk};
use crate::format::layout::{CATALOG, NewDevice};
use crate::format::superblock::Role;
use crate::journal::recover::read_table;
use crate::pool::{self, Pool};
use crate::sim::shared::SimPool;
use crate::units::FragmentSize;

const MIB: u64 = 1 << 20;

struct Rig {
    disks: Vec<SimDisk>,
    rng: Rng,
    pool: Pool,
}

impl Rig {
    fn new() -> Self {
        let mut disks = vec![SimDisk::default()];
        let mut rng = Rng::new(1);
        let device = NewDevice { size_bytes: 512 * MIB, role: Role::Fast };
        let mut io = SimPool { disks: &mut disks, fuel: None, rng: &mut rng };
        let pool = pool::create(&mut io, &[device], || [3; 16]).expect("a pool");
        Self { disks, rng, pool }
    }

    fn io(&mut self) -> SimPool<'_> {
        SimPool { disks: &mut self.disks, fuel: None, rng: &mut self.rng }
    }

    fn open(&mut self) -> Catalog {
        let (meta, id) = (self.pool.meta, self.pool.table(CATALOG));
        let found = read_table(&mut self.io(), &meta, id, false).expect("a sound catalog");
        Catalog::open(found, id.pool, 1)
    }

    fn create(&mut self, catalog: &mut Catalog, name: &str, size: u64) -> Result<(), CatalogError> {
        let new = NewVolume {
            name: name.to_owned(),
            size_bytes: size,
            fragment: FragmentSize::DEFAULT,
            block_bytes: 4096,
            read_only: false,
        };
        let meta = self.pool.meta;
        catalog.create(&mut self.io(), &meta, &new, [7; 16]).map(drop)
    }
}

#[test]
fn names_and_sizes_are_checked() {
    let mut rig = Rig::new();
    let mut catalog = rig.open();
    let long = "x".repeat(256);
    for name in ["", "a b", "a/b", "ä", long.as_str()] {
        assert!(
            matches!(rig.create(&mut catalog, name, MIB), Err(CatalogError::Name(_))),
            "{name}"
        );
    }
    for size in [0, 4095, MIB + 512, (64 << 40) + 4096] {
        let refused = rig.create(&mut catalog, "v", size);
        assert!(matches!(refused, Err(CatalogError::Size { .. })), "{size}");
    }
    rig.create(&mut catalog, &long[..255], MIB).expect("the longest name");
    rig.create(&mut catalog, "v", MIB).expect("a volume");
    assert!(matches!(rig.create(&mut catalog, "v", MIB), Err(CatalogError::Exists(_))));
}

#[test]
fn changes_survive_openings_and_checkpoints() {
    let mut rig = Rig::new();
    let meta = rig.pool.meta;
    let mut catalog = rig.open();
    rig.create(&mut catalog, "kept", MIB).expect("a volume");
    let id = catalog.find("kept").expect("just made");
    // More changes than the ring has blocks.
    for round in 0..400 {
        let name = format!("v{round}");
        rig.create(&mut catalog, &name, MIB).expect("a volume");
        let gone = catalog.find(&name).expect("just made");
        catalog.begin_delete(&mut rig.io(), &meta, gone).expect("recorded");
        assert!(catalog.find(&name).is_err(), "a volume being deleted has no name");
        catalog.end_drop(&mut rig.io(), &meta, gone).expect("recorded");
        catalog.resize(&mut rig.io(), &meta, id, MIB + 4096 * (round + 1), false).expect("grown");
        if round % 37 == 0 {
            catalog = rig.open();
        }
    }
    let catalog = rig.open();
    assert_eq!(catalog.iter().count(), 1);
    assert_eq!(catalog.get(id).expect("kept").size_bytes, MIB + 4096 * 400);
}

#[test]
fn a_shrink_is_forced_and_finished_before_the_next() {
    let mut rig = Rig::new();
    let meta = rig.pool.meta;
    let mut catalog = rig.open();
    rig.create(&mut catalog, "v", 2 * MIB).expect("a volume");
    let id = catalog.find("v").expect("just made");
    let refused = catalog.resize(&mut rig.io(), &meta, id, MIB, false);
    assert!(matches!(refused, Err(CatalogError::Shrink { .. })));
    assert!(catalog.resize(&mut rig.io(), &meta, id, MIB, true).expect("forced"));
    let mut catalog = rig.open();
    assert_eq!(catalog.get(id).expect("kept").flags & TRIMMING, TRIMMING);
    let refused = catalog.resize(&mut rig.io(), &meta, id, 4 * MIB, true);
    assert!(matches!(refused, Err(CatalogError::Busy(_))));
    catalog.end_drop(&mut rig.io(), &meta, id).expect("recorded");
    assert!(!catalog.resize(&mut rig.io(), &meta, id, 4 * MIB, false).expect("grown"));
    catalog.begin_delete(&mut rig.io(), &meta, id).expect("recorded");
    let catalog = rig.open();
    assert_eq!(catalog.get(id).expect("still on record").flags & DELETING, DELETING);
    assert!(catalog.serving().list().is_empty());
}
