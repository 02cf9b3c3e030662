//! Cases of the claim protection table.

use serde_json::{Value, json};

use super::*;
use crate::testing::api::TestApi;
use crate::testing::running::Running;

fn claim(is_deleting: bool, finalizers: &[&str]) -> PersistentVolumeClaim {
    let deleted = is_deleting.then_some("2026-01-01T00:00:00Z");
    let metadata = json!({
        "namespace": "ns", "name": "web-data", "uid": "c", "deletionTimestamp": deleted, "finalizers": finalizers,
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "p", "controller": true}],
    });
    serde_json::from_value(json!({"metadata": metadata})).unwrap()
}

#[test]
fn decisions() {
    let ours = &[keys::PVC_PROTECTION][..];
    let others = &["example.com/other"][..];
    let cases = [
        (
            "living and protected",
            claim(false, ours),
            Usage::NoneSeen,
            Next::Settled,
        ),
        (
            "living and unprotected",
            claim(false, &[]),
            Usage::NoneSeen,
            Next::AddFinalizer,
        ),
        (
            "living, protected by others",
            claim(false, others),
            Usage::Used,
            Next::AddFinalizer,
        ),
        ("deleting, used", claim(true, ours), Usage::Used, Next::Settled),
        (
            "deleting, no user seen",
            claim(true, ours),
            Usage::NoneSeen,
            Next::AskServer,
        ),
        (
            "deleting, no user",
            claim(true, ours),
            Usage::None,
            Next::RemoveFinalizer,
        ),
        (
            "deleting, not ours",
            claim(true, others),
            Usage::None,
            Next::Settled,
        ),
    ];
    for (name, claim, usage, expected) in cases {
        assert_eq!(decide(&claim, usage), expected, "{name}");
    }
}

#[test]
fn why_a_claim_stays() {
    let pod = |name: &str, claim: &str| -> Arc<Pod> {
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
        let pod = json!({
            "metadata": {"namespace": "ns", "name": name, "uid": name},
            "spec": {"containers": [], "nodeName": "n1", "volumes": volumes},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    let ours = &[keys::PVC_PROTECTION][..];
    let pods = [pod("b", "web-data"), pod("other", "logs"), pod("a", "web-data")];
    assert_eq!(why_held(&claim(false, ours), &pods), None);
    assert_eq!(
        why_held(&claim(true, &["a/b"]), &pods),
        None,
        "somebody else keeps it"
    );
    let used = why_held(&claim(true, ours), &pods).unwrap();
    assert_eq!((used.reason, used.actor), ("ClaimInUse", Actor::User));
    assert!(used.message.contains("pods still use it: a, b;"), "{used:?}");
    assert!(used.advice.ends_with("kubectl delete pod a b -n ns"), "{used:?}");
    let free = why_held(&claim(true, ours), &pods[1..2]).unwrap();
    assert_eq!((free.reason, free.actor), ("DeletionAllowed", Actor::Protection));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn users() {
    let direct = |claim: &str| json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    let ephemeral = json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]);
    let deleting = |grace: u32| json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace});
    let on_node = json!("n1");
    let cases: Vec<(&str, Value, Value, Value, Value, bool)> = vec![
        (
            "direct",
            json!({}),
            on_node.clone(),
            direct("web-data"),
            json!("Running"),
            true,
        ),
        (
            "direct, finished",
            json!({}),
            on_node.clone(),
            direct("web-data"),
            json!("Succeeded"),
            true,
        ),
        (
            "direct, shut down",
            deleting(0),
            on_node.clone(),
            direct("web-data"),
            json!("Running"),
            true,
        ),
        (
            "direct, without node",
            json!({}),
            json!(null),
            direct("web-data"),
            json!("Pending"),
            false,
        ),
        (
            "another claim",
            json!({}),
            on_node.clone(),
            direct("other"),
            json!("Running"),
            false,
        ),
        (
            "another namespace",
            json!({"namespace": "ms"}),
            on_node.clone(),
            direct("web-data"),
            json!("Running"),
            false,
        ),
        (
            "ephemeral",
            json!({}),
            on_node.clone(),
            ephemeral.clone(),
            json!("Running"),
            true,
        ),
        (
            "ephemeral, stopping",
            deleting(30),
            on_node.clone(),
            ephemeral.clone(),
            json!("Running"),
            true,
        ),
        (
            "ephemeral, shut down",
            deleting(0),
            on_node.clone(),
            ephemeral.clone(),
            json!("Running"),
            false,
        ),
        (
            "ephemeral of another pod of that name",
            json!({"uid": "q"}),
            on_node,
            ephemeral,
            json!("Running"),
            false,
        ),
    ];
    for (name, metadata, node, volumes, phase, expected) in cases {
        let mut whole = json!({"namespace": "ns", "name": "web", "uid": "p"});
        for (key, value) in metadata.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let pod = json!({
            "metadata": whole,
            "spec": {"containers": [], "nodeName": node, "volumes": volumes},
            "status": {"phase": phase},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        assert_eq!(is_user(&pod, &claim(true, &[])), expected, "{name}");
    }
}

fn pod_object(name: &str, claim: &str) -> Value {
    let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    json!({
        "metadata": {"namespace": "ns", "name": name},
        "spec": {"containers": [], "nodeName": "n1", "volumes": volumes},
    })
}

fn protected(name: &str) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name, "finalizers": ["a/b", keys::PVC_PROTECTION]}})
}

fn finalizers(api: &TestApi, key: &str) -> Value {
    let claim = api.get("persistentvolumeclaims", key).unwrap_or_default();
    claim["metadata"]["finalizers"].clone()
}

#[tokio::test]
async fn claim_stays_until_its_last_pod_is_gone() {
    let api = TestApi::new();
    api.put("pods", pod_object("web", "used"));
    api.put("persistentvolumeclaims", protected("used"));
    api.put("persistentvolumeclaims", protected("unused"));
    api.put(
        "persistentvolumeclaims",
        json!({"metadata": {"namespace": "ns", "name": "bare"}}),
    );
    let running = Running::start(&api, |informers, stop| run(Config::default(), informers, stop));
    api.wait_until("protected", |api| {
        finalizers(api, "ns/bare") == json!([keys::PVC_PROTECTION])
    })
    .await;
    api.delete("persistentvolumeclaims", "ns/used");
    api.delete("persistentvolumeclaims", "ns/unused");
    api.wait_until("unused is free", |api| {
        finalizers(api, "ns/unused") == json!(["a/b"])
    })
    .await;
    assert_eq!(finalizers(&api, "ns/used"), json!(["a/b", keys::PVC_PROTECTION]));
    api.delete("pods", "ns/web");
    api.wait_until("used is free", |api| finalizers(api, "ns/used") == json!(["a/b"]))
        .await;
    running.stop().await;
}

#[tokio::test]
async fn claims_deleted_together_share_a_list_of_pods() {
    let api = TestApi::new();
    for number in 0..20 {
        let mut claim = protected(&format!("c{number}"));
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        claim["metadata"]["finalizers"] = json!([keys::PVC_PROTECTION]);
        api.put("persistentvolumeclaims", claim);
    }
    let running = Running::start(&api, |informers, stop| run(Config::default(), informers, stop));
    api.wait_until("all gone", |api| api.list("persistentvolumeclaims").is_empty())
        .await;
    let api = running.stop().await;
    assert_eq!(api.take_reads(), ["GET pods/ns"]);
    assert_eq!(api.take_writes().len(), 20);
}
