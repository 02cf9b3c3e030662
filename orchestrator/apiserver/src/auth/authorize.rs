//! Whether a request is allowed: masters everything, everybody the state of the server, nodes what their pods need,
//! others by roles.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use super::pod_needs::PodNeeds;
use super::rbac::{Attributes, Policy};
use super::{User, node};
use crate::cache::{Caches, Collection};
use crate::http::Failure;
use crate::http::failure::{About, qualified};

/// Paths that anybody may see.
const PUBLIC_PATHS: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// The policy, made anew when roles or bindings have changed.
#[derive(Debug)]
pub(crate) struct Authorizer {
    roles: Vec<Arc<Collection>>,
    bindings: Vec<Arc<Collection>>,
    pods: PodNeeds,
    current: ArcSwap<Compiled>,
}

#[derive(Debug, Default)]
struct Compiled {
    policy: Policy,
    /// Of the collections it was made from.
    revisions: Vec<u64>,
}

impl Authorizer {
    pub(crate) fn new(caches: &Caches) -> Self {
        let find = |plurals: [&str; 2]| {
            let is_wanted = |collection: &Arc<Collection>| {
                let facts = collection.resource;
                facts.group == "rbac.authorization.k8s.io" && !facts.custom && plurals.contains(&facts.plural)
            };
            caches.all().into_iter().filter(is_wanted).collect()
        };
        Authorizer {
            roles: find(["clusterroles", "roles"]),
            bindings: find(["clusterrolebindings", "rolebindings"]),
            pods: PodNeeds::new(caches),
            current: ArcSwap::default(),
        }
    }

    /// Runs `ask` with the policy as it is now.
    pub(crate) fn with_policy<T>(&self, ask: impl FnOnce(&Policy) -> T) -> T {
        let revisions: Vec<u64> = self
            .roles
            .iter()
            .chain(&self.bindings)
            .map(|one| one.revision())
            .collect();
        let current = self.current.load();
        if current.revisions == revisions {
            return ask(&current.policy);
        }
        let values = |collections: &[Arc<Collection>]| -> Vec<Value> {
            let entries = collections
                .iter()
                .flat_map(|collection| collection.snapshot("", || 0).entries);
            entries.map(|entry| entry.value()).collect()
        };
        let policy = Policy::new(
            values(&self.roles).into_iter(),
            values(&self.bindings).into_iter(),
        );
        let compiled = Arc::new(Compiled { policy, revisions });
        self.current.store(Arc::clone(&compiled));
        ask(&compiled.policy)
    }

    /// Whether somebody may do something.
    pub(crate) fn allows(&self, user: &User, attributes: &Attributes<'_>) -> bool {
        user.is_master()
            || is_for_everybody(attributes)
            || node::name(user).is_some_and(|node| node::allows(node, attributes, &self.pods))
            || self.with_policy(|policy| policy.allows(user, attributes))
    }

    /// As [`Authorizer::allows`], with upstream's words for the refusal.
    pub(crate) fn check(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), Failure> {
        if self.allows(user, attributes) {
            return Ok(());
        }
        // Who has not said who they are is asked that first.
        Err(if user.is_anonymous() {
            Failure::unauthorized()
        } else {
            refusal(user, attributes)
        })
    }
}

/// The state of the server and its version; all else is a matter of roles.
fn is_for_everybody(attributes: &Attributes<'_>) -> bool {
    let below = |root: &str| {
        let rest = attributes.path.strip_prefix(root);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_path = attributes.resource.is_empty();
    is_path && matches!(attributes.verb, "get" | "head") && PUBLIC_PATHS.iter().any(|root| below(root))
}

fn refusal(user: &User, attributes: &Attributes<'_>) -> Failure {
    let (name, verb) = (&user.name, attributes.verb);
    if attributes.resource.is_empty() {
        return Failure::forbidden_path(&format!("User {name:?} cannot {verb} path {:?}", attributes.path));
    }
    let resource = match attributes.subresource {
        "" => attributes.resource.to_owned(),
        subresource => format!("{}/{subresource}", attributes.resource),
    };
    let scope = match attributes.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let group = attributes.group;
    let why = format!("User {name:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}");
    let about = About {
        group,
        resource: attributes.resource,
        name: attributes.name,
    };
    tracing::debug!(resource = qualified(group, &resource), user = %name, verb, "A request is refused.");
    Failure::forbidden(about, &why)
}
