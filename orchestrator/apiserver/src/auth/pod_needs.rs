//! Which objects the pods of a node need, looked up in the caches with each question: no node asks often.

use std::sync::Arc;

use serde_json::Value;

use super::node::Needs;
use crate::cache::{Caches, Collection, Entry};
use crate::objects::tree;

/// The collections that tell it.
#[derive(Debug)]
pub(crate) struct PodNeeds {
    pods: Option<Arc<Collection>>,
    claims: Option<Arc<Collection>>,
    volumes: Option<Arc<Collection>>,
    attachments: Option<Arc<Collection>>,
}

impl PodNeeds {
    pub(crate) fn new(caches: &Caches) -> Self {
        let all = caches.all();
        let find = |group: &str, plural: &str| {
            let mut all = all.iter();
            let is_wanted = |one: &&Arc<Collection>| {
                !one.resource.custom && (one.resource.group, one.resource.plural) == (group, plural)
            };
            all.find(is_wanted).cloned()
        };
        PodNeeds {
            pods: find("", "pods"),
            claims: find("", "persistentvolumeclaims"),
            volumes: find("", "persistentvolumes"),
            attachments: find("storage.k8s.io", "volumeattachments"),
        }
    }

    /// The pods of a node, in one namespace or, for the empty one, in all.
    fn pods_of(&self, node: &str, namespace: &str) -> Vec<Value> {
        let Some(pods) = &self.pods else { return Vec::new() };
        let place = pods.fields.iter().position(|field| *field == "spec.nodeName");
        let is_there = |entry: &&Arc<Entry>| {
            place
                .and_then(|place| entry.facts.fields.get(place))
                .is_some_and(|found| **found == *node)
        };
        let prefix = if namespace.is_empty() {
            String::new()
        } else {
            format!("{namespace}/")
        };
        let snapshot = pods.snapshot(&prefix, || 0);
        snapshot
            .entries
            .iter()
            .filter(is_there)
            .map(|entry| entry.value())
            .collect()
    }

    /// The claims that pods of a node use, by namespace and name.
    fn claims_of(&self, node: &str, namespace: &str) -> Vec<(String, String)> {
        let pods = self.pods_of(node, namespace);
        pods.iter().flat_map(claims).collect()
    }

    fn claim(&self, namespace: &str, name: &str) -> Option<Value> {
        Some(self.claims.as_ref()?.get(&format!("{namespace}/{name}"))?.value())
    }

    /// The volumes that claims of a node's pods are bound to.
    fn volumes_of(&self, node: &str) -> Vec<String> {
        let claims = self.claims_of(node, "").into_iter();
        let bound = claims.filter_map(|(namespace, name)| self.claim(&namespace, &name));
        bound
            .map(|claim| tree::text(&claim, &["spec", "volumeName"]).to_owned())
            .filter(|volume| !volume.is_empty())
            .collect()
    }

    fn secret_of_volume(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.volumes_of(node).iter().any(|volume| {
            let found = self.volumes.as_ref().and_then(|volumes| volumes.get(volume));
            found.is_some_and(|entry| names_secret(&entry.value()["spec"], namespace, name))
        })
    }
}

impl Needs for PodNeeds {
    fn needs(&self, node: &str, plural: &str, namespace: &str, name: &str) -> bool {
        match plural {
            "persistentvolumes" => self.volumes_of(node).iter().any(|volume| volume == name),
            "persistentvolumeclaims" => {
                let wanted = (namespace.to_owned(), name.to_owned());
                self.claims_of(node, namespace).contains(&wanted)
            }
            "volumeattachments" => {
                let found = self.attachments.as_ref().and_then(|all| all.get(name));
                found.is_some_and(|entry| tree::text(&entry.value(), &["spec", "nodeName"]) == node)
            }
            "secrets" => {
                let pods = self.pods_of(node, namespace);
                pods.iter().any(|pod| pod_names(pod, "secrets", name))
                    || self.secret_of_volume(node, namespace, name)
            }
            _ => {
                let pods = self.pods_of(node, namespace);
                pods.iter().any(|pod| pod_names(pod, plural, name))
            }
        }
    }
}

/// The claims of a pod: those it names, and those that are made for it.
fn claims(pod: &Value) -> Vec<(String, String)> {
    let text = |path: &[&str]| tree::text(pod, path).to_owned();
    let volumes = tree::list(pod, &["spec", "volumes"]).iter();
    let names = volumes.filter_map(|volume| {
        let named = tree::text(volume, &["persistentVolumeClaim", "claimName"]);
        if !named.is_empty() {
            return Some(named.to_owned());
        }
        let own = tree::at(volume, &["ephemeral"])?;
        own.is_object().then(|| {
            format!(
                "{}-{}",
                text(&["metadata", "name"]),
                tree::text(volume, &["name"])
            )
        })
    });
    names
        .map(|name| (text(&["metadata", "namespace"]), name))
        .collect()
}

