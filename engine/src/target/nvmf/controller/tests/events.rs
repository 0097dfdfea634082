//! Asynchronous events.

use nvme::feature::event_bits;
use nvme::log::{LogRequest, lid};

use super::*;

fn aer(cid: u16) -> SubmissionEntry {
    SubmissionEntry { cid: cid.into(), ..command(admin::ASYNC_EVENT_REQUEST, 0, &[], 0) }
}

fn enable(bench: &mut Bench, events: u32) {
    let set = command(admin::SET_FEATURES, 0, &[0x0b, events], 0);
    assert_eq!(bench.status(&set), Status::SUCCESS);
}

fn read_log(bench: &mut Bench, lid: u8, retain: bool) -> Vec<u8> {
    let mut entry = command(admin::GET_LOG_PAGE, 0, &[], 4096);
    LogRequest { lid, lsp: 0, retain, bytes: 4096, offset: 0, by_index: false }.put(&mut entry);
    bench.data(&entry)
}

fn told(bench: &mut Bench) -> Option<(u16, u64)> {
    bench.controller.next_event().map(|reply| {
        assert_eq!((reply.status, reply.data.len()), (Status::SUCCESS, 0));
        (reply.cid, reply.result)
    })
}

#[test]
fn requests_beyond_the_limit_are_refused() {
    let mut bench = Bench::enabled(Kind::Io);
    for cid in 0..4 {
        assert_eq!(bench.send(&aer(cid), &[]), None);
    }
    assert_eq!(bench.status(&aer(4)), Status::EVENT_LIMIT.with_dnr());
    assert_eq!(told(&mut bench), None, "nothing has happened");
}

#[test]
fn an_event_is_told_once_until_its_log_is_read() {
    let mut bench = Bench::enabled(Kind::Io);
    enable(&mut bench, event_bits::NAMESPACE | event_bits::ANA);
    bench.controller.namespaces_changed(&[5, 2]);
    assert_eq!(told(&mut bench), None, "no request");
    (1..=3).for_each(|cid| assert_eq!(bench.send(&aer(cid), &[]), None));
    assert_eq!(told(&mut bench), Some((1, 0x0004_0002)));
    bench.controller.namespaces_changed(&[9]);
    assert_eq!(told(&mut bench), None, "the log was not read");
    bench.controller.notify(Event::AnaChanged);
    assert_eq!(told(&mut bench), Some((2, 0x000c_0302)), "another event");
    let list = read_log(&mut bench, lid::CHANGED_NAMESPACES, true);
    assert_eq!(list[..16], [2, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(told(&mut bench), None, "the event is retained");
    assert_eq!(read_log(&mut bench, lid::CHANGED_NAMESPACES, false), list);
    assert_eq!(read_log(&mut bench, lid::CHANGED_NAMESPACES, false), [0; 4096]);
    assert_eq!(told(&mut bench), None, "the log has said what was pending");
    bench.controller.namespaces_changed(&[1]);
    assert_eq!(told(&mut bench), Some((3, 0x0004_0002)));
}

#[test]
fn masked_events_wait_until_they_are_enabled() {
    let mut bench = Bench::enabled(Kind::Io);
    assert_eq!(bench.send(&aer(7), &[]), None);
    bench.controller.notify(Event::AnaChanged);
    assert_eq!(told(&mut bench), None);
    enable(&mut bench, event_bits::ANA);
    assert_eq!(told(&mut bench), Some((7, 0x000c_0302)));
    let set = command(admin::SET_FEATURES, 0, &[0x0b, event_bits::DISCOVERY], 0);
    assert_eq!(bench.status(&set), INVALID_FIELD, "not offered");
}

#[test]
fn controllers_have_events_of_their_kind() {
    let mut bench = Bench::enabled(Kind::Discovery);
    enable(&mut bench, event_bits::DISCOVERY);
    assert_eq!(bench.send(&aer(1), &[]), None);
    bench.controller.namespaces_changed(&[1]);
    assert_eq!(told(&mut bench), None);
    bench.controller.notify(Event::DiscoveryChanged);
    assert_eq!(told(&mut bench), Some((1, 0x0070_f002)));
}

#[test]
fn too_many_changes_are_all() {
    let mut bench = Bench::enabled(Kind::Io);
    bench.controller.namespaces_changed(&(1..=1024).collect::<Vec<_>>());
    let full = read_log(&mut bench, lid::CHANGED_NAMESPACES, true);
    assert_eq!(full[4092..], [0, 4, 0, 0]);
    bench.controller.namespaces_changed(&[1025]);
    let list = read_log(&mut bench, lid::CHANGED_NAMESPACES, false);
    assert_eq!((&list[..4], &list[4..8]), (&[0xff; 4][..], &[0; 4][..]));
    assert_eq!(read_log(&mut bench, lid::CHANGED_NAMESPACES, false), [0; 4096]);
}

#[test]
fn a_held_request_can_be_aborted_and_nothing_else() {
    let mut bench = Bench::enabled(Kind::Io);
    assert_eq!(bench.send(&aer(7), &[]), None);
    let mut abort = |sqid: u32, cid: u32| {
        let reply = bench.ask(&command(admin::ABORT, 0, &[cid << 16 | sqid], 0), &[]);
        assert_eq!(reply.status, Status::SUCCESS);
        (reply.result, bench.controller.next_aborted())
    };
    assert_eq!(abort(1, 7), (1, None), "of an I/O queue");
    assert_eq!(abort(0, 8), (1, None), "unknown");
    let (result, aborted) = abort(0, 7);
    let aborted = aborted.unwrap();
    assert_eq!((result, aborted.cid, aborted.status), (0, 7, Status::ABORT_REQUESTED));
    assert_eq!(abort(0, 7), (1, None));
}
