//! What an object uses of the quotas of its namespace, and whether it still fits. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use moorline_schema::quantity::Quantity;
use serde_json::Value;

use crate::objects::pod_resources::{self, Amounts, Side, amounts, zero};
use crate::objects::tree;

const COUNT: &str = "count/";
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Kinds that a quota counts under their plain name, too.
const PLAIN: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// Of these every container has to say what it needs once a quota counts them.
const STATED: [&str; 6] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];

/// A kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind<'k> {
    pub(crate) group: &'k str,
    pub(crate) plural: &'k str,
}

impl Kind<'_> {
    fn is_core(&self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// `count/deployments.apps`.
    fn count_name(&self) -> String {
        match self.group {
            "" => format!("{COUNT}{}", self.plural),
            group => format!("{COUNT}{}.{group}", self.plural),
        }
    }

    /// Whether a name in a quota is about objects of this kind.
    pub(crate) fn is_counted_by(&self, name: &str) -> bool {
        if name == self.count_name()
            || (self.group.is_empty() && name == self.plural && PLAIN.contains(&name))
        {
            return true;
        }
        match (self.group, self.plural) {
            ("", "pods") => is_of_pods(name),
            ("", "services") => matches!(name, "services.loadbalancers" | "services.nodeports"),
            ("", "persistentvolumeclaims") => {
                name == "requests.storage"
                    || name.split_once(OF_CLASS).is_some_and(|(_, rest)| {
                        matches!(rest, "requests.storage" | "persistentvolumeclaims")
                    })
            }
            _ => false,
        }
    }

    /// Whether all that a name counts is how many objects there are.
    pub(crate) fn is_mere_count(&self, name: &str) -> bool {
        name == self.count_name() || (name == self.plural && !self.is_core("pods"))
    }
}

fn is_of_pods(name: &str) -> bool {
    let is_known = matches!(
        name,
        "cpu"
            | "memory"
            | "ephemeral-storage"
            | "requests.cpu"
            | "requests.memory"
            | "requests.ephemeral-storage"
            | "limits.cpu"
            | "limits.memory"
            | "limits.ephemeral-storage"
    );
    let rest = name.strip_prefix("requests.").unwrap_or(name);
    is_known || rest.starts_with("hugepages-") || (name.starts_with("requests.") && is_extended(rest))
}

/// Resources that somebody else than Kubernetes defined.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// All that an object uses, by every name that a quota could have for it.
pub(crate) fn usage(kind: Kind<'_>, object: &Value, now: Timestamp) -> Amounts {
    let mut used = Amounts::new();
    used.insert(kind.count_name(), number(1));
    let is_pod = kind.is_core("pods");
    if kind.group.is_empty() && PLAIN.contains(&kind.plural) && !is_pod {
        used.insert(kind.plural.to_owned(), number(1));
    }
    match (kind.group, kind.plural) {
        ("", "pods") if !has_ended(object, now) => {
            used.insert("pods".to_owned(), number(1));
            let requests = pod_resources::total(object, Side::Requests);
            let limits = pod_resources::total(object, Side::Limits);
            used.extend(compute(&requests, &limits));
        }
        ("", "services") => of_service(object, &mut used),
        ("", "persistentvolumeclaims") => of_claim(object, &mut used),
        _ => {}
    }
    used
}

fn number(count: usize) -> Quantity {
    Quantity::parse(&count.to_string()).unwrap_or_else(|_| zero())
}

/// What quotas call what a pod or a container asks for.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        let is_basic =
            matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if is_basic {
            used.insert(name.clone(), *amount);
        }
        if is_basic || is_extended(name) {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    used
}

