//! What the start helper looks up and puts in place before the OCI library takes over.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use moorline_mount::mount::{BindOptions, DetachedMount, Propagation, clone_tree, mount, set_propagation};
use oci_spec::runtime::Spec;
use rustix::fs::{major, minor};

use crate::cgroup::limits::DeviceRule;
use crate::container::{ContainerConfig, MountPropagation};
use crate::image::config as image_config;
use crate::layout::{ContainerDir, SandboxDir};
use crate::passwd;
use crate::records::{ContainerRecord, RootSource, SandboxRecord};
use crate::rootfs::{HOST_SCRATCH_DIRS, inside::Inside};
use crate::shim::helper::hidden;
use crate::spec::binds::Bind;
use crate::spec::capabilities::{self, Available};
use crate::spec::{self, DeviceNode, Facts};

type Failure = Box<dyn Error>;

/// Copies of all mounts that the container shall see, taken while they still are what the machine has.
pub(crate) fn copy_mounts(binds: &[Bind]) -> Result<Vec<DetachedMount>, Failure> {
    let options = || BindOptions {
        recursive: true,
        ..BindOptions::default()
    };
    binds
        .iter()
        .map(|bind| Ok(clone_tree(&bind.source, options())?))
        .collect()
}

/// Puts the copies with the wanted propagation into a directory of this namespace and makes the binds refer to it:
/// the OCI library copies mounts with the propagation they have and knows no option to change it.
pub(crate) fn stage(
    dir: &ContainerDir,
    binds: Vec<Bind>,
    copies: Vec<DetachedMount>,
) -> Result<Vec<Bind>, Failure> {
    let staging = dir.staging();
    fs::create_dir_all(&staging)?;
    mount(
        "tmpfs",
        &staging,
        "tmpfs",
        &["size=1m".to_owned(), "mode=0700".to_owned()],
    )?;
    let mut staged = Vec::with_capacity(binds.len());
    for (number, (bind, copy)) in binds.into_iter().zip(copies).enumerate() {
        let target = staging.join(number.to_string());
        if bind.is_dir {
            fs::create_dir(&target)?;
        } else {
            fs::write(&target, b"")?;
        }
        copy.attach(&target)?;
        match bind.propagation {
            MountPropagation::None => set_propagation(&target, Propagation::Private, true)?,
            MountPropagation::HostToContainer => set_propagation(&target, Propagation::Slave, true)?,
            MountPropagation::Bidirectional => {}
        }
        staged.push(Bind {
            source: target,
            ..bind
        });
    }
    Ok(staged)
}

/// Finds out which sources are directories, while all of them can be seen.
pub(crate) fn look_at_sources(binds: &mut [Bind]) -> Result<(), Failure> {
    for bind in binds {
        let metadata =
            fs::metadata(&bind.source).map_err(|error| format!("{}: {error}", bind.source.display()))?;
        bind.is_dir = metadata.is_dir();
    }
    Ok(())
}

/// Looks everything up that the configuration needs and builds it.
pub(crate) fn specification(
    sandbox_dir: &SandboxDir,
    sandbox: &SandboxRecord,
    dir: &ContainerDir,
    record: &ContainerRecord,
    binds: Vec<Bind>,
) -> Result<Spec, Failure> {
    let config = &record.config;
    let inside = Inside::open(&dir.rootfs())?;
    for name in ["hosts", "hostname", "resolv.conf"] {
        inside.make_bindable_file(Path::new("/etc"), name)?;
    }
    let working_dir = image_config::working_dir(&record.image_config, config);
    inside.make_dirs(&working_dir)?;
    let account = |file: &str| inside.read_text(&Path::new("/etc").join(file));
    let identity = passwd::resolve(
        &record.image_config.user,
        &config.security,
        &account("passwd")?,
        &account("group")?,
    )?;
    let available = Available::parse(&fs::read_to_string("/proc/self/status")?)
        .ok_or("no capabilities in /proc/self/status")?;
    let hostname = fs::read_to_string(sandbox_dir.path.join("hostname"))?;
    let scratch_dirs = match record.root {
        RootSource::Host { .. } => HOST_SCRATCH_DIRS.map(PathBuf::from).to_vec(),
        RootSource::Layers(_) => Vec::new(),
    };
    let facts = Facts {
        config,
        rootfs: dir.rootfs(),
        identity,
        arguments: image_config::arguments(&record.image_config, config)
            .ok_or("neither the pod nor the image names a command")?,
        environment: image_config::environment(&record.image_config, config, hostname.trim()),
        working_dir,
        capabilities: capabilities::of_container(
            &config.security,
            &available,
            sandbox.cgroup.has_device_filter(),
        )?,
        cgroup_hierarchies: sandbox.cgroup.child(&record.id.0).names(),
        binds,
        devices: device_nodes(config)?,
        scratch_dirs,
        hidden: hidden(&record.root),
        host_pid: sandbox.config.host_pid,
        cgroup_namespace: Path::new("/proc/self/ns/cgroup").exists(),
    };
    Ok(spec::generate(&facts)?)
}

/// Rules for the device filter.
pub(crate) fn device_rules(config: &ContainerConfig) -> Result<Vec<DeviceRule>, Failure> {
    config
        .devices
        .iter()
        .map(|device| {
            let node = look_at(&device.host_path)?.ok_or_else(|| not_a_device(&device.host_path))?;
            Ok(DeviceRule {
                kind: if node.block { 'b' } else { 'c' },
                major: node.major.into(),
                minor: node.minor.into(),
                permissions: device.permissions.clone(),
            })
        })
        .collect()
}

/// The nodes to make: those asked for, and for privileged containers all the machine has.
fn device_nodes(config: &ContainerConfig) -> Result<Vec<DeviceNode>, Failure> {
    let mut nodes = Vec::new();
    for device in &config.devices {
        if device.container_path.starts_with("/dev") {
            let node = look_at(&device.host_path)?.ok_or_else(|| not_a_device(&device.host_path))?;
            nodes.push(DeviceNode {
                path: device.container_path.clone(),
                ..node
            });
        }
    }
    if config.security.privileged {
        let mut all = Vec::new();
        collect_devices(Path::new("/dev"), &mut all)?;
        all.retain(|node| !nodes.iter().any(|asked| asked.path == node.path));
        nodes.append(&mut all);
    }
    Ok(nodes)
}

fn not_a_device(path: &Path) -> Failure {
    format!("{} is not a device", path.display()).into()
}

fn collect_devices(dir: &Path, found: &mut Vec<DeviceNode>) -> Result<(), Failure> {
    /// Mounted afresh in every container, or made by the OCI library.
    const OWN: [&str; 6] = [
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/dev/console",
        "/dev/ptmx",
        "/dev/tty",
    ];
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if OWN.iter().any(|own| path == Path::new(own)) {
            continue;
        }
        // A device may go while we look.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            collect_devices(&path, found)?;
        } else if !metadata.is_symlink()
            && let Some(node) = look_at(&path)?
        {
            found.push(DeviceNode { path, ..node });
        }
    }
    Ok(())
}

/// The device a path stands for, links followed; `None` when it is no device.
fn look_at(path: &Path) -> Result<Option<DeviceNode>, Failure> {
    let metadata = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let kind = metadata.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return Ok(None);
    }
    Ok(Some(DeviceNode {
        path: path.to_owned(),
        block: kind.is_block_device(),
        major: major(metadata.rdev()),
        minor: minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }))
}
