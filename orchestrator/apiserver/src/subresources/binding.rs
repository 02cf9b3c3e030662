//! `pods/binding`: the scheduler's word on which node a pod runs.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::hooks::{self, Operation};
use crate::http::failure::About;
use crate::http::{Answer, Failure, body};
use crate::objects::owners::Owners;
use crate::objects::update::Proposal;
use crate::objects::{Call, Resource, decode, metadata, tree, update};

/// `POST` of a binding.
pub(super) async fn create(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let name = call.name()?;
    let mut binding = decode::object(call, body)?.value;
    hooks::admit_part(call, Operation::Create, None, &mut binding).await?;
    bind(call, name, &binding).await?;
    Ok(self::body::json(
        StatusCode::CREATED,
        &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 }),
    ))
}

/// `POST` to the collection of bindings: the pod is the one of the binding's name.
pub(super) async fn create_named(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let stated = decode::object(call, body)?.value;
    let pods = call.api.registry.resource("", "v1", "pods");
    let pods = pods.ok_or_else(Failure::no_such_path)?;
    let of_pod = Call {
        resource: Resource::of(call.api, pods),
        subresource: pods.subresource("binding"),
        name: Some(tree::text(&stated, &["metadata", "name"])),
        ..*call
    };
    create(&of_pod, body).await
}

async fn bind(call: &Call<'_>, name: &str, binding: &Value) -> Result<(), Failure> {
    let kind = tree::text(binding, &["target", "kind"]);
    let node = tree::text(binding, &["target", "name"]);
    if !matches!(kind, "" | "Node") || node.is_empty() {
        return Err(Failure::bad_request("a pod is bound to a node, by name"));
    }
    let uid = tree::text(binding, &["metadata", "uid"]);
    let now = Timestamp::now();
    let changed = update::change(call, name, |seen| {
        let pod = seen.object;
        let about = About {
            group: "",
            resource: "pods/binding",
            name,
        };
        let value = bound(pod, binding, node, now).map_err(|why| Failure::conflict(about, &why))?;
        if !uid.is_empty() && uid != tree::text(pod, &["metadata", "uid"]) {
            return Err(Failure::conflict(
                about,
                "the pod is another one of the same name",
            ));
        }
        Ok(Proposal {
            value,
            owners: Owners::Kept,
            warnings: Vec::new(),
        })
    });
    changed.await.map(drop)
}

/// The pod on its node; refused if it has one or is on its way out.
fn bound(pod: &Value, binding: &Value, node: &str, now: Timestamp) -> Result<Value, String> {
    let name = tree::text(pod, &["metadata", "name"]);
    if metadata::is_deleting(pod) {
        return Err(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let current = tree::text(pod, &["spec", "nodeName"]);
    if !current.is_empty() {
        return Err(format!("pod {name} is already assigned to node {current:?}"));
    }
    if !tree::list(pod, &["spec", "schedulingGates"]).is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut bound = pod.clone();
    tree::map_mut(&mut bound, &["metadata"]).remove("resourceVersion");
    tree::map_mut(&mut bound, &["spec"]).insert("nodeName".to_owned(), node.into());
    for kind in ["annotations", "labels"] {
        if let Some(Value::Object(added)) = tree::at(binding, &["metadata", kind]).cloned() {
            tree::map_mut(&mut bound, &["metadata", kind]).extend(added);
        }
    }
    let mut conditions = tree::list(pod, &["status", "conditions"]).to_vec();
    conditions.retain(|condition| tree::text(condition, &["type"]) != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": tree::time(now),
        "observedGeneration": pod["metadata"]["generation"],
    }));
    tree::map_mut(&mut bound, &["status"]).insert("conditions".to_owned(), conditions.into());
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let now = Timestamp::UNIX_EPOCH;
        let cases = [
            ("free", json!({"metadata": {"name": "p"}, "spec": {}}), true),
            (
                "bound",
                json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}}),
                false,
            ),
            (
                "deleting",
                json!({"metadata": {"name": "p", "deletionTimestamp": "t"}, "spec": {}}),
                false,
            ),
            (
                "gated",
                json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}}),
                false,
            ),
        ];
        for (case, pod, expected) in cases {
            let outcome = bound(&pod, &json!({"metadata": {"annotations": {"a": "b"}}}), "n2", now);
            assert_eq!(outcome.is_ok(), expected, "{case}");
            if let Ok(pod) = outcome {
                assert_eq!(pod["spec"]["nodeName"], "n2");
                assert_eq!(pod["metadata"]["annotations"]["a"], "b");
                assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
            }
        }
    }
}
