//! `csi-snapshotter`: has the driver create and delete the snapshots that VolumeSnapshotContents stand for, and the groups
//! of snapshots that VolumeGroupSnapshotContents stand for, and says in their status what became of it.
//!
//! `content` and `group` decide, `shell` does. Before the driver is asked for a snapshot the content is marked; the mark
//! goes when the driver has given a final answer, so that no snapshot is lost whose answer was.

mod content;
mod explain;
mod group;
mod kind;
mod kinds;
mod shell;
mod stage;
mod status;

pub(crate) use explain::refusal;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource as _};
use moorline_model::{group_snapshot, snapshot};
use moorline_runtime::{
    Backoff, Cache, Change, Informers, Queue, Recorder, Watchable, run_workers, until_served,
};
use tokio_util::sync::CancellationToken;

use crate::connection::DriverConnection;
use crate::discovery::ControllerCapability;
use crate::driver::{Driver, supervise};
use crate::{DiscoveryError, SidecarError};
use kind::{Content, Kind};
use kinds::{Groups, Snapshots};

/// Settings of one snapshotter. Names and defaults are those of upstream's flags.
#[derive(Clone, Debug)]
pub struct SnapshotterConfig {
    /// The driver's socket, a path or `unix://` URL.
    pub csi_address: String,
    /// Deadline of each call to the driver.
    pub timeout: Duration,
    /// Contents worked on at once.
    pub worker_threads: usize,
    /// Between the tries for one content.
    pub retry_interval: Backoff,
    /// Names of snapshots begin with it.
    pub snapshot_name_prefix: String,
    /// Length of the snapshot's UID in names, without dashes; `None` keeps it as it is.
    pub snapshot_name_uuid_length: Option<usize>,
    /// Group snapshots are taken, if the driver can (the gate `CSIVolumeGroupSnapshot`).
    pub serves_groups: bool,
    /// Names of group snapshots begin with it.
    pub group_snapshot_name_prefix: String,
    /// As for snapshots.
    pub group_snapshot_name_uuid_length: Option<usize>,
    /// The driver is told the names of snapshot and content in its parameters.
    pub extra_create_metadata: bool,
    /// One snapshotter per node: the node whose contents it takes, by their label `managed-by`; `None` takes all.
    pub node_name: Option<String>,
}

impl SnapshotterConfig {
    /// Upstream's defaults, for a driver at that address.
    pub fn new(csi_address: impl Into<String>) -> Self {
        Self {
            csi_address: csi_address.into(),
            timeout: Duration::from_secs(60),
            worker_threads: 10,
            retry_interval: Backoff {
                min: Duration::from_secs(1),
                max: Duration::from_secs(300),
            },
            snapshot_name_prefix: "snapshot".to_string(),
            snapshot_name_uuid_length: None,
            serves_groups: true,
            group_snapshot_name_prefix: "groupsnapshot".to_string(),
            group_snapshot_name_uuid_length: None,
            extra_create_metadata: false,
            node_name: None,
        }
    }

    /// The name of a snapshot in the backend.
    pub(crate) fn snapshot_name(&self, snapshot_uid: &str) -> String {
        name(
            &self.snapshot_name_prefix,
            snapshot_uid,
            self.snapshot_name_uuid_length,
        )
    }

    /// The name of a group snapshot in the backend.
    pub(crate) fn group_snapshot_name(&self, group_uid: &str) -> String {
        name(
            &self.group_snapshot_name_prefix,
            group_uid,
            self.group_snapshot_name_uuid_length,
        )
    }
}

fn name(prefix: &str, uid: &str, length: Option<usize>) -> String {
    match length {
        None => format!("{prefix}-{uid}"),
        Some(length) => {
            let uid: String = uid.chars().filter(|c| *c != '-').take(length).collect();
            format!("{prefix}-{uid}")
        }
    }
}

/// Runs the snapshotter for one driver until `stop`, with a connection of its own. A driver without snapshots is left
/// alone.
///
/// # Errors
/// Final: the driver's address is wrong, or it refuses discovery.
pub async fn run(
    config: SnapshotterConfig,
    informers: Informers,
    stop: CancellationToken,
) -> Result<(), SidecarError> {
    let connection = DriverConnection::new(&config.csi_address)?;
    run_on(&connection, config, informers, stop).await?;
    Ok(())
}

/// The same, over a connection that is there; the address in `config` is not used.
///
/// # Errors
/// Final: the driver refuses discovery.
pub async fn run_on(
    connection: &DriverConnection,
    config: SnapshotterConfig,
    informers: Informers,
    stop: CancellationToken,
) -> Result<(), DiscoveryError> {
    supervise(connection, config.timeout, &stop, |driver, stop| {
        serve(config.clone(), driver, informers.clone(), stop)
    })
    .await
}

/// Everything that work on contents of one kind needs.
pub(crate) struct Work<K: Kind> {
    kind: K,
    driver: Driver,
    config: SnapshotterConfig,
    client: Client,
    contents: Cache<K::Content>,
    recorder: Recorder,
}

