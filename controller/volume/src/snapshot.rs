//! The snapshot controller: binds VolumeSnapshots and VolumeSnapshotContents to each other, has contents made, and sees
//! to it that things are deleted in the right order. What the driver has to do is the sidecar's part.
//!
//! ```text
//!   VolumeSnapshot -- dynamic --> finalizers -> claim held -> content made --+
//!         |                                                                 v
//!         +------- static -------------------------> content bound --> status copied -> ready
//!
//!   deleted:  content marked -> content deleted (policy Delete) -> content gone -> finalizers removed
//! ```
//!
//! [`group`] is the same for several snapshots at one moment.

mod binding;
mod claim_hold;
mod content_sync;
pub mod group;
mod shell;
mod snapshot_sync;
mod source;
mod status;
mod watch;
mod why;
mod writes;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use moorline_model::snapshot::{
    API_VERSION, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent, sources_of,
};
use moorline_runtime::{Backoff, Index, Informers, Queue, Recorder, run_workers, until_served};
use tokio_util::sync::CancellationToken;

pub use claim_hold::{Hold, group_hold, is_waiting, may_release};
pub use content_sync::{ContentNext, decide as decide_content, decide_group as decide_group_content};
pub use snapshot_sync::{Next, Seen, Step, decide as decide_snapshot};
pub use status::{News, project, project_group};
pub use why::Why;

use crate::key::ObjectKey;
use crate::told::Told;
use shell::Snapshots;

/// Settings of the controller. Names and defaults are those of upstream's flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// Snapshots worked on at once, and as many contents.
    pub worker_threads: usize,
    /// Between the tries for one object.
    pub retry_interval: Backoff,
    /// Contents remember their source's volume mode, so that restoring into another one can be refused.
    pub prevent_volume_mode_conversion: bool,
    /// Contents are labelled with the node that their volume is on, for the snapshotter there (`--node-deployment`).
    pub is_distributed: bool,
    /// Group snapshots are served, as soon as the API server has their kinds (the gate `CSIVolumeGroupSnapshot`).
    pub serves_groups: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            worker_threads: 10,
            retry_interval: Backoff {
                min: Duration::from_secs(1),
                max: Duration::from_secs(300),
            },
            prevent_volume_mode_conversion: true,
            is_distributed: false,
            serves_groups: true,
        }
    }
}

/// Runs the controller until `stop`; writes under way are finished. Waits, without limit, until the API server has the
/// snapshot kinds.
pub async fn run(config: Config, informers: Informers, stop: CancellationToken) {
    let kinds = ["VolumeSnapshot", "VolumeSnapshotContent", "VolumeSnapshotClass"];
    if !until_served(informers.client(), API_VERSION, &kinds, &stop).await {
        return;
    }
    let workers = config.worker_threads;
    let recorder = Recorder::new(
        informers.client().clone(),
        "snapshot-controller",
        "",
        stop.clone(),
    );
    let snapshots = informers.cache::<VolumeSnapshot>();
    let contents = informers.cache::<VolumeSnapshotContent>();
    let classes = informers.cache::<VolumeSnapshotClass>();
    let claims = informers.cache::<PersistentVolumeClaim>();
    let pvs = informers.cache::<PersistentVolume>();
    let nodes = config.is_distributed.then(|| informers.cache::<Node>());
    let all_synced = async {
        tokio::join!(
            snapshots.synced(),
            contents.synced(),
            classes.synced(),
            claims.synced(),
            pvs.synced(),
            async {
                if let Some(nodes) = &nodes {
                    nodes.synced().await;
                }
            }
        )
    };
    if stop.run_until_cancelled(all_synced).await.is_none() {
        return;
    }
    let controller = Arc::new(Snapshots {
        client: informers.client().clone(),
        by_claim: Index::new_until(&snapshots, stop.clone(), |snapshot: &VolumeSnapshot| {
            source_claim(snapshot)
                .map(|key| key.to_string())
                .into_iter()
                .collect()
        }),
        restores: Index::new_until(&claims, stop.clone(), |claim: &PersistentVolumeClaim| {
            let sources = sources_of(claim).into_iter();
            sources
                .map(|(namespace, name)| ObjectKey::new(namespace, name).to_string())
                .collect()
        }),
        snapshots,
        contents,
        classes,
        claims,
        pvs,
        nodes,
        snapshot_queue: Queue::new(config.retry_interval),
        content_queue: Queue::new(config.retry_interval),
        claim_queue: Queue::new(config.retry_interval),
        recorder: recorder.clone(),
        told: Told::default(),
        groups: OnceLock::new(),
        config,
    });
    Box::pin(serve(&controller, &informers, workers, stop)).await;
    recorder.stopped().await;
}

/// How long groups are waited for before the rest begins: what may not list them must not stop it.
const GROUPS_PATIENCE: Duration = Duration::from_secs(30);

/// Both halves until `stop`. Groups that are there are known before anything is done to their members and claims.
async fn serve(controller: &Arc<Snapshots>, informers: &Informers, workers: usize, stop: CancellationToken) {
    let serves_groups = controller.config.serves_groups;
    let beginning = group::Groups::begin(controller, informers, &stop);
    tokio::pin!(beginning);
    let mut groups = None;
    if serves_groups {
        match group::is_served(informers.client(), &stop).await {
            None => return,
            Some(false) => tracing::info!("Group snapshots wait until their kinds are served"),
            Some(true) => match tokio::time::timeout(GROUPS_PATIENCE, &mut beginning).await {
                Ok(None) => return,
                Ok(begun) => groups = begun,
                Err(_) => tracing::warn!("Group snapshots can't be listed; the others go on without"),
            },
        }
    }
    controller.feed(&stop);
    let on_groups = async {
        if groups.is_none() && serves_groups {
            groups = beginning.await;
        }
        if let Some(groups) = groups {
            groups.run(workers, stop.clone()).await;
        }
    };
    futures::future::join(on_groups, work(controller, workers, stop.clone())).await;
}

/// Works on the three queues until `stop`.
async fn work(controller: &Arc<Snapshots>, workers: usize, stop: CancellationToken) {
    let worker = controller.clone();
    let on_snapshots = run_workers(
        controller.snapshot_queue.clone(),
        workers,
        stop.clone(),
        move |key| {
            let worker = worker.clone();
            async move { worker.sync_snapshot(&key).await }
        },
    );
    let worker = controller.clone();
    let on_contents = run_workers(
        controller.content_queue.clone(),
        workers,
        stop.clone(),
        move |name| {
            let worker = worker.clone();
            async move { worker.sync_content(&name).await }
        },
    );
    let worker = controller.clone();
    let on_claims = run_workers(controller.claim_queue.clone(), workers, stop, move |key| {
        let worker = worker.clone();
        async move { worker.sync_claim(&key).await }
    });
    futures::future::join3(on_snapshots, on_contents, on_claims).await;
}

/// The claim that a snapshot is taken of.
fn source_claim(snapshot: &VolumeSnapshot) -> Option<ObjectKey> {
    let name = snapshot.spec.source.persistent_volume_claim_name.as_ref()?;
    let namespace = snapshot.metadata.namespace.clone().unwrap_or_default();
    Some(ObjectKey::new(namespace, name))
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
