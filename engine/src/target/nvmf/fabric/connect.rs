//! What a Connect asks for, and why it is refused (Base 6.3).

use nvme::code::{Status, admin, fabrics};
use nvme::fabrics::{
    ConnectCommand, ConnectData, ConnectResult, DYNAMIC_CNTLID, connect_offset, fctype,
};
use nvme::{Nqn, SubmissionEntry};
use zerocopy::FromBytes;

use crate::target::nvmf::MAX_QUEUE_ENTRIES;
use crate::target::nvmf::controller::Reply;

/// A Connect that makes sense by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The command.
    pub cid: u16,
    /// The queue; 0 for admin.
    pub qid: u16,
    /// Entries of the submission queue: SQSIZE and one.
    pub entries: u16,
    /// The host does without submission queue flow control.
    pub flow_control_off: bool,
    /// Keep-alive timeout, of an admin queue.
    pub kato_ms: u32,
    /// The host's identifier.
    pub host_id: [u8; 16],
    /// The controller, of an I/O queue.
    pub cntlid: u16,
    /// The subsystem.
    pub subsystem: Nqn,
    /// The host's name.
    pub host: Nqn,
}

/// Why a Connect is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The command.
    pub cid: u16,
    /// For the host.
    pub status: Status,
    /// DW0 and DW1.
    pub result: u64,
    /// For the log.
    pub why: String,
    /// Whose it is, if that can be said.
    pub host: Option<Nqn>,
}

impl Refusal {
    /// With a status alone.
    pub fn new(cid: u16, status: Status, why: impl Into<String>) -> Self {
        Self { cid, status, result: 0, why: why.into(), host: None }
    }

    /// A parameter that makes no sense, by its place.
    pub fn parameter(cid: u16, offset: u16, in_data: bool, why: impl Into<String>) -> Self {
        let result = ConnectResult::invalid(offset, in_data);
        let status = Status::CONNECT_PARAMETERS.with_dnr();
        Self { cid, status, result, why: why.into(), host: None }
    }

    /// The answer.
    pub fn reply(&self) -> Reply {
        Reply { cid: self.cid, status: self.status, result: self.result, data: Vec::new() }
    }
}

impl Connect {
    /// From the first command of a connection.
    ///
    /// # Errors
    /// If it is no Connect, or one that cannot be granted whoever asks.
    pub fn parse(entry: &SubmissionEntry, data: &[u8]) -> Result<Connect, Refusal> {
        let command = ConnectCommand::from_entry(entry);
        let cid = entry.cid.get();
        if entry.opcode != admin::FABRICS || fctype(entry) != fabrics::CONNECT {
            let status = Status::COMMAND_SEQUENCE.with_dnr();
            return Err(Refusal::new(cid, status, "the first command is no Connect"));
        }
        if command.record_format.get() != 0 {
            let status = Status::CONNECT_FORMAT.with_dnr();
            return Err(Refusal::new(cid, status, "a Connect of an unknown format"));
        }
        let Ok(found) = ConnectData::read_from_bytes(data) else {
            let status = Status::SGL_LENGTH_INVALID.with_dnr();
            return Err(Refusal::new(cid, status, "a Connect without its data"));
        };
        let named = |field: &[u8; 256], offset, what| {
            Nqn::from_field(field)
                .map_err(|error| Refusal::parameter(cid, offset, true, format!("{what}: {error}")))
        };
        // SPDK's tools leave their name out unless they are given one.
        let host = if found.hostnqn[0] == 0 {
            Nqn::of_host_id(found.host_id)
        } else {
            named(&found.hostnqn, connect_offset::HOSTNQN, "host name")?
        };
        let refuse = |offset, why: String| Refusal {
            host: Some(host.clone()),
            ..Refusal::parameter(cid, offset, false, why)
        };
        let subsystem = named(&found.subnqn, connect_offset::SUBNQN, "subsystem name")
            .map_err(|refusal| Refusal { host: Some(host.clone()), ..refusal })?;
        let (qid, sqsize) = (command.qid.get(), command.sqsize.get());
        // An admin queue of any size takes nothing here; I/O queues do on their core.
        let most = if qid == 0 { 4095 } else { MAX_QUEUE_ENTRIES - 1 };
        if !(1..=most).contains(&sqsize) {
            return Err(refuse(connect_offset::SQSIZE, format!("a queue of size {sqsize}")));
        }
        let cntlid = found.cntlid.get();
        if qid == 0 && cntlid != DYNAMIC_CNTLID {
            return Err(Refusal {
                host: Some(host),
                ..Refusal::parameter(cid, connect_offset::CNTLID, true, "controllers are dynamic")
            });
        }
        Ok(Connect {
            cid,
            qid,
            entries: sqsize + 1,
            flow_control_off: command.no_flow_control(),
            kato_ms: command.kato.get(),
            host_id: found.host_id,
            cntlid,
            subsystem,
            host,
        })
    }

