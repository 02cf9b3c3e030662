//! How a volume is to be used: block or filesystem, and by whom.

use moorline_proto::csi::{self, volume_capability as wire};

use super::field;
use crate::DriverError;

/// CSI 1.12, VolumeCapability: all mount flags together.
const MOUNT_FLAGS_BYTES_MAX: usize = 4 * 1024;

/// One way of using a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeCapability {
    /// As a device or as a directory.
    pub access_type: AccessType,
    /// By whom.
    pub access_mode: AccessMode,
}

/// As a device or as a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessType {
    /// A block device.
    Block,
    /// A filesystem.
    Mount(MountVolume),
}

/// What is wished of the filesystem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountVolume {
    /// Its type, if the caller cares.
    pub fs_type: Option<String>,
    /// Words for `-o`.
    pub mount_flags: Vec<String>,
    /// The group that shall own it, where the driver does that.
    pub volume_mount_group: Option<String>,
}

/// By whom a volume is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessMode {
    /// One node, writable (the old spelling of the two modes below).
    SingleNodeWriter,
    /// One node, read-only.
    SingleNodeReaderOnly,
    /// Many nodes, read-only.
    MultiNodeReaderOnly,
    /// Many nodes, one of them writes.
    MultiNodeSingleWriter,
    /// Many nodes, all write.
    MultiNodeMultiWriter,
    /// One node, one workload on it.
    SingleNodeSingleWriter,
    /// One node, many workloads on it.
    SingleNodeMultiWriter,
}

impl AccessMode {
    /// Is the volume wanted on more than one node?
    pub fn is_multi_node(self) -> bool {
        use AccessMode as Mode;
        matches!(
            self,
            Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter
        )
    }

    /// Will nobody write?
    pub fn is_read_only(self) -> bool {
        matches!(
            self,
            AccessMode::SingleNodeReaderOnly | AccessMode::MultiNodeReaderOnly
        )
    }

    /// One of the two modes that only drivers with SINGLE_NODE_MULTI_WRITER understand?
    pub fn is_single_node_detail(self) -> bool {
        matches!(
            self,
            AccessMode::SingleNodeSingleWriter | AccessMode::SingleNodeMultiWriter
        )
    }
}

const MODES: [(AccessMode, wire::access_mode::Mode); 7] = {
    use wire::access_mode::Mode as Wire;
    [
        (AccessMode::SingleNodeWriter, Wire::SingleNodeWriter),
        (AccessMode::SingleNodeReaderOnly, Wire::SingleNodeReaderOnly),
        (AccessMode::MultiNodeReaderOnly, Wire::MultiNodeReaderOnly),
        (AccessMode::MultiNodeSingleWriter, Wire::MultiNodeSingleWriter),
        (AccessMode::MultiNodeMultiWriter, Wire::MultiNodeMultiWriter),
        (AccessMode::SingleNodeSingleWriter, Wire::SingleNodeSingleWriter),
        (AccessMode::SingleNodeMultiWriter, Wire::SingleNodeMultiWriter),
    ]
};

impl VolumeCapability {
    /// Is a block device wanted?
    pub fn is_block(&self) -> bool {
        self.access_type == AccessType::Block
    }

    /// The wishes for the filesystem, unless a block device is wanted.
    pub fn mount(&self) -> Option<&MountVolume> {
        match &self.access_type {
            AccessType::Block => None,
            AccessType::Mount(mount) => Some(mount),
        }
    }

    pub(super) fn parse_required(capability: Option<csi::VolumeCapability>) -> Result<Self, DriverError> {
        match capability {
            Some(capability) => Self::parse(capability),
            None => Err(DriverError::invalid("volume_capability is missing")),
        }
    }

    pub(super) fn parse_list(list: Vec<csi::VolumeCapability>) -> Result<Vec<Self>, DriverError> {
        list.into_iter().map(Self::parse).collect()
    }

    pub(super) fn parse_required_list(list: Vec<csi::VolumeCapability>) -> Result<Vec<Self>, DriverError> {
        if list.is_empty() {
            return Err(DriverError::invalid("volume_capabilities is missing"));
        }
        Self::parse_list(list)
    }

