//! Keeps what a volume is being filled from until it is filled: a finalizer on the source claim or snapshot, taken right
//! before the driver is asked, and given back when nobody fills from it any more.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Resource;
use moorline_model::snapshot::{API_VERSION, VolumeSnapshot, VolumeSnapshotContent};
use moorline_model::{claim, keys, mutant};
use moorline_runtime::{Change, Informers, Outcome, Queue, until_served};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::Provisioner;
use super::plan::Plan;
use super::provision::{self, ClaimKey, ProvisionError};
use super::source::{self, SourceKey, SourceKind};
use crate::api::{WriteError, code, get};
use crate::finalizers::{self, Edit, Edited};

/// What is known of a source whose finalizer may not be needed any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceSeen<'a> {
    pub(super) is_protected: bool,
    /// The driver that the source's data is with, if that can be told.
    pub(super) driver_name: Option<&'a str>,
    pub(super) own_driver_name: &'a str,
    /// A call that fills a volume from it has not ended.
    pub(super) is_asked_for: bool,
    /// A claim of ours that names it has no volume yet.
    pub(super) is_wanted: bool,
}

/// Whether the finalizer shall go. Pure.
pub(super) fn may_release(seen: &SourceSeen<'_>) -> bool {
    // Another driver's provisioner knows whether it needs it. One whose data is gone needs nobody.
    let is_ours = seen
        .driver_name
        .is_none_or(|driver_name| driver_name == seen.own_driver_name);
    seen.is_protected && is_ours && !seen.is_asked_for && !seen.is_wanted
}

fn finalizer(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Claim => keys::CLONING_PROTECTION,
        SourceKind::Snapshot => keys::SNAPSHOT_SOURCE_PROTECTION_BY_PROVISIONER,
    }
}

impl Provisioner {
    /// Takes the finalizer, before the driver hears of the source.
    pub(super) async fn protect_source(&self, key: &SourceKey) -> Result<(), ProvisionError> {
        if mutant::is_on("no-source-protection") {
            return Ok(());
        }
        match key.kind {
            SourceKind::Claim => {
                let held = self.claims.get(Some(&key.namespace), &key.name);
                let held = held.ok_or_else(|| ProvisionError::SourceGone(key.clone()))?;
                match self.edit(key, &*held, finalizers::add).await? {
                    Edited::Gone => return Err(ProvisionError::SourceGone(key.clone())),
                    Edited::Changed(claim) => self.claims.observe(claim),
                    Edited::Unchanged => {}
                }
            }
            SourceKind::Snapshot => {
                let held: Option<VolumeSnapshot> = self.read(key).await?;
                let held = held.ok_or_else(|| ProvisionError::SourceGone(key.clone()))?;
                if let Edited::Gone = self.edit(key, &held, finalizers::add).await? {
                    return Err(ProvisionError::SourceGone(key.clone()));
                }
            }
        }
        Ok(())
    }

    /// The plan has ended: its source is looked at.
    pub(super) fn release_source(&self, plan: &Plan) {
        if let Some(key) = &plan.source {
            self.sources.add(key.clone());
        }
    }

    /// One look at one source.
    pub(super) async fn reconcile_source(&self, key: SourceKey) -> Result<Outcome, ProvisionError> {
        match key.kind {
            SourceKind::Claim => {
                let Some(held) = self.claims.get(Some(&key.namespace), &key.name) else {
                    return Ok(Outcome::Settled);
                };
                let pv = self.pvs.get(None, claim::volume_name(&held).unwrap_or_default());
                let csi = pv
                    .as_ref()
                    .and_then(|pv| pv.spec.as_ref())
                    .and_then(|spec| spec.csi.as_ref());
                let driver_name = csi.map(|csi| csi.driver.as_str());
                if self.may_release_source(&key, &*held, driver_name) {
                    match self.edit(&key, &*held, finalizers::remove).await? {
                        Edited::Unchanged => {}
                        Edited::Changed(claim) => self.claims.observe(claim),
                        Edited::Gone => self.claims.forget(&held),
                    }
                }
            }
            SourceKind::Snapshot => {
                let Some(held) = self.read::<VolumeSnapshot>(&key).await? else {
                    return Ok(Outcome::Settled);
                };
                let content: Option<VolumeSnapshotContent> = match held.bound_content() {
                    Some(name) => get(&self.client, (None, name)).await.map_err(|error| {
                        WriteError::new(format!("read volume snapshot content {name}"), error)
                    })?,
                    None => None,
                };
                let driver_name = content.as_ref().map(|content| content.spec.driver.as_str());
                if self.may_release_source(&key, &held, driver_name) {
                    self.edit(&key, &held, finalizers::remove).await?;
                }
            }
        }
        Ok(Outcome::Settled)
    }

    fn may_release_source<K>(&self, key: &SourceKey, held: &K, driver_name: Option<&str>) -> bool
    where
        K: Resource<DynamicType = ()>,
    {
        let own_driver_name = &self.driver.facts.driver_name;
        let finalizer = finalizer(key.kind);
        let mut finalizers = held.meta().finalizers.iter().flatten();
        may_release(&SourceSeen {
            is_protected: finalizers.any(|name| name == finalizer),
            driver_name,
            own_driver_name,
            is_asked_for: self.memory.is_source(key),
            is_wanted: self
                .by_source
                .get(key)
                .iter()
                .any(|claim| is_wanting(claim, own_driver_name)),
        })
    }

