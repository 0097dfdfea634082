//! A small target: it knows what the initiator asks for, and misbehaves as it is told.

use std::collections::{HashMap, VecDeque};

use zerocopy::{FromBytes, IntoBytes};

use crate::code::{admin, fabrics as fctypes, nvm};
use crate::discovery::{DiscoveryEntry, DiscoveryHeader};
use crate::fabrics::{ConnectCommand, ConnectData, ConnectResult, PropertyCommand, fctype};
use crate::identify::{
    IdentifyController, IdentifyNamespace, cns, controller_type, put_descriptors, put_namespaces,
    sgls, zeroed,
};
use crate::log::LogRequest;
use crate::property::{Capabilities, offset};
use crate::tcp::check::{Digests, Received, Receiver, Stage, header, shape};
use crate::tcp::digest::crc32c;
use crate::tcp::pdu::{self, CapsuleResp, CommonHeader, IcResp, R2t, kind};
use crate::{CompletionEntry, Nqn, SglDescriptor, Status, SubmissionEntry};

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Manners {
    pub digests: Digests,
    pub cpda: u8,
    pub maxh2cdata: u32,
    /// Most bytes of one R2T and of one C2HData.
    pub r2t_bytes: u32,
    pub c2h_bytes: u32,
    /// C2HData end commands.
    pub success: bool,
    /// Padding before data that it sends.
    pub padding: u8,
    /// Answers are given in another order.
    pub reverse: bool,
    /// The statuses of the next I/O commands.
    pub statuses: VecDeque<Status>,
    /// The status of Connect.
    pub connect: Status,
    /// A data digest in so many is wrong; 0 for none.
    pub spoil: u32,
    pub mqes: u16,
    pub queues: u16,
    pub in_capsule: u32,
    /// Looks at CSTS until the controller is ready.
    pub ready_after: u32,
    pub entries: Vec<DiscoveryEntry>,
    /// Changes Identify Controller.
    pub identify: fn(&mut IdentifyController),
    /// Keep Alive is not answered.
    pub deaf: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Manners {
            digests: Digests::default(),
            cpda: 0,
            maxh2cdata: 4096,
            r2t_bytes: 8192,
            c2h_bytes: 4096,
            success: true,
            padding: 0,
            reverse: false,
            statuses: VecDeque::new(),
            connect: Status::SUCCESS,
            spoil: 0,
            mqes: 127,
            queues: 8,
            in_capsule: 8192,
            ready_after: 1,
            entries: Vec::new(),
            identify: |_| {},
            deaf: false,
        }
    }
}

/// A write that waits for its data.
struct Write {
    entry: SubmissionEntry,
    data: Vec<u8>,
    len: usize,
    asked: usize,
}

/// One connection of the target, as a state machine.
pub struct Fake {
    pub manners: Manners,
    stage: Stage,
    input: Vec<u8>,
    answers: VecDeque<Vec<u8>>,
    writes: HashMap<u16, Write>,
    ready: Option<u32>,
    spoilt: u32,
    discovery: bool,
    /// Commands seen: opcode, and FCTYPE or CNS or FID.
    pub seen: Vec<(u8, u8)>,
    /// What the host said before it left.
    pub terminated: Option<(u16, u32)>,
}

impl Fake {
    pub fn new(manners: Manners) -> Fake {
        Fake {
            manners,
            stage: Stage::Initial,
            input: Vec::new(),
            answers: VecDeque::new(),
            writes: HashMap::new(),
            ready: None,
            spoilt: 0,
            discovery: false,
            seen: Vec::new(),
            terminated: None,
        }
    }

    /// What it says to all that it has heard.
    pub fn answer(&mut self) -> Vec<u8> {
        let mut answers: Vec<_> = self.answers.drain(..).collect();
        if self.manners.reverse {
            answers.reverse();
        }
        answers.concat()
    }

