//! Keeps a VolumeAttributesClass that is being deleted as long as a claim or PV refers to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::ResourceExt;
use kube::api::{Api, PatchParams};
use moorline_model::{claim, keys, volume};
use moorline_runtime::{Backoff, Cache, Change, Index, Informers, Outcome, Queue, run_workers};
use tokio_util::sync::CancellationToken;

use crate::finalizer;
use crate::write_error::WriteError;

/// What to do next about a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until something changes.
    Settled,
    /// Protect it: it was made without.
    AddFinalizer,
    /// Let it go.
    RemoveFinalizer,
}

/// What to do next about one class. Pure.
pub fn decide(class: &VolumeAttributesClass, is_used: bool) -> Next {
    let is_protected = finalizer::is_present(&class.metadata, keys::VAC_PROTECTION);
    match (class.metadata.deletion_timestamp.is_some(), is_protected, is_used) {
        (false, true, _) => Next::Settled,
        (false, false, _) => Next::AddFinalizer,
        // A finalizer can't be added to an object that is being deleted.
        (true, false, _) => Next::Settled,
        (true, true, true) => Next::Settled,
        (true, true, false) => Next::RemoveFinalizer,
    }
}

/// The classes a claim refers to: the one it asks for, the one it has, the one it is being changed to.
pub fn classes_of_claim(claim: &PersistentVolumeClaim) -> BTreeSet<String> {
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let modifying = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = modifying.and_then(|status| status.target_volume_attributes_class_name.clone());
    [
        Some(claim::attributes_class_name(claim).to_string()),
        current,
        target,
    ]
    .into_iter()
    .flatten()
    .filter(|name| !name.is_empty())
    .collect()
}

/// The class a PV refers to.
pub fn class_of_pv(pv: &PersistentVolume) -> BTreeSet<String> {
    let name = volume::attributes_class_name(pv);
    (!name.is_empty()).then(|| name.to_string()).into_iter().collect()
}

/// Settings of the controller.
#[derive(Clone, Debug)]
pub struct Config {
    /// Delay before a class whose write failed is looked at again.
    pub backoff: Backoff,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backoff: Backoff {
                min: Duration::from_millis(50),
                max: Duration::from_secs(60),
            },
        }
    }
}

struct Protection {
    api: Api<VolumeAttributesClass>,
    classes: Cache<VolumeAttributesClass>,
    claims: Index<String, PersistentVolumeClaim>,
    pvs: Index<String, PersistentVolume>,
}

/// Runs the controller until `stop`; writes under way are finished.
pub async fn run(config: Config, informers: Informers, stop: CancellationToken) {
    let classes = informers.cache::<VolumeAttributesClass>();
    let claims = informers.cache::<PersistentVolumeClaim>();
    let pvs = informers.cache::<PersistentVolume>();
    let all_synced = async { tokio::join!(classes.synced(), claims.synced(), pvs.synced()) };
    if stop.run_until_cancelled(all_synced).await.is_none() {
        return;
    }
    let queue = Queue::new(config.backoff);
    let protection = Arc::new(Protection {
        api: Api::all(informers.client().clone()),
        classes: classes.clone(),
        claims: Index::new(&claims, |claim| classes_of_claim(claim).into_iter().collect()),
        pvs: Index::new(&pvs, |pv| class_of_pv(pv).into_iter().collect()),
    });
    let sink = queue.clone();
    classes.on_change(move |change| sink.add(change.object().name_any()));
    let sink = queue.clone();
    claims.on_change(move |change| {
        dropped(change, classes_of_claim)
            .into_iter()
            .for_each(|name| sink.add(name))
    });
    let sink = queue.clone();
    pvs.on_change(move |change| {
        dropped(change, class_of_pv)
            .into_iter()
            .for_each(|name| sink.add(name))
    });
    // Classes are few, and hardly ever deleted.
    run_workers(queue, 1, stop, move |name: String| {
        let protection = protection.clone();
        async move { protection.sync(&name).await }
    })
    .await;
}

/// The references that a change took away.
fn dropped<K>(change: &Change<K>, classes_of: fn(&K) -> BTreeSet<String>) -> BTreeSet<String> {
    match change {
        Change::Added(_) => BTreeSet::new(),
        Change::Updated { old, new } => &classes_of(old) - &classes_of(new),
        Change::Removed(old) => classes_of(old),
    }
}

