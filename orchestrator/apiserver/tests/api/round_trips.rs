//! Every resource that is served, through all that can be done with it: the same way for each, by its facts.

use futures::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use moorline_schema::registry::{Registry, ResourceFacts, Stability};
use moorline_schema::{discovery, encode};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Reply, Server};
use crate::protobuf::{GO, PROTOBUF, as_told, ask};
use crate::samples::samples;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn collection(facts: &ResourceFacts) -> String {
    let root = if facts.group.is_empty() {
        "/api".to_owned()
    } else {
        format!("/apis/{}", facts.group)
    };
    let namespace = if facts.namespaced {
        "/namespaces/default"
    } else {
        ""
    };
    format!("{root}/{}{namespace}/{}", facts.version, facts.plural)
}

fn stored() -> impl Iterator<Item = &'static ResourceFacts> {
    Registry::builtin()
        .resources()
        .filter(|facts| facts.allows("list") && facts.allows("create"))
}

#[test]
fn discovery_says_what_the_facts_say() {
    let registry = Registry::builtin();
    for version in registry.groups().iter().flat_map(|group| &group.versions) {
        let Some(first) = version.resources.first() else {
            continue;
        };
        let list = discovery::api_resource_list(registry, &[], first.group, version.version);
        let is_served = version.stability == Stability::Stable;
        assert_eq!(list.is_some(), is_served, "{}/{}", first.group, version.version);
        let Some(list) = list else { continue };
        let rows = list["resources"].as_array().unwrap();
        for facts in &version.resources {
            let name = format!("{}.{}", facts.plural, facts.group);
            let row = rows.iter().find(|row| row["name"] == facts.plural).expect(&name);
            let or_empty = |field: &str| row.get(field).cloned().unwrap_or_else(|| json!([]));
            assert_eq!(
                (
                    &row["kind"],
                    &row["namespaced"],
                    &row["verbs"],
                    &row["singularName"]
                ),
                (
                    &json!(facts.kind),
                    &json!(facts.namespaced),
                    &json!(facts.verbs),
                    &json!(facts.singular)
                ),
                "{name}"
            );
            assert_eq!(
                (or_empty("shortNames"), or_empty("categories")),
                (json!(facts.short_names), json!(facts.categories)),
                "{name}"
            );
            assert_eq!(
                row.get("storageVersionHash").and_then(Value::as_str),
                facts.storage_version_hash,
                "{name}"
            );
            for sub in facts
                .subresources
                .iter()
                .filter(|sub| sub.name == "status" || sub.name == "scale")
            {
                let path = format!("{}/{}", facts.plural, sub.name);
                let row = rows.iter().find(|row| row["name"] == *path).expect(&path);
                assert_eq!(
                    (&row["kind"], &row["verbs"]),
                    (&json!(sub.kind), &json!(sub.verbs)),
                    "{path}"
                );
            }
        }
    }
}

#[test]
fn the_document_says_what_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
    let document = std::fs::read_to_string(path).unwrap();
    let registry = Registry::builtin();
    let rows = registry.served_group_versions().map(|(group, version)| {
        let resources = registry.served_in(group, version).map(|facts| {
            let subs = facts.subresources.iter().filter(|sub| sub.served);
            let subs: Vec<&str> = subs.map(|sub| sub.name).collect();
            if subs.is_empty() {
                facts.plural.to_owned()
            } else {
                format!("{} ({})", facts.plural, subs.join(", "))
            }
        });
        let resources: Vec<String> = resources.collect();
        let slash = if group.is_empty() { "" } else { "/" };
        format!("| `{group}{slash}{version}` | {} |", resources.join(", "))
    });
    let expected: Vec<String> = rows.collect();
    let found: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(found, expected);
}

/// One resource on one server.
struct Trip<'s> {
    server: &'s Server,
    facts: &'static ResourceFacts,
    collection: String,
}

