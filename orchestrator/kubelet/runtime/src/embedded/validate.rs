//! What is wrong with a request can be said before anything is done about it.

use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path};

use moorline_mount::mountinfo::{self, MountEntry};

use crate::container::{ContainerConfig, Device, Mount, MountPropagation};
use crate::error::RuntimeError;
use crate::image::config::{self as image_config, ImageConfig};
use crate::sandbox::SandboxConfig;
use crate::spec::capabilities;

fn invalid(what: impl Into<String>, why: impl Into<String>) -> RuntimeError {
    RuntimeError::Invalid {
        what: what.into(),
        why: why.into(),
    }
}

/// Checks a sandbox.
pub(crate) fn sandbox(config: &SandboxConfig) -> Result<(), RuntimeError> {
    if config.pod_uid.is_empty() || config.pod_uid.contains('/') {
        return Err(invalid(
            format!("pod uid {:?}", config.pod_uid),
            "it is empty or holds a slash",
        ));
    }
    if !config.log_directory.is_absolute() {
        return Err(invalid("log directory", "it is not an absolute path"));
    }
    if !is_plain_relative(Path::new(&config.cgroup_parent)) {
        return Err(invalid("cgroup parent", "it is not a plain relative path"));
    }
    if config.share_process_namespace {
        return Err(invalid(
            "shareProcessNamespace",
            "the embedded runtime doesn't offer it yet",
        ));
    }
    Ok(())
}

/// Checks a container, and that what it refers to is there.
pub(crate) fn container(config: &ContainerConfig, image: &ImageConfig) -> Result<(), RuntimeError> {
    if config.name.is_empty() {
        return Err(invalid("container name", "it is empty"));
    }
    if !is_plain_relative(&config.log_path) {
        return Err(invalid("log path", "it is not a plain relative path"));
    }
    if image_config::arguments(image, config).is_none() {
        return Err(invalid("command", "neither the pod nor the image names one"));
    }
    if image_config::arguments(image, config)
        .into_iter()
        .flatten()
        .any(|word| word.contains('\0'))
    {
        return Err(invalid("command", "it holds a zero byte"));
    }
    let security = &config.security;
    for name in security
        .capabilities_add
        .iter()
        .chain(&security.capabilities_drop)
    {
        if !name.eq_ignore_ascii_case("all") {
            capabilities::parse(name).map_err(|why| invalid("securityContext", why))?;
        }
    }
    let termination = &config.termination_message_path;
    if !termination.as_os_str().is_empty() && !is_plain_absolute(termination) {
        return Err(invalid(
            "terminationMessagePath",
            "it is not a plain absolute path",
        ));
    }
    if config
        .mounts
        .iter()
        .any(|mount| mount.propagation != MountPropagation::None)
    {
        let table = mountinfo::read().map_err(|error| invalid("mount propagation", error.to_string()))?;
        config
            .mounts
            .iter()
            .try_for_each(|one| propagation(one, &table))?;
    }
    config.mounts.iter().try_for_each(mount)?;
    config.devices.iter().try_for_each(device)
}

fn mount(mount: &Mount) -> Result<(), RuntimeError> {
    let what = || {
        format!(
            "mount of {} at {}",
            mount.host_path.display(),
            mount.container_path.display()
        )
    };
    if !is_plain_absolute(&mount.container_path) || mount.container_path == Path::new("/") {
        return Err(invalid(
            what(),
            "the path in the container is not a plain absolute path",
        ));
    }
    if mount.recursive_read_only && (!mount.read_only || mount.propagation != MountPropagation::None) {
        return Err(invalid(
            what(),
            "recursiveReadOnly needs readOnly and propagation None",
        ));
    }
    // Not followed further: a mount point that hangs must not hang the check.
    std::fs::symlink_metadata(&mount.host_path)
        .map(|_| ())
        .map_err(|error| invalid(what(), error.to_string()))
}

/// Kubernetes promises propagation only where the machine's own mount allows it; otherwise it would silently be none.
fn propagation(mount: &Mount, table: &[MountEntry]) -> Result<(), RuntimeError> {
    let around = table
        .iter()
        .filter(|entry| mount.host_path.starts_with(&entry.mount_point))
        // Of several at one place the last is on top.
        .max_by_key(|entry| entry.mount_point.components().count());
    let what = || format!("mount of {}", mount.host_path.display());
    let (shared, slave) = around.map_or((false, false), |entry| {
        (entry.peer_group().is_some(), entry.master().is_some())
    });
    match mount.propagation {
        MountPropagation::Bidirectional if !shared => Err(invalid(
            what(),
            "propagation Bidirectional needs it to be on a shared mount",
        )),
        MountPropagation::HostToContainer if !shared && !slave => Err(invalid(
            what(),
            "propagation HostToContainer needs it to be on a shared or slave mount",
        )),
        MountPropagation::None | MountPropagation::HostToContainer | MountPropagation::Bidirectional => {
            Ok(())
        }
    }
}

