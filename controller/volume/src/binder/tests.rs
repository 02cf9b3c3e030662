//! The whole binder over an API server: what it writes, what it reads, what it tells.

use std::collections::BTreeMap;

use moorline_model::keys;
use serde_json::{Value, json};

use super::*;
use crate::testing::api::TestApi;
use crate::testing::merge;
use crate::testing::running::Running;

fn start(api: &TestApi, config: Config) -> Running {
    Running::start(api, |informers, stop| run(config, informers, stop))
}

fn eager() -> Config {
    Config {
        patience: Duration::ZERO,
        ..Config::default()
    }
}

fn claim(name: &str, other: Value) -> Value {
    let mut claim = json!({
        "metadata": {"namespace": "ns", "name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"},
    });
    merge(&mut claim, &other);
    claim
}

fn pv(name: &str, other: Value) -> Value {
    let mut pv = json!({
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
            "csi": {"driver": "d", "volumeHandle": name},
        },
        "status": {"phase": "Pending"},
    });
    merge(&mut pv, &other);
    pv
}

fn class(name: &str, mode: &str) -> Value {
    json!({"metadata": {"name": name}, "provisioner": "csi.example.com", "volumeBindingMode": mode})
}

fn provision(api: &TestApi, claim: &Value) {
    let uid = claim["metadata"]["uid"].as_str().unwrap();
    let reference = json!({"namespace": "ns", "name": claim["metadata"]["name"], "uid": uid});
    let spec = json!({
        "claimRef": reference, "storageClassName": claim["spec"]["storageClassName"],
        "persistentVolumeReclaimPolicy": "Delete",
    });
    let metadata = json!({"annotations": {keys::PROVISIONED_BY: "csi.example.com"}});
    api.put(
        "persistentvolumes",
        pv(&format!("pvc-{uid}"), json!({"metadata": metadata, "spec": spec})),
    );
}

fn phase(api: &TestApi, resource: &str, key: &str) -> String {
    let object = api.get(resource, key).unwrap_or_default();
    object["status"]["phase"].as_str().unwrap_or_default().to_string()
}

fn bound_claims(api: &TestApi) -> usize {
    let claims = api.list("persistentvolumeclaims");
    claims
        .iter()
        .filter(|claim| claim["status"]["phase"] == "Bound")
        .count()
}

#[tokio::test]
async fn static_claims_are_bound_with_four_writes_each_and_no_read() {
    let api = TestApi::new();
    for number in 0..40 {
        api.put(
            "persistentvolumes",
            pv(
                &format!("pv{number:02}"),
                json!({"status": {"phase": "Available"}}),
            ),
        );
    }
    let running = start(&api, eager());
    for number in 0..40 {
        api.put(
            "persistentvolumeclaims",
            claim(&format!("c{number:02}"), json!({})),
        );
    }
    api.wait_until("all bound", |api| bound_claims(api) == 40).await;
    let api = running.stop().await;
    let claims = api.list("persistentvolumeclaims");
    let names: std::collections::BTreeSet<_> = claims
        .iter()
        .map(|claim| claim["spec"]["volumeName"].to_string())
        .collect();
    assert_eq!(names.len(), 40, "one PV each");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for write in api.take_writes() {
        let kind: String = write
            .chars()
            .map(|c| if c.is_ascii_digit() { '#' } else { c })
            .collect();
        *counts.entry(kind).or_default() += 1;
    }
    let expected = [
        "PATCH persistentvolumeclaims/ns/c##",
        "PATCH persistentvolumeclaims/ns/c##/status",
        "PATCH persistentvolumes/pv##",
        "PATCH persistentvolumes/pv##/status",
    ];
    assert_eq!(counts, expected.map(|kind| (kind.to_string(), 40)).into());
    assert_eq!(api.take_reads(), Vec::<String>::new());
}

#[tokio::test]
async fn dynamic_claim_is_handed_over_and_bound() {
    let api = TestApi::new();
    api.put("storageclasses", class("fast", "Immediate"));
    let running = start(&api, eager());
    api.put(
        "persistentvolumeclaims",
        claim("c", json!({"spec": {"storageClassName": "fast"}})),
    );
    let is_asked = |api: &TestApi| {
        let claim = api.get("persistentvolumeclaims", "ns/c").unwrap();
        claim["metadata"]["annotations"][keys::STORAGE_PROVISIONER] == "csi.example.com"
    };
    api.wait_until("provisioner named", is_asked).await;
    api.wait_until("told", |api| api.event_reasons() == ["ExternalProvisioning"])
        .await;
    provision(&api, &api.get("persistentvolumeclaims", "ns/c").unwrap());
    api.wait_until("bound", |api| {
        phase(api, "persistentvolumeclaims", "ns/c") == "Bound"
    })
    .await;
    let api = running.stop().await;
    let claim = api.get("persistentvolumeclaims", "ns/c").unwrap();
    assert_eq!(claim["status"]["capacity"]["storage"], "2Gi");
    let pv_name = claim["spec"]["volumeName"].as_str().unwrap();
    assert_eq!(phase(&api, "persistentvolumes", &format!("/{pv_name}")), "Bound");
    let expected = [
        "PATCH persistentvolumeclaims/ns/c".to_string(),
        format!("PATCH persistentvolumes/{pv_name}/status"),
        "PATCH persistentvolumeclaims/ns/c".to_string(),
        "PATCH persistentvolumeclaims/ns/c/status".to_string(),
    ];
    assert_eq!(api.take_writes(), expected);
}

