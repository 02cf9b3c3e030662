//! What every cluster has from its first moment on.

use futures::future::try_join_all;
use serde_json::{Value, json};

use super::Caller;
use crate::auth::bootstrap::{self, Lack};
use crate::http::Failure;
use crate::objects::admission::priority::SYSTEM_CLASSES;
use crate::objects::strategy::service::RANGE;

const RBAC: &str = "rbac.authorization.k8s.io";
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The address under which pods find the server, the first of upstream's usual service range.
const SERVICE_ADDRESS: &str = "10.96.0.1";

/// Makes what is missing. Others may do the same at the same time.
pub(crate) async fn run(caller: &Caller) -> Result<(), Failure> {
    let namespaces = NAMESPACES.map(|name| async move {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        ensure(caller, "", "namespaces", None, namespace).await
    });
    try_join_all(namespaces).await?;
    let (service, endpoints) = (service(), endpoints(caller));
    let service = ensure(caller, "", "services", Some("default"), service);
    let endpoints = async {
        ensure(caller, "", "endpoints", Some("default"), endpoints.clone()).await?;
        correct_endpoints(caller, &endpoints).await
    };
    let roles = roles(caller);
    let classes = try_join_all(SYSTEM_CLASSES.map(|class| {
        ensure(
            caller,
            "scheduling.k8s.io",
            "priorityclasses",
            None,
            priority(class),
        )
    }));
    let range = ensure(caller, "networking.k8s.io", "servicecidrs", None, range());
    futures::future::try_join5(service, endpoints, roles, classes, range).await?;
    Ok(())
}

/// Makes the roles and bindings that there have to be, and adds to those that are there what they lack.
async fn roles(caller: &Caller) -> Result<(), Failure> {
    let each = bootstrap::wanted().into_iter().map(|wanted| async move {
        let path = wanted.path();
        let facts = caller.collection(RBAC, wanted.plural)?.resource;
        let stored = caller
            .collection(RBAC, wanted.plural)?
            .get(&path)
            .map(|entry| entry.value());
        let lack = stored.map(|stored| bootstrap::lack(&stored, &wanted.object));
        match lack {
            None => ensure(caller, RBAC, wanted.plural, wanted.namespace, wanted.object).await,
            Some(Lack::Nothing) => Ok(()),
            Some(Lack::Change(_)) => {
                let change = caller.change(facts, &path, |object| {
                    if let Lack::Change(changed) = bootstrap::lack(object, &wanted.object) {
                        *object = changed;
                    }
                });
                change.await
            }
            Some(Lack::Replace) => {
                caller.delete(facts, &path, None, None).await?;
                ensure(caller, RBAC, wanted.plural, wanted.namespace, wanted.object).await
            }
        }
    });
    try_join_all(each).await.map(drop)
}

/// The server may listen elsewhere than when it ran before.
async fn correct_endpoints(caller: &Caller, wanted: &Value) -> Result<(), Failure> {
    let facts = caller.collection("", "endpoints")?.resource;
    let change = caller.change(facts, "default/kubernetes", |endpoints| {
        endpoints["subsets"] = wanted["subsets"].clone();
    });
    change.await
}

async fn ensure(
    caller: &Caller,
    group: &str,
    plural: &str,
    namespace: Option<&str>,
    object: Value,
) -> Result<(), Failure> {
    let facts = caller
        .api
        .registry
        .resource(group, "v1", plural)
        .ok_or_else(Failure::no_such_path)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let path = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
    if caller.collection(group, plural)?.get(&path).is_some() {
        return Ok(());
    }
    match caller.create(facts, namespace, object).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.reason() == "AlreadyExists" => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn priority((name, value): (&str, i64)) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": { "name": name },
        "value": value,
        "description": "For what a cluster or a node cannot do without.",
    })
}

/// The addresses of services.
fn range() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": { "name": "kubernetes" },
        "spec": { "cidrs": [RANGE] },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "kubernetes", "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": SERVICE_ADDRESS,
            "clusterIPs": [SERVICE_ADDRESS],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443 }],
        },
    })
}

fn endpoints(caller: &Caller) -> Value {
    let address = caller.api.address;
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": { "name": "kubernetes" },
        "subsets": [{
            "addresses": [{ "ip": address.ip().to_string() }],
            "ports": [{ "name": "https", "port": address.port(), "protocol": "TCP" }],
        }],
    })
}
