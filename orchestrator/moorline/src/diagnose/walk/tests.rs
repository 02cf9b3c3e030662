//! Whole diagnoses: objects in, who has to act out.

mod claims;
mod golden;
mod pods;
mod snapshots;
mod volumes;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::diagnose::facts::Unread;

/// The objects of a cluster, one of each kind by default where a case needs it.
type Objects = Vec<Value>;

/// When all questions are asked: ten minutes after all objects were made.
const NOW: &str = "2026-01-01T00:10:00Z";
/// When all objects were made.
const MADE: &str = "2026-01-01T00:00:00Z";
/// A moment ago.
const JUST: &str = "2026-01-01T00:09:50Z";

fn read<K: DeserializeOwned>(value: &Value) -> K {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

fn facts(objects: &[Value]) -> Facts {
    let mut facts = Facts::none(NOW.parse().unwrap());
    for object in objects {
        let known = &facts.objects;
        match object["kind"].as_str().unwrap() {
            "Pod" => facts.pods.observe(read(object)),
            "PersistentVolumeClaim" => known.claims.observe(read(object)),
            "PersistentVolume" => known.pvs.observe(read(object)),
            "StorageClass" => known.classes.observe(read(object)),
            "Node" => known.nodes.observe(read(object)),
            "CSINode" => known.csi_nodes.observe(read(object)),
            "CSIDriver" => known.csi_drivers.observe(read(object)),
            "VolumeAttachment" => known.attachments.observe(read(object)),
            "VolumeSnapshot" => facts.snapshots.observe(read(object)),
            "VolumeSnapshotContent" => facts.contents.observe(read(object)),
            "VolumeSnapshotClass" => facts.snapshot_classes.observe(read(object)),
            "VolumeGroupSnapshot" => facts.groups.observe(read(object)),
            "Event" => facts.events.push(read(object)),
            other => panic!("{other}"),
        }
    }
    facts
}

/// Puts `patch` over `base`, member by member; null removes.
fn merge(base: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *base = patch.clone();
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            base.as_object_mut().map(|base| base.remove(key));
        } else {
            merge(&mut base[key], value);
        }
    }
}

/// An object with the metadata that the API server gives it; its UID is its name.
fn object(kind: &str, name: &str, patches: &[Value]) -> Value {
    let mut object = json!({"kind": kind, "metadata": {
        "name": name, "uid": name, "resourceVersion": "1", "creationTimestamp": MADE,
    }});
    for patch in patches {
        merge(&mut object, patch);
    }
    object
}

/// A claim of class `fast`, Pending.
fn claim(name: &str, patch: Value) -> Value {
    let base = json!({
        "metadata": {"namespace": "ns"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
            "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    object("PersistentVolumeClaim", name, &[base, patch])
}

/// What a bound claim has more.
fn bound_to(pv: &str) -> Value {
    json!({
        "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": pv},
        "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}},
    })
}

/// A volume of class `fast`, bound to the claim `data`.
fn pv(name: &str, patch: Value) -> Value {
    let base = json!({
        "metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "d"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "fast",
            "persistentVolumeReclaimPolicy": "Delete", "csi": {"driver": "d", "volumeHandle": "h"},
            "claimRef": {"namespace": "ns", "name": "data", "uid": "data"},
        },
        "status": {"phase": "Bound"},
    });
    object("PersistentVolume", name, &[base, patch])
}

fn class(patch: Value) -> Value {
    let base = json!({"provisioner": "d", "volumeBindingMode": "Immediate", "reclaimPolicy": "Delete"});
    object("StorageClass", "fast", &[base, patch])
}

fn late() -> Value {
    class(json!({"volumeBindingMode": "WaitForFirstConsumer"}))
}

/// A pod with the claim `data`, Pending, without a node.
fn pod(name: &str, patch: Value) -> Value {
    let base = json!({
        "metadata": {"namespace": "ns"},
        "spec": {"containers": [{"name": "app"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]},
        "status": {"phase": "Pending"},
    });
    object("Pod", name, &[base, patch])
}

/// On node `n1`, and all is well.
fn running() -> Value {
    json!({
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running",
            "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "image": "i", "imageID": "",
                "state": {"running": {"startedAt": MADE}}}]},
    })
}

