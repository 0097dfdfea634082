//! Commands: what may be asked, and what one has come to.
//!
//! [`admit`] is pure: from an entry, the namespaces and the capsule's payload to a command or
//! the status that refuses it. Every arithmetic on the host's numbers is checked.

use nvme::code::{fabrics, nvm};
use nvme::entry::{DsmRange, Fuse};
use nvme::sgl::SglKind;
use nvme::tcp::Fatal;
use nvme::tcp::check::offset;
use nvme::{Status, SubmissionEntry};

use super::{NONE, status};
use crate::target::nvmf::{
    COMPARE_AND_WRITE_BLOCKS, DSM_RANGE_BLOCKS, IN_CAPSULE_BYTES, MAX_TRANSFER_BYTES, Namespace,
    Namespaces,
};
use crate::units::VolumeId;

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Compare,
    /// First of a fused pair: its data wait for the second's.
    FusedCompare,
    /// Second of a fused pair.
    FusedWrite,
    Flush,
    /// Flush of all namespaces.
    FlushAll,
    /// Zeroes; `true` frees the space.
    Zeroes(bool),
    /// Dataset Management that deallocates.
    Deallocate,
    /// Nothing but its answer: refused, or hints.
    Nothing,
}

impl Kind {
    /// It needs data of the host.
    pub(super) fn takes_data(self) -> bool {
        matches!(
            self,
            Kind::Write | Kind::Compare | Kind::FusedCompare | Kind::FusedWrite | Kind::Deallocate
        )
    }

    /// It changes the namespace.
    fn changes(self) -> bool {
        matches!(self, Kind::Write | Kind::FusedWrite | Kind::Zeroes(_) | Kind::Deallocate)
    }
}

/// A command under way.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) cid: u16,
    /// The identifier is in use by this command alone.
    pub(super) owns_cid: bool,
    pub(super) kind: Kind,
    pub(super) fua: bool,
    pub(super) volume: VolumeId,
    /// log2 of the bytes of a block.
    pub(super) block_shift: u8,
    /// First byte in the volume, and bytes of the volume.
    pub(super) offset: u64,
    pub(super) length: u64,
    /// Bytes of the host's data, or of ours for it.
    pub(super) transfer: u32,
    /// Ranges of a Dataset Management.
    pub(super) ranges: u16,
    /// Bytes of the range (ranges or namespaces, of those kinds) that have a piece, or had one.
    pub(super) issued: u64,
    /// Of a range of a Dataset Management: the bytes that had.
    pub(super) issued_of_range: u64,
    /// Bytes of data that were asked for, and those that came.
    pub(super) granted: u32,
    pub(super) received: u32,
    /// Its R2T is one of the long ones.
    pub(super) long_r2t: bool,
    /// All pieces were made.
    pub(super) issued_all: bool,
    /// Waits in the queue of those that want pieces.
    pub(super) queued: bool,
    /// Its pieces, in the order of their offsets; the one that is being filled.
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) filling: u16,
    pub(super) pieces: u16,
    /// The other of a fused pair.
    pub(super) partner: u16,
    pub(super) failed: Option<Status>,
    /// It is not to be answered: the server stops.
    pub(super) silent: bool,
    /// Its answer is queued; it ends when that is sent.
    pub(super) answered: bool,
}

/// What [`admit`] makes of an entry.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) kind: Kind,
    pub(super) volume: VolumeId,
    pub(super) block_shift: u8,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) transfer: u32,
    pub(super) ranges: u16,
}

impl Command {
    pub(super) fn new(entry: &SubmissionEntry, admitted: Result<Admitted, Status>) -> Command {
        let failed = admitted.as_ref().err().copied();
        let admitted = admitted.unwrap_or(Admitted::NOTHING);
        Command {
            cid: entry.cid.get(),
            owns_cid: true,
            kind: admitted.kind,
            fua: entry.fua(),
            volume: admitted.volume,
            block_shift: admitted.block_shift,
            offset: admitted.offset,
            length: admitted.length,
            transfer: admitted.transfer,
            ranges: admitted.ranges,
            issued: 0,
            issued_of_range: 0,
            granted: 0,
            received: 0,
            long_r2t: false,
            issued_all: false,
            queued: false,
            first: NONE,
            last: NONE,
            filling: NONE,
            pieces: 0,
            partner: NONE,
            failed,
            silent: false,
            answered: false,
        }
    }