    /// Can one new volume be all of this? It has one filesystem, and one group that owns it.
    pub(super) fn parse_for_one_volume(list: Vec<csi::VolumeCapability>) -> Result<Vec<Self>, DriverError> {
        let list = Self::parse_required_list(list)?;
        type Wish = fn(&MountVolume) -> Option<&String>;
        let wishes: [(&str, Wish); 2] = [
            ("fs_type", |mount| mount.fs_type.as_ref()),
            ("volume_mount_group", |mount| mount.volume_mount_group.as_ref()),
        ];
        for (field, wish) in wishes {
            let mut wished = list.iter().filter_map(VolumeCapability::mount).filter_map(wish);
            if let Some(first) = wished.next()
                && let Some(other) = wished.find(|other| *other != first)
            {
                return Err(DriverError::invalid(format!(
                    "volume_capabilities contradict each other: {field} {first:?} and {other:?}"
                )));
            }
        }
        Ok(list)
    }

    pub(super) fn parse(capability: csi::VolumeCapability) -> Result<Self, DriverError> {
        let access_type = match capability.access_type {
            Some(wire::AccessType::Block(_)) => AccessType::Block,
            Some(wire::AccessType::Mount(mount)) => AccessType::Mount(MountVolume::parse(mount)?),
            None => {
                return Err(DriverError::invalid(
                    "volume_capability has neither block nor mount",
                ));
            }
        };
        let number = capability
            .access_mode
            .ok_or_else(|| DriverError::invalid("volume_capability.access_mode is missing"))?
            .mode;
        let access_mode = MODES
            .iter()
            .find(|(_, wire)| i32::from(*wire) == number)
            .map(|(mode, _)| *mode)
            .ok_or_else(|| {
                DriverError::invalid(format!("volume_capability.access_mode {number} is unknown"))
            })?;
        Ok(VolumeCapability {
            access_type,
            access_mode,
        })
    }
}

impl MountVolume {
    fn parse(mount: wire::MountVolume) -> Result<Self, DriverError> {
        let bytes: usize = mount.mount_flags.iter().map(String::len).sum();
        if bytes > MOUNT_FLAGS_BYTES_MAX {
            return Err(DriverError::invalid(format!(
                "mount_flags have {bytes} bytes; at most {MOUNT_FLAGS_BYTES_MAX} are allowed"
            )));
        }
        let has = |word: &str| {
            mount
                .mount_flags
                .iter()
                .any(|flag| flag.split(',').any(|flag| flag == word))
        };
        if has("ro") && has("rw") {
            return Err(DriverError::invalid("mount_flags have both ro and rw"));
        }
        if mount
            .mount_flags
            .iter()
            .any(|flag| flag.chars().any(char::is_control))
        {
            return Err(DriverError::invalid("mount_flags have control characters"));
        }
        Ok(MountVolume {
            fs_type: field::optional_text("fs_type", mount.fs_type)?,
            mount_flags: mount.mount_flags,
            volume_mount_group: field::optional_text("volume_mount_group", mount.volume_mount_group)?,
        })
    }
}

impl From<VolumeCapability> for csi::VolumeCapability {
    fn from(capability: VolumeCapability) -> Self {
        let mode = MODES
            .iter()
            .find(|(mode, _)| *mode == capability.access_mode)
            .map_or(0, |(_, wire)| i32::from(*wire));
        let access_type = match capability.access_type {
            AccessType::Block => wire::AccessType::Block(wire::BlockVolume {}),
            AccessType::Mount(mount) => wire::AccessType::Mount(wire::MountVolume {
                fs_type: mount.fs_type.unwrap_or_default(),
                mount_flags: mount.mount_flags,
                volume_mount_group: mount.volume_mount_group.unwrap_or_default(),
            }),
        };
        csi::VolumeCapability {
            access_mode: Some(wire::AccessMode { mode }),
            access_type: Some(access_type),
        }
    }
}
