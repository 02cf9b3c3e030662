//! What a claim says about itself: class, size, link to a PV, chosen node.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::access_mode::AccessModes;
use crate::keys;
use crate::quantity::{Amount, ParseAmountError};

/// `status.phase` of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimPhase {
    /// Not bound (yet).
    Pending,
    /// Bound; capacity and access modes in the status are valid.
    Bound,
    /// Its PV is gone or belongs to another claim.
    Lost,
}

impl ClaimPhase {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ClaimPhase::Pending => "Pending",
            ClaimPhase::Bound => "Bound",
            ClaimPhase::Lost => "Lost",
        }
    }
}

/// The phase, if it is set and known.
pub fn phase(claim: &PersistentVolumeClaim) -> Option<ClaimPhase> {
    let word = claim.status.as_ref()?.phase.as_deref()?;
    [ClaimPhase::Pending, ClaimPhase::Bound, ClaimPhase::Lost]
        .into_iter()
        .find(|phase| phase.as_str() == word)
}

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The class: beta annotation, else field, else empty.
pub fn class_name(claim: &PersistentVolumeClaim) -> &str {
    explicit_class_name(claim).unwrap_or_default()
}

/// The class if one is given; `Some("")` asks for volumes without class.
pub fn explicit_class_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let field = || claim.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&claim.metadata, keys::STORAGE_CLASS_BETA).or_else(field)
}

/// The PV's name that the claim carries, if not empty.
pub fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim.spec.as_ref()?.volume_name.as_deref()?;
    (!name.is_empty()).then_some(name)
}

/// Whether the binder has finished binding it once.
pub fn is_bind_completed(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, keys::BIND_COMPLETED).is_some()
}

/// Whether the scheduler may rely on the link: a volume name and the binder's mark. The phase is not consulted.
pub fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    volume_name(claim).is_some() && is_bind_completed(claim)
}

/// The node that the scheduler chose, if any.
pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(&claim.metadata, keys::SELECTED_NODE)
}

/// The provisioner that was asked to act, by the current or the beta key.
pub fn storage_provisioner(claim: &PersistentVolumeClaim) -> Option<&str> {
    let meta = &claim.metadata;
    annotation(meta, keys::STORAGE_PROVISIONER).or_else(|| annotation(meta, keys::STORAGE_PROVISIONER_BETA))
}

/// The requested size; nothing if there is no request.
///
/// # Errors
/// Final: the request is no quantity.
pub fn requested_storage(claim: &PersistentVolumeClaim) -> Result<Amount, ParseAmountError> {
    let requests = || {
        claim
            .spec
            .as_ref()?
            .resources
            .as_ref()?
            .requests
            .as_ref()?
            .get("storage")
    };
    requests().map_or(Ok(Amount::ZERO), Amount::try_from)
}

/// The size in `status.capacity`, if there is one.
///
/// # Errors
/// Final: it is no quantity.
pub fn status_capacity(claim: &PersistentVolumeClaim) -> Result<Option<Amount>, ParseAmountError> {
    let capacity = || claim.status.as_ref()?.capacity.as_ref()?.get("storage");
    capacity().map(Amount::try_from).transpose()
}

/// The requested access modes.
pub fn access_modes(claim: &PersistentVolumeClaim) -> AccessModes {
    let words = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref());
    AccessModes::parse(words.unwrap_or_default())
}

/// Whether the claim asks for a raw block device.
pub fn is_block(claim: &PersistentVolumeClaim) -> bool {
    let mode = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    mode == Some("Block")
}

/// The requested VolumeAttributesClass; empty and absent are the same.
pub fn attributes_class_name(claim: &PersistentVolumeClaim) -> &str {
    let name = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_attributes_class_name.as_deref());
    name.unwrap_or_default()
}

/// Whether volumes of the class are chosen when a pod is scheduled. An unset mode is `Immediate` (the API server
/// defaults it).
pub fn is_delayed(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether the class carries a default mark.
pub fn is_default_class(class: &StorageClass) -> bool {
    [keys::IS_DEFAULT_CLASS, keys::IS_DEFAULT_CLASS_BETA]
        .iter()
        .any(|key| annotation(&class.metadata, key) == Some("true"))
}

/// The default among these classes: the newest marked one, by name among equals.
pub fn default_class<'a>(classes: impl IntoIterator<Item = &'a StorageClass>) -> Option<&'a StorageClass> {
    let created = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
    classes
        .into_iter()
        .filter(|class| is_default_class(class))
        .max_by(|a, b| {
            let by_age = created(a).cmp(&created(b));
            // The first name wins, so it has to count as the greater one.
            by_age.then_with(|| b.metadata.name.cmp(&a.metadata.name))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(value: Value) -> PersistentVolumeClaim {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn class_of_a_claim() {
        let beta = json!({"annotations": {keys::STORAGE_CLASS_BETA: "old"}});
        let beta_empty = json!({"annotations": {keys::STORAGE_CLASS_BETA: ""}});
        let cases = [
            (json!({}), json!({}), None, ""),
            (
                json!({}),
                json!({"storageClassName": "fast"}),
                Some("fast"),
                "fast",
            ),
            (json!({}), json!({"storageClassName": ""}), Some(""), ""),
            (beta.clone(), json!({}), Some("old"), "old"),
            (beta, json!({"storageClassName": "fast"}), Some("old"), "old"),
            (beta_empty, json!({"storageClassName": "fast"}), Some(""), ""),
        ];
        for (metadata, spec, explicit, name) in cases {
            let claim = claim(json!({"metadata": metadata, "spec": spec}));
            assert_eq!(
                (explicit_class_name(&claim), class_name(&claim)),
                (explicit, name),
                "{claim:?}"
            );
        }
    }

    #[test]
    fn fully_bound_needs_name_and_mark() {
        let mark = json!({"annotations": {keys::BIND_COMPLETED: "yes"}});
        let cases = [
            (json!({}), "", false),
            (json!({}), "pv1", false),
            (mark.clone(), "", false),
            (mark, "pv1", true),
        ];
        for (metadata, volume, expected) in cases {
            let claim = claim(json!({"metadata": metadata, "spec": {"volumeName": volume}}));
            assert_eq!(is_fully_bound(&claim), expected, "{claim:?}");
        }
    }

    #[test]
    fn newest_default_wins_then_the_first_name() {
        let class = |name: &str, day: u8, key: &str, value: &str| -> StorageClass {
            let created = format!("2026-01-{day:02}T00:00:00Z");
            let metadata = json!({"name": name, "creationTimestamp": created, "annotations": {key: value}});
            serde_json::from_value(json!({"metadata": metadata, "provisioner": "p"})).unwrap()
        };
        let chosen =
            |classes: &[StorageClass]| default_class(classes).and_then(|class| class.metadata.name.clone());
        let key = keys::IS_DEFAULT_CLASS;
        assert_eq!(chosen(&[]), None);
        assert_eq!(
            chosen(&[class("a", 9, key, "false"), class("b", 9, key, "True")]),
            None
        );
        assert_eq!(
            chosen(&[
                class("a", 1, key, "true"),
                class("b", 2, keys::IS_DEFAULT_CLASS_BETA, "true")
            ]),
            Some("b".into())
        );
        assert_eq!(
            chosen(&[
                class("b", 2, key, "true"),
                class("a", 2, key, "true"),
                class("c", 2, key, "true")
            ]),
            Some("a".into())
        );
    }
}