/// Whether a pod needs nothing any more: it has ended, or its node had all the time it was given to end it.
fn has_ended(pod: &Value, now: Timestamp) -> bool {
    if matches!(tree::text(pod, &["status", "phase"]), "Failed" | "Succeeded") {
        return true;
    }
    let deleted = tree::text(pod, &["metadata", "deletionTimestamp"]).parse::<Timestamp>();
    let grace = tree::at(pod, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    match (deleted, grace) {
        (Ok(deleted), Some(grace)) => deleted + SignedDuration::from_secs(grace.clamp(0, 1 << 31)) < now,
        _ => false,
    }
}

fn of_service(service: &Value, used: &mut Amounts) {
    let ports = tree::list(service, &["spec", "ports"]);
    let kind = tree::text(service, &["spec", "type"]);
    let has_none = tree::at(service, &["spec", "allocateLoadBalancerNodePorts"]) == Some(&Value::Bool(false));
    let given = || {
        ports
            .iter()
            .filter(|port| tree::at(port, &["nodePort"]).is_some())
            .count()
    };
    let node_ports = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer" if has_none => given(),
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    let balancers = usize::from(kind == "LoadBalancer");
    used.insert("services.nodeports".to_owned(), number(node_ports));
    used.insert("services.loadbalancers".to_owned(), number(balancers));
}

fn of_claim(claim: &Value, used: &mut Amounts) {
    let class = tree::text(claim, &["spec", "storageClassName"]);
    let annotated = tree::text(
        claim,
        &[
            "metadata",
            "annotations",
            "volume.beta.kubernetes.io/storage-class",
        ],
    );
    let class = if annotated.is_empty() { class } else { annotated };
    let of_class = |name: &str| format!("{class}{OF_CLASS}{name}");
    if !class.is_empty() {
        used.insert(of_class("persistentvolumeclaims"), number(1));
    }
    let storage = |path: &[&str]| amounts(tree::at(claim, path)).get("storage").copied();
    let asked = storage(&["spec", "resources", "requests"]);
    // While a growth is being taken back, the larger size still counts.
    let allocated = storage(&["status", "allocatedResources"]);
    if let Some(size) = asked.max(allocated) {
        used.insert("requests.storage".to_owned(), size);
        if !class.is_empty() {
            used.insert(of_class("requests.storage"), size);
        }
    }
}

/// Whether a quota with scopes is about an object.
pub(crate) fn is_in_scope(quota: &Value, kind: Kind<'_>, object: &Value) -> bool {
    let plain = tree::list(quota, &["spec", "scopes"]).iter();
    let plain = plain.map(|name| (name.as_str().unwrap_or_default(), "Exists", &[][..]));
    let selected = tree::list(quota, &["spec", "scopeSelector", "matchExpressions"]).iter();
    let selected = selected.map(|one| {
        let values = tree::list(one, &["values"]);
        (
            tree::text(one, &["scopeName"]),
            tree::text(one, &["operator"]),
            values,
        )
    });
    plain
        .chain(selected)
        .all(|(scope, operator, values)| match (kind.group, kind.plural) {
            ("", "pods") => pod_is_in(object, scope, operator, values),
            ("", "persistentvolumeclaims") if scope == "VolumeAttributesClass" => {
                let class = tree::text(object, &["spec", "volumeAttributesClassName"]);
                selects(class, operator, values)
            }
            _ => false,
        })
}

/// Whether a quota has scopes.
pub(crate) fn has_scopes(quota: &Value) -> bool {
    let path: [&[&str]; 2] = [
        &["spec", "scopes"],
        &["spec", "scopeSelector", "matchExpressions"],
    ];
    path.iter().any(|path| !tree::list(quota, path).is_empty())
}

fn selects(value: &str, operator: &str, values: &[Value]) -> bool {
    let is_among = || values.iter().any(|one| one == value);
    match operator {
        "Exists" => !value.is_empty(),
        "DoesNotExist" => value.is_empty(),
        "In" => is_among(),
        "NotIn" => !is_among(),
        _ => false,
    }
}

fn pod_is_in(pod: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let is_limited = tree::at(pod, &["spec", "activeDeadlineSeconds"])
        .and_then(Value::as_i64)
        .is_some_and(|seconds| seconds >= 0);
    let is_best_effort = || {
        let total = |side| pod_resources::total(pod, side);
        let counts = |amounts: &Amounts| {
            let mut basic = amounts
                .iter()
                .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
            basic.any(|(_, amount)| amount.signum() > 0)
        };
        !counts(&total(Side::Requests)) && !counts(&total(Side::Limits))
    };
    match scope {
        "Terminating" => is_limited,
        "NotTerminating" => !is_limited,
        "BestEffort" => is_best_effort(),
        "NotBestEffort" => !is_best_effort(),
        "PriorityClass" => selects(tree::text(pod, &["spec", "priorityClassName"]), operator, values),
        "CrossNamespacePodAffinity" => looks_elsewhere(pod),
        _ => false,
    }
}

/// Whether a pod wants to be near to, or away from, pods of other namespaces.
fn looks_elsewhere(pod: &Value) -> bool {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let is_elsewhere = |term: &Value| {
        !tree::list(term, &["namespaces"]).is_empty() || tree::at(term, &["namespaceSelector"]).is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let list = |name: &str| tree::list(pod, &["spec", "affinity", kind, name]).iter();
        list(REQUIRED).any(is_elsewhere)
            || list(PREFERRED).any(|one| tree::at(one, &["podAffinityTerm"]).is_some_and(is_elsewhere))
    })
}

