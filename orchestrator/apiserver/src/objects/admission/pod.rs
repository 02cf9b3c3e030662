//! Admission of pods: ServiceAccount and its token volume, tolerations, priority. Pure.

use serde_json::{Value, json};

use crate::objects::{metadata, tree};

const TOKEN_MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and a little: kubelets ask for a new token at 80 % of it.
const TOKEN_SECONDS: i64 = 3607;
const TOLERATION_SECONDS: i64 = 300;
const TOLERATED_TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// The classes that exist without an object.
const SYSTEM_PRIORITIES: [(&str, i64); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

/// Completes a new pod. `random` makes the name of its token volume.
pub(super) fn complete(pod: &mut Value, account: &Value, random: u64) -> Result<(), String> {
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
    set_priority(pod)?;
    tolerate_short_outages(pod);
    Ok(())
}

fn mount_token(pod: &mut Value, random: u64) {
    let volume = metadata::generated_name("kube-api-access-", random);
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
    if is_used {
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

fn set_priority(pod: &mut Value) -> Result<(), String> {
    let class = tree::text(pod, &["spec", "priorityClassName"]);
    let found = SYSTEM_PRIORITIES.iter().find(|(name, _)| *name == class);
    let priority = match (class, found) {
        ("", _) => 0,
        (_, Some((_, priority))) => *priority,
        (class, None) => return Err(format!("no PriorityClass with name {class} was found")),
    };
    let stated = tree::at(pod, &["spec", "priority"]).and_then(Value::as_i64);
    if stated.is_some_and(|stated| stated != priority) {
        return Err("the integer value of priority must not be provided in pod spec; priority admission controller computed another value".to_owned());
    }
    let spec = tree::map_mut(pod, &["spec"]);
    spec.insert("priority".to_owned(), priority.into());
    spec.entry("preemptionPolicy")
        .or_insert_with(|| json!("PreemptLowerPriority"));
    Ok(())
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
        complete(&mut pod, &account(), 7).unwrap();
        let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap();
        assert!(volume.starts_with("kube-api-access-"));
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"][0]["name"], volume);
        assert_eq!(
            pod["spec"]["containers"][1]["volumeMounts"][1]["mountPath"],
            TOKEN_MOUNT_PATH
        );
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
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
            complete(&mut pod, &account, 7).unwrap();
            assert_eq!(pod["spec"].get("volumes").is_some(), expected, "{case}");
        }
    }

    #[test]
    fn outages_are_tolerated_once() {
        let mut pod = pod();
        pod["spec"]["tolerations"] = json!([{"key": TOLERATED_TAINTS[0], "operator": "Exists"}]);
        complete(&mut pod, &account(), 7).unwrap();
        let keys: Vec<&str> = tree::list(&pod, &["spec", "tolerations"])
            .iter()
            .map(|one| tree::text(one, &["key"]))
            .collect();
        assert_eq!(keys, TOLERATED_TAINTS);
    }

    #[test]
    fn priorities() {
        let cases = [
            (None, Ok(0)),
            (Some("system-node-critical"), Ok(2_000_001_000)),
            (Some("mine"), Err(())),
        ];
        for (class, expected) in cases {
            let mut pod = pod();
            if let Some(class) = class {
                pod["spec"]["priorityClassName"] = json!(class);
            }
            let outcome =
                complete(&mut pod, &account(), 7).map(|()| pod["spec"]["priority"].as_i64().unwrap());
            assert_eq!(outcome.map_err(|_| ()), expected, "{class:?}");
        }
    }
}
