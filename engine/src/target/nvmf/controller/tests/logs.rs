//! Log pages.

use nvme::log::{AnaState, LogRequest, lid};

use super::*;

fn log(lid: u8, bytes: u64, offset: u64) -> SubmissionEntry {
    let mut entry = command(admin::GET_LOG_PAGE, 0, &[], u32::try_from(bytes).unwrap());
    LogRequest { lid, lsp: 0, retain: false, bytes, offset, by_index: false }.put(&mut entry);
    entry
}

#[test]
fn every_advertised_page_can_be_read_and_no_other() {
    for kind in [Kind::Io, Kind::Discovery] {
        let mut bench = Bench::enabled(kind);
        let supported = bench.data(&log(lid::SUPPORTED, 1024, 0));
        for lid in 0..=255_u8 {
            let status = bench.status(&log(lid, 4, 0));
            let listed = supported[usize::from(lid) * 4] & 1 == 1;
            let wanted = if listed { Status::SUCCESS } else { Status::INVALID_LOG_PAGE.with_dnr() };
            assert_eq!(status, wanted, "{lid:#x}");
        }
    }
}

#[test]
fn offsets_are_honoured_and_bounded() {
    let mut bench = Bench::enabled(Kind::Discovery);
    // As nvme-cli reads: the head, the entries, the head again.
    assert_eq!(bench.data(&log(lid::DISCOVERY, 20, 0)), bench.discovery[..20]);
    assert_eq!(bench.data(&log(lid::DISCOVERY, 2048, 1024)), bench.discovery[1024..]);
    let across = bench.data(&log(lid::DISCOVERY, 16, 3068));
    assert_eq!((&across[..4], &across[4..]), (&bench.discovery[3068..], &[0; 12][..]));
    assert_eq!(bench.data(&log(lid::DISCOVERY, 4, 3072)), [0; 4], "the end");
    for offset in [3076, 1 << 32, u64::MAX - 3] {
        assert_eq!(bench.status(&log(lid::DISCOVERY, 4, offset)), INVALID_FIELD);
    }
    assert_eq!(bench.status(&log(lid::DISCOVERY, 4, 2)), INVALID_FIELD, "no double word");
    assert_eq!(bench.status(&log(lid::DISCOVERY, (1 << 20) + 4, 0)), INVALID_FIELD, "MDTS");
    assert_eq!(bench.data(&log(lid::DISCOVERY, 1 << 20, 0)).len(), 1 << 20);
    let mut by_index = log(lid::DISCOVERY, 4, 0);
    by_index.cdw10[4] = (1 << 23).into();
    assert_eq!(bench.status(&by_index), INVALID_FIELD);
}

#[test]
fn smart_counts_in_its_units() {
    let mut bench = Bench::enabled(Kind::Io);
    let page = bench.data(&log(lid::SMART, 512, 0));
    assert_eq!((page[0], page[3]), (0, 100));
    assert_eq!((page[32], page[48], page[128]), (2, 0, 3), "rounded up; none; hours");
    assert_eq!((page[64], page[80]), (2, 0), "commands");
    let mut one = log(lid::SMART, 512, 0);
    one.nsid = 1.into();
    assert_eq!(bench.status(&one), INVALID_FIELD);
}

#[test]
fn effects_name_what_is_offered() {
    let mut bench = Bench::enabled(Kind::Io);
    let page = bench.data(&log(lid::EFFECTS, 4096, 0));
    let found = |set: usize| -> Vec<(usize, u8)> {
        let effects = page[set * 1024..][..1024].chunks(4).map(|effect| effect[0]).enumerate();
        effects.filter(|(_, effect)| *effect != 0).collect()
    };
    let admin = [0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18].map(|opcode| (opcode, 1));
    assert_eq!(found(0), admin);
    assert_eq!(found(1), [(0, 1), (1, 3), (2, 1), (5, 1), (8, 3), (9, 3)]);
    let mut zoned = log(lid::EFFECTS, 4096, 0);
    zoned.cdw10[4] = (2 << 24).into();
    assert_eq!(bench.status(&zoned), INVALID_FIELD);
    let firmware = bench.data(&log(lid::FIRMWARE, 512, 0));
    assert!(firmware[8..].starts_with(env!("CARGO_PKG_VERSION").as_bytes()));
}

#[test]
fn ana_groups_have_their_namespaces_ascending() {
    let mut bench = Bench::enabled(Kind::Io);
    bench.subsystem = subsystem([1, 2, 4, 5]);
    let state = Group { state: AnaState::Inaccessible, changes: 3 };
    bench.subsystem.groups.insert(3, state);
    let page = bench.data(&log(lid::ANA, 4096, 0));
    assert_eq!(page[..16], [7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    // Group 2 has 1 and 4, group 3 has 2 and 5.
    assert_eq!(page[16..24], [2, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(page[32], 1);
    assert_eq!(page[48..56], [1, 0, 0, 0, 4, 0, 0, 0]);
    assert_eq!(page[56..73], [3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3]);
    assert_eq!(page[88..96], [2, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(page[96..], [0; 4000]);
    let mut groups = log(lid::ANA, 80, 0);
    groups.cdw10[0] = (groups.cdw10[0].get() | 1 << 8).into();
    let page = bench.data(&groups);
    assert_eq!((page[16..24].to_vec(), page[48]), (vec![2, 0, 0, 0, 0, 0, 0, 0], 3));
}
