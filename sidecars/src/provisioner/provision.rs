//! The effectful side of claims: gathers what is seen, does what was decided, writes what came of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use moorline_model::{claim, keys, mutant};
use moorline_proto::csi::DeleteVolumeRequest;
use moorline_runtime::{EventType, Outcome};
use serde_json::json;

use super::Provisioner;
use super::claim::{Attributes, Next, Refusal, Seen, Slow, decide};
use super::grants::{self, GrantSpec};
use super::ledger::LedgerError;
use super::outcome::{AfterCreate, Existing, Then, after_create, compare};
use super::plan::Plan;
use super::source::{self, Named, Source, SourceKey, SourceKind};
use crate::api::{WriteError, code, get, json_patch};
use crate::connection::call;
use crate::rpc_class::describe;
use crate::secrets;

/// How long an infeasible claim rests.
const SLOW_RETENTION: Duration = Duration::from_secs(300);
/// Another look when creating has to wait for deleting the same volume, or the other way round.
pub(super) const BUSY_INTERVAL: Duration = Duration::from_millis(200);
/// `CreateVolume` calls that take longer are announced with an event; the others would only say the same twice.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(500);
/// Tries to delete a volume that isn't what was asked for, before asking for it again.
const DISCARD_TRIES: u32 = 5;

/// A claim, by what distinguishes it from a later one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClaimKey {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl ClaimKey {
    pub(crate) fn of(claim: &PersistentVolumeClaim) -> Self {
        let meta = &claim.metadata;
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }
}

impl ClaimKey {
    /// The claim that a plan or PV names.
    pub(super) fn referred(reference: &ObjectReference) -> Self {
        Self {
            namespace: reference.namespace.clone().unwrap_or_default(),
            name: reference.name.clone().unwrap_or_default(),
            uid: reference.uid.clone().unwrap_or_default(),
        }
    }
}

/// Why a claim is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvisionError {
    #[error(transparent)]
    Refused(Box<Refusal>),
    #[error("provision volume: {0}")]
    Failed(String),
    #[error(transparent)]
    Secret(#[from] secrets::SecretReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("volume {0} is of no use: another one has its persistent volume; deleting it: {1}")]
    Stray(String, String),
    #[error("source {kind:?} {name} can't be protected: it is gone", kind = .0.kind, name = .0.name)]
    SourceGone(SourceKey),
    #[error("persistent volume {0} of a former volume still exists")]
    Leaving(String),
}

/// What the volume is made from, as the metrics name it; empty for nothing.
fn source_kind(plan: &Plan) -> &'static str {
    use moorline_proto::csi::volume_content_source::Type;
    let source = plan.request.volume_content_source.as_ref();
    match source.and_then(|source| source.r#type.as_ref()) {
        None => "",
        Some(Type::Snapshot(_)) => "VolumeSnapshot",
        Some(Type::Volume(_)) => "PersistentVolumeClaim",
    }
}

impl Provisioner {
    /// One look at one claim.
    pub(super) async fn reconcile_claim(&self, key: ClaimKey) -> Result<Outcome, ProvisionError> {
        if let Some(pause) = self.pause_before_bid(&key) {
            return Ok(Outcome::After(pause));
        }
        let Some(_busy) = self.memory.begin(&self.config.volume_name(&key.uid)) else {
            return Ok(Outcome::After(BUSY_INTERVAL));
        };
        match self.decide_claim(&key).await {
            Next::Settled => {
                self.forget(&key.uid);
                Ok(Outcome::Settled)
            }
            Next::Create(plan) => {
                let labels = (plan.class_name.clone(), source_kind(&plan));
                let started = tokio::time::Instant::now();
                let result = Box::pin(self.create(&key, plan)).await;
                let has_succeeded = matches!(result, Ok(Outcome::Settled));
                let metrics = self.driver.connection.metrics();
                metrics.provisioned((&labels.0, labels.1), has_succeeded, started.elapsed());
                result
            }
            Next::Wait { until } => Ok(Outcome::After(until_then(until))),
            Next::Refuse(refusal) => {
                if !refusal.is_silent() {
                    self.claim_event(
                        &key,
                        EventType::Warning,
                        "ProvisioningFailed",
                        refusal.to_string(),
                    );
                }
                Err(ProvisionError::Refused(Box::new(refusal)))
            }
            Next::Reschedule(refusal) => self.reschedule(&key, refusal.to_string()).await,
            Next::Bid(bid) => self.bid(&key, *bid).await,
        }
    }

