//! Requests that become something else than HTTP: commands in containers, and port forwarding.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use moorline_container_runtime::{ContainerId, ContainerRuntime, ContainerState, ExecRequest};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Body, port_forward, remote_command, text, websocket};

/// What a client asks of a command's streams, from the request's parameters.
pub(crate) fn exec_request(query: &str) -> ExecRequest {
    let pairs = super::pairs(query);
    let flag = |name: &str| {
        pairs
            .iter()
            .any(|(key, value)| key == name && matches!(value.as_str(), "1" | "true"))
    };
    ExecRequest {
        command: pairs
            .iter()
            .filter(|(key, _)| key == "command")
            .map(|(_, value)| value.clone())
            .collect(),
        stdin: flag("input"),
        tty: flag("tty"),
    }
}

/// A client's wish to go on in another protocol.
#[derive(Debug, PartialEq, Eq)]
struct Handshake {
    accept: String,
    protocol: &'static str,
}

/// Reads the handshake; the refusal says what is missing.
fn handshake(headers: &HeaderMap, protocols: &[&'static str]) -> Result<Handshake, String> {
    let value = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    if !value(header::UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err("unable to upgrade: a WebSocket is needed here".to_owned());
    }
    if value(header::SEC_WEBSOCKET_VERSION) != "13" || value(header::SEC_WEBSOCKET_KEY).is_empty() {
        return Err("unable to upgrade: version 13 of WebSocket and a key are needed".to_owned());
    }
    let offered: Vec<&str> = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    let protocol = protocols.iter().find(|protocol| offered.contains(protocol));
    let protocol = protocol.ok_or_else(|| {
        format!("unable to upgrade: none of the protocols {offered:?} is spoken here, but {protocols:?}")
    })?;
    Ok(Handshake {
        accept: websocket::accept_key(value(header::SEC_WEBSOCKET_KEY)),
        protocol,
    })
}

fn switching(handshake: &Handshake) -> Response<Body> {
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::SEC_WEBSOCKET_ACCEPT, &handshake.accept)
        .header(header::SEC_WEBSOCKET_PROTOCOL, handshake.protocol);
    let body = Empty::<Bytes>::new().boxed();
    response
        .body(body)
        .unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}

/// Where requests of this kind live.
#[derive(Clone, Copy)]
pub(crate) struct Host<'h> {
    pub(crate) runtime: &'h Arc<dyn ContainerRuntime>,
    pub(crate) tasks: &'h TaskTracker,
    pub(crate) stop: &'h CancellationToken,
}

/// Runs a command in the container, if that runs.
pub(crate) async fn exec(
    host: Host<'_>,
    request: Request<Incoming>,
    pod_uid: &str,
    container: &str,
) -> Response<Body> {
    let order = exec_request(request.uri().query().unwrap_or_default());
    if order.command.is_empty() {
        return text(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 command\n".to_owned(),
        );
    }
    session(host, request, (pod_uid, container), Some(order)).await
}

/// Shows what the container says, and lets it hear.
pub(crate) async fn attach(
    host: Host<'_>,
    request: Request<Incoming>,
    pod_uid: &str,
    container: &str,
) -> Response<Body> {
    session(host, request, (pod_uid, container), None).await
}

/// Without a command it is the container itself that is talked to.
async fn session(
    host: Host<'_>,
    mut request: Request<Incoming>,
    (pod_uid, container): (&str, &str),
    order: Option<ExecRequest>,
) -> Response<Body> {
    let handshake = match handshake(request.headers(), &remote_command::PROTOCOLS) {
        Ok(handshake) => handshake,
        Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    };
    let has_input = exec_request(request.uri().query().unwrap_or_default()).stdin;
    let id = match running(host.runtime, pod_uid, container).await {
        Ok(id) => id,
        Err(why) => return text(StatusCode::NOT_FOUND, format!("{why}\n")),
    };
    let (runtime, stop) = (host.runtime.clone(), host.stop.clone());
    let upgrade = hyper::upgrade::on(&mut request);
    host.tasks.spawn(async move {
        let talk = async {
            match upgrade.await {
                Ok(stream) => {
                    let started = match order {
                        Some(order) => runtime.exec(&id, order).await,
                        None => runtime
                            .attach(&id, has_input)
                            .await
                            .map(remote_command::without_exit_code),
                    };
                    remote_command::serve(TokioIo::new(stream), started).await;
                }
                Err(error) => tracing::debug!(%error, "A client of a command left during the handshake"),
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = talk => {}
        }
    });
    switching(&handshake)
}

/// Forwards ports of a pod.
pub(crate) fn forward(host: Host<'_>, mut request: Request<Incoming>) -> Response<Body> {
    let handshake = match handshake(request.headers(), &[port_forward::PROTOCOL]) {
        Ok(handshake) => handshake,
        Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    };
    let stop = host.stop.clone();
    let upgrade = hyper::upgrade::on(&mut request);
    host.tasks.spawn(async move {
        let talk = async {
            match upgrade.await {
                Ok(stream) => port_forward::serve(TokioIo::new(stream)).await,
                Err(error) => tracing::debug!(%error, "A client of a port left during the handshake"),
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = talk => {}
        }
    });
    switching(&handshake)
}

/// The container's newest attempt, if it runs.
async fn running(
    runtime: &Arc<dyn ContainerRuntime>,
    pod_uid: &str,
    container: &str,
) -> Result<ContainerId, String> {
    let listed = runtime
        .list_containers()
        .await
        .map_err(|error| error.to_string())?;
    let own = listed
        .into_iter()
        .filter(|held| held.pod_uid == pod_uid && held.name == container);
    match own.max_by_key(|held| held.attempt) {
        Some(found) if found.state == ContainerState::Running => Ok(found.id),
        Some(_) | None => Err(format!("container {container:?} is not running")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes() {
        let headers = |changes: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            let whole = [
                ("upgrade", "WebSocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-protocol", "v4.channel.k8s.io, v5.channel.k8s.io"),
            ];
            for (name, value) in whole.iter().chain(changes) {
                headers.insert(*name, http::HeaderValue::from_static(value));
            }
            headers
        };
        let cases = [
            ("the newer of two", headers(&[]), Ok("v5.channel.k8s.io")),
            (
                "the older alone",
                headers(&[("sec-websocket-protocol", "v4.channel.k8s.io")]),
                Ok("v4.channel.k8s.io"),
            ),
            (
                "another upgrade",
                headers(&[("upgrade", "SPDY/3.1")]),
                Err("a WebSocket is needed"),
            ),
            (
                "an old version",
                headers(&[("sec-websocket-version", "8")]),
                Err("version 13"),
            ),
            (
                "no common protocol",
                headers(&[("sec-websocket-protocol", "channel.k8s.io")]),
                Err("none of the protocols"),
            ),
        ];
        for (case, headers, expected) in cases {
            match (handshake(&headers, &remote_command::PROTOCOLS), expected) {
                (Ok(found), Ok(protocol)) => assert_eq!(found.protocol, protocol, "{case}"),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{case}: {why}"),
                (found, _) => panic!("{case}: {found:?}"),
            }
        }
    }

    #[test]
    fn commands_are_read_in_their_order() {
        let found = exec_request("command=sh&command=-c&command=a%20b+c&input=1&output=1&tty=true&error=0");
        assert_eq!(
            found,
            ExecRequest {
                command: vec!["sh".to_owned(), "-c".to_owned(), "a b c".to_owned()],
                stdin: true,
                tty: true,
            }
        );
    }
}