fn device(device: &Device) -> Result<(), RuntimeError> {
    let what = || format!("device {}", device.host_path.display());
    if !is_plain_absolute(&device.container_path) {
        return Err(invalid(
            what(),
            "the path in the container is not a plain absolute path",
        ));
    }
    if device.permissions.is_empty() || device.permissions.chars().any(|letter| !"rwm".contains(letter)) {
        return Err(invalid(what(), "permissions are letters out of rwm"));
    }
    let kind = std::fs::metadata(&device.host_path)
        .map_err(|error| invalid(what(), error.to_string()))?
        .file_type();
    if kind.is_block_device() || kind.is_char_device() {
        Ok(())
    } else {
        Err(invalid(what(), "it is no device"))
    }
}

fn is_plain_relative(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

fn is_plain_absolute(path: &Path) -> bool {
    path.is_absolute()
        && path
            .components()
            .skip(1)
            .all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::SecurityContext;

    fn plain() -> ContainerConfig {
        ContainerConfig {
            name: "c".into(),
            command: vec!["sh".into()],
            ..ContainerConfig::default()
        }
    }

    fn mounted(host: &str, container: &str) -> ContainerConfig {
        let mount = Mount {
            host_path: host.into(),
            container_path: container.into(),
            ..Mount::default()
        };
        ContainerConfig {
            mounts: vec![mount],
            ..plain()
        }
    }

    fn with_device(host: &str, permissions: &str) -> ContainerConfig {
        let device = Device {
            host_path: host.into(),
            container_path: "/dev/x".into(),
            permissions: permissions.into(),
        };
        ContainerConfig {
            devices: vec![device],
            ..plain()
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn bad_containers_are_refused_with_the_reason() {
        let capability = SecurityContext {
            capabilities_add: vec!["FLY".into()],
            ..SecurityContext::default()
        };
        let mut rro = mounted("/tmp", "/x");
        rro.mounts[0].recursive_read_only = true;
        let cases = [
            (
                "no name",
                ContainerConfig {
                    name: String::new(),
                    ..plain()
                },
                "container name: it is empty",
            ),
            (
                "no command",
                ContainerConfig {
                    command: vec![],
                    ..plain()
                },
                "command: neither",
            ),
            (
                "log outside",
                ContainerConfig {
                    log_path: "../x".into(),
                    ..plain()
                },
                "log path",
            ),
            (
                "absolute log",
                ContainerConfig {
                    log_path: "/x".into(),
                    ..plain()
                },
                "log path",
            ),
            (
                "capability",
                ContainerConfig {
                    security: capability,
                    ..plain()
                },
                "\"FLY\" does not exist",
            ),
            (
                "relative place",
                mounted("/tmp", "x"),
                "not a plain absolute path",
            ),
            (
                "place above",
                mounted("/tmp", "/a/../b"),
                "not a plain absolute path",
            ),
            ("root place", mounted("/tmp", "/"), "not a plain absolute path"),
            ("source missing", mounted("/no/such/thing", "/x"), "No such file"),
            ("rro without ro", rro, "recursiveReadOnly"),
            (
                "device missing",
                with_device("/dev/no-such-thing", "rw"),
                "No such file",
            ),
            ("no device", with_device("/etc/passwd", "rw"), "it is no device"),
            (
                "permissions",
                with_device("/dev/null", "rx"),
                "letters out of rwm",
            ),
        ];
        for (name, config, expected) in cases {
            let error = container(&config, &ImageConfig::default())
                .expect_err(name)
                .to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
        container(&plain(), &ImageConfig::default()).unwrap();
        container(&with_device("/dev/null", "rwm"), &ImageConfig::default()).unwrap();
    }

    #[test]
    fn propagation_needs_a_mount_that_propagates() {
        let table = mountinfo::parse(
            "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 8:1 /k /k rw shared:1 - ext4 /dev/sda rw\n\
             3 1 8:1 /s /s rw master:1 - ext4 /dev/sda rw\n",
        )
        .unwrap();
        use MountPropagation::{Bidirectional, HostToContainer, None};
        let cases = [
            ("/x", None, true),
            ("/x", HostToContainer, false),
            ("/x", Bidirectional, false),
            ("/k/v", Bidirectional, true),
            ("/k/v", HostToContainer, true),
            ("/s/v", HostToContainer, true),
            ("/s/v", Bidirectional, false),
            ("/kx", Bidirectional, false),
        ];
        for (path, wanted, allowed) in cases {
            let one = Mount {
                host_path: path.into(),
                propagation: wanted,
                ..Mount::default()
            };
            assert_eq!(propagation(&one, &table).is_ok(), allowed, "{path} {wanted:?}");
        }
    }

    #[test]
    fn bad_sandboxes_are_refused() {
        let good = SandboxConfig {
            pod_uid: "u".into(),
            log_directory: "/log".into(),
            ..SandboxConfig::default()
        };
        sandbox(&good).unwrap();
        let cases = [
            SandboxConfig {
                pod_uid: String::new(),
                ..good.clone()
            },
            SandboxConfig {
                pod_uid: "a/b".into(),
                ..good.clone()
            },
            SandboxConfig {
                log_directory: "log".into(),
                ..good.clone()
            },
            SandboxConfig {
                cgroup_parent: "../x".into(),
                ..good.clone()
            },
            SandboxConfig {
                share_process_namespace: true,
                ..good
            },
        ];
        for case in cases {
            assert!(sandbox(&case).is_err(), "{case:?}");
        }
    }
}
