//! What the built-in admission plugins do, in upstream's order. The rules are pure functions in the files below;
//! here they get what they need from the caches.

mod claim;
mod in_namespace;
mod limits;
mod node_restriction;
mod pod;
mod pod_security;
pub(crate) mod priority;
mod role;
mod runtime_class;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Call, tree};
use crate::api::Api;
use crate::auth::User;
use crate::auth::rbac::Attributes;
use crate::cache::{Collection, Entry};
use crate::http::failure::About;
use crate::http::{Cause, Failure};
use crate::loops::node_taints;

/// How long a pod may wait for the `default` ServiceAccount of a namespace that was just made.
const SERVICE_ACCOUNT_WAIT_MAX: Duration = Duration::from_secs(2);

const CERTIFICATES: &str = "certificates.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const SCHEDULING: &str = "scheduling.k8s.io";
const PRIORITIES: &str = "priorityclasses";

/// Namespaces that stay.
pub(crate) const PERMANENT_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Admits a new object, and completes it.
pub(crate) async fn create(call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
    let facts = call.resource.facts;
    let name = tree::text(object, &["metadata", "name"]).to_owned();
    if call
        .resource
        .custom
        .as_ref()
        .is_some_and(|custom| custom.is_terminating)
    {
        return Err(Failure::terminating_definition());
    }
    if let Some(namespace) = call.namespace.filter(|_| facts.namespaced) {
        check_namespace(call, namespace, &name)?;
    }
    let refuse = |why: String| Failure::forbidden(call.resource.about(&name), &why);
    restrict_node(call, &name, None, Some(object))?;
    match (facts.group, facts.plural) {
        ("", "pods") => complete_pod(call, object).await.map_err(refuse),
        ("", "nodes") => {
            taint_new_node(object);
            Ok(())
        }
        ("", "persistentvolumeclaims") => {
            if claim::names_no_class(object) {
                let classes = objects_of(call.api, "storage.k8s.io", "storageclasses");
                claim::set_default_class(object, &classes);
            }
            claim::protect(object, claim::CLAIM_PROTECTION);
            Ok(())
        }
        ("", "persistentvolumes") => {
            claim::protect(object, claim::VOLUME_PROTECTION);
            Ok(())
        }
        (SCHEDULING, PRIORITIES) => {
            let others = objects_of(call.api, SCHEDULING, PRIORITIES);
            priority::check(object, &others).map_err(refuse)
        }
        (CERTIFICATES, _) => {
            name_requester(object, call.user);
            Ok(())
        }
        (RBAC, _) => check_role(call, None, object),
        _ => Ok(()),
    }
}

/// What all admission plugins check once an object is finished; what it was before is absent for new ones.
pub(crate) fn check(call: &Call<'_>, old: Option<&Value>, new: &Value) -> Result<(), Failure> {
    if call.subresource.is_some() || call.resource.custom.is_some() {
        return Ok(());
    }
    in_namespace::check_limits(call, old, new)?;
    in_namespace::check_security(call, old, new)
}

/// Completes an object again that a webhook has changed since.
pub(crate) async fn complete_again(call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
    let facts = call.resource.facts;
    if (facts.group, facts.plural) != ("", "pods") {
        return Ok(());
    }
    let outcome = complete_pod(call, object).await;
    outcome.map_err(|why| {
        let name = tree::text(object, &["metadata", "name"]);
        Failure::forbidden(call.resource.about(name), &why)
    })
}

async fn complete_pod(call: &Call<'_>, pod: &mut Value) -> Result<(), String> {
    limits::set_defaults(pod, &in_namespace::limit_ranges(call));
    if pod::is_mirror(pod) {
        if !tree::text(pod, &["spec", "serviceAccountName"]).is_empty() {
            return Err("a mirror pod may not reference service accounts".to_owned());
        }
    } else {
        let account = service_account(call, pod).await?;
        pod::set_account(pod, &account, rand::random());
    }
    let classes = objects_of(call.api, SCHEDULING, PRIORITIES);
    pod::complete(pod, &classes)?;
    let class = match tree::text(pod, &["spec", "runtimeClassName"]) {
        "" => None,
        name => collection(call.api, "node.k8s.io", "runtimeclasses").and_then(|classes| classes.get(name)),
    };
    runtime_class::apply(pod, class.map(|class| class.value()).as_ref())
}

