//! Gathers what group snapshots, their contents and their members look like, asks the deciders, does what they say.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use moorline_model::group_snapshot::{VolumeGroupSnapshot, VolumeGroupSnapshotContent};
use moorline_model::label_selector::Selector;
use moorline_model::snapshot::{VolumeSnapshot, VolumeSnapshotContent};
use moorline_model::{claim, keys};
use moorline_runtime::{Cache, EventType, Outcome};
use tokio::time::{Duration, Instant};

use super::members::{self, Member};
use super::sync::{Next, Seen, Source, decide};
use super::why::Why;
use super::{Groups, handle_key};
use crate::key::ObjectKey;
use crate::snapshot::claim_hold::is_waiting;
use crate::snapshot::content_sync::{self, ContentNext};
use crate::snapshot::writes::{STEPS_MAX, settled_by, trouble};
use crate::told::Tell;

/// Why an object is looked at again.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyncError {
    #[error("{0}")]
    Refused(Why),
    #[error("exactly one of spec.source.volumeHandles and spec.source.groupSnapshotHandles must be set")]
    ContentSource,
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// What a decision about a group rests on, but for the group itself and its content.
struct Gathered {
    sources: Vec<(Arc<PersistentVolumeClaim>, Option<Arc<PersistentVolume>>)>,
    members: Vec<GatheredMember>,
    snapshots: Vec<Arc<VolumeSnapshot>>,
    restoring: Option<String>,
}

struct GatheredMember {
    snapshot: Option<Arc<VolumeSnapshot>>,
    content: Option<Arc<VolumeSnapshotContent>>,
    pv: Option<Arc<PersistentVolume>>,
}

impl Groups {
    /// Looks at one group snapshot and does what there is to do.
    pub(super) async fn sync_group(&self, key: &ObjectKey) -> Result<Outcome, SyncError> {
        let mut selected = None;
        for _ in 0..STEPS_MAX {
            let Some(group) = self.caches.groups.get(Some(&key.namespace), &key.name) else {
                return Ok(Outcome::Settled);
            };
            let content = self.find_content(&group).await?;
            if content.is_none() && selected.is_none() {
                selected = self.select(&group).await?;
            }
            let gathered = self.gather(
                &group,
                content.as_deref(),
                selected.as_deref().unwrap_or_default(),
            );
            match self.decide(&group, content.as_deref(), &gathered) {
                Next::Settled => {
                    self.told.forget(&group.uid().unwrap_or_default());
                    return Ok(Outcome::Settled);
                }
                Next::Fail(why) => return self.fail(&group, why).await,
                Next::Do(step) => {
                    tracing::debug!(group.key = %key, ?step, "Writing");
                    let written = Box::pin(self.write(&group, content.as_deref(), step)).await;
                    if let Some(outcome) = settled_by(written)? {
                        return Ok(outcome);
                    }
                }
            }
        }
        tracing::warn!(group.key = %key, "Writes to the group snapshot have no effect");
        Ok(Outcome::Retry)
    }

    /// The group's content. Before its absence means anything, the API server is asked: the cache may lag.
    async fn find_content(
        &self,
        group: &VolumeGroupSnapshot,
    ) -> Result<Option<Arc<VolumeGroupSnapshotContent>>, kube::Error> {
        let Some(name) = group.content_name() else {
            return Ok(None);
        };
        let held = self.caches.contents.get(None, &name);
        let matters = group.metadata.deletion_timestamp.is_some() || group.bound_content().is_some();
        if held.is_some() || !matters {
            return Ok(held);
        }
        let content = self.content_writer().api.get_opt(&name).await?;
        Ok(content.map(|content| {
            self.caches.contents.observe(content.clone());
            Arc::new(content)
        }))
    }

