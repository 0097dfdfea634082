//! Namespaces, and queues on a whole core: over sockets, down to a device in memory.

mod core;

use super::*;

fn namespace(nsid: u32) -> Namespace {
    Namespace {
        nsid,
        volume: VolumeId::new(7),
        block_bytes: 512,
        size_bytes: 1 << 20,
        read_only: false,
        ana_state: AnaState::Optimized,
        ana_group: 1,
    }
}

#[test]
fn namespaces_are_found_whatever_their_numbers() {
    for ids in [&[][..], &[1, 2, 3], &[2, 3, 9], &[1, 7, 2, 0xffff_fffe]] {
        let namespaces = Namespaces::new(ids.iter().map(|nsid| namespace(*nsid)).collect());
        for nsid in (0..12).chain([0xffff_fffe, 0xffff_ffff]) {
            let found = namespaces.get(nsid).map(|found| found.nsid);
            assert_eq!(found, ids.contains(&nsid).then_some(nsid));
        }
    }
}

#[test]
#[should_panic(expected = "an NSID is of one")]
fn two_namespaces_of_one_number_are_refused() {
    Namespaces::new(vec![namespace(2), namespace(2)]);
}
