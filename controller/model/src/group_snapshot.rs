//! Group snapshot objects of `groupsnapshot.storage.k8s.io/v1`: one moment of several volumes. Fields that nobody here
//! reads are left out; objects are changed by patches, so they are kept.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, SecretReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::claim::annotation;
use crate::custom_resource::{api_version, may_refer_to, refers_to, resource};
use crate::keys;
use crate::secret_template::TemplateError;
use crate::snapshot::{SnapshotError, SnapshotSecret, SnapshotTokens, secret_in};

/// The API group.
pub const GROUP: &str = "groupsnapshot.storage.k8s.io";
/// What the tokens in a VolumeGroupSnapshotClass call a group snapshot.
pub const NOUN: &str = "volumegroupsnapshot";
/// Version and group.
pub const API_VERSION: &str = "groupsnapshot.storage.k8s.io/v1";

api_version!();

/// A user's wish for a snapshot of several claims at one moment, or for an existing group snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub struct VolumeGroupSnapshot {
    /// What the object is.
    #[serde(skip_deserializing)]
    pub api_version: ApiVersion,
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What is wished for.
    #[serde(default)]
    pub spec: VolumeGroupSnapshotSpec,
    /// What there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<VolumeGroupSnapshotStatus>,
}

/// What a user wishes for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeGroupSnapshotSpec {
    /// Where the snapshots come from.
    pub source: VolumeGroupSnapshotSource,
    /// The class; the driver's default one if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_group_snapshot_class_name: Option<String>,
}

/// Exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeGroupSnapshotSource {
    /// The claims of the namespace to take snapshots of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// The content of a group snapshot that exists already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_group_snapshot_content_name: Option<String>,
}

/// What is known of a group snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeGroupSnapshotStatus {
    /// The content that it is bound to, if that points back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_volume_group_snapshot_content_name: Option<String>,
    /// When the snapshots were cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<Time>,
    /// Whether volumes can be made from all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// The last trouble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
}

/// A group snapshot in the storage backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub struct VolumeGroupSnapshotContent {
    /// What the object is.
    #[serde(skip_deserializing)]
    pub api_version: ApiVersion,
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What it stands for.
    #[serde(default)]
    pub spec: VolumeGroupSnapshotContentSpec,
    /// What the driver said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<VolumeGroupSnapshotContentStatus>,
}

/// What a content stands for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeGroupSnapshotContentSpec {
    /// The group snapshot that it is bound to; without UID: reserved for the one of that name.
    pub volume_group_snapshot_ref: ObjectReference,
    /// `Delete` or `Retain`.
    pub deletion_policy: String,
    /// Name of the CSI driver.
    pub driver: String,
    /// The class that it was made by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_group_snapshot_class_name: Option<String>,
    /// What it comes from.
    pub source: VolumeGroupSnapshotContentSource,
}

/// Exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeGroupSnapshotContentSource {
    /// The volumes that snapshots shall be taken of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_handles: Option<Vec<String>>,
    /// The group snapshot that exists already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_snapshot_handles: Option<GroupSnapshotHandles>,
}

/// An existing group snapshot with its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupSnapshotHandles {
    /// The driver's id of the group snapshot.
    pub volume_group_snapshot_handle: String,
    /// The driver's ids of its members.
    pub volume_snapshot_handles: Vec<String>,
}

/// What the driver said of a group snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeGroupSnapshotContentStatus {
    /// The driver's id of the group snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_group_snapshot_handle: Option<String>,
    /// When it was cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<Time>,
    /// Whether volumes can be made from all members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// The last trouble.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SnapshotError>,
    /// The members, where they were made with the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_info_list: Option<Vec<VolumeSnapshotInfo>>,
}

/// What the driver said of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotInfo {
    /// The volume that it was taken of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_handle: Option<String>,
    /// The driver's id of the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_handle: Option<String>,
    /// When it was cut, in nanoseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_time: Option<i64>,
    /// Whether volumes can be made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_to_use: Option<bool>,
    /// The least size of a volume made from it, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_size: Option<i64>,
}

/// How group snapshots are taken, and what becomes of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub struct VolumeGroupSnapshotClass {
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

resource!(
    VolumeGroupSnapshot,
    "volumegroupsnapshots",
    NamespaceResourceScope
);
resource!(
    VolumeGroupSnapshotContent,
    "volumegroupsnapshotcontents",
    ClusterResourceScope
);
resource!(
    VolumeGroupSnapshotClass,
    "volumegroupsnapshotclasses",
    ClusterResourceScope
);

impl VolumeGroupSnapshot {
    /// Whether volumes can be made from all members.
    pub fn is_ready(&self) -> bool {
        self.status.as_ref().and_then(|status| status.ready_to_use) == Some(true)
    }

