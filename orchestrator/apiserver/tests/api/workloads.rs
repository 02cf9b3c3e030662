//! Workloads are kept, completed, checked and scaled like everywhere; who makes pods of them is another matter.

use http::Method;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::kubectl::Kubectl;

const APPS: &str = "/apis/apps/v1/namespaces/default";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

fn workload(kind: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "w"}, "spec": {
        "selector": {"matchLabels": {"app": "w"}},
        "template": {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }})
}

#[tokio::test]
async fn every_replicated_workload_is_scaled() {
    let server = Server::start().await;
    for (kind, plural) in [
        ("Deployment", "deployments"),
        ("ReplicaSet", "replicasets"),
        ("StatefulSet", "statefulsets"),
    ] {
        let path = format!("{APPS}/{plural}/w");
        let made = server.post(&format!("{APPS}/{plural}"), &workload(kind)).await;
        assert_eq!(made.code, 201, "{}", made.text);
        assert_eq!(made.json["metadata"]["generation"], 1);
        let scale = server.get(&format!("{path}/scale")).await.json;
        assert_eq!(
            (&scale["kind"], &scale["spec"], &scale["status"]),
            (
                &json!("Scale"),
                &json!({"replicas": 1}),
                &json!({"replicas": 0, "selector": "app=w"})
            )
        );
        let mut wanted = scale.clone();
        wanted["spec"]["replicas"] = json!(3);
        let scaled = server.put(&format!("{path}/scale"), &wanted).await;
        assert_eq!(scaled.code, 200, "{}", scaled.text);
        let stale = server.put(&format!("{path}/scale"), &wanted).await;
        assert_eq!(stale.code, 409, "{}", stale.text);
        let patched = server
            .merge(&format!("{path}/scale"), &json!({"spec": {"replicas": 4}}))
            .await;
        assert_eq!(patched.json["spec"]["replicas"], 4, "{}", patched.text);
        let refused = server
            .merge(&format!("{path}/scale"), &json!({"spec": {"replicas": -1}}))
            .await;
        assert_eq!(refused.code, 422, "{}", refused.text);
        let now = server.get(&path).await.json;
        assert_eq!(
            (&now["spec"]["replicas"], &now["metadata"]["generation"]),
            (&json!(4), &json!(3))
        );
        let owner = now["metadata"]["managedFields"].as_array().unwrap().iter();
        assert!(owner.clone().any(|one| one["subresource"] == "scale"), "{now}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let server = Server::start().await;
    let mut deployment = workload("Deployment");
    deployment["status"] = json!({"replicas": 9});
    let deployments = format!("{APPS}/deployments");
    let path = format!("{deployments}/w");
    let made = server.post(&deployments, &deployment).await;
    assert_eq!(made.json["status"], json!({}), "{}", made.text);
    let status = json!({"spec": {"replicas": 7}, "status": {"replicas": 1, "observedGeneration": 1}});
    let reply = server.merge(&format!("{path}/status"), &status).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(
        (
            &reply.json["spec"]["replicas"],
            &reply.json["metadata"]["generation"]
        ),
        (&json!(1), &json!(1))
    );
    assert_eq!(reply.json["status"], status["status"]);
    let other = json!({"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}}}}});
    let refused = server.merge(&path, &other).await;
    assert_eq!(refused.code, 422, "{}", refused.text);
    let cause = &refused.json["details"]["causes"][0];
    assert_eq!(
        (&cause["field"], &cause["reason"]),
        (&json!("spec.selector"), &json!("FieldValueInvalid"))
    );
    server.shut_down().await;
}

#[tokio::test]
async fn a_job_selects_its_pods_and_leaves_them_behind() {
    let server = Server::start().await;
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
    }});
    let made = server.post(JOBS, &job).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let uid = &made.json["metadata"]["uid"];
    assert_eq!(
        &made.json["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"],
        uid
    );
    assert_eq!(
        made.json["spec"]["template"]["metadata"]["labels"]["job-name"],
        "j"
    );
    let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": uid});
    let mut pod = crate::harness::pod("p");
    pod["metadata"]["ownerReferences"] = json!([owner]);
    let pods = "/api/v1/namespaces/default/pods";
    let made = server.post(pods, &pod).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let path = format!("{JOBS}/j");
    let reply = server.delete(&path).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    let warning = reply.headers["warning"].to_str().unwrap();
    assert!(
        warning.contains("child pods are preserved by default"),
        "{warning}"
    );
    server
        .until(&path, "the job to be gone", |reply| reply.code == 404)
        .await;
    let pod = server.get(&format!("{pods}/p")).await;
    assert_eq!(pod.code, 200, "{}", pod.text);
    assert_eq!(pod.json["metadata"].get("ownerReferences"), None);
    // A ReplicaSet's pods go with it.
    let sets = format!("{APPS}/replicasets");
    let set = server.post(&sets, &workload("ReplicaSet")).await.json;
    let owner =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "w", "uid": set["metadata"]["uid"]}]);
    let owned = json!({"metadata": {"ownerReferences": owner}});
    server.merge(&format!("{pods}/p"), &owned).await;
    server
        .write(
            Method::DELETE,
            &format!("{sets}/w"),
            "application/json",
            &json!({}),
        )
        .await;
    server
        .until(&format!("{pods}/p"), "the pod to be gone", |reply| {
            reply.code == 404
        })
        .await;
    server.shut_down().await;
}

