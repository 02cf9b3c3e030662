//! Which `VolumeCapability` a node call carries. Pure.

use moorline_proto::csi;
use moorline_proto::csi::volume_capability::access_mode::Mode;
use moorline_proto::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

use super::client::NodeCapabilities;

/// What decides about the capability of a volume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub block: bool,
    pub fs_type: &'a str,
    pub mount_options: &'a [String],
    /// `spec.accessModes` of the PV; only the first one reaches the driver.
    pub access_modes: &'a [String],
    /// Given only when the driver applies it itself.
    pub fs_group: Option<i64>,
}

/// CSI's mode for the first of a PV's access modes.
pub(crate) fn access_mode(access_modes: &[String], capabilities: NodeCapabilities) -> Mode {
    let multi_writer = capabilities.single_node_multi_writer;
    match access_modes.first().map(String::as_str) {
        Some("ReadOnlyMany") => Mode::MultiNodeReaderOnly,
        Some("ReadWriteMany") => Mode::MultiNodeMultiWriter,
        Some("ReadWriteOncePod") if multi_writer => Mode::SingleNodeSingleWriter,
        Some("ReadWriteOncePod") => Mode::SingleNodeWriter,
        // ReadWriteOnce is also what no mode at all means.
        _ if multi_writer => Mode::SingleNodeMultiWriter,
        _ => Mode::SingleNodeWriter,
    }
}

/// The capability for stage, publish and expand calls.
pub(crate) fn volume_capability(wish: Wish<'_>, capabilities: NodeCapabilities) -> csi::VolumeCapability {
    let access_type = if wish.block {
        AccessType::Block(BlockVolume {})
    } else {
        AccessType::Mount(MountVolume {
            fs_type: wish.fs_type.to_owned(),
            mount_flags: wish.mount_options.to_vec(),
            volume_mount_group: wish
                .fs_group
                .filter(|_| capabilities.volume_mount_group)
                .map(|gid| gid.to_string())
                .unwrap_or_default(),
        })
    };
    csi::VolumeCapability {
        access_type: Some(access_type),
        access_mode: Some(AccessMode {
            mode: access_mode(wish.access_modes, capabilities).into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_access_mode_decides() {
        let old = NodeCapabilities::default();
        let new = NodeCapabilities {
            single_node_multi_writer: true,
            ..old
        };
        let cases = [
            ("none given", vec![], old, Mode::SingleNodeWriter),
            ("rwo", vec!["ReadWriteOnce"], old, Mode::SingleNodeWriter),
            (
                "rwo, new driver",
                vec!["ReadWriteOnce"],
                new,
                Mode::SingleNodeMultiWriter,
            ),
            ("rwop", vec!["ReadWriteOncePod"], old, Mode::SingleNodeWriter),
            (
                "rwop, new driver",
                vec!["ReadWriteOncePod"],
                new,
                Mode::SingleNodeSingleWriter,
            ),
            ("rox", vec!["ReadOnlyMany"], new, Mode::MultiNodeReaderOnly),
            (
                "rwx before rwo",
                vec!["ReadWriteMany", "ReadWriteOnce"],
                new,
                Mode::MultiNodeMultiWriter,
            ),
        ];
        for (name, modes, capabilities, want) in cases {
            let modes: Vec<String> = modes.into_iter().map(str::to_owned).collect();
            assert_eq!(access_mode(&modes, capabilities), want, "{name}");
        }
    }

    #[test]
    fn group_is_given_only_to_drivers_that_apply_it() {
        let wish = Wish {
            block: false,
            fs_type: "ext4",
            mount_options: &[],
            access_modes: &[],
            fs_group: Some(7),
        };
        let group = |capabilities| match volume_capability(wish, capabilities).access_type {
            Some(AccessType::Mount(mount)) => mount.volume_mount_group,
            other => panic!("{other:?}"),
        };
        assert_eq!(group(NodeCapabilities::default()), "");
        assert_eq!(
            group(NodeCapabilities {
                volume_mount_group: true,
                ..Default::default()
            }),
            "7"
        );
    }
}
