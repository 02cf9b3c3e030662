//! Annotation, label and finalizer keys of the volume control plane, with who writes them and what they mean.

// ---- Annotations on claims ----

/// On a claim: it was bound once; from then on it is never matched again. The value is not read.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a PV or claim: the link was made by software, so software may undo it. Absent: a user made it.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The value that the binder gives to [`BIND_COMPLETED`] and [`BOUND_BY_CONTROLLER`]; only presence is read.
pub const YES: &str = "yes";
/// On a claim: the provisioner that shall act. Written by the binder.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The older spelling of [`STORAGE_PROVISIONER`]; both are written together.
pub const STORAGE_PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a claim: the node the scheduler chose (WaitForFirstConsumer). Removing it asks for another choice.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The oldest spelling of [`SELECTED_NODE`]; read by the provisioner only.
pub const SELECTED_NODE_ALPHA: &str = "volume.alpha.kubernetes.io/selected-node";
/// On a claim or PV: the class, winning over `spec.storageClassName` whenever present, even when empty.
pub const STORAGE_CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";
/// On a claim: who must resize (migrated in-tree volumes only).
pub const STORAGE_RESIZER: &str = "volume.kubernetes.io/storage-resizer";
/// On a claim: the controller's expansion was enough, nodes must not expand again. Written by the resizer.
pub const NODE_EXPANSION_NOT_REQUIRED: &str = "volume.kubernetes.io/node-expansion-not-required";

// ---- Annotations on persistent volumes ----

/// On a PV: it was made by this provisioner.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a PV or claim: the CSI driver that took over from an in-tree plugin.
pub const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// On a PV: the filesystem's size before a resize; stands in for the PV's capacity when the claim becomes Bound.
pub const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
/// On a PV: name of the secret for `DeleteVolume`.
pub const DELETION_SECRET_NAME: &str = "volume.kubernetes.io/provisioner-deletion-secret-name";
/// On a PV: namespace of the secret for `DeleteVolume`.
pub const DELETION_SECRET_NAMESPACE: &str = "volume.kubernetes.io/provisioner-deletion-secret-namespace";
/// On a PV: name of the secret for `ControllerModifyVolume`.
pub const MODIFY_SECRET_NAME: &str = "volume.kubernetes.io/controller-modify-secret-name";
/// On a PV: namespace of the secret for `ControllerModifyVolume`.
pub const MODIFY_SECRET_NAMESPACE: &str = "volume.kubernetes.io/controller-modify-secret-namespace";
/// On a PV: an extra supplemental group for its consumers.
pub const PV_GID: &str = "pv.beta.kubernetes.io/gid";

// ---- Annotations on classes, nodes and attachments ----

/// On a StorageClass: `"true"` makes it a default.
pub const IS_DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The older spelling of [`IS_DEFAULT_CLASS`].
pub const IS_DEFAULT_CLASS_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// On a Node: attaching is done by the attach/detach controller. Written by the kubelet.
pub const CONTROLLER_MANAGED_ATTACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// On a Node: JSON object from driver name to CSI node id, mirroring CSINode. Written by the kubelet.
pub const CSI_NODE_ID: &str = "csi.volume.kubernetes.io/nodeid";
/// On a CSINode: migrated in-tree plugins, separated by commas. Written by the kubelet.
pub const MIGRATED_PLUGINS: &str = "storage.alpha.kubernetes.io/migrated-plugins";
/// On a VolumeAttachment: the node id used when attaching. Written by the attacher.
pub const ATTACHMENT_NODE_ID: &str = "csi.alpha.kubernetes.io/node-id";

// ---- Annotations and labels of snapshots ----

/// On a VolumeSnapshotClass: `"true"` makes it a default.
pub const IS_DEFAULT_SNAPSHOT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";
/// On a VolumeGroupSnapshotClass: `"true"` makes it a default.
pub const IS_DEFAULT_GROUP_SNAPSHOT_CLASS: &str = "groupsnapshot.storage.kubernetes.io/is-default-class";
/// On a VolumeSnapshotContent: restoring into another volume mode is allowed. Written by an admin.
pub const ALLOW_VOLUME_MODE_CHANGE: &str = "snapshot.storage.kubernetes.io/allow-volume-mode-change";
/// On a VolumeSnapshotContent: `CreateSnapshot` is under way.
pub const SNAPSHOT_BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
/// On a VolumeSnapshotContent: its snapshot is being deleted.
pub const SNAPSHOT_BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";
/// On a VolumeGroupSnapshotContent: `CreateVolumeGroupSnapshot` is under way.
pub const GROUP_SNAPSHOT_BEING_CREATED: &str =
    "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-created";
/// On a VolumeGroupSnapshotContent: its group snapshot is being deleted.
pub const GROUP_SNAPSHOT_BEING_DELETED: &str =
    "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-deleted";
