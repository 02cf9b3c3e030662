//! The small JSON records of the state directory that survive a crash.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::container::{ContainerConfig, ContainerId, ContainerState};
use crate::error::RuntimeError;
use crate::image::config::ImageConfig;
use crate::sandbox::{SandboxConfig, SandboxId};

/// Version of all record formats here.
const FORMAT: u32 = 1;

/// A sandbox as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) format: u32,
    pub(crate) id: SandboxId,
    pub(crate) created_at: Timestamp,
    pub(crate) config: SandboxConfig,
    /// Directories of the pod's cgroup, one per hierarchy; empty without cgroups.
    pub(crate) cgroup: crate::cgroup::CgroupPath,
    /// `/dev/shm` of the pod: a directory on the machine's.
    pub(crate) shm_dir: Option<PathBuf>,
}

impl SandboxRecord {
    pub(crate) fn new(
        id: SandboxId,
        created_at: Timestamp,
        config: SandboxConfig,
        cgroup: crate::cgroup::CgroupPath,
        shm_dir: Option<PathBuf>,
    ) -> Self {
        Self {
            format: FORMAT,
            id,
            created_at,
            config,
            cgroup,
            shm_dir,
        }
    }
}

/// Where the root file system of a container comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RootSource {
    /// Unpacked layers, lowest first, relative to the state directory.
    Layers(Vec<PathBuf>),
    /// The machine's own root, with these paths hidden.
    Host { hidden: Vec<PathBuf> },
}

/// A container as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) format: u32,
    pub(crate) id: ContainerId,
    pub(crate) sandbox_id: SandboxId,
    pub(crate) created_at: Timestamp,
    pub(crate) config: ContainerConfig,
    pub(crate) image_config: ImageConfig,
    pub(crate) root: RootSource,
}

impl ContainerRecord {
    pub(crate) fn new(
        id: ContainerId,
        sandbox_id: SandboxId,
        created_at: Timestamp,
        config: ContainerConfig,
        image_config: ImageConfig,
        root: RootSource,
    ) -> Self {
        Self {
            format: FORMAT,
            id,
            sandbox_id,
            created_at,
            config,
            image_config,
            root,
        }
    }
}

/// How far a container got. Absent on disk = created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) state: ContainerState,
    pub(crate) process: Option<ProcessIdentity>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) oom_killed: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Progress {
    pub(crate) fn created() -> Self {
        Self {
            state: ContainerState::Created,
            process: None,
            started_at: None,
            finished_at: None,
            exit_code: None,
            signal: None,
            oom_killed: false,
            reason: String::new(),
            message: String::new(),
        }
    }

    /// The process is gone and nobody saw how it ended.
    pub(crate) fn lost(&self, now: Timestamp, message: &str) -> Self {
        Self {
            state: ContainerState::Exited,
            process: None,
            finished_at: Some(now),
            exit_code: Some(137),
            reason: "ContainerStatusUnknown".to_owned(),
            message: message.to_owned(),
            ..self.clone()
        }
    }
}

/// A process that can be told from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: u32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub(crate) start_ticks: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub(crate) boot_id: String,
}

impl ProcessIdentity {
    /// Reads the identity of a live process.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_ticks =
            start_ticks(&stat).ok_or_else(|| io::Error::other(format!("no start time in {stat:?}")))?;
        Ok(Self {
            pid,
            start_ticks,
            boot_id: boot_id()?,
        })
    }

    /// The same process still exists (as a zombie too).
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// The process name may hold spaces and parentheses: fields are counted from the last `)`.
fn start_ticks(stat: &str) -> Option<u64> {
    let after_name = stat.get(stat.rfind(')')? + 1..)?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// The id of a pod's sandbox.
pub(crate) fn sandbox_id(pod_uid: &str, attempt: u32) -> SandboxId {
    SandboxId(digest_of(&["sandbox", pod_uid, &attempt.to_string()]))
}

/// The id of a sandbox's container.
pub(crate) fn container_id(sandbox: &SandboxId, name: &str, attempt: u32) -> ContainerId {
    ContainerId(digest_of(&["container", &sandbox.0, name, &attempt.to_string()]))
}

fn digest_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // The length in front keeps ("a", "bc") and ("ab", "c") apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// Writes a record that survives a power loss once this returns.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), RuntimeError> {
    let bytes = to_json(path, record)?;
    moorline_mount::durable::write(path, &bytes).map_err(|error| RuntimeError::Io {
        action: "write record",
        path: path.to_owned(),
        source: io::Error::other(error),
    })
}

/// Writes a record that survives the death of this process, but whose loss in a power failure doesn't matter.
pub(crate) fn write_volatile<T: Serialize>(path: &Path, record: &T) -> Result<(), RuntimeError> {
    let bytes = to_json(path, record)?;
    let temporary = path.with_extension("tmp");
    let failed = |source| RuntimeError::Io {
        action: "write record",
        path: path.to_owned(),
        source,
    };
    fs::write(&temporary, bytes).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

fn to_json<T: Serialize>(path: &Path, record: &T) -> Result<Vec<u8>, RuntimeError> {
    serde_json::to_vec(record).map_err(|error| RuntimeError::DamagedRecord {
        path: path.to_owned(),
        why: error.to_string(),
    })
}

/// Reads a record; `None` when it doesn't exist.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(RuntimeError::Io {
                action: "read record",
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| RuntimeError::DamagedRecord {
            path: path.to_owned(),
            why: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_tell_parts_apart() {
        assert_eq!(sandbox_id("u", 0), sandbox_id("u", 0));
        assert_ne!(sandbox_id("u", 0), sandbox_id("u", 1));
        assert_ne!(sandbox_id("u1", 0), sandbox_id("u", 10));
        let sandbox = sandbox_id("u", 0);
        assert_ne!(container_id(&sandbox, "a", 11), container_id(&sandbox, "a1", 1));
        assert_eq!(sandbox.0.len(), 64);
    }

    #[test]
    fn start_ticks_survive_odd_process_names() {
        let tail = "S 1 2 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        for name in ["sh", "a b", "x) S 1 (y"] {
            assert_eq!(start_ticks(&format!("77 ({name}) {tail}")), Some(4711), "{name}");
        }
        assert_eq!(start_ticks("77 (sh"), None);
    }

    #[test]
    fn own_process_is_alive_and_a_later_one_is_not_it() {
        let me = ProcessIdentity::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(
            !ProcessIdentity {
                start_ticks: me.start_ticks + 1,
                ..me.clone()
            }
            .is_alive()
        );
        assert!(
            !ProcessIdentity {
                boot_id: "other".to_owned(),
                ..me
            }
            .is_alive()
        );
    }

    #[test]
    fn torn_record_is_reported_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        assert!(read::<Progress>(&path).unwrap().is_none());
        fs::write(&path, b"{\"state\":").unwrap();
        let error = read::<Progress>(&path).unwrap_err();
        assert!(error.to_string().contains("record.json is damaged"), "{error}");
        write_volatile(&path, &Progress::created()).unwrap();
        assert_eq!(read::<Progress>(&path).unwrap(), Some(Progress::created()));
    }
}
