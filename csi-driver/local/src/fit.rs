//! Which ways of using a volume a backend offers, and which an existing volume can serve. Pure.

use moorline_driver_sdk::{
    DriverError,
    request::{AccessMode, AccessType, MountVolume, VolumeCapability},
};
use moorline_mount::{
    filesystem::FsType,
    mount_options::{Attributes, MountOptions},
};

use crate::{
    class::Class,
    config::BackendKind,
    reach::Nodes,
    record::{Content, Provisioning},
    settings::Settings,
};

const FS_TYPE_DEFAULT: FsType = FsType::Ext4;

/// What a new volume must hold to serve all the capabilities.
///
/// # Errors
/// Invalid argument, with the way out.
pub(crate) fn plan(
    nodes: Nodes,
    backend: BackendKind,
    capabilities: &[VolumeCapability],
) -> Result<Content, DriverError> {
    let content = match backend {
        _ if capabilities.iter().any(VolumeCapability::is_block) => Content::Block,
        BackendKind::Dir => Content::Directory,
        BackendKind::Btrfs => Content::Subvolume,
        BackendKind::Loop => filesystem_for(capabilities)?.into(),
    };
    capabilities
        .iter()
        .try_for_each(|capability| fit(nodes, content, capability).map_err(DriverError::invalid))?;
    Ok(content)
}

/// Can a volume with this content be as the class wants it?
///
/// # Errors
/// Invalid argument, with the way out.
pub(crate) fn check_class(content: Content, class: &Class) -> Result<(), DriverError> {
    if class.provisioning == Provisioning::Thick && !content.is_file() {
        return Err(DriverError::invalid(format!(
            "{content} can't be thick; use provisioning=thin, or a pool with the loop backend"
        )));
    }
    Ok(())
}

fn filesystem_for(capabilities: &[VolumeCapability]) -> Result<FsType, DriverError> {
    let named = capabilities
        .iter()
        .filter_map(|capability| capability.mount()?.fs_type.as_deref())
        .next();
    named.map_or(Ok(FS_TYPE_DEFAULT), |name| {
        name.parse()
            .map_err(|error: moorline_mount::filesystem::FilesystemError| {
                DriverError::invalid(error.to_string())
            })
    })
}

/// Can a volume with this content be used in this way? If not, why.
pub(crate) fn fit(nodes: Nodes, content: Content, capability: &VolumeCapability) -> Result<(), String> {
    fit_nodes(nodes, content, capability.access_mode)?;
    match (content, &capability.access_type) {
        (Content::Block, AccessType::Block) => Ok(()),
        (Content::Block, AccessType::Mount(_)) => {
            Err("the volume is a block device, not a filesystem".to_owned())
        }
        (Content::Directory, AccessType::Mount(mount)) => fit_directory("dir", mount),
        (Content::Subvolume, AccessType::Mount(mount)) => fit_directory("btrfs", mount),
        (Content::Ext4 | Content::Xfs | Content::Btrfs, AccessType::Mount(mount)) => {
            fit_filesystem(content, mount)
        }
        (
            Content::Directory | Content::Subvolume | Content::Ext4 | Content::Xfs | Content::Btrfs,
            AccessType::Block,
        ) => Err(format!("the volume is {content}, not a block device")),
    }
}

/// Several nodes at once see the same files only where one filesystem is mounted on all of them; who may write is kept by
/// the leases. A file that each node uses as a device of its own is cached by each node apart, so that they would damage
/// it; and btrfs is on one machine.
fn fit_nodes(nodes: Nodes, content: Content, mode: AccessMode) -> Result<(), String> {
    if !mode.is_multi_node() {
        return Ok(());
    }
    match (nodes, content) {
        (Nodes::Several, Content::Directory) => Ok(()),
        (
            Nodes::Several,
            Content::Block | Content::Subvolume | Content::Ext4 | Content::Xfs | Content::Btrfs,
        ) => Err(format!(
            "access mode {mode:?} is not possible: the volume is {content}, which each node would cache apart; use a \
             pool with the dir backend on a filesystem that the nodes share"
        )),
        (
            Nodes::One,
            Content::Directory
            | Content::Block
            | Content::Subvolume
            | Content::Ext4
            | Content::Xfs
            | Content::Btrfs,
        ) => Err(format!(
            "access mode {mode:?} is not possible: volumes live on one node, unless the driver runs with --attachable"
        )),
    }
}