/// On node `n1`, and its container waits for this.
fn waiting_for(reason: &str) -> Value {
    json!({
        "spec": {"nodeName": "n1"},
        "status": {"containerStatuses": [{"name": "app", "ready": false, "restartCount": 0, "image": "i", "imageID": "",
            "state": {"waiting": {"reason": reason}}}]},
    })
}

/// A node that is ready and has its attachments made by the controller.
fn node(name: &str, patch: Value) -> Value {
    let base = json!({
        "metadata": {"annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "4", "memory": "4Gi", "pods": "10"},
        },
    });
    object("Node", name, &[base, patch])
}

fn using_and_attached() -> Value {
    json!({"status": {
        "volumesInUse": ["kubernetes.io/csi/d^h"],
        "volumesAttached": [{"name": "kubernetes.io/csi/d^h", "devicePath": ""}],
    }})
}

fn csi_node(name: &str) -> Value {
    let base = json!({"spec": {"drivers": [{"name": "d", "nodeID": name}]}});
    object("CSINode", name, &[base])
}

/// A driver whose volumes need no attaching.
fn driver() -> Value {
    object("CSIDriver", "d", &[json!({"spec": {"attachRequired": false}})])
}

fn event(uid: &str, reason: &str, message: &str, component: &str) -> Value {
    json!({
        "kind": "Event", "metadata": {"name": format!("{uid}.{reason}"), "namespace": "ns"},
        "involvedObject": {"uid": uid}, "reason": reason, "message": message, "source": {"component": component},
        "firstTimestamp": JUST, "lastTimestamp": JUST,
    })
}

fn deleting(finalizers: &[&str]) -> Value {
    json!({"metadata": {"deletionTimestamp": JUST, "finalizers": finalizers}})
}

fn of(kind: Kind, name: &str, objects: &[Value]) -> Report {
    let target = ObjectName::new(kind, "ns", name);
    diagnose(&target, &facts(objects)).expect("the object is there")
}

/// `verdict`, then each finding as `name Reason actor`.
fn brief(report: &Report) -> Vec<String> {
    let verdict = format!("{:?}", report.verdict);
    let findings = report
        .findings
        .iter()
        .map(|finding| format!("{} {} {}", finding.object.name, finding.reason, finding.actor));
    std::iter::once(verdict).chain(findings).collect()
}

/// Name, objects, verdict and findings.
type Case<'a> = (&'a str, Objects, &'a [&'a str]);

fn check(kind: Kind, name: &str, cases: Vec<Case<'_>>) {
    for (case, objects, expected) in cases {
        let report = of(kind, name, &objects);
        assert_eq!(brief(&report), expected, "{case}: {report:#?}");
        for finding in &report.findings {
            assert!(
                !finding.message.is_empty() && !finding.advice.is_empty(),
                "{case}"
            );
        }
    }
}

#[test]
fn what_is_not_there_has_no_diagnosis() {
    let facts = facts(&[claim("data", json!({}))]);
    for (kind, name) in [
        (Kind::PersistentVolumeClaim, "other"),
        (Kind::PersistentVolume, "data"),
        (Kind::Pod, "data"),
        (Kind::VolumeAttachment, "data"),
        (Kind::VolumeSnapshot, "data"),
        (Kind::VolumeSnapshotContent, "data"),
    ] {
        assert_eq!(diagnose(&ObjectName::new(kind, "ns", name), &facts), None);
    }
    let elsewhere = ObjectName::new(Kind::PersistentVolumeClaim, "elsewhere", "data");
    assert_eq!(diagnose(&elsewhere, &facts), None);
}

