//! What a pod sandbox is asked to be and what is known of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Names one sandbox; 64 hexadecimal digits, derived from pod uid and attempt, so that a repeated call after a
/// crash finds the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SandboxId(pub String);

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name resolution inside the pod. Without it containers get the machine's `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// IP addresses of name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options, such as `ndots:5`.
    pub options: Vec<String>,
}

/// One line of `/etc/hosts` beyond the usual ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAlias {
    /// The IP address.
    pub ip: String,
    /// Names for it.
    pub hostnames: Vec<String>,
}

/// What [`crate::ContainerRuntime::run_pod_sandbox`] is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// `metadata.name` of the pod.
    pub pod_name: String,
    /// `metadata.namespace` of the pod.
    pub namespace: String,
    /// Counts the sandboxes of one pod from 0.
    pub attempt: u32,
    /// Host name inside; empty means the pod's name. Not set with `host_network`.
    pub hostname: String,
    /// Directory of the pod's log files, made when missing. `ContainerConfig::log_path` is below it.
    pub log_directory: PathBuf,
    /// Given back by `list_pod_sandboxes`.
    pub labels: BTreeMap<String, String>,
    /// Given back by `list_pod_sandboxes`.
    pub annotations: BTreeMap<String, String>,
    /// Pod uses the machine's network by its own wish. The embedded runtime has no other network yet; the flag
    /// decides about the host name.
    pub host_network: bool,
    /// Containers see the machine's processes.
    pub host_pid: bool,
    /// Containers use the machine's System V IPC and message queues.
    pub host_ipc: bool,
    /// Containers of the pod see each other's processes.
    pub share_process_namespace: bool,
    /// Parent of the pod's cgroup below the runtime's own root, such as `burstable/pod<uid>`; empty = `pod<uid>`.
    pub cgroup_parent: String,
    /// Name resolution; `None` = the machine's.
    pub dns: Option<DnsConfig>,
    /// Further lines of `/etc/hosts`.
    pub host_aliases: Vec<HostAlias>,
}

/// Whether containers can be made in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    /// The shim lives.
    Ready,
    /// Stopped, or its shim died: only good for removal.
    NotReady,
}

/// A sandbox as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The sandbox.
    pub id: SandboxId,
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// `metadata.name` of the pod.
    pub pod_name: String,
    /// `metadata.namespace` of the pod.
    pub namespace: String,
    /// Counts the sandboxes of one pod from 0.
    pub attempt: u32,
    /// Whether containers can be made in it.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// As configured.
    pub labels: BTreeMap<String, String>,
    /// As configured.
    pub annotations: BTreeMap<String, String>,
}