fn fit_directory(backend: &str, mount: &MountVolume) -> Result<(), String> {
    // A class for all backends may name the filesystem that a subvolume is on.
    if let Some(fs_type) = mount.fs_type.as_ref().filter(|name| *name != backend) {
        return Err(format!(
            "the {backend} backend has no filesystem of its own, so not {fs_type}; use a pool with the loop backend"
        ));
    }
    let options = MountOptions::parse(&mount.mount_flags).map_err(|error| error.to_string())?;
    match options.parameters.first() {
        None => Ok(()),
        Some((key, _)) => Err(format!(
            "mount option {key} needs a filesystem of its own; use a pool with the loop backend"
        )),
    }
}

fn fit_filesystem(content: Content, mount: &MountVolume) -> Result<(), String> {
    MountOptions::parse(&mount.mount_flags).map_err(|error| error.to_string())?;
    let is_other = |fs_type: &&String| content.filesystem().map(FsType::as_str) != Some(fs_type.as_str());
    match mount.fs_type.as_ref().filter(is_other) {
        None => Ok(()),
        Some(fs_type) => Err(format!("the volume is {content}, not {fs_type}")),
    }
}

/// Groups are numbers here: names would be those of this node alone.
fn group_number(text: &str) -> Result<u32, DriverError> {
    // The largest number means "no group" to the kernel.
    let number = text.parse::<u32>().ok().filter(|number| *number != u32::MAX);
    number.ok_or_else(|| DriverError::invalid(format!("volume_mount_group {text:?} is not a group's number")))
}

/// How a volume is mounted for one use of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountPlan {
    pub(crate) options: MountOptions,
    pub(crate) is_block: bool,
    /// The group that gets the volume.
    pub(crate) group: Option<u32>,
    /// The volume's writable device as far as it is remembered; looked at before it is believed.
    pub(crate) device: Option<(u32, u32)>,
    /// The volume's own, from its record.
    pub(crate) settings: Settings,
}

impl MountPlan {
    /// `is_read_only` is the caller's wish; the access mode and the word `ro` mean the same.
    pub(crate) fn new(capability: &VolumeCapability, is_read_only: bool) -> Result<Self, DriverError> {
        let flags = capability.mount().map_or(&[][..], |mount| &mount.mount_flags);
        let mut options =
            MountOptions::parse(flags).map_err(|error| DriverError::invalid(error.to_string()))?;
        if is_read_only || capability.access_mode.is_read_only() {
            options.attributes = options.attributes.read_only();
        }
        let group = capability
            .mount()
            .and_then(|mount| mount.volume_mount_group.as_deref());
        Ok(MountPlan {
            options,
            is_block: capability.is_block(),
            group: group.map(group_number).transpose()?,
            device: None,
            settings: Settings::default(),
        })
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.options.attributes.is_read_only()
    }

