//! Snapshot objects of `snapshot.storage.k8s.io/v1`, and the facts about them that controller, sidecars and provisioner
//! have to agree on. Fields that nobody here reads are left out; objects are changed by patches, so they are kept.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, SecretReference};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, Resource};
use serde::{Deserialize, Serialize};

use crate::claim::annotation;
use crate::custom_resource::{api_version, may_refer_to, refers_to, resource};
use crate::group_snapshot::{self, VolumeGroupSnapshot};
use crate::keys;
use crate::secret_template::{self, TemplateError, resolve};

/// The API group.
pub const GROUP: &str = "snapshot.storage.k8s.io";
/// Version and group.
pub const API_VERSION: &str = "snapshot.storage.k8s.io/v1";

api_version!();

/// A user's wish for a snapshot of a claim, or for an existing snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub struct VolumeSnapshot {
    /// What the object is.
    #[serde(skip_deserializing)]
    pub api_version: ApiVersion,
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What is wished for.
    #[serde(default)]
    pub spec: VolumeSnapshotSpec,
    /// What there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<VolumeSnapshotStatus>,
}

/// What a user wishes for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotSpec {
    /// Where the snapshot comes from.
    pub source: VolumeSnapshotSource,
    /// The class; the driver's default one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
}

/// Exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotSource {
    /// The claim to take a snapshot of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_name: Option<String>,
    /// The content of a snapshot that exists already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_content_name: Option<String>,
}

/// What is known of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotStatus {
    /// The content that it is bound to, if that points back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_volume_snapshot_content_name: Option<String>,
    /// When the snapshot was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<Time>,
    /// Whether volumes can be made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// The least size of a volume made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<Quantity>,
    /// The last trouble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
    /// The group snapshot that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_group_snapshot_name: Option<String>,
}

/// Trouble with a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotError {
    /// When it was met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A snapshot in the storage backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub struct VolumeSnapshotContent {
    /// What the object is.
    #[serde(skip_deserializing)]
    pub api_version: ApiVersion,
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What it stands for.
    #[serde(default)]
    pub spec: VolumeSnapshotContentSpec,
    /// What the driver said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<VolumeSnapshotContentStatus>,
}

/// What a content stands for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotContentSpec {
    /// The snapshot that it is bound to; without UID: reserved for the one of that name.
    pub volume_snapshot_ref: ObjectReference,
    /// `Delete` or `Retain`.
    pub deletion_policy: String,
    /// Name of the CSI driver.
    pub driver: String,
    /// The class that it was made by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
    /// What it comes from.
    pub source: VolumeSnapshotContentSource,
    /// `Filesystem` or `Block`, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_volume_mode: Option<String>,
}

/// Exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotContentSource {
    /// The volume that a snapshot shall be taken of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_handle: Option<String>,
    /// The snapshot that exists already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
}

/// What the driver said of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotContentStatus {
    /// The driver's id of the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
    /// When it was cut, in nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<i64>,
    /// The least size of a volume made from it, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<i64>,
    /// Whether volumes can be made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// The last trouble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
    /// The group snapshot that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_group_snapshot_handle: Option<String>,
}

/// How snapshots are taken, and what becomes of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub struct VolumeSnapshotClass {
    /// What the object is.
    #[serde(skip_deserializing)]
    pub api_version: ApiVersion,
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// Name of the CSI driver.
    #[serde(default)]
    pub driver: String,
    /// For the driver, and for the sidecars where their keys say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BTreeMap<String, String>>,
    /// `Delete` or `Retain`.
    #[serde(default)]
    pub deletion_policy: String,
}

resource!(VolumeSnapshot, "volumesnapshots", NamespaceResourceScope);
resource!(
    VolumeSnapshotContent,
    "volumesnapshotcontents",
    ClusterResourceScope
);
resource!(VolumeSnapshotClass, "volumesnapshotclasses", ClusterResourceScope);

impl VolumeSnapshot {
    /// Whether volumes can be made from it.
    pub fn is_ready(&self) -> bool {
        self.status.as_ref().and_then(|status| status.ready_to_use) == Some(true)
    }

    /// Whether a provisioner may be filling a volume from it.
    pub fn is_held_as_source(&self) -> bool {
        let mut held = self.metadata.finalizers.iter().flatten();
        held.any(|name| name == keys::SNAPSHOT_SOURCE_PROTECTION_BY_PROVISIONER)
    }

    /// The content that it says it is bound to.
    pub fn bound_content(&self) -> Option<&str> {
        let status = self.status.as_ref()?;
        status
            .bound_volume_snapshot_content_name
            .as_deref()
            .filter(|name| !name.is_empty())
    }

