//! Gives services their addresses and ports, so that no two have the same.
//!
//! Who has an address is written down as an IPAddress, in the same transaction as the service: neither is there without
//! the other, whenever the server ends. Services are completed one after another, so that a port is given once.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use moorline_schema::ResourceFacts;
use moorline_store::{Compare, Op, Revision};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use super::strategy::service::{self, Used};
use super::{Call, tree};
use crate::api::Api;
use crate::cache::{Collection, entry};
use crate::http::Failure;

/// Further conditions and changes of a write.
#[derive(Debug, Default)]
pub(crate) struct Along {
    pub(crate) compare: Vec<Compare>,
    pub(crate) ops: Vec<Op>,
}

/// Held until the service is stored.
pub(crate) type Held = Option<OwnedMutexGuard<()>>;

/// Whether a resource is that of services.
pub(crate) fn is_service(facts: &ResourceFacts) -> bool {
    !facts.custom && (facts.group, facts.plural) == ("", "services")
}

/// Completes a service that is about to be stored; nothing for other kinds.
pub(crate) async fn assign(call: &Call<'_>, old: Option<&Value>, new: &mut Value) -> Result<Held, Failure> {
    if !is_service(call.resource.facts) || call.subresource.is_some() {
        return Ok(None);
    }
    let held = Arc::clone(&call.api.service_numbers).lock_owned().await;
    let name = tree::text(new, &["metadata", "name"]).to_owned();
    let used = used(call, &name)?;
    service::assign(old, new, &used, rand::random())
        .map_err(|causes| Failure::invalid(call.resource.about_kind(&name), causes))?;
    Ok(Some(held))
}

/// What all services but this one have.
fn used(call: &Call<'_>, name: &str) -> Result<Used, Failure> {
    let mut used = Used::default();
    let own = call.path_of(name);
    let others = call.collection()?.snapshot("", || 0).entries.into_iter();
    for other in others.filter(|entry| *entry.path != *own) {
        let other = other.value();
        used.addresses.extend(service::addresses(&other));
        used.ports.extend(service::node_ports(&other));
    }
    if let Some(addresses) = addresses(call.api) {
        let all = addresses.snapshot("", || 0).entries.into_iter();
        let others =
            all.filter(|entry| !belongs_to(&entry.value(), call.namespace.unwrap_or_default(), name));
        used.addresses
            .extend(others.filter_map(|entry| entry.name().parse::<IpAddr>().ok()));
    }
    Ok(used)
}

fn addresses(api: &Api) -> Option<Arc<Collection>> {
    let facts = api.registry.resource("networking.k8s.io", "v1", "ipaddresses")?;
    api.caches.collection(facts)
}

fn belongs_to(address: &Value, namespace: &str, name: &str) -> bool {
    let parent = |field: &str| tree::text(address, &["spec", "parentRef", field]);
    (parent("resource"), parent("namespace"), parent("name")) == ("services", namespace, name)
}

/// What has to be written down along with a change of an object: whose address is whose. Nothing for other kinds.
pub(crate) fn along(api: &Api, facts: &ResourceFacts, old: Option<&Value>, new: Option<&Value>) -> Along {
    let mut along = Along::default();
    let Some(collection) = addresses(api).filter(|_| is_service(facts)) else {
        return along;
    };
    let held = |service: Option<&Value>| service.map(service::addresses).unwrap_or_default();
    let (before, after) = (held(old), held(new));
    for gone in before.iter().filter(|address| !after.contains(address)) {
        let path = gone.to_string();
        if collection.get(&path).is_some() {
            along.ops.push(Op::Delete {
                key: collection.key(&path),
            });
        }
    }
    for (address, service) in after.iter().filter_map(|address| Some((address, new?))) {
        let path = address.to_string();
        let is_new = !before.contains(address);
        if !is_new || collection.get(&path).is_some() {
            continue;
        }
        along.compare.push(Compare {
            key: collection.key(&path),
            mod_revision: Revision(0),
        });
        along.ops.push(Op::Put {
            key: collection.key(&path),
            value: written_down(&collection, *address, service),
            lease: None,
        });
    }
    along
}

fn written_down(collection: &Collection, address: IpAddr, service: &Value) -> Bytes {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let object = json!({
        "metadata": {
            "name": address.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": tree::time(Timestamp::now()),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": family,
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": { "parentRef": {
            "resource": "services",
            "namespace": tree::text(service, &["metadata", "namespace"]),
            "name": tree::text(service, &["metadata", "name"]),
        }},
    });
    entry::encode(&collection.head, &object)
}
