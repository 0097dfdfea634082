//! Queues on a whole core that is turned by hand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use nvme::code::nvm;
use nvme::log::AnaState;
use nvme::tcp::pdu::{CapsuleCmd, CommonHeader, Data, kind};
use nvme::tcp::{Digests, Fatal, Received};
use nvme::{SglDescriptor, Status, SubmissionEntry};
use zerocopy::{FromBytes, IntoBytes};

use crate::admin::config::Config;
use crate::admin::protocol::{AdminRequest, AdminResponse, PrefetchKind};
use crate::device::Store;
use crate::format::superblock::Role;
use crate::server::by_hand::ByHand;
use crate::server::command::Command;
use crate::server::open::OpenDevice;
use crate::target::nvmf::fuzz::{Sent, heard};
use crate::target::nvmf::{
    AssociationId, EndReason, Namespace, Namespaces, NewQueue, QueueCounters, QueueEnd,
};
use crate::target::socket::Socket;
use crate::units::{ClientId, SEGMENT_BYTES, VolumeId};

const NONE: Digests = Digests { header: false, data: false };

/// A core with a volume, and the host's ends of a queue.
struct Rig {
    core: ByHand,
    namespace: Namespace,
    wire: UnixStream,
    ends: Receiver<QueueEnd>,
    _dir: tempfile::TempDir,
}

fn rig(block_bytes: u32) -> Rig {
    let dir = tempfile::tempdir().expect("a directory");
    let device = |role| OpenDevice {
        store: Arc::new(Store::memory(512 << 20).expect("memory")),
        path: "memory".into(),
        role,
    };
    let mut config = Config::with_devices(Vec::new());
    config.prefetch = PrefetchKind::None;
    let devices = vec![device(Role::Fast), device(Role::Cold)];
    let mut core = ByHand::start(dir.path(), config, devices).expect("a pool");
    let create = AdminRequest::VolumeCreate {
        name: "v".to_owned(),
        size_bytes: SEGMENT_BYTES,
        fragment_size: None,
        block_bytes: Some(block_bytes),
        read_only: false,
    };
    let Ok(AdminResponse::Volume(volume)) = core.ask(create) else { panic!("a volume") };
    let namespace = Namespace {
        nsid: 1,
        volume: VolumeId::new(volume.id),
        block_bytes,
        size_bytes: SEGMENT_BYTES,
        read_only: false,
        ana_state: AnaState::Optimized,
        ana_group: 1,
    };
    let (wire, ends) = connect(&core, namespace);
    Rig { core, namespace, wire, ends, _dir: dir }
}

/// Gives the core a queue; the host's end of it.
fn connect(core: &ByHand, namespace: Namespace) -> (UnixStream, Receiver<QueueEnd>) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("nonblocking");
    theirs.set_nonblocking(true).expect("nonblocking");
    let (sender, ends) = channel();
    core.send(Command::NvmfQueue(Box::new(NewQueue {
        socket: Socket::Unix(theirs),
        received: Vec::new(),
        association: AssociationId(7),
        cntlid: 1,
        qid: 2,
        entries: 16,
        digests: NONE,
        flow_control_off: false,
        host_nqn: "nqn.2026-11.test:host".into(),
        client: ClientId::of("host"),
        namespaces: Arc::new(Namespaces::new(vec![namespace])),
        counters: Arc::new(QueueCounters::default()),
        on_end: Box::new(move |end| sender.send(end).expect("somebody listens")),
    })));
    (ours, ends)
}

impl Rig {
    fn command(&self, opcode: u8, cid: u16, lba: u32, length: u32) -> SubmissionEntry {
        let (cid, nsid) = (cid.into(), 1.into());
        let mut entry = SubmissionEntry { opcode, cid, nsid, ..SubmissionEntry::default() };
        entry.cdw10[0] = lba.into();
        entry.cdw10[2] = (length / self.namespace.block_bytes).saturating_sub(1).into();
        entry.set_sgl(match opcode {
            nvm::WRITE | nvm::COMPARE => SglDescriptor::in_capsule(length),
            _ => SglDescriptor::transport(length),
        });
        entry
    }

