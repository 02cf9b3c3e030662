//! Whole decisions: which node, or which message.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use moorline_model::volume_match::Candidates;
use serde_json::{Value, json};

use super::*;
use crate::{
    ledger::Ledger,
    snapshot::{Objects, PromisedPvs},
};

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn node(name: &str, cpu: &str, spec: Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"disk": name}, "resourceVersion": "1"},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "2"}},
    })
}

fn pod(name: &str, cpu: &str, spec: Value) -> Arc<Pod> {
    let mut whole = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    whole
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    Arc::new(object(
        json!({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": whole}),
    ))
}

fn answer(nodes: Vec<Value>, there: &[(Arc<Pod>, &str)], wanted: &Arc<Pod>) -> String {
    let objects = Objects::detached();
    nodes
        .into_iter()
        .for_each(|node| objects.nodes.observe(object(node)));
    let mut ledger = Ledger::default();
    there.iter().for_each(|(pod, node)| ledger.assume(pod, node));
    let snapshot = Snapshot {
        objects: &objects,
        ledger: &ledger,
        free_pvs: &Candidates::default(),
        promised: &PromisedPvs::new(),
    };
    match decide(&PodFacts::gather(wanted, &objects), &snapshot) {
        Next::Place { node, .. } => node.name_any(),
        Next::Unschedulable { message } => message,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table of cases")]
fn pods_go_where_they_fit_and_messages_say_why_not() {
    let plain = || pod("p", "500m", json!({}));
    let n1 = || node("n1", "1", json!({}));
    let big = || node("n2", "8", json!({}));
    let taint = |effect: &str| {
        node(
            "n1",
            "1",
            json!({"taints": [{"key": "k", "value": "v", "effect": effect}]}),
        )
    };
    let full = [
        (pod("a", "100m", json!({})), "n1"),
        (pod("b", "100m", json!({})), "n1"),
    ];
    let busy = [(pod("a", "800m", json!({})), "n1")];
    for (name, nodes, there, wanted, expected) in [
        (
            "no nodes",
            vec![],
            &[][..],
            plain(),
            "no nodes available to schedule pods",
        ),
        ("fits", vec![n1()], &[], plain(), "n1"),
        (
            "the emptier node is better",
            vec![n1(), big()],
            &[],
            plain(),
            "n2",
        ),
        (
            "equals go by name",
            vec![node("n3", "1", json!({})), n1()],
            &[],
            plain(),
            "n1",
        ),
        (
            "too much cpu",
            vec![n1()],
            &[],
            pod("p", "2", json!({})),
            "0/1 nodes are available: 1 Insufficient cpu.",
        ),
        (
            "others took it",
            vec![n1()],
            &busy,
            plain(),
            "0/1 nodes are available: 1 Insufficient cpu.",
        ),
        (
            "too many pods",
            vec![n1()],
            &full,
            plain(),
            "0/1 nodes are available: 1 Too many pods.",
        ),
        (
            "cordoned",
            vec![node("n1", "1", json!({"unschedulable": true}))],
            &[],
            plain(),
            "0/1 nodes are available: 1 node(s) were unschedulable.",
        ),
        (
            "tainted",
            vec![taint("NoSchedule")],
            &[],
            plain(),
            "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}.",
        ),
        (
            "a soft taint only makes worse",
            vec![taint("PreferNoSchedule")],
            &[],
            plain(),
            "n1",
        ),
        (
            "tolerated",
            vec![taint("NoSchedule")],
            &[],
            pod(
                "p",
                "1",
                json!({"tolerations": [{"key": "k", "operator": "Exists"}]}),
            ),
            "n1",
        ),
        (
            "selector",
            vec![n1(), big()],
            &[],
            pod("p", "500m", json!({"nodeSelector": {"disk": "n1"}})),
            "n1",
        ),
        (
            "selector of no node",
            vec![n1(), big()],
            &[],
            pod("p", "500m", json!({"nodeSelector": {"disk": "ssd"}})),
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.",
        ),
        (
            "a claim that is missing",
            vec![n1()],
            &[],
            pod(
                "p",
                "1",
                json!({"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}]}),
            ),
            "0/1 nodes are available: persistentvolumeclaim \"d\" not found.",
        ),
    ] {
        assert_eq!(answer(nodes, there, &wanted), expected, "{name}");
    }
}

#[test]
fn preferences_outweigh_free_room_and_soft_taints_outweigh_both() {
    let likes = |weight: i64| {
        let term = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["n1"]}]});
        let preferred = json!([{"weight": weight, "preference": term}]);
        json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}})
    };
    let soft = |name: &str, taints: usize| {
        let taint = |number| json!({"key": format!("k{number}"), "effect": "PreferNoSchedule"});
        node(
            name,
            "8",
            json!({"taints": (0..taints).map(taint).collect::<Vec<_>>()}),
        )
    };
    let plain = |name: &str, cpu: &str| node(name, cpu, json!({}));
    for (name, nodes, wanted, expected) in [
        (
            "a weight of 1 counts like one of 100",
            vec![plain("n1", "1"), plain("n2", "64")],
            likes(1),
            "n1",
        ),
        (
            "a preferred node with a soft taint",
            vec![soft("n1", 1), plain("n2", "8")],
            likes(100),
            "n2",
        ),
        (
            "fewer soft taints",
            vec![soft("n1", 2), soft("n2", 1)],
            json!({}),
            "n2",
        ),
        (
            "equally many",
            vec![soft("n2", 1), soft("n1", 1)],
            json!({}),
            "n1",
        ),
    ] {
        assert_eq!(answer(nodes, &[], &pod("p", "500m", wanted)), expected, "{name}");
    }
}

