//! Tests of the registry: what is refused, what is kept, what is seen.

use std::path::Path;

use super::file::{FileError, load, parse, parse_uuid, save, to_bytes};
use super::*;
use crate::request::VolumeView;
use crate::units::{FragmentSize, VolumeId};
use crate::volume::{Volume, Volumes};

fn nqn(name: &str) -> Nqn {
    Nqn::new(&format!("nqn.2026-11.example:{name}")).unwrap()
}

fn namespace(uuid: u8) -> Namespace {
    Namespace { volume: [uuid; 16], read_only: false, group: DEFAULT_GROUP }
}

fn exports() -> Exports {
    let mut exports = Exports::default();
    exports.add_subsystem(nqn("a"), Subsystem::new("S1", Hosts::Any).unwrap()).unwrap();
    let listed = Exports::listed([nqn("host1")]);
    exports.add_subsystem(nqn("b"), Subsystem::new("S2", listed).unwrap()).unwrap();
    assert_eq!(exports.add_namespace(&nqn("a"), None, namespace(1)), Ok(1));
    assert_eq!(exports.add_namespace(&nqn("a"), Some(7), namespace(2)), Ok(7));
    exports.add_listener("127.0.0.1:4421".parse().unwrap()).unwrap();
    exports.add_referral("127.0.0.1:4421".parse().unwrap()).unwrap();
    exports
}

fn volume(id: u32, uuid: u8, size_bytes: u64, block_bytes: u32) -> Volume {
    let view = VolumeView {
        id: VolumeId::new(id),
        name: format!("v{id}"),
        size_bytes,
        block_bytes,
        read_only: false,
    };
    Volume { view, uuid: [uuid; 16], fragment: FragmentSize::DEFAULT }
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut exports = exports();
    let before = exports.clone();
    let a = nqn("a");
    let missing = nqn("c");
    assert_eq!(
        exports.add_subsystem(a.clone(), Subsystem::new("S", Hosts::Any).unwrap()),
        Err(ExportError::Exists(a.clone()))
    );
    let discovery = Subsystem::new("S", Hosts::Any).unwrap();
    assert!(matches!(
        exports.add_subsystem(Nqn::discovery(), discovery),
        Err(ExportError::Discovery(_))
    ));
    for serial in ["", " a", "a ", "ä", "123456789012345678901"] {
        let serial = Subsystem::new(serial, Hosts::Any);
        assert!(matches!(serial, Err(ExportError::Serial(_))));
    }
    assert!(matches!(exports.remove_subsystem(&missing), Err(ExportError::NotFound(_))));
    let taken = exports.add_namespace(&a, Some(7), namespace(3));
    assert_eq!(taken, Err(ExportError::NsidTaken { nqn: a.clone(), nsid: 7 }));
    let twice = exports.add_namespace(&a, None, namespace(2));
    assert_eq!(twice, Err(ExportError::VolumeTaken { nqn: a.clone(), nsid: 7 }));
    for nsid in [0, MAX_NSID + 1, u32::MAX] {
        let added = exports.add_namespace(&a, Some(nsid), namespace(3));
        assert_eq!(added, Err(ExportError::Nsid(nsid)));
    }
    for group in [0, MAX_ANA_GROUP + 1] {
        let new = Namespace { group, ..namespace(3) };
        assert_eq!(exports.add_namespace(&a, None, new), Err(ExportError::Group(group)));
        let set = exports.set_ana(&a, group, AnaState::Inaccessible);
        assert_eq!(set, Err(ExportError::Group(group)));
    }
    assert!(matches!(exports.remove_namespace(&a, 2), Err(ExportError::NoNamespace { .. })));
    assert!(matches!(exports.add_host(&a, nqn("h")), Err(ExportError::AnyHost(_))));
    assert!(matches!(exports.remove_host(&nqn("b"), &nqn("h")), Err(ExportError::NoHost { .. })));
    let address = "127.0.0.1:4421".parse().unwrap();
    assert_eq!(exports.add_listener(address), Err(ExportError::Listening(address)));
    let other = "127.0.0.1:4422".parse().unwrap();
    assert_eq!(exports.remove_listener(other), Err(ExportError::NotListening(other)));
    assert_eq!(exports.add_referral(address), Err(ExportError::Referring(address)));
    assert_eq!(exports.remove_referral(other), Err(ExportError::NotReferring(other)));
    assert_eq!(exports, before);
}

#[test]
fn a_subsystem_is_full_at_its_last_nsid() {
    let mut exports = exports();
    let b = nqn("b");
    for at in 1..=MAX_NSID {
        let mut new = namespace(0);
        new.volume[..4].copy_from_slice(&at.to_le_bytes());
        assert_eq!(exports.add_namespace(&b, None, new), Ok(at));
    }
    assert!(matches!(
        exports.add_namespace(&b, None, namespace(9)),
        Err(ExportError::TooMany { .. })
    ));
}

