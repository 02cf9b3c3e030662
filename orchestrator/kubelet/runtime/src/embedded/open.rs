//! Opening a state directory, whatever the last run left in it. Blocks; knows nothing of the async runtime.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;
use oci_spec::runtime::Capability;
use rustix::fs::{FlockOperation, flock};

use super::EmbeddedConfig;
use super::link::{Greeted, greet};
use super::shared_memory::SharedMemory;
use super::shim_life::{KILL_LIMIT, KILL_ROUNDS, kill_shim_or_say, pause};
use super::state::ContainerEntry;
use crate::cgroup::Hierarchies;
use crate::container::{ContainerId, ContainerState};
use crate::error::RuntimeError;
use crate::image::store::ImageStore;
use crate::layout::{Layout, SandboxDir};
use crate::process::kill_and_wait;
use crate::records::{self, ContainerRecord, Progress, SandboxRecord};
use crate::spec::capabilities::Available;

const SHIM_DIED: &str = "the pod's shim process ended; how the container ended is not known";

/// A state directory, opened.
pub(super) struct Opened {
    pub(super) config: EmbeddedConfig,
    pub(super) layout: Layout,
    pub(super) hierarchies: Hierarchies,
    pub(super) shared_memory: Option<SharedMemory>,
    pub(super) images: ImageStore,
    pub(super) sandboxes: Vec<Found>,
    pub(super) lock: File,
}

/// A sandbox of an earlier run.
pub(super) struct Found {
    pub(super) record: SandboxRecord,
    pub(super) containers: BTreeMap<ContainerId, ContainerEntry>,
    pub(super) shim: Option<Greeted>,
}

/// Containers need root in this sense: user 0 with the right to make namespaces and mounts.
pub(super) fn check_rights() -> Result<(), RuntimeError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match missing_right(rustix::process::geteuid().is_root(), &status) {
        None => Ok(()),
        Some(missing) => Err(RuntimeError::NotPermitted {
            missing: missing.to_owned(),
        }),
    }
}

/// What a process lacks to run containers.
fn missing_right(is_root: bool, status: &str) -> Option<&'static str> {
    if !is_root {
        return Some("user 0 (namespaces, mounts, cgroups, other users' processes)");
    }
    let can_mount = Available::parse(status).is_some_and(|available| available.has(Capability::SysAdmin));
    (!can_mount).then_some("the capability SYS_ADMIN (namespaces, mounts)")
}

pub(super) fn open(mut config: EmbeddedConfig) -> Result<Opened, RuntimeError> {
    make_private_dir(&config.state_dir)?;
    config.state_dir = fs::canonicalize(&config.state_dir).map_err(failed("resolve", &config.state_dir))?;
    config.host_image_hidden.push(config.state_dir.clone());
    let layout = Layout::new(config.state_dir.clone());
    let lock = take_lock(&layout)?;
    for dir in [layout.sandboxes(), layout.images()] {
        make_private_dir(&dir)?;
    }
    let mounts = moorline_mount::mountinfo::read().map_err(|error| RuntimeError::Io {
        action: "read",
        path: "/proc/self/mountinfo".into(),
        source: io::Error::other(error),
    })?;
    let (hierarchies, warnings) = Hierarchies::among(&mounts).writable(&config.cgroup_root);
    for warning in warnings {
        tracing::warn!(warning, "Containers run without this cgroup hierarchy");
    }
    let images = ImageStore::open(layout.images())?;
    let mut sandboxes = Vec::new();
    for entry in fs::read_dir(layout.sandboxes()).map_err(failed("list", &layout.sandboxes()))? {
        let entry = entry.map_err(failed("list", &layout.sandboxes()))?;
        let dir = SandboxDir { path: entry.path() };
        match recover(&layout, &dir)? {
            Some(found) => sandboxes.push(found),
            None => remove_dir(&dir.path)?,
        }
    }
    let shared_memory = SharedMemory::of(layout.root());
    if let Some(shared) = &shared_memory {
        let kept: Vec<&Path> = sandboxes
            .iter()
            .filter_map(|found| found.record.shm_dir.as_deref())
            .collect();
        shared.clean(&kept)?;
    }
    Ok(Opened {
        config,
        layout,
        hierarchies,
        shared_memory,
        images,
        sandboxes,
        lock,
    })
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::Io { action, path, source }
}

pub(super) fn make_private_dir(path: &Path) -> Result<(), RuntimeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("make directory", path))
}

/// Removes a directory with all in it; one that is gone is fine.
pub(super) fn remove_dir(path: &Path) -> Result<(), RuntimeError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn take_lock(layout: &Layout) -> Result<File, RuntimeError> {
    let path = layout.lock();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    let mut rounds = 0;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let pid = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        // A process killed while it started another one leaves a copy of its open files in that one until it executes
        // its program: a lock of the dead is waited for.
        if is_running(pid) || rounds == KILL_ROUNDS {
            return Err(RuntimeError::StateDirectoryInUse {
                path: layout.root().to_owned(),
                pid,
            });
        }
        rounds += 1;
        pause();
    }
    file.set_len(0).map_err(failed("write", &path))?;
    writeln!(file, "{}", std::process::id()).map_err(failed("write", &path))?;
    Ok(file)
}

