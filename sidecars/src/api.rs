//! Writing to the API: JSON patches, and what an error of the API server means to the writer.

use http::Request;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A write that didn't happen, or of which the answer was lost.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", describe(.source))]
pub(crate) struct WriteError {
    pub(crate) what: String,
    #[source]
    pub(crate) source: Box<kube::Error>,
}

impl WriteError {
    pub(crate) fn new(what: impl Into<String>, source: kube::Error) -> Self {
        Self {
            what: what.into(),
            source: Box::new(source),
        }
    }
}

/// The HTTP code of an answer of the API server; `None` if there was no answer.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// Reads an object; `None` if there is none.
pub(crate) async fn get<K>(
    client: &Client,
    (namespace, name): (Option<&str>, &str),
) -> Result<Option<K>, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let path = format!("{}/{name}", K::url_path(&(), namespace));
    let request = Request::get(path)
        .header(http::header::ACCEPT, "application/json")
        .body(Vec::new())
        .expect("names of objects make valid paths");
    match client.request(request).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if code(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Applies JSON patch operations; a guard that doesn't hold is an error (422) and means: read again.
pub(crate) async fn json_patch<K>(
    client: &Client,
    (namespace, name): (Option<&str>, &str),
    subresource: Option<&str>,
    operations: Vec<Value>,
) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    send(
        client,
        (namespace, name),
        subresource,
        ("application/json-patch+json", Value::Array(operations)),
    )
    .await
}

/// Applies a JSON merge patch. With `metadata.resourceVersion` in it, only to that version (409 otherwise).
pub(crate) async fn merge_patch<K>(
    client: &Client,
    (namespace, name): (Option<&str>, &str),
    subresource: Option<&str>,
    patch: Value,
) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    send(
        client,
        (namespace, name),
        subresource,
        ("application/merge-patch+json", patch),
    )
    .await
}

async fn send<K>(
    client: &Client,
    (namespace, name): (Option<&str>, &str),
    subresource: Option<&str>,
    (content_type, patch): (&str, Value),
) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let mut path = format!("{}/{name}", K::url_path(&(), namespace));
    if let Some(subresource) = subresource {
        path = format!("{path}/{subresource}");
    }
    let request = Request::patch(path)
        .header(http::header::CONTENT_TYPE, content_type)
        .header(http::header::ACCEPT, "application/json")
        .body(patch.to_string().into_bytes())
        .expect("names of objects make valid paths");
    client.request(request).await
}
