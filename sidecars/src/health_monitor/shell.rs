//! Asks the driver for the condition of volumes, round by round, and tells what was decided.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, ListParams};
use moorline_proto::csi::{ControllerGetVolumeRequest, ListVolumesRequest, VolumeCondition};
use moorline_runtime::{Cache, EventType, Informers, Recorder};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::HealthMonitorConfig;
use super::condition::{ABNORMAL, Known, Tell, decide};
use crate::connection::call;
use crate::discovery::ControllerCapability;
use crate::driver::Driver;
use crate::rpc_class::describe;

/// Events asked for at once.
const EVENTS_PAGE: u32 = 500;

/// The volumes of one driver.
pub(super) struct Volumes {
    config: HealthMonitorConfig,
    driver: Driver,
    client: kube::Client,
    pvs: Cache<PersistentVolume>,
    claims: Cache<PersistentVolumeClaim>,
    recorder: Recorder,
    /// What was told last, by the claim's UID. Claims of which nothing was told aren't in it.
    known: Mutex<HashMap<String, Known>>,
}

/// A volume that a claim uses.
struct Used {
    volume_id: String,
    claim: Arc<PersistentVolumeClaim>,
}

impl Volumes {
    pub(super) fn new(
        config: HealthMonitorConfig,
        driver: Driver,
        informers: &Informers,
        recorder: Recorder,
    ) -> Self {
        Self {
            config,
            driver,
            client: informers.client().clone(),
            pvs: informers.cache(),
            claims: informers.cache(),
            recorder,
            known: Mutex::default(),
        }
    }