/// Whether a pod names a secret, a config map, an account or a device claim.
fn pod_names(pod: &Value, plural: &str, name: &str) -> bool {
    let spec = &pod["spec"];
    match plural {
        "serviceaccounts" => tree::text(spec, &["serviceAccountName"]) == name,
        "resourceclaims" => {
            let named = tree::list(spec, &["resourceClaims"]).iter();
            let made = tree::list(pod, &["status", "resourceClaimStatuses"]).iter();
            named
                .chain(made)
                .any(|claim| tree::text(claim, &["resourceClaimName"]) == name)
        }
        "secrets" => {
            let pulls = tree::list(spec, &["imagePullSecrets"]).iter();
            pulls
                .map(|secret| tree::text(secret, &["name"]))
                .any(|found| found == name)
                || containers(spec).any(|container| env_names(container, ["secretKeyRef", "secretRef"], name))
                || names_in_volumes(
                    spec,
                    name,
                    &["secretName", "secretRef", "nodePublishSecretRef"],
                    "secret",
                )
        }
        "configmaps" => {
            containers(spec).any(|container| env_names(container, ["configMapKeyRef", "configMapRef"], name))
                || names_in_volumes(spec, name, &["configMap"], "configMap")
        }
        _ => false,
    }
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.into_iter().flat_map(|list| tree::list(spec, &[list]))
}

fn env_names(container: &Value, [key, whole]: [&str; 2], name: &str) -> bool {
    let one = tree::list(container, &["env"]).iter();
    let one = one.map(|env| tree::text(env, &["valueFrom", key, "name"]));
    let all = tree::list(container, &["envFrom"]).iter();
    let all = all.map(|env| tree::text(env, &[whole, "name"]));
    one.chain(all).any(|found| found == name)
}

/// Whether a volume names an object in one of these fields, also inside of a projection.
fn names_in_volumes(spec: &Value, name: &str, fields: &[&str], projected: &str) -> bool {
    let volumes = tree::list(spec, &["volumes"]).iter();
    let is_it = |value: &Value| value == name || tree::text(value, &["name"]) == name;
    volumes.into_iter().any(|volume| {
        let mut sources = tree::list(volume, &["projected", "sources"]).iter();
        let in_projection = sources.any(|source| tree::text(source, &[projected, "name"]) == name);
        let parts = volume.as_object().into_iter().flat_map(|map| map.values());
        let in_source = parts
            .filter(|part| part.is_object())
            .any(|part| fields.iter().any(|field| part.get(*field).is_some_and(is_it)));
        let is_whole = fields.iter().any(|field| volume.get(*field).is_some_and(is_it));
        in_projection || in_source || is_whole
    })
}

/// Whether a volume's source names a secret.
fn names_secret(spec: &Value, namespace: &str, name: &str) -> bool {
    let parts = spec.as_object().into_iter().flat_map(|map| map.values());
    let references = parts
        .filter_map(Value::as_object)
        .flatten()
        .filter(|(field, _)| field.ends_with("SecretRef") || *field == "secretRef");
    references.into_iter().any(|(_, reference)| {
        tree::text(reference, &["name"]) == name && tree::text(reference, &["namespace"]) == namespace
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_pod_names() {
        let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {
            "serviceAccountName": "bot",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "env"}}}, {"value": "x"}],
                "envFrom": [{"configMapRef": {"name": "all"}}]}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "init"}}]}],
            "volumes": [
                {"name": "s", "secret": {"secretName": "volume"}},
                {"name": "m", "configMap": {"name": "map"}},
                {"name": "p", "projected": {"sources": [{"secret": {"name": "part"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}},
                {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "e", "ephemeral": {"volumeClaimTemplate": {}}}]}});
        let cases = [
            ("secrets", "pull", true),
            ("secrets", "env", true),
            ("secrets", "init", true),
            ("secrets", "volume", true),
            ("secrets", "part", true),
            ("secrets", "csi", true),
            ("secrets", "map", false),
            ("configmaps", "all", true),
            ("configmaps", "map", true),
            ("configmaps", "kube-root-ca.crt", true),
            ("configmaps", "volume", false),
            ("serviceaccounts", "bot", true),
            ("serviceaccounts", "default", false),
        ];
        for (plural, name, expected) in cases {
            assert_eq!(pod_names(&pod, plural, name), expected, "{plural} {name}");
        }
        let pair = |name: &str| ("a".to_owned(), name.to_owned());
        assert_eq!(claims(&pod), [pair("data"), pair("p-e")]);
    }

    #[test]
    fn secrets_of_volumes() {
        let spec = json!({"csi": {"driver": "d", "nodeStageSecretRef": {"name": "s", "namespace": "n"}}, "capacity": {"storage": "1Gi"}});
        assert!(names_secret(&spec, "n", "s"));
        assert!(!names_secret(&spec, "m", "s"));
    }
}
