//! Tables of the volume-binding plugin: claims before nodes, plans for a node, progress of a plan.

use k8s_openapi::api::core::v1::Pod;
use moorline_model::volume_match::Candidates;
use serde_json::{Value, json};

use super::*;
use crate::{ledger::Ledger, snapshot::PromisedPvs};

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn class(name: &str, mode: &str, extra: Value) -> StorageClass {
    let mut class = json!({"metadata": {"name": name, "resourceVersion": "1"}, "provisioner": "p", "volumeBindingMode": mode});
    class
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    object(class)
}

fn claim(name: &str, class: &str, pv: Option<&str>, selected: Option<&str>) -> PersistentVolumeClaim {
    let mut annotations = json!({});
    if pv.is_some() {
        annotations[keys::BIND_COMPLETED] = "yes".into();
    }
    if let Some(node) = selected {
        annotations[keys::SELECTED_NODE] = node.into();
    }
    object(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1", "annotations": annotations},
        "spec": {"storageClassName": class, "volumeName": pv, "accessModes": ["ReadWriteOnce"],
                 "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": if pv.is_some() { "Bound" } else { "Pending" }},
    }))
}

fn pv(name: &str, node: Option<&str>, claim: Option<&str>) -> PersistentVolume {
    let affinity = node.map(|node| {
        json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "host", "operator": "In", "values": [node]}]}]}})
    });
    object(json!({
        "metadata": {"name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"storageClassName": "late", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"],
                 "nodeAffinity": affinity, "csi": {"driver": "p", "volumeHandle": name},
                 "claimRef": claim.map(|claim| json!({"namespace": "ns", "name": claim, "uid": claim}))},
        "status": {"phase": if claim.is_some() { "Bound" } else { "Available" }},
    }))
}

fn node(name: &str) -> Node {
    object(json!({"metadata": {"name": name, "labels": {"host": name}, "resourceVersion": "1"}}))
}

fn objects(claims: Vec<PersistentVolumeClaim>, pvs: Vec<PersistentVolume>) -> Objects {
    let objects = Objects::detached();
    objects
        .classes
        .observe(class("late", "WaitForFirstConsumer", json!({})));
    objects.classes.observe(class("now", "Immediate", json!({})));
    objects.classes.observe(class(
        "static",
        "WaitForFirstConsumer",
        json!({"provisioner": keys::NO_PROVISIONER}),
    ));
    objects.classes.observe(class(
        "elsewhere",
        "WaitForFirstConsumer",
        json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "host", "values": ["n2"]}]}]}),
    ));
    claims.into_iter().for_each(|claim| objects.claims.observe(claim));
    pvs.into_iter().for_each(|pv| objects.pvs.observe(pv));
    objects
}

fn pod(claims: &[&str]) -> Arc<Pod> {
    let volumes: Vec<Value> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    Arc::new(object(json!({
        "metadata": {"name": "pod", "namespace": "ns", "uid": "pod"},
        "spec": {"containers": [{"name": "c"}], "volumes": volumes},
    })))
}

#[test]
fn claims_are_sorted_or_refused_before_any_node_is_looked_at() {
    let mut deleted = claim("deleted", "late", None, None);
    deleted.metadata.deletion_timestamp = Some(object(json!("2026-01-01T00:00:00Z")));
    let mut lost = claim("lost", "late", Some("gone"), None);
    lost.status.as_mut().unwrap().phase = Some("Lost".into());
    let half = object(json!({
        "metadata": {"name": "half", "namespace": "ns", "uid": "half", "resourceVersion": "1"},
        "spec": {"storageClassName": "late", "volumeName": "v"},
    }));
    let all = vec![
        claim("bound", "late", Some("v"), None),
        claim("delayed", "late", None, None),
        claim("immediate", "now", None, None),
        claim("classless", "unknown", None, None),
        deleted,
        lost,
        half,
    ];
    let objects = objects(all, vec![]);
    for (name, expected) in [
        ("bound", Ok((1, 0))),
        ("delayed", Ok((0, 1))),
        (
            "immediate",
            Err("pod has unbound immediate PersistentVolumeClaims"),
        ),
        (
            "classless",
            Err("pod has unbound immediate PersistentVolumeClaims"),
        ),
        ("half", Err("pod has unbound immediate PersistentVolumeClaims")),
        ("missing", Err("persistentvolumeclaim \"missing\" not found")),
        (
            "deleted",
            Err("persistentvolumeclaim \"deleted\" is being deleted"),
        ),
        (
            "lost",
            Err("persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"gone\""),
        ),
    ] {
        let pod = pod(&[name]);
        let sorted = pre_filter(&PodFacts::gather(&pod, &objects), &objects);
        let seen = sorted.map(|claims| (claims.bound.len(), claims.delayed.len()));
        assert_eq!(seen, expected.map_err(str::to_owned), "{name}");
    }
}