    /// The group snapshot that it was made for, or was made a member of.
    pub fn group(&self) -> Option<&OwnerReference> {
        let mut owners = self.metadata.owner_references.iter().flatten();
        owners.find(|owner| {
            let group = owner.api_version.split_once('/').map(|(group, _)| group);
            group == Some(group_snapshot::GROUP) && owner.kind == VolumeGroupSnapshot::KIND
        })
    }

    /// The name of the group snapshot that it belongs to.
    pub fn group_name(&self) -> Option<&str> {
        let status = self.status.as_ref();
        let said = status.and_then(|status| status.volume_group_snapshot_name.as_deref());
        let owner = self.group().map(|owner| owner.name.as_str());
        owner.or(said).filter(|name| !name.is_empty())
    }

    /// The name that its content has, or will have. `None` if it has no valid source.
    pub fn content_name(&self) -> Option<String> {
        if let Some(bound) = self.bound_content() {
            return Some(bound.to_string());
        }
        let made_for_group = self.group().and_then(|_| {
            let name = self.metadata.name.as_deref()?;
            group_snapshot::content_name_of_member(name)
        });
        if self.spec.source.volume_snapshot_content_name.is_none() && made_for_group.is_some() {
            return made_for_group;
        }
        let source = &self.spec.source;
        match (
            &source.persistent_volume_claim_name,
            &source.volume_snapshot_content_name,
        ) {
            (None, Some(name)) => Some(name.clone()),
            (Some(_), None) => Some(content_name(self.metadata.uid.as_deref()?)),
            _ => None,
        }
    }
}

impl VolumeSnapshotContent {
    /// Whether it is bound to that very snapshot: namespace, name and UID.
    pub fn points_to(&self, snapshot: &VolumeSnapshot) -> bool {
        refers_to(&self.spec.volume_snapshot_ref, &snapshot.metadata)
    }

    /// Whether it names the snapshot, with its UID or without one.
    pub fn may_bind_to(&self, snapshot: &VolumeSnapshot) -> bool {
        may_refer_to(&self.spec.volume_snapshot_ref, &snapshot.metadata)
    }

    /// The driver's id of the snapshot, once known.
    pub fn handle(&self) -> Option<&str> {
        self.status
            .as_ref()?
            .snapshot_handle
            .as_deref()
            .filter(|handle| !handle.is_empty())
    }

    /// Whether the snapshot goes with the object.
    pub fn is_deleting_backend(&self) -> bool {
        self.spec.deletion_policy == "Delete"
    }

    /// Whether `CreateSnapshot` may be under way, or may have been done without an answer.
    pub fn is_being_created(&self) -> bool {
        annotation(&self.metadata, keys::SNAPSHOT_BEING_CREATED).is_some()
    }

    /// Whether its snapshot is being, or has been, deleted.
    pub fn is_being_deleted(&self) -> bool {
        annotation(&self.metadata, keys::SNAPSHOT_BEING_DELETED).is_some()
    }

    /// Whether it is one of a group snapshot, which is created and deleted as a whole.
    pub fn is_in_group(&self) -> bool {
        let in_status = self.status.as_ref();
        annotation(&self.metadata, keys::GROUP_SNAPSHOT_HANDLE).is_some()
            || in_status.is_some_and(|status| status.volume_group_snapshot_handle.is_some())
    }
}

impl VolumeSnapshotClass {
    /// Whether it stands in for its driver where no class is named.
    pub fn is_default(&self) -> bool {
        annotation(&self.metadata, keys::IS_DEFAULT_SNAPSHOT_CLASS) == Some("true")
    }
}

/// Name of the content made for a snapshot.
pub fn content_name(snapshot_uid: &str) -> String {
    format!("snapcontent-{snapshot_uid}")
}

/// The snapshots that a claim names as its source, as namespace and name.
pub fn sources_of(claim: &PersistentVolumeClaim) -> Vec<(String, String)> {
    let own = claim.metadata.namespace.clone().unwrap_or_default();
    let mut found = Vec::new();
    let Some(spec) = &claim.spec else {
        return found;
    };
    let is_snapshot =
        |group: &Option<String>, kind: &str| group.as_deref() == Some(GROUP) && kind == VolumeSnapshot::KIND;
    if let Some(source) = &spec.data_source
        && is_snapshot(&source.api_group, &source.kind)
    {
        found.push((own.clone(), source.name.clone()));
    }
    if let Some(source) = &spec.data_source_ref
        && is_snapshot(&source.api_group, &source.kind)
    {
        let namespace = source
            .namespace
            .clone()
            .filter(|name| !name.is_empty())
            .unwrap_or(own);
        found.push((namespace, source.name.clone()));
    }
    found.sort();
    found.dedup();
    found
}

/// What the tokens in a VolumeSnapshotClass call a snapshot.
pub const NOUN: &str = "volumesnapshot";

/// Parameters below it belong to the sidecars; drivers never see them.
pub const PARAMETER_PREFIX: &str = "csi.storage.k8s.io/";