    /// Nothing of it is to come any more, from host or engine.
    pub(super) fn ended(&self) -> bool {
        self.issued_all && self.pieces == 0 && self.received == self.granted
    }
}

impl Admitted {
    const NOTHING: Admitted = Admitted {
        kind: Kind::Nothing,
        volume: VolumeId::new(0),
        block_shift: 12,
        offset: 0,
        length: 0,
        transfer: 0,
        ranges: 0,
    };
}

/// Is this capsule's payload what its SGL says? What it says wrongly of a payload that is there
/// breaks the protocol; the rest is for [`admit`].
///
/// # Errors
/// With what to answer.
pub(super) fn check_capsule(entry: &SubmissionEntry, payload: u32) -> Result<(), Fatal> {
    if payload > IN_CAPSULE_BYTES {
        return Err(Fatal::LIMIT_EXCEEDED);
    }
    let sgl = entry.sgl();
    let announced = match sgl.kind() {
        SglKind::InCapsule => sgl.length.get(),
        SglKind::Transport => 0,
        SglKind::Other => return Ok(()),
    };
    if announced == payload { Ok(()) } else { Err(Fatal::field(offset::PLEN)) }
}

/// What the command asks for.
///
/// # Errors
/// With the status that refuses it.
pub(super) fn admit(entry: &SubmissionEntry, namespaces: &Namespaces) -> Result<Admitted, Status> {
    let kind = kind(entry)?;
    if !entry.uses_sgl() || entry.fuse() == Fuse::Reserved {
        return Err(Status::INVALID_FIELD.with_dnr());
    }
    if entry.nsid.get() == u32::MAX && kind == Kind::Flush {
        return Ok(Admitted { kind: Kind::FlushAll, ..Admitted::NOTHING });
    }
    let namespace = namespaces.get(entry.nsid.get());
    let namespace = namespace.ok_or(Status::INVALID_NAMESPACE.with_dnr())?;
    if let Some(status) = status::of_ana(namespace.ana_state) {
        return Err(status);
    }
    if kind.changes() && namespace.read_only {
        return Err(Status::WRITE_PROTECTED.with_dnr());
    }
    let block_shift = if namespace.block_bytes == 512 { 9 } else { 12 };
    let none = Admitted { kind, volume: namespace.volume, block_shift, ..Admitted::NOTHING };
    match kind {
        Kind::Flush | Kind::FlushAll | Kind::Nothing => Ok(none),
        Kind::Deallocate => {
            let transfer = dsm_transfer(entry)?;
            let kind = if entry.dsm_deallocate() { kind } else { Kind::Nothing };
            // Its ranges come with its data: any within the namespace.
            let ranges = u16::try_from(entry.dsm_ranges()).expect("at most 256");
            Ok(Admitted { kind, length: namespace.size_bytes, transfer, ranges, ..none })
        }
        _ => {
            let (offset, length) = range(entry, namespace)?;
            let transfer = transfer(entry, kind, length)?;
            Ok(Admitted { offset, length, transfer, ..none })
        }
    }
}

fn kind(entry: &SubmissionEntry) -> Result<Kind, Status> {
    let kind = match entry.opcode {
        nvm::READ => Kind::Read,
        nvm::WRITE => Kind::Write,
        nvm::COMPARE => Kind::Compare,
        nvm::FLUSH => Kind::Flush,
        nvm::WRITE_ZEROES => Kind::Zeroes(entry.deac()),
        nvm::DATASET_MANAGEMENT => Kind::Deallocate,
        // A queue is connected once. FCTYPE is where other commands have their NSID.
        nvme::code::admin::FABRICS if entry.nsid.get().to_le_bytes()[0] == fabrics::CONNECT => {
            return Err(Status::COMMAND_SEQUENCE.with_dnr());
        }
        _ => return Err(Status::INVALID_OPCODE.with_dnr()),
    };
    match (entry.fuse(), kind) {
        (Fuse::First, Kind::Compare) => Ok(Kind::FusedCompare),
        (Fuse::Second, Kind::Write) => Ok(Kind::FusedWrite),
        (Fuse::First | Fuse::Second, _) => Err(Status::INVALID_FIELD.with_dnr()),
        _ => Ok(kind),
    }
}

