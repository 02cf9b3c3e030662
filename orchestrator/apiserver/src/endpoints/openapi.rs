//! OpenAPI v3 documents. They are built when asked for and not kept: clients ask seldom and cache.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use moorline_schema::openapi;
use serde_json::Value;

use super::with_etag;
use crate::api::Api;
use crate::customs::Served;
use crate::http::query::Query;
use crate::http::{Answer, Failure, body, compression};

/// With the right hash in the address the content never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("public, immutable");

/// Answers below `/openapi/v3`.
pub(super) async fn answer(
    api: &Arc<Api>,
    parts: &[&str],
    query: &Query<'_>,
    headers: &HeaderMap,
) -> Result<Answer, Failure> {
    let (group, version) = match parts {
        [] => return Ok(body::json(StatusCode::OK, &index(api))),
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Err(Failure::no_such_path()),
    };
    let served = api.customs.served();
    let all = moorline_schema::discovery::group_versions(api.registry, &served.groups);
    if !all.contains(&(group, version)) {
        return Err(Failure::no_such_path());
    }
    let hash = custom_hash(api, &served, group, version);
    let hash = hash.unwrap_or_else(|| openapi::v3_hash(api.registry, group, version));
    if let Some(asked) = query.get("hash").filter(|asked| **asked != *hash) {
        tracing::debug!(asked, "An outdated OpenAPI document is asked for.");
        return Ok(redirect(parts, &hash));
    }
    let takes_gzip = headers
        .get(header::ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("gzip"));
    if super::is_known(&hash, headers) {
        return Ok(with_etag(
            crate::service::empty(StatusCode::NOT_MODIFIED),
            &hash,
            headers,
        ));
    }
    let bytes = document(api, group, version, takes_gzip).await?;
    let mut answer = with_etag(body::whole(StatusCode::OK, body::JSON, bytes), &hash, headers);
    if takes_gzip && answer.status() == StatusCode::OK {
        answer
            .headers_mut()
            .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if query.get("hash").is_some() {
        answer.headers_mut().insert(header::CACHE_CONTROL, FOREVER);
    }
    Ok(answer)
}

/// Building takes milliseconds of computing, so it is done off the runtime's workers.
async fn document(api: &Arc<Api>, group: &str, version: &str, packed: bool) -> Result<Bytes, Failure> {
    let (registry, group, version) = (api.registry, group.to_owned(), version.to_owned());
    let served = api.customs.served();
    let built = tokio::task::spawn_blocking(move || {
        let text = match openapi::v3_document(registry, &group, &version) {
            Some(text) => text.to_string(),
            None => served.document(registry, &group, &version)?.to_string(),
        };
        if packed {
            compression::gzip(text.as_bytes())
        } else {
            Some(Bytes::from(text))
        }
    });
    built
        .await
        .ok()
        .flatten()
        .ok_or_else(|| Failure::internal("the OpenAPI document cannot be built"))
}

fn index(api: &Arc<Api>) -> Value {
    let served = api.customs.served();
    let hash = |group: &str, version: &str| custom_hash(api, &served, group, version);
    openapi::v3_index(api.registry, &served.groups, hash)
}

/// The hash of a document made by definitions; computed once for each set of them.
fn custom_hash(api: &Arc<Api>, served: &Served, group: &str, version: &str) -> Option<String> {
    if api.registry.served_in(group, version).next().is_some() {
        return None;
    }
    openapi::custom_hash(&served.groups, group, version, || {
        let document = served.document(api.registry, group, version);
        document.map(|document| document.to_string()).unwrap_or_default()
    })
}

fn redirect(parts: &[&str], hash: &str) -> Answer {
    let mut answer = crate::service::empty(StatusCode::MOVED_PERMANENTLY);
    let address = format!("/openapi/v3/{}?hash={hash}", parts.join("/"));
    if let Ok(value) = HeaderValue::from_str(&address) {
        answer.headers_mut().insert(header::LOCATION, value);
    }
    answer
}