    /// The content that it says it is bound to.
    pub fn bound_content(&self) -> Option<&str> {
        let status = self.status.as_ref()?;
        status
            .bound_volume_group_snapshot_content_name
            .as_deref()
            .filter(|name| !name.is_empty())
    }

    /// The name that its content has, or will have. `None` if it has no valid source.
    pub fn content_name(&self) -> Option<String> {
        if let Some(bound) = self.bound_content() {
            return Some(bound.to_string());
        }
        let source = &self.spec.source;
        match (&source.selector, &source.volume_group_snapshot_content_name) {
            (None, Some(name)) => Some(name.clone()),
            (Some(_), None) => Some(content_name(self.metadata.uid.as_deref()?)),
            _ => None,
        }
    }
}

impl VolumeGroupSnapshotContent {
    /// Whether it is bound to that very group snapshot: namespace, name and UID.
    pub fn points_to(&self, group: &VolumeGroupSnapshot) -> bool {
        refers_to(&self.spec.volume_group_snapshot_ref, &group.metadata)
    }

    /// Whether it names the group snapshot, with its UID or without one.
    pub fn may_bind_to(&self, group: &VolumeGroupSnapshot) -> bool {
        may_refer_to(&self.spec.volume_group_snapshot_ref, &group.metadata)
    }

    /// Whether it is bound to some group snapshot.
    pub fn is_bound(&self) -> bool {
        let uid = self.spec.volume_group_snapshot_ref.uid.as_deref();
        uid.is_some_and(|uid| !uid.is_empty())
    }

    /// The volumes that snapshots are taken of; none for a group snapshot that existed before.
    pub fn volume_handles(&self) -> &[String] {
        self.spec.source.volume_handles.as_deref().unwrap_or_default()
    }

    /// Whether it has one source and not two.
    pub fn has_one_source(&self) -> bool {
        self.volume_handles().is_empty() != self.spec.source.group_snapshot_handles.is_none()
    }

    /// The driver's id of the group snapshot, once known.
    pub fn handle(&self) -> Option<&str> {
        self.status
            .as_ref()?
            .volume_group_snapshot_handle
            .as_deref()
            .filter(|handle| !handle.is_empty())
    }

    /// Whether volumes can be made from all members.
    pub fn is_ready(&self) -> bool {
        self.status.as_ref().and_then(|status| status.ready_to_use) == Some(true)
    }

    /// What the driver said of the members that were made with the group.
    pub fn members(&self) -> &[VolumeSnapshotInfo] {
        let status = self.status.as_ref();
        status
            .and_then(|status| status.volume_snapshot_info_list.as_deref())
            .unwrap_or_default()
    }

    /// Whether the snapshots go with the object.
    pub fn is_deleting_backend(&self) -> bool {
        self.spec.deletion_policy == "Delete"
    }

    /// Whether the driver's creation may be under way, or may have been done without an answer.
    pub fn is_being_created(&self) -> bool {
        annotation(&self.metadata, keys::GROUP_SNAPSHOT_BEING_CREATED).is_some()
    }

    /// Whether its group snapshot is being, or has been, deleted.
    pub fn is_being_deleted(&self) -> bool {
        annotation(&self.metadata, keys::GROUP_SNAPSHOT_BEING_DELETED).is_some()
    }
}

impl VolumeGroupSnapshotClass {
    /// Whether it stands in for its driver where no class is named.
    pub fn is_default(&self) -> bool {
        annotation(&self.metadata, keys::IS_DEFAULT_GROUP_SNAPSHOT_CLASS) == Some("true")
    }

    /// The Secret that it names for one use.
    ///
    /// # Errors
    /// Final until the class changes.
    pub fn secret(
        &self,
        secret_use: SnapshotSecret,
        tokens: &SnapshotTokens<'_>,
    ) -> Result<Option<SecretReference>, TemplateError> {
        secret_in(self.parameters.as_ref(), secret_use, tokens)
    }
}

/// Name of the content made for a group snapshot.
pub fn content_name(group_uid: &str) -> String {
    format!("groupsnapcontent-{group_uid}")
}

const MEMBER_PREFIX: &str = "snapshot-";

/// Name of the VolumeSnapshot that is the member of a group for one volume.
pub fn member_name(group_uid: &str, volume_handle: &str) -> String {
    let digest = Sha256::digest(format!("{group_uid}{volume_handle}"));
    format!("{MEMBER_PREFIX}{}", hex::encode(digest))
}

