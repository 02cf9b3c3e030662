//! What the provisioner can be told. Names and defaults are those of upstream's flags.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use moorline_runtime::Backoff;

/// Settings of one provisioner.
#[derive(Clone, Debug)]
pub struct ProvisionerConfig {
    /// The driver's socket, a path or `unix://` URL.
    pub csi_address: String,
    /// Deadline of each call to the driver.
    pub timeout: Duration,
    /// Claims worked on at once, and as many volumes to delete.
    pub worker_threads: usize,
    /// Between the tries for one claim or volume.
    pub retry_interval: Backoff,
    /// Names of volumes and PVs begin with it.
    pub volume_name_prefix: String,
    /// Length of the claim's UID in names, without dashes; `None` keeps it as it is.
    pub volume_name_uuid_length: Option<usize>,
    /// Filesystem type where the class gives none.
    pub default_fs_type: Option<String>,
    /// The driver is told the names of claim and PV in its parameters.
    pub extra_create_metadata: bool,
    /// Whether the driver's topology counts (gate `Topology`).
    pub topology: bool,
    /// Delayed binding asks for the selected node's segment only.
    pub strict_topology: bool,
    /// Immediate binding asks for all segments of the cluster.
    pub immediate_topology: bool,
    /// PVs whose only capability is MULTI_NODE_READER_ONLY get `csi.readOnly`.
    pub controller_publish_readonly: bool,
    /// A restore has the snapshot's volume mode, unless an admin allowed another on the content.
    pub prevent_volume_mode_conversion: bool,
    /// Claims may be filled from sources of other namespaces that a ReferenceGrant there allows (gate
    /// `CrossNamespaceVolumeDataSource`).
    pub cross_namespace_sources: bool,
    /// Publishes CSIStorageCapacity objects, if set.
    pub capacity: Option<CapacityConfig>,
    /// One provisioner per node: the node whose claims it takes.
    pub node_name: Option<String>,
    /// With [`Self::node_name`]: whether the node bids for claims with immediate binding, which no scheduler assigns.
    pub node_immediate_binding: bool,
    /// Between the bids for one claim; the first one waits, too, so that not all nodes come at once.
    pub node_bid_interval: Backoff,
    /// Namespace of the ConfigMaps that hold what is being asked of the driver; `None` takes the client's own: the pod's
    /// namespace, or that of the kubeconfig's context. Must stay the same over restarts.
    pub ledger_namespace: Option<String>,
}

/// Settings of the CSIStorageCapacity producer.
#[derive(Clone, Debug)]
pub struct CapacityConfig {
    /// Namespace of the objects.
    pub namespace: String,
    /// Between two looks at the driver's free space.
    pub poll_interval: Duration,
    /// Classes with immediate binding get objects, too.
    pub for_immediate_binding: bool,
    /// Owner of the objects, so that they go when it goes: the pod or Deployment of the provisioner.
    pub owner: Option<OwnerReference>,
}

impl CapacityConfig {
    /// Upstream's defaults, but without owner.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            poll_interval: Duration::from_secs(60),
            for_immediate_binding: false,
            owner: None,
        }
    }
}

impl ProvisionerConfig {
    /// Upstream's defaults, for a driver at that address.
    pub fn new(csi_address: impl Into<String>) -> Self {
        Self {
            csi_address: csi_address.into(),
            timeout: Duration::from_secs(10),
            worker_threads: 100,
            retry_interval: Backoff {
                min: Duration::from_secs(1),
                max: Duration::from_secs(300),
            },
            volume_name_prefix: moorline_model::names::PV_NAME_PREFIX.to_string(),
            volume_name_uuid_length: None,
            default_fs_type: None,
            extra_create_metadata: false,
            topology: true,
            strict_topology: false,
            immediate_topology: true,
            controller_publish_readonly: false,
            prevent_volume_mode_conversion: true,
            cross_namespace_sources: false,
            capacity: None,
            node_name: None,
            node_immediate_binding: true,
            node_bid_interval: Backoff {
                min: Duration::from_secs(20),
                max: Duration::from_secs(60),
            },
            ledger_namespace: None,
        }
    }

    /// The name of a claim's volume and PV.
    pub(crate) fn volume_name(&self, claim_uid: &str) -> String {
        match self.volume_name_uuid_length {
            None => format!("{}-{claim_uid}", self.volume_name_prefix),
            Some(length) => {
                let uid: String = claim_uid.chars().filter(|c| *c != '-').take(length).collect();
                format!("{}-{uid}", self.volume_name_prefix)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_names() {
        let mut config = ProvisionerConfig::new("/csi.sock");
        assert_eq!(
            config.volume_name("ab-cd"),
            moorline_model::names::pv_name("ab-cd")
        );
        config.volume_name_prefix = "vol".into();
        config.volume_name_uuid_length = Some(3);
        assert_eq!(config.volume_name("ab-cd"), "vol-abc");
    }
}