    /// The claims that the selector selects, as the API server knows them: what is cut is cut once and for all, and a cache
    /// that lags would leave volumes out.
    async fn select(
        &self,
        group: &VolumeGroupSnapshot,
    ) -> Result<Option<Vec<PersistentVolumeClaim>>, kube::Error> {
        let source = &group.spec.source;
        let is_begun = group.metadata.deletion_timestamp.is_some() || group.bound_content().is_some();
        let Some(selector) = source.selector.as_ref().filter(|_| !is_begun) else {
            return Ok(None);
        };
        // What is malformed is refused by the decider.
        let (Ok(_), Ok(asked)) = (
            Selector::parse(selector),
            kube::core::Selector::try_from(selector.clone()),
        ) else {
            return Ok(None);
        };
        let namespace = group.namespace().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.snapshots.client.clone(), &namespace);
        let listed = api.list(&ListParams::default().labels_from(&asked)).await?;
        Ok(Some(listed.items))
    }

    fn gather(
        &self,
        group: &VolumeGroupSnapshot,
        content: Option<&VolumeGroupSnapshotContent>,
        selected: &[PersistentVolumeClaim],
    ) -> Gathered {
        let namespace = group.namespace().unwrap_or_default();
        let key = ObjectKey::of(group).to_string();
        let is_ours = |snapshot: &Arc<VolumeSnapshot>| {
            let uid = snapshot.group().map(|owner| owner.uid.as_str());
            uid.is_none() || uid == group.metadata.uid.as_deref()
        };
        let snapshots: Vec<_> = self.members.get(&key).into_iter().filter(is_ours).collect();
        let is_restoring = |snapshot: &&Arc<VolumeSnapshot>| {
            let restores = self
                .snapshots
                .restores
                .get(&ObjectKey::of(&***snapshot).to_string());
            restores.iter().any(|claim| is_waiting(claim))
        };
        let restoring = snapshots
            .iter()
            .find(is_restoring)
            .map(|snapshot| snapshot.name_any());
        let members = content.map_or(Vec::new(), |content| self.members_of(group, content));
        let sources = selected
            .iter()
            .map(|claim| self.source(&namespace, claim))
            .collect();
        Gathered {
            sources,
            members,
            snapshots,
            restoring,
        }
    }

    /// A selected claim, with what own writes have made of it since.
    fn source(
        &self,
        namespace: &str,
        claim: &PersistentVolumeClaim,
    ) -> (Arc<PersistentVolumeClaim>, Option<Arc<PersistentVolume>>) {
        let held = self.snapshots.claims.get(Some(namespace), &claim.name_any());
        let held = held.filter(|held| held.metadata.uid == claim.metadata.uid);
        let claim = held.unwrap_or_else(|| Arc::new(claim.clone()));
        let pv = claim::volume_name(&claim).and_then(|name| self.snapshots.pvs.get(None, name));
        (claim, pv)
    }

    fn members_of(
        &self,
        group: &VolumeGroupSnapshot,
        content: &VolumeGroupSnapshotContent,
    ) -> Vec<GatheredMember> {
        // Those that existed before the group's objects have objects of their own.
        let is_dynamic = !content.volume_handles().is_empty();
        let infos = content.members().iter().filter(|_| is_dynamic);
        infos
            .map(|info| {
                let (snapshot, own) = members::names(group, info);
                let handle = info.volume_handle.as_deref().unwrap_or_default();
                let mut pvs = self.by_volume.get(&handle_key(&content.spec.driver, handle));
                GatheredMember {
                    snapshot: self
                        .snapshots
                        .snapshots
                        .get(group.metadata.namespace.as_deref(), &snapshot),
                    content: self.snapshots.contents.get(None, &own),
                    // Several PVs of one volume leave open which claim it was.
                    pv: if pvs.len() == 1 { pvs.pop() } else { None },
                }
            })
            .collect()
    }

    fn decide(
        &self,
        group: &VolumeGroupSnapshot,
        content: Option<&VolumeGroupSnapshotContent>,
        gathered: &Gathered,
    ) -> Next {
        let class_name = group.spec.volume_group_snapshot_class_name.as_deref();
        let class = class_name.and_then(|name| self.classes.get(None, name));
        let classes = match class_name {
            Some(_) => Vec::new(),
            None => self.classes.list(),
        };
        let nodes = self.snapshots.nodes.as_ref().map(Cache::list);
        let infos = content
            .map(VolumeGroupSnapshotContent::members)
            .unwrap_or_default();
        let members = gathered.members.iter().zip(infos);
        let defaults = classes.iter().map(Arc::as_ref).filter(|class| class.is_default());
        decide(&Seen {
            group,
            content,
            class: class.as_deref(),
            default_classes: defaults.collect(),
            sources: gathered
                .sources
                .iter()
                .map(|(claim, pv)| Source {
                    claim,
                    pv: pv.as_deref(),
                })
                .collect(),
            members: members
                .map(|(member, info)| Member {
                    info,
                    snapshot: member.snapshot.as_deref(),
                    content: member.content.as_deref(),
                    pv: member.pv.as_deref(),
                })
                .collect(),
            snapshots: gathered.snapshots.iter().map(Arc::as_ref).collect(),
            restoring: gathered.restoring.clone(),
            nodes: nodes.as_deref(),
        })
    }

    /// Tells why it goes no further, once, and has it tried again.
    async fn fail(&self, group: &VolumeGroupSnapshot, why: Why) -> Result<Outcome, SyncError> {
        let message = why.to_string();
        if !why.is_in_status() {
            let uid = group.uid().unwrap_or_default();
            let tell = self.told.check(&uid, why.clone(), Duration::ZERO, Instant::now());
            if tell == Tell::Now {
                self.warn(group, why.reason(), message);
            }
            return Err(SyncError::Refused(why));
        }
        let known = group.status.as_ref().and_then(|status| status.error.as_ref());
        if let Some(status) = trouble(known, group.is_ready(), &message) {
            match self.group_writer(group).merge_status(group, status).await {
                Ok(()) => self.warn(group, why.reason(), message),
                written => return Ok(settled_by(written)?.unwrap_or(Outcome::Settled)),
            }
        }
        Err(SyncError::Refused(why))
    }

    /// Looks at one content and does what there is to do.
    pub(super) async fn sync_content(&self, name: &str) -> Result<Outcome, SyncError> {
        for _ in 0..STEPS_MAX {
            let Some(content) = self.caches.contents.get(None, name) else {
                return Ok(Outcome::Settled);
            };
            let reference = &content.spec.volume_group_snapshot_ref;
            let group_name = reference.name.as_deref().unwrap_or_default();
            let group = self.caches.groups.get(reference.namespace.as_deref(), group_name);
            let written = match content_sync::decide_group(&content, group.as_deref()) {
                ContentNext::Settled => return Ok(Outcome::Settled),
                ContentNext::Refuse => {
                    let message = SyncError::ContentSource.to_string();
                    let reason = "GroupContentValidationError";
                    let recorder = &self.snapshots.recorder;
                    recorder.event_on(&*content, EventType::Warning, reason, message);
                    return Err(SyncError::ContentSource);
                }
                ContentNext::MarkBeingDeleted => self.mark_deleted(&content).await,
                ContentNext::AddFinalizer => {
                    let names = [keys::GROUP_SNAPSHOT_CONTENT_BOUND_PROTECTION];
                    self.content_writer().add_finalizers(&content, &names).await
                }
            };
            if let Some(outcome) = settled_by(written)? {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Retry)
    }
}
