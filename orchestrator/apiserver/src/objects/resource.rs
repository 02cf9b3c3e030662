//! A served resource and one request to it.

use std::sync::Arc;

use http::HeaderMap;
use moorline_schema::{ResourceFacts, registry::SubresourceFacts};

use crate::api::Api;
use crate::auth::User;
use crate::cache::Collection;
use crate::http::failure::{About, Failure};
use crate::http::negotiation::Form;
use crate::http::query::Query;

/// A resource as clients see it.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    pub(crate) facts: &'static ResourceFacts,
    /// Where its objects are; absent where nothing is stored.
    pub(crate) collection: Option<Arc<Collection>>,
}

impl Resource {
    /// Whether its objects are stored in another form than they are served in: the events of `events.k8s.io`.
    pub(crate) fn is_converted(&self) -> bool {
        self.collection
            .as_ref()
            .is_some_and(|collection| collection.resource.group != self.facts.group)
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
