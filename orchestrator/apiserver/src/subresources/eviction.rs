//! `pods/eviction`: a delete that a disruption budget may refuse.
//!
//! How many disruptions a budget allows is said in its status by whoever counts the healthy pods. Nobody in Moorline
//! does, so that a budget refuses all evictions until a controller has looked at it, as upstream's server does.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use moorline_schema::selector::LabelSelector;
use serde_json::{Value, json};

use crate::cache::Entry;
use crate::hooks::{self, Operation};
use crate::http::{Answer, Cause, Failure, body};
use crate::objects::owners::Owners;
use crate::objects::update::{self, Proposal};
use crate::objects::{Call, Resource, admission, decode, delete, metadata, tree};

/// What is to be done about an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    /// No budget is touched by it.
    Evict,
    /// The budget of this name allows it, and has one less to give then.
    Spend { budget: String },
    /// The budget doesn't allow it now.
    Refuse { why: String },
    /// Nobody can say which of several budgets counts.
    Ambiguous,
}

fn count(object: &Value, path: &[&str]) -> i64 {
    tree::at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// `budgets` are all of the pod's namespace.
fn decide(pod: &Value, budgets: &[Value]) -> Next {
    let phase = tree::text(pod, &["status", "phase"]);
    if matches!(phase, "Succeeded" | "Failed" | "Pending") || metadata::is_deleting(pod) {
        return Next::Evict;
    }
    let labels = tree::at(pod, &["metadata", "labels"]).and_then(Value::as_object);
    let mut own = budgets.iter().filter(|budget| {
        let selector = tree::at(budget, &["spec", "selector"]);
        selector.is_some_and(|selector| LabelSelector::from_object(selector).matches(labels))
    });
    match (own.next(), own.next()) {
        (None, _) => Next::Evict,
        (Some(_), Some(_)) => Next::Ambiguous,
        (Some(budget), None) => by_budget(pod, budget),
    }
}

fn by_budget(pod: &Value, budget: &Value) -> Next {
    let name = tree::text(budget, &["metadata", "name"]);
    let status = |field: &str| count(budget, &["status", field]);
    if status("observedGeneration") < count(budget, &["metadata", "generation"]) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Next::Refuse { why };
    }
    let (healthy, needed) = (status("currentHealthy"), status("desiredHealthy"));
    if !is_ready(pod) {
        // A pod that does no work is no loss, as long as enough others do.
        let always = tree::text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
        if always || (healthy >= needed && needed > 0) {
            return Next::Evict;
        }
    }
    if status("disruptionsAllowed") > 0 {
        return Next::Spend {
            budget: name.to_owned(),
        };
    }
    Next::Refuse {
        why: format!("The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"),
    }
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = tree::list(pod, &["status", "conditions"]).iter();
    conditions.any(|one| tree::text(one, &["type"]) == "Ready" && tree::text(one, &["status"]) == "True")
}

/// `POST` of an eviction.
pub(super) async fn create(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let name = call.name()?;
    let mut eviction = decode::object(call, body)?.value;
    let stated = tree::text(&eviction, &["metadata", "name"]);
    if !stated.is_empty() && stated != name {
        return Err(Failure::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let options = delete::options_of(&eviction["deleteOptions"], call)?;
    let entry = call.collection()?.get(&call.path_of(name));
    let pod = entry.ok_or_else(|| call.not_found(name))?.value();
    admission::evict(call, &pod)?;
    hooks::admit_part(call, Operation::Create, None, &mut eviction).await?;
    match decide(&pod, &budgets(call)?) {
        Next::Evict => {}
        Next::Spend { budget } => spend(call, &budget, name).await?,
        Next::Refuse { why } => return Err(refusal(&why)),
        Next::Ambiguous => {
            let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Failure::internal(why));
        }
    }
    delete::delete_named(call, name, &options).await?;
    Ok(self::body::json(
        StatusCode::CREATED,
        &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 }),
    ))
}

fn refusal(why: &str) -> Failure {
    let cause = Cause {
        reason: "DisruptionBudget",
        message: why.to_owned(),
        field: String::new(),
    };
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    Failure::too_many_requests(message).with_causes(vec![cause])
}

