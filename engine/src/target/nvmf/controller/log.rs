//! Get Log Page (Base 5.16). A page is made when it is read, so every read sees one state.

use nvme::SubmissionEntry;
use nvme::code::{Status, admin, nvm};
use nvme::feature::Event;
use nvme::identify::{ALL_NAMESPACES, CSI_NVM, zeroed};
use nvme::log::{
    ANA_GROUPS_ONLY, AnaGroupDescriptor, AnaHeader, ErrorEntry, FirmwareLog, LogRequest, SmartLog,
    effect, lid,
};
use zerocopy::IntoBytes;

use super::identify::firmware;
use super::{Answer, Controller, INVALID_FIELD, Kind, Outcome, Served, World, feature};
use crate::target::nvmf::exports::SubsystemView;

/// Log pages of an I/O controller.
const IO_LOGS: [u8; 8] = [
    lid::SUPPORTED,
    lid::ERROR,
    lid::SMART,
    lid::FIRMWARE,
    lid::CHANGED_NAMESPACES,
    lid::EFFECTS,
    lid::ANA,
    lid::FEATURES,
];
/// Log pages of a discovery controller.
const DISCOVERY_LOGS: [u8; 3] = [lid::SUPPORTED, lid::ERROR, lid::DISCOVERY];

impl Controller {
    pub(super) fn log(&mut self, entry: &SubmissionEntry, world: &World<'_>) -> Answer {
        let request = LogRequest::from_entry(entry);
        let known = self.logs().contains(&request.lid);
        if !known {
            return Err(Status::INVALID_LOG_PAGE.with_dnr());
        }
        if request.by_index || !request.offset.is_multiple_of(4) {
            return Err(INVALID_FIELD);
        }
        if request.bytes > 4096 << self.limits.mdts {
            return Err(INVALID_FIELD);
        }
        let page = self.page(&request, entry, world)?;
        // Beyond the page there is nothing to read; a read across its end gets zeros there.
        let offset = usize::try_from(request.offset).map_err(|_| INVALID_FIELD)?;
        if offset > page.len() {
            return Err(INVALID_FIELD);
        }
        let mut data = vec![0; usize::try_from(request.bytes).expect("at most MDTS")];
        let found = &page[offset..];
        let n = found.len().min(data.len());
        data[..n].copy_from_slice(&found[..n]);
        if !request.retain {
            self.was_read(request.lid);
        }
        Ok(Outcome::data(data))
    }

    fn logs(&self) -> &'static [u8] {
        match self.identity.kind {
            Kind::Io => &IO_LOGS,
            Kind::Discovery => &DISCOVERY_LOGS,
        }
    }

    fn page(
        &self,
        request: &LogRequest,
        entry: &SubmissionEntry,
        world: &World<'_>,
    ) -> Result<Vec<u8>, Status> {
        Ok(match request.lid {
            lid::SUPPORTED => {
                let mut page = vec![0; 1024];
                self.logs().iter().for_each(|lid| page[usize::from(*lid) * 4] = 1);
                page
            }
            // No command is recorded: one entry, empty, as ELPE says.
            lid::ERROR => ErrorEntry::default().as_bytes().to_vec(),
            lid::SMART => {
                // LPA says that there is none for a namespace alone.
                if !matches!(entry.nsid.get(), 0 | ALL_NAMESPACES) {
                    return Err(INVALID_FIELD);
                }
                smart(&world.served).as_bytes().to_vec()
            }
            lid::FIRMWARE => {
                let mut page: FirmwareLog = zeroed();
                page.active = 1;
                page.revisions[0] = firmware();
                page.as_bytes().to_vec()
            }
            lid::CHANGED_NAMESPACES => self.changed_namespaces(),
            lid::EFFECTS => {
                if entry.cdw10[4].get().to_le_bytes()[3] != CSI_NVM {
                    return Err(INVALID_FIELD);
                }
                effects()
            }
            lid::ANA => ana(world.subsystem, request.lsp & ANA_GROUPS_ONLY != 0),
            lid::FEATURES => feature::effects(),
            lid::DISCOVERY => world.discovery.to_vec(),
            _ => unreachable!("only known pages are made"),
        })
    }

    fn changed_namespaces(&self) -> Vec<u8> {
        let mut page = vec![0; 4096];
        match self.events.changed_list() {
            None => page[..4].copy_from_slice(&ALL_NAMESPACES.to_le_bytes()),
            Some(changed) => {
                for (slot, nsid) in page.chunks_exact_mut(4).zip(changed) {
                    slot.copy_from_slice(&nsid.to_le_bytes());
                }
            }
        }
        page
    }

    fn was_read(&mut self, lid: u8) {
        if lid == lid::CHANGED_NAMESPACES {
            self.events.forget_changed();
        }
        if let Some(event) = Event::ALL.into_iter().find(|event| event.log() == lid) {
            self.events.read(event);
        }
    }
}

fn smart(served: &Served) -> SmartLog {
    /// Units of a thousand 512-byte blocks, rounded up (Base 5.16.1.3).
    fn units(bytes: u64) -> [u8; 16] {
        u128::from(bytes.div_ceil(512_000)).to_le_bytes()
    }
    let mut page: SmartLog = zeroed();
    page.spare = 100;
    page.units_read = units(served.read_bytes);
    page.units_written = units(served.write_bytes);
    page.reads = u128::from(served.reads).to_le_bytes();
    page.writes = u128::from(served.writes).to_le_bytes();
    page.power_on_hours = u128::from(served.hours).to_le_bytes();
    page
}

fn effects() -> Vec<u8> {
    let mut page = vec![0; 4096];
    let mut put = |at: usize, effects: u32| {
        page[at * 4..][..4].copy_from_slice(&effects.to_le_bytes());
    };
    for opcode in [
        admin::GET_LOG_PAGE,
        admin::IDENTIFY,
        admin::ABORT,
        admin::SET_FEATURES,
        admin::GET_FEATURES,
        admin::ASYNC_EVENT_REQUEST,
        admin::KEEP_ALIVE,
    ] {
        put(opcode.into(), effect::SUPPORTED);
    }
    for opcode in [nvm::FLUSH, nvm::READ, nvm::COMPARE] {
        put(256 + usize::from(opcode), effect::SUPPORTED);
    }
    for opcode in [nvm::WRITE, nvm::WRITE_ZEROES, nvm::DATASET_MANAGEMENT] {
        put(256 + usize::from(opcode), effect::SUPPORTED | effect::LBA_CHANGE);
    }
    page
}

/// The ANA log: groups that have namespaces, each with these (Base 5.16.1.13).
fn ana(subsystem: &SubsystemView, groups_only: bool) -> Vec<u8> {
    let mut groups: Vec<u32> = subsystem.namespaces.iter().map(|n| n.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let count = u16::try_from(groups.len()).expect("at most MAX_ANA_GROUP");
    let header = AnaHeader::new(subsystem.ana_changes, count);
    let mut page = header.as_bytes().to_vec();
    for number in groups {
        let members = subsystem.namespaces.iter().filter(|n| n.group == number);
        let members: Vec<u32> =
            if groups_only { vec![] } else { members.map(|n| n.nsid).collect() };
        let count = u32::try_from(members.len()).expect("at most MAX_NSID");
        let group = subsystem.group(number);
        let descriptor = AnaGroupDescriptor::new(number, count, group.changes, group.state);
        page.extend_from_slice(descriptor.as_bytes());
        members.iter().for_each(|nsid| page.extend_from_slice(&nsid.to_le_bytes()));
    }
    page
}