/// For what a snapshot class names a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotSecret {
    /// `CreateSnapshot`, and `DeleteSnapshot` later.
    Snapshotter,
    /// `ListSnapshots`.
    List,
    /// `CreateVolumeGroupSnapshot`, and `DeleteVolumeGroupSnapshot` later.
    GroupSnapshotter,
    /// `GetVolumeGroupSnapshot`.
    GroupGet,
}

impl SnapshotSecret {
    /// All of them.
    pub const ALL: [SnapshotSecret; 4] = [
        SnapshotSecret::Snapshotter,
        SnapshotSecret::List,
        SnapshotSecret::GroupSnapshotter,
        SnapshotSecret::GroupGet,
    ];

    /// The keys of name and namespace.
    pub fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Snapshotter => (
                "csi.storage.k8s.io/snapshotter-secret-name",
                "csi.storage.k8s.io/snapshotter-secret-namespace",
            ),
            Self::List => (
                "csi.storage.k8s.io/snapshotter-list-secret-name",
                "csi.storage.k8s.io/snapshotter-list-secret-namespace",
            ),
            Self::GroupSnapshotter => (
                "csi.storage.k8s.io/group-snapshotter-secret-name",
                "csi.storage.k8s.io/group-snapshotter-secret-namespace",
            ),
            Self::GroupGet => (
                "csi.storage.k8s.io/group-snapshotter-get-secret-name",
                "csi.storage.k8s.io/group-snapshotter-get-secret-namespace",
            ),
        }
    }
}

/// What the tokens in a snapshot class stand for, of either kind.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotTokens<'a> {
    /// What is snapshot, in the words of the tokens.
    pub noun: &'static str,
    /// The content's name.
    pub content_name: &'a str,
    /// The snapshot's namespace.
    pub namespace: &'a str,
    /// The snapshot's name.
    pub name: &'a str,
}

impl<'a> SnapshotTokens<'a> {
    /// Of the snapshot that a content is for.
    pub fn of_content(noun: &'static str, content: &'a ObjectMeta, snapshot: &'a ObjectReference) -> Self {
        Self {
            noun,
            content_name: content.name.as_deref().unwrap_or_default(),
            namespace: snapshot.namespace.as_deref().unwrap_or_default(),
            name: snapshot.name.as_deref().unwrap_or_default(),
        }
    }

    /// Of a snapshot and the content that is made for it.
    pub fn of_snapshot(noun: &'static str, content_name: &'a str, snapshot: &'a ObjectMeta) -> Self {
        Self {
            noun,
            content_name,
            namespace: snapshot.namespace.as_deref().unwrap_or_default(),
            name: snapshot.name.as_deref().unwrap_or_default(),
        }
    }
}

impl secret_template::Tokens for SnapshotTokens<'_> {
    fn in_namespace(&self, token: &str) -> Option<String> {
        match token.strip_prefix(self.noun)? {
            "content.name" => Some(self.content_name.to_string()),
            ".namespace" => Some(self.namespace.to_string()),
            _ => None,
        }
    }

    fn in_name(&self, token: &str) -> Option<String> {
        match token.strip_prefix(self.noun)? {
            ".name" => Some(self.name.to_string()),
            _ => self.in_namespace(token),
        }
    }
}

/// The Secret that a class's parameters name for one use.
///
/// # Errors
/// Final until the class changes.
pub fn secret_in(
    parameters: Option<&BTreeMap<String, String>>,
    secret_use: SnapshotSecret,
    tokens: &impl secret_template::Tokens,
) -> Result<Option<SecretReference>, TemplateError> {
    let keys = secret_use.keys();
    let given = |key: &'static str| Some((key, parameters?.get(key)?.as_str()));
    resolve(given(keys.0), given(keys.1), keys, tokens)
}