    /// Round after round, until `stop`.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        if stop.run_until_cancelled(self.remember()).await.is_none() {
            return;
        }
        let lists = self.driver.facts.can(ControllerCapability::ListVolumes);
        let interval = match lists {
            true => self.config.list_volumes_interval,
            false => self.config.monitor_interval,
        };
        loop {
            let next = Instant::now() + interval;
            let round = async {
                match lists {
                    true => self.list_round().await,
                    false => self.look_round().await,
                }
                self.forget();
                tokio::time::sleep_until(next).await;
            };
            if stop.run_until_cancelled(round).await.is_none() {
                return;
            }
        }
    }

    /// What earlier processes told, and whose events are still there.
    async fn remember(&self) {
        let api: Api<Event> = Api::all(self.client.clone());
        let mut params = ListParams::default()
            .fields(&format!(
                "reason={ABNORMAL},involvedObject.kind=PersistentVolumeClaim"
            ))
            .limit(EVENTS_PAGE);
        loop {
            let page = match api.list(&params).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "Events can't be listed: the end of trouble told before is not told");
                    return;
                }
            };
            let mut known = self.known.lock();
            for event in page.items {
                if event.reason.as_deref() != Some(ABNORMAL) {
                    continue;
                }
                let told_at = event.last_timestamp.map_or_else(Timestamp::now, |time| time.0);
                if let Some(uid) = event.involved_object.uid {
                    let message = None;
                    known.insert(uid, Known::Abnormal { message, told_at });
                }
            }
            drop(known);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return,
            }
        }
    }

    /// The driver's volumes that are bound to claims.
    fn used(&self) -> Vec<Used> {
        let pvs = self.pvs.list();
        pvs.iter()
            .filter_map(|pv| {
                let (spec, status) = (pv.spec.as_ref()?, pv.status.as_ref()?);
                let csi = spec.csi.as_ref()?;
                let is_ours = csi.driver == self.driver.facts.driver_name;
                let is_bound = status.phase.as_deref() == Some("Bound");
                if !is_ours || !is_bound || pv.metadata.deletion_timestamp.is_some() {
                    return None;
                }
                let reference = spec.claim_ref.as_ref()?;
                let name = reference.name.as_deref()?;
                let claim = self.claims.get(reference.namespace.as_deref(), name)?;
                (claim.metadata.uid == reference.uid).then(|| Used {
                    volume_id: csi.volume_handle.clone(),
                    claim,
                })
            })
            .collect()
    }

    /// One list for all volumes. A volume that the driver doesn't list is not judged.
    async fn list_round(&self) {
        let listing = tokio::time::timeout(self.config.timeout, self.list());
        let listed = match listing.await {
            Ok(Ok(listed)) => listed,
            Ok(Err(status)) => {
                let why = describe(&status);
                tracing::warn!(
                    why,
                    "ListVolumes failed; the volumes' condition is asked for again later"
                );
                return;
            }
            Err(_) => {
                tracing::warn!(
                    timeout = ?self.config.timeout,
                    "The driver's list of volumes takes too long; the volumes' condition is asked for again later"
                );
                return;
            }
        };
        for used in self.used() {
            if let Some(said) = listed.get(&used.volume_id) {
                self.tell(&used.claim, said.as_ref());
            }
        }
    }

    async fn list(&self) -> Result<HashMap<String, Option<VolumeCondition>>, Status> {
        let mut listed = HashMap::new();
        let mut starting_token = String::new();
        loop {
            let mut controller = self.driver.connection.controller();
            let request = ListVolumesRequest {
                starting_token,
                ..Default::default()
            };
            let page = call(self.config.timeout, request, |request| {
                controller.list_volumes(request)
            })
            .await?;
            for entry in page.entries {
                if let Some(volume) = entry.volume {
                    let condition = entry.status.and_then(|status| status.volume_condition);
                    listed.insert(volume.volume_id, condition);
                }
            }
            if page.next_token.is_empty() {
                return Ok(listed);
            }
            starting_token = page.next_token;
        }
    }

    /// The volumes one by one, a few at once.
    async fn look_round(&self) {
        let used = self.used();
        let failed: HashSet<String> = stream::iter(used)
            .map(|used| self.look(used))
            .buffer_unordered(self.config.worker_threads.max(1))
            .filter_map(std::future::ready)
            .collect()
            .await;
        for why in failed {
            tracing::warn!(
                why,
                "ControllerGetVolume failed; the volumes' condition is asked for again later"
            );
        }
    }

    /// Asks for one volume; what the driver's trouble is, if it has some.
    async fn look(&self, used: Used) -> Option<String> {
        let mut controller = self.driver.connection.controller();
        let request = ControllerGetVolumeRequest {
            volume_id: used.volume_id,
        };
        let answer = call(self.config.timeout, request, |request| {
            controller.controller_get_volume(request)
        })
        .await;
        match answer {
            Ok(answer) => {
                let condition = answer.status.and_then(|status| status.volume_condition);
                self.tell(&used.claim, condition.as_ref());
                None
            }
            // Deleted meanwhile, as a rule; the driver says nothing of the volume's condition.
            Err(status) if status.code() == Code::NotFound => None,
            Err(status) => Some(describe(&status)),
        }
    }

    /// Tells users what is new.
    fn tell(&self, claim: &PersistentVolumeClaim, said: Option<&VolumeCondition>) {
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let mut known = self.known.lock();
        let (tell, then) = decide(known.get(&uid).unwrap_or(&Known::Normal), said, Timestamp::now());
        match then {
            Known::Normal => known.remove(&uid),
            then @ Known::Abnormal { .. } => known.insert(uid, then),
        };
        drop(known);
        if let Some(Tell {
            is_warning,
            reason,
            message,
        }) = tell
        {
            let event_type = match is_warning {
                true => EventType::Warning,
                false => EventType::Normal,
            };
            self.recorder.event_on(claim, event_type, reason, message);
        }
    }

    /// Claims that are gone.
    fn forget(&self) {
        let claims = self.claims.list();
        let living: HashSet<_> = claims
            .iter()
            .filter_map(|claim| claim.metadata.uid.as_deref())
            .collect();
        self.known.lock().retain(|uid, _| living.contains(uid.as_str()));
    }
}