impl Trip<'_> {
    fn check(&self, step: &str, reply: &Reply, code: u16) {
        let name = format!("{}.{}", self.facts.plural, self.facts.group);
        assert_eq!(reply.code, code, "{name}: {step}: {}", reply.text);
    }

    fn item(&self, object: &Value) -> String {
        format!(
            "{}/{}",
            self.collection,
            object["metadata"]["name"].as_str().unwrap()
        )
    }

    async fn create(&self, object: &Value) -> Value {
        let made = self.server.post(&self.collection, object).await;
        self.check("create", &made, 201);
        let again = self.server.post(&self.collection, object).await;
        self.check("create again", &again, 409);
        made.json
    }

    /// Both forms tell the same, and so does the list.
    async fn read(&self, made: &Value) {
        let path = self.item(made);
        let (_, _, in_json) = ask(self.server, Method::GET, &path, "application/json", Value::Null).await;
        let (code, form, in_protobuf) = ask(self.server, Method::GET, &path, GO, Value::Null).await;
        assert_eq!((code, &*form), (200, PROTOBUF), "{path}");
        assert_eq!(as_told(in_protobuf), as_told(in_json.clone()), "{path}");
        let list = self.server.get(&self.collection).await;
        self.check("list", &list, 200);
        let name = &made["metadata"]["name"];
        let listed = list.json["items"].as_array().unwrap().iter();
        let mut listed = listed.filter(|item| item["metadata"]["name"] == *name);
        assert!(listed.next().is_some(), "{path} is not listed");
        let table = self
            .server
            .send(
                Request::get(&self.collection)
                    .header("accept", TABLE)
                    .body(Body::empty())
                    .unwrap(),
            )
            .await;
        self.check("table", &table, 200);
        let columns = table.json["columnDefinitions"].as_array().unwrap().len();
        for row in table.json["rows"].as_array().unwrap() {
            assert_eq!(row["cells"].as_array().unwrap().len(), columns, "{path}");
        }
    }

    async fn write(&self, made: &Value) {
        let path = self.item(made);
        let current = self.server.get(&path).await.json;
        let mut changed = current.clone();
        changed["metadata"]["annotations"]["updated"] = json!("yes");
        self.check("update", &self.server.put(&path, &changed).await, 200);
        let stale = self.server.put(&path, &changed).await;
        // The same again changes nothing; its revision is outdated all the same.
        self.check("outdated update", &stale, 409);
        let label = |name: &str| json!({"metadata": {"labels": {name: "yes"}}});
        let applied = json!({"apiVersion": made["apiVersion"], "kind": made["kind"],
            "metadata": {"name": made["metadata"]["name"], "labels": {"applied": "yes"}}});
        let operations = json!([{"op": "add", "path": "/metadata/labels/json", "value": "yes"}]);
        let patches = [
            ("merge", "application/merge-patch+json", label("merge")),
            (
                "strategic",
                "application/strategic-merge-patch+json",
                label("strategic"),
            ),
            ("json", "application/json-patch+json", operations),
            ("applied", "application/apply-patch+yaml", applied),
        ];
        for (name, content_type, patch) in patches {
            let query = if name == "applied" {
                "?fieldManager=test&force=true"
            } else {
                ""
            };
            let reply = self
                .server
                .write(Method::PATCH, &format!("{path}{query}"), content_type, &patch)
                .await;
            self.check(name, &reply, 200);
            assert_eq!(
                reply.json["metadata"]["labels"][name], "yes",
                "{path}: {}",
                reply.text
            );
        }
        let unknown = json!({"nonsense": 1});
        let strict = format!("{path}?fieldValidation=Strict");
        self.check("unknown field", &self.server.merge(&strict, &unknown).await, 400);
        for sub in self.facts.subresources.iter().filter(|sub| sub.served) {
            if sub.verbs.contains(&"get") && matches!(sub.name, "status" | "scale" | "approval") {
                let reply = self.server.get(&format!("{path}/{}", sub.name)).await;
                self.check(sub.name, &reply, 200);
                let own = format!("{path}/{}", sub.name);
                self.check(sub.name, &self.server.merge(&own, &json!({})).await, 200);
            }
        }
    }

    /// Deletes, and takes away what holds the object, as others would.
    async fn delete(&self, path: &str, what: &str) {
        let reply = self.server.delete(what).await;
        self.check("delete", &reply, 200);
        if self.server.get(path).await.code == 200 && !self.has_loop() {
            let free = json!({"metadata": {"finalizers": null}});
            self.check("release", &self.server.merge(path, &free).await, 200);
        }
        self.server
            .until(path, "it to be gone", |reply| reply.code == 404)
            .await;
    }

    /// Whether the server itself releases objects of this kind.
    fn has_loop(&self) -> bool {
        matches!(self.facts.plural, "namespaces" | "customresourcedefinitions")
    }

    /// The changes since `revision`, until the object is gone.
    async fn watched(&self, name: &str, revision: &str) -> Vec<String> {
        let query = format!("watch=true&resourceVersion={revision}&fieldSelector=metadata.name%3D{name}");
        let request = Request::get(format!("{}?{query}", self.collection));
        let answer = self
            .server
            .admin()
            .send(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let mut pieces = answer.into_body().into_data_stream();
        let (mut text, mut kinds) = (Vec::new(), Vec::new());
        while kinds.last().is_none_or(|kind| kind != "DELETED") {
            let piece = tokio::time::timeout(PATIENCE, pieces.next()).await.expect(name);
            text.extend_from_slice(&piece.expect("the watch goes on").unwrap());
            let whole = text
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map_or(0, |at| at + 1);
            for line in text
                .drain(..whole)
                .collect::<Vec<u8>>()
                .split(|&byte| byte == b'\n')
            {
                if let Ok(event) = serde_json::from_slice::<Value>(line) {
                    kinds.push(event["type"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
        kinds
    }

    async fn create_in_protobuf(&self, object: &Value) {
        let body = encode::named(Registry::builtin(), object).unwrap();
        let request = Request::post(&self.collection).header("content-type", PROTOBUF);
        let reply = self.server.send(request.body(Body::from(body)).unwrap()).await;
        self.check("create in protobuf", &reply, 201);
    }
}

#[tokio::test]
async fn every_resource_goes_all_ways() {
    let server = Server::start().await;
    let mut count = 0;
    for facts in stored() {
        let trip = Trip {
            server: &server,
            facts,
            collection: collection(facts),
        };
        let [sample, other] = samples(facts);
        let made = trip.create(&sample).await;
        trip.read(&made).await;
        trip.write(&made).await;
        let path = trip.item(&made);
        trip.delete(&path, &path).await;
        let revision = made["metadata"]["resourceVersion"].as_str().unwrap();
        let kinds = trip
            .watched(made["metadata"]["name"].as_str().unwrap(), revision)
            .await;
        assert!(kinds.contains(&"MODIFIED".to_owned()), "{path}: {kinds:?}");
        trip.create_in_protobuf(&other).await;
        let path = trip.item(&other);
        if facts.allows("deletecollection") {
            let label = json!({"metadata": {"labels": {"round": "trip"}}});
            trip.check("label", &server.merge(&path, &label).await, 200);
            trip.delete(&path, &format!("{}?labelSelector=round%3Dtrip", trip.collection))
                .await;
        } else {
            trip.delete(&path, &path).await;
        }
        count += 1;
    }
    assert!(count > 50, "{count}");
    server.shut_down().await;
}

#[tokio::test]
async fn what_the_server_does_not_act_on_is_told() {
    let server = Server::start().await;
    let told = [
        ("", "resourcequotas", None),
        (
            "flowcontrol.apiserver.k8s.io",
            "flowschemas",
            Some("queues no requests by them"),
        ),
        (
            "admissionregistration.k8s.io",
            "validatingwebhookconfigurations",
            None,
        ),
        ("apps", "deployments", None),
        ("", "configmaps", None),
    ];
    for (group, plural, expected) in told {
        let facts = Registry::builtin().resource(group, "v1", plural).unwrap();
        let reply = server.post(&collection(facts), &samples(facts)[0]).await;
        assert_eq!(reply.code, 201, "{}", reply.text);
        let warning = reply.headers.get("warning").map(|value| value.to_str().unwrap());
        match expected {
            Some(expected) => assert!(warning.is_some_and(|text| text.contains(expected)), "{warning:?}"),
            None => assert_eq!(warning, None, "{plural}"),
        }
    }
    server.shut_down().await;
}