#[test]
fn a_read_write_once_pod_claim_keeps_a_second_user_away() {
    let objects = Objects::detached();
    objects.nodes.observe(object(node("n1", "1", json!({}))));
    objects.pvs.observe(object(
        json!({"metadata": {"name": "v", "resourceVersion": "1"}, "spec": {}}),
    ));
    objects.claims.observe(object(json!({
        "metadata": {"name": "d", "namespace": "ns", "uid": "d", "resourceVersion": "1",
                     "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "v", "accessModes": ["ReadWriteOncePod"]},
        "status": {"phase": "Bound"},
    })));
    let uses = json!({"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}]});
    let (first, second) = (pod("first", "1m", uses.clone()), pod("second", "1m", uses));
    let mut ledger = Ledger::default();
    ledger.assume(&first, "n1");
    let free_pvs = Candidates::default();
    let promised = PromisedPvs::new();
    let snapshot = Snapshot {
        objects: &objects,
        ledger: &ledger,
        free_pvs: &free_pvs,
        promised: &promised,
    };
    let Next::Unschedulable { message } = decide(&PodFacts::gather(&second, &objects), &snapshot) else {
        panic!("the second pod was placed")
    };
    assert!(message.contains("ReadWriteOncePod access mode"), "{message}");
    assert!(matches!(
        decide(&PodFacts::gather(&first, &objects), &snapshot),
        Next::Place { .. }
    ));
}

#[test]
fn a_drivers_volume_limit_counts_new_volumes_only() {
    let objects = Objects::detached();
    objects.nodes.observe(object(node("n1", "1", json!({}))));
    objects.csi_nodes.observe(object(json!({
        "metadata": {"name": "n1", "resourceVersion": "1"},
        "spec": {"drivers": [{"name": "p", "nodeID": "n1", "allocatable": {"count": 1}}]},
    })));
    for name in ["a", "b"] {
        objects.pvs.observe(object(json!({
            "metadata": {"name": name, "resourceVersion": "1"},
            "spec": {"csi": {"driver": "p", "volumeHandle": name}},
        })));
        objects.claims.observe(object(json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1",
                         "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"volumeName": name, "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Bound"},
        })));
    }
    let using = |name: &str, claim: &str| {
        pod(
            name,
            "1m",
            json!({"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": claim}}]}),
        )
    };
    let mut ledger = Ledger::default();
    ledger.assume(&using("first", "a"), "n1");
    let (free_pvs, promised) = (Candidates::default(), PromisedPvs::new());
    let snapshot = Snapshot {
        objects: &objects,
        ledger: &ledger,
        free_pvs: &free_pvs,
        promised: &promised,
    };
    let next = |pod: &Arc<Pod>| decide(&PodFacts::gather(pod, &objects), &snapshot);
    assert!(
        matches!(next(&using("again", "a")), Next::Place { .. }),
        "a volume that is there costs nothing"
    );
    let Next::Unschedulable { message } = next(&using("more", "b")) else {
        panic!("one too many was placed")
    };
    assert_eq!(
        message,
        "0/1 nodes are available: 1 node(s) exceed max volume count."
    );
}
