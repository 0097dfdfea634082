//! What a client gets: a volume, seen through what it negotiated.
//!
//! An export's name is a volume's name, or `VOLUME@VM` to say whose access
//! pattern the connection carries. A volume whose own name contains `@` is
//! found first. The empty volume name is the only volume, if there is just one.

use super::MAX_TRANSFER_BYTES;
use super::wire::{InfoBlockSize, InfoExport, export_flag, info};
use crate::request::VolumeView;
use crate::units::{BLOCK_BYTES, ClientId};

/// A negotiated export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The volume, as it was when it was negotiated.
    pub volume: VolumeView,
    /// Whose access pattern the connection carries.
    pub client: ClientId,
    /// Replies are structured.
    pub structured: bool,
    /// `base:allocation` is selected; implies `structured`.
    pub allocation: bool,
}

/// The volume and client that an export name means.
pub(super) fn find<'a>(
    name: &str,
    volumes: &'a [VolumeView],
) -> Option<(&'a VolumeView, ClientId)> {
    if let Some(volume) = volumes.iter().find(|v| v.name == name) {
        return Some((volume, ClientId::of(&volume.name)));
    }
    let (volume, vm) = match name.rsplit_once('@') {
        Some((volume, vm)) if !vm.is_empty() => (volume, Some(vm)),
        Some(_) => return None,
        None => (name, None),
    };
    let volume = match (volume, volumes) {
        ("", [only]) => only,
        _ => volumes.iter().find(|v| v.name == volume)?,
    };
    Some((volume, ClientId::of(vm.unwrap_or(&volume.name))))
}

/// The transmission flags of a volume.
pub(super) fn flags(volume: &VolumeView, structured: bool) -> u16 {
    let mut flags = export_flag::HAS_FLAGS
        | export_flag::SEND_FLUSH
        | export_flag::SEND_FUA
        | export_flag::SEND_TRIM
        | export_flag::SEND_WRITE_ZEROES
        | export_flag::CAN_MULTI_CONN;
    if volume.read_only {
        flags |= export_flag::READ_ONLY;
    }
    if structured {
        flags |= export_flag::SEND_DF;
    }
    flags
}

pub(super) fn info_export(volume: &VolumeView, structured: bool) -> InfoExport {
    InfoExport {
        kind: info::EXPORT.into(),
        size: volume.size_bytes.into(),
        flags: flags(volume, structured).into(),
    }
}

pub(super) fn info_block_size(volume: &VolumeView) -> InfoBlockSize {
    let preferred = u32::try_from(BLOCK_BYTES).expect("a small constant");
    InfoBlockSize {
        kind: info::BLOCK_SIZE.into(),
        minimum: volume.block_bytes.into(),
        preferred: preferred.into(),
        maximum: MAX_TRANSFER_BYTES.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::VolumeId;

    fn volume(id: u32, name: &str) -> VolumeView {
        VolumeView {
            id: VolumeId::new(id),
            name: name.into(),
            size_bytes: 1 << 20,
            block_bytes: 512,
            read_only: false,
        }
    }

    #[test]
    fn names_find_volumes_and_clients() {
        let volumes = [volume(1, "a"), volume(2, "a@b"), volume(3, "c")];
        let got = |name| find(name, &volumes).map(|(v, client)| (v.id.get(), client));
        assert_eq!(got("a"), Some((1, ClientId::of("a"))));
        assert_eq!(got("a@b"), Some((2, ClientId::of("a@b"))));
        assert_eq!(got("a@vm"), Some((1, ClientId::of("vm"))));
        assert_eq!(got("c@vm"), Some((3, ClientId::of("vm"))));
        for absent in ["", "@vm", "d", "d@vm", "c@"] {
            assert_eq!(got(absent), None, "{absent:?}");
        }
        let only = [volume(9, "only")];
        assert_eq!(find("", &only).map(|f| f.1), Some(ClientId::of("only")));
        assert_eq!(find("@vm", &only).map(|f| f.1), Some(ClientId::of("vm")));
    }
}
