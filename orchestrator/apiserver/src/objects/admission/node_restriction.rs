//! What a node may write: itself, its lease and CSINode, the status of its pods, and mirrors of those it runs by itself. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::objects::tree;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASES: &str = "kube-node-lease";
/// Labels of these domains are not a node's business, but for the ones below.
const DOMAINS: [&str; 2] = ["kubernetes.io", "k8s.io"];
const OWN_PREFIXES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const OWN_LABELS: [&str; 14] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];

/// A write of a node.
#[derive(Clone, Copy)]
pub(super) struct Write<'a> {
    pub(super) node: &'a str,
    pub(super) group: &'a str,
    pub(super) plural: &'a str,
    pub(super) subresource: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) old: Option<&'a Value>,
    /// Absent: a deletion.
    pub(super) new: Option<&'a Value>,
}

/// Refuses what a node must not write.
pub(super) fn check(write: &Write<'_>) -> Result<(), String> {
    match (write.group, write.plural, write.subresource) {
        ("", "pods", "") => write.pod(),
        ("", "pods", "status") => write.pod_status(),
        ("", "pods", "eviction") => write.eviction(),
        ("", "nodes", _) => write.node(),
        ("", "persistentvolumeclaims", "status") => write.claim_status(),
        ("", "serviceaccounts", "token") => write.token(),
        ("coordination.k8s.io", "leases", _) => write.lease(),
        ("storage.k8s.io", "csinodes", _) if write.name != write.node => {
            Err("can only access CSINode with the same name as the requesting node".to_owned())
        }
        _ => Ok(()),
    }
}

fn runs_on(pod: &Value) -> &str {
    tree::text(pod, &["spec", "nodeName"])
}

