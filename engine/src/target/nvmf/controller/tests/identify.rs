//! Identify.

use nvme::identify::{
    IdentifyController, IdentifyNamespace, IndependentNamespace, descriptors, namespaces,
};
use zerocopy::FromBytes;

use super::*;

#[test]
fn the_controller_says_what_hosts_need() {
    let mut bench = Bench::enabled(Kind::Io);
    let id = IdentifyController::read_from_bytes(&bench.data(&identify(1, 0))).unwrap();
    assert_eq!(id.cntlid.get(), 5);
    assert_eq!(&id.sn, b"S1                  ");
    assert_eq!((id.cntrltype, id.mdts, id.aerl), (1, 8, 3));
    assert_eq!((id.sqes, id.cqes, id.maxcmd.get()), (0x66, 0x44, 128));
    assert_eq!((id.ioccsz.get(), id.iorcsz.get(), id.icdoff.get()), (516, 1, 0));
    assert_eq!(id.kas.get(), 10);
    assert_eq!(id.cmic, 0b1011);
    assert_eq!(id.vwc & 1, 1);
    assert_eq!(Nqn::from_field(&id.subnqn).unwrap(), nqn("v1"));
    assert!(id.mnan.get() <= id.nn.get() && id.nanagrpid.get() <= id.anagrpmax.get());
}

#[test]
fn namespaces_are_described_and_others_are_zeros_or_errors() {
    let mut bench = Bench::enabled(Kind::Io);
    let ns = IdentifyNamespace::read_from_bytes(&bench.data(&identify(0, 2))).unwrap();
    assert_eq!((ns.nsze.get(), ns.ncap.get(), ns.block_bytes()), (2048, 2048, Some(512)));
    assert_eq!((ns.nguid, ns.eui64), ([2; 16], [0; 8]));
    assert_eq!((ns.nmic, ns.nsattr, ns.anagrpid.get(), ns.dlfeat), (1, 1, 3, 9));
    assert_eq!((ns.nawupf.get(), ns.npwg.get()), (7, 7), "4 KiB");
    bench.subsystem.namespaces[1].block_shift = 12;
    let ns = IdentifyNamespace::read_from_bytes(&bench.data(&identify(0, 2))).unwrap();
    assert_eq!((ns.block_bytes(), ns.nawupf.get()), (Some(4096), 0));
    let any = bench.data(&identify(8, 2));
    let any = IndependentNamespace::read_from_bytes(&any).unwrap();
    assert_eq!((any.anagrpid.get(), any.nsattr, any.nstat), (3, 1, 1));
    for cns in [0, 5, 8, 0x11, 0x1b] {
        assert_eq!(bench.data(&identify(cns, 3)), [0; 4096], "inactive, {cns:#x}");
        for nsid in [0, 1025, u32::MAX] {
            let status = bench.status(&identify(cns, nsid));
            assert_eq!(status, Status::INVALID_NAMESPACE.with_dnr(), "{cns:#x} {nsid}");
        }
    }
}

#[test]
fn descriptors_are_of_active_namespaces_alone() {
    let mut bench = Bench::enabled(Kind::Io);
    let data = bench.data(&identify(3, 5));
    let found: Vec<_> = descriptors(&data).collect();
    assert_eq!(found, [(2, &[5; 16][..]), (3, &[5; 16]), (4, &[0])]);
    for nsid in [0, 3, 1025, u32::MAX] {
        let status = bench.status(&identify(3, nsid));
        assert_eq!(status, Status::INVALID_NAMESPACE.with_dnr());
    }
}

#[test]
fn lists_begin_behind_the_given_number() {
    let mut bench = Bench::enabled(Kind::Io);
    for cns in [2, 7, 0x10, 0x1a] {
        for (behind, wanted) in [(0, &[1, 2, 5][..]), (1, &[2, 5]), (4, &[5]), (5, &[])] {
            let found: Vec<_> = namespaces(&bench.data(&identify(cns, behind))).collect();
            assert_eq!(found, wanted);
        }
        for nsid in [u32::MAX, u32::MAX - 1] {
            let status = bench.status(&identify(cns, nsid));
            assert_eq!(status, Status::INVALID_NAMESPACE.with_dnr());
        }
    }
    bench.subsystem = subsystem(1..=1024);
    assert!(namespaces(&bench.data(&identify(2, 0))).eq(1..=1024));
}

#[test]
fn controllers_are_listed() {
    let mut bench = Bench::enabled(Kind::Io);
    let all = bench.data(&identify(0x13, 0));
    assert_eq!(all[..8], [3, 0, 2, 0, 5, 0, 0x84, 3]);
    let least = command(admin::IDENTIFY, 0, &[6 << 16 | 0x13], 4096);
    assert_eq!(bench.data(&least)[..6], [1, 0, 0x84, 3, 0, 0]);
    assert_eq!(bench.data(&identify(0x12, 1))[..2], [3, 0]);
    assert_eq!(bench.status(&identify(0x12, 3)), Status::INVALID_NAMESPACE.with_dnr());
}

#[test]
fn other_command_sets_and_pages_are_invalid() {
    let mut bench = Bench::enabled(Kind::Io);
    for cns in [5, 6, 7, 0x1a, 0x1b] {
        let zoned = command(admin::IDENTIFY, 1, &[cns, 2 << 24], 4096);
        assert_eq!(bench.status(&zoned), INVALID_FIELD, "{cns:#x}");
    }
    for cns in [4, 9, 0x0a, 0x14, 0x20, 0xff] {
        assert_eq!(bench.status(&identify(cns, 1)), INVALID_FIELD, "{cns:#x}");
    }
    // DMRSL and DMSL: 2^21 and 2^29 blocks.
    let limits = bench.data(&identify(6, 0));
    assert_eq!(limits[..16], [0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 32, 0, 0, 0, 0]);
    let sets = |cntid: u32| command(admin::IDENTIFY, 0, &[cntid << 16 | 0x1c], 4096);
    assert_eq!(bench.data(&sets(0xffff))[..9], [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.status(&sets(6)), INVALID_FIELD);
}