/// A new node takes no pods until its state is known.
fn taint_new_node(node: &mut Value) {
    let mut taints = tree::list(node, &["spec", "taints"]).to_vec();
    if !taints.iter().any(node_taints::is_not_ready) {
        taints.push(node_taints::first_taint());
        tree::map_mut(node, &["spec"]).insert("taints".to_owned(), taints.into());
    }
}

/// A node writes only what is its own.
fn restrict_node(
    call: &Call<'_>,
    name: &str,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Result<(), Failure> {
    let Some(node) = crate::auth::node::name(call.user) else {
        return Ok(());
    };
    let facts = call.resource.facts;
    let write = node_restriction::Write {
        node,
        group: facts.group,
        plural: facts.plural,
        subresource: call.subresource.map_or("", |sub| sub.name),
        namespace: call.namespace.unwrap_or_default(),
        name,
        old,
        new,
    };
    node_restriction::check(&write).map_err(|why| Failure::forbidden(call.resource.about(name), &why))
}

/// Admits an eviction of a pod.
pub(crate) fn evict(call: &Call<'_>, pod: &Value) -> Result<(), Failure> {
    restrict_node(call, call.name.unwrap_or_default(), Some(pod), Some(pod))
}

/// Admits a request for a token: nodes ask for those of their pods alone.
pub(crate) fn token(call: &Call<'_>, request: &Value) -> Result<(), Failure> {
    let bound = tree::text(request, &["spec", "boundObjectRef", "name"]);
    let path = format!("{}/{bound}", call.namespace.unwrap_or_default());
    let pod = || collection(call.api, "", "pods")?.get(&path);
    let pod = crate::auth::node::name(call.user).and_then(|_| pod());
    let pod = pod.map(|entry| entry.value());
    restrict_node(call, call.name.unwrap_or_default(), pod.as_ref(), Some(request))
}

/// Whoever asks for a certificate can't say that it is somebody else who does.
fn name_requester(request: &mut Value, user: &User) {
    let spec = tree::map_mut(request, &["spec"]);
    spec.insert("username".to_owned(), user.name.as_str().into());
    let known = [
        ("uid", Some(json!(user.uid)).filter(|_| !user.uid.is_empty())),
        ("groups", Some(json!(user.groups))),
        (
            "extra",
            Some(json!(user.extra)).filter(|_| !user.extra.is_empty()),
        ),
    ];
    for (field, value) in known {
        tree::set(spec, field, value);
    }
}

/// Who decides on a certificate, or issues it, must be allowed to for its signer.
fn check_signer(call: &Call<'_>, verb: &str, old: &Value, new: &Value) -> Result<(), Failure> {
    if tree::at(old, &["status"]) == tree::at(new, &["status"]) {
        return Ok(());
    }
    let signer = tree::text(old, &["spec", "signerName"]);
    let domain = signer.split('/').next().unwrap_or_default();
    let all = format!("{domain}/*");
    let allows = |name: &str| {
        let attributes = Attributes {
            verb,
            group: CERTIFICATES,
            resource: "signers",
            name,
            ..Attributes::default()
        };
        call.api.authorizer.allows(call.user, &attributes)
    };
    if allows(signer) || allows(&all) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    let name = call.name.unwrap_or_default();
    Err(Failure::forbidden(call.resource.about(name), &why))
}

/// Admits a change.
pub(crate) fn update(call: &Call<'_>, old: &Value, new: &Value) -> Result<(), Failure> {
    let facts = call.resource.facts;
    let name = call.name.unwrap_or_default();
    restrict_node(call, name, Some(old), Some(new))?;
    if facts.group == RBAC {
        return check_role(call, Some(old), new);
    }
    match (facts.group, call.subresource.map(|sub| sub.name)) {
        (CERTIFICATES, Some("approval")) => return check_signer(call, "approve", old, new),
        (CERTIFICATES, Some("status")) => return check_signer(call, "sign", old, new),
        (SCHEDULING, _) => {
            let others = objects_of(call.api, SCHEDULING, PRIORITIES);
            let outcome = priority::check(new, &others);
            return outcome.map_err(|why| Failure::forbidden(call.resource.about(name), &why));
        }
        _ => {}
    }
    if (facts.group, facts.plural) != ("", "persistentvolumeclaims") || call.subresource.is_some() {
        return Ok(());
    }
    let class_allows = || {
        let class = tree::text(new, &["spec", "storageClassName"]);
        let classes = collection(call.api, "storage.k8s.io", "storageclasses");
        let class = classes.and_then(|classes| classes.get(class));
        class.is_some_and(|class| class.value()["allowVolumeExpansion"] == Value::Bool(true))
    };
    claim::check_growth(old, new, class_allows)
        .map_err(|why| Failure::forbidden(call.resource.about(name), why))
}

/// Nobody gives rights that they do not have.
fn check_role(call: &Call<'_>, old: Option<&Value>, new: &Value) -> Result<(), Failure> {
    if call.user.is_master() {
        return Ok(());
    }
    let (user, plural) = (call.user, call.resource.facts.plural);
    let outcome = call.api.authorizer.with_policy(|policy| {
        role::check(&role::Write {
            policy,
            user,
            plural,
            old,
            new,
        })
    });
    outcome.map_err(|refusal| match refusal {
        role::Refusal::Forbidden(why) => {
            let name = tree::text(new, &["metadata", "name"]);
            Failure::forbidden(call.resource.about(name), &why)
        }
        role::Refusal::NoRole(plural, name) => Failure::not_found(About {
            group: RBAC,
            resource: plural,
            name: &name,
        }),
    })
}

/// Admits a deletion.
pub(crate) fn delete(call: &Call<'_>, name: &str) -> Result<(), Failure> {
    if crate::auth::node::name(call.user).is_some() {
        let entry = call.collection()?.get(&call.path_of(name));
        let old = entry.map(|entry| entry.value()).unwrap_or_default();
        restrict_node(call, name, Some(&old), None)?;
    }
    let is_namespace = call.resource.facts.plural == "namespaces" && call.resource.facts.group.is_empty();
    if is_namespace && PERMANENT_NAMESPACES.contains(&name) {
        return Err(Failure::forbidden(
            call.resource.about(name),
            "this namespace may not be deleted",
        ));
    }
    let is_class = call.resource.facts.group == SCHEDULING;
    if is_class && priority::SYSTEM_CLASSES.iter().any(|(system, _)| *system == name) {
        return Err(Failure::forbidden(
            call.resource.about(name),
            "this is a system priority class and cannot be deleted",
        ));
    }
    Ok(())
}

/// Nothing is created in a namespace that is missing or on its way out.
fn check_namespace(call: &Call<'_>, namespace: &str, name: &str) -> Result<(), Failure> {
    let found = collection(call.api, "", "namespaces").and_then(|namespaces| namespaces.get(namespace));
    let Some(found) = found else {
        let about = About {
            group: "",
            resource: "namespaces",
            name: namespace,
        };
        return Err(Failure::not_found(about));
    };
    if !found.facts.is_deleting {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let cause = Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".to_owned(),
    };
    Err(Failure::forbidden(call.resource.about(name), &why).with_causes(vec![cause]))
}

/// The pod's ServiceAccount. One that the server makes by itself is waited for.
async fn service_account(call: &Call<'_>, pod: &Value) -> Result<Value, String> {
    let name = match tree::text(pod, &["spec", "serviceAccountName"]) {
        "" => "default",
        name => name,
    };
    let namespace = call.namespace.unwrap_or_default();
    let path = format!("{namespace}/{name}");
    let missing = || format!("error looking up service account {path}: serviceaccount {name:?} not found");
    let accounts = collection(call.api, "", "serviceaccounts").ok_or_else(missing)?;
    let found = if name == "default" {
        wait_for(&accounts, &path).await
    } else {
        accounts.get(&path)
    };
    found.map(|entry| entry.value()).ok_or_else(missing)
}

async fn wait_for(collection: &Arc<Collection>, path: &str) -> Option<Arc<Entry>> {
    let mut changed = collection.subscribe();
    let wait = async {
        loop {
            changed.borrow_and_update();
            if let Some(found) = collection.get(path) {
                return Some(found);
            }
            changed.changed().await.ok()?;
        }
    };
    tokio::time::timeout(SERVICE_ACCOUNT_WAIT_MAX, wait)
        .await
        .ok()
        .flatten()
}

fn collection(api: &Api, group: &str, plural: &str) -> Option<Arc<Collection>> {
    api.registry
        .resource(group, "v1", plural)
        .and_then(|facts| api.caches.collection(facts))
}

fn objects_of(api: &Api, group: &str, plural: &str) -> Vec<Value> {
    let found = collection(api, group, plural).map(|collection| collection.snapshot("", || 0).entries);
    found
        .unwrap_or_default()
        .iter()
        .map(|entry| entry.value())
        .collect()
}