#[tokio::test]
async fn autoscalers_have_two_versions() {
    let server = Server::start().await;
    let path =
        |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let target = json!({"kind": "Deployment", "name": "w", "apiVersion": "apps/v1"});
    let old = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 70}});
    let made = server.post(&path("v1"), &old).await;
    assert_eq!(
        (made.code.as_u16(), &made.json["apiVersion"]),
        (201, &json!("autoscaling/v1")),
        "{}",
        made.text
    );
    let new = server.get(&format!("{}/a", path("v2"))).await.json;
    assert_eq!(new["apiVersion"], "autoscaling/v2");
    assert_eq!(
        new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70,
        "{new}"
    );
    let memory = json!({"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let mut changed = new.clone();
    changed["spec"]["metrics"].as_array_mut().unwrap().push(memory);
    let reply = server.put(&format!("{}/a", path("v2")), &changed).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    let scaled = server
        .merge(&format!("{}/a", path("v1")), &json!({"spec": {"maxReplicas": 9}}))
        .await;
    assert_eq!(
        scaled.json["spec"]["targetCPUUtilizationPercentage"], 70,
        "{}",
        scaled.text
    );
    let note = &scaled.json["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"];
    assert!(
        note.as_str().is_some_and(|text| text.contains("memory")),
        "{}",
        scaled.text
    );
    let new = server.get(&format!("{}/a", path("v2"))).await.json;
    assert_eq!(
        (
            &new["spec"]["maxReplicas"],
            new["spec"]["metrics"].as_array().unwrap().len()
        ),
        (&json!(9), 2)
    );
    assert_eq!(new["metadata"].get("annotations"), None);
    let listed = server.get(&path("v1")).await.json;
    assert_eq!(
        (&listed["kind"], &listed["items"][0]["apiVersion"]),
        (&json!("HorizontalPodAutoscalerList"), &json!("autoscaling/v1"))
    );
    let group = server.get("/apis/autoscaling").await.json;
    assert_eq!(group["preferredVersion"]["version"], "v2");
    server.shut_down().await;
}

#[tokio::test]
async fn components_are_looked_up() {
    let server = Server::start().await;
    let path = "/api/v1/componentstatuses";
    let names = |reply: &crate::harness::Reply| -> Vec<String> {
        let items = reply.json["items"].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let listed = server.get(path).await;
    assert_eq!(names(&listed), ["etcd-0"], "{}", listed.text);
    assert!(
        listed.headers["warning"]
            .to_str()
            .unwrap()
            .contains("deprecated in v1.19+")
    );
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "kube-scheduler"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2020-01-01T00:00:00.000000Z"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    assert_eq!(server.post(leases, &lease).await.code, 201);
    assert_eq!(names(&server.get(path).await), ["etcd-0", "scheduler"]);
    let scheduler = server.get(&format!("{path}/scheduler")).await.json;
    assert_eq!(scheduler["conditions"][0]["status"], "False", "{scheduler}");
    assert_eq!(server.get(&format!("{path}/nobody")).await.code, 404);
    assert_eq!(
        server
            .post(
                path,
                &json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": "x"}})
            )
            .await
            .code,
        405
    );
    server.shut_down().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
async fn kubectl_creates_scales_and_explains() {
    let Some(kubectl) = Kubectl::start("kubectl_creates_scales_and_explains").await else {
        return;
    };
    let cases = [
        (
            "create deployment web --image=nginx --replicas=2",
            &["deployment.apps/web created"][..],
        ),
        (
            "scale deployment web --replicas=5",
            &["deployment.apps/web scaled"],
        ),
        (
            "get deployments web -o jsonpath={.spec.replicas}/{.spec.strategy.rollingUpdate.maxSurge}",
            &["5/25%"],
        ),
        ("get deploy", &["READY", "UP-TO-DATE", "AVAILABLE", "0/5"]),
        ("get deploy -o wide", &["CONTAINERS", "nginx", "app=web"]),
        ("set image deployment/web nginx=nginx:2", &["image updated"]),
        ("rollout restart deployment web", &["restarted"]),
        ("annotate deployment web note=x", &["annotated"]),
        (
            "autoscale deployment web --min=2 --max=6 --cpu-percent=70",
            &["horizontalpodautoscaler.autoscaling/web autoscaled"],
        ),
        (
            "get hpa web",
            &["REFERENCE", "Deployment/web", "<unknown>/70%", "2", "6"],
        ),
        (
            "get horizontalpodautoscalers.v1.autoscaling web",
            &["Deployment/web", "<unknown>/70%"],
        ),
        ("get componentstatuses", &["etcd-0", "Healthy", "ok"]),
        ("create job once --image=busybox", &["job.batch/once created"]),
        (
            "create cronjob often --image=busybox --schedule=@hourly",
            &["cronjob.batch/often created"],
        ),
        ("get jobs", &["STATUS", "COMPLETIONS", "Running", "0/1"]),
        ("get cj", &["SCHEDULE", "TIMEZONE", "SUSPEND", "@hourly", "False"]),
        (
            "get all",
            &[
                "deployment.apps/web",
                "job.batch/once",
                "cronjob.batch/often",
                "service/kubernetes",
            ],
        ),
        (
            "api-resources --api-group=apps",
            &["deployments", "deploy", "sts", "ds", "rs", "controllerrevisions"],
        ),
        (
            "explain deployment.spec.strategy",
            &["GROUP:", "apps", "rollingUpdate"],
        ),
        (
            "describe deployment web",
            &["Name:", "web", "RollingUpdate", "5 desired"],
        ),
        ("delete deployment web", &["deleted"]),
        ("delete job once --cascade=background", &["deleted"]),
    ];
    for (arguments, expected) in cases {
        let text = kubectl.ok(arguments, "").await;
        for part in expected {
            assert!(
                text.contains(part),
                "kubectl {arguments}: {part:?} is missing in {text}"
            );
        }
    }
    let (succeeded, text) = kubectl
        .run("create cronjob never --image=i --schedule=never", "")
        .await;
    assert!(
        !succeeded && text.contains("spec.schedule: Invalid value: \"never\": expected exactly 5 fields"),
        "{text}"
    );
    kubectl.server.shut_down().await;
}
