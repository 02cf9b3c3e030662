//! Which files and directories of the machine are shown in a container, and in which order. Pure.

use std::path::{Path, PathBuf};

use crate::container::{ContainerConfig, MountPropagation};
use crate::layout::{ContainerDir, SandboxDir};
use crate::records::SandboxRecord;

/// One bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) destination: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) recursive_read_only: bool,
    pub(crate) propagation: MountPropagation,
    /// Found out late, when the source is looked at.
    pub(crate) is_dir: bool,
}

impl Bind {
    fn own(source: PathBuf, destination: &Path) -> Self {
        Self {
            source,
            destination: destination.to_owned(),
            read_only: false,
            recursive_read_only: false,
            propagation: MountPropagation::None,
            is_dir: false,
        }
    }
}

/// All binds of a container, outer directories before what lies in them. A mount of the pod replaces one of ours at
/// the same place.
pub(crate) fn plan(
    sandbox_dir: &SandboxDir,
    sandbox: &SandboxRecord,
    container_dir: &ContainerDir,
    config: &ContainerConfig,
    cgroups: &[(String, PathBuf)],
) -> Vec<Bind> {
    let mut binds: Vec<Bind> = ["hosts", "hostname", "resolv.conf"]
        .into_iter()
        .map(|name| Bind::own(sandbox_dir.path.join(name), &Path::new("/etc").join(name)))
        .collect();
    if let Some(shm) = &sandbox.shm_dir {
        binds.push(Bind::own(shm.clone(), Path::new("/dev/shm")));
    }
    if !config.termination_message_path.as_os_str().is_empty() {
        binds.push(Bind::own(
            container_dir.termination_log(),
            &config.termination_message_path,
        ));
    }
    for (name, dir) in cgroups {
        let place = Path::new("/sys/fs/cgroup").join(name);
        let read_only = !config.security.privileged;
        binds.push(Bind {
            read_only,
            ..Bind::own(dir.clone(), &place)
        });
    }
    for mount in &config.mounts {
        binds.retain(|own| own.destination != mount.container_path);
        binds.push(Bind {
            source: mount.host_path.clone(),
            destination: mount.container_path.clone(),
            read_only: mount.read_only,
            recursive_read_only: mount.recursive_read_only,
            propagation: mount.propagation,
            is_dir: false,
        });
    }
    for device in &config.devices {
        // The OCI library makes nodes below /dev only.
        if !device.container_path.starts_with("/dev") {
            binds.push(Bind::own(device.host_path.clone(), &device.container_path));
        }
    }
    binds.sort_by_key(|bind| bind.destination.components().count());
    binds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::CgroupPath;
    use crate::container::{Device, Mount};
    use crate::records::sandbox_id;
    use crate::sandbox::SandboxConfig;

    #[test]
    fn binds_are_ordered_and_the_pod_wins() {
        let sandbox = SandboxRecord::new(
            sandbox_id("u", 0),
            jiff::Timestamp::UNIX_EPOCH,
            SandboxConfig::default(),
            CgroupPath::default(),
            Some("/dev/shm/moorline/x".into()),
        );
        let mount = |host: &str, container: &str| Mount {
            host_path: host.into(),
            container_path: container.into(),
            ..Mount::default()
        };
        let device = |container: &str| Device {
            host_path: "/dev/loop0".into(),
            container_path: container.into(),
            permissions: "rwm".into(),
        };
        let config = ContainerConfig {
            mounts: vec![
                mount("/v/deep", "/data/a/b"),
                mount("/v/data", "/data"),
                mount("/k/hosts", "/etc/hosts"),
            ],
            devices: vec![device("/dev/xvda"), device("/block")],
            termination_message_path: "/dev/termination-log".into(),
            ..ContainerConfig::default()
        };
        let sandbox_dir = SandboxDir { path: "/s".into() };
        let cgroups = [("memory".to_owned(), PathBuf::from("/c/pod/x"))];
        let container_dir = ContainerDir { path: "/c".into() };
        let seen: Vec<(String, String)> = plan(&sandbox_dir, &sandbox, &container_dir, &config, &cgroups)
            .into_iter()
            .map(|bind| {
                (
                    bind.source.display().to_string(),
                    bind.destination.display().to_string(),
                )
            })
            .collect();
        let expected = [
            ("/v/data", "/data"),
            ("/dev/loop0", "/block"),
            ("/s/hostname", "/etc/hostname"),
            ("/s/resolv.conf", "/etc/resolv.conf"),
            ("/dev/shm/moorline/x", "/dev/shm"),
            ("/c/termination-log", "/dev/termination-log"),
            ("/k/hosts", "/etc/hosts"),
            ("/v/deep", "/data/a/b"),
            ("/c/pod/x", "/sys/fs/cgroup/memory"),
        ];
        assert_eq!(
            seen,
            expected.map(|(source, destination)| (source.to_owned(), destination.to_owned()))
        );
    }
}
