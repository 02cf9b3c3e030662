//! Putting a driver together and serving it. What is given to the builder is what gets advertised.

use std::{fmt, sync::Arc, time::Duration};

use moorline_proto::csi::{
    controller_server::ControllerServer, group_controller_server::GroupControllerServer,
    identity_server::IdentityServer, node_server::NodeServer,
    snapshot_metadata_server::SnapshotMetadataServer,
};
use thiserror::Error;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::transport::Server;

use crate::{
    endpoint::{Listener, UnixSocket},
    look_out::{Calls, look_out},
    metrics::{Observe, OperationMetrics},
    operations::Operations,
    server::{
        ControllerService, GroupControllerService, IdentityService, NodeService, SnapshotMetadataService,
    },
    traits::{
        Attachment, Capacity, ExpansionTime, GroupSnapshots, Modification, NodeExpansion, NodePublishing,
        NodeStaging, NodeStats, Readiness, SnapshotListing, SnapshotLookup, SnapshotMetadata, Snapshots,
        VolumeExpansion, VolumeListing, VolumeLookup, Volumes,
    },
};

/// How long running operations may take after the driver was asked to stop.
pub const GRACE_PERIOD_DEFAULT: Duration = Duration::from_secs(25);

/// How long callers that ask nothing may take to hang up once they were told to.
const LINGER: Duration = Duration::from_secs(1);

/// Who the driver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverInfo {
    /// Its name, such as `local.csi.moorline.dev`.
    pub name: String,
    /// Its own version.
    pub vendor_version: String,
    /// Whatever else is worth telling.
    pub manifest: Vec<(String, String)>,
}

impl DriverInfo {
    /// Name and version.
    pub fn new(name: impl Into<String>, vendor_version: impl Into<String>) -> Self {
        DriverInfo {
            name: name.into(),
            vendor_version: vendor_version.into(),
            manifest: Vec::new(),
        }
    }
}

/// What the driver implements.
#[derive(Clone, Default)]
pub(crate) struct Groups {
    pub(crate) readiness: Option<Arc<dyn Readiness>>,
    pub(crate) volumes: Option<Arc<dyn Volumes>>,
    pub(crate) capacity: Option<Arc<dyn Capacity>>,
    pub(crate) listing: Option<Arc<dyn VolumeListing>>,
    pub(crate) lookup: Option<Arc<dyn VolumeLookup>>,
    pub(crate) expansion: Option<Arc<dyn VolumeExpansion>>,
    pub(crate) modification: Option<Arc<dyn Modification>>,
    pub(crate) attachment: Option<Arc<dyn Attachment>>,
    pub(crate) snapshots: Option<Arc<dyn Snapshots>>,
    pub(crate) snapshot_listing: Option<Arc<dyn SnapshotListing>>,
    pub(crate) snapshot_lookup: Option<Arc<dyn SnapshotLookup>>,
    pub(crate) group_snapshots: Option<Arc<dyn GroupSnapshots>>,
    pub(crate) snapshot_metadata: Option<Arc<dyn SnapshotMetadata>>,
    pub(crate) node: Option<Arc<dyn NodePublishing>>,
    pub(crate) staging: Option<Arc<dyn NodeStaging>>,
    pub(crate) stats: Option<Arc<dyn NodeStats>>,
    pub(crate) node_expansion: Option<Arc<dyn NodeExpansion>>,
    pub(crate) has_topology: bool,
    pub(crate) has_single_node_modes: bool,
    pub(crate) elsewhere: ServedElsewhere,
}

/// What other processes of the same driver serve. GetPluginCapabilities tells of the driver as a whole: CSI wants all
/// processes of one version to give the same answer, whichever services they serve themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServedElsewhere {
    /// The controller service.
    pub controller: bool,
    /// How its volumes grow, if they do.
    pub expansion: Option<ExpansionTime>,
    /// The group controller service.
    pub group_controller: bool,
    /// The snapshot metadata service.
    pub snapshot_metadata: bool,
}

/// A driver, ready to be served.
pub struct Driver {
    info: DriverInfo,
    groups: Groups,
    metrics: Option<OperationMetrics>,
    busy_poll: Duration,
}

/// Collects the parts of a driver. Controller groups besides `volumes` need `volumes`, node groups need `node`: the
/// builder's types see to that.
pub struct DriverBuilder {
    info: DriverInfo,
    groups: Groups,
    metrics: Option<OperationMetrics>,
    busy_poll: Duration,
}

/// Adds controller groups; made by [`DriverBuilder::volumes`].
pub struct ControllerGroups<'a>(&'a mut Groups);

/// Adds node groups; made by [`DriverBuilder::node`].
pub struct NodeGroups<'a>(&'a mut Groups);

impl Driver {
    /// Begins with who the driver is.
    pub fn builder(info: DriverInfo) -> DriverBuilder {
        DriverBuilder {
            info,
            groups: Groups::default(),
            metrics: None,
            busy_poll: Duration::ZERO,
        }
    }
}