/// Bytes of the volume that a command names.
fn range(entry: &SubmissionEntry, namespace: &Namespace) -> Result<(u64, u64), Status> {
    let blocks = u64::from(entry.block_count());
    bytes_of(entry.start_lba(), blocks, namespace.block_bytes, namespace.size_bytes)
        .ok_or(Status::LBA_OUT_OF_RANGE.with_dnr())
}

/// Bytes of a range of blocks, if it lies within `size_bytes`.
fn bytes_of(start: u64, blocks: u64, block_bytes: u32, size_bytes: u64) -> Option<(u64, u64)> {
    let offset = start.checked_mul(block_bytes.into())?;
    let length = blocks.checked_mul(block_bytes.into())?;
    (offset.checked_add(length)? <= size_bytes).then_some((offset, length))
}

/// Bytes that move between host and controller.
fn transfer(entry: &SubmissionEntry, kind: Kind, length: u64) -> Result<u32, Status> {
    if matches!(kind, Kind::Zeroes(_)) {
        return Ok(0);
    }
    if matches!(kind, Kind::FusedCompare | Kind::FusedWrite)
        && entry.block_count() > COMPARE_AND_WRITE_BLOCKS
    {
        return Err(Status::ATOMIC_WRITE_UNIT_EXCEEDED.with_dnr());
    }
    let length = u32::try_from(length).ok().filter(|length| *length <= MAX_TRANSFER_BYTES);
    let length = length.ok_or(Status::INVALID_FIELD.with_dnr())?;
    let announced = sgl_length(entry, kind != Kind::Read)?;
    if announced == length { Ok(length) } else { Err(Status::SGL_LENGTH_INVALID.with_dnr()) }
}

/// Bytes that the SGL describes.
fn sgl_length(entry: &SubmissionEntry, in_capsule: bool) -> Result<u32, Status> {
    let sgl = entry.sgl();
    match sgl.kind() {
        SglKind::Transport => Ok(sgl.length.get()),
        SglKind::InCapsule if in_capsule => match sgl.address.get() {
            0 => Ok(sgl.length.get()),
            _ => Err(Status::SGL_OFFSET_INVALID.with_dnr()),
        },
        _ => Err(Status::SGL_TYPE_INVALID.with_dnr()),
    }
}

/// Bytes of ranges, and more: Linux always sends 4096 bytes.
fn dsm_transfer(entry: &SubmissionEntry) -> Result<u32, Status> {
    let needed = entry.dsm_ranges() * size_of::<DsmRange>();
    let announced = sgl_length(entry, true)?;
    if (announced as usize) < needed {
        return Err(Status::SGL_LENGTH_INVALID.with_dnr());
    }
    if announced > MAX_DSM_BYTES {
        return Err(Status::INVALID_FIELD.with_dnr());
    }
    Ok(announced)
}

/// Most bytes of a Dataset Management's data: all ranges that there can be.
pub(super) const MAX_DSM_BYTES: u32 = 4096;

/// The bytes of one range of a Dataset Management on a namespace of `size_bytes`.
///
/// # Errors
/// If it is not within the namespace.
pub(super) fn dsm_range(
    range: &DsmRange,
    block_shift: u8,
    size_bytes: u64,
) -> Result<(u64, u64), Status> {
    let blocks = u64::from(range.blocks.get());
    if blocks > DSM_RANGE_BLOCKS.into() {
        return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.with_dnr());
    }
    bytes_of(range.start_lba.get(), blocks, 1 << block_shift, size_bytes)
        .ok_or(Status::LBA_OUT_OF_RANGE.with_dnr())
}
