//! Properties, enabling, resetting, shutting down.

use nvme::property::Shutdown;

use super::*;

#[test]
fn sizes_and_offsets_are_checked() {
    let mut bench = Bench::connected(Kind::Io);
    for (offset, wide) in [
        (offset::CAP, false),
        (offset::VS, true),
        (offset::CC, true),
        (offset::CSTS, true),
        (4, false),
        (0x0c, false),
        (0x24, false),
        (0x28, true),
        (u32::MAX, true),
    ] {
        let reply = bench.get(offset, wide);
        assert_eq!((reply.status, reply.result), (INVALID_FIELD, 0), "{offset:#x} {wide}");
    }
    let mut odd = PropertyCommand::get(1, offset::CAP, true);
    odd.attrib = 3;
    assert_eq!(bench.status(&odd.into_entry()), INVALID_FIELD);
    for offset in [offset::CAP, offset::VS, offset::CSTS, offset::NSSR, offset::CRTO] {
        let set = PropertyCommand::set(1, offset, 1).into_entry();
        assert_eq!(bench.status(&set), INVALID_FIELD, "{offset:#x}");
    }
    let mut wide = PropertyCommand::set(1, offset::CC, 1);
    wide.attrib = 1;
    assert_eq!(bench.status(&wide.into_entry()), INVALID_FIELD);
    assert!(!bench.controller.is_ready());
}

#[test]
fn configurations_that_cannot_work_are_fatal_until_a_reset() {
    let good = Configuration::ENABLED.bits();
    for bad in [
        good & !(0xf << 16),
        good & !(0xf << 20),
        good | 1 << 16,
        good | 1 << 7,
        good | 1 << 11,
        good | 0b110 << 4,
        1,
    ] {
        let mut bench = Bench::connected(Kind::Io);
        bench.set_cc(bad);
        assert_eq!(bench.get(offset::CSTS, false).result, 0b10, "{bad:#x}");
        assert_eq!(bench.status(&identify(1, 0)), Status::COMMAND_SEQUENCE.with_dnr());
        bench.set_cc(0);
        assert_eq!(bench.get(offset::CSTS, false).result, 0);
        bench.set_cc(good);
        assert_eq!(bench.get(offset::CSTS, false).result, 1);
    }
    // A discovery controller has no I/O queues whose entries could be wrong.
    let mut bench = Bench::connected(Kind::Discovery);
    bench.set_cc(1);
    assert!(bench.controller.is_ready());
}

#[test]
fn a_reset_drops_queues_events_and_values() {
    let mut bench = Bench::enabled(Kind::Io);
    let set = command(admin::SET_FEATURES, 0, &[0x0b, 0x100], 0);
    assert_eq!(bench.status(&set), Status::SUCCESS);
    assert_eq!(bench.send(&command(admin::ASYNC_EVENT_REQUEST, 0, &[], 0), &[]), None);
    bench.controller.namespaces_changed(&[1]);
    bench.set_cc(Configuration::ENABLED.with_enable(false).bits());
    assert!(bench.effects.drop_queues);
    assert_eq!(bench.controller.next_event(), None);
    bench.set_cc(Configuration::ENABLED.bits());
    assert!(!bench.effects.drop_queues);
    assert_eq!(bench.controller.next_event(), None, "the request is gone");
    let get = bench.ask(&command(admin::GET_FEATURES, 0, &[0x0b], 0), &[]);
    assert_eq!(get.result, 0);
    assert_eq!(bench.controller.kato_ms(), 5000, "the association's");
}

#[test]
fn a_shutdown_completes_and_ends_keep_alive() {
    for shutdown in [Shutdown::Normal, Shutdown::Abrupt] {
        let mut bench = Bench::enabled(Kind::Io);
        bench.set_cc(Configuration::ENABLED.with_shutdown(shutdown).bits());
        assert!(bench.effects.drop_queues);
        assert_eq!(bench.get(offset::CSTS, false).result, 0b1001);
        assert_eq!(bench.status(&identify(1, 0)), Status::COMMAND_SEQUENCE.with_dnr());
        assert_eq!(bench.controller.tick(Nanos::new(1000 * SECOND)), None);
        bench.set_cc(Configuration::ENABLED.with_shutdown(shutdown).bits());
        assert!(!bench.effects.drop_queues, "once");
    }
}
