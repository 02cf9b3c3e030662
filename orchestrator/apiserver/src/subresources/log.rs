//! `pods/log`: passed on from the kubelet of the pod's node, line by line as it comes.

use std::fmt::Write;

use futures::StreamExt;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, BodyStream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tower::BoxError;

use super::kubelet::KubeletAddress;
use crate::auth::token::find;
use crate::http::{Answer, Failure, body};
use crate::objects::{Call, tree};

/// The parameters that kubelets know.
const PARAMETERS: [&str; 8] = [
    "follow",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "tailLines",
    "limitBytes",
    "stream",
];
/// Kubelets explain failures in a few words; more than this is not passed on.
const EXPLANATION_BYTES_MAX: usize = 4096;

/// `GET` of a container's log.
pub(super) async fn get(call: &Call<'_>) -> Result<Answer, Failure> {
    let name = call.name()?;
    let entry = call
        .collection()?
        .get(&call.path_of(name))
        .ok_or_else(|| call.not_found(name))?;
    let pod = entry.value();
    let container = container(&pod, call.query.get("container")).map_err(Failure::bad_request)?;
    let node = tree::text(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        // Not an error: there is just nothing yet.
        return Ok(body::text(StatusCode::OK, ""));
    }
    let node = find(call.api, "nodes", "", node)
        .ok_or_else(|| Failure::bad_request(format!("node {node:?} of pod {name:?} not found")))?;
    let address =
        KubeletAddress::of_node(&node.value()).map_err(|error| Failure::bad_request(error.to_string()))?;
    let path = path(call, name, &container);
    let answer = call.api.kubelets.get(&address, &path).await;
    let answer = answer.map_err(|error| {
        Failure::internal(format!(
            "Get {:?}: {}",
            format!("https://{}:{}{path}", address.ip, address.port),
            with_sources(&error)
        ))
    })?;
    if !answer.status().is_success() {
        return Err(explain(answer, name, &container).await);
    }
    let stop = call.api.watches_stop.clone();
    let pieces = BodyStream::new(answer.into_body()).filter_map(|frame| async {
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(BoxError::from(error))),
        }
    });
    let pieces = pieces.take_until(async move { stop.cancelled().await });
    Ok(body::streamed(
        HeaderValue::from_static("text/plain"),
        Box::pin(pieces),
    ))
}

/// The container asked for, or the only one.
pub(super) fn container(pod: &Value, asked: Option<&str>) -> Result<String, String> {
    let pod_name = tree::text(pod, &["metadata", "name"]);
    let names = |list: &str| -> Vec<&str> {
        tree::list(pod, &["spec", list])
            .iter()
            .map(|container| tree::text(container, &["name"]))
            .collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    match asked {
        Some(asked) if containers.contains(&asked) || init.contains(&asked) => Ok(asked.to_owned()),
        Some(asked) => Err(format!("container {asked} is not valid for pod {pod_name}")),
        None => match containers.as_slice() {
            [only] => Ok((*only).to_owned()),
            _ => {
                let mut message = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    containers.join(" ")
                );
                if !init.is_empty() {
                    // Writing to memory cannot fail.
                    write!(message, " or one of the init containers: [{}]", init.join(" ")).ok();
                }
                Err(message)
            }
        },
    }
}

fn path(call: &Call<'_>, pod: &str, container: &str) -> String {
    let namespace = call.namespace.unwrap_or_default();
    let mut path = format!("/containerLogs/{namespace}/{pod}/{container}");
    let mut separator = '?';
    for parameter in PARAMETERS {
        if let Some(value) = call.query.get(parameter) {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            // Writing to memory cannot fail.
            write!(path, "{separator}{parameter}={value}").ok();
            separator = '&';
        }
    }
    path
}

/// The kubelet's words in the code it chose.
pub(super) async fn explain(
    answer: http::Response<hyper::body::Incoming>,
    pod: &str,
    container: &str,
) -> Failure {
    let code = answer.status();
    let limited = http_body_util::Limited::new(answer.into_body(), EXPLANATION_BYTES_MAX);
    let text = match limited.collect().await {
        Ok(collected) => String::from_utf8_lossy(&collected.to_bytes()).trim().to_owned(),
        Err(_) => String::new(),
    };
    match code {
        StatusCode::BAD_REQUEST => Failure::bad_request(text),
        StatusCode::NOT_FOUND => Failure::bad_request(format!(
            "container {container:?} in pod {pod:?} is not available: {text}"
        )),
        _ => Failure::internal(format!("the kubelet answered {code}: {text}")),
    }
}

pub(super) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to memory cannot fail.
        write!(text, ": {error}").ok();
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}});
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let cases = [
            (&one, None, Ok("a")),
            (&one, Some("i"), Ok("i")),
            (&one, Some("x"), Err("container x is not valid for pod p")),
            (&two, Some("b"), Ok("b")),
            (
                &two,
                None,
                Err("a container name must be specified for pod p, choose one of: [a b]"),
            ),
        ];
        for (pod, asked, expected) in cases {
            let found = container(pod, asked);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{asked:?}");
        }
    }
}