impl DriverBuilder {
    /// Answers Probe; without it the driver is always ready.
    #[must_use]
    pub fn readiness(mut self, readiness: Arc<dyn Readiness>) -> Self {
        self.groups.readiness = Some(readiness);
        self
    }

    /// Volumes are reachable from some places only: VOLUME_ACCESSIBILITY_CONSTRAINTS.
    #[must_use]
    pub fn topology(mut self) -> Self {
        self.groups.has_topology = true;
        self
    }

    /// The driver tells one workload on a node from many: SINGLE_NODE_MULTI_WRITER of both services. Without it the
    /// two access modes that need it are refused.
    #[must_use]
    pub fn single_node_modes(mut self) -> Self {
        self.groups.has_single_node_modes = true;
        self
    }

    /// Serves the controller service; `more` adds optional groups.
    #[must_use]
    pub fn volumes(mut self, volumes: Arc<dyn Volumes>, more: impl FnOnce(ControllerGroups<'_>)) -> Self {
        self.groups.volumes = Some(volumes);
        more(ControllerGroups(&mut self.groups));
        self
    }

    /// Serves the group controller service.
    #[must_use]
    pub fn group_snapshots(mut self, group_snapshots: Arc<dyn GroupSnapshots>) -> Self {
        self.groups.group_snapshots = Some(group_snapshots);
        self
    }

    /// Serves the snapshot metadata service.
    #[must_use]
    pub fn snapshot_metadata(mut self, snapshot_metadata: Arc<dyn SnapshotMetadata>) -> Self {
        self.groups.snapshot_metadata = Some(snapshot_metadata);
        self
    }

    /// Serves the node service; `more` adds optional groups.
    #[must_use]
    pub fn node(mut self, node: Arc<dyn NodePublishing>, more: impl FnOnce(NodeGroups<'_>)) -> Self {
        self.groups.node = Some(node);
        more(NodeGroups(&mut self.groups));
        self
    }

    /// Measures calls.
    #[must_use]
    pub fn metrics(mut self, metrics: OperationMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Keeps the thread awake for so long after each of many calls that come one after the other: to wake it takes longer
    /// than most answers. For runtimes of one thread on a machine of several processors; zero, the default, is off.
    #[must_use]
    pub fn busy_poll(mut self, span: Duration) -> Self {
        self.busy_poll = span;
        self
    }

    #[cfg(feature = "cli")]
    pub(crate) fn shared_readiness(&self) -> Option<Arc<dyn Readiness>> {
        self.groups.readiness.clone()
    }

    #[cfg(test)]
    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Other processes of this driver serve these; this one says so of the driver as a whole.
    #[must_use]
    pub fn elsewhere(mut self, elsewhere: ServedElsewhere) -> Self {
        self.groups.elsewhere = elsewhere;
        self
    }

    /// The driver.
    pub fn build(self) -> Driver {
        Driver {
            info: self.info,
            groups: self.groups,
            metrics: self.metrics,
            busy_poll: self.busy_poll,
        }
    }
}

macro_rules! group {
    ($(#[$doc:meta])* $name:ident, $group:ident) => {
        $(#[$doc])*
        #[must_use = "groups are added to the builder that made this"]
        pub fn $name(self, group: Arc<dyn $group>) -> Self {
            self.0.$name = Some(group);
            self
        }
    };
}

impl ControllerGroups<'_> {
    group!(
        /// GET_CAPACITY.
        capacity, Capacity
    );
    group!(
        /// LIST_VOLUMES.
        listing, VolumeListing
    );
    group!(
        /// GET_VOLUME.
        lookup, VolumeLookup
    );
    group!(
        /// EXPAND_VOLUME.
        expansion, VolumeExpansion
    );
    group!(
        /// MODIFY_VOLUME.
        modification, Modification
    );
    group!(
        /// PUBLISH_UNPUBLISH_VOLUME.
        attachment, Attachment
    );
    group!(
        /// CREATE_DELETE_SNAPSHOT.
        snapshots, Snapshots
    );
    group!(
        /// LIST_SNAPSHOTS.
        snapshot_listing, SnapshotListing
    );
    group!(
        /// GET_SNAPSHOT.
        snapshot_lookup, SnapshotLookup
    );

    /// That is all.
    pub fn done(self) {}
}

impl NodeGroups<'_> {
    group!(
        /// STAGE_UNSTAGE_VOLUME.
        staging, NodeStaging
    );
    group!(
        /// GET_VOLUME_STATS.
        stats, NodeStats
    );
    group!(
        /// EXPAND_VOLUME.
        node_expansion, NodeExpansion
    );

    /// That is all.
    pub fn done(self) {}
}

/// Why a driver stopped serving.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("serve gRPC")]
    Transport(#[from] tonic::transport::Error),
    /// The socket was taken out of the listener before.
    #[error("the listener has no socket any more")]
    NoSocket,
    /// Operations did not end in time.
    #[error("operations were still running {} s after the stop: {}", grace.as_secs(), operations.join(", "))]
    GraceExceeded {
        /// The time they had.
        grace: Duration,
        /// Which.
        operations: Vec<String>,
    },
}

impl Driver {
    /// Serves until `stop`, then takes no new work, lets the running operations finish within `grace`, and returns.
    ///
    /// # Errors
    /// When the transport fails, or operations outlast the grace period; they are then named.
    pub async fn serve(
        self,
        listener: Listener,
        grace: Duration,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let operations = Operations::new(stop.clone());
        let groups = Arc::new(self.groups);
        let identity = IdentityService::new(self.info, Arc::clone(&groups), operations.clone());
        let controller = controller_server(&groups, &operations);
        let node = node_server(&groups, &operations);
        let group_controller = groups.group_snapshots.clone().map(|group_snapshots| {
            GroupControllerServer::new(GroupControllerService::new(group_snapshots, operations.clone()))
        });
        let snapshot_metadata = groups.snapshot_metadata.clone().map(|snapshot_metadata| {
            SnapshotMetadataServer::new(SnapshotMetadataService::new(
                snapshot_metadata,
                operations.clone(),
            ))
        });
        let mut server = Server::builder();
        if let Listener::Tcp { tls: Some(tls), .. } = &listener {
            server = server.tls_config(tls.config.clone())?;
        }
        let calls = Arc::new(Calls::default());
        let router = server
            .layer(Observe {
                metrics: self.metrics,
                calls: Arc::clone(&calls),
            })
            .add_service(IdentityServer::new(identity))
            .add_optional_service(controller)
            .add_optional_service(group_controller)
            .add_optional_service(snapshot_metadata)
            .add_optional_service(node);
        let stopped = stop.clone().cancelled_owned();
        // On the heap: the transport's future is large, and callers hold this one.
        let serving = Box::pin(async {
            match listener {
                Listener::Unix(mut socket) => {
                    let incoming = UnixListenerStream::new(take(&mut socket)?);
                    router.serve_with_incoming_shutdown(incoming, stopped).await?;
                    drop(socket); // Only now: the file stays as long as somebody answers there.
                }
                Listener::Tcp { listener, .. } => {
                    router
                        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
                        .await?;
                }
            }
            operations.drained().await;
            Ok(())
        });
        // Who has an open connection and asks nothing is told to go; one that stays is not waited for.
        let idle = async {
            stop.cancelled().await;
            operations.drained().await;
            tokio::time::sleep(LINGER).await;
        };
        let too_late = async {
            stop.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        let _awake = keep_awake(calls, self.busy_poll);
        tokio::select! {
            biased;
            served = serving => served,
            () = idle => Ok(()),
            () = too_late => Err(ServeError::GraceExceeded { grace, operations: operations.describe() }),
        }
    }
}

fn controller_server(
    groups: &Arc<Groups>,
    operations: &Operations,
) -> Option<ControllerServer<ControllerService>> {
    let volumes = groups.volumes.clone()?;
    let service = ControllerService::new(volumes, Arc::clone(groups), operations.clone());
    Some(ControllerServer::new(service))
}

fn node_server(groups: &Arc<Groups>, operations: &Operations) -> Option<NodeServer<NodeService>> {
    let node = groups.node.clone()?;
    let service = NodeService::new(node, Arc::clone(groups), operations.clone());
    Some(NodeServer::new(service))
}

/// Looks out for calls until the guard is dropped.
fn keep_awake(calls: Arc<Calls>, span: Duration) -> Option<DropGuard> {
    if span.is_zero() {
        return None;
    }
    let end = CancellationToken::new();
    let guard = end.clone().drop_guard();
    // A task of its own, so that the others are left in peace.
    TaskTracker::new().spawn(async move { end.run_until_cancelled(look_out(&calls, span)).await });
    Some(guard)
}

fn take(socket: &mut UnixSocket) -> Result<tokio::net::UnixListener, ServeError> {
    socket.listener.take().ok_or(ServeError::NoSocket)
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let served = [
            ("volumes", self.volumes.is_some()),
            ("capacity", self.capacity.is_some()),
            ("listing", self.listing.is_some()),
            ("lookup", self.lookup.is_some()),
            ("expansion", self.expansion.is_some()),
            ("modification", self.modification.is_some()),
            ("attachment", self.attachment.is_some()),
            ("snapshots", self.snapshots.is_some()),
            ("snapshot_listing", self.snapshot_listing.is_some()),
            ("snapshot_lookup", self.snapshot_lookup.is_some()),
            ("group_snapshots", self.group_snapshots.is_some()),
            ("snapshot_metadata", self.snapshot_metadata.is_some()),
            ("node", self.node.is_some()),
            ("staging", self.staging.is_some()),
            ("stats", self.stats.is_some()),
            ("node_expansion", self.node_expansion.is_some()),
            ("topology", self.has_topology),
            ("single_node_modes", self.has_single_node_modes),
        ];
        f.debug_set()
            .entries(served.iter().filter(|(_, on)| *on).map(|(name, _)| name))
            .finish()
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("info", &self.info)
            .field("groups", &self.groups)
            .finish()
    }
}

impl fmt::Debug for DriverBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverBuilder")
            .field("info", &self.info)
            .field("groups", &self.groups)
            .finish()
    }
}

impl fmt::Debug for ControllerGroups<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for NodeGroups<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
