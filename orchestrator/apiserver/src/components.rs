//! `componentstatuses`: how the parts of the control plane are, looked up with each question; nothing is stored. The
//! store is asked; scheduler and controller manager are known by the lease that those hold which elect a leader.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use moorline_store::Range;
use serde_json::{Value, json};

use crate::cache::Entry;
use crate::cache::entry;
use crate::http::{Answer, Failure};
use crate::objects::render::{ListMetadata, Renderer};
use crate::objects::{Call, create, tree};

const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";
const LEASES: [(&str, &str); 2] = [
    ("controller-manager", "kube-system/kube-controller-manager"),
    ("scheduler", "kube-system/kube-scheduler"),
];

/// Answers `GET` of one or all.
pub(crate) async fn answer(call: &Call<'_>, verb: &str) -> Result<Answer, Failure> {
    let mut found = vec![component("etcd-0", store(call).await)];
    for (name, path) in LEASES {
        let leases = call.api.registry.resource("coordination.k8s.io", "v1", "leases");
        let leases = leases.and_then(|facts| call.api.caches.collection(facts));
        if let Some(lease) = leases.and_then(|leases| leases.get(path)) {
            found.push(component(name, held(&lease.value(), Timestamp::now())));
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    let renderer = Renderer::new(call.resource.clone(), call.form, call.query)?;
    let now = Timestamp::now();
    let answer = match verb {
        "list" => renderer.list(found.iter(), &ListMetadata::default(), now),
        "get" => {
            let name = call.name()?;
            let one = found.iter().find(|one| one.name() == name);
            let one = one.ok_or_else(|| call.not_found(name))?;
            renderer.answer(StatusCode::OK, &one.json, now)
        }
        _ => return Err(Failure::method_not_allowed()),
    };
    Ok(create::with_warnings(answer, &[DEPRECATED.to_owned()]))
}

/// Whether the store answers.
async fn store(call: &Call<'_>) -> Result<(), String> {
    let namespaces = b"/registry/namespaces/default".as_slice();
    let read = call.api.store.range(Range::prefix(namespaces)).await;
    read.map(drop).map_err(|error| error.to_string())
}

/// Whether the holder of a lease has renewed it in time.
fn held(lease: &Value, now: Timestamp) -> Result<(), String> {
    let holder = tree::text(lease, &["spec", "holderIdentity"]);
    if holder.is_empty() {
        return Err("nobody holds its lease".to_owned());
    }
    let seconds = tree::at(lease, &["spec", "leaseDurationSeconds"]).and_then(Value::as_i64);
    let renewed = tree::text(lease, &["spec", "renewTime"]).parse::<Timestamp>();
    let Ok(renewed) = renewed else {
        return Err(format!("{holder} has never renewed its lease"));
    };
    let end = renewed + SignedDuration::from_secs(seconds.unwrap_or(0).clamp(0, 1 << 31));
    if end < now {
        return Err(format!(
            "{holder} let its lease run out at {}",
            tree::time(end).as_str().unwrap_or_default()
        ));
    }
    Ok(())
}

fn component(name: &str, health: Result<(), String>) -> Entry {
    let condition = match health {
        Ok(()) => json!({ "type": "Healthy", "status": "True", "message": "ok" }),
        Err(error) => json!({ "type": "Healthy", "status": "False", "message": error }),
    };
    let object = json!({
        "kind": "ComponentStatus", "apiVersion": "v1",
        "metadata": { "name": name },
        "conditions": [condition],
    });
    Entry {
        path: name.into(),
        revision: 0,
        json: Bytes::from(object.to_string()),
        facts: Arc::new(entry::Facts::default()),
        is_stale: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases() {
        let lease = |holder: &str, renewed: &str| json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed}});
        let now = "2026-03-01T12:00:00Z".parse().unwrap();
        let cases = [
            ("renewed", lease("a", "2026-03-01T11:59:50.000000Z"), None),
            (
                "run out",
                lease("a", "2026-03-01T11:59:40.000000Z"),
                Some("a let its lease run out at 2026-03-01T11:59:55Z"),
            ),
            (
                "given back",
                lease("", "2026-03-01T11:59:59.000000Z"),
                Some("nobody holds its lease"),
            ),
            (
                "never renewed",
                lease("a", ""),
                Some("a has never renewed its lease"),
            ),
        ];
        for (case, lease, expected) in cases {
            assert_eq!(held(&lease, now).err().as_deref(), expected, "{case}");
        }
    }
}