    /// Hears some bytes.
    pub fn hear(&mut self, bytes: &[u8], disk: &mut [u8]) {
        self.input.extend_from_slice(bytes);
        while self.terminated.is_none() && self.pdu(disk) {}
    }

    fn pdu(&mut self, disk: &mut [u8]) -> bool {
        let Ok((common, _)) = CommonHeader::ref_from_prefix(&self.input) else { return false };
        let digests = self.manners.digests;
        let running = if self.stage == Stage::Initial { Digests::default() } else { digests };
        let shape = shape(common, Receiver::Controller, self.stage, running)
            .unwrap_or_else(|fatal| panic!("the host is wrong: {fatal} {common:?}"));
        let plen = common.plen.get() as usize;
        if self.input.len() < plen {
            return false;
        }
        let pdu: Vec<u8> = self.input.drain(..plen).collect();
        let received = header(&pdu, &shape).unwrap();
        let data = &pdu[shape.data_start..][..shape.data_bytes as usize];
        if shape.data_digest {
            assert_eq!(crc32c(data).to_le_bytes(), pdu[plen - 4..], "data digest");
        }
        if !data.is_empty() && !matches!(received, Received::TermReq(_)) {
            let alignment = 4 * (usize::from(self.manners.cpda) + 1);
            assert!(shape.data_start.is_multiple_of(alignment), "CPDA");
        }
        match received {
            Received::IcReq(_) => {
                let mut resp = IcResp::new(digests.bits(), self.manners.maxh2cdata);
                resp.cpda = self.manners.cpda;
                self.stage = Stage::Running;
                self.answers.push_back(resp.as_bytes().to_vec());
            }
            Received::Command(entry) => self.command(entry, data, disk),
            Received::Data(head) => {
                assert!(data.len() <= self.manners.maxh2cdata as usize);
                let cid = head.cccid.get();
                let write = self.writes.get_mut(&cid).expect("it was asked for");
                assert_eq!(head.ttag.get(), cid ^ 0x5555);
                assert_eq!(head.datao.get() as usize, write.data.len());
                write.data.extend_from_slice(data);
                let last = head.common.flags & pdu::flags::LAST != 0;
                assert_eq!(last, write.data.len() == write.asked);
                self.go_on(cid, disk);
            }
            Received::TermReq(req) => self.terminated = Some((req.fes.get(), req.fei.get())),
            other => panic!("no PDU of a host: {other:?}"),
        }
        true
    }

    fn command(&mut self, entry: SubmissionEntry, data: &[u8], disk: &mut [u8]) {
        let [what, ..] = match entry.opcode {
            admin::FABRICS => [fctype(&entry), 0, 0, 0],
            _ => entry.cdw10[0].get().to_le_bytes(),
        };
        self.seen.push((entry.opcode, what));
        assert!(entry.uses_sgl());
        let len = entry.sgl().length.get() as usize;
        let is_admin = matches!(entry.opcode, 0x06 | 0x18 | 0x0c | 0x7f) || entry.nsid.get() == 0;
        if is_admin {
            return self.admin(entry, data);
        }
        if let Some(status) = self.manners.statuses.pop_front().filter(|s| !s.is_success()) {
            return self.complete(&entry, status, 0);
        }
        match entry.opcode {
            nvm::READ => {
                let at = usize::try_from(entry.start_lba()).unwrap() * BLOCK;
                assert_eq!(entry.block_count() as usize * BLOCK, len);
                let bytes = disk[at..at + len].to_vec();
                self.send(&entry, &bytes);
            }
            nvm::WRITE if data.len() == len => {
                assert_eq!(
                    entry.sgl().as_bytes(),
                    SglDescriptor::in_capsule(entry.sgl().length.get()).as_bytes()
                );
                store(&entry, data, disk);
                self.complete(&entry, Status::SUCCESS, 0);
            }
            nvm::WRITE => {
                assert!(len > self.manners.in_capsule as usize && data.is_empty());
                let write = Write { entry, data: Vec::new(), len, asked: 0 };
                self.writes.insert(entry.cid.get(), write);
                self.go_on(entry.cid.get(), disk);
            }
            nvm::FLUSH => self.complete(&entry, Status::SUCCESS, 0),
            opcode => panic!("opcode {opcode:#x}"),
        }
    }