/// The process exists and isn't just waiting to be reaped.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rfind(") ")
        .is_some_and(|end| !stat[end + 2..].starts_with(['Z', 'X']))
}

/// What is left of one sandbox; `None` when it was never finished.
fn recover(layout: &Layout, dir: &SandboxDir) -> Result<Option<Found>, RuntimeError> {
    let record = match records::read::<SandboxRecord>(&dir.record()) {
        Ok(record) => record.filter(|record| layout.sandbox(&record.id).path == dir.path),
        Err(error @ RuntimeError::DamagedRecord { .. }) => {
            tracing::error!(%error, "Sandbox can't be read and is removed");
            None
        }
        Err(error) => return Err(error),
    };
    let Some(record) = record else {
        kill_shim_or_say(dir)?;
        return Ok(None);
    };
    let mut containers = recover_containers(dir)?;
    let shim = match greet(&dir.path) {
        Ok(shim) => Some(shim),
        Err(error) => {
            tracing::debug!(sandbox.id = %record.id, %error, "Shim does not answer");
            None
        }
    };
    match &shim {
        Some(shim) => {
            for (id, progress) in &shim.containers {
                if let Some(entry) = containers.get_mut(id) {
                    entry.progress = progress.clone();
                }
            }
        }
        None => {
            kill_shim_or_say(dir)?;
            end_containers(dir, &record, &mut containers)?;
        }
    }
    Ok(Some(Found {
        record,
        containers,
        shim,
    }))
}

fn recover_containers(dir: &SandboxDir) -> Result<BTreeMap<ContainerId, ContainerEntry>, RuntimeError> {
    let mut containers = BTreeMap::new();
    let entries = match fs::read_dir(dir.containers()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(containers),
        Err(error) => return Err(failed("list", &dir.containers())(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed("list", &dir.containers()))?.path();
        let container = crate::layout::ContainerDir { path: path.clone() };
        match records::read::<ContainerRecord>(&container.record()) {
            Ok(Some(record)) if dir.container(&record.id).path == path => {
                let progress = records::read(&container.progress()).unwrap_or_else(|error| {
                    tracing::error!(%error, "Container's progress can't be read");
                    None
                });
                let progress = progress.unwrap_or_else(Progress::created);
                let entry = ContainerEntry {
                    record: record.into(),
                    progress,
                };
                containers.insert(entry.record.id.clone(), entry);
            }
            Ok(_) | Err(RuntimeError::DamagedRecord { .. }) => remove_dir(&path)?,
            Err(error) => return Err(error),
        }
    }
    Ok(containers)
}

/// Without their shim containers are killed (the kernel does so itself for most), and those that ran are recorded as
/// lost. Safe to repeat.
pub(super) fn end_containers(
    dir: &SandboxDir,
    sandbox: &SandboxRecord,
    containers: &mut BTreeMap<ContainerId, ContainerEntry>,
) -> Result<(), RuntimeError> {
    for (id, entry) in containers {
        let cgroup = sandbox.cgroup.child(&id.0);
        if let Some(process) = &entry.progress.process
            && !kill_and_wait(process, KILL_LIMIT)
        {
            tracing::error!(container.id = %id, process.id = process.pid, "Container's process does not end");
        }
        if !cgroup.kill_all(pause) {
            tracing::error!(container.id = %id, "Processes of the container's cgroup do not end");
        }
        let container = dir.container(id);
        // The shim may have recorded the end right before its own.
        let on_disk: Option<Progress> = records::read(&container.progress()).unwrap_or(None);
        if let Some(progress) = on_disk {
            entry.progress = progress;
        }
        let interrupted = entry.progress.state == ContainerState::Created && container.oci().exists();
        if entry.progress.state == ContainerState::Running || interrupted {
            entry.progress = entry.progress.lost(Timestamp::now(), SHIM_DIED);
            records::write(&container.progress(), &entry.progress)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_run_containers() {
        let full = "CapPrm:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n";
        let docker = "CapPrm:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\n";
        assert_eq!(missing_right(true, full), None);
        for (name, is_root, status, word) in [
            ("ordinary user", false, full, "user 0"),
            ("container without privileges", true, docker, "SYS_ADMIN"),
            ("no procfs", true, "", "SYS_ADMIN"),
        ] {
            let missing = missing_right(is_root, status).expect(name);
            assert!(missing.contains(word), "{name}: {missing}");
        }
    }

    #[test]
    fn lock_tells_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        let held = take_lock(&layout).unwrap();
        let error = take_lock(&layout).unwrap_err();
        let me = std::process::id();
        assert!(
            matches!(error, RuntimeError::StateDirectoryInUse { pid, .. } if pid == me),
            "{error}"
        );
        drop(held);
        take_lock(&layout).unwrap();
    }
}
