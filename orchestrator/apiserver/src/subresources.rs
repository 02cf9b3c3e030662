//! Subresources with rules of their own. `status` is not one of them: it is the object seen from another side.

mod binding;
mod eviction;
mod finalize;
pub(crate) mod kubelet;
mod log;
mod scale;
pub(crate) mod streams;
mod token;

use bytes::Bytes;

use crate::http::{Answer, Failure};
use crate::objects::Call;

/// Answers a request to a subresource.
pub(crate) async fn answer(call: &Call<'_>, name: &str, verb: &str, body: &Bytes) -> Result<Answer, Failure> {
    if name == "scale" {
        return scale::answer(call, verb, body).await;
    }
    match (call.resource.facts.plural, name, verb) {
        ("pods", "binding", "create") => binding::create(call, body).await,
        ("pods", "eviction", "create") => eviction::create(call, body).await,
        ("pods", "log", "get") => log::get(call).await,
        ("namespaces", "finalize", "update") => finalize::update(call, body).await,
        ("serviceaccounts", "token", "create") => token::create(call, body).await,
        _ => Err(Failure::method_not_allowed()),
    }
}

/// Binds a pod by a binding of its own, in which the pod is named.
pub(crate) async fn bind(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    binding::create_named(call, body).await
}
