//! `csi-snapshotter`: has the driver create and delete the snapshots that VolumeSnapshotContents stand for, and says in
//! their status what became of it.
//!
//! `content` decides, `shell` does. Before the driver is asked for a snapshot the content is marked; the mark goes
//! when the driver has given a final answer, so that no snapshot is lost whose answer was.

mod content;
mod explain;
mod shell;
mod status;

pub(crate) use explain::refusal;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use moorline_model::keys;
use moorline_model::snapshot::{API_VERSION, VolumeSnapshotClass, VolumeSnapshotContent};
use moorline_runtime::{Backoff, Cache, Change, Informers, Queue, Recorder, run_workers, until_served};
use tokio_util::sync::CancellationToken;

use crate::connection::DriverConnection;
use crate::discovery::ControllerCapability;
use crate::driver::{Driver, supervise};
use crate::{DiscoveryError, SidecarError};

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
            extra_create_metadata: false,
            node_name: None,
        }
    }

    /// The name of a snapshot in the backend.
    pub(crate) fn snapshot_name(&self, snapshot_uid: &str) -> String {
        match self.snapshot_name_uuid_length {
            None => format!("{}-{snapshot_uid}", self.snapshot_name_prefix),
            Some(length) => {
                let uid: String = snapshot_uid.chars().filter(|c| *c != '-').take(length).collect();
                format!("{}-{uid}", self.snapshot_name_prefix)
            }
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

/// Everything that work on contents needs.
pub(crate) struct Snapshotter {
    driver: Driver,
    config: SnapshotterConfig,
    client: Client,
    contents: Cache<VolumeSnapshotContent>,
    classes: Cache<VolumeSnapshotClass>,
    recorder: Recorder,
}

/// Runs the snapshotter for a discovered driver until `stop`. Waits, without limit, until the API server has the
/// snapshot kinds.
pub(crate) async fn serve(
    config: SnapshotterConfig,
    driver: Driver,
    informers: Informers,
    stop: CancellationToken,
) {
    if !driver.facts.can(ControllerCapability::CreateDeleteSnapshot) {
        stop.cancelled().await;
        return;
    }
    let kinds = ["VolumeSnapshotContent", "VolumeSnapshotClass"];
    if !until_served(informers.client(), API_VERSION, &kinds, &stop).await {
        return;
    }
    let workers = config.worker_threads;
    let queue = Queue::new(config.retry_interval)
        .observed(&driver.connection.metrics().queues, "csi-snapshotter-content");
    let component = format!("csi-snapshotter {}", driver.facts.driver_name);
    let recorder = Recorder::new(informers.client().clone(), &component, "", stop.clone());
    let snapshotter = Arc::new(Snapshotter {
        client: informers.client().clone(),
        contents: informers.cache(),
        classes: informers.cache(),
        recorder: recorder.clone(),
        driver,
        config,
    });
    let synced = async {
        snapshotter.contents.synced().await;
        snapshotter.classes.synced().await;
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => return,
        () = synced => {}
    }
    snapshotter.feed(&queue, &stop);
    run_workers(queue, workers, stop, move |name| {
        let snapshotter = snapshotter.clone();
        async move { snapshotter.reconcile(name).await }
    })
    .await;
    recorder.stopped().await;
}

impl Snapshotter {
    /// Puts into the queue what changes, now and until `stop`.
    fn feed(&self, queue: &Queue<String>, stop: &CancellationToken) {
        let on_contents = queue.clone();
        let driver_name = self.driver.facts.driver_name.clone();
        self.contents.on_change_until(stop.clone(), move |change| {
            let content = change.object();
            if content.spec.driver != driver_name {
                return;
            }
            let name = content.metadata.name.clone().unwrap_or_default();
            match change {
                Change::Added(_) => on_contents.add(name),
                Change::Updated { old, new } if is_news(old, new) => on_contents.add(name),
                // Of our own making: taking it for news would defeat the backoff, and the polling.
                Change::Updated { .. } | Change::Removed(_) => {}
            }
        });
        let (on_classes, contents) = (queue.clone(), self.contents.clone());
        self.classes.on_change_until(stop.clone(), move |change| {
            // Contents that failed may have been waiting for their class.
            let class_name = &change.object().metadata.name;
            let held = contents.list();
            held.iter()
                .filter(|content| content.spec.volume_snapshot_class_name == *class_name)
                .filter_map(|content| content.metadata.name.clone())
                .filter(|name| on_classes.failures(name) > 0)
                .for_each(|name| on_classes.add(name));
        });
    }
}

fn is_news(old: &VolumeSnapshotContent, new: &VolumeSnapshotContent) -> bool {
    let is_ready = |content: &VolumeSnapshotContent| {
        content.status.as_ref().and_then(|status| status.ready_to_use) == Some(true)
    };
    old.spec != new.spec
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.metadata.labels != new.metadata.labels
        || others_annotations(old) != others_annotations(new)
        || (is_ready(new) && !is_ready(old))
}

/// All but the mark, which is ours.
fn others_annotations(content: &VolumeSnapshotContent) -> Vec<(&String, &String)> {
    let all = content.metadata.annotations.iter().flatten();
    all.filter(|(key, _)| *key != keys::SNAPSHOT_BEING_CREATED)
        .collect()
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
    }
}
