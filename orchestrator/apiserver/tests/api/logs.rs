//! Logs, from a kubelet that knows nothing but them.

use std::sync::Arc;

use futures::StreamExt;
use http::Request;
use kube::client::Body;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::harness::{PATIENCE, Server, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Serves with the certificate of the cluster's kubelet and takes the server's client certificate only.
fn acceptor(server: &Server) -> TlsAcceptor {
    let pki = server.server.pki();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap())
        .unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let pair = pki.kubelet_serving();
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A pod on a node whose kubelet gives the answers, each to one request; the first lines of the requests come back.
async fn kubelet(server: &Server, answers: Vec<&'static str>) -> tokio::task::JoinHandle<Vec<String>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    assert_eq!(server.post("/api/v1/nodes", &node).await.code, 201);
    assert_eq!(server.post(PODS, &pod("p")).await.code, 201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(
        server.post(&format!("{PODS}/p/binding"), &binding).await.code,
        201
    );
    let acceptor = acceptor(server);
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(acceptor.accept(stream).await.unwrap());
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            asked.push(line.trim().to_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            if answer.contains("chunked") && !answer.ends_with("0\r\n\r\n") {
                // The rest never comes: wait until the other side has enough.
                let mut rest = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest)
                    .await
                    .ok();
            }
        }
        asked
    })
}

#[tokio::test]
async fn logs_come_from_the_node() {
    let server = Server::start().await;
    let answers = vec![
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\none\n",
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 26\r\n\r\ncontainer main is waiting\n",
    ];
    let kubelet = kubelet(&server, answers).await;
    let path = format!("{PODS}/p/log");
    let reply = server.get(&format!("{path}?tailLines=5&timestamps=true")).await;
    assert_eq!((reply.code.as_u16(), reply.text.as_str()), (200, "one\n"));
    assert_eq!(reply.headers["content-type"], "text/plain");
    let reply = server.get(&format!("{path}?previous=true")).await;
    assert_eq!(
        (reply.code.as_u16(), &reply.json["message"]),
        (400, &json!("container main is waiting"))
    );
    let asked = tokio::time::timeout(PATIENCE, kubelet).await.unwrap().unwrap();
    assert_eq!(
        asked[0],
        "GET /containerLogs/default/p/main?timestamps=true&tailLines=5 HTTP/1.1"
    );
    assert_eq!(
        asked[1],
        "GET /containerLogs/default/p/main?previous=true HTTP/1.1"
    );
    server.shut_down().await;
}

#[tokio::test]
async fn followed_logs_come_as_they_are_written_and_end_with_the_server() {
    let server = Server::start().await;
    let answers = vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n"];
    let kubelet = kubelet(&server, answers).await;
    let request = Request::get(format!("{PODS}/p/log?follow=true"))
        .body(Body::empty())
        .unwrap();
    let answer = server.admin().send(request).await.unwrap();
    let mut pieces = http_body_util::BodyExt::into_data_stream(answer.into_body());
    let first = tokio::time::timeout(PATIENCE, pieces.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(first, "one\n");
    server.stop.cancel();
    assert!(
        tokio::time::timeout(PATIENCE, pieces.next())
            .await
            .unwrap()
            .is_none()
    );
    drop(pieces);
    tokio::time::timeout(PATIENCE, kubelet).await.unwrap().unwrap();
    server.shut_down().await;
}

#[tokio::test]
async fn a_kubelet_that_is_away_is_named() {
    let server = Server::start().await;
    let kubelet = kubelet(&server, Vec::new()).await;
    kubelet.await.unwrap();
    let reply = server.get(&format!("{PODS}/p/log")).await;
    assert_eq!(reply.code, 500, "{}", reply.text);
    assert!(reply.text.contains("connect to 127.0.0.1:"), "{}", reply.text);
    let missing = server.get(&format!("{PODS}/p/log?container=x")).await;
    assert_eq!(
        (missing.code.as_u16(), &missing.json["message"]),
        (400, &json!("container x is not valid for pod p"))
    );
    server.shut_down().await;
}