#[test]
fn hosts_are_let_in_by_name() {
    let mut exports = exports();
    let b = nqn("b");
    assert!(exports.get(&nqn("a")).unwrap().hosts.allow(&nqn("anyone")));
    assert!(!exports.get(&b).unwrap().hosts.allow(&nqn("host2")));
    let generation = exports.generation;
    assert_eq!(exports.add_host(&b, nqn("host2")), Ok(true));
    assert_eq!(exports.add_host(&b, nqn("host2")), Ok(false));
    assert_eq!(exports.generation, generation + 1, "discovery says something else now");
    assert!(exports.get(&b).unwrap().hosts.allow(&nqn("host2")));
    exports.remove_host(&b, &nqn("host1")).unwrap();
    assert!(!exports.get(&b).unwrap().hosts.allow(&nqn("host1")));
}

#[test]
fn ana_changes_are_counted() {
    let mut exports = exports();
    let a = nqn("a");
    assert_eq!(exports.get(&a).unwrap().ana_changes, 2, "two namespaces came");
    assert_eq!(exports.set_ana(&a, 3, AnaState::Optimized), Ok(false), "as before");
    assert_eq!(exports.set_ana(&a, 3, AnaState::NonOptimized), Ok(true));
    let subsystem = exports.get(&a).unwrap();
    assert_eq!(subsystem.ana_changes, 3);
    assert_eq!(subsystem.groups[&3], Group { state: AnaState::NonOptimized, changes: 1 });
}

#[test]
fn the_file_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(dir.path()).unwrap(), Exports::default());
    let mut exports = exports();
    exports.set_ana(&nqn("a"), 1, AnaState::Change).unwrap();
    let other = Namespace { read_only: true, group: 5, ..namespace(9) };
    exports.add_namespace(&nqn("b"), Some(1024), other).unwrap();
    save(dir.path(), &exports).unwrap();
    assert_eq!(load(dir.path()).unwrap(), exports);
    exports.remove_subsystem(&nqn("a")).unwrap();
    save(dir.path(), &exports).unwrap();
    assert_eq!(load(dir.path()).unwrap(), exports);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_bad_file_is_refused_at_its_place() {
    let good = String::from_utf8(to_bytes(&exports())).unwrap();
    assert_eq!(parse(Path::new("f"), good.as_bytes()).unwrap(), exports());
    for (from, to, place, what) in [
        ("\"version\": 1", "\"version\": 2", "version 2", "newer"),
        ("\"nsid\": 7", "\"nsid\": 1", "example:a", "namespace 1 already"),
        ("\"nsid\": 7", "\"nsid\": 0", "example:a", "1 to 1024"),
        ("\"nsid\": 7", "\"nsid\": -1", "line ", "u32"),
        ("02020202-0202", "020202020-202", "example:a", "UUID"),
        (
            "02020202-0202-0202-0202-020202020202",
            "01010101-0101-0101-0101-010101010101",
            "example:a",
            "exports the volume already",
        ),
        ("\"optimized\"", "\"optimised\"", "example:a", "no state"),
        ("\"S1\"", "\"\"", "example:a", "serial"),
        ("nqn.2026-11.example:host1", "host1", "example:b", "host"),
        ("nqn.2026-11.example:b", "nqn.2026-11.example:a", "example:a", "exists already"),
        ("127.0.0.1:4421", "localhost:4421", "line 5", "socket address"),
        ("\"listeners\"", "\"listens\"", "line", "listens"),
        ("{", "", "line", ""),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        let error = parse(Path::new("f"), text.as_bytes()).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("f: ") && error.contains(place), "{to}: {error}");
        assert!(error.contains(what), "{to}: {error}");
    }
    let cut = parse(Path::new("f"), &good.as_bytes()[..good.len() / 2]);
    assert!(matches!(cut, Err(FileError::Content { .. })));
}

#[test]
fn uuids_have_one_form() {
    assert_eq!(parse_uuid("0102030405060708090a0b0c0d0e0f10"), None);
    let uuid = parse_uuid("01020304-0506-0708-090A-0b0c0d0e0f10").unwrap();
    assert_eq!(uuid, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    assert_eq!(parse_uuid("+1020304-0506-0708-090a-0b0c0d0e0f10"), None);
}

#[test]
fn views_leave_out_what_is_gone_and_tell_differences() {
    let exports = exports();
    let a = nqn("a");
    let view = |volumes: Vec<Volume>| {
        let mut missing = Vec::new();
        let subsystem = exports.get(&a).unwrap();
        let volumes = Volumes::new(volumes);
        let view = SubsystemView::new(&a, subsystem, &volumes, |nsid, _| missing.push(nsid));
        (view, missing)
    };
    let (both, missing) = view(vec![volume(1, 1, 1 << 20, 512), volume(2, 2, 1 << 20, 4096)]);
    assert!(missing.is_empty());
    assert_eq!((both.get(1).unwrap().blocks, both.get(7).unwrap().blocks), (2048, 256));
    let (one, missing) = view(vec![volume(1, 1, 2 << 20, 512)]);
    assert_eq!((missing, one.namespaces.len()), (vec![7], 1));
    assert_eq!(one.get(7), None);
    assert_eq!(both.differing(&one), [1, 7], "one grew, one is gone");
    assert!(both.differing(&both).is_empty());
}