    /// Sends commands with their data, and turns the core until all are complete; their data
    /// and statuses, by place.
    fn run(&mut self, commands: &[(SubmissionEntry, &[u8])]) -> Vec<(Vec<u8>, Status)> {
        let mut bytes = Vec::new();
        for (entry, data) in commands {
            let length = u32::try_from(data.len()).unwrap();
            bytes.extend(CapsuleCmd::new(*entry, false, false, length).as_bytes());
            bytes.extend(*data);
        }
        self.wire.write_all(&bytes).expect("it fits the socket");
        let mut ends = vec![(Vec::new(), None); commands.len()];
        while ends.iter().any(|(_, status)| status.is_none()) {
            for Sent { header, data, .. } in self.hear() {
                let of = |cid| commands.iter().position(|(e, _)| e.cid == cid).unwrap();
                match header {
                    Received::Data(header) => ends[of(header.cccid)].0.extend(data),
                    Received::Completion(entry) => ends[of(entry.cid)].1 = Some(entry.status()),
                    _ => panic!("{header:?}"),
                }
            }
        }
        ends.into_iter().map(|(data, status)| (data, status.unwrap())).collect()
    }

    /// Turns the core until it has sent whole PDUs.
    fn hear(&mut self) -> Vec<Sent> {
        let mut bytes = Vec::new();
        loop {
            self.core.turn();
            let mut part = [0; 65536];
            match self.wire.read(&mut part) {
                Ok(n) => bytes.extend(&part[..n]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            if !bytes.is_empty() && whole(&bytes) {
                return heard(&bytes, NONE);
            }
        }
    }

    fn end(&mut self) -> QueueEnd {
        loop {
            self.core.turn();
            if let Ok(end) = self.ends.try_recv() {
                return end;
            }
        }
    }
}

fn whole(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok((common, _)) = CommonHeader::read_from_prefix(bytes) else { return false };
        let Some(rest) = bytes.get(common.plen.get() as usize..) else { return false };
        bytes = rest;
    }
    true
}

#[test]
fn blocks_are_compared_and_written_by_their_owner() {
    for block in [512, 4096_u32] {
        let size = block as usize;
        let mut rig = rig(block);
        let (zeros, old, new) = (vec![0; size], vec![3; size], vec![7; size]);
        let pair = |rig: &Rig, lba| {
            let mut compare = rig.command(nvm::COMPARE, 1, lba, block);
            let mut write = rig.command(nvm::WRITE, 2, lba, block);
            compare.flags |= 1;
            write.flags |= 2;
            (compare, write)
        };
        for lba in [0, 9] {
            // Of a block that was never written, of one that was, and of one that differs.
            let (compare, write) = pair(&rig, lba);
            let ends = rig.run(&[(compare, &zeros), (write, &old)]);
            assert!(ends.iter().all(|(_, status)| status.is_success()), "{ends:?}");
            let flush = rig.command(nvm::FLUSH, 3, 0, 0);
            assert!(rig.run(&[(flush, &[])])[0].1.is_success());
            let ends = rig.run(&[(compare, &old), (write, &new)]);
            assert!(ends.iter().all(|(_, status)| status.is_success()), "{ends:?}");
            let ends = rig.run(&[(compare, &old), (write, &zeros)]);
            let statuses: Vec<_> = ends.iter().map(|(_, status)| *status).collect();
            let failed = [Status::COMPARE_FAILURE.with_dnr(), Status::ABORTED_FAILED_FUSED];
            assert_eq!(statuses, failed);
            let read = rig.command(nvm::READ, 4, lba, block);
            assert!(rig.run(&[(read, &[])]) == [(new.clone(), Status::SUCCESS)]);
            // The blocks beside it are as they were.
            let read = rig.command(nvm::READ, 4, lba + 1, block);
            assert!(rig.run(&[(read, &[])]) == [(zeros.clone(), Status::SUCCESS)]);
        }
        // Of two that compare with the same, one wins.
        let (a, b) = pair(&rig, 9);
        let (mut c, mut d) = (a, b);
        (c.cid, d.cid) = (11.into(), 12.into());
        let ends = rig.run(&[(a, &new), (b, &old), (c, &new), (d, &zeros)]);
        let won = ends.iter().filter(|(_, status)| status.is_success()).count();
        assert_eq!(won, 2, "{ends:?}");
    }
}

#[test]
fn a_queue_tells_how_it_ended() {
    let mut rig = rig(512);
    let read = rig.command(nvm::READ, 1, 0, 4096);
    assert!(rig.run(&[(read, &[])])[0].1.is_success());
    // The host hangs up in the middle of a command.
    rig.wire.write_all(&[4, 0, 72]).unwrap();
    rig.wire.shutdown(std::net::Shutdown::Both).unwrap();
    let end = QueueEnd { association: AssociationId(7), qid: 2, reason: EndReason::Closed };
    assert_eq!(rig.end(), end);
    // It breaks the protocol, is told so, and hangs up.
    (rig.wire, rig.ends) = connect(&rig.core, rig.namespace);
    rig.wire.write_all(&[9; 8]).unwrap();
    let sent = rig.hear();
    let [Sent { header: Received::TermReq(req), data, .. }] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((req.common.kind, req.fes.get(), req.fei.get()), (kind::C2H_TERM_REQ, 1, 0));
    assert_eq!(data[..], [9; 8]);
    rig.wire.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(rig.end().reason, EndReason::Violation(Fatal::field(0)));
    // Its association is dropped.
    (rig.wire, rig.ends) = connect(&rig.core, rig.namespace);
    assert!(rig.run(&[(read, &[])])[0].1.is_success());
    rig.core.send(Command::NvmfDrop(AssociationId(8)));
    assert!(rig.run(&[(read, &[])])[0].1.is_success());
    rig.core.send(Command::NvmfDrop(AssociationId(7)));
    assert_eq!(rig.end().reason, EndReason::Dropped);
}

#[test]
fn a_host_that_vanishes_in_the_middle_leaves_nothing() {
    let mut rig = rig(512);
    let fill = rig.command(nvm::WRITE, 1, 0, 8192);
    assert!(rig.run(&[(fill, &[1; 8192])])[0].1.is_success());
    rig.wire.shutdown(std::net::Shutdown::Both).unwrap();
    rig.end();
    let before = rig.core.free_pages();
    let write = |rig: &Rig, cid, length| {
        let mut entry = rig.command(nvm::WRITE, cid, 0, length);
        entry.set_sgl(SglDescriptor::transport(length));
        entry
    };
    let capsule = |entry: &SubmissionEntry, length| {
        CapsuleCmd::new(*entry, false, false, length).as_bytes().to_vec()
    };
    for moment in 0..4 {
        (rig.wire, rig.ends) = connect(&rig.core, rig.namespace);
        match moment {
            // Data that an R2T has asked for have come in part.
            0 => {
                let entry = write(&rig, 5, 1 << 20);
                rig.wire.write_all(&capsule(&entry, 0)).unwrap();
                let sent = rig.hear();
                let [Sent { header: Received::R2t(r2t), .. }] = &sent[..] else {
                    panic!("{sent:?}")
                };
                let (ttag, length) = (r2t.ttag.get(), r2t.r2tl.get());
                assert!(rig.core.free_pages() < before, "buffers wait for the data");
                let data = Data::new(kind::H2C_DATA, 5, ttag, 0, length.min(1 << 17), false);
                rig.wire.write_all(data.as_bytes()).unwrap();
                rig.wire.write_all(&[7; 5000]).unwrap();
            }
            // In-capsule data have come in part.
            1 => {
                let entry = rig.command(nvm::WRITE, 5, 0, 8192);
                rig.wire.write_all(&capsule(&entry, 8192)).unwrap();
                rig.wire.write_all(&[7; 4000]).unwrap();
            }
            // Nobody reads what was read.
            2 => {
                for cid in 0..12 {
                    let entry = rig.command(nvm::READ, cid, 0, 1 << 20);
                    rig.wire.write_all(&capsule(&entry, 0)).unwrap();
                }
            }
            // The first of a fused pair has come, and its data.
            _ => {
                let mut entry = rig.command(nvm::COMPARE, 5, 0, 512);
                entry.flags |= 1;
                rig.wire.write_all(&capsule(&entry, 512)).unwrap();
                rig.wire.write_all(&[1; 512]).unwrap();
            }
        }
        (0..100).for_each(|_| rig.core.turn());
        assert!(rig.core.free_pages() < before, "{moment}: something is under way");
        rig.wire.shutdown(std::net::Shutdown::Both).unwrap();
        let reason = rig.end().reason;
        assert!(matches!(reason, EndReason::Closed | EndReason::Lost(_)), "{moment}: {reason}");
        assert_eq!(rig.core.free_pages(), before, "{moment}: every buffer is back");
    }
}

#[test]
fn namespaces_change_under_a_queue() {
    let mut rig = rig(512);
    let write = rig.command(nvm::WRITE, 1, 0, 4096);
    assert!(rig.run(&[(write, &[1; 4096])])[0].1.is_success());
    let change = |rig: &mut Rig, list| {
        let namespaces = Arc::new(Namespaces::new(list));
        rig.core.send(Command::NvmfNamespaces(AssociationId(7), namespaces));
        rig.run(&[(write, &[2; 4096])])[0].1
    };
    let read_only = Namespace { read_only: true, ..rig.namespace };
    let status = change(&mut rig, vec![read_only]);
    assert_eq!(status, Status::WRITE_PROTECTED.with_dnr());
    assert_eq!(change(&mut rig, Vec::new()), Status::INVALID_NAMESPACE.with_dnr());
    let namespace = rig.namespace;
    assert!(change(&mut rig, vec![namespace]).is_success());
}
