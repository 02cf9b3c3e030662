//! `csi-resizer`: expands volumes whose claims ask for more, and modifies those whose claims ask for another class.

mod claim;
mod explain;
mod held;
mod modify;
mod shell;
mod status;
mod target;
mod write;

pub(crate) use explain::refusal;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Client;
use moorline_model::{keys, volume};
use moorline_runtime::{Backoff, Cache, Change, Informers, Queue, Recorder, run_workers};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::connection::DriverConnection;
use crate::driver::{Driver, supervise};
use crate::{DiscoveryError, SidecarError};
pub(crate) use claim::can_expand;

/// Settings of one resizer. Names and defaults are those of upstream's flags.
#[derive(Clone, Debug)]
pub struct ResizerConfig {
    /// The driver's socket, a path or `unix://` URL.
    pub csi_address: String,
    /// Deadline of each call to the driver.
    pub timeout: Duration,
    /// Claims worked on at once.
    pub workers: usize,
    /// Between the tries for one claim; the maximum is also how long an infeasible one rests.
    pub retry_interval: Backoff,
    /// Whether volumes are modified, too, where the driver can (gate `VolumeAttributesClass`).
    pub modifies: bool,
    /// The driver is told the names of claim and PV in `ControllerModifyVolume`.
    pub extra_modify_metadata: bool,
}

impl ResizerConfig {
    /// Upstream's defaults, for a driver at that address.
    pub fn new(csi_address: impl Into<String>) -> Self {
        Self {
            csi_address: csi_address.into(),
            timeout: Duration::from_secs(10),
            workers: 10,
            retry_interval: Backoff {
                min: Duration::from_secs(1),
                max: Duration::from_secs(300),
            },
            modifies: true,
            extra_modify_metadata: false,
        }
    }
}

/// Runs the resizer for one driver until `stop`, with a connection of its own. A driver that can neither expand nor
/// modify is left alone.
///
/// # Errors
/// Final: the driver's address is wrong, or it refuses discovery.
pub async fn run(
    config: ResizerConfig,
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
    config: ResizerConfig,
    informers: Informers,
    stop: CancellationToken,
) -> Result<(), DiscoveryError> {
    supervise(connection, config.timeout, &stop, |driver, stop| {
        serve(config.clone(), driver, informers.clone(), stop)
    })
    .await
}

/// Key of a claim in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClaimName {
    namespace: String,
    name: String,
}

/// Everything that expansion needs.
pub(crate) struct Resizer {
    driver: Driver,
    config: ResizerConfig,
    client: Client,
    claims: Cache<PersistentVolumeClaim>,
    pvs: Cache<PersistentVolume>,
    recorder: Recorder,
    marks: Mutex<HashMap<ClaimName, claim::Marks>>,
}

/// Runs the resizer for a discovered driver until `stop`.
pub(crate) async fn serve(
    config: ResizerConfig,
    driver: Driver,
    informers: Informers,
    stop: CancellationToken,
) {
    let can_modify = config.modifies && modify::can_modify(&driver.facts);
    if !can_expand(&driver.facts) && !can_modify {
        stop.cancelled().await;
        return;
    }
    let component = format!("external-resizer {}", driver.facts.driver_name);
    let recorder = Recorder::new(informers.client().clone(), &component, "", stop.clone());
    let expanding = async {
        if can_expand(&driver.facts) {
            let serving = expand(
                config.clone(),
                driver.clone(),
                informers.clone(),
                recorder.clone(),
                stop.clone(),
            );
            Box::pin(serving).await;
        }
    };
    let modifying = async {
        if config.modifies {
            let serving = modify::shell::serve(
                config.clone(),
                driver.clone(),
                informers.clone(),
                recorder.clone(),
                stop.clone(),
            );
            Box::pin(serving).await;
        }
    };
    futures::future::join(expanding, modifying).await;
    recorder.stopped().await;
}

async fn expand(
    config: ResizerConfig,
    driver: Driver,
    informers: Informers,
    recorder: Recorder,
    stop: CancellationToken,
) {
    let workers = config.workers;
    let queue_name = format!("{}-pvc", driver.facts.driver_name);
    let queue = Queue::new(config.retry_interval).observed(&driver.connection.metrics().queues, &queue_name);
    let resizer = Arc::new(Resizer {
        client: informers.client().clone(),
        claims: informers.cache(),
        pvs: informers.cache(),
        recorder,
        marks: Mutex::default(),
        driver,
        config,
    });
    let synced = async {
        resizer.claims.synced().await;
        resizer.pvs.synced().await;
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => return,
        () = synced => {}
    }
    resizer.feed(&queue, &stop);
    run_workers(queue, workers, stop, move |key| {
        let resizer = resizer.clone();
        async move { resizer.reconcile(key).await }
    })
    .await;
}

impl Resizer {
    /// Puts into the queue what changes, now and until `stop`.
    fn feed(&self, queue: &Queue<ClaimName>, stop: &CancellationToken) {
        let on_claims = queue.clone();
        self.claims
            .on_change_until(stop.clone(), move |change| match change {
                Change::Added(held) if is_candidate(held) => on_claims.add(name_of(held)),
                Change::Updated { old, new } if is_candidate(new) || is_candidate(old) => {
                    if requested(old) == requested(new) {
                        on_claims.add_unless_failing(name_of(new));
                    } else {
                        on_claims.add(name_of(new));
                    }
                }
                Change::Added(_) | Change::Updated { .. } | Change::Removed(_) => {}
            });
        let on_pvs = queue.clone();
        self.pvs.on_change_until(stop.clone(), move |change| {
            // A PV that still remembers its old size after a restart.
            let Change::Added(pv) = change else {
                return;
            };
            let is_remembered = pv
                .metadata
                .annotations
                .iter()
                .flatten()
                .any(|(key, _)| key == keys::PRE_RESIZE_CAPACITY);
            if is_remembered && let Some(claim) = volume::claim_ref(pv) {
                on_pvs.add(ClaimName {
                    namespace: claim.namespace.clone().unwrap_or_default(),
                    name: claim.name.clone().unwrap_or_default(),
                });
            }
        });
    }
}

fn name_of(claim: &PersistentVolumeClaim) -> ClaimName {
    ClaimName {
        namespace: claim.metadata.namespace.clone().unwrap_or_default(),
        name: claim.metadata.name.clone().unwrap_or_default(),
    }
}

fn requested(claim: &PersistentVolumeClaim) -> Option<moorline_model::Amount> {
    moorline_model::claim::requested_storage(claim).ok()
}

/// Whether the claim asks for more than it has: cheap, for change handlers.
fn is_candidate(claim: &PersistentVolumeClaim) -> bool {
    let capacity = moorline_model::claim::status_capacity(claim).ok().flatten();
    let is_larger =
        matches!((requested(claim), capacity), (Some(requested), Some(capacity)) if requested > capacity);
    is_larger && moorline_model::claim::volume_name(claim).is_some()
}
