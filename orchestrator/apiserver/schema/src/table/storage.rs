//! Volumes, claims, classes, attachments and drivers.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, flag, is_terminating, name, object_age, text_or};
use crate::object::{at, list, text};

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The modes' short names in upstream's order.
const ACCESS_MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

fn access_modes(object: &Value, path: &[&str]) -> String {
    let given = list(object, path);
    let known = ACCESS_MODES
        .iter()
        .filter(|(mode, _)| given.iter().any(|one| one.as_str() == Some(mode)));
    let short: Vec<&str> = known.map(|(_, short)| *short).collect();
    short.join(",")
}

/// The class of a claim or volume; the old annotation wins over the field.
fn class_name(object: &Value) -> &str {
    let annotated = at(object, &["metadata", "annotations", CLASS_ANNOTATION]).and_then(Value::as_str);
    annotated.unwrap_or_else(|| text(object, &["spec", "storageClassName"]))
}

/// A field of the spec, where empty is not the same as absent.
fn or_unset<'a>(object: &'a Value, name: &str) -> &'a str {
    at(object, &["spec", name])
        .and_then(Value::as_str)
        .unwrap_or("<unset>")
}

fn phase(object: &Value) -> &str {
    if is_terminating(object) {
        "Terminating"
    } else {
        text(object, &["status", "phase"])
    }
}

pub(super) const PV_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Capacity", "Size of the volume."),
    Column::text("Access Modes", "How the volume can be mounted."),
    Column::text(
        "Reclaim Policy",
        "What becomes of the volume when its claim is gone.",
    ),
    Column::text("Status", "Whether the volume is bound."),
    Column::text("Claim", "The claim it is bound to."),
    Column::text("StorageClass", "The class it belongs to."),
    Column::text("VolumeAttributesClass", "The class of its attributes."),
    Column::text("Reason", "Why it is in its state."),
    AGE,
    Column::text("VolumeMode", "Filesystem or block device.").wide(),
];

pub(super) fn pv_row(pv: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match at(pv, &["spec", "claimRef"]) {
        Some(claim) => format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"])),
        None => String::new(),
    };
    vec![
        name(pv),
        text_or(pv, &["spec", "capacity", "storage"], "0").into(),
        access_modes(pv, &["spec", "accessModes"]).into(),
        text(pv, &["spec", "persistentVolumeReclaimPolicy"]).into(),
        phase(pv).into(),
        claim.into(),
        class_name(pv).into(),
        or_unset(pv, "volumeAttributesClassName").into(),
        text(pv, &["status", "reason"]).into(),
        object_age(pv, now),
        or_unset(pv, "volumeMode").into(),
    ]
}

pub(super) const CLAIM_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Status", "Whether the claim is bound."),
    Column::text("Volume", "The volume it is bound to."),
    Column::text("Capacity", "Size of that volume."),
    Column::text("Access Modes", "How that volume can be mounted."),
    Column::text("StorageClass", "The class it asks for."),
    Column::text("VolumeAttributesClass", "The class of attributes it asks for."),
    AGE,
    Column::text("VolumeMode", "Filesystem or block device.").wide(),
];

pub(super) fn claim_row(claim: &Value, now: Timestamp) -> Vec<Value> {
    let volume = text(claim, &["spec", "volumeName"]);
    let bound = !volume.is_empty();
    let capacity = if bound {
        text_or(claim, &["status", "capacity", "storage"], "0")
    } else {
        ""
    };
    let modes = if bound {
        access_modes(claim, &["status", "accessModes"])
    } else {
        String::new()
    };
    vec![
        name(claim),
        phase(claim).into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        class_name(claim).into(),
        or_unset(claim, "volumeAttributesClassName").into(),
        object_age(claim, now),
        or_unset(claim, "volumeMode").into(),
    ]
}

/// The name, with a remark on classes that are a default.
fn default_marked(object: &Value, annotations: &[&str]) -> Value {
    let is_default = annotations
        .iter()
        .any(|key| text(object, &["metadata", "annotations", key]) == "true");
    let name = text(object, &["metadata", "name"]);
    if is_default {
        format!("{name} (default)").into()
    } else {
        name.into()
    }
}

