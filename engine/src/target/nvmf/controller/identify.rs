//! Identify (Base 5.17).

use nvme::code::Status;
use nvme::identify::{
    ALL_NAMESPACES, CSI_NVM, IDENTIFY_BYTES, IdentifyController, IdentifyNamespace,
    IndependentNamespace, NvmController, ascii, cmic, cns, controller_type, ctratt, lpa, oncs,
    put_controllers, put_descriptors, put_namespaces, sgls, zeroed,
};
use nvme::property::VERSION_2_0;
use nvme::{Nqn, SubmissionEntry};
use zerocopy::IntoBytes;

use super::{
    Answer, Controller, EVENT_REQUESTS, INVALID_FIELD, KEEP_ALIVE_UNIT_MS, Outcome, World,
};
use crate::target::nvmf::exports::{MAX_ANA_GROUP, MAX_NSID, NamespaceInfo};
use crate::target::nvmf::{DSM_BLOCKS, DSM_RANGE_BLOCKS};
use crate::units::BLOCK_BYTES;

/// Model number that hosts see.
pub const MODEL: &str = "Tessera";
/// Seconds that a change between ANA states takes at most.
const ANA_TRANSITION_SECONDS: u8 = 10;
/// ANACAP: all states may be seen, and a namespace's group stays while it is attached.
const ANA_CAPABILITIES: u8 = 0x1f | 1 << 6;
/// NSFEAT: atomic units of the namespace, identifiers that are never reused, preferred sizes.
const NAMESPACE_FEATURES: u8 = 1 << 1 | 1 << 3 | 1 << 4;
/// DLFEAT: deallocated blocks read as zeros, Write Zeroes may deallocate.
const DEALLOCATE_FEATURES: u8 = 1 | 1 << 3;
/// VWC: a volatile cache; Flush may be to all namespaces.
const VOLATILE_CACHE: u8 = 1 | 0b11 << 1;
/// FRMW: one slot, not to be written.
const FIRMWARE_SLOTS: u8 = 1 | 1 << 1;
/// FUSES: Compare and Write.
const FUSED_COMPARE_WRITE: u16 = 1;

/// Firmware revision that hosts see.
pub fn firmware() -> [u8; 8] {
    ascii(env!("CARGO_PKG_VERSION"))
}

impl Controller {
    pub(super) fn identify(&self, entry: &SubmissionEntry, world: &World<'_>) -> Answer {
        let mut data = [0; IDENTIFY_BYTES];
        let [cns, _, low, high] = entry.cdw10[0].get().to_le_bytes();
        let least = u16::from_le_bytes([low, high]);
        let csi = entry.cdw10[1].get().to_le_bytes()[3];
        let nsid = entry.nsid.get();
        match cns {
            cns::CONTROLLER => return page(&self.identify_controller(world)),
            cns::NAMESPACE | cns::ALLOCATED_NAMESPACE => {
                // Zeros for an inactive one that there could be (Base 5.17.2.1).
                if let Some(namespace) = active(nsid, world)? {
                    return page(&identify_namespace(namespace));
                }
            }
            cns::ACTIVE_NAMESPACES | cns::ALLOCATED_NAMESPACES => list(nsid, world, &mut data)?,
            cns::COMMAND_SET_ACTIVE_NAMESPACES | cns::COMMAND_SET_ALLOCATED_NAMESPACES => {
                nvm_only(csi)?;
                list(nsid, world, &mut data)?;
            }
            cns::DESCRIPTORS => {
                let namespace = active(nsid, world)?.ok_or(NO_NAMESPACE)?;
                put_descriptors(&mut data, &namespace.uuid, &namespace.uuid);
            }
            cns::COMMAND_SET_NAMESPACE | cns::COMMAND_SET_ALLOCATED_NAMESPACE => {
                nvm_only(csi)?;
                active(nsid, world)?;
            }
            cns::COMMAND_SET_CONTROLLER => {
                nvm_only(csi)?;
                return page(&nvm_controller());
            }
            cns::INDEPENDENT_NAMESPACE => {
                if let Some(namespace) = active(nsid, world)? {
                    return page(&independent(namespace));
                }
            }
            cns::NAMESPACE_CONTROLLERS => {
                active(nsid, world)?.ok_or(NO_NAMESPACE)?;
                put_controllers(&mut data, from(least, world));
            }
            cns::CONTROLLERS => put_controllers(&mut data, from(least, world)),
            cns::COMMAND_SETS => {
                if least != 0xffff && least != self.identity.cntlid {
                    return Err(INVALID_FIELD);
                }
                // The first combination: the NVM command set alone.
                data[0] = 1;
            }
            _ => return Err(INVALID_FIELD),
        }
        page(&data)
    }

    /// All that a discovery controller identifies is itself (Base 3.1.2.3.3).
    pub(super) fn identify_discovery(&self, entry: &SubmissionEntry) -> Answer {
        if entry.cdw10[0].get().to_le_bytes()[0] != cns::CONTROLLER {
            return Err(INVALID_FIELD);
        }
        let mut found = self.identify_any();
        found.cntrltype = controller_type::DISCOVERY;
        found.dctype = 1;
        found.subnqn = Nqn::discovery().to_field();
        page(&found)
    }