#[tokio::test]
async fn claim_of_a_late_class_waits_for_its_node() {
    let api = TestApi::new();
    api.put("storageclasses", class("late", "WaitForFirstConsumer"));
    let running = start(&api, eager());
    api.put(
        "persistentvolumeclaims",
        claim("c", json!({"spec": {"storageClassName": "late"}})),
    );
    api.wait_until("told", |api| api.event_reasons() == ["WaitForFirstConsumer"])
        .await;
    assert_eq!(api.take_writes(), Vec::<String>::new());
    let selected = json!({"metadata": {"annotations": {keys::SELECTED_NODE: "n1"}}});
    api.change("persistentvolumeclaims", "ns/c", selected);
    let is_asked = |api: &TestApi| {
        let claim = api.get("persistentvolumeclaims", "ns/c").unwrap();
        claim["metadata"]["annotations"][keys::STORAGE_PROVISIONER_BETA] == "csi.example.com"
    };
    api.wait_until("provisioner named", is_asked).await;
    running.stop().await;
}

#[tokio::test]
async fn short_waits_are_not_told() {
    let api = TestApi::new();
    api.put("storageclasses", class("fast", "Immediate"));
    let running = start(
        &api,
        Config {
            patience: Duration::from_secs(60),
            ..Config::default()
        },
    );
    api.put(
        "persistentvolumeclaims",
        claim("c", json!({"spec": {"storageClassName": "fast"}})),
    );
    api.wait_until("provisioner named", |api| {
        let claim = api.get("persistentvolumeclaims", "ns/c").unwrap();
        !claim["metadata"]["annotations"].is_null()
    })
    .await;
    provision(&api, &api.get("persistentvolumeclaims", "ns/c").unwrap());
    api.wait_until("bound", |api| {
        phase(api, "persistentvolumeclaims", "ns/c") == "Bound"
    })
    .await;
    let api = running.stop().await;
    assert_eq!(api.event_reasons(), Vec::<String>::new());
}

#[tokio::test]
async fn waiting_claims_are_woken_by_what_arrives() {
    let api = TestApi::new();
    let running = start(&api, eager());
    api.put(
        "persistentvolumeclaims",
        claim("static", json!({"spec": {"storageClassName": ""}})),
    );
    api.put("persistentvolumeclaims", claim("plain", json!({})));
    api.put(
        "persistentvolumeclaims",
        claim("named", json!({"spec": {"volumeName": "pv-named"}})),
    );
    api.put(
        "persistentvolumeclaims",
        claim("classy", json!({"spec": {"storageClassName": "fast"}})),
    );
    let reasons = ["FailedBinding", "FailedBinding", "ProvisioningFailed"];
    api.wait_until("told", |api| api.event_reasons() == reasons).await;
    // None of these waits for a resync.
    api.put("persistentvolumes", pv("pv-named", json!({})));
    api.wait_until("named", |api| {
        phase(api, "persistentvolumeclaims", "ns/named") == "Bound"
    })
    .await;
    let mut default = class("fast", "Immediate");
    default["metadata"]["annotations"] = json!({keys::IS_DEFAULT_CLASS: "true"});
    api.put("storageclasses", default);
    let is_asked = |api: &TestApi, key: &str| {
        let claim = api.get("persistentvolumeclaims", key).unwrap();
        claim["metadata"]["annotations"][keys::STORAGE_PROVISIONER] == "csi.example.com"
    };
    api.wait_until("classy", |api| is_asked(api, "ns/classy")).await;
    api.wait_until("plain gets the default", |api| is_asked(api, "ns/plain"))
        .await;
    api.put("persistentvolumes", pv("pv-free", json!({})));
    api.wait_until("static", |api| {
        phase(api, "persistentvolumeclaims", "ns/static") == "Bound"
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn deleting_claim_and_pv() {
    let api = TestApi::new();
    for name in ["pv1", "pv2"] {
        api.put("persistentvolumes", pv(name, json!({})));
        api.put(
            "persistentvolumeclaims",
            claim(name, json!({"spec": {"volumeName": name}})),
        );
    }
    let running = start(&api, eager());
    api.wait_until("both bound", |api| bound_claims(api) == 2).await;
    api.delete("persistentvolumeclaims", "ns/pv1");
    api.delete("persistentvolumes", "/pv2");
    api.wait_until("released", |api| {
        phase(api, "persistentvolumes", "/pv1") == "Released"
    })
    .await;
    api.wait_until("lost", |api| {
        phase(api, "persistentvolumeclaims", "ns/pv2") == "Lost"
    })
    .await;
    api.wait_until("told", |api| api.event_reasons() == ["ClaimLost"])
        .await;
    api.change("persistentvolumes", "/pv1", json!({"spec": {"claimRef": null}}));
    api.wait_until("free again", |api| {
        phase(api, "persistentvolumes", "/pv1") == "Available"
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_second_binder_costs_conflicts_and_nothing_else() {
    let api = TestApi::new();
    for number in 0..30 {
        api.put(
            "persistentvolumes",
            pv(
                &format!("pv{number:02}"),
                json!({"status": {"phase": "Available"}}),
            ),
        );
        api.put(
            "persistentvolumeclaims",
            claim(&format!("c{number:02}"), json!({})),
        );
    }
    let first = start(&api, eager());
    let second = start(&api, eager());
    api.wait_until("all bound", |api| bound_claims(api) == 30).await;
    first.stop().await;
    second.stop().await;
    let linked = |pv: &Value| {
        let claim = format!(
            "ns/{}",
            pv["spec"]["claimRef"]["name"].as_str().unwrap_or_default()
        );
        let claim = api.get("persistentvolumeclaims", &claim).unwrap();
        claim["spec"]["volumeName"] == pv["metadata"]["name"]
            && claim["metadata"]["uid"] == pv["spec"]["claimRef"]["uid"]
    };
    assert!(api.list("persistentvolumes").iter().all(linked));
}
