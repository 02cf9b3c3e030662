//! The OCI runtime configuration of one container. Pure: everything that has to be looked up comes in.

pub(crate) mod binds;
pub(crate) mod capabilities;

use std::collections::BTreeSet;
use std::path::PathBuf;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDevice, LinuxDeviceBuilder,
    LinuxDeviceType, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder, Process,
    ProcessBuilder, RootBuilder, Spec, UserBuilder,
};

use crate::container::{ContainerConfig, MountPropagation};
use crate::passwd::Identity;
use binds::Bind;

/// What was looked up for the container.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) config: &'a ContainerConfig,
    pub(crate) rootfs: PathBuf,
    pub(crate) identity: Identity,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<String>,
    pub(crate) working_dir: PathBuf,
    pub(crate) capabilities: BTreeSet<String>,
    /// Sources are copies made for this container, with their propagation already set.
    pub(crate) binds: Vec<Bind>,
    pub(crate) devices: Vec<DeviceNode>,
    /// Places below `/sys/fs/cgroup` that the binds fill; one empty name is version 2, which fills it itself.
    pub(crate) cgroup_hierarchies: Vec<String>,
    /// Kernel file systems and directories kept in memory that the image needs beyond the usual.
    pub(crate) scratch_dirs: Vec<PathBuf>,
    /// Paths of the machine that must not be seen.
    pub(crate) hidden: Vec<PathBuf>,
    /// Processes of the machine are visible.
    pub(crate) host_pid: bool,
    /// The kernel knows cgroup namespaces.
    pub(crate) cgroup_namespace: bool,
}

/// A device node to be made in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceNode {
    pub(crate) path: PathBuf,
    pub(crate) block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Builds the configuration.
pub(crate) fn generate(facts: &Facts<'_>) -> Result<Spec, OciSpecError> {
    let mut spec = Spec::default();
    let root = RootBuilder::default()
        .path(facts.rootfs.clone())
        .readonly(facts.config.security.read_only_root_filesystem)
        .build()?;
    spec.set_version("1.2.0".to_owned())
        .set_root(Some(root))
        .set_process(Some(process(facts)?))
        .set_mounts(Some(mounts(facts)?))
        .set_linux(Some(linux(facts)?))
        // Set once for the pod, in the shim's own UTS namespace that containers inherit.
        .set_hostname(None)
        .set_hooks(None)
        .set_annotations(None);
    Ok(spec)
}

fn process(facts: &Facts<'_>) -> Result<Process, OciSpecError> {
    let user = UserBuilder::default()
        .uid(facts.identity.uid)
        .gid(facts.identity.gid)
        .additional_gids(facts.identity.additional_gids.clone())
        .build()?;
    let set: Capabilities = facts
        .capabilities
        .iter()
        .filter_map(|name| capabilities::parse(name).ok())
        .collect();
    let mut capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .build()?;
    // Inheritable ones would come back to life in programs with file capabilities.
    capabilities.set_inheritable(None).set_ambient(None);
    let mut environment = facts.environment.clone();
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        environment.push(format!("HOME={}", facts.identity.home));
    }
    let mut process = ProcessBuilder::default()
        .terminal(facts.config.tty)
        .user(user)
        .args(facts.arguments.clone())
        .env(environment)
        .cwd(facts.working_dir.clone())
        .capabilities(capabilities)
        .no_new_privileges(facts.config.security.no_new_privileges)
        .build()?;
    // The score is set by the shim, which can go on where lowering it is not allowed.
    process.set_rlimits(None).set_oom_score_adj(None);
    Ok(process)
}

