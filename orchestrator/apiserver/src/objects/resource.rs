//! A served resource and one request to it.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use moorline_schema::custom;
use moorline_schema::{ResourceFacts, registry::SubresourceFacts};
use serde_json::Value;

use super::forms;
use super::notes::Notes;
use crate::api::Api;
use crate::auth::User;
use crate::cache::Collection;
use crate::customs::CustomResource;
use crate::http::failure::{About, Failure};
use crate::http::negotiation::Form;
use crate::http::query::Query;

/// A resource as clients see it.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub(crate) facts: &'static ResourceFacts,
    /// Where its objects are; absent where nothing is stored.
    pub(crate) collection: Option<Arc<Collection>>,
    /// Where a definition made it.
    pub(crate) custom: Option<Arc<CustomResource>>,
}

impl Resource {
    /// A built-in resource, or one that was found among the custom ones before.
    pub(crate) fn of(api: &Api, facts: &'static ResourceFacts) -> Self {
        if facts.custom {
            let found = Resource::custom(api, facts.group, facts.version, facts.plural);
            // A version that is stored but not served is known by its collection alone.
            return found.unwrap_or_else(|| Resource {
                facts,
                collection: api.caches.collection(facts),
                custom: None,
            });
        }
        Resource {
            facts,
            collection: api.caches.collection(facts),
            custom: None,
        }
    }

    /// Finds a served resource by the parts of its path.
    pub(crate) fn find(api: &Api, group: &str, version: &str, plural: &str) -> Option<Self> {
        match api.registry.resource(group, version, plural) {
            Some(facts) => Some(Resource::of(api, facts)),
            None => Resource::custom(api, group, version, plural),
        }
    }

    fn custom(api: &Api, group: &str, version: &str, plural: &str) -> Option<Self> {
        let served = api.customs.served();
        let found = served.resource(group, version, plural)?;
        Some(Resource {
            facts: found.facts,
            collection: Some(Arc::clone(&found.collection)),
            custom: Some(found),
        })
    }

    /// The facts whose rules hold for its objects: those of the version they are written in, or of the group they are
    /// stored in.
    pub(crate) fn ruling_facts(&self) -> Result<&'static ResourceFacts, Failure> {
        if self.custom.is_some() {
            return Ok(self.facts);
        }
        let collection = self.collection.as_ref();
        collection
            .map(|collection| collection.resource)
            .ok_or_else(Failure::method_not_allowed)
    }

    /// Whether its objects are served in another version than they are stored in.
    fn is_other_version(&self) -> bool {
        let stored = self
            .collection
            .as_ref()
            .map(|collection| collection.resource.version);
        self.custom.is_some() && stored != Some(self.facts.version)
    }

    /// Whether stored bytes are what is served.
    pub(crate) fn is_served_as_stored(&self) -> bool {
        !self.is_converted() && !self.is_other_version()
    }

    /// The object as it is served, from its stored form.
    pub(crate) fn served<'v>(&self, stored: &'v Value) -> Cow<'v, Value> {
        if self.is_converted() {
            return Cow::Owned(forms::to_served(self.facts, stored.clone()));
        }
        match self.custom.as_ref().filter(|_| self.is_other_version()) {
            None => Cow::Borrowed(stored),
            Some(custom) => {
                let mut value = stored.clone();
                value["apiVersion"] = self.facts.api_version().into();
                custom::object::normalise(custom.version(), &mut value);
                Cow::Owned(value)
            }
        }
    }

    /// Whether its objects are stored in another form than they are served in: the events of `events.k8s.io`, the
    /// autoscalers of `autoscaling/v1`.
    pub(crate) fn is_converted(&self) -> bool {
        let is_other = |collection: &Arc<Collection>| {
            let stored = collection.resource;
            (stored.group, stored.version) != (self.facts.group, self.facts.version)
        };
        self.custom.is_none() && self.collection.as_ref().is_some_and(is_other)
    }

    /// For messages about an object, with the resource's name.
    pub(crate) fn about<'a>(&self, name: &'a str) -> About<'a>
    where
        'static: 'a,
    {
        About {
            group: self.facts.group,
            resource: self.facts.plural,
            name,
        }
    }

    /// For messages about an invalid object, with the kind.
    pub(crate) fn about_kind<'a>(&self, name: &'a str) -> About<'a>
    where
        'static: 'a,
    {
        About {
            group: self.facts.group,
            resource: self.facts.kind,
            name,
        }
    }
}

/// One request to a resource, authenticated and authorised.
#[derive(Debug)]
pub(crate) struct Call<'r> {
    pub(crate) api: &'r Arc<Api>,
    pub(crate) user: &'r User,
    pub(crate) resource: Resource,
    pub(crate) subresource: Option<&'static SubresourceFacts>,
    pub(crate) namespace: Option<&'r str>,
    pub(crate) name: Option<&'r str>,
    pub(crate) query: &'r Query<'r>,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) form: Form,
    /// What the client is told beside the answer.
    pub(crate) notes: &'r Notes,
    /// Whether webhooks and policies see it.
    pub(crate) shows: bool,
}

impl Call<'_> {
    /// Where the objects are.
    pub(crate) fn collection(&self) -> Result<&Arc<Collection>, Failure> {
        self.resource
            .collection
            .as_ref()
            .ok_or_else(Failure::method_not_allowed)
    }

    /// The object's name; asked for only where the path has one.
    pub(crate) fn name(&self) -> Result<&str, Failure> {
        self.name.ok_or_else(Failure::method_not_allowed)
    }

    /// The path of an object of the request's namespace.
    pub(crate) fn path_of(&self, name: &str) -> String {
        match self.namespace {
            Some(namespace) if self.resource.facts.namespaced => format!("{namespace}/{name}"),
            _ => name.to_owned(),
        }
    }

    /// What the paths of the request's collection begin with.
    pub(crate) fn path_prefix(&self) -> String {
        match self.namespace {
            Some(namespace) if self.resource.facts.namespaced => format!("{namespace}/"),
            _ => String::new(),
        }
    }

    pub(crate) fn header(&self, name: http::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn not_found(&self, name: &str) -> Failure {
        Failure::not_found(self.resource.about(name))
    }

    /// Whether the request is a patch, which is told from its body.
    pub(crate) fn is_patch(&self) -> bool {
        self.header(http::header::CONTENT_TYPE)
            .is_some_and(|stated| stated.contains("patch"))
    }

    /// Whether the status subresource is asked for.
    pub(crate) fn is_status(&self) -> bool {
        self.subresource.is_some_and(|sub| sub.name == "status")
    }
}
