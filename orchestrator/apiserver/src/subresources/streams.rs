//! `pods/exec`, `pods/attach` and `pods/portforward`: connections that become something else than HTTP, passed on to the
//! kubelet of the pod's node and back byte by byte.

use std::fmt::Write;

use http::request::Parts;
use http::{HeaderMap, HeaderName, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::kubelet::{KubeletAddress, KubeletError};
use super::log;
use crate::auth::rbac::Attributes;
use crate::auth::token::find;
use crate::hooks::{self, Operation};
use crate::http::{Answer, Failure, ResponseBody};
use crate::objects::{Call, decode, tree};

/// Whether a subresource is one of these.
pub(crate) fn is_stream(plural: &str, subresource: Option<&str>) -> bool {
    plural == "pods" && matches!(subresource, Some("exec" | "attach" | "portforward"))
}

/// The headers that a handshake consists of.
const HANDSHAKE: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    HeaderName::from_static("x-stream-protocol-version"),
];

/// Passes the client's handshake on and, once the kubelet has accepted it, everything else.
pub(crate) async fn connect(call: &Call<'_>, parts: &Parts, subresource: &str) -> Result<Answer, Failure> {
    check_create(call, subresource)?;
    hooks::admit_part(call, Operation::Connect, None, &mut options(call)).await?;
    let client = parts.extensions.get::<OnUpgrade>().cloned();
    let client = client.filter(|_| parts.headers.contains_key(header::UPGRADE));
    let client = client.ok_or_else(|| Failure::bad_request("Upgrade request required"))?;
    let (address, path) = target(call, subresource)?;
    let headers = handshake(&parts.headers);
    let asked = call
        .api
        .kubelets
        .upgrade(&address, &parts.method, &path, headers)
        .await;
    let answer = asked.map_err(|error| unreachable_kubelet(&error, &address, &path))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(log::explain(
            answer,
            call.name()?,
            call.query.get("container").unwrap_or_default(),
        )
        .await);
    }
    let mut accepted = http::Response::new(ResponseBody::Whole(None));
    *accepted.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let kept = [HANDSHAKE.as_slice(), &[header::SEC_WEBSOCKET_ACCEPT]].concat();
    for name in kept {
        for value in answer.headers().get_all(&name) {
            accepted.headers_mut().append(name.clone(), value.clone());
        }
    }
    let stop = call.api.watches_stop.clone();
    call.api.kubelets.tasks.spawn(async move {
        let pass = async {
            let (client, kubelet) =
                tokio::try_join!(client, hyper::upgrade::on(answer)).map_err(std::io::Error::other)?;
            let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
            tokio::io::copy_bidirectional(&mut client, &mut kubelet).await
        };
        // Dropped, both ends are closed.
        if let Some(Err(error)) = stop.run_until_cancelled(pass).await {
            tracing::debug!(%error, "A stream to a kubelet ended early.");
        }
    });
    Ok(accepted)
}

/// What is asked of the connection, as webhooks are shown it.
fn options(call: &Call<'_>) -> Value {
    let expected = decode::expected(call);
    let mut options = json!({ "kind": expected.kind, "apiVersion": expected.api_version });
    if let Some(container) = call.query.get("container") {
        options["container"] = container.into();
    }
    let command: Vec<&str> = call.query.all("command").collect();
    if !command.is_empty() {
        options["command"] = json!(command);
    }
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if matches!(call.query.get(flag), Some("true" | "1")) {
            options[flag] = true.into();
        }
    }
    options
}

/// Who only may read must not run commands, though WebSockets begin with a `GET`.
fn check_create(call: &Call<'_>, subresource: &str) -> Result<(), Failure> {
    let attributes = Attributes {
        verb: "create",
        resource: "pods",
        subresource,
        namespace: call.namespace.unwrap_or_default(),
        name: call.name()?,
        ..Attributes::default()
    };
    call.api.authorizer.check(call.user, &attributes)
}

fn handshake(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in &HANDSHAKE {
        for value in headers.get_all(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// The kubelet, and what it is asked.
fn target(call: &Call<'_>, subresource: &str) -> Result<(KubeletAddress, String), Failure> {
    let name = call.name()?;
    let entry = call.collection()?.get(&call.path_of(name));
    let pod = entry.ok_or_else(|| call.not_found(name))?.value();
    let node = tree::text(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(Failure::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let node = find(call.api, "nodes", "", node)
        .ok_or_else(|| Failure::bad_request(format!("node {node:?} of pod {name:?} not found")))?;
    let address =
        KubeletAddress::of_node(&node.value()).map_err(|error| Failure::bad_request(error.to_string()))?;
    let namespace = call.namespace.unwrap_or_default();
    if subresource == "portforward" {
        return Ok((address, format!("/portForward/{namespace}/{name}")));
    }
    let phase = tree::text(&pod, &["status", "phase"]);
    if matches!(phase, "Succeeded" | "Failed") {
        let message = format!("cannot exec into a container in a completed pod; current phase is {phase}");
        return Err(Failure::bad_request(message));
    }
    let container = log::container(&pod, call.query.get("container")).map_err(Failure::bad_request)?;
    let parameters = parameters(call)?;
    Ok((
        address,
        format!("/{subresource}/{namespace}/{name}/{container}{parameters}"),
    ))
}

/// The command and its streams, by the names that kubelets know.
fn parameters(call: &Call<'_>) -> Result<String, Failure> {
    const FLAGS: [(&str, &str); 4] = [
        ("stdin", "input"),
        ("stdout", "output"),
        ("stderr", "error"),
        ("tty", "tty"),
    ];
    let mut text = String::new();
    let mut add = |name: &str, value: &str| {
        let separator = if text.is_empty() { '?' } else { '&' };
        let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
        // Writing to memory cannot fail.
        write!(text, "{separator}{name}={value}").ok();
    };
    for word in call.query.all("command") {
        add("command", word);
    }
    for (ours, theirs) in FLAGS {
        if call.query.flag(ours)? {
            add(theirs, "1");
        }
    }
    Ok(text)
}

fn unreachable_kubelet(error: &KubeletError, address: &KubeletAddress, path: &str) -> Failure {
    let path = path.split('?').next().unwrap_or_default();
    Failure::internal(format!(
        "error dialing https://{}:{}{path}: {}",
        address.ip,
        address.port,
        log::with_sources(error)
    ))
}