/// Runs the snapshotter for a discovered driver until `stop`. Waits, without limit, until the API server has the kinds, of
/// snapshots and of groups each for itself.
pub(crate) async fn serve(
    config: SnapshotterConfig,
    driver: Driver,
    informers: Informers,
    stop: CancellationToken,
) {
    let takes_groups = config.serves_groups && driver.facts.takes_groups;
    if !driver.facts.can(ControllerCapability::CreateDeleteSnapshot) && !takes_groups {
        stop.cancelled().await;
        return;
    }
    let component = format!("csi-snapshotter {}", driver.facts.driver_name);
    let recorder = Recorder::new(informers.client().clone(), &component, "", stop.clone());
    let on_snapshots = async {
        let kinds = ["VolumeSnapshotContent", "VolumeSnapshotClass"];
        if until_served(informers.client(), snapshot::API_VERSION, &kinds, &stop).await {
            let classes = informers.cache();
            let kind = Snapshots {
                classes: classes.clone(),
            };
            let work = Work::new(kind, &config, &driver, &informers, &recorder);
            Box::pin(work.run(&classes, stop.clone())).await;
        }
    };
    // The contents of their members are the other half's.
    let on_groups = async {
        let kinds = ["VolumeGroupSnapshotContent", "VolumeGroupSnapshotClass"];
        if takes_groups && until_served(informers.client(), group_snapshot::API_VERSION, &kinds, &stop).await
        {
            let classes = informers.cache();
            let kind = Groups {
                classes: classes.clone(),
            };
            let work = Work::new(kind, &config, &driver, &informers, &recorder);
            Box::pin(work.run(&classes, stop.clone())).await;
        }
    };
    futures::future::join(on_snapshots, on_groups).await;
    recorder.stopped().await;
}

impl<K: Kind> Work<K>
where
    K::Content: Watchable,
{
    fn new(
        kind: K,
        config: &SnapshotterConfig,
        driver: &Driver,
        informers: &Informers,
        recorder: &Recorder,
    ) -> Arc<Self> {
        Arc::new(Self {
            kind,
            driver: driver.clone(),
            config: config.clone(),
            client: informers.client().clone(),
            contents: informers.cache(),
            recorder: recorder.clone(),
        })
    }

    /// Works until `stop`, given the cache of the kind's classes.
    async fn run<C>(self: Arc<Self>, classes: &Cache<C>, stop: CancellationToken)
    where
        C: kube::Resource<DynamicType = ()> + Send + Sync + 'static,
    {
        let queue = Queue::new(self.config.retry_interval)
            .observed(&self.driver.connection.metrics().queues, K::NAMES.queue);
        let synced = async {
            self.contents.synced().await;
            classes.synced().await;
        };
        if stop.run_until_cancelled(synced).await.is_none() {
            return;
        }
        self.feed(classes, &queue, &stop);
        let workers = self.config.worker_threads;
        run_workers(queue, workers, stop, move |name| {
            let work = self.clone();
            async move { work.reconcile(name).await }
        })
        .await;
    }

    /// Puts into the queue what changes, now and until `stop`.
    fn feed<C>(&self, classes: &Cache<C>, queue: &Queue<String>, stop: &CancellationToken)
    where
        C: kube::Resource<DynamicType = ()> + Send + Sync + 'static,
    {
        let on_contents = queue.clone();
        let driver_name = self.driver.facts.driver_name.clone();
        self.contents.on_change_until(stop.clone(), move |change| {
            let content = change.object();
            if content.driver() != driver_name {
                return;
            }
            let name = content.meta().name.clone().unwrap_or_default();
            match change {
                Change::Added(_) => on_contents.add(name),
                Change::Updated { old, new } if is_news::<K>(old, new) => on_contents.add(name),
                // Of our own making: taking it for news would defeat the backoff, and the polling.
                Change::Updated { .. } | Change::Removed(_) => {}
            }
        });
        let (on_classes, contents) = (queue.clone(), self.contents.clone());
        classes.on_change_until(stop.clone(), move |change| {
            // Contents that failed may have been waiting for their class.
            let class_name = change.object().meta().name.as_deref();
            let held = contents.list();
            held.iter()
                .filter(|content| content.class_name() == class_name)
                .filter_map(|content| content.meta().name.clone())
                .filter(|name| on_classes.failures(name) > 0)
                .for_each(|name| on_classes.add(name));
        });
    }
}

fn is_news<K: Kind>(old: &K::Content, new: &K::Content) -> bool {
    let (was, is) = (old.meta(), new.meta());
    !new.has_spec_of(old)
        || was.deletion_timestamp != is.deletion_timestamp
        || was.labels != is.labels
        || others_annotations::<K>(was) != others_annotations::<K>(is)
        || (new.is_ready() && !old.is_ready())
}

/// All but the mark, which is ours.
fn others_annotations<K: Kind>(meta: &ObjectMeta) -> Vec<(&String, &String)> {
    let all = meta.annotations.iter().flatten();
    all.filter(|(key, _)| *key != K::NAMES.mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_names() {
        let mut config = SnapshotterConfig::new("/csi.sock");
        assert_eq!(config.snapshot_name("ab-cd"), "snapshot-ab-cd");
        config.snapshot_name_prefix = "s".into();
        config.snapshot_name_uuid_length = Some(3);
        assert_eq!(config.snapshot_name("ab-cd"), "s-abc");
        assert_eq!(config.group_snapshot_name("ab-cd"), "groupsnapshot-ab-cd");
    }
}