/// An object that is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Write<'w> {
    pub(crate) kind: Kind<'w>,
    /// Absent: it is created.
    pub(crate) old: Option<&'w Value>,
    pub(crate) new: &'w Value,
    pub(crate) now: Timestamp,
}

/// What of a quota is used after a write, given what is used before it; nothing if the write does not change that.
pub(crate) fn charge(quota: &Value, used: &Amounts, write: &Write<'_>) -> Result<Option<Amounts>, String> {
    let Write { kind, new, .. } = *write;
    let hard = amounts(tree::at(quota, &["spec", "hard"]));
    let mut names = hard.keys().filter(|name| kind.is_counted_by(name)).peekable();
    if names.peek().is_none() || !is_in_scope(quota, kind, new) {
        return Ok(None);
    }
    let name = tree::text(quota, &["metadata", "name"]);
    if kind.is_core("pods") && write.old.is_none() {
        let stated: BTreeSet<&str> = hard
            .keys()
            .map(String::as_str)
            .filter(|name| STATED.contains(name))
            .collect();
        all_is_stated(new, &stated).map_err(|why| format!("failed quota: {name}: {why}"))?;
    }
    let mut delta = usage(kind, new, write.now);
    if let Some(old) = write.old.filter(|old| is_in_scope(quota, kind, old)) {
        let before = usage(kind, old, write.now);
        for (name, amount) in &mut delta {
            *amount = amount.minus(before.get(name).unwrap_or(&zero()));
        }
    }
    delta.retain(|name, amount| amount.signum() > 0 && hard.contains_key(name));
    if delta.is_empty() {
        return Ok(None);
    }
    let mut after = used.clone();
    pod_resources::add(&mut after, &delta);
    let exceeded: Vec<&String> = delta.keys().filter(|name| after[*name] > hard[*name]).collect();
    if exceeded.is_empty() {
        return Ok(Some(after));
    }
    Err(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        describe(&delta, &exceeded),
        describe(used, &exceeded),
        describe(&hard, &exceeded)
    ))
}

fn describe(amounts: &Amounts, names: &[&String]) -> String {
    let told = names.iter().map(|name| {
        let amount = amounts.get(*name).copied().unwrap_or_else(zero);
        format!("{name}={amount}")
    });
    told.collect::<Vec<String>>().join(",")
}

/// Every container says how much it needs of what is counted.
fn all_is_stated(pod: &Value, stated: &BTreeSet<&str>) -> Result<(), String> {
    let of_pod = |side: &str| amounts(tree::at(pod, &["spec", "resources", side]));
    let for_all = compute(&of_pod("requests"), &of_pod("limits"));
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in ["containers", "initContainers"]
        .iter()
        .flat_map(|list| tree::list(pod, &["spec", list]))
    {
        let side = |side: &str| amounts(tree::at(container, &["resources", side]));
        let has = compute(&side("requests"), &side("limits"));
        for name in stated
            .iter()
            .filter(|name| !has.contains_key(**name) && !for_all.contains_key(**name))
        {
            missing
                .entry(name)
                .or_default()
                .insert(tree::text(container, &["name"]));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let told = missing.iter().map(|(name, containers)| {
        let containers: Vec<&str> = containers.iter().copied().collect();
        format!("{name} for: {}", containers.join(","))
    });
    Err(format!(
        "must specify {}",
        told.collect::<Vec<String>>().join("; ")
    ))
}

#[cfg(test)]
mod tests;
