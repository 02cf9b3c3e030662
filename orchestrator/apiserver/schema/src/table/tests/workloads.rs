//! Workloads: counts, and the states of jobs.

use serde_json::json;

use super::super::*;
use super::printed;

fn template() -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}], "nodeSelector": {"n": "1"}}})
}

#[test]
fn workloads_are_counted() {
    let selector = json!({"matchLabels": {"app": "w"}});
    let spec = json!({"replicas": 3, "selector": selector, "template": template()});
    let status = json!({"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 0,
        "desiredNumberScheduled": 5, "currentNumberScheduled": 4, "numberReady": 3, "updatedNumberScheduled": 2, "numberAvailable": 1});
    let object = json!({"metadata": {"name": "w"}, "spec": spec, "status": status});
    let cases = [
        (
            "Deployment",
            json!({"Ready": "1/3", "Up-to-date": 2, "Available": 0, "Containers": "c,d", "Images": "i,j", "Selector": "app=w"}),
        ),
        (
            "ReplicaSet",
            json!({"Desired": 3, "Current": 2, "Ready": 1, "Selector": "app=w"}),
        ),
        ("StatefulSet", json!({"Ready": "1/3", "Images": "i,j"})),
        (
            "DaemonSet",
            json!({"Desired": 5, "Current": 4, "Ready": 3, "Up-to-date": 2, "Available": 1, "Node Selector": "n=1"}),
        ),
    ];
    for (kind, expected) in cases {
        let cells = printed("apps", kind, object.clone());
        for (heading, value) in expected.as_object().unwrap() {
            assert_eq!(&cells[heading], value, "{kind} {heading}");
        }
    }
    let controller =
        json!({"metadata": {"name": "w"}, "spec": {"replicas": 1, "selector": {"b": "2", "a": "1"}}});
    assert_eq!(
        printed("", "ReplicationController", controller)["Selector"],
        "a=1,b=2"
    );
    let template = json!({"metadata": {"name": "t"}, "template": template()});
    assert_eq!(printed("", "PodTemplate", template)["Images"], "i,j");
    let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true});
    let revision = json!({"metadata": {"name": "r", "ownerReferences": [owner]}, "revision": 4});
    let cells = printed("apps", "ControllerRevision", revision);
    assert_eq!(
        (&cells["Controller"], &cells["Revision"]),
        (&json!("statefulset.apps/web"), &json!(4))
    );
}

#[test]
fn jobs_tell_how_they_ended() {
    let job = |spec: Value, status: Value| json!({"metadata": {"name": "j"}, "spec": spec, "status": status});
    let ended = |kind: &str| {
        json!({"conditions": [{"type": kind, "status": "True"}], "succeeded": 1,
            "startTime": "2024-01-02T03:05:00Z", "completionTime": "2024-01-02T03:06:10Z"})
    };
    let one = json!({"completions": 1, "parallelism": 1});
    let cases = [
        ("new", job(one.clone(), json!({})), "Running", "0/1", ""),
        (
            "runs",
            job(one.clone(), json!({"startTime": "2024-01-02T03:09:00Z"})),
            "Running",
            "0/1",
            "60s",
        ),
        (
            "done",
            job(one.clone(), ended("Complete")),
            "Complete",
            "1/1",
            "70s",
        ),
        (
            "failed",
            job(one.clone(), ended("Failed")),
            "Failed",
            "1/1",
            "70s",
        ),
        (
            "suspended",
            job(
                json!({"completions": 4}),
                json!({"conditions": [{"type": "Suspended", "status": "True"}]}),
            ),
            "Suspended",
            "0/4",
            "",
        ),
        (
            "a queue",
            job(json!({"parallelism": 3}), json!({"succeeded": 2})),
            "Running",
            "2/1 of 3",
            "",
        ),
        (
            "one of a queue",
            job(json!({"parallelism": 1}), json!({})),
            "Running",
            "0/1",
            "",
        ),
    ];
    for (case, job, status, completions, duration) in cases {
        let cells = printed("batch", "Job", job);
        let found = (&cells["Status"], &cells["Completions"], &cells["Duration"]);
        assert_eq!(
            found,
            (&json!(status), &json!(completions), &json!(duration)),
            "{case}"
        );
    }
    let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "@daily", "suspend": false, "jobTemplate": {"spec": {"template": template()}}},
        "status": {"active": [{}], "lastScheduleTime": "2024-01-02T03:09:50Z"}});
    let cells = printed("batch", "CronJob", cron);
    let expected = json!({"Schedule": "@daily", "Timezone": "<none>", "Suspend": "False", "Active": 1, "Last Schedule": "10s", "Images": "i,j", "Selector": "<none>"});
    for (heading, value) in expected.as_object().unwrap() {
        assert_eq!(&cells[heading], value, "{heading}");
    }
}