    async fn decide_claim(&self, key: &ClaimKey) -> Next {
        let held = self.claims.get(Some(&key.namespace), &key.name);
        let claim = held
            .as_deref()
            .filter(|claim| claim.metadata.uid.as_deref() == Some(&key.uid));
        let class_name = claim.map(claim::class_name).unwrap_or_default();
        let class = self.classes.get(None, class_name);
        let selected = claim
            .and_then(claim::selected_node)
            .filter(|name| !name.is_empty())
            .or(self.config.node_name.as_deref());
        let topology = self.topology.as_ref();
        let cluster = topology.map(|topology| topology.segments()).unwrap_or_default();
        let named_attributes = claim.map(claim::attributes_class_name).unwrap_or_default();
        let attributes = self.read_attributes_class(named_attributes).await;
        let (source_claim, source_pv) = self.clone_source(claim);
        // Nothing of another namespace is read before it is known that it may be.
        let refused = self.refused_source(claim).await;
        let restored = match refused {
            None => self.read_snapshot(claim).await,
            Some(_) => Ok((None, None)),
        };
        let named = match claim.map_or(Named::None, source::named) {
            Named::Elsewhere(key) if key.kind == SourceKind::Claim => Named::Claim(key.name),
            Named::Elsewhere(key) => Named::Snapshot(key.name),
            named => named,
        };
        let source = match named {
            _ if refused.is_some() => refused.unwrap_or(Source::None),
            Named::None | Named::Elsewhere(_) => Source::None,
            Named::Claim(name) => Source::Claim {
                name,
                claim: source_claim.as_deref(),
                pv: source_pv.as_deref(),
            },
            Named::Snapshot(name) => match &restored {
                Ok((snapshot, content)) => Source::Snapshot {
                    name,
                    snapshot: snapshot.as_ref(),
                    content: content.as_ref(),
                },
                Err(error) => Source::Unreadable(format!("VolumeSnapshot {name}: {error}")),
            },
            Named::ForPopulator => Source::ForPopulator,
        };
        let seen = Seen {
            claim,
            in_progress: self.memory.in_progress(&key.uid),
            slow: self.memory.slow(&key.uid),
            pv_exists: self.pvs.get(None, &self.config.volume_name(&key.uid)).is_some(),
            class: class.as_deref(),
            attributes: match (&attributes, named_attributes) {
                (_, "") => Attributes::NotNamed,
                (Some(class), _) => Attributes::Found(class),
                (None, name) => Attributes::Missing(name.to_string()),
            },
            source,
            selected_node: selected.and_then(|name| Some(topology?.selected(name))),
            cluster: &cluster,
            driver: &self.driver.facts,
            config: &self.config,
        };
        decide(&seen, Timestamp::now())
    }

    /// Read live: classes of this kind are rare, and named by few claims.
    async fn read_attributes_class(&self, name: &str) -> Option<VolumeAttributesClass> {
        if name.is_empty() {
            return None;
        }
        let classes: Api<VolumeAttributesClass> = Api::all(self.client.clone());
        match classes.get_opt(name).await {
            Ok(class) => class,
            Err(error) => {
                tracing::debug!(class = name, %error, "Volume attributes class can't be read");
                None
            }
        }
    }

