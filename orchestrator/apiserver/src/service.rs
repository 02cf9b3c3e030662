//! The way of each request: who asks, what for, may they, then the handler. The TLS listener and the clients inside
//! the process go the same way.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use http_body::Body;
use jiff::Timestamp;
use tokio::time::Instant;
use tower::BoxError;

use crate::api::Api;
use crate::auth::rbac::Attributes;
use crate::auth::{User, token};
use crate::endpoints;
use crate::http::negotiation::{Encoding, Objects};
use crate::http::path::{self, ResourcePath, Target};
use crate::http::query::Query;
use crate::http::{Answer, Failure, body, compression, negotiation};
use crate::objects::notes::Notes;
use crate::objects::{Call, Resource, create, delete, list, notice, patch, render, update, watch};
use crate::subresources::streams;
use crate::{components, reviews, subresources};

/// The server as a tower service, for one identity.
#[derive(Debug, Clone)]
pub(crate) struct ApiService {
    api: Arc<Api>,
    /// Proved by the transport; a bearer token is looked at only without it.
    identity: Option<Arc<User>>,
}

impl ApiService {
    pub(crate) fn new(api: Arc<Api>, identity: Option<Arc<User>>) -> Self {
        ApiService { api, identity }
    }

    /// Answers a request; failures are answers too.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let answer = match self.route(&parts, body).await {
            Ok(answer) => answer,
            Err(failure) => {
                tracing::debug!(method = %parts.method, path = parts.uri.path(), code = failure.code().as_u16(), %failure, "A request failed.");
                let answer = create::with_warnings(body::failure(&failure), failure.warnings());
                if negotiation::wants_protobuf(accept(&parts.headers)) {
                    render::in_protobuf(answer)
                } else {
                    answer
                }
            }
        };
        self.api
            .metrics
            .answered(&parts.method, answer.status(), started.elapsed());
        compression::compress(&parts.headers, answer).await
    }

    async fn route<B>(&self, parts: &Parts, body: B) -> Result<Answer, Failure>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let user = self.authenticate(&parts.headers)?;
        let query = Query::parse(parts.uri.query())?;
        match path::parse(parts.uri.path()) {
            Target::Other(path) => {
                let verb = parts.method.as_str().to_lowercase();
                self.api.authorizer.check(
                    &user,
                    &Attributes {
                        verb: &verb,
                        path,
                        ..Attributes::default()
                    },
                )?;
                endpoints::answer(&self.api, &parts.method, path, &query, &parts.headers).await
            }
            Target::Resource(path) => self.resource(parts, body, &user, &path, &query).await,
        }
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<User>, Failure> {
        let user = match (&self.identity, headers.get(header::AUTHORIZATION)) {
            (Some(user), _) => Arc::clone(user),
            (None, None) => Arc::new(User::anonymous()),
            (None, Some(value)) => {
                let text = value.to_str().unwrap_or_default();
                let token = text
                    .strip_prefix("Bearer ")
                    .or_else(|| text.strip_prefix("bearer "));
                let found = token.and_then(|token| {
                    token::authenticate(&self.api, token.trim(), &[token::ISSUER], Timestamp::now())
                });
                Arc::new(found.ok_or_else(Failure::unauthorized)?.0)
            }
        };
        self.impersonate(user, headers)
    }

    /// Acts as somebody else, for those who may.
    fn impersonate(&self, user: Arc<User>, headers: &HeaderMap) -> Result<Arc<User>, Failure> {
        let name = headers
            .get("impersonate-user")
            .and_then(|value| value.to_str().ok());
        let groups = headers
            .get_all("impersonate-group")
            .iter()
            .filter_map(|value| value.to_str().ok());
        let groups: Vec<&str> = groups.collect();
        let is_other = |key: &&HeaderName| {
            let rest = key.as_str().strip_prefix("impersonate-");
            rest.is_some_and(|rest| rest != "user" && rest != "group")
        };
        if headers.keys().any(|key| is_other(&key)) {
            return Err(Failure::bad_request("only users and groups can be impersonated"));
        }
        let Some(name) = name else {
            let is_incomplete = !groups.is_empty();
            return if is_incomplete {
                Err(Failure::bad_request(
                    "groups are impersonated together with a user",
                ))
            } else {
                Ok(user)
            };
        };
        let own = match name
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
        {
            Some((namespace, account)) => ("serviceaccounts", namespace, account),
            None => ("users", "", name),
        };
        let wanted = groups.iter().map(|group| ("groups", "", *group)).chain([own]);
        for (resource, namespace, name) in wanted {
            let attributes = Attributes {
                verb: "impersonate",
                resource,
                namespace,
                name,
                ..Attributes::default()
            };
            self.api.authorizer.check(&user, &attributes)?;
        }
        Ok(Arc::new(User::authenticated(
            name,
            groups.into_iter().map(str::to_owned),
        )))
    }

    async fn resource<B>(
        &self,
        parts: &Parts,
        body: B,
        user: &User,
        path: &ResourcePath<'_>,
        query: &Query<'_>,
    ) -> Result<Answer, Failure>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let verb = verb(&parts.method, path, query)?;
        self.api.authorizer.check(user, &attributes(verb, path, query))?;
        let notes = Notes::default();
        let call = self.call(parts, user, path, query, &notes)?;
        if let Some(subresource) = path.subresource.as_deref()
            && streams::is_stream(call.resource.facts.plural, path.subresource.as_deref())
        {
            return Box::pin(streams::connect(&call, parts, subresource)).await;
        }
        let is_long =
            verb == "watch" || (path.subresource.as_deref() == Some("log") && query.flag("follow")?);
        let work = async {
            let body = body::collect(body).await?;
            Box::pin(dispatch(&call, verb, &body)).await
        };
        if is_long {
            return work.await;
        }
        let timeout = self.api.config.request_timeout;
        let outcome = tokio::time::timeout(timeout, work).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Failure::deadline()));
        let warnings = notes.take();
        match outcome {
            Ok(answer) => Ok(create::with_warnings(answer, &warnings)),
            Err(failure) => Err(failure.with_warnings(warnings)),
        }
    }

    fn call<'r>(
        &'r self,
        parts: &'r Parts,
        user: &'r User,
        path: &'r ResourcePath<'_>,
        query: &'r Query<'_>,
        notes: &'r Notes,
    ) -> Result<Call<'r>, Failure> {
        let resource = Resource::find(&self.api, &path.group, &path.version, &path.resource);
        let resource = resource.ok_or_else(Failure::no_such_path)?;
        let facts = resource.facts;
        let subresource = match path.subresource.as_deref() {
            None => None,
            Some(name) => Some(facts.subresource(name).ok_or_else(Failure::no_such_path)?),
        };
        let is_namespace = facts.plural == "namespaces" && facts.group.is_empty();
        if (path.namespace.is_some() && !facts.namespaced && !is_namespace)
            || (path.namespace.is_none() && facts.namespaced && path.name.is_some())
        {
            return Err(Failure::no_such_path());
        }
        let accept = accept(&parts.headers);
        let is_own = resource.custom.is_some() && subresource.is_none_or(|sub| sub.name == "status");
        let objects = if is_own { Objects::Custom } else { Objects::BuiltIn };
        // A log is text, whatever the client would take otherwise.
        let is_text = path.subresource.as_deref() == Some("log");
        Ok(Call {
            api: &self.api,
            user,
            resource,
            subresource,
            namespace: path.namespace.as_deref(),
            name: path.name.as_deref(),
            query,
            headers: &parts.headers,
            form: negotiation::answer_form(accept.filter(|_| !is_text), objects)?,
            notes,
            shows: true,
        })
    }
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

