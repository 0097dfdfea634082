//! The negotiation, option by option.

use zerocopy::{FromBytes, IntoBytes};

use super::super::handshake::{Handshake, OPTION_BYTES, Step, Violation};
use super::super::wire::{self, OptionHeader, OptionReply, export_flag, info, option, reply};
use crate::request::VolumeView;
use crate::target::fake::volume;
use crate::units::ClientId;

struct Peer {
    handshake: Handshake,
    volumes: Vec<VolumeView>,
    stopping: bool,
}

/// Replies of an option: type and data.
type Replies = Vec<(u32, Vec<u8>)>;

impl Peer {
    fn new(flags: u32) -> Peer {
        let mut out = Vec::new();
        let mut handshake = Handshake::start(&mut out);
        assert_eq!(out, *b"NBDMAGICIHAVEOPT\x00\x03");
        let step = handshake.step(&flags.to_be_bytes(), &[], false, &mut out);
        assert_eq!(step, Ok((4, Step::Continue)));
        let mut read_only = volume(3, "ro", 4096, 4096);
        read_only.read_only = true;
        let volumes = vec![volume(7, "a", 1 << 30, 512), read_only];
        Peer { handshake, volumes, stopping: false }
    }

    fn option(&mut self, option: u32, data: &[u8]) -> (Replies, Result<Step, Violation>) {
        let message = message(option, data);
        let mut out = Vec::new();
        // Until it is whole, nothing is consumed or said.
        for cut in [0, 15, message.len() - 1] {
            let step = self.handshake.step(&message[..cut], &self.volumes, false, &mut out);
            assert_eq!(step, Ok((0, Step::NeedMore)));
        }
        let step = self.handshake.step(&message, &self.volumes, self.stopping, &mut out);
        let step = step.map(|(consumed, step)| {
            assert_eq!(consumed, message.len());
            step
        });
        let replies =
            if option == option::EXPORT_NAME { Vec::new() } else { replies(option, &out) };
        (replies, step)
    }

    fn kinds(&mut self, option: u32, data: &[u8]) -> Vec<u32> {
        self.option(option, data).0.into_iter().map(|(kind, _)| kind).collect()
    }
}

fn message(option: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().into();
    let header = OptionHeader { magic: wire::OPTION_MAGIC.into(), option: option.into(), length };
    [header.as_bytes(), data].concat()
}

fn replies(option: u32, mut out: &[u8]) -> Replies {
    let mut all = Vec::new();
    while !out.is_empty() {
        let (header, rest) = OptionReply::read_from_prefix(out).unwrap();
        assert_eq!((header.magic.get(), header.option.get()), (wire::OPTION_REPLY_MAGIC, option));
        let (data, rest) = rest.split_at(header.length.get() as usize);
        all.push((header.kind.get(), data.to_vec()));
        out = rest;
    }
    all
}

fn string(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

fn go(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend_from_slice(&u16::try_from(wanted.len()).unwrap().to_be_bytes());
    wanted.iter().for_each(|kind| data.extend_from_slice(&kind.to_be_bytes()));
    data
}

fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend_from_slice(&u32::try_from(queries.len()).unwrap().to_be_bytes());
    queries.iter().for_each(|query| data.extend_from_slice(&string(query)));
    data
}

#[test]
fn client_flags_are_checked() {
    for (flags, good) in [(0u32, true), (1, true), (3, true), (4, false), (1 << 31, false)] {
        let mut handshake = Handshake::start(&mut Vec::new());
        let step = handshake.step(&flags.to_be_bytes(), &[], false, &mut Vec::new());
        let want = if good { Ok((4, Step::Continue)) } else { Err(Violation::ClientFlags(flags)) };
        assert_eq!(step, want);
    }
}

#[test]
fn export_name_has_a_reply_of_134_or_10_bytes() {
    for (flags, bytes) in [(1, 134), (3, 10)] {
        let mut peer = Peer::new(flags);
        let mut out = Vec::new();
        let message = message(option::EXPORT_NAME, b"a@vm");
        let (_, step) = peer.handshake.step(&message, &peer.volumes, false, &mut out).unwrap();
        let Step::Ready(export) = step else { panic!("{step:?}") };
        assert_eq!((export.volume.id.get(), export.client), (7, ClientId::of("vm")));
        assert!(!export.structured && !export.allocation);
        assert_eq!(out.len(), bytes);
        assert_eq!(out[..8], (1u64 << 30).to_be_bytes());
        let flags = u16::from_be_bytes([out[8], out[9]]);
        assert_eq!(flags & (export_flag::HAS_FLAGS | export_flag::SEND_DF), export_flag::HAS_FLAGS);
        assert!(out[10..].iter().all(|&b| b == 0));
    }
}