impl Write<'_> {
    fn pod(&self) -> Result<(), String> {
        let node = self.node;
        match (self.old, self.new) {
            (None, Some(pod)) => self.mirror(pod),
            (Some(pod), None) if runs_on(pod) != node => Err(format!(
                "node {node:?} can only delete pods with spec.nodeName set to itself"
            )),
            (_, None) => Ok(()),
            (Some(_), Some(_)) => Err(format!(
                "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
            )),
        }
    }

    /// A node makes only pods that mirror those it runs by itself, and those need nothing of the cluster.
    fn mirror(&self, pod: &Value) -> Result<(), String> {
        let node = self.node;
        if tree::at(pod, &["metadata", "annotations", MIRROR]).is_none() {
            return Err(format!(
                "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
            ));
        }
        if runs_on(pod) != node {
            return Err(format!(
                "node {node:?} can only create pods with spec.nodeName set to itself"
            ));
        }
        let owners = tree::list(pod, &["metadata", "ownerReferences"]);
        if owners.len() > 1 {
            return Err(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
        if let Some(owner) = owners.first() {
            let is_node = tree::text(owner, &["apiVersion"]) == "v1"
                && tree::text(owner, &["kind"]) == "Node"
                && tree::text(owner, &["name"]) == node;
            if !is_node {
                return Err(format!(
                    "node {node:?} can only create pods with an owner reference set to itself"
                ));
            }
        }
        if !tree::text(pod, &["spec", "serviceAccountName"]).is_empty() {
            return Err(format!(
                "node {node:?} can not create pods that reference a service account"
            ));
        }
        let text = pod["spec"].to_string();
        let references = [
            ("\"secretName\":", "secrets"),
            ("\"secretRef\":", "secrets"),
            ("\"secretKeyRef\":", "secrets"),
            ("\"imagePullSecrets\":[{", "secrets"),
            ("\"configMap\":", "configmaps"),
            ("\"configMapRef\":", "configmaps"),
            ("\"configMapKeyRef\":", "configmaps"),
            ("\"persistentVolumeClaim\":", "persistentvolumeclaims"),
            ("\"resourceClaims\":[{", "resourceclaims"),
        ];
        match references.iter().find(|(field, _)| text.contains(field)) {
            None => Ok(()),
            Some((_, what)) => Err(format!("node {node:?} can not create pods that reference {what}")),
        }
    }

    fn pod_status(&self) -> Result<(), String> {
        let node = self.node;
        let (Some(old), Some(new)) = (self.old, self.new) else {
            return Ok(());
        };
        if runs_on(old) != node {
            return Err(format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            ));
        }
        if tree::at(old, &["metadata", "labels"]) != tree::at(new, &["metadata", "labels"]) {
            return Err(format!("node {node:?} cannot update labels through pod status"));
        }
        let claims = ["status", "resourceClaimStatuses"];
        if tree::list(old, &claims) != tree::list(new, &claims) {
            return Err(format!("node {node:?} cannot update resource claim statuses"));
        }
        Ok(())
    }

    fn eviction(&self) -> Result<(), String> {
        match self.old {
            Some(pod) if runs_on(pod) != self.node => Err(format!(
                "node {:?} can only evict pods with spec.nodeName set to itself",
                self.node
            )),
            _ => Ok(()),
        }
    }

    fn node(&self) -> Result<(), String> {
        let node = self.node;
        if self.name != node {
            return Err(format!(
                "node {node:?} is not allowed to modify node {:?}",
                self.name
            ));
        }
        let (old, Some(new)) = (self.old, self.new) else {
            return Ok(());
        };
        let source = ["spec", "configSource"];
        let before = old.unwrap_or(&Value::Null);
        if tree::at(new, &source).is_some() && tree::at(before, &source) != tree::at(new, &source) {
            return Err(format!(
                "node {node:?} is not allowed to update configSource to a new non-nil configSource"
            ));
        }
        let taints = |object: &Value| tree::list(object, &["spec", "taints"]).to_vec();
        if old.is_some_and(|old| taints(old) != taints(new)) {
            return Err(format!("node {node:?} is not allowed to modify taints"));
        }
        if old.is_some()
            && tree::at(before, &["metadata", "ownerReferences"])
                != tree::at(new, &["metadata", "ownerReferences"])
        {
            return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
        let labels = foreign_labels(before, new);
        if labels.is_empty() {
            return Ok(());
        }
        let labels: Vec<String> = labels.into_iter().collect();
        let verb = if old.is_some() {
            "modify"
        } else {
            "set the following"
        };
        Err(format!("is not allowed to {verb} labels: {}", labels.join(", ")))
    }

    fn claim_status(&self) -> Result<(), String> {
        let (Some(old), Some(new)) = (self.old, self.new) else {
            return Ok(());
        };
        // Capacity and the state of a growth are the node's to write.
        let bare = |claim: &Value| {
            let mut claim = claim.clone();
            for field in ["managedFields", "resourceVersion"] {
                tree::map_mut(&mut claim, &["metadata"]).remove(field);
            }
            for field in [
                "capacity",
                "conditions",
                "allocatedResources",
                "allocatedResourceStatuses",
            ] {
                tree::map_mut(&mut claim, &["status"]).remove(field);
            }
            claim
        };
        if bare(old) == bare(new) {
            return Ok(());
        }
        Err(format!(
            "node {:?} is not allowed to update fields other than status.capacity and status.conditions",
            self.node
        ))
    }

    fn token(&self) -> Result<(), String> {
        let node = self.node;
        let bound = |field: &str| {
            let request = self.new.unwrap_or(&Value::Null);
            tree::text(request, &["spec", "boundObjectRef", field]).to_owned()
        };
        if bound("kind") != "Pod" || bound("apiVersion") != "v1" || bound("name").is_empty() {
            return Err("node requested token not bound to a pod".to_owned());
        }
        if bound("uid").is_empty() {
            return Err("node requested token with a pod binding without a uid".to_owned());
        }
        // The pod is given as what was there before.
        match self.old {
            None => Err(format!("pods {:?} not found", bound("name"))),
            Some(pod) if tree::text(pod, &["metadata", "uid"]) != bound("uid") => {
                let found = tree::text(pod, &["metadata", "uid"]);
                Err(format!(
                    "the UID in the bound object reference ({}) does not match the UID in record ({found}).",
                    bound("uid")
                ))
            }
            Some(pod) if runs_on(pod) != node => {
                Err("node requested token bound to a pod scheduled on a different node".to_owned())
            }
            Some(_) => Ok(()),
        }
    }

    fn lease(&self) -> Result<(), String> {
        if self.namespace != LEASES {
            return Err(format!(
                "can only access leases in the {LEASES:?} system namespace"
            ));
        }
        if self.name != self.node {
            return Err("can only access node lease with the same name as the requesting node".to_owned());
        }
        Ok(())
    }
}

/// The changed labels that are not a node's to change.
fn foreign_labels(old: &Value, new: &Value) -> BTreeSet<String> {
    let labels = |object: &Value| {
        let found = tree::at(object, &["metadata", "labels"]).cloned();
        found.unwrap_or_else(|| json!({}))
    };
    let (before, after) = (labels(old), labels(new));
    let keys = |labels: &Value| -> Vec<String> {
        let map = labels.as_object().into_iter().flatten();
        map.map(|(key, _)| key.clone()).collect()
    };
    let all = keys(&before).into_iter().chain(keys(&after));
    all.filter(|key| before.get(key) != after.get(key) && is_foreign(key))
        .collect()
}

fn is_foreign(label: &str) -> bool {
    let is_below = |domain: &str, root: &str| {
        domain == root || domain.strip_suffix(root).is_some_and(|rest| rest.ends_with('.'))
    };
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    if is_below(domain, "node-restriction.kubernetes.io") {
        return true;
    }
    let is_guarded = DOMAINS.iter().any(|root| is_below(domain, root));
    let is_own = OWN_LABELS.contains(&label) || OWN_PREFIXES.iter().any(|own| is_below(domain, own));
    is_guarded && !is_own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write<'a>(
        path: (&'a str, &'a str, &'a str),
        name: &'a str,
        old: Option<&'a Value>,
        new: Option<&'a Value>,
    ) -> Write<'a> {
        let (group, plural, subresource) = path;
        let namespace = if plural == "leases" { LEASES } else { "default" };
        Write {
            node: "n",
            group,
            plural,
            subresource,
            namespace,
            name,
            old,
            new,
        }
    }

    #[test]
    fn pods() {
        let pod = |node: &str, more: Value| {
            let mut pod = json!({"metadata": {"name": "p", "uid": "u", "annotations": {MIRROR: "x"}}, "spec": {"nodeName": node}});
            for (name, value) in more.as_object().unwrap() {
                pod["spec"][name] = value.clone();
            }
            pod
        };
        let (own, other) = (pod("n", json!({})), pod("m", json!({})));
        let mut plain = own.clone();
        plain["metadata"]["annotations"] = json!({});
        let account = pod("n", json!({"serviceAccountName": "default"}));
        let secret = pod("n", json!({"volumes": [{"secret": {"secretName": "s"}}]}));
        let mut labelled = own.clone();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        let (main, status, eviction) = (("", "pods", ""), ("", "pods", "status"), ("", "pods", "eviction"));
        let cases = [
            ("a mirror", write(main, "p", None, Some(&own)), ""),
            (
                "no mirror",
                write(main, "p", None, Some(&plain)),
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n\" can only create mirror pods",
            ),
            (
                "elsewhere",
                write(main, "p", None, Some(&other)),
                "node \"n\" can only create pods with spec.nodeName set to itself",
            ),
            (
                "with an account",
                write(main, "p", None, Some(&account)),
                "node \"n\" can not create pods that reference a service account",
            ),
            (
                "with a secret",
                write(main, "p", None, Some(&secret)),
                "node \"n\" can not create pods that reference secrets",
            ),
            ("deletes its own", write(main, "p", Some(&own), None), ""),
            (
                "deletes another's",
                write(main, "p", Some(&other), None),
                "node \"n\" can only delete pods with spec.nodeName set to itself",
            ),
            ("status", write(status, "p", Some(&own), Some(&own)), ""),
            (
                "status of another's",
                write(status, "p", Some(&other), Some(&other)),
                "node \"n\" can only update pod status for pods with spec.nodeName set to itself",
            ),
            (
                "labels by status",
                write(status, "p", Some(&own), Some(&labelled)),
                "node \"n\" cannot update labels through pod status",
            ),
            (
                "evicts another's",
                write(eviction, "p", Some(&other), Some(&other)),
                "node \"n\" can only evict pods with spec.nodeName set to itself",
            ),
        ];
        for (case, write, expected) in cases {
            assert_eq!(check(&write).err().unwrap_or_default(), expected, "{case}");
        }
    }

    #[test]
    fn itself() {
        let node = |labels: Value, taints: Value| json!({"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}});
        let old = node(json!({"kubernetes.io/hostname": "n"}), json!([]));
        let labels = node(
            json!({"kubernetes.io/hostname": "m", "own": "x", "node.kubernetes.io/x": "y"}),
            json!([]),
        );
        let role = node(
            json!({"node-role.kubernetes.io/control-plane": "", "kubernetes.io/hostname": "n"}),
            json!([]),
        );
        let restricted = node(
            json!({"x.node-restriction.kubernetes.io/a": "", "kubernetes.io/hostname": "n"}),
            json!([]),
        );
        let taints = node(json!({"kubernetes.io/hostname": "n"}), json!([{"key": "x"}]));
        let (main, lease) = (("", "nodes", ""), ("coordination.k8s.io", "leases", ""));
        let cases = [
            ("own labels", write(main, "n", Some(&old), Some(&labels)), ""),
            (
                "another node",
                write(main, "m", Some(&old), Some(&old)),
                "node \"n\" is not allowed to modify node \"m\"",
            ),
            (
                "a role",
                write(main, "n", Some(&old), Some(&role)),
                "is not allowed to modify labels: node-role.kubernetes.io/control-plane",
            ),
            (
                "a restriction",
                write(main, "n", Some(&old), Some(&restricted)),
                "is not allowed to modify labels: x.node-restriction.kubernetes.io/a",
            ),
            (
                "taints",
                write(main, "n", Some(&old), Some(&taints)),
                "node \"n\" is not allowed to modify taints",
            ),
            ("taints at first", write(main, "n", None, Some(&taints)), ""),
            ("its lease", write(lease, "n", None, Some(&old)), ""),
            (
                "another's lease",
                write(lease, "m", None, Some(&old)),
                "can only access node lease with the same name as the requesting node",
            ),
        ];
        for (case, write, expected) in cases {
            assert_eq!(check(&write).err().unwrap_or_default(), expected, "{case}");
        }
    }

    #[test]
    fn tokens() {
        let request = |kind: &str, uid: &str| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": "p", "uid": uid}}});
        let pod = |node: &str| json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"nodeName": node}});
        let (own, other) = (pod("n"), pod("m"));
        let (good, secret, stale) = (request("Pod", "u"), request("Secret", "u"), request("Pod", "v"));
        let token = ("", "serviceaccounts", "token");
        let cases = [
            ("for its pod", write(token, "a", Some(&own), Some(&good)), true),
            (
                "for another's",
                write(token, "a", Some(&other), Some(&good)),
                false,
            ),
            ("for no pod", write(token, "a", Some(&own), Some(&secret)), false),
            (
                "for a pod before",
                write(token, "a", Some(&own), Some(&stale)),
                false,
            ),
            ("pod is gone", write(token, "a", None, Some(&good)), false),
        ];
        for (case, write, expected) in cases {
            assert_eq!(check(&write).is_ok(), expected, "{case}");
        }
    }
}