impl Protection {
    async fn sync(&self, name: &str) -> Result<Outcome, kube::Error> {
        let Some(class) = self.classes.get(None, name) else {
            return Ok(Outcome::Settled);
        };
        let is_used = !self.claims.get(name).is_empty() || !self.pvs.get(name).is_empty();
        let operations = match decide(&class, is_used) {
            Next::Settled => None,
            Next::AddFinalizer => Some(finalizer::addition(&class.metadata, keys::VAC_PROTECTION)),
            Next::RemoveFinalizer => finalizer::removal(&class.metadata, keys::VAC_PROTECTION),
        };
        let Some(operations) = operations else {
            return Ok(Outcome::Settled);
        };
        let patch = finalizer::json_patch::<VolumeAttributesClass>(operations);
        let written = self.api.patch(name, &PatchParams::default(), &patch).await;
        match written.map_err(WriteError::from) {
            Ok(_) | Err(WriteError::Gone) => Ok(Outcome::Settled),
            Err(WriteError::Conflict) => Ok(Outcome::Retry),
            Err(WriteError::Other(error)) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::api::TestApi;
    use crate::testing::running::Running;

    fn class(name: &str, is_deleting: bool, finalizers: &[&str]) -> Value {
        let deleted = is_deleting.then_some("2026-01-01T00:00:00Z");
        let metadata = json!({"name": name, "deletionTimestamp": deleted, "finalizers": finalizers});
        json!({"metadata": metadata, "driverName": "d"})
    }

    #[test]
    fn decisions() {
        let ours = &[keys::VAC_PROTECTION][..];
        let cases = [
            (
                "living and protected",
                class("g", false, ours),
                false,
                Next::Settled,
            ),
            (
                "living and unprotected",
                class("g", false, &[]),
                true,
                Next::AddFinalizer,
            ),
            ("deleting, used", class("g", true, ours), true, Next::Settled),
            (
                "deleting, unused",
                class("g", true, ours),
                false,
                Next::RemoveFinalizer,
            ),
            (
                "deleting, not ours",
                class("g", true, &["a/b"]),
                false,
                Next::Settled,
            ),
        ];
        for (name, class, is_used, expected) in cases {
            assert_eq!(
                decide(&serde_json::from_value(class).unwrap(), is_used),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn references() {
        let claim = json!({
            "spec": {"volumeAttributesClassName": "asked"},
            "status": {
                "currentVolumeAttributesClassName": "has",
                "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "target"},
            },
        });
        let found = classes_of_claim(&serde_json::from_value(claim).unwrap());
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["asked", "has", "target"]);
        assert!(classes_of_claim(&PersistentVolumeClaim::default()).is_empty());
        let pv = serde_json::from_value(json!({"spec": {"volumeAttributesClassName": "gold"}})).unwrap();
        assert_eq!(class_of_pv(&pv).into_iter().collect::<Vec<_>>(), ["gold"]);
        assert!(class_of_pv(&PersistentVolume::default()).is_empty());
    }

    #[tokio::test]
    async fn class_goes_with_its_last_reference() {
        let api = TestApi::new();
        api.put("volumeattributesclasses", class("gold", false, &[]));
        let spec = json!({"volumeAttributesClassName": "gold"});
        api.put(
            "persistentvolumes",
            json!({"metadata": {"name": "pv1"}, "spec": spec}),
        );
        api.put(
            "persistentvolumeclaims",
            json!({"metadata": {"namespace": "ns", "name": "c"}, "spec": spec}),
        );
        let running = Running::start(&api, |informers, stop| run(Config::default(), informers, stop));
        let find = |api: &TestApi| api.get("volumeattributesclasses", "/gold");
        api.wait_until("protected", |api| {
            find(api).unwrap()["metadata"]["finalizers"] == json!([keys::VAC_PROTECTION])
        })
        .await;
        api.delete("volumeattributesclasses", "/gold");
        api.change(
            "persistentvolumeclaims",
            "ns/c",
            json!({"spec": {"volumeAttributesClassName": null}}),
        );
        assert!(find(&api).is_some(), "the PV still refers to it");
        api.delete("persistentvolumes", "/pv1");
        api.wait_until("gone", |api| find(api).is_none()).await;
        running.stop().await;
    }
}