/// Name of the content of the member of that name; `None` for one that no controller has named.
pub fn content_name_of_member(member_name: &str) -> Option<String> {
    let digest = member_name.strip_prefix(MEMBER_PREFIX)?;
    Some(format!("snapcontent-{digest}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::VolumeSnapshot;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn objects_say_what_they_are() {
        let text = serde_json::to_value(VolumeGroupSnapshotContent::default()).unwrap();
        assert_eq!(text["apiVersion"], "groupsnapshot.storage.k8s.io/v1");
        assert_eq!(text["kind"], "VolumeGroupSnapshotContent");
    }

    #[test]
    fn the_content_of_a_group() {
        let cases = [
            (
                "dynamic",
                json!({"selector": {}}),
                json!({}),
                Some("groupsnapcontent-u"),
            ),
            (
                "static",
                json!({"volumeGroupSnapshotContentName": "k"}),
                json!({}),
                Some("k"),
            ),
            (
                "bound",
                json!({"selector": {}}),
                json!({"boundVolumeGroupSnapshotContentName": "b"}),
                Some("b"),
            ),
            (
                "both",
                json!({"selector": {}, "volumeGroupSnapshotContentName": "k"}),
                json!({}),
                None,
            ),
            ("neither", json!({}), json!({}), None),
        ];
        for (name, source, status, expected) in cases {
            let group: VolumeGroupSnapshot = read(json!({"metadata": {"name": "g", "uid": "u"},
                "spec": {"source": source}, "status": status}));
            assert_eq!(group.content_name().as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn sources_of_contents() {
        let handles = json!({"volumeGroupSnapshotHandle": "g", "volumeSnapshotHandles": ["s"]});
        let cases = [
            ("volumes", json!({"volumeHandles": ["v"]}), true),
            ("handles", json!({"groupSnapshotHandles": handles}), true),
            ("neither", json!({}), false),
            ("no volumes", json!({"volumeHandles": []}), false),
            (
                "both",
                json!({"volumeHandles": ["v"], "groupSnapshotHandles": handles}),
                false,
            ),
        ];
        for (name, source, expected) in cases {
            let content: VolumeGroupSnapshotContent =
                read(json!({"metadata": {}, "spec": {"source": source}}));
            assert_eq!(content.has_one_source(), expected, "{name}");
        }
    }

    #[test]
    fn members_have_upstreams_names() {
        let name = member_name("u", "h");
        assert_eq!(
            name,
            "snapshot-beba745afae8503925089cc2f3cc9b87e849e81c07531e83c5c341a63bcaaed9"
        );
        let content = content_name_of_member(&name).unwrap();
        assert_eq!(
            content.strip_prefix("snapcontent-"),
            name.strip_prefix("snapshot-")
        );
        assert_eq!(content_name_of_member("mine"), None);
    }

    #[test]
    fn members_find_group_and_content() {
        let owner =
            |api: &str| json!([{"apiVersion": api, "kind": "VolumeGroupSnapshot", "name": "g", "uid": "gu"}]);
        let member = |patch: Value| -> VolumeSnapshot {
            let mut object = json!({"metadata": {"name": "snapshot-ab", "uid": "su"},
                "spec": {"source": {"persistentVolumeClaimName": "c"}}});
            for (key, value) in patch.as_object().unwrap() {
                object["metadata"][key] = value.clone();
            }
            read(object)
        };
        let ours = member(json!({"ownerReferences": owner("groupsnapshot.storage.k8s.io/v1beta2")}));
        assert_eq!(ours.group_name(), Some("g"));
        assert_eq!(ours.content_name().as_deref(), Some("snapcontent-ab"));
        let other = member(json!({"ownerReferences": owner("example.org/v1")}));
        assert_eq!(
            (other.group_name(), other.content_name().as_deref()),
            (None, Some("snapcontent-su"))
        );
        let renamed = member(json!({"name": "mine", "ownerReferences": owner(API_VERSION)}));
        assert_eq!(renamed.content_name().as_deref(), Some("snapcontent-su"));
        let said: VolumeSnapshot = read(json!({"metadata": {}, "status": {"volumeGroupSnapshotName": "g"}}));
        assert_eq!(said.group_name(), Some("g"));
    }

    #[test]
    fn secrets_of_classes() {
        let tokens = SnapshotTokens {
            noun: NOUN,
            content_name: "k",
            namespace: "ns",
            name: "g",
        };
        let (name_key, namespace_key) = SnapshotSecret::GroupGet.keys();
        let class = |name: &str, namespace: &str| -> VolumeGroupSnapshotClass {
            read(json!({"metadata": {}, "parameters": {name_key: name, namespace_key: namespace}}))
        };
        let found = class(
            "${volumegroupsnapshot.name}-${volumegroupsnapshotcontent.name}",
            "${volumegroupsnapshot.namespace}",
        )
        .secret(SnapshotSecret::GroupGet, &tokens);
        let found = found.unwrap().unwrap();
        assert_eq!(
            (found.namespace.as_deref(), found.name.as_deref()),
            (Some("ns"), Some("g-k"))
        );
        let hers = class("a", "${volumegroupsnapshot.name}");
        assert!(hers.secret(SnapshotSecret::GroupGet, &tokens).is_err());
        assert_eq!(hers.secret(SnapshotSecret::GroupSnapshotter, &tokens), Ok(None));
    }
}
