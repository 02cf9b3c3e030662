//! One row for each state that a user should be able to tell from the others.

use serde_json::json;

use super::*;
use crate::registry::Registry;

mod policies;
mod workloads;

fn now() -> Timestamp {
    "2024-01-02T03:10:00Z".parse().unwrap()
}

/// The cells by heading.
fn printed(group: &str, kind: &str, mut object: Value) -> serde_json::Map<String, Value> {
    object["metadata"]["creationTimestamp"] = json!("2024-01-02T03:04:05Z");
    let headings = columns(group, kind).iter().map(|column| column.name.to_owned());
    headings.zip(row(group, kind, &object, now())).collect()
}

#[test]
fn every_served_kind_has_as_many_cells_as_columns() {
    for resource in Registry::builtin().resources() {
        let cells = row(resource.group, resource.kind, &json!({}), now());
        let columns = columns(resource.group, resource.kind);
        assert_eq!(cells.len(), columns.len(), "{}", resource.kind);
        assert_eq!(
            columns
                .iter()
                .filter(|column| column.name == "Name" && column.format == "name")
                .count(),
            1,
            "{}",
            resource.kind
        );
    }
}

fn running() -> Value {
    json!({"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}})
}

fn pod(status: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], "nodeName": "n"}, "status": status})
}

fn init_pod(state: Value) -> Value {
    let mut pod = pod(json!({"phase": "Pending", "initContainerStatuses": [
        {"name": "i", "restartCount": 2, "state": state, "lastState": {"terminated": {"finishedAt": "2024-01-02T03:09:00Z"}}},
    ]}));
    pod["spec"]["initContainers"] = json!([{"name": "i"}, {"name": "j"}]);
    pod
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn pods_tell_their_state_in_a_word() {
    let waiting = |reason: &str| json!({"phase": "Pending", "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": reason}}}]});
    let ended = |ended: Value| json!({"phase": "Failed", "containerStatuses": [{"name": "c", "restartCount": 3, "state": {"terminated": ended}}]});
    let cases = [
        ("new", pod(json!({"phase": "Pending"})), "0/1", "Pending", "0"),
        (
            "gated",
            pod(
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            ),
            "0/1",
            "SchedulingGated",
            "0",
        ),
        (
            "running",
            pod(json!({"phase": "Running", "containerStatuses": [running()]})),
            "1/1",
            "Running",
            "0",
        ),
        (
            "waiting",
            pod(waiting("ImagePullBackOff")),
            "0/1",
            "ImagePullBackOff",
            "0",
        ),
        (
            "done",
            pod(ended(json!({"exitCode": 0, "reason": "Completed"}))),
            "0/1",
            "Completed",
            "3",
        ),
        (
            "failed without a word",
            pod(ended(json!({"exitCode": 7}))),
            "0/1",
            "ExitCode:7",
            "3",
        ),
        (
            "killed",
            pod(ended(json!({"exitCode": 137, "signal": 9}))),
            "0/1",
            "Signal:9",
            "3",
        ),
        (
            "evicted",
            pod(json!({"phase": "Failed", "reason": "Evicted"})),
            "0/1",
            "Evicted",
            "0",
        ),
        (
            "first init container",
            init_pod(json!({"running": {}})),
            "0/1",
            "Init:0/2",
            "2 (60s ago)",
        ),
        (
            "init container waits",
            init_pod(json!({"waiting": {"reason": "CrashLoopBackOff"}})),
            "0/1",
            "Init:CrashLoopBackOff",
            "2 (60s ago)",
        ),
        (
            "init container is prepared",
            init_pod(json!({"waiting": {"reason": "PodInitializing"}})),
            "0/1",
            "Init:0/2",
            "2 (60s ago)",
        ),
        (
            "init container failed",
            init_pod(json!({"terminated": {"exitCode": 1, "reason": "Error"}})),
            "0/1",
            "Init:Error",
            "2 (60s ago)",
        ),
        (
            "init container ended badly",
            init_pod(json!({"terminated": {"exitCode": 4}})),
            "0/1",
            "Init:ExitCode:4",
            "2 (60s ago)",
        ),
    ];
    for (name, object, ready, status, restarts) in cases {
        let cells = printed("", "Pod", object);
        assert_eq!(
            (&cells["Ready"], &cells["Status"], &cells["Restarts"]),
            (&json!(ready), &json!(status), &json!(restarts)),
            "{name}"
        );
    }
}