    /// What all controllers have in common.
    fn identify_any(&self) -> IdentifyController {
        let mut found: IdentifyController = zeroed();
        found.sn = ascii("");
        found.mn = ascii(MODEL);
        found.fr = firmware();
        found.mdts = self.limits.mdts;
        found.cntlid = self.identity.cntlid.into();
        found.ver = VERSION_2_0.into();
        found.oaes = self.events.offered().into();
        found.ctratt = (ctratt::HOST_ID_128 | ctratt::TBKAS).into();
        found.aerl = u8::try_from(EVENT_REQUESTS - 1).expect("a few");
        found.lpa = lpa::EXTENDED;
        found.kas = u16::try_from(KEEP_ALIVE_UNIT_MS / 100).expect("a few seconds").into();
        found.maxcmd = self.limits.queue_entries.into();
        found.sgls = (sgls::SUPPORTED | sgls::OFFSET | sgls::TRANSPORT).into();
        found.ioccsz = 4.into();
        found.iorcsz = 1.into();
        found
    }

    fn identify_controller(&self, world: &World<'_>) -> IdentifyController {
        let mut found = self.identify_any();
        found.sn = ascii(&world.subsystem.serial);
        found.cmic = cmic::PORTS | cmic::CONTROLLERS | cmic::ANA;
        found.cntrltype = controller_type::IO;
        found.acl = 3;
        found.frmw = FIRMWARE_SLOTS;
        found.lpa |= lpa::EFFECTS;
        found.anatt = ANA_TRANSITION_SECONDS;
        found.anacap = ANA_CAPABILITIES;
        found.anagrpmax = MAX_ANA_GROUP.into();
        found.nanagrpid = MAX_ANA_GROUP.into();
        found.sqes = 0x66;
        found.cqes = 0x44;
        found.nn = MAX_NSID.into();
        found.mnan = MAX_NSID.into();
        let commands =
            oncs::COMPARE | oncs::DATASET_MANAGEMENT | oncs::WRITE_ZEROES | oncs::TIMESTAMP;
        found.oncs = commands.into();
        found.fuses = FUSED_COMPARE_WRITE.into();
        found.vwc = VOLATILE_CACHE;
        found.subnqn = world.subsystem.nqn.to_field();
        found.ioccsz = ((64 + self.limits.in_capsule) / 16).into();
        found.msdbd = 1;
        found
    }
}

const NO_NAMESPACE: Status = Status::INVALID_NAMESPACE.with_dnr();

fn page(data: &(impl IntoBytes + zerocopy::Immutable)) -> Answer {
    assert_eq!(data.as_bytes().len(), IDENTIFY_BYTES, "every page has one size");
    Ok(Outcome::data(data.as_bytes().to_vec()))
}

fn nvm_only(csi: u8) -> Result<(), Status> {
    if csi == CSI_NVM { Ok(()) } else { Err(INVALID_FIELD) }
}

/// The namespace, `None` if it is inactive.
fn active<'a>(nsid: u32, world: &World<'a>) -> Result<Option<&'a NamespaceInfo>, Status> {
    if !(1..=MAX_NSID).contains(&nsid) {
        return Err(NO_NAMESPACE);
    }
    Ok(world.subsystem.get(nsid))
}

/// Namespaces behind `nsid`, which is neither of the two last numbers (Base 5.17.2.2).
fn list(nsid: u32, world: &World<'_>, data: &mut [u8; IDENTIFY_BYTES]) -> Result<(), Status> {
    if nsid >= ALL_NAMESPACES - 1 {
        return Err(NO_NAMESPACE);
    }
    let all = world.subsystem.namespaces.iter().map(|namespace| namespace.nsid);
    put_namespaces(data, all.filter(|found| *found > nsid));
    Ok(())
}

fn from(least: u16, world: &World<'_>) -> impl Iterator<Item = u16> {
    world.controllers.iter().copied().filter(move |cntlid| *cntlid >= least)
}

/// CNS 00h. A 4 KiB block is the unit of atomicity, of checksums and of allocation
/// whatever the logical block is, as long as it is not crossed.
fn identify_namespace(namespace: &NamespaceInfo) -> IdentifyNamespace {
    let per_block = (BLOCK_BYTES >> namespace.block_shift) - 1;
    let per_block = u16::try_from(per_block).expect("at most 8 in a block").into();
    let mut found: IdentifyNamespace = zeroed();
    found.nsze = namespace.blocks.into();
    found.ncap = namespace.blocks.into();
    found.nuse = namespace.blocks.into();
    found.nsfeat = NAMESPACE_FEATURES;
    found.nmic = 1;
    found.dlfeat = DEALLOCATE_FEATURES;
    found.nawun = per_block;
    found.nawupf = per_block;
    found.nabsn = per_block;
    found.nabspf = per_block;
    found.npwg = per_block;
    found.npwa = per_block;
    found.npdg = per_block;
    found.npda = per_block;
    found.anagrpid = namespace.group.into();
    found.nsattr = namespace.read_only.into();
    found.nguid = namespace.uuid;
    found.lbaf[0] = (u32::from(namespace.block_shift) << 16).into();
    found
}

fn nvm_controller() -> NvmController {
    let mut page: NvmController = zeroed();
    page.dmrsl = DSM_RANGE_BLOCKS.into();
    page.dmsl = DSM_BLOCKS.into();
    page
}

fn independent(namespace: &NamespaceInfo) -> IndependentNamespace {
    let mut found: IndependentNamespace = zeroed();
    found.nsfeat = 1 << 3;
    found.nmic = 1;
    found.anagrpid = namespace.group.into();
    found.nsattr = namespace.read_only.into();
    found.nstat = 1;
    found
}
