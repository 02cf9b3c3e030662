//! Admission of pods: ServiceAccount and its token volume, tolerations, priority. Pure.

use serde_json::{Value, json};

use super::priority;
use crate::objects::{metadata, tree};

const TOKEN_VOLUME: &str = "kube-api-access-";
const TOKEN_MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and a little: kubelets ask for a new token at 80 % of it.
const TOKEN_SECONDS: i64 = 3607;
const TOLERATION_SECONDS: i64 = 300;
const TOLERATED_TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// Whether a pod mirrors one that a node runs by itself.
pub(super) fn is_mirror(pod: &Value) -> bool {
    tree::at(pod, &["metadata", "annotations", "kubernetes.io/config.mirror"]).is_some()
}

/// Completes a new pod; `classes` are those of priority.
pub(super) fn complete(pod: &mut Value, classes: &[Value]) -> Result<(), String> {
    priority::set(pod, classes)?;
    tolerate_short_outages(pod);
    Ok(())
}

/// Gives a new pod its account; `random` makes the name of its token volume.
pub(super) fn set_account(pod: &mut Value, account: &Value, random: u64) {
    let name = account["metadata"]["name"].clone();
    let spec = tree::map_mut(pod, &["spec"]);
    spec.insert("serviceAccountName".to_owned(), name.clone());
    spec.insert("serviceAccount".to_owned(), name);
    let automount = tree::at(pod, &["spec", "automountServiceAccountToken"])
        .or_else(|| tree::at(account, &["automountServiceAccountToken"]))
        .and_then(Value::as_bool);
    if automount.unwrap_or(true) {
        mount_token(pod, random);
    }
    if tree::is_empty(pod["spec"].get("imagePullSecrets"))
        && let Some(secrets) = tree::at(account, &["imagePullSecrets"]).cloned()
    {
        tree::map_mut(pod, &["spec"]).insert("imagePullSecrets".to_owned(), secrets);
    }
}

fn mount_token(pod: &mut Value, random: u64) {
    // Completed again, a pod keeps the volume that it has.
    let volumes = tree::list(pod, &["spec", "volumes"]).iter();
    let mut known = volumes.map(|volume| tree::text(volume, &["name"]));
    let known = known
        .find(|name| name.starts_with(TOKEN_VOLUME))
        .map(str::to_owned);
    let is_new = known.is_none();
    let volume = known.unwrap_or_else(|| metadata::generated_name(TOKEN_VOLUME, random));
    let mut is_used = false;
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let has_own = tree::list(container, &["volumeMounts"])
                .iter()
                .any(|mount| tree::text(mount, &["mountPath"]) == TOKEN_MOUNT_PATH);
            if has_own {
                continue;
            }
            is_used = true;
            let mount = json!({ "name": volume, "readOnly": true, "mountPath": TOKEN_MOUNT_PATH });
            push(container, "volumeMounts", mount);
        }
    }
    if is_used && is_new {
        push(&mut pod["spec"], "volumes", token_volume(&volume));
    }
}

fn token_volume(name: &str) -> Value {
    let namespace = json!({
        "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
    });
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [namespace] } },
            ],
        },
    })
}

fn push(object: &mut Value, field: &str, item: Value) {
    let map = tree::map_mut(object, &[]);
    match map.get_mut(field).and_then(Value::as_array_mut) {
        Some(list) => list.push(item),
        None => {
            map.insert(field.to_owned(), json!([item]));
        }
    }
}

/// A node that is away for a moment does not cost the pod its place.
fn tolerate_short_outages(pod: &mut Value) {
    for taint in TOLERATED_TAINTS {
        let tolerates = |toleration: &Value| {
            let key = tree::text(toleration, &["key"]);
            let effect = tree::text(toleration, &["effect"]);
            (key == taint || key.is_empty()) && matches!(effect, "" | "NoExecute")
        };
        if !tree::list(pod, &["spec", "tolerations"]).iter().any(tolerates) {
            let toleration = json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
            });
            push(&mut pod["spec"], "tolerations", toleration);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Value {
        json!({"metadata": {"name": "default"}})
    }

    fn pod() -> Value {
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}]}})
    }

    #[test]
    fn token_is_mounted_into_each_container() {
        let mut pod = pod();
        set_account(&mut pod, &account(), 7);
        let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap();
        assert!(volume.starts_with("kube-api-access-"));
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], volume);
        assert_eq!(
            pod["spec"]["containers"][1]["volumeMounts"][1]["mountPath"],
            TOKEN_MOUNT_PATH
        );
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        // A container that came later gets the same volume.
        pod["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "late"}));
        set_account(&mut pod, &account(), 8);
        assert_eq!(
            pod["spec"]["containers"][2]["volumeMounts"][0]["name"],
            pod["spec"]["volumes"][0]["name"]
        );
        assert_eq!(pod["spec"]["volumes"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn token_is_left_out_on_request() {
        let cases = [
            ("pod says no", json!(false), Value::Null, false),
            ("account says no", Value::Null, json!(false), false),
            ("pod overrules", json!(true), json!(false), true),
        ];
        for (case, of_pod, of_account, expected) in cases {
            let (mut pod, mut account) = (pod(), account());
            pod["spec"]["automountServiceAccountToken"] = of_pod;
            account["automountServiceAccountToken"] = of_account;
            set_account(&mut pod, &account, 7);
            assert_eq!(pod["spec"].get("volumes").is_some(), expected, "{case}");
        }
    }

    #[test]
    fn outages_are_tolerated_once() {
        let mut pod = pod();
        pod["spec"]["tolerations"] = json!([{"key": TOLERATED_TAINTS[0], "operator": "Exists"}]);
        complete(&mut pod, &[]).unwrap();
        let keys: Vec<&str> = tree::list(&pod, &["spec", "tolerations"])
            .iter()
            .map(|one| tree::text(one, &["key"]))
            .collect();
        assert_eq!(keys, TOLERATED_TAINTS);
    }
}