#[test]
fn pods_going_away_and_sidecars_are_told_apart() {
    let mut going = pod(json!({"phase": "Running", "containerStatuses": [running()]}));
    going["metadata"]["deletionTimestamp"] = json!("2024-01-02T03:09:00Z");
    assert_eq!(printed("", "Pod", going.clone())["Status"], json!("Terminating"));
    going["status"]["reason"] = json!("NodeLost");
    assert_eq!(printed("", "Pod", going.clone())["Status"], json!("Unknown"));
    going["status"] = json!({"phase": "Succeeded"});
    assert_eq!(printed("", "Pod", going)["Status"], json!("Succeeded"));

    let mut sidecar = pod(json!({"phase": "Running", "containerStatuses": [running()],
        "initContainerStatuses": [{"name": "s", "ready": true, "started": true, "restartCount": 1, "state": {"running": {}}}]}));
    sidecar["spec"]["initContainers"] = json!([{"name": "s", "restartPolicy": "Always"}]);
    let cells = printed("", "Pod", sidecar);
    assert_eq!(
        (&cells["Ready"], &cells["Status"], &cells["Restarts"]),
        (&json!("2/2"), &json!("Running"), &json!("1"))
    );

    let half = pod(
        json!({"phase": "Running", "containerStatuses": [running(), {"name": "d", "state": {"terminated": {"reason": "Completed"}}}]}),
    );
    assert_eq!(printed("", "Pod", half)["Status"], json!("NotReady"));
}

