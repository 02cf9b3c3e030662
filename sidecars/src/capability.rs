//! The `VolumeCapability` of a volume: how its access modes, mode and filesystem become one wire message. Pure.

use k8s_openapi::api::core::v1::PersistentVolume;
use moorline_model::access_mode::{AccessModes, CombinationError};
use moorline_model::volume;
use moorline_proto::csi::VolumeCapability;
use moorline_proto::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

/// How a volume is used, besides its access modes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage<'a> {
    pub(crate) is_block: bool,
    pub(crate) fs_type: &'a str,
    pub(crate) mount_flags: &'a [String],
}

/// The one capability for a list of access modes.
pub(crate) fn of_modes(
    modes: AccessModes,
    usage: &Usage<'_>,
    has_single_node_multi_writer: bool,
) -> Result<VolumeCapability, CombinationError> {
    let mode = modes.to_csi(has_single_node_multi_writer)?.number();
    let access_type = if usage.is_block {
        AccessType::Block(BlockVolume {})
    } else {
        AccessType::Mount(MountVolume {
            fs_type: usage.fs_type.to_string(),
            mount_flags: usage.mount_flags.to_vec(),
            volume_mount_group: String::new(),
        })
    };
    Ok(VolumeCapability {
        access_mode: Some(AccessMode { mode }),
        access_type: Some(access_type),
    })
}

/// The capability of a CSI PV, as publish and expansion send it.
pub(crate) fn of_pv(
    pv: &PersistentVolume,
    default_fs_type: &str,
    has_single_node_multi_writer: bool,
) -> Result<VolumeCapability, CombinationError> {
    let spec = pv.spec.as_ref();
    let fs_type = spec
        .and_then(|spec| spec.csi.as_ref()?.fs_type.as_deref())
        .filter(|fs_type| !fs_type.is_empty());
    let usage = Usage {
        is_block: volume::is_block(pv),
        fs_type: fs_type.unwrap_or(default_fs_type),
        mount_flags: spec
            .and_then(|spec| spec.mount_options.as_deref())
            .unwrap_or_default(),
    };
    of_modes(volume::access_modes(pv), &usage, has_single_node_multi_writer)
}