    async fn read<K>(&self, key: &SourceKey) -> Result<Option<K>, ProvisionError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let found = get(&self.client, (Some(&key.namespace), &key.name)).await;
        found.map_err(|error| WriteError::new(format!("read source {}", key.name), error).into())
    }

    async fn edit<K>(&self, key: &SourceKey, held: &K, edit: Edit) -> Result<Edited<K>, ProvisionError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone,
    {
        let name = (Some(key.namespace.as_str()), key.name.as_str());
        let edited = finalizers::apply(&self.client, held, name, finalizer(key.kind), edit).await;
        if edited.as_ref().is_err_and(|error| code(error) == Some(403)) {
            // Upstream's role doesn't let the provisioner patch sources: it works on, without their protection.
            tracing::warn!(source = ?key, "Not allowed to protect what a volume is filled from");
            return Ok(Edited::Unchanged);
        }
        edited.map_err(|error| {
            WriteError::new(format!("patch finalizers of source {}", key.name), error).into()
        })
    }

    /// Has sources looked at that may not be needed any more, and claims that waited for theirs, now and until `stop`.
    pub(super) fn feed_sources(&self, claims: &Queue<ClaimKey>, stop: &CancellationToken) {
        let (queue, sources, by_source) = (claims.clone(), self.sources.clone(), self.by_source.clone());
        self.claims.on_change_until(stop.clone(), move |change| {
            let claim = change.object();
            let is_open = claim::volume_name(claim).is_none() && !matches!(change, Change::Removed(_));
            if let Some(key) = source::key_of(claim).filter(|_| !is_open) {
                sources.add(key);
            }
            let key = SourceKey {
                kind: SourceKind::Claim,
                namespace: claim.metadata.namespace.clone().unwrap_or_default(),
                name: claim.metadata.name.clone().unwrap_or_default(),
            };
            let waiting = by_source.get(&key);
            waiting
                .iter()
                .map(|claim| ClaimKey::of(claim))
                .filter(|claim| queue.failures(claim) > 0)
                .for_each(|claim| queue.add(claim));
            let mut finalizers = claim.metadata.finalizers.iter().flatten();
            if finalizers.any(|name| name == keys::CLONING_PROTECTION) {
                sources.add_unless_failing(key);
            }
        });
    }

    /// The same for snapshots, once the API server has them.
    pub(super) async fn follow_snapshots(
        self: Arc<Self>,
        claims: Queue<ClaimKey>,
        informers: Informers,
        stop: CancellationToken,
    ) {
        if !until_served(&self.client, API_VERSION, &["VolumeSnapshot"], &stop).await {
            return;
        }
        let (sources, by_source) = (self.sources.clone(), self.by_source.clone());
        let own = self.driver.facts.driver_name.clone();
        informers
            .cache::<VolumeSnapshot>()
            .on_change_until(stop, move |change| {
                let snapshot = change.object();
                let key = SourceKey {
                    kind: SourceKind::Snapshot,
                    namespace: snapshot.metadata.namespace.clone().unwrap_or_default(),
                    name: snapshot.metadata.name.clone().unwrap_or_default(),
                };
                let waiting = by_source.get(&key);
                waiting
                    .iter()
                    .filter(|claim| provision::is_candidate(claim, &own))
                    .map(|claim| ClaimKey::of(claim))
                    .filter(|claim| claims.failures(claim) > 0)
                    .for_each(|claim| claims.add(claim));
                let mut finalizers = snapshot.metadata.finalizers.iter().flatten();
                let protection = keys::SNAPSHOT_SOURCE_PROTECTION_BY_PROVISIONER;
                if finalizers.any(|name| name == protection) && !matches!(change, Change::Removed(_)) {
                    sources.add_unless_failing(key);
                }
            });
    }
}

fn is_wanting(claim: &PersistentVolumeClaim, driver_name: &str) -> bool {
    provision::is_candidate(claim, driver_name) && claim.meta().deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_kept_while_it_is_needed() {
        let idle = SourceSeen {
            is_protected: true,
            driver_name: Some("d"),
            own_driver_name: "d",
            is_asked_for: false,
            is_wanted: false,
        };
        let cases = [
            ("nobody needs it", idle, true),
            (
                "its data is gone",
                SourceSeen {
                    driver_name: None,
                    ..idle
                },
                true,
            ),
            (
                "not protected",
                SourceSeen {
                    is_protected: false,
                    ..idle
                },
                false,
            ),
            (
                "another driver's",
                SourceSeen {
                    driver_name: Some("e"),
                    ..idle
                },
                false,
            ),
            (
                "a call has not ended",
                SourceSeen {
                    is_asked_for: true,
                    ..idle
                },
                false,
            ),
            (
                "a claim waits for it",
                SourceSeen {
                    is_wanted: true,
                    ..idle
                },
                false,
            ),
        ];
        for (name, seen, expected) in cases {
            assert_eq!(may_release(&seen), expected, "{name}");
        }
    }
}