    /// Asks for the next part of a write, or ends it.
    fn go_on(&mut self, cid: u16, disk: &mut [u8]) {
        let write = self.writes.get_mut(&cid).unwrap();
        if write.data.len() < write.asked {
            return;
        }
        if write.asked < write.len {
            let step = (write.len - write.asked).min(self.manners.r2t_bytes as usize);
            let (at, step) = (u32::try_from(write.asked).unwrap(), u32::try_from(step).unwrap());
            write.asked += step as usize;
            let r2t = R2t::new(cid, cid ^ 0x5555, at, step, self.manners.digests.header);
            return self.answers.push_back(self.with_digest(r2t.as_bytes()));
        }
        let write = self.writes.remove(&cid).unwrap();
        store(&write.entry, &write.data, disk);
        self.complete(&write.entry, Status::SUCCESS, 0);
    }

    fn with_digest(&self, head: &[u8]) -> Vec<u8> {
        let mut bytes = head.to_vec();
        if self.manners.digests.header {
            bytes.extend(crc32c(head).to_le_bytes());
        }
        bytes
    }

    /// Data of a read and its end, as one answer.
    fn send(&mut self, entry: &SubmissionEntry, bytes: &[u8]) {
        let Digests { header, data } = self.manners.digests;
        let (mut answer, mut at) = (Vec::new(), 0);
        for part in bytes.chunks(self.manners.c2h_bytes as usize) {
            let last = at + part.len() == bytes.len();
            let (offset, len) = (u32::try_from(at).unwrap(), u32::try_from(part.len()).unwrap());
            let head = pdu::Data::new(kind::C2H_DATA, entry.cid.get(), 0, offset, len, last);
            let mut head = head.with_digests(header, data);
            head.common.pdo += self.manners.padding;
            let more = u32::from(self.manners.padding);
            head.common.plen = (head.common.plen.get() + more).into();
            if last && self.manners.success {
                head.common.flags |= pdu::flags::SUCCESS;
            }
            answer.extend(self.with_digest(head.as_bytes()));
            answer.extend(vec![0xee; self.manners.padding.into()]);
            answer.extend(part);
            if data {
                self.spoilt += 1;
                let spoil =
                    self.manners.spoil > 0 && self.spoilt.is_multiple_of(self.manners.spoil);
                answer.extend((crc32c(part) ^ u32::from(spoil)).to_le_bytes());
            }
            at += part.len();
        }
        if !self.manners.success || bytes.is_empty() {
            answer.extend(self.response(entry, Status::SUCCESS, 0));
        }
        self.answers.push_back(answer);
    }

    fn response(&self, entry: &SubmissionEntry, status: Status, result: u64) -> Vec<u8> {
        let mut completion = CompletionEntry::new(entry.cid.get(), 0, status);
        completion.result = result.into();
        let resp = CapsuleResp::new(completion, self.manners.digests.header);
        self.with_digest(resp.as_bytes())
    }

    fn complete(&mut self, entry: &SubmissionEntry, status: Status, result: u64) {
        let answer = self.response(entry, status, result);
        self.answers.push_back(answer);
    }

