//! What is not a resource: health, version, discovery, OpenAPI, metrics, keys for token verifiers.

mod discovery;
mod health;
mod openapi;
mod openapi_v2;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::token::ISSUER;
use crate::http::query::Query;
use crate::http::{Answer, Failure, body};

/// Says which Kubernetes this is; a semantic version, so that clients can compare it.
pub(crate) const GIT_VERSION: &str = concat!("v1.36.0+moorline.", env!("CARGO_PKG_VERSION"));

/// Answers a request to a path outside of the resources.
pub(crate) async fn answer(
    api: &Arc<Api>,
    method: &Method,
    path: &str,
    query: &Query<'_>,
    headers: &HeaderMap,
) -> Result<Answer, Failure> {
    let path = if path.len() > 1 {
        path.strip_suffix('/').unwrap_or(path)
    } else {
        path
    };
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let is_read = method == Method::GET || method == Method::HEAD;
    let known = |answer: Answer| {
        if is_read {
            Ok(answer)
        } else {
            Err(Failure::method_not_allowed())
        }
    };
    match parts.as_slice() {
        [check @ ("healthz" | "livez" | "readyz"), rest @ ..] => {
            health::answer(api, check, rest, query).and_then(known)
        }
        ["version"] => known(body::json(StatusCode::OK, &version())),
        ["metrics"] => {
            let content_type = HeaderValue::from_static("text/plain; version=1.0.0; charset=utf-8");
            known(body::whole(
                StatusCode::OK,
                content_type,
                api.metrics.text(&api.caches).into(),
            ))
        }
        ["openapi", "v2"] => known(openapi_v2::answer(headers)),
        ["openapi", "v3", group_version @ ..] => openapi::answer(api, group_version, query, headers)
            .await
            .and_then(known),
        ["api" | "apis", ..] => discovery::answer(api, &parts, headers).and_then(known),
        [".well-known", "openid-configuration"] => known(body::json(StatusCode::OK, &issuer())),
        ["openid", "v1", "jwks"] => {
            let content_type = HeaderValue::from_static("application/jwk-set+json");
            known(body::whole(
                StatusCode::OK,
                content_type,
                api.tokens.key_set().to_string().into(),
            ))
        }
        [""] => known(body::json(StatusCode::OK, &index(api))),
        _ => Err(Failure::no_such_path()),
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture()),
    })
}

/// Clients know architectures by Go's names.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn issuer() -> Value {
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

fn index(api: &Api) -> Value {
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    let served = api.customs.served();
    let groups = moorline_schema::discovery::group_versions(api.registry, &served.groups).into_iter();
    let groups = groups.filter(|(group, _)| !group.is_empty());
    paths.extend(groups.map(|(group, version)| format!("/apis/{group}/{version}")));
    paths.sort();
    json!({ "paths": paths })
}

/// Whether the client has the content with this tag already.
fn is_known(tag: &str, headers: &HeaderMap) -> bool {
    let quoted = format!("\"{tag}\"");
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    known
        .flat_map(|value| value.split(','))
        .any(|value| value.trim() == quoted)
}

/// Adds an entity tag and answers 304 to those who have the content already.
fn with_etag(mut answer: Answer, tag: &str, headers: &HeaderMap) -> Answer {
    if is_known(tag, headers) {
        answer = crate::service::empty(StatusCode::NOT_MODIFIED);
    }
    if let Ok(value) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        answer.headers_mut().insert(header::ETAG, value);
    }
    answer
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("Accept"));
    answer
}