#[test]
fn export_name_of_nothing_ends_the_session() {
    for name in ["b", "", "a@", "\u{0}"] {
        let (_, step) = Peer::new(3).option(option::EXPORT_NAME, name.as_bytes());
        assert_eq!(step, Err(Violation::UnknownExport), "{name:?}");
    }
    let (_, step) = Peer::new(3).option(option::EXPORT_NAME, &[0xff]);
    assert_eq!(step, Err(Violation::UnknownExport));
}

#[test]
fn options_are_answered() {
    let mut peer = Peer::new(3);
    for (option, data, want) in [
        (option::STARTTLS, vec![], reply::ERR_UNSUP),
        (4, vec![], reply::ERR_UNSUP),
        (11, vec![1, 2], reply::ERR_UNSUP),
        (u32::MAX, vec![], reply::ERR_UNSUP),
        (option::LIST, vec![0], reply::ERR_INVALID),
        (option::STRUCTURED_REPLY, vec![0], reply::ERR_INVALID),
        (option::GO, vec![], reply::ERR_INVALID),
        (option::GO, string("a"), reply::ERR_INVALID),
        (option::GO, go("a", &[])[..5].to_vec(), reply::ERR_INVALID),
        (option::GO, [go("a", &[]), vec![0]].concat(), reply::ERR_INVALID),
        (option::GO, vec![0xff; 4], reply::ERR_INVALID),
        (option::GO, go(&"x".repeat(4097), &[]), reply::ERR_INVALID),
        (option::GO, go(&"x".repeat(4096), &[]), reply::ERR_UNKNOWN),
        (option::GO, go("b", &[]), reply::ERR_UNKNOWN),
        (option::INFO, go("", &[]), reply::ERR_UNKNOWN),
        (option::SET_META_CONTEXT, contexts("a", &["base:allocation"]), reply::ERR_INVALID),
        (option::LIST_META_CONTEXT, contexts("a", &[]), reply::ERR_INVALID),
    ] {
        let (replies, step) = peer.option(option, &data);
        assert_eq!(step, Ok(Step::Continue), "{option} {data:?}");
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].0, want, "{option} {data:?}");
        assert!(!replies[0].1.is_empty(), "errors say why");
    }
}

#[test]
fn list_names_the_volumes() {
    let (replies, step) = Peer::new(3).option(option::LIST, &[]);
    assert_eq!(step, Ok(Step::Continue));
    let want = [(reply::SERVER, string("a")), (reply::SERVER, string("ro")), (reply::ACK, vec![])];
    assert_eq!(replies, want);
}

#[test]
fn go_tells_of_the_export_and_begins_transmission() {
    let mut peer = Peer::new(3);
    assert_eq!(peer.kinds(option::STRUCTURED_REPLY, &[]), [reply::ACK]);
    for option in [option::INFO, option::GO] {
        let wanted = [info::NAME, info::DESCRIPTION, info::BLOCK_SIZE, 99, info::NAME];
        let (replies, step) = peer.option(option, &go("ro@vm", &wanted));
        let [export, block, name, ack] = &replies[..] else { panic!("{replies:?}") };
        assert_eq!(
            export.1[..10],
            [&info::EXPORT.to_be_bytes()[..], &4096u64.to_be_bytes()].concat()
        );
        let flags = u16::from_be_bytes([export.1[10], export.1[11]]);
        let want = export_flag::HAS_FLAGS
            | export_flag::READ_ONLY
            | export_flag::SEND_FLUSH
            | export_flag::SEND_FUA
            | export_flag::SEND_TRIM
            | export_flag::SEND_WRITE_ZEROES
            | export_flag::SEND_DF
            | export_flag::CAN_MULTI_CONN;
        assert_eq!(flags, want);
        let sizes = [4096u32, 4096, 32 << 20].map(u32::to_be_bytes).concat();
        assert_eq!(block.1, [&info::BLOCK_SIZE.to_be_bytes()[..], &sizes].concat());
        assert_eq!(name.1, [&info::NAME.to_be_bytes()[..], b"ro"].concat());
        assert_eq!(ack, &(reply::ACK, vec![]));
        match step.unwrap() {
            Step::Continue => assert_eq!(option, option::INFO),
            Step::Ready(export) => {
                assert_eq!(option, option::GO);
                assert!(export.structured && !export.allocation && export.volume.read_only);
                assert_eq!(export.client, ClientId::of("vm"));
            }
            step => panic!("{step:?}"),
        }
    }
}