    fn admin(&mut self, entry: SubmissionEntry, data: &[u8]) {
        let [what, ..] = entry.cdw10[0].get().to_le_bytes();
        match entry.opcode {
            admin::FABRICS => self.fabrics(&entry, data),
            admin::IDENTIFY => {
                let page = self.identify(what, entry.nsid.get());
                self.send(&entry, &page);
            }
            admin::SET_FEATURES if what == 7 => {
                let less_one = u64::from(self.manners.queues - 1);
                self.complete(&entry, Status::SUCCESS, less_one | less_one << 16);
            }
            admin::GET_LOG_PAGE => {
                let request = LogRequest::from_entry(&entry);
                let count = self.manners.entries.len() as u64;
                let mut log = DiscoveryHeader::new(7, count).as_bytes().to_vec();
                log.extend(self.manners.entries.iter().flat_map(|e| e.as_bytes().to_vec()));
                let place = |n| usize::try_from(n).unwrap();
                let (at, len) = (place(request.offset), place(request.bytes));
                self.send(&entry, &log[at..at + len]);
            }
            admin::ASYNC_EVENT_REQUEST => {}
            admin::KEEP_ALIVE if self.manners.deaf => {}
            _ => self.complete(&entry, Status::SUCCESS, 0),
        }
    }

    fn fabrics(&mut self, entry: &SubmissionEntry, data: &[u8]) {
        match fctype(entry) {
            fctypes::CONNECT => {
                let connect = ConnectCommand::from_entry(entry);
                let sent = ConnectData::ref_from_bytes(data).expect("1024 bytes");
                self.discovery = Nqn::from_field(&sent.subnqn).unwrap().is_discovery();
                assert!(connect.no_flow_control());
                let wanted = if connect.qid.get() == 0 { 0xffff } else { 77 };
                assert_eq!(sent.cntlid.get(), wanted);
                let status = self.manners.connect;
                self.complete(entry, status, ConnectResult::connected(77));
            }
            fctypes::PROPERTY_SET => {
                let set = PropertyCommand::from_entry(entry);
                if set.offset.get() == offset::CC {
                    self.ready = (set.value.get() & 1 == 1).then_some(0);
                }
                self.complete(entry, Status::SUCCESS, 0);
            }
            _ => {
                let get = PropertyCommand::from_entry(entry);
                let value = match get.offset.get() {
                    offset::CAP => Capabilities::fabrics(self.manners.mqes + 1, 1).bits(),
                    offset::CSTS => {
                        self.ready = self.ready.map(|looks| looks + 1);
                        self.ready.is_some_and(|n| n > self.manners.ready_after).into()
                    }
                    _ => 0x2_0000,
                };
                self.complete(entry, Status::SUCCESS, value);
            }
        }
    }

    fn identify(&self, what: u8, nsid: u32) -> Vec<u8> {
        let mut page = [0; 4096];
        match what {
            cns::CONTROLLER => {
                let mut id: IdentifyController = zeroed();
                id.cntlid = 77.into();
                id.cntrltype =
                    if self.discovery { controller_type::DISCOVERY } else { controller_type::IO };
                id.kas = 1.into();
                id.sgls = (sgls::SUPPORTED | sgls::OFFSET | sgls::TRANSPORT).into();
                id.sqes = 0x66;
                id.cqes = 0x44;
                id.ioccsz = (4 + self.manners.in_capsule / 16).into();
                id.iorcsz = 1.into();
                id.mdts = 5;
                id.crdt[0] = 1.into();
                (self.manners.identify)(&mut id);
                return id.as_bytes().to_vec();
            }
            cns::ACTIVE_NAMESPACES => {
                put_namespaces(&mut page, [1, 3].into_iter().filter(|id| *id > nsid));
            }
            cns::NAMESPACE => {
                let mut id: IdentifyNamespace = zeroed();
                id.nsze = (1 << 20).into();
                id.lbaf[0] = (9 << 16).into();
                return id.as_bytes().to_vec();
            }
            cns::DESCRIPTORS => put_descriptors(&mut page, &[1; 16], &[2; 16]),
            _ => panic!("CNS {what:#x}"),
        }
        page.to_vec()
    }
}

fn store(entry: &SubmissionEntry, data: &[u8], disk: &mut [u8]) {
    let at = usize::try_from(entry.start_lba()).unwrap() * BLOCK;
    disk[at..at + data.len()].copy_from_slice(data);
}
