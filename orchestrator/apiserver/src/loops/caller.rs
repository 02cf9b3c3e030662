//! Requests of the server to itself: the same handlers, without HTTP.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use moorline_schema::ResourceFacts;
use moorline_schema::managed_fields::Live;
use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::User;
use crate::cache::Collection;
use crate::http::negotiation::{Encoding, Form, Shape};
use crate::http::query::Query;
use crate::http::{Answer, Failure};
use crate::objects::notes::Notes;
use crate::objects::owners::Owners;
use crate::objects::update::Proposal;
use crate::objects::{Call, Resource, create, delete, update};
use crate::pki::MASTERS;

/// Under this name it owns the fields it writes.
const NAME: &str = "kube-apiserver";

/// Makes requests in the server's own name.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) api: Arc<Api>,
    user: Arc<User>,
    /// Whether webhooks and policies see its writes.
    shows: bool,
}

impl Caller {
    pub(crate) fn new(api: Arc<Api>) -> Self {
        Caller {
            api,
            user: Arc::new(User::authenticated("system:apiserver", [MASTERS.to_owned()])),
            shows: true,
        }
    }

    /// For what is written before a webhook could be called: no webhook and no policy can keep the server from starting.
    pub(crate) fn unseen(api: Arc<Api>) -> Self {
        Caller {
            shows: false,
            ..Caller::new(api)
        }
    }

    /// The collection of a resource; all that the loops name are served.
    pub(crate) fn collection(&self, group: &str, plural: &str) -> Result<Arc<Collection>, Failure> {
        let facts = self.api.registry.resource(group, "v1", plural);
        facts
            .and_then(|facts| self.api.caches.collection(facts))
            .ok_or_else(Failure::no_such_path)
    }

    /// Creates an object.
    pub(crate) async fn create(
        &self,
        facts: &'static ResourceFacts,
        namespace: Option<&str>,
        object: Value,
    ) -> Result<Bytes, Failure> {
        self.with_call(facts, namespace, None, async |call| {
            create::store_new(call, object, Owners::Followed(None)).await
        })
        .await
    }

    /// Changes an object to what `propose` makes of it.
    pub(crate) async fn change(
        &self,
        facts: &'static ResourceFacts,
        path: &str,
        propose: impl Fn(&mut Value),
    ) -> Result<(), Failure> {
        let (namespace, name) = split(path);
        let propose = |seen: Live<'_>| {
            let mut value = seen.object.clone();
            propose(&mut value);
            Ok(Proposal {
                owners: Owners::of(&mut value),
                value,
                warnings: Vec::new(),
            })
        };
        self.with_call(facts, namespace, Some(name), async |call| {
            update::change(call, name, &propose).await.map(drop)
        })
        .await
    }

    /// Deletes an object, with a uid only if it is still the one that has it.
    pub(crate) async fn delete(
        &self,
        facts: &'static ResourceFacts,
        path: &str,
        uid: Option<&str>,
        policy: Option<&str>,
    ) -> Result<(), Failure> {
        let (namespace, name) = split(path);
        let preconditions = uid.map(|uid| json!({ "uid": uid }));
        let stated = json!({ "preconditions": preconditions, "propagationPolicy": policy });
        self.with_call(facts, namespace, Some(name), async |call| {
            let options = delete::options_of(&stated, call)?;
            delete::delete_named(call, name, &options).await.map(drop)
        })
        .await
    }

    /// Asks a subresource.
    pub(crate) async fn subresource(
        &self,
        facts: &'static ResourceFacts,
        path: &str,
        subresource: &str,
        verb: &str,
        body: Value,
    ) -> Result<Answer, Failure> {
        let (namespace, name) = split(path);
        let found = facts.subresource(subresource).ok_or_else(Failure::no_such_path)?;
        let body = Bytes::from(body.to_string());
        self.with_call(facts, namespace, Some(name), async |call| {
            let call = Call {
                subresource: Some(found),
                resource: call.resource.clone(),
                ..*call
            };
            if found.name == "status" {
                return update::update(&call, &body).await;
            }
            crate::subresources::answer(&call, subresource, verb, &body).await
        })
        .await
    }

    async fn with_call<T>(
        &self,
        facts: &'static ResourceFacts,
        namespace: Option<&str>,
        name: Option<&str>,
        act: impl AsyncFnOnce(&Call<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let query = Query::default();
        let headers = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static(NAME))]);
        let notes = Notes::default();
        let call = Call {
            api: &self.api,
            user: &self.user,
            resource: Resource::of(&self.api, facts),
            subresource: None,
            namespace,
            name,
            query: &query,
            headers: &headers,
            form: Form {
                encoding: Encoding::Json,
                shape: Shape::Object,
            },
            notes: &notes,
            shows: self.shows,
        };
        act(&call).await
    }
}

/// Namespace and name of a path.
pub(crate) fn split(path: &str) -> (Option<&str>, &str) {
    match path.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, path),
    }
}