    /// Why the claim may not be filled from a source of another namespace. Grants are read live: such claims are rare, and
    /// the kind need not exist.
    async fn refused_source(&self, claim: Option<&PersistentVolumeClaim>) -> Option<Source<'static>> {
        let claim = self.open(claim)?;
        let Named::Elsewhere(key) = source::named(claim) else {
            return None;
        };
        if !self.config.cross_namespace_sources {
            return Some(Source::Unsupported(format!(
                "{key} of another namespace (gate CrossNamespaceVolumeDataSource)"
            )));
        }
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
            grants::GROUP,
            grants::VERSION,
            grants::KIND,
        ));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let found = match api.list(&ListParams::default()).await {
            Ok(found) => found.items,
            Err(error) if code(&error) == Some(404) => Vec::new(),
            Err(error) => return Some(Source::Unreadable(format!("ReferenceGrants for {key}: {error}"))),
        };
        let specs: Vec<GrantSpec> = found
            .into_iter()
            .filter_map(|grant| serde_json::from_value(grant.data.get("spec")?.clone()).ok())
            .collect();
        let own = claim.metadata.namespace.as_deref().unwrap_or_default();
        (!grants::is_granted(&specs, own, &key)).then_some(Source::NotGranted(key))
    }

    /// The claim, unless it is done or its plan is made.
    fn open<'a>(&self, claim: Option<&'a PersistentVolumeClaim>) -> Option<&'a PersistentVolumeClaim> {
        claim.filter(|claim| {
            let uid = claim.metadata.uid.as_deref().unwrap_or_default();
            claim::volume_name(claim).is_none() && self.memory.in_progress(uid).is_none()
        })
    }

    /// Read live: a claim asks once, and the kinds need not exist.
    async fn read_snapshot(
        &self,
        claim: Option<&PersistentVolumeClaim>,
    ) -> Result<(Option<VolumeSnapshot>, Option<VolumeSnapshotContent>), kube::Error> {
        // Nothing is read for claims that are done, nor for those whose plan is made.
        let open = self.open(claim);
        let Some(SourceKey {
            kind: SourceKind::Snapshot,
            namespace,
            name,
        }) = open.and_then(source::key_of)
        else {
            return Ok((None, None));
        };
        let snapshot: Option<VolumeSnapshot> = get(&self.client, (Some(&namespace), &name)).await?;
        let Some(content_name) = snapshot.as_ref().and_then(VolumeSnapshot::bound_content) else {
            return Ok((snapshot, None));
        };
        let content = get(&self.client, (None, content_name)).await?;
        Ok((snapshot, content))
    }

    fn clone_source(
        &self,
        claim: Option<&PersistentVolumeClaim>,
    ) -> (Option<Arc<PersistentVolumeClaim>>, Option<Arc<PersistentVolume>>) {
        let Some(claim) = claim else {
            return (None, None);
        };
        let Some(key) = source::key_of(claim).filter(|key| key.kind == SourceKind::Claim) else {
            return (None, None);
        };
        let source = self.claims.get(Some(&key.namespace), &key.name);
        let pv_name = source.as_deref().and_then(claim::volume_name).unwrap_or_default();
        (source.clone(), self.pvs.get(None, pv_name))
    }

    async fn create(&self, key: &ClaimKey, plan: Arc<Plan>) -> Result<Outcome, ProvisionError> {
        let mut request = plan.request.clone();
        request.secrets = match secrets::read(&self.client, plan.secret.as_ref()).await {
            Ok(secrets) => secrets,
            Err(error) => {
                self.provisioning_failed(&plan, &error.to_string());
                return Err(error.into());
            }
        };
        let is_new = self.memory.in_progress(&key.uid).is_none();
        if is_new && let Some(source) = &plan.source {
            // Kept first: whoever looks whether the source is still needed must see it.
            self.memory.keep(&key.uid, plan.clone());
            if let Err(error) = self.protect_source(source).await {
                self.memory.drop_plan(&key.uid);
                self.provisioning_failed(&plan, &error.to_string());
                return Err(error);
            }
        }
        // From here on a volume may exist, also if this process dies: kept until a final answer is in.
        if let Err(error) = self.ledger.record(&plan).await {
            if is_new {
                self.memory.drop_plan(&key.uid);
                self.release_source(&plan);
            }
            self.provisioning_failed(&plan, &error.to_string());
            return Err(error.into());
        }
        self.memory.keep(&key.uid, plan.clone());
        let mut controller = self.driver.connection.controller();
        let creating = call(self.config.timeout, request, |request| {
            controller.create_volume(request)
        });
        let answer = self.announce_if_slow(&plan, creating).await;
        match after_create(&plan, answer, &self.driver.facts, &self.identity) {
            AfterCreate::Save(pv) => Box::pin(self.save(key, &plan, *pv)).await,
            AfterCreate::Discard { volume_id, why } => {
                let left = self.discard(&plan, &volume_id).await;
                let why = left.map_or_else(
                    || why.to_string(),
                    |error| format!("{why}; it is orphaned: {error}"),
                );
                self.provisioning_failed(&plan, &why);
                Err(ProvisionError::Failed(why))
            }
            AfterCreate::Failed { why, then } => self.create_failed(key, &plan, why, then).await,
        }
    }

    async fn announce_if_slow<T>(&self, plan: &Plan, creating: impl Future<Output = T>) -> T {
        let mut creating = std::pin::pin!(creating);
        tokio::select! {
            biased;
            answer = &mut creating => return answer,
            () = tokio::time::sleep(ANNOUNCE_AFTER) => {}
        }
        let name = plan.claim.name.as_deref().unwrap_or_default();
        let namespace = plan.claim.namespace.as_deref().unwrap_or_default();
        let message = format!("External provisioner is provisioning volume for claim \"{namespace}/{name}\"");
        self.recorder
            .event(&plan.claim, EventType::Normal, "Provisioning", message);
        creating.await
    }

    async fn create_failed(
        &self,
        key: &ClaimKey,
        plan: &Plan,
        why: String,
        then: Then,
    ) -> Result<Outcome, ProvisionError> {
        self.refresh_capacity(&plan.class_name);
        match then {
            Then::AskAgain => {
                self.provisioning_failed(plan, &why);
                if mutant::is_on("no-requeue") {
                    return Ok(Outcome::Settled);
                }
            }
            Then::Retry => {
                self.drop_plan(&key.uid);
                self.provisioning_failed(plan, &why);
            }
            Then::RetrySlowly => {
                self.drop_plan(&key.uid);
                let until = Timestamp::now()
                    + jiff::SignedDuration::from_secs(SLOW_RETENTION.as_secs().cast_signed());
                let class_uid = plan.class_uid.clone();
                self.memory.set_slow(&key.uid, Some(Slow { until, class_uid }));
                self.provisioning_failed(plan, &format!("{why}; further tries are delayed"));
            }
            Then::Reschedule => {
                self.drop_plan(&key.uid);
                return self.reschedule(key, failure_message(plan, &why)).await;
            }
        }
        Err(ProvisionError::Failed(why))
    }

    /// Writes the PV. Once it is there, everything else about the volume follows from it.
    async fn save(
        &self,
        key: &ClaimKey,
        plan: &Plan,
        pv: PersistentVolume,
    ) -> Result<Outcome, ProvisionError> {
        let pvs: Api<PersistentVolume> = Api::all(self.client.clone());
        let name = plan.volume_name().to_string();
        match pvs.create(&PostParams::default(), &pv).await {
            Ok(saved) => self.pvs.observe(saved),
            Err(error) if code(&error) == Some(409) => {
                let existing = pvs
                    .get(&name)
                    .await
                    .map_err(|error| WriteError::new("read persistent volume", error))?;
                match compare(&existing, &pv) {
                    Existing::Saved => self.pvs.observe(existing),
                    Existing::WaitUntilGone => return Err(ProvisionError::Leaving(name)),
                    Existing::Stray => return self.discard_stray(key, plan, &pv).await,
                }
            }
            Err(error) => {
                let error = WriteError::new(format!("create persistent volume {name}"), error);
                self.provisioning_failed(plan, &error.to_string());
                return Err(error.into());
            }
        }
        self.forget(&key.uid);
        self.refresh_capacity(&plan.class_name);
        let message = format!("Successfully provisioned volume {name}");
        self.recorder
            .event(&plan.claim, EventType::Normal, "ProvisioningSucceeded", message);
        Ok(Outcome::Settled)
    }

    async fn discard_stray(
        &self,
        key: &ClaimKey,
        plan: &Plan,
        pv: &PersistentVolume,
    ) -> Result<Outcome, ProvisionError> {
        let volume_id = pv
            .spec
            .as_ref()
            .and_then(|spec| spec.csi.as_ref())
            .map(|csi| csi.volume_handle.clone());
        let volume_id = volume_id.unwrap_or_default();
        match self.discard(plan, &volume_id).await {
            None => {
                self.forget(&key.uid);
                Ok(Outcome::Settled)
            }
            Some(error) => Err(ProvisionError::Stray(volume_id, error)),
        }
    }

    /// Deletes a volume that no PV will stand for; says why if it is still there.
    async fn discard(&self, plan: &Plan, volume_id: &str) -> Option<String> {
        let mut last = None;
        for _ in 0..DISCARD_TRIES {
            let secrets = match secrets::read(&self.client, plan.secret.as_ref()).await {
                Ok(secrets) => secrets,
                Err(error) => return Some(error.to_string()),
            };
            let request = DeleteVolumeRequest {
                volume_id: volume_id.to_string(),
                secrets,
            };
            let mut controller = self.driver.connection.controller();
            match call(self.config.timeout, request, |request| {
                controller.delete_volume(request)
            })
            .await
            {
                Ok(_) => return None,
                Err(status) => last = Some(describe(&status)),
            }
        }
        last
    }

    /// Takes the scheduler's choice back.
    async fn reschedule(&self, key: &ClaimKey, why: String) -> Result<Outcome, ProvisionError> {
        self.claim_event(key, EventType::Warning, "ProvisioningFailed", why.clone());
        let held = self.claims.get(Some(&key.namespace), &key.name);
        let chosen = held
            .as_deref()
            .filter(|claim| claim.metadata.uid.as_deref() == Some(&key.uid));
        let Some(node_name) = chosen.and_then(claim::selected_node) else {
            return Err(ProvisionError::Failed(why));
        };
        let path = format!("/metadata/annotations/{}", keys::SELECTED_NODE.replace('/', "~1"));
        let operations = vec![
            json!({"op": "test", "path": "/metadata/uid", "value": key.uid}),
            json!({"op": "test", "path": path, "value": node_name}),
            json!({"op": "remove", "path": path}),
        ];
        let target = (Some(key.namespace.as_str()), key.name.as_str());
        let written = match json_patch(&self.client, target, None, operations).await {
            // Upstream's role for the provisioner lets it update claims, and not patch them.
            Err(error) if code(&error) == Some(403) => self.reschedule_by_update(key, node_name).await,
            written => written.map(Some),
        };
        let written: Option<PersistentVolumeClaim> =
            written.map_err(|error| WriteError::new("remove selected node from claim", error))?;
        if let Some(claim) = written {
            self.claims.observe(claim);
        }
        Ok(Outcome::Settled)
    }

    /// The same with a read and an update of what was read. `None`: the claim is another one by now, or the choice has
    /// changed.
    async fn reschedule_by_update(
        &self,
        key: &ClaimKey,
        node_name: &str,
    ) -> Result<Option<PersistentVolumeClaim>, kube::Error> {
        // As it is on the wire: an update must not lose fields that this program doesn't know.
        let resource = ApiResource::erase::<PersistentVolumeClaim>(&());
        let claims: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let Some(mut found) = claims.get_opt(&key.name).await? else {
            return Ok(None);
        };
        let annotations = found.metadata.annotations.get_or_insert_default();
        if found.metadata.uid.as_deref() != Some(&key.uid)
            || annotations.get(keys::SELECTED_NODE).map(String::as_str) != Some(node_name)
        {
            return Ok(None);
        }
        annotations.remove(keys::SELECTED_NODE);
        let updated = claims.replace(&key.name, &PostParams::default(), &found).await?;
        // Only the cache takes it, and the watch brings it again.
        Ok(updated.try_parse().ok())
    }

    /// The plan came to nothing, and no volume exists.
    fn drop_plan(&self, uid: &str) {
        if let Some(plan) = self.memory.in_progress(uid) {
            self.memory.drop_plan(uid);
            self.ledger.done(plan.volume_name());
            self.release_source(&plan);
        }
    }

    /// Nothing is left to do for the claim.
    fn forget(&self, uid: &str) {
        self.drop_plan(uid);
        self.memory.set_bidding(uid, None);
        self.memory.set_slow(uid, None);
    }

    pub(super) fn refresh_capacity(&self, class_name: &str) {
        if let Some(capacity) = &self.capacity {
            capacity.refresh(class_name);
        }
    }

    fn provisioning_failed(&self, plan: &Plan, why: &str) {
        let message = failure_message(plan, why);
        self.recorder
            .event(&plan.claim, EventType::Warning, "ProvisioningFailed", message);
    }

    pub(super) fn claim_event(&self, key: &ClaimKey, event_type: EventType, reason: &str, message: String) {
        let reference = ObjectReference {
            api_version: Some("v1".to_string()),
            kind: Some("PersistentVolumeClaim".to_string()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(key.uid.clone()),
            ..Default::default()
        };
        self.recorder.event(&reference, event_type, reason, message);
    }
}

fn failure_message(plan: &Plan, why: &str) -> String {
    format!(
        "failed to provision volume with StorageClass {:?}: {why}",
        plan.class_name
    )
}

fn until_then(until: Timestamp) -> Duration {
    Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default()
}

/// Whether a claim may concern a provisioner at all: cheap, for change handlers.
pub(super) fn is_candidate(claim: &PersistentVolumeClaim, driver_name: &str) -> bool {
    claim::volume_name(claim).is_none() && claim::storage_provisioner(claim) == Some(driver_name)
}

/// Whether an update changed what a failing claim may be waiting for.
pub(super) fn is_worth_hurry(old: &PersistentVolumeClaim, new: &PersistentVolumeClaim) -> bool {
    claim::selected_node(old) != claim::selected_node(new)
        || claim::storage_provisioner(old) != claim::storage_provisioner(new)
        || old.spec != new.spec
}

/// Whether a class of that name is what a claim waits for.
pub(super) fn waits_for(claim: &PersistentVolumeClaim, class: &StorageClass) -> bool {
    Some(claim::class_name(claim)) == class.metadata.name.as_deref()
}
