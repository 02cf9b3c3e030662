//! Random histories of creates, updates and applies, with the outcomes of the reference implementation
//! (`k8s.io/apimachinery` 0.36, driven by a small Go program): objects, owners byte for byte, conflicts.

use serde::Deserialize;
use serde_json::Value;

use super::update;
use crate::decode::{self, Strictness};
use crate::fields_v1::{Path, Set};
use crate::managed_fields::{ApplyError, Managed, OneVersion, Operation, Writer, apply};
use crate::object::is_empty;
use crate::registry::{Gvk, Registry, TypeId};

const HISTORIES: &str = include_str!("histories.jsonl");

#[derive(Deserialize)]
struct History {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Step {
    op: String,
    manager: String,
    subresource: String,
    force: bool,
    object: Value,
    given: Option<Value>,
    error: String,
    result: Value,
    managed: String,
}

/// One line an entry: manager, operation, version, subresource, whether it has a time, fields.
fn shown(managed: Option<&Value>) -> String {
    let Some(managed) = managed else {
        return String::new();
    };
    let decoded = Managed::decode(managed).unwrap();
    let order = managed
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["fieldsV1"].clone());
    let lines = order.zip(decoded.entries).map(|(fields, entry)| {
        let mut text = Vec::new();
        crate::fields_v1::write_ordered(&mut text, &fields);
        assert_eq!(String::from_utf8(text).unwrap(), entry.fields.to_json());
        let (operation, is_timed) = (entry.operation.as_str(), entry.time.is_some());
        let (manager, version, sub) = (entry.manager, entry.api_version, entry.subresource);
        format!(
            "{manager}|{operation}|{version}|{sub}|{is_timed}|{}\n",
            entry.fields.to_json()
        )
    });
    lines.collect()
}

/// As the server stores it.
fn canonical(type_id: TypeId, object: &Value) -> Value {
    let decoded = decode::value(Registry::builtin(), type_id, object, Strictness::Ignore);
    decoded.unwrap().value
}

fn with_owners(mut object: Value, managed: Option<Value>) -> Value {
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.remove("managedFields");
    metadata.extend(managed.map(|managed| ("managedFields".to_owned(), managed)));
    object
}

/// What is empty and no pointer in Go comes and goes with its encoder.
fn without_hollow(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let inner = map
                .iter()
                .map(|(name, value)| (name.clone(), without_hollow(value)));
            Value::Object(inner.filter(|(_, value)| !is_empty(Some(value))).collect())
        }
        Value::Array(list) => list.iter().map(without_hollow).collect(),
        other => other.clone(),
    }
}

struct Replay {
    type_id: TypeId,
    api_version: String,
    live: Option<Value>,
}

impl Replay {
    fn step(&mut self, step: &Step) -> Result<(Value, Option<Value>), ApplyError> {
        let registry = Registry::builtin();
        let versions = OneVersion::new(registry, self.type_id, &self.api_version);
        let ignored = if step.subresource == "status" {
            "spec"
        } else {
            "status"
        };
        let ignored = Set::of([Path::fields(&[ignored])]);
        let writer = Writer {
            manager: &step.manager,
            subresource: &step.subresource,
            api_version: &self.api_version,
            ignored: &ignored,
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
        };
        if step.op == "apply" {
            let applied = apply(&versions, &writer, self.live.as_ref(), &step.object, step.force)?;
            return Ok((canonical(self.type_id, &applied.object), applied.managed));
        }
        let new = canonical(self.type_id, &step.object);
        let managed = update(&versions, &writer, self.live.as_ref(), &new, step.given.as_ref());
        Ok((new, managed))
    }
}

/// Replays one history; says where it went another way.
fn replay(text: &str) -> Result<usize, String> {
    let history: History = serde_json::from_str(text).unwrap();
    let Gvk { group, version, kind } = Gvk::new(&history.api_version, &history.kind);
    let type_id = Registry::builtin().type_by_gvk(group, version, kind).unwrap();
    let mut replay = Replay {
        type_id,
        api_version: history.api_version.clone(),
        live: None,
    };
    for (index, step) in history.steps.iter().enumerate() {
        let place = format!("step {index}: {} by {}", step.op, step.manager);
        match replay.step(step) {
            Err(error) => {
                let text = error.to_string();
                if step.error.is_empty() || !text.starts_with(&step.error) {
                    return Err(format!("{place}: {text}, expected {:?}", step.error));
                }
            }
            Ok((object, managed)) => {
                let owners = shown(managed.as_ref());
                let (mut expected, mut found) = (canonical(type_id, &step.result), object.clone());
                for one in [&mut expected, &mut found] {
                    one["metadata"].as_object_mut().unwrap().remove("uid");
                }
                let (expected, found) = (without_hollow(&expected), without_hollow(&found));
                if !step.error.is_empty() || owners != step.managed || found != expected {
                    let wanted = format!("{}{}{expected}", step.error, step.managed);
                    return Err(format!("{place}:\n{owners}{found}\nexpected\n{wanted}"));
                }
                replay.live = Some(with_owners(object, managed));
            }
        }
    }
    Ok(history.steps.len())
}

#[test]
fn histories_end_as_in_the_reference_implementation() {
    let outcomes = HISTORIES.lines().map(replay).enumerate();
    let mut steps = 0;
    let failed = outcomes.filter_map(|(line, outcome)| match outcome {
        Ok(count) => {
            steps += count;
            None
        }
        Err(why) => Some(format!("history {line}, {why}")),
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    assert!(steps > 100, "{steps}");
}

#[test]
fn owners_survive_their_wire_form() {
    for text in HISTORIES.lines() {
        let history: History = serde_json::from_str(text).unwrap();
        for line in history.steps.iter().flat_map(|step| step.managed.lines()) {
            let (head, fields) = line.split_at(line.find('{').unwrap());
            let value: Value = serde_json::from_str(fields).unwrap();
            let set = Set::from_json(&value).unwrap();
            assert_eq!(set.to_json(), fields);
            assert_eq!(set.to_value(), value);
            let is_apply = head.contains("|Apply|");
            assert_ne!(is_apply, head.contains(Operation::Update.as_str()));
        }
    }
}