#[test]
fn volumes_and_claims_print_as_upstream_does() {
    let pv = json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Delete",
        "claimRef": {"namespace": "default", "name": "data"}, "storageClassName": "fast", "volumeMode": "Filesystem",
    }, "status": {"phase": "Bound"}});
    let cells: Vec<Value> = printed("", "PersistentVolume", pv.clone())
        .values()
        .cloned()
        .collect();
    assert_eq!(cells.len(), 11);
    let cells = printed("", "PersistentVolume", pv);
    let expected = json!({
        "Name": "v", "Capacity": "1Gi", "Access Modes": "RWO,RWX", "Reclaim Policy": "Delete", "Status": "Bound",
        "Claim": "default/data", "StorageClass": "fast", "VolumeAttributesClass": "<unset>", "Reason": "", "Age": "5m55s",
        "VolumeMode": "Filesystem",
    });
    assert_eq!(Value::Object(cells), expected);

    let pending = json!({"metadata": {"name": "c"}, "spec": {"storageClassName": "fast"}, "status": {"phase": "Pending"}});
    let cells = printed("", "PersistentVolumeClaim", pending);
    assert_eq!(
        (&cells["Status"], &cells["Volume"], &cells["Capacity"]),
        (&json!("Pending"), &json!(""), &json!(""))
    );
    let bound = json!({"metadata": {"name": "c", "annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
        "spec": {"volumeName": "v", "storageClassName": "fast"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod"]}});
    let cells = printed("", "PersistentVolumeClaim", bound);
    assert_eq!(
        (
            &cells["Capacity"],
            &cells["Access Modes"],
            &cells["StorageClass"],
            &cells["VolumeMode"]
        ),
        (&json!("1Gi"), &json!("RWOP"), &json!("old"), &json!("<unset>"))
    );
}

#[test]
fn the_other_kinds_print_as_upstream_does() {
    let cases = [
        (
            ("storage.k8s.io", "StorageClass"),
            json!({"metadata": {"name": "s", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "d"}),
            json!({"Name": "s (default)", "Provisioner": "d", "ReclaimPolicy": "Delete", "VolumeBindingMode": "Immediate", "AllowVolumeExpansion": false, "Age": "5m55s"}),
        ),
        (
            ("storage.k8s.io", "CSIDriver"),
            json!({"metadata": {"name": "d"}, "spec": {"attachRequired": false, "tokenRequests": [{"audience": "a"}, {"audience": "b"}]}}),
            json!({"Name": "d", "AttachRequired": false, "PodInfoOnMount": false, "StorageCapacity": false, "TokenRequests": "a,b", "RequiresRepublish": false, "Modes": "<none>", "Age": "5m55s"}),
        ),
        (
            ("storage.k8s.io", "VolumeAttachment"),
            json!({"metadata": {"name": "a"}, "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}, "status": {"attached": true}}),
            json!({"Name": "a", "Attacher": "d", "PV": "v", "Node": "n", "Attached": true, "Age": "5m55s"}),
        ),
        (
            ("", "Node"),
            json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "x"}},
                "spec": {"unschedulable": true},
                "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1"}, "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}]}}),
            json!({"Name": "n", "Status": "Ready,SchedulingDisabled", "Roles": "control-plane,x", "Age": "5m55s", "Version": "v1", "Internal-IP": "1.2.3.4",
                "External-IP": "<none>", "OS-Image": "<unknown>", "Kernel-Version": "<unknown>", "Container-Runtime": "<unknown>"}),
        ),
        (
            ("", "ConfigMap"),
            json!({"metadata": {"name": "c"}, "data": {"a": ""}, "binaryData": {"b": ""}}),
            json!({"Name": "c", "Data": 2, "Age": "5m55s"}),
        ),
        (
            ("", "Service"),
            json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "selector": {"a": "b"}, "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            json!({"Name": "s", "Type": "NodePort", "Cluster-IP": "10.0.0.1", "External-IP": "<none>", "Port(s)": "80:30080/TCP,53/UDP", "Age": "5m55s", "Selector": "a=b"}),
        ),
        (
            ("", "Endpoints"),
            json!({"metadata": {"name": "s"}, "subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "::2"}], "ports": [{"port": 1}, {"port": 2}]}]}),
            json!({"Name": "s", "Endpoints": "1.1.1.1:1,[::2]:1,1.1.1.1:2 + 1 more...", "Age": "5m55s"}),
        ),
        (
            ("", "Event"),
            json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "FailedMount", "message": " no \n", "involvedObject": {"kind": "Pod", "name": "p"},
                "source": {"component": "kubelet", "host": "n"}, "firstTimestamp": "2024-01-02T03:05:00Z", "lastTimestamp": "2024-01-02T03:09:00Z", "count": 4}),
            json!({"Last Seen": "60s", "Type": "Warning", "Reason": "FailedMount", "Object": "pod/p", "Subobject": "", "Source": "kubelet, n", "Message": "no",
                "First Seen": "5m", "Count": 4, "Name": "e"}),
        ),
        (
            ("events.k8s.io", "Event"),
            json!({"metadata": {"name": "e"}, "note": "n", "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "c", "eventTime": "2024-01-02T03:05:00.000000Z",
                "series": {"count": 2, "lastObservedTime": "2024-01-02T03:09:30.000000Z"}}),
            json!({"Last Seen": "30s", "Type": "", "Reason": "", "Object": "pod/p", "Subobject": "", "Source": "c", "Message": "n", "First Seen": "5m", "Count": 2, "Name": "e"}),
        ),
        (
            ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
            json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "a", "namespace": "n"}]}),
            json!({"Name": "b", "Role": "ClusterRole/r", "Age": "5m55s", "Users": "u", "Groups": "", "ServiceAccounts": "n/a"}),
        ),
        (
            ("rbac.authorization.k8s.io", "ClusterRole"),
            json!({"metadata": {"name": "r"}}),
            json!({"Name": "r", "Created At": "2024-01-02T03:04:05Z"}),
        ),
    ];
    for ((group, kind), object, expected) in cases {
        assert_eq!(
            Value::Object(printed(group, kind, object)),
            expected,
            "{group} {kind}"
        );
    }
}