fn linux(facts: &Facts<'_>) -> Result<Linux, OciSpecError> {
    let privileged = facts.config.security.privileged;
    let texts = |list: &[&str]| {
        list.iter()
            .map(|path| (*path).to_owned())
            .collect::<Vec<String>>()
    };
    let mut masked = if privileged { Vec::new() } else { texts(&MASKED) };
    masked.extend(facts.hidden.iter().map(|path| path.display().to_string()));
    let shared = facts
        .binds
        .iter()
        .any(|bind| bind.propagation == MountPropagation::Bidirectional);
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(facts)?)
        .devices(
            facts
                .devices
                .iter()
                .map(device)
                .collect::<Result<Vec<LinuxDevice>, _>>()?,
        )
        .masked_paths(masked)
        .readonly_paths(if privileged { Vec::new() } else { texts(&READ_ONLY) })
        .rootfs_propagation(if shared { "shared" } else { "slave" })
        .build()?;
    linux
        .set_resources(None)
        .set_cgroups_path(None)
        .set_uid_mappings(None)
        .set_gid_mappings(None);
    Ok(linux)
}

/// IPC and UTS namespaces are the pod's: the shim is in them. The network is the machine's.
fn namespaces(facts: &Facts<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    let mut types = vec![LinuxNamespaceType::Mount];
    if !facts.host_pid {
        types.push(LinuxNamespaceType::Pid);
    }
    if facts.cgroup_namespace {
        types.push(LinuxNamespaceType::Cgroup);
    }
    types
        .into_iter()
        .map(|typ| LinuxNamespaceBuilder::default().typ(typ).build())
        .collect()
}

fn device(node: &DeviceNode) -> Result<LinuxDevice, OciSpecError> {
    LinuxDeviceBuilder::default()
        .path(node.path.clone())
        .typ(if node.block {
            LinuxDeviceType::B
        } else {
            LinuxDeviceType::C
        })
        .major(i64::from(node.major))
        .minor(i64::from(node.minor))
        .file_mode(node.mode)
        .uid(node.uid)
        .gid(node.gid)
        .build()
}

fn mounts(facts: &Facts<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let privileged = facts.config.security.privileged;
    let sysfs: &[&str] = if privileged {
        &["nosuid", "noexec", "nodev"]
    } else {
        &["nosuid", "noexec", "nodev", "ro"]
    };
    let mut all = vec![
        file_system("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"])?,
        file_system(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        file_system(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        )?,
        file_system("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"])?,
        file_system("/sys", "sysfs", "sysfs", sysfs)?,
    ];
    if facts.cgroup_hierarchies.iter().any(|name| !name.is_empty()) {
        let options = ["nosuid", "noexec", "nodev", "mode=755", "size=64k"];
        all.push(file_system("/sys/fs/cgroup", "tmpfs", "tmpfs", &options)?);
    }
    if !facts
        .binds
        .iter()
        .any(|bind| bind.destination == std::path::Path::new("/dev/shm"))
    {
        let options = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
        all.push(file_system("/dev/shm", "tmpfs", "shm", &options)?);
    }
    for dir in &facts.scratch_dirs {
        let mode = if dir.ends_with("tmp") {
            "mode=1777"
        } else {
            "mode=755"
        };
        let path = dir.display().to_string();
        all.push(file_system(
            &path,
            "tmpfs",
            "tmpfs",
            &["nosuid", "nodev", mode, "size=65536k"],
        )?);
    }
    for bind in &facts.binds {
        all.push(bind_mount(bind)?);
    }
    Ok(all)
}

fn file_system(destination: &str, typ: &str, source: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    MountBuilder::default()
        .destination(destination)
        .typ(typ)
        .source(source)
        .options(
            options
                .iter()
                .map(|option| (*option).to_owned())
                .collect::<Vec<String>>(),
        )
        .build()
}

fn bind_mount(bind: &Bind) -> Result<Mount, OciSpecError> {
    let mut options = vec!["rbind".to_owned()];
    match (bind.read_only, bind.recursive_read_only) {
        (true, true) => options.push("rro".to_owned()),
        (true, false) => options.push("ro".to_owned()),
        (false, _) => {}
    }
    MountBuilder::default()
        .destination(bind.destination.clone())
        .typ("bind")
        .source(bind.source.clone())
        .options(options)
        .build()
}

#[cfg(test)]
mod tests;
