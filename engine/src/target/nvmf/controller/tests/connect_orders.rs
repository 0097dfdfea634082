//! The commands that hosts send when they connect, in their order.

use nvme::feature::fid;
use nvme::identify::{IdentifyController, IdentifyNamespace, namespaces};
use nvme::log::{LogRequest, lid};
use zerocopy::FromBytes;

use super::*;

fn log(lid: u8, lsp: u8, nsid: u32, bytes: u64) -> SubmissionEntry {
    let mut entry = command(admin::GET_LOG_PAGE, nsid, &[], u32::try_from(bytes).unwrap());
    LogRequest { lid, lsp, retain: false, bytes, offset: 0, by_index: false }.put(&mut entry);
    entry
}

fn set_feature(fid: u8, value: u32) -> SubmissionEntry {
    command(admin::SET_FEATURES, 0, &[fid.into(), value], 0)
}

#[test]
fn linux() {
    let mut bench = Bench::connected(Kind::Io);
    let cap = bench.get(offset::CAP, true).result;
    assert_eq!(cap & 0xffff, 127);
    bench.set_cc(0);
    assert_eq!(bench.get(offset::CC, false).result, 0);
    assert_eq!(bench.get(offset::CAP, true).result, cap);
    let ready_500ms = bench.get(offset::CRTO, false).result;
    assert!(ready_500ms >= cap >> 24 & 0xff, "Linux complains of a shorter time");
    bench.set_cc(0x0046_0001);
    assert_eq!(bench.get(offset::CSTS, false).result, 1);
    assert_eq!(bench.get(offset::VS, false).result, 0x0002_0000);
    let id = IdentifyController::read_from_bytes(&bench.data(&identify(1, 0))).unwrap();
    let ana_bytes = 16 + 32 * u64::from(id.nanagrpid.get()) + 4 * u64::from(id.mnan.get());
    assert!(ana_bytes <= 4096 << id.mdts, "Linux refuses a longer ANA log");
    assert_eq!(bench.data(&log(lid::EFFECTS, 0, u32::MAX, 4096)).len(), 4096);
    assert_eq!(bench.data(&log(lid::ANA, 1, u32::MAX, ana_bytes))[..8], [7, 0, 0, 0, 0, 0, 0, 0]);
    let mut time = command(admin::SET_FEATURES, 0, &[fid::TIMESTAMP.into()], 8);
    time.set_sgl(SglDescriptor::in_capsule(8));
    assert_eq!(bench.ask(&time, &[1, 0, 0, 0, 0, 0, 0, 0]).status, Status::SUCCESS);
    bench.data(&log(lid::SMART, 0, u32::MAX, 512));
    let queues = bench.ask(&set_feature(fid::QUEUES, 0x0003_0003), &[]);
    assert_eq!((queues.status, queues.result), (Status::SUCCESS, 0x0003_0003));
    bench.io_queues = 4;
    assert_eq!(bench.status(&command(admin::KEEP_ALIVE, 0, &[], 0)), Status::SUCCESS);
    assert_eq!(bench.status(&set_feature(fid::EVENTS, id.oaes.get() & 0x900)), Status::SUCCESS);
    assert_eq!(bench.send(&command(admin::ASYNC_EVENT_REQUEST, 0, &[], 0), &[]), None);
    bench.data(&identify(6, 0));
    assert!(namespaces(&bench.data(&identify(2, 0))).eq([1, 2, 5]));
    for nsid in [1, 2, 5] {
        bench.data(&identify(3, nsid));
        let ns = IdentifyNamespace::read_from_bytes(&bench.data(&identify(0, nsid))).unwrap();
        assert_eq!((ns.nsze.get(), ns.block_bytes()), (2048, Some(512)));
    }
    bench.set_cc(0x0046_4001);
    assert_eq!(bench.get(offset::CSTS, false).result & 0xc, 0x8, "shut down");
}

#[test]
fn spdk() {
    let mut bench = Bench::connected(Kind::Io);
    bench.get(offset::VS, false);
    bench.get(offset::CAP, true);
    assert_eq!(bench.get(offset::CC, false).result, 0);
    assert_eq!(bench.get(offset::CSTS, false).result, 0);
    bench.set_cc(0x0046_0001);
    assert_eq!(bench.get(offset::CSTS, false).result, 1);
    let id = IdentifyController::read_from_bytes(&bench.data(&identify(1, 0))).unwrap();
    assert_eq!(bench.status(&set_feature(fid::EVENTS, 0x0000_011f)), Status::SUCCESS);
    for cid in 0..u16::from(id.aerl) + 1 {
        let mut aer = command(admin::ASYNC_EVENT_REQUEST, 0, &[], 0);
        aer.cid = cid.into();
        assert_eq!(bench.send(&aer, &[]), None);
    }
    // Any error here but Invalid Field ends its initialisation.
    let kato = bench.ask(&command(admin::GET_FEATURES, 0, &[fid::KEEP_ALIVE.into()], 0), &[]);
    assert_eq!((kato.status, kato.result), (Status::SUCCESS, 5000));
    bench.data(&identify(6, 0));
    let queues = bench.ask(&set_feature(fid::QUEUES, 0x00ff_00ff), &[]);
    assert_eq!(queues.result, 0x0007_0007, "no more than there are");
    for nsid in namespaces(&bench.data(&identify(2, 0))).collect::<Vec<_>>() {
        bench.data(&identify(0, nsid));
        bench.data(&identify(3, nsid));
    }
    bench.data(&log(lid::ANA, 0, 0, 4096));
}

#[test]
fn discovery() {
    let mut bench = Bench::connected(Kind::Discovery);
    bench.set_cc(0x0046_0001);
    let id = IdentifyController::read_from_bytes(&bench.data(&identify(1, 0))).unwrap();
    assert_eq!((id.cntrltype, id.nn.get(), id.oaes.get()), (2, 0, 1 << 31));
    assert_eq!(bench.status(&set_feature(fid::EVENTS, 1 << 31)), Status::SUCCESS);
    let page = bench.data(&log(lid::DISCOVERY, 0, 0, 1024));
    assert_eq!(page, bench.discovery[..1024]);
    for cns in (0..=0xff).filter(|cns| *cns != 1) {
        assert_eq!(bench.status(&identify(cns, 1)), INVALID_FIELD);
    }
    for lid in [lid::SMART, lid::FIRMWARE, lid::EFFECTS, lid::ANA] {
        let status = bench.status(&log(lid, 0, 0, 512));
        assert_eq!(status, Status::INVALID_LOG_PAGE.with_dnr());
    }
    for fid in [fid::QUEUES, fid::WRITE_CACHE, fid::TIMESTAMP] {
        assert_eq!(bench.status(&set_feature(fid, 0)), INVALID_FIELD);
    }
}