    /// It is refused for who asks.
    pub fn refuse(&self, status: Status, why: impl Into<String>) -> Refusal {
        Refusal { host: Some(self.host.clone()), ..Refusal::new(self.cid, status, why) }
    }

    /// A parameter of it does not fit what there is.
    pub fn refuse_parameter(&self, offset: u16, in_data: bool, why: impl Into<String>) -> Refusal {
        let refusal = Refusal::parameter(self.cid, offset, in_data, why);
        Refusal { host: Some(self.host.clone()), ..refusal }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    fn nqn(name: &str) -> Nqn {
        Nqn::new(&format!("nqn.2026-11.example:{name}")).unwrap()
    }

    #[test]
    fn a_connect_is_read() {
        let mut command = ConnectCommand::new(7, 3, 127, 5000);
        command.cattr = nvme::fabrics::CATTR_NO_FLOW_CONTROL;
        let data = ConnectData::new([4; 16], 9, &nqn("v1"), &nqn("host"));
        let found = Connect::parse(&command.into_entry(), data.as_bytes()).unwrap();
        assert_eq!((found.qid, found.entries, found.cntlid), (3, 128, 9));
        assert_eq!((found.subsystem, found.host, found.host_id), (nqn("v1"), nqn("host"), [4; 16]));
        assert!(found.flow_control_off);
    }

    #[test]
    fn a_host_without_a_name_is_called_by_its_identifier() {
        let command = ConnectCommand::new(7, 0, 31, 0);
        let mut data = ConnectData::new([0x4a; 16], DYNAMIC_CNTLID, &nqn("v1"), &nqn("host"));
        data.hostnqn = [0; 256];
        let found = Connect::parse(&command.into_entry(), data.as_bytes()).unwrap();
        assert_eq!(found.host, Nqn::of_host_id([0x4a; 16]));
    }

    #[test]
    fn each_wrong_parameter_is_named_by_its_place() {
        let parameters = |result| (Status::CONNECT_PARAMETERS.with_dnr(), result);
        type Spoil = fn(&mut ConnectCommand, &mut ConnectData);
        let cases: [(Spoil, (Status, u64)); 9] = [
            (|c, _| c.fctype = 0, (Status::COMMAND_SEQUENCE.with_dnr(), 0)),
            (|c, _| c.opcode = 6, (Status::COMMAND_SEQUENCE.with_dnr(), 0)),
            (|c, _| c.record_format = 1.into(), (Status::CONNECT_FORMAT.with_dnr(), 0)),
            (|c, _| c.sqsize = 0.into(), parameters(44)),
            (|c, _| c.sqsize = 4096.into(), parameters(44)),
            (|c, _| (c.qid, c.sqsize) = (1.into(), MAX_QUEUE_ENTRIES.into()), parameters(44)),
            (|_, d| d.cntlid = 1.into(), parameters(0x1_0010)),
            (|_, d| d.subnqn = [b'n'; 256], parameters(0x1_0100)),
            (|_, d| d.hostnqn[4] = 0, parameters(0x1_0200)),
        ];
        for (at, (spoil, wanted)) in cases.into_iter().enumerate() {
            let mut command = ConnectCommand::new(7, 0, 31, 0);
            let mut data = ConnectData::new([4; 16], DYNAMIC_CNTLID, &nqn("v1"), &nqn("host"));
            assert!(Connect::parse(&command.into_entry(), data.as_bytes()).is_ok());
            spoil(&mut command, &mut data);
            let refusal = Connect::parse(&command.into_entry(), data.as_bytes()).unwrap_err();
            assert_eq!((refusal.status, refusal.result), wanted, "case {at}: {}", refusal.why);
        }
        let command = ConnectCommand::new(7, 0, 31, 0);
        let refusal = Connect::parse(&command.into_entry(), &[0; 1023]).unwrap_err();
        assert_eq!(refusal.status, Status::SGL_LENGTH_INVALID.with_dnr());
    }
}