#[test]
fn an_ephemeral_claim_must_exist_and_be_the_pods_own() {
    let pod: Arc<Pod> = Arc::new(object(json!({
        "metadata": {"name": "pod", "namespace": "ns", "uid": "pod"},
        "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "scratch", "ephemeral": {}}]},
    })));
    let none = objects(vec![], vec![]);
    let missing = pre_filter(&PodFacts::gather(&pod, &none), &none).unwrap_err();
    assert!(
        missing.contains("waiting for ephemeral volume controller to create"),
        "{missing}"
    );
    let foreign = objects(vec![claim("pod-scratch", "late", None, None)], vec![]);
    let refused = pre_filter(&PodFacts::gather(&pod, &foreign), &foreign).unwrap_err();
    assert!(refused.contains("pod is not owner"), "{refused}");
}

/// What is planned for claim `c` on node n1, as `bind PV`, `provision` or the reason against the node.
fn planned(
    c: PersistentVolumeClaim,
    pvs: Vec<PersistentVolume>,
    promised: &PromisedPvs,
    more: impl Fn(&Objects),
) -> String {
    let objects = objects(vec![c], pvs);
    more(&objects);
    let mut free_pvs = Candidates::default();
    objects.pvs.list().into_iter().for_each(|pv| free_pvs.upsert(pv));
    let ledger = Ledger::default();
    let snapshot = Snapshot {
        objects: &objects,
        ledger: &ledger,
        free_pvs: &free_pvs,
        promised,
    };
    let pod = pod(&["c"]);
    let claims = pre_filter(&PodFacts::gather(&pod, &objects), &objects).unwrap();
    match filter(&claims, &node("n1"), &snapshot) {
        Ok(plan) if plan.is_empty() => "nothing".into(),
        Ok(plan) => match plan.bind.first() {
            Some((_, pv)) => format!("bind {}", pv.name_any()),
            None => "provision".into(),
        },
        Err(rejection) => rejection.reasons.join(", "),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table of cases")]
fn a_plan_for_a_node_binds_what_is_there_or_provisions() {
    let nobody = PromisedPvs::new();
    let other = PromisedPvs::from([("v".to_owned(), "another".to_owned())]);
    let late = || claim("c", "late", None, None);
    let bound = || claim("c", "late", Some("v"), None);
    let nothing_more = |_: &Objects| {};
    for (name, claim, pvs, promised, expected) in [
        (
            "bound and usable here",
            bound(),
            vec![pv("v", Some("n1"), Some("c"))],
            &nobody,
            "nothing",
        ),
        (
            "bound and usable everywhere",
            bound(),
            vec![pv("v", None, Some("c"))],
            &nobody,
            "nothing",
        ),
        (
            "bound elsewhere",
            bound(),
            vec![pv("v", Some("n2"), Some("c"))],
            &nobody,
            AFFINITY_CONFLICT,
        ),
        ("bound to what is gone", bound(), vec![], &nobody, PV_MISSING),
        (
            "a free volume here",
            late(),
            vec![pv("v", Some("n1"), None)],
            &nobody,
            "bind v",
        ),
        (
            "a free volume elsewhere",
            late(),
            vec![pv("v", Some("n2"), None)],
            &nobody,
            "provision",
        ),
        (
            "a free volume promised to another",
            late(),
            vec![pv("v", Some("n1"), None)],
            &other,
            "provision",
        ),
        ("no volume", late(), vec![], &nobody, "provision"),
        (
            "this node was selected before",
            claim("c", "late", None, Some("n1")),
            vec![],
            &nobody,
            "provision",
        ),
        (
            "another node was selected before",
            claim("c", "late", None, Some("n2")),
            vec![],
            &nobody,
            AFFINITY_CONFLICT,
        ),
        (
            "nobody provisions",
            claim("c", "static", None, None),
            vec![],
            &nobody,
            NOTHING_TO_BIND,
        ),
        (
            "the class is for other nodes",
            claim("c", "elsewhere", None, None),
            vec![],
            &nobody,
            NOTHING_TO_BIND,
        ),
    ] {
        assert_eq!(planned(claim, pvs, promised, nothing_more), expected, "{name}");
    }
}

#[test]
fn space_counts_only_where_the_driver_tells_it() {
    let capacity = |size: &str, node: &str| -> CSIStorageCapacity {
        object(json!({
            "metadata": {"name": "cap", "namespace": "ns", "resourceVersion": "1"},
            "storageClassName": "late", "capacity": size, "nodeTopology": {"matchLabels": {"host": node}},
        }))
    };
    let driver = |tells: bool| -> CSIDriver {
        object(json!({"metadata": {"name": "p", "resourceVersion": "1"}, "spec": {"storageCapacity": tells}}))
    };
    use k8s_openapi::api::storage::v1::CSIDriver;
    for (name, tells, capacity, expected) in [
        ("does not tell", false, None, "provision"),
        ("tells of nothing", true, None, NOT_ENOUGH_SPACE),
        ("enough here", true, Some(capacity("1Gi", "n1")), "provision"),
        (
            "too little here",
            true,
            Some(capacity("1Mi", "n1")),
            NOT_ENOUGH_SPACE,
        ),
        (
            "enough elsewhere",
            true,
            Some(capacity("1Ti", "n2")),
            NOT_ENOUGH_SPACE,
        ),
    ] {
        let seen = planned(
            claim("c", "late", None, None),
            vec![],
            &PromisedPvs::new(),
            |objects| {
                objects.csi_drivers.observe(driver(tells));
                capacity
                    .iter()
                    .cloned()
                    .for_each(|capacity| objects.capacities.observe(capacity));
            },
        );
        assert_eq!(seen, expected, "{name}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table of cases")]
fn progress_of_a_plan_follows_claims_and_volumes() {
    let planned = Arc::new(claim("c", "late", None, None));
    let provision = VolumePlan {
        provision: vec![Arc::clone(&planned)],
        ..VolumePlan::default()
    };
    let bind = VolumePlan {
        bind: vec![(planned, Arc::new(pv("v", Some("n1"), None)))],
        ..VolumePlan::default()
    };
    let selected = |pv: Option<&str>, node: Option<&str>| vec![claim("c", "late", pv, node)];
    let gave_up = |progress: &Progress| matches!(progress, Progress::GaveUp(_));
    type Check = fn(&Progress) -> bool;
    let waits: Check = |progress| *progress == Progress::Waiting;
    let done: Check = |progress| *progress == Progress::Bound;
    for (name, plan, claims, pvs, expected) in [
        ("asked for", &provision, selected(None, Some("n1")), vec![], waits),
        (
            "the provisioner gave the node back",
            &provision,
            selected(None, None),
            vec![],
            gave_up as Check,
        ),
        (
            "another node",
            &provision,
            selected(None, Some("n2")),
            vec![],
            gave_up,
        ),
        ("the claim went", &provision, vec![], vec![], gave_up),
        (
            "the volume is not visible yet",
            &provision,
            selected(Some("v"), Some("n1")),
            vec![],
            waits,
        ),
        (
            "the volume is elsewhere",
            &provision,
            selected(Some("v"), Some("n1")),
            vec![pv("v", Some("n2"), Some("c"))],
            gave_up,
        ),
        (
            "provisioned and bound",
            &provision,
            selected(Some("v"), Some("n1")),
            vec![pv("v", Some("n1"), Some("c"))],
            done,
        ),
        (
            "reserved",
            &bind,
            selected(None, None),
            vec![pv("v", Some("n1"), Some("c"))],
            waits,
        ),
        (
            "reserved for another",
            &bind,
            selected(None, None),
            vec![pv("v", Some("n1"), Some("d"))],
            gave_up,
        ),
        (
            "the reserved volume went",
            &bind,
            selected(None, None),
            vec![],
            gave_up,
        ),
        (
            "reserved and bound",
            &bind,
            selected(Some("v"), None),
            vec![pv("v", Some("n1"), Some("c"))],
            done,
        ),
    ] {
        let seen = progress(plan, &node("n1"), &objects(claims, pvs));
        assert!(expected(&seen), "{name}: {seen:?}");
    }
}
