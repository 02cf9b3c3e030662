//! Addresses and ports of services: given once, written down with the service, free again without it.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::harness::Server;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, more: Value) -> Value {
    let mut spec = json!({"ports": [{"port": 80}]});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().cloned().unwrap());
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

async fn held(server: &Server) -> Vec<(String, String)> {
    let list = server.get(ADDRESSES).await.json;
    let items = list["items"].as_array().unwrap().iter();
    let pair = |item: &Value| {
        let parent = item["spec"]["parentRef"]["name"].as_str().unwrap().to_owned();
        (parent, item["metadata"]["name"].as_str().unwrap().to_owned())
    };
    items.map(pair).collect()
}

#[tokio::test]
async fn an_address_lives_as_long_as_its_service() {
    let server = Server::start().await;
    let made = server.post(SERVICES, &service("a", json!({}))).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let spec = &made.json["spec"];
    let address = spec["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(
        (&spec["clusterIPs"], &spec["ipFamilies"], &spec["ipFamilyPolicy"]),
        (&json!([address]), &json!(["IPv4"]), &json!("SingleStack"))
    );
    let expected = [
        ("kubernetes".to_owned(), "10.96.0.1".to_owned()),
        ("a".to_owned(), address.clone()),
    ];
    let mut found = held(&server).await;
    found.sort_by_key(|(parent, _)| parent != "kubernetes");
    assert_eq!(found, expected);
    let taken = server
        .post(SERVICES, &service("b", json!({"clusterIP": address})))
        .await;
    assert_eq!(taken.code, 422, "{}", taken.text);
    assert!(
        taken.text.contains("provided IP is already allocated"),
        "{}",
        taken.text
    );
    let elsewhere = server
        .post(SERVICES, &service("b", json!({"clusterIP": "192.168.0.1"})))
        .await;
    assert_eq!(elsewhere.code, 422, "{}", elsewhere.text);
    let dry = server
        .post(&format!("{SERVICES}?dryRun=All"), &service("b", json!({})))
        .await;
    assert_eq!(dry.code, 201, "{}", dry.text);
    assert_eq!(held(&server).await.len(), 2);
    // A client that replaces the whole object without the address keeps it.
    let path = format!("{SERVICES}/a");
    let replaced = server
        .put(&path, &service("a", json!({"selector": {"a": "b"}})))
        .await;
    assert_eq!(replaced.code, 200, "{}", replaced.text);
    assert_eq!(replaced.json["spec"]["clusterIP"], json!(address));
    let name = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let renamed = server.merge(&path, &name).await;
    assert_eq!(renamed.code, 200, "{}", renamed.text);
    assert_eq!(renamed.json["spec"].get("clusterIP"), None, "{}", renamed.text);
    assert_eq!(held(&server).await.len(), 1);
    let back = server
        .merge(
            &path,
            &json!({"spec": {"type": "ClusterIP", "clusterIP": address, "externalName": null}}),
        )
        .await;
    assert_eq!(back.code, 200, "{}", back.text);
    assert_eq!(held(&server).await.len(), 2);
    server.delete(&path).await;
    assert_eq!(held(&server).await.len(), 1);
    let again = server
        .post(SERVICES, &service("b", json!({"clusterIP": address})))
        .await;
    assert_eq!(again.code, 201, "{}", again.text);
    server.shut_down().await;
}

#[tokio::test]
async fn no_number_is_given_twice() {
    let server = Server::start().await;
    let bodies: Vec<Value> = (0..24)
        .map(|index| service(&format!("s{index}"), json!({"type": "NodePort"})))
        .collect();
    let made = join_all(bodies.iter().map(|body| server.post(SERVICES, body))).await;
    let (mut addresses, mut ports) = (Vec::new(), Vec::new());
    for reply in made {
        assert_eq!(reply.code, 201, "{}", reply.text);
        addresses.push(reply.json["spec"]["clusterIP"].as_str().unwrap().to_owned());
        ports.push(reply.json["spec"]["ports"][0]["nodePort"].as_i64().unwrap());
    }
    for (index, port) in ports.iter().enumerate() {
        assert!(
            (30_000..=32_767).contains(port) && !ports[..index].contains(port),
            "{ports:?}"
        );
        assert!(!addresses[..index].contains(&addresses[index]), "{addresses:?}");
    }
    let again = server
        .post(
            SERVICES,
            &service(
                "t",
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": ports[0]}]}),
            ),
        )
        .await;
    assert_eq!(again.code, 422, "{}", again.text);
    let cause = &again.json["details"]["causes"][0];
    assert_eq!(cause["field"], "spec.ports[0].nodePort", "{}", again.text);
    server.shut_down().await;
}
