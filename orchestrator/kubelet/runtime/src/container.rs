//! What a container is asked to be and what is known of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::image::ImageRef;
use crate::sandbox::SandboxId;

/// Names one container; 64 hexadecimal digits, derived from sandbox, container name and attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How mounts made later travel between the machine and the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    /// Not at all (`rprivate`).
    #[default]
    None,
    /// From the machine into the container (`rslave`).
    HostToContainer,
    /// Both ways (`rshared`).
    Bidirectional,
}

/// A file or directory of the machine shown in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Existing path on the machine.
    pub host_path: PathBuf,
    /// Absolute path in the container, made when missing.
    pub container_path: PathBuf,
    /// No writes through this mount.
    pub read_only: bool,
    /// No writes through mounts below it either. Needs `read_only` and propagation `None`.
    pub recursive_read_only: bool,
    /// How later mounts travel.
    pub propagation: MountPropagation,
}

/// A device node of the machine made available in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Device node on the machine; a symlink is followed.
    pub host_path: PathBuf,
    /// Absolute path in the container.
    pub container_path: PathBuf,
    /// Letters out of `rwm`: read, write, make nodes.
    pub permissions: String,
}

/// Limits and weights. `None` means no limit or the kernel's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Relative weight, 1024 per CPU, at least 2.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time per period.
    pub cpu_quota_us: Option<i64>,
    /// Length of the period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Memory limit in bytes.
    pub memory_limit_bytes: Option<i64>,
    /// Processes and threads at most.
    pub pids_limit: Option<i64>,
    /// -1000 (never killed) to 1000 (killed first).
    pub oom_score_adj: Option<i32>,
}

/// Who the processes of a container are and what they may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    /// Numeric user; `None` = the image's user.
    pub run_as_user: Option<u32>,
    /// Numeric primary group; `None` = the group of the image's user.
    pub run_as_group: Option<u32>,
    /// Further groups, `fsGroup` among them.
    pub supplemental_groups: Vec<u32>,
    /// Refuse to start as user 0.
    pub run_as_non_root: bool,
    /// All capabilities and devices, nothing masked or read-only.
    pub privileged: bool,
    /// Capabilities to add, with or without `CAP_`; `ALL` for every one.
    pub capabilities_add: Vec<String>,
    /// Capabilities to drop, with or without `CAP_`; `ALL` for every one.
    pub capabilities_drop: Vec<String>,
    /// The root file system can't be written.
    pub read_only_root_filesystem: bool,
    /// Processes can't gain rights by execve (`allowPrivilegeEscalation: false`).
    pub no_new_privileges: bool,
}

/// What [`crate::ContainerRuntime::create_container`] is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Name of the container in its pod.
    pub name: String,
    /// Counts the containers of one name in the sandbox from 0.
    pub attempt: u32,
    /// What [`crate::ImageService::ensure_image`] returned.
    pub image: ImageRef,
    /// Replaces the image's entrypoint when not empty; then the image's arguments are dropped too.
    pub command: Vec<String>,
    /// Replaces the image's arguments when not empty.
    pub args: Vec<String>,
    /// Replaces the image's working directory.
    pub working_dir: Option<PathBuf>,
    /// Added to the image's environment; later entries win.
    pub env: Vec<(String, String)>,
    /// Binds, put in place in order of their container path.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Limits and weights.
    pub resources: Resources,
    /// User, capabilities and the like.
    pub security: SecurityContext,
    /// Log file, relative to the sandbox's log directory, such as `main/0.log`. Empty = no log.
    pub log_path: PathBuf,
    /// Keeps standard input open for those who attach, instead of `/dev/null`.
    pub stdin: bool,
    /// The input ends when the first who attached has sent all.
    #[serde(default)]
    pub stdin_once: bool,
    /// Gives the process a terminal; its output is logged as stdout.
    pub tty: bool,
    /// Where the container may write a last word, absolute; empty = nowhere.
    pub termination_message_path: PathBuf,
    /// Given back by listing and status.
    pub labels: BTreeMap<String, String>,
    /// Given back by listing and status.
    pub annotations: BTreeMap<String, String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its first process lives.
    Running,
    /// Its first process ended, or never came to life.
    Exited,
}

/// A container as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The container.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox_id: SandboxId,
    /// Pod it belongs to.
    pub pod_uid: String,
    /// Name of the container in its pod.
    pub name: String,
    /// Counts the containers of one name in the sandbox from 0.
    pub attempt: u32,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it was made of.
    pub image: ImageRef,
    /// As configured.
    pub labels: BTreeMap<String, String>,
    /// As configured.
    pub annotations: BTreeMap<String, String>,
}

/// All that is known of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerStatus {
    /// The container.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox_id: SandboxId,
    /// Pod it belongs to.
    pub pod_uid: String,
    /// Name of the container in its pod.
    pub name: String,
    /// Counts the containers of one name in the sandbox from 0.
    pub attempt: u32,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// When its process ended.
    pub finished_at: Option<Timestamp>,
    /// Exit status once exited; 128 + signal number when a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The kernel killed it for want of memory.
    pub oom_killed: bool,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`; empty unless exited.
    pub reason: String,
    /// More on `reason` from the runtime's side; empty when there is nothing to add.
    pub message: String,
    /// What the container left in its termination message file (at most 4096 bytes; empty unless exited).
    pub termination_message: String,
    /// Absolute path of the log file; empty when it has none.
    pub log_path: PathBuf,
    /// What it was made of.
    pub image: ImageRef,
    /// First process as the machine sees it, while running.
    pub pid: Option<u32>,
    /// As configured.
    pub labels: BTreeMap<String, String>,
    /// As configured.
    pub annotations: BTreeMap<String, String>,
}

impl ContainerStatus {
    /// As a list shows it.
    pub fn listed(&self) -> Container {
        Container {
            id: self.id.clone(),
            sandbox_id: self.sandbox_id.clone(),
            pod_uid: self.pod_uid.clone(),
            name: self.name.clone(),
            attempt: self.attempt,
            state: self.state,
            created_at: self.created_at,
            image: self.image.clone(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

/// How a command in a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit status; 128 + signal number when a signal ended it.
    pub exit_code: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}