/// On a VolumeSnapshotContent: name of the secret for `DeleteSnapshot`.
pub const SNAPSHOT_DELETION_SECRET_NAME: &str = "snapshot.storage.kubernetes.io/deletion-secret-name";
/// On a VolumeSnapshotContent: namespace of the secret for `DeleteSnapshot`.
pub const SNAPSHOT_DELETION_SECRET_NAMESPACE: &str =
    "snapshot.storage.kubernetes.io/deletion-secret-namespace";
/// On a VolumeGroupSnapshotContent: name of the secret for deletion.
pub const GROUP_SNAPSHOT_DELETION_SECRET_NAME: &str =
    "groupsnapshot.storage.kubernetes.io/deletion-secret-name";
/// On a VolumeGroupSnapshotContent: namespace of the secret for deletion.
pub const GROUP_SNAPSHOT_DELETION_SECRET_NAMESPACE: &str =
    "groupsnapshot.storage.kubernetes.io/deletion-secret-namespace";
/// On a VolumeSnapshotContent that is part of a group snapshot: the group's handle.
pub const GROUP_SNAPSHOT_HANDLE: &str = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle";
/// Label on a VolumeSnapshotContent: the node whose sidecar manages it (distributed mode).
pub const SNAPSHOT_MANAGED_BY: &str = "snapshot.storage.kubernetes.io/managed-by";

// ---- Labels on CSIStorageCapacity ----

/// Label: the driver whose capacity this is.
pub const CAPACITY_DRIVER_NAME: &str = "csi.storage.k8s.io/drivername";
/// Label: the provisioner instance that maintains the object.
pub const CAPACITY_MANAGED_BY: &str = "csi.storage.k8s.io/managed-by";

// ---- Finalizers ----

/// On a claim: kept while pods use it.
pub const PVC_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// On a PV: kept while it is Bound.
pub const PV_PROTECTION: &str = "kubernetes.io/pv-protection";
/// On a VolumeAttributesClass: kept while it is referenced.
pub const VAC_PROTECTION: &str = "kubernetes.io/vac-protection";
/// On an in-tree dynamic PV with policy Delete.
pub const PV_CONTROLLER_FINALIZER: &str = "kubernetes.io/pv-controller";
/// On a PV: the backend volume has to be deleted before the object goes.
pub const PROVISIONER_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// On a claim: it is the source of a clone in progress.
pub const CLONING_PROTECTION: &str = "provisioner.storage.kubernetes.io/cloning-protection";
/// On a VolumeSnapshot: it is the source of a restore in progress.
pub const SNAPSHOT_SOURCE_PROTECTION_BY_PROVISIONER: &str =
    "provisioner.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// On a claim: a snapshot of it is being cut.
pub const PVC_AS_SOURCE_PROTECTION: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";
/// On a VolumeSnapshot: a volume is being made from it.
pub const SNAPSHOT_AS_SOURCE_PROTECTION: &str =
    "snapshot.storage.kubernetes.io/volumesnapshot-as-source-protection";
/// On a VolumeSnapshot: it is bound to a content.
pub const SNAPSHOT_BOUND_PROTECTION: &str = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection";
/// On a VolumeSnapshot: it belongs to a group snapshot.
pub const SNAPSHOT_IN_GROUP_PROTECTION: &str =
    "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection";
/// On a VolumeSnapshotContent: it is bound to a snapshot.
pub const SNAPSHOT_CONTENT_BOUND_PROTECTION: &str =
    "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
/// On a VolumeGroupSnapshot: it is bound to a content.
pub const GROUP_SNAPSHOT_BOUND_PROTECTION: &str =
    "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-bound-protection";
/// On a VolumeGroupSnapshotContent: it is bound to a group snapshot.
pub const GROUP_SNAPSHOT_CONTENT_BOUND_PROTECTION: &str =
    "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection";

// ---- Taints ----

/// On a Node: it is known to be down, so volumes may be detached without its consent.
pub const OUT_OF_SERVICE_TAINT: &str = "node.kubernetes.io/out-of-service";

// ---- Well-known values ----

/// Provisioner of classes whose volumes nobody provisions.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Provisioners with this prefix are in-tree ones.
pub const IN_TREE_PREFIX: &str = "kubernetes.io/";

/// The attacher's finalizer for a driver, on PVs and VolumeAttachments.
pub fn attacher_finalizer(driver_name: &str) -> String {
    let mut sanitised: String = driver_name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    if sanitised.ends_with('-') {
        sanitised.push('X');
    }
    format!("external-attacher/{sanitised}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacher_finalizer_is_a_valid_name() {
        assert_eq!(
            attacher_finalizer("hostpath.csi.k8s.io"),
            "external-attacher/hostpath-csi-k8s-io"
        );
        assert_eq!(attacher_finalizer("My_driver-2"), "external-attacher/My-driver-2");
        assert_eq!(attacher_finalizer("odd."), "external-attacher/odd-X");
    }
}