fn budget_resource(call: &Call<'_>) -> Result<Resource, Failure> {
    let facts = call.api.registry.resource("policy", "v1", "poddisruptionbudgets");
    facts
        .map(|facts| Resource::of(call.api, facts))
        .ok_or_else(|| Failure::internal("disruption budgets are unknown"))
}

fn budgets(call: &Call<'_>) -> Result<Vec<Value>, Failure> {
    let resource = budget_resource(call)?;
    let collection = resource.collection.ok_or_else(Failure::no_such_path)?;
    let entries = collection.snapshot(&call.path_prefix(), || 0).entries;
    Ok(entries.iter().map(|entry| Entry::value(entry)).collect())
}

/// Takes one disruption from the budget, before the pod goes: two evictions never take the same one.
async fn spend(call: &Call<'_>, budget: &str, pod: &str) -> Result<(), Failure> {
    let resource = budget_resource(call)?;
    let status = resource.facts.subresource("status");
    let of_budget = Call {
        resource,
        subresource: status,
        name: Some(budget),
        ..*call
    };
    let changed = update::change(&of_budget, budget, |seen| {
        let allowed = count(seen.object, &["status", "disruptionsAllowed"]);
        if allowed <= 0 {
            let why = format!("The disruption budget {budget} allows no disruption any more");
            return Err(refusal(&why));
        }
        let mut value = seen.object.clone();
        tree::map_mut(&mut value, &["metadata"]).remove("resourceVersion");
        tree::map_mut(&mut value, &["status"]).insert("disruptionsAllowed".to_owned(), json!(allowed - 1));
        tree::map_mut(&mut value, &["status", "disruptedPods"])
            .insert(pod.to_owned(), tree::time(Timestamp::now()));
        Ok(Proposal {
            value,
            owners: Owners::Kept,
            warnings: Vec::new(),
        })
    });
    changed.await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(name: &str, status: Value) -> Value {
        json!({"metadata": {"name": name, "generation": 1}, "spec": {"selector": {"matchLabels": {"a": "b"}}}, "status": status})
    }

    fn pod(phase: &str, ready: &str) -> Value {
        json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}})
    }

    #[test]
    fn budgets_decide() {
        let looked = |allowed: i64, healthy: i64| json!({"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": 2});
        let refuse = |why: &str| Next::Refuse { why: why.to_owned() };
        let running = pod("Running", "True");
        let mut other = running.clone();
        other["metadata"]["labels"] = json!({"a": "c"});
        let mut always = budget("x", looked(0, 1));
        always["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        let cases = [
            ("no budget", running.clone(), vec![], Next::Evict),
            ("of other pods", other, vec![budget("x", json!({}))], Next::Evict),
            (
                "not looked at yet",
                running.clone(),
                vec![budget("x", json!({}))],
                refuse("The disruption budget x is still being processed by the server."),
            ),
            (
                "something to give",
                running.clone(),
                vec![budget("x", looked(1, 3))],
                Next::Spend {
                    budget: "x".to_owned(),
                },
            ),
            (
                "nothing to give",
                running.clone(),
                vec![budget("x", looked(0, 2))],
                refuse("The disruption budget x needs 2 healthy pods and has 2 currently"),
            ),
            (
                "several budgets",
                running,
                vec![budget("x", looked(1, 3)), budget("y", looked(1, 3))],
                Next::Ambiguous,
            ),
            (
                "ended",
                pod("Failed", "False"),
                vec![budget("x", looked(0, 2))],
                Next::Evict,
            ),
            (
                "unready, enough others",
                pod("Running", "False"),
                vec![budget("x", looked(0, 2))],
                Next::Evict,
            ),
            (
                "unready, not enough others",
                pod("Running", "False"),
                vec![budget("x", looked(0, 1))],
                refuse("The disruption budget x needs 2 healthy pods and has 1 currently"),
            ),
            (
                "unready, never in the way",
                pod("Running", "False"),
                vec![always],
                Next::Evict,
            ),
        ];
        for (case, pod, budgets, expected) in cases {
            assert_eq!(decide(&pod, &budgets), expected, "{case}");
        }
    }
}
