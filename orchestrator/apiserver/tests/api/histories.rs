//! For all histories: a list, followed by the changes since, is what a later list shows. Whatever the selector, and
//! wherever the watch begins.

use std::collections::BTreeMap;

use http::Request;
use kube::client::Body;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::harness::{Server, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const NAMES: [&str; 3] = ["a", "b", "c"];
const LABELS: [&str; 2] = ["x", "y"];

#[derive(Debug, Clone)]
enum Step {
    /// Made or changed; the label decides whether the watch sees it.
    Put {
        name: usize,
        label: usize,
        data: u8,
    },
    Delete {
        name: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let put = (0..NAMES.len(), 0..LABELS.len(), 0u8..3).prop_map(|(name, label, data)| Step::Put {
        name,
        label,
        data,
    });
    prop_oneof![3 => put, 1 => (0..NAMES.len()).prop_map(|name| Step::Delete { name })]
}

type State = BTreeMap<String, Value>;

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

async fn take(server: &Server, step: &Step) {
    match step {
        Step::Put { name, label, data } => {
            let mut object = config_map(NAMES[*name]);
            object["metadata"]["labels"] = json!({"l": LABELS[*label]});
            object["data"]["a"] = json!(data.to_string());
            let path = format!("{MAPS}/{}", NAMES[*name]);
            if server.put(&path, &object).await.code == 404 {
                assert_eq!(server.post(MAPS, &object).await.code, 201);
            }
        }
        Step::Delete { name } => {
            let code = server.delete(&format!("{MAPS}/{}", NAMES[*name])).await.code;
            assert!(code == 200 || code == 404, "{code}");
        }
    }
}

/// The list with this selector, and its revision.
async fn list(server: &Server, selector: &str) -> (State, u64) {
    let list = server.get(&format!("{MAPS}?labelSelector={selector}")).await.json;
    let items = list["items"].as_array().unwrap().iter();
    let state = items
        .map(|object| (name_of(object), object["metadata"].clone()))
        .collect();
    (
        state,
        list["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap(),
    )
}

/// Everything a watch says from a revision on; it ends after a second.
async fn watch(server: &Server, selector: &str, revision: u64) -> Vec<Value> {
    let path =
        format!("{MAPS}?watch=true&labelSelector={selector}&resourceVersion={revision}&timeoutSeconds=1");
    let answer = server
        .admin()
        .send(Request::get(path).body(Body::empty()).unwrap())
        .await
        .unwrap();
    let bytes = answer.into_body().collect_bytes().await.unwrap();
    String::from_utf8_lossy(&bytes)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Applies events, checking that each makes sense where it stands.
fn follow(mut state: State, from: u64, events: &[Value]) -> State {
    let mut last = from;
    for event in events {
        let (kind, object) = (event["type"].as_str().unwrap(), &event["object"]);
        let revision: u64 = object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(revision > last, "{kind} at {revision} after {last}");
        last = revision;
        let name = name_of(object);
        let before = match kind {
            "DELETED" => state.remove(&name),
            _ => state.insert(name, object["metadata"].clone()),
        };
        assert_eq!(before.is_none(), kind == "ADDED", "{event}");
    }
    state
}

async fn check(steps: &[Step]) {
    let server = Server::start().await;
    let selectors = ["l", "l%3Dx", "l!%3Dx,l"];
    let mut starts = Vec::new();
    for step in steps {
        for selector in selectors {
            starts.push((selector, list(&server, selector).await));
        }
        take(&server, step).await;
    }
    let ends = futures::future::join_all(selectors.map(|selector| list(&server, selector))).await;
    let watches = starts
        .iter()
        .map(|(selector, (_, revision))| watch(&server, selector, *revision));
    let watched = futures::future::join_all(watches).await;
    for ((selector, (state, revision)), events) in starts.iter().zip(watched) {
        let end = &ends[selectors.iter().position(|one| one == selector).unwrap()].0;
        assert_eq!(
            &follow(state.clone(), *revision, &events),
            end,
            "{selector} from {revision}: {events:#?}"
        );
    }
    server.shut_down().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn a_list_and_its_watch_are_a_later_list(steps in prop::collection::vec(step(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(&steps));
    }
}