fn accept(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ACCEPT)?.to_str().ok()
}

/// The verb by which a request is authorised and handled.
fn verb(method: &Method, path: &ResourcePath<'_>, query: &Query<'_>) -> Result<&'static str, Failure> {
    let is_watch = query.flag("watch")? && path.subresource.is_none();
    Ok(match (method.as_str(), path.name.is_some()) {
        ("GET" | "HEAD", _) if is_watch => "watch",
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", true) => "update",
        ("PATCH", true) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return Err(Failure::method_not_allowed()),
    })
}

fn attributes<'r>(verb: &'r str, path: &'r ResourcePath<'_>, query: &'r Query<'_>) -> Attributes<'r> {
    // A list or watch of one name counts as access to that name.
    let selected = query
        .get("fieldSelector")
        .and_then(|text| text.strip_prefix("metadata.name="));
    let selected =
        selected.filter(|name| !name.contains(',') && matches!(verb, "list" | "watch" | "deletecollection"));
    Attributes {
        verb,
        group: &path.group,
        resource: &path.resource,
        subresource: path.subresource.as_deref().unwrap_or_default(),
        namespace: path.namespace.as_deref().unwrap_or_default(),
        name: path.name.as_deref().or(selected).unwrap_or_default(),
        path: "",
    }
}

/// Hands the request to its handler; a deprecated version is told of.
async fn dispatch(call: &Call<'_>, verb: &str, body: &Bytes) -> Result<Answer, Failure> {
    let mut answer = handle(call, verb, body).await?;
    // Handlers answer in JSON; only what may be large, lists and watches, is encoded where it is made.
    if call.form.encoding == Encoding::Protobuf {
        answer = render::in_protobuf(answer);
    }
    if matches!(verb, "create" | "update" | "patch") && call.subresource.is_none() {
        let idle = notice::of(call.resource.facts);
        answer = create::with_warnings(answer, idle.as_slice());
    }
    let custom = call.resource.custom.as_ref();
    Ok(
        match custom.and_then(|custom| custom.version().deprecation_warning.clone()) {
            Some(warning) => create::with_warnings(answer, &[warning]),
            None => answer,
        },
    )
}

async fn handle(call: &Call<'_>, verb: &str, body: &Bytes) -> Result<Answer, Failure> {
    if let Some(subresource) = call.subresource
        && !matches!(subresource.name, "status" | "approval")
    {
        return subresources::answer(call, subresource.name, verb, body).await;
    }
    if call.resource.collection.is_none() {
        if call.resource.facts.plural == "componentstatuses" {
            return components::answer(call, verb).await;
        }
        return reviews::answer(call, verb, body).await;
    }
    if !call.resource.facts.allows(verb) {
        return Err(Failure::method_not_allowed());
    }
    match (verb, call.subresource.is_some()) {
        ("get", _) => list::get(call).await,
        ("update", _) => update::update(call, body).await,
        ("patch", _) => patch::patch(call, body).await,
        ("list", false) => list::list(call).await,
        ("watch", false) => watch::watch(call).await,
        ("create", false) if call.name.is_none() => create::create(call, body).await,
        ("delete", false) => delete::delete(call, body).await,
        ("deletecollection", false) => delete::delete_collection(call, body).await,
        _ => Err(Failure::method_not_allowed()),
    }
}

/// An answer without content.
pub(crate) fn empty(code: StatusCode) -> Answer {
    let mut answer = http::Response::new(crate::http::ResponseBody::Whole(None));
    *answer.status_mut() = code;
    answer
}
