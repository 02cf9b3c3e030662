//! What a kubelet is told at its start; checked types, no defaults hidden elsewhere.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Configuration of one kubelet.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// What is `/var/lib/kubelet` elsewhere.
    pub root_dir: PathBuf,
    /// What is `/var/log/pods` elsewhere.
    pub log_dir: PathBuf,
    /// Where the kubelet's HTTPS port listens; port 0 takes a free one, which the Node object then names.
    pub listen: SocketAddr,
    /// Certificates of the HTTPS port.
    pub serving: ServingIdentity,
    /// Address of the node, also of its pods: they share the machine's network.
    pub node_ip: IpAddr,
    /// Labels put on the Node object beyond the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Pods the node takes at most.
    pub max_pods: u32,
    /// Version shown in the Node object.
    pub version: String,
    /// Periods and patience.
    pub timings: Timings,
}

/// What the HTTPS port shows and whom it lets in.
#[derive(Clone)]
pub struct ServingIdentity {
    /// Certificate chain, PEM.
    pub certificate_pem: String,
    /// Private key, PEM.
    pub key_pem: String,
    /// Authorities whose client certificates are let in, PEM.
    pub client_ca_pem: String,
}

impl std::fmt::Debug for ServingIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServingIdentity").finish_non_exhaustive()
    }
}

/// Periods and patience; the defaults are upstream's where upstream has them.
#[derive(Debug, Clone)]
pub struct Timings {
    /// How often the Lease is renewed.
    pub lease_renew_interval: Duration,
    /// How long others take the Lease for valid.
    pub lease_duration: Duration,
    /// Node status is written this often even when nothing changed.
    pub node_status_report_interval: Duration,
    /// Deadline of a CSI node call.
    pub csi_call_timeout: Duration,
    /// After this time without volumes a pod gets a `FailedMount` event that lists them.
    pub volume_wait_timeout: Duration,
    /// First wait after a failed volume operation; doubles.
    pub volume_retry_interval_min: Duration,
    /// Longest wait after failed volume operations.
    pub volume_retry_interval_max: Duration,
    /// Volumes that must be published again and again are, this often.
    pub republish_interval: Duration,
    /// First wait before a crashed container or a failed image is tried again; doubles.
    pub restart_backoff_min: Duration,
    /// Longest such wait; a container that ran twice as long starts anew.
    pub restart_backoff_max: Duration,
    /// How old cached volume statistics may get before a scrape asks the driver again.
    pub volume_stats_max_age: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            lease_renew_interval: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            node_status_report_interval: Duration::from_secs(300),
            csi_call_timeout: Duration::from_secs(120),
            volume_wait_timeout: Duration::from_secs(123),
            volume_retry_interval_min: Duration::from_millis(500),
            volume_retry_interval_max: Duration::from_secs(122),
            republish_interval: Duration::from_secs(60),
            restart_backoff_min: Duration::from_secs(10),
            restart_backoff_max: Duration::from_secs(300),
            volume_stats_max_age: Duration::from_secs(60),
        }
    }
}