/// A report of a user who may not list these kinds, or only in the namespace (`kind/*`).
fn half_blind(kind: Kind, name: &str, objects: &[Value], kinds: &[&str]) -> Report {
    let mut facts = facts(objects);
    for kind in kinds {
        match kind.strip_suffix("/*") {
            Some(kind) => facts.partial.push(kind.to_owned()),
            None => facts.unread.push(Unread {
                kind: (*kind).to_owned(),
                why: None,
            }),
        }
    }
    diagnose(&ObjectName::new(kind, "ns", name), &facts).expect("the object is there")
}

#[test]
fn what_may_not_be_read_is_not_taken_for_what_is_not_there() {
    let attachment = || {
        let spec =
            json!({"spec": {"attacher": "d", "nodeName": "n1", "source": {"persistentVolumeName": "pv1"}}});
        object("VolumeAttachment", "va", &[spec])
    };
    let bound = || claim("data", bound_to("pv1"));
    for (kind, name, objects, hidden) in [
        (
            Kind::PersistentVolumeClaim,
            "data",
            vec![claim("data", json!({}))],
            "storageclasses",
        ),
        (
            Kind::PersistentVolumeClaim,
            "data",
            vec![bound()],
            "persistentvolumes",
        ),
        (
            Kind::PersistentVolumeClaim,
            "data",
            vec![claim("data", json!({})), late()],
            "pods",
        ),
        (
            Kind::PersistentVolume,
            "pv1",
            vec![pv("pv1", json!({}))],
            "persistentvolumeclaims/*",
        ),
        (
            Kind::Pod,
            "web",
            vec![pod("web", json!({}))],
            "persistentvolumeclaims",
        ),
        (
            Kind::Pod,
            "web",
            vec![pod("web", running()), bound(), pv("pv1", json!({}))],
            "nodes",
        ),
        (
            Kind::Pod,
            "web",
            vec![pod("web", waiting_for("ContainerCreating"))],
            "persistentvolumeclaims",
        ),
        (
            Kind::VolumeAttachment,
            "va",
            vec![attachment()],
            "persistentvolumes",
        ),
        (
            Kind::VolumeSnapshot,
            "s1",
            vec![snapshots::snapshot(json!({}))],
            "volumesnapshotclasses",
        ),
    ] {
        let mut hidden_kinds = vec![hidden];
        if kind == Kind::Pod {
            hidden_kinds.extend(["nodes", "pods/*"]);
        }
        let report = half_blind(kind, name, &objects, &hidden_kinds);
        assert_eq!(brief(&report), ["Unknown"], "{hidden}: {report:#?}");
        let note = format!("{} can't be judged without all ", report.object);
        assert!(report.unread[0].starts_with(&note), "{:?}", report.unread);
    }
}

#[test]
fn what_is_not_known_is_said_with_the_last_that_was_told() {
    let objects = [
        claim("data", json!({})),
        event("data", "WaitForFirstConsumer", "no pod", "binder"),
    ];
    let kinds = ["persistentvolumes", "storageclasses", "pods/*"];
    let report = half_blind(Kind::PersistentVolumeClaim, "data", &objects, &kinds);
    assert_eq!(
        report.unread,
        [
            "PersistentVolumeClaim ns/data can't be judged without all persistentvolumes, storageclasses; the last that was \
             said of it: WaitForFirstConsumer: no pod",
            "you may not list persistentvolumes, storageclasses",
        ]
    );
    let mut facts = facts(&[claim("data", bound_to("pv1")), pv("pv1", json!({}))]);
    facts.unread.push(Unread {
        kind: "nodes".to_owned(),
        why: Some("timed out".to_owned()),
    });
    let target = ObjectName::new(Kind::PersistentVolumeClaim, "ns", "data");
    let report = diagnose(&target, &facts).unwrap();
    assert_eq!(brief(&report), ["Unknown"]);
    assert_eq!(report.unread, ["nodes: timed out"]);
}