    pub(crate) fn attributes(&self) -> Attributes {
        self.options.attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(fs_type: &str, flags: &[&str]) -> VolumeCapability {
        VolumeCapability {
            access_type: AccessType::Mount(MountVolume {
                fs_type: (!fs_type.is_empty()).then(|| fs_type.to_owned()),
                mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                volume_mount_group: None,
            }),
            access_mode: AccessMode::SingleNodeWriter,
        }
    }

    fn block() -> VolumeCapability {
        VolumeCapability {
            access_type: AccessType::Block,
            access_mode: AccessMode::SingleNodeWriter,
        }
    }

    fn on_many_nodes() -> VolumeCapability {
        VolumeCapability {
            access_mode: AccessMode::MultiNodeMultiWriter,
            ..mount("", &[])
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn the_content_follows_from_backend_and_capabilities() {
        use BackendKind::{Btrfs, Dir, Loop};
        let here = Nodes::One;
        type Case = (
            &'static str,
            BackendKind,
            Vec<VolumeCapability>,
            Result<Content, &'static str>,
        );
        let cases: [Case; 19] = [
            ("dir", Dir, vec![mount("", &[])], Ok(Content::Directory)),
            (
                "dir with attributes",
                Dir,
                vec![mount("", &["ro", "noexec"])],
                Ok(Content::Directory),
            ),
            (
                "dir with filesystem options",
                Dir,
                vec![mount("", &["discard"])],
                Err("needs a filesystem of its own"),
            ),
            (
                "dir with a filesystem",
                Dir,
                vec![mount("ext4", &[])],
                Err("no filesystem of its own"),
            ),
            ("dir as block", Dir, vec![block()], Ok(Content::Block)),
            (
                "dir as both",
                Dir,
                vec![mount("", &[]), block()],
                Err("not a filesystem"),
            ),
            ("btrfs", Btrfs, vec![mount("", &[])], Ok(Content::Subvolume)),
            (
                "btrfs by name",
                Btrfs,
                vec![mount("btrfs", &[])],
                Ok(Content::Subvolume),
            ),
            (
                "btrfs with another",
                Btrfs,
                vec![mount("ext4", &[])],
                Err("no filesystem of its own"),
            ),
            ("loop", Loop, vec![mount("", &[])], Ok(Content::Ext4)),
            (
                "loop with ext4",
                Loop,
                vec![mount("ext4", &["discard"])],
                Ok(Content::Ext4),
            ),
            (
                "loop with xfs",
                Loop,
                vec![mount("", &[]), mount("xfs", &[])],
                Ok(Content::Xfs),
            ),
            (
                "loop with two",
                Loop,
                vec![mount("ext4", &[]), mount("xfs", &[])],
                Err("not xfs"),
            ),
            (
                "loop with another",
                Loop,
                vec![mount("zfs", &[])],
                Err("not supported"),
            ),
            ("loop as block", Loop, vec![block()], Ok(Content::Block)),
            (
                "loop as both",
                Loop,
                vec![block(), mount("", &[])],
                Err("not a filesystem"),
            ),
            (
                "loop on many nodes",
                Loop,
                vec![on_many_nodes()],
                Err("live on one node"),
            ),
            (
                "dir on many nodes",
                Dir,
                vec![on_many_nodes()],
                Err("live on one node"),
            ),
            (
                "a forbidden option",
                Loop,
                vec![mount("", &["bind"])],
                Err("another operation"),
            ),
        ];
        for (name, backend, capabilities, expected) in cases {
            match (plan(here, backend, &capabilities), expected) {
                (Ok(content), Ok(expected)) => assert_eq!(content, expected, "{name}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{name}: {error}")
                }
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    fn several_nodes_have_directories_alone() {
        let all = |access_mode| {
            let block = VolumeCapability {
                access_mode,
                ..block()
            };
            let mount = VolumeCapability {
                access_mode,
                ..mount("", &[])
            };
            [
                (Content::Directory, mount.clone()),
                (Content::Subvolume, mount.clone()),
                (Content::Ext4, mount),
                (Content::Block, block),
            ]
        };
        let fits = |nodes, access_mode| {
            all(access_mode).map(|(content, capability)| fit(nodes, content, &capability).is_ok())
        };
        for mode in [
            AccessMode::MultiNodeReaderOnly,
            AccessMode::MultiNodeSingleWriter,
            AccessMode::MultiNodeMultiWriter,
        ] {
            assert_eq!(fits(Nodes::One, mode), [false; 4], "{mode:?}");
            assert_eq!(
                fits(Nodes::Several, mode),
                [true, false, false, false],
                "{mode:?}"
            );
        }
        assert_eq!(fits(Nodes::Several, AccessMode::SingleNodeWriter), [true; 4]);
        let [_, _, (content, capability), _] = all(AccessMode::MultiNodeMultiWriter);
        let why = fit(Nodes::Several, content, &capability).unwrap_err();
        assert!(why.contains("use a pool with the dir backend"), "{why}");
    }

    #[test]
    fn groups_are_numbers() {
        let cases = [
            ("none", None, Ok(None)),
            ("a number", Some("4321"), Ok(Some(4321))),
            ("root", Some("0"), Ok(Some(0))),
            ("a name", Some("users"), Err(())),
            ("negative", Some("-1"), Err(())),
            ("no group at all", Some("4294967295"), Err(())),
        ];
        for (name, group, expected) in cases {
            let mut capability = mount("", &[]);
            if let AccessType::Mount(mount) = &mut capability.access_type {
                mount.volume_mount_group = group.map(str::to_owned);
            }
            let plan = MountPlan::new(&capability, false);
            assert_eq!(plan.map(|plan| plan.group).map_err(drop), expected, "{name}");
        }
    }

    #[test]
    fn read_only_has_three_spellings() {
        let reader = VolumeCapability {
            access_mode: AccessMode::SingleNodeReaderOnly,
            ..mount("", &[])
        };
        let cases = [
            ("writable", mount("", &[]), false, false),
            ("asked for", mount("", &[]), true, true),
            ("as an option", mount("", &["ro"]), false, true),
            ("asked for, option says else", mount("", &["rw"]), true, true),
            ("by access mode", reader, false, true),
        ];
        for (name, capability, asked, expected) in cases {
            assert_eq!(
                MountPlan::new(&capability, asked).expect(name).is_read_only(),
                expected,
                "{name}"
            );
        }
    }
}