pub(super) const CLASS_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Provisioner", "Who makes the volumes."),
    Column::text(
        "ReclaimPolicy",
        "What becomes of volumes when their claims are gone.",
    ),
    Column::text(
        "VolumeBindingMode",
        "Whether volumes are made at once or for a pod's node.",
    ),
    Column::text("AllowVolumeExpansion", "Whether volumes can grow."),
    AGE,
];

pub(super) fn class_row(class: &Value, now: Timestamp) -> Vec<Value> {
    let keys = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ];
    vec![
        default_marked(class, &keys),
        text(class, &["provisioner"]).into(),
        text_or(class, &["reclaimPolicy"], "Delete").into(),
        text_or(class, &["volumeBindingMode"], "Immediate").into(),
        flag(class, &["allowVolumeExpansion"], false).into(),
        object_age(class, now),
    ]
}

pub(super) const ATTACHMENT_COLUMNS: &[Column] = &[
    NAME,
    Column {
        format: "name",
        ..Column::text("Attacher", "The driver that attaches.")
    },
    Column::text("PV", "The volume."),
    Column::text("Node", "The node."),
    Column::text("Attached", "Whether it is attached.").of("boolean"),
    AGE,
];

pub(super) fn attachment_row(attachment: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(attachment),
        text(attachment, &["spec", "attacher"]).into(),
        text(attachment, &["spec", "source", "persistentVolumeName"]).into(),
        text(attachment, &["spec", "nodeName"]).into(),
        flag(attachment, &["status", "attached"], false).into(),
        object_age(attachment, now),
    ]
}

pub(super) const CSI_NODE_COLUMNS: &[Column] = &[
    NAME,
    Column::text("Drivers", "How many drivers are registered on the node.").of("integer"),
    AGE,
];

pub(super) fn csi_node_row(node: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(node),
        list(node, &["spec", "drivers"]).len().into(),
        object_age(node, now),
    ]
}

pub(super) const CSI_DRIVER_COLUMNS: &[Column] = &[
    NAME,
    Column::text(
        "AttachRequired",
        "Whether volumes are attached before they are mounted.",
    )
    .of("boolean"),
    Column::text("PodInfoOnMount", "Whether the driver is told about the pod.").of("boolean"),
    Column::text("StorageCapacity", "Whether the driver publishes its capacity.").of("boolean"),
    Column::text("TokenRequests", "Audiences of the tokens that the driver gets."),
    Column::text(
        "RequiresRepublish",
        "Whether volumes are published again and again.",
    )
    .of("boolean"),
    Column::text("Modes", "Which volumes the driver can make."),
    AGE,
];

pub(super) fn csi_driver_row(driver: &Value, now: Timestamp) -> Vec<Value> {
    let tokens = at(driver, &["spec", "tokenRequests"]).and_then(Value::as_array);
    let audiences = tokens.map(|all| {
        all.iter()
            .map(|one| text(one, &["audience"]))
            .collect::<Vec<_>>()
            .join(",")
    });
    let modes: Vec<&str> = list(driver, &["spec", "volumeLifecycleModes"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let modes = modes.join(",");
    vec![
        name(driver),
        flag(driver, &["spec", "attachRequired"], true).into(),
        flag(driver, &["spec", "podInfoOnMount"], false).into(),
        flag(driver, &["spec", "storageCapacity"], false).into(),
        audiences.unwrap_or_else(|| "<unset>".to_owned()).into(),
        flag(driver, &["spec", "requiresRepublish"], false).into(),
        if modes.is_empty() {
            "<none>".to_owned()
        } else {
            modes
        }
        .into(),
        object_age(driver, now),
    ]
}

pub(super) const CAPACITY_COLUMNS: &[Column] = &[
    NAME,
    Column::text("StorageClassName", "The class whose capacity this is."),
    Column::text("Capacity", "How much room there is."),
];

pub(super) fn capacity_row(capacity: &Value, _now: Timestamp) -> Vec<Value> {
    vec![
        name(capacity),
        text(capacity, &["storageClassName"]).into(),
        text_or(capacity, &["capacity"], "<unset>").into(),
    ]
}

pub(super) const ATTRIBUTES_COLUMNS: &[Column] =
    &[NAME, Column::text("DriverName", "The driver it is for."), AGE];

pub(super) fn attributes_row(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        default_marked(
            class,
            &["volumeattributesclass.alpha.kubernetes.io/is-default-class"],
        ),
        text(class, &["driverName"]).into(),
        object_age(class, now),
    ]
}
