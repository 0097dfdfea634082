//! Features.

use nvme::feature::fid;

use super::*;

fn get(fid: u8, select: u32, dw11: u32) -> SubmissionEntry {
    command(admin::GET_FEATURES, 0, &[u32::from(fid) | select << 8, dw11], 4096)
}

fn set(fid: u8, dw11: u32) -> SubmissionEntry {
    command(admin::SET_FEATURES, 0, &[fid.into(), dw11], 0)
}

const ALL: [u8; 16] = [1, 2, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xe, 0xf, 0x16, 0x81, 0x82, 0x83];

#[test]
fn all_of_the_list_and_no_others() {
    let mut bench = Bench::enabled(Kind::Io);
    for fid in 0..=255_u8 {
        let mut entry = get(fid, 0, u32::from(fid == 0x81));
        entry.nsid = 1.into();
        let wanted = if ALL.contains(&fid) { Status::SUCCESS } else { INVALID_FIELD };
        assert_eq!(bench.status(&entry), wanted, "{fid:#x}");
        let capabilities = bench.status(&get(fid, 3, 0));
        assert_eq!(capabilities, wanted, "{fid:#x}");
    }
    assert_eq!(bench.status(&get(1, 4, 0)), INVALID_FIELD, "a reserved selection");
}

#[test]
fn nothing_is_saved() {
    let mut bench = Bench::enabled(Kind::Io);
    for fid in ALL {
        let saved = command(admin::SET_FEATURES, 1, &[1 << 31 | u32::from(fid), 0], 0);
        assert_eq!(bench.status(&saved), Status::NOT_SAVEABLE.with_dnr(), "{fid:#x}");
    }
}

#[test]
fn values_are_kept_and_defaults_stay() {
    let mut bench = Bench::enabled(Kind::Io);
    for (fid, value) in [
        (fid::ARBITRATION, 0x0102_0307),
        (fid::POWER, 1 << 5),
        (fid::TEMPERATURE, 0x0000_0150),
        (fid::TEMPERATURE, 0x0010_0140),
        (fid::ERROR_RECOVERY, 9),
        (fid::COALESCING, 0x0102),
        (fid::WRITE_ATOMICITY, 1),
        (fid::EVENTS, 0x100),
        (fid::KEEP_ALIVE, 30_000),
    ] {
        let (dw11, wanted) = match fid {
            fid::TEMPERATURE => (value & 0xffff_0000, value & 0xffff),
            _ => (0, value),
        };
        let default = bench.ask(&get(fid, 1, dw11), &[]).result;
        assert_eq!(bench.status(&set(fid, value)), Status::SUCCESS, "{fid:#x}");
        assert_eq!(bench.ask(&get(fid, 0, dw11), &[]).result, u64::from(wanted), "{fid:#x}");
        assert_eq!(bench.ask(&get(fid, 1, dw11), &[]).result, default, "{fid:#x}");
        assert_eq!(bench.ask(&get(fid, 2, dw11), &[]).result, default, "{fid:#x}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let mut bench = Bench::enabled(Kind::Io);
    for (fid, value, status) in [
        (fid::POWER, 1, INVALID_FIELD),
        (fid::TEMPERATURE, 0x0001_0150, INVALID_FIELD),
        (fid::TEMPERATURE, 0x0020_0150, INVALID_FIELD),
        (fid::ERROR_RECOVERY, 1 << 16, INVALID_FIELD),
        (fid::WRITE_CACHE, 0, Status::NOT_CHANGEABLE.with_dnr()),
        (fid::WRITE_CACHE, 1, Status::SUCCESS),
        (fid::QUEUES, 0xffff, INVALID_FIELD),
        (fid::QUEUES, 0xffff_0000, INVALID_FIELD),
        (fid::INTERRUPT, 1, INVALID_FIELD),
        (fid::EVENTS, 1 << 31, INVALID_FIELD),
        (fid::TIMESTAMP, 0, Status::SGL_LENGTH_INVALID.with_dnr()),
        (fid::HOST_BEHAVIOR, 0, Status::SGL_LENGTH_INVALID.with_dnr()),
        (fid::HOST_ID, 1, Status::COMMAND_SEQUENCE.with_dnr()),
        (fid::RESERVATION_MASK, 0, Status::INVALID_NAMESPACE.with_dnr()),
    ] {
        assert_eq!(bench.status(&set(fid, value)), status, "{fid:#x} {value:#x}");
    }
    let mut of_namespace = set(fid::ARBITRATION, 0);
    of_namespace.nsid = 1.into();
    assert_eq!(bench.status(&of_namespace), Status::NOT_BY_NAMESPACE.with_dnr());
    let mut persist = set(fid::RESERVATION_PERSISTENCE, 1);
    persist.nsid = 1.into();
    assert_eq!(bench.status(&persist), INVALID_FIELD);
    assert_eq!(bench.status(&get(fid::HOST_ID, 0, 0)), INVALID_FIELD, "64 bits");
}

#[test]
fn queues_are_granted_before_they_are_connected() {
    let mut bench = Bench::enabled(Kind::Io);
    assert_eq!(bench.controller.granted_queues(), 8);
    for (asked, granted) in [(0x0001_0003, 1), (0, 0), (0xfffe_fffe, 7)] {
        let reply = bench.ask(&set(fid::QUEUES, asked), &[]);
        assert_eq!((reply.status, reply.result), (Status::SUCCESS, granted << 16 | granted));
        assert_eq!(u64::from(bench.controller.granted_queues()), granted + 1);
        assert_eq!(bench.ask(&get(fid::QUEUES, 0, 0), &[]).result, reply.result);
    }
    bench.io_queues = 1;
    assert_eq!(bench.status(&set(fid::QUEUES, 0)), Status::COMMAND_SEQUENCE.with_dnr());
}

#[test]
fn values_with_data() {
    let mut bench = Bench::enabled(Kind::Io);
    assert_eq!(bench.data(&get(fid::HOST_ID, 0, 1)), [9; 16]);
    let first = bench.data(&get(fid::TIMESTAMP, 0, 0));
    assert_eq!(first, 1_700_000_000_000_u64.to_le_bytes());
    let mut time = set(fid::TIMESTAMP, 0);
    time.set_sgl(SglDescriptor::in_capsule(8));
    assert_eq!(bench.ask(&time, &[0xff; 8]).status, Status::SUCCESS);
    bench.wall_ms += 2;
    assert_eq!(bench.data(&get(fid::TIMESTAMP, 0, 0)), [1, 0, 0, 0, 0, 0, 2, 0], "it wraps");
    let behavior = set(fid::HOST_BEHAVIOR, 0);
    let mut data = [0; 512];
    data[0] = 2;
    assert_eq!(bench.ask(&behavior, &data).status, INVALID_FIELD);
    data[0] = 1;
    assert_eq!(bench.ask(&behavior, &data).status, Status::SUCCESS);
    assert_eq!(bench.data(&get(fid::HOST_BEHAVIOR, 0, 0)), data);
    assert_eq!(bench.data(&get(fid::HOST_BEHAVIOR, 1, 0)), [0; 512]);
}