/// The Secret that a class names for one use.
///
/// # Errors
/// Final until the class changes.
pub fn class_secret(
    class: &VolumeSnapshotClass,
    secret_use: SnapshotSecret,
    tokens: &SnapshotTokens<'_>,
) -> Result<Option<SecretReference>, TemplateError> {
    secret_in(class.parameters.as_ref(), secret_use, tokens)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn objects_say_what_they_are() {
        let text = serde_json::to_value(VolumeSnapshotContent::default()).unwrap();
        assert_eq!(text["apiVersion"], "snapshot.storage.k8s.io/v1");
        assert_eq!(text["kind"], "VolumeSnapshotContent");
        let back: VolumeSnapshotContent = read(text);
        assert_eq!(back, VolumeSnapshotContent::default());
    }

    #[test]
    fn a_bookmark_without_spec_is_readable() {
        let text = json!({"kind": "VolumeSnapshot", "apiVersion": "x", "metadata": {"resourceVersion": "5"}});
        assert_eq!(
            read::<VolumeSnapshot>(text).metadata.resource_version.as_deref(),
            Some("5")
        );
    }

    #[test]
    fn the_content_of_a_snapshot() {
        let cases = [
            (
                "dynamic",
                json!({"persistentVolumeClaimName": "c"}),
                json!({}),
                Some("snapcontent-u"),
            ),
            (
                "static",
                json!({"volumeSnapshotContentName": "k"}),
                json!({}),
                Some("k"),
            ),
            (
                "bound",
                json!({"persistentVolumeClaimName": "c"}),
                json!({"boundVolumeSnapshotContentName": "b"}),
                Some("b"),
            ),
            (
                "bound to nothing",
                json!({"persistentVolumeClaimName": "c"}),
                json!({"boundVolumeSnapshotContentName": ""}),
                Some("snapcontent-u"),
            ),
            (
                "both",
                json!({"persistentVolumeClaimName": "c", "volumeSnapshotContentName": "k"}),
                json!({}),
                None,
            ),
            ("neither", json!({}), json!({}), None),
        ];
        for (name, source, status, expected) in cases {
            let snapshot: VolumeSnapshot = read(
                json!({"metadata": {"name": "s", "uid": "u"}, "spec": {"source": source}, "status": status}),
            );
            assert_eq!(snapshot.content_name().as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn bindings_hold_both_ways_or_not() {
        let snapshot: VolumeSnapshot =
            read(json!({"metadata": {"namespace": "ns", "name": "s", "uid": "u"}}));
        let cases = [
            (
                "whole",
                json!({"namespace": "ns", "name": "s", "uid": "u"}),
                true,
                true,
            ),
            ("reserved", json!({"namespace": "ns", "name": "s"}), false, true),
            (
                "reserved, empty UID",
                json!({"namespace": "ns", "name": "s", "uid": ""}),
                false,
                true,
            ),
            (
                "an earlier one",
                json!({"namespace": "ns", "name": "s", "uid": "x"}),
                false,
                false,
            ),
            (
                "elsewhere",
                json!({"namespace": "n2", "name": "s", "uid": "u"}),
                false,
                false,
            ),
            ("another", json!({"namespace": "ns", "name": "t"}), false, false),
        ];
        for (name, reference, points, may) in cases {
            let content: VolumeSnapshotContent =
                read(json!({"metadata": {}, "spec": {"volumeSnapshotRef": reference}}));
            assert_eq!(content.points_to(&snapshot), points, "{name}");
            assert_eq!(content.may_bind_to(&snapshot), may, "{name}");
        }
    }

    #[test]
    fn sources_of_claims() {
        let source = |namespace: Option<&str>| json!({"apiGroup": GROUP, "kind": "VolumeSnapshot", "name": "s", "namespace": namespace});
        let here = vec![("ns".to_string(), "s".to_string())];
        let cases = [
            ("none", json!({}), Vec::new()),
            ("dataSource", json!({"dataSource": source(None)}), here.clone()),
            (
                "both",
                json!({"dataSource": source(None), "dataSourceRef": source(None)}),
                here.clone(),
            ),
            (
                "own namespace given",
                json!({"dataSourceRef": source(Some("ns"))}),
                here,
            ),
            (
                "elsewhere",
                json!({"dataSourceRef": source(Some("n2"))}),
                vec![("n2".to_string(), "s".to_string())],
            ),
            (
                "a claim",
                json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "s"}}),
                Vec::new(),
            ),
        ];
        for (name, spec, expected) in cases {
            let claim: PersistentVolumeClaim = read(json!({"metadata": {"namespace": "ns"}, "spec": spec}));
            assert_eq!(sources_of(&claim), expected, "{name}");
        }
    }

    #[test]
    fn secrets_of_classes() {
        let tokens = SnapshotTokens {
            noun: NOUN,
            content_name: "k",
            namespace: "ns",
            name: "s",
        };
        let secret = |name: &str, namespace: &str| {
            let (name_key, namespace_key) = SnapshotSecret::Snapshotter.keys();
            let class: VolumeSnapshotClass =
                read(json!({"metadata": {}, "parameters": {name_key: name, namespace_key: namespace}}));
            class_secret(&class, SnapshotSecret::Snapshotter, &tokens)
                .map(|found| found.map(|found| (found.namespace.unwrap(), found.name.unwrap())))
        };
        assert_eq!(
            secret(
                "${volumesnapshot.name}-${volumesnapshotcontent.name}",
                "${volumesnapshot.namespace}"
            ),
            Ok(Some(("ns".to_string(), "s-k".to_string())))
        );
        assert!(
            secret("a", "${volumesnapshot.name}").is_err(),
            "the user's name must not choose the namespace"
        );
        let none = VolumeSnapshotClass::default();
        assert_eq!(class_secret(&none, SnapshotSecret::List, &tokens), Ok(None));
    }
}