#[test]
fn contexts_are_listed_and_selected() {
    let (list, set) = (option::LIST_META_CONTEXT, option::SET_META_CONTEXT);
    let found = vec![reply::META_CONTEXT, reply::ACK];
    let nothing = vec![reply::ACK];
    let twice = ["base:allocation", "base:allocation"];
    let mut peer = Peer::new(3);
    assert_eq!(peer.kinds(option::STRUCTURED_REPLY, &[]), [reply::ACK]);
    for (option, data, want, selected) in [
        (list, contexts("a", &[]), &found, false),
        (list, contexts("a", &["base:"]), &found, false),
        (list, contexts("a", &["qemu:"]), &nothing, false),
        (set, contexts("a", &["base:allocation"]), &found, true),
        (list, contexts("a", &["qemu:"]), &nothing, true),
        (set, contexts("a", &[]), &nothing, false),
        (set, contexts("a", &twice), &found, true),
        (set, contexts("a", &["base:"]), &nothing, false),
        (set, contexts("ro", &["x:y", "base:allocation"]), &found, false),
        (set, contexts("a", &["base:allocation"]), &found, true),
        (set, contexts("b", &["base:allocation"]), &vec![reply::ERR_UNKNOWN], false),
        (set, contexts("a", &["base:allocation"])[..9].to_vec(), &vec![reply::ERR_INVALID], false),
        (set, [contexts("a", &[]), vec![1]].concat(), &vec![reply::ERR_INVALID], false),
    ] {
        assert_eq!(&peer.kinds(option, &data), want, "{option} {data:?}");
        let (_, step) = peer.option(option::GO, &go("a", &[]));
        let Ok(Step::Ready(export)) = step else { panic!("{step:?}") };
        assert_eq!(export.allocation, selected, "{option} {data:?}");
    }
}

#[test]
fn oversized_options_are_passed_over() {
    let mut peer = Peer::new(3);
    let bytes = OPTION_BYTES + 1;
    let message = message(option::GO, &vec![0; bytes]);
    let mut out = Vec::new();
    let step = peer.handshake.step(&message[..100], &peer.volumes, false, &mut out);
    assert_eq!(step, Ok((16, Step::Continue)));
    assert_eq!(replies(option::GO, &out)[0].0, reply::ERR_TOO_BIG);
    out.clear();
    let step = peer.handshake.step(&message[16..100], &peer.volumes, false, &mut out);
    assert_eq!(step, Ok((84, Step::NeedMore)));
    let step = peer.handshake.step(&message[100..], &peer.volumes, false, &mut out);
    assert_eq!(step, Ok((bytes - 84, Step::Continue)));
    assert_eq!(peer.kinds(option::STRUCTURED_REPLY, &[]), [reply::ACK], "in step again");
}

#[test]
fn garbage_abort_and_stop() {
    let mut peer = Peer::new(3);
    let garbage = peer.handshake.step(&[0x55; 64], &[], false, &mut Vec::new());
    assert_eq!(garbage, Err(Violation::OptionMagic(0x5555_5555_5555_5555)));

    let (replies, step) = Peer::new(3).option(option::ABORT, &[]);
    assert_eq!((replies, step), (vec![(reply::ACK, vec![])], Ok(Step::Closed)));

    let mut peer = Peer::new(3);
    peer.stopping = true;
    assert_eq!(peer.kinds(option::LIST, &[]), [reply::ERR_SHUTDOWN]);
    assert_eq!(peer.kinds(option::GO, &go("a", &[])), [reply::ERR_SHUTDOWN]);
    assert_eq!(peer.option(option::ABORT, &[]).1, Ok(Step::Closed));
}
