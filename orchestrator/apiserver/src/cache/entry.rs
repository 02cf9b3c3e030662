//! One stored object: its JSON bytes with the revision in them, and the few facts that selectors and the garbage
//! collector ask for, taken out once.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use moorline_schema::{fields_v1, selector};
use serde::Deserialize;
use serde_json::{Map, Value};

mod apart;

pub(crate) use apart::Apart;

const REVISION_FIELD: &[u8] = b"\"resourceVersion\":\"";
const OWNERS: &str = "managedFields";

/// An object that another one belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Owner {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) block_owner_deletion: bool,
}

/// One object at one revision.
#[derive(Debug)]
pub(crate) struct Entry {
    /// `namespace/name`, or the name alone for cluster-wide objects.
    pub(crate) path: Arc<str>,
    pub(crate) revision: u64,
    /// The object as clients see it.
    pub(crate) json: Bytes,
    pub(crate) facts: Arc<Facts>,
    /// What is stored looks otherwise: written under another definition, or in another version.
    pub(crate) is_stale: bool,
}

/// What is known of an object without parsing it again.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) uid: Box<str>,
    pub(crate) labels: Option<Map<String, Value>>,
    /// The values of the collection's selectable fields, in their order.
    pub(crate) fields: Box<[Box<str>]>,
    pub(crate) owners: Box<[Owner]>,
    pub(crate) finalizers: Box<[Box<str>]>,
    pub(crate) is_deleting: bool,
}

impl Entry {
    /// The namespace; empty for cluster-wide objects.
    pub(crate) fn namespace(&self) -> &str {
        self.path.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The object's name.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(&*self.path, |(_, name)| name)
    }

    /// The object as a tree.
    pub(crate) fn value(&self) -> Value {
        // The bytes were made by this server from a tree.
        serde_json::from_slice(&self.json).unwrap_or_default()
    }

    /// The object as a tree, apart from its owners.
    pub(crate) fn apart(&self) -> Apart<'_> {
        Apart::read(&self.json)
    }

    /// The same state under another revision: what a delete event shows.
    pub(crate) fn at_revision(&self, head_len: usize, revision: u64) -> Entry {
        let digits = self.revision.checked_ilog10().unwrap_or(0) as usize + 1;
        let rest = head_len + REVISION_FIELD.len() + digits + 2;
        let json = join(&self.json[..head_len], revision, &self.json[rest..]);
        Entry {
            path: Arc::clone(&self.path),
            revision,
            json,
            facts: Arc::clone(&self.facts),
            is_stale: self.is_stale,
        }
    }
}

/// What every stored object of a kind begins with, up to the first field of its metadata.
pub(crate) fn head(api_version: &str, kind: &str) -> Bytes {
    Bytes::from(format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{{"
    ))
}

/// The bytes that are stored: kind, version and metadata first, and no revision. The owners are those of the object.
pub(crate) fn encode(head: &[u8], object: &Value) -> Bytes {
    let managed = object.get("metadata").and_then(|metadata| metadata.get(OWNERS));
    let managed = managed.map(|managed| {
        let mut text = Vec::with_capacity(512);
        fields_v1::write_ordered(&mut text, managed);
        text
    });
    join_fields(head, object, managed.as_deref())
}

/// As [`encode`], with the owners as text.
pub(crate) fn encode_apart(head: &[u8], object: &Value, managed: Option<&str>) -> Bytes {
    join_fields(head, object, managed.map(str::as_bytes))
}

/// The fields are in the order of their names, the owners among them.
fn join_fields(head: &[u8], object: &Value, mut managed: Option<&[u8]>) -> Bytes {
    let mut out = BytesMut::with_capacity(1024 + managed.map_or(0, <[u8]>::len)).writer();
    out.get_mut().put_slice(head);
    let metadata = object.get("metadata").and_then(Value::as_object);
    let fields = metadata.into_iter().flatten();
    let mut comma = false;
    for (name, value) in fields.filter(|(name, _)| !matches!(name.as_str(), "resourceVersion" | OWNERS)) {
        if name.as_str() > OWNERS && managed.is_some() {
            put_owners(&mut out, comma, managed.take());
            comma = true;
        }
        put_field(&mut out, comma, name, value);
        comma = true;
    }
    put_owners(&mut out, comma, managed);
    out.get_mut().put_u8(b'}');
    let rest = object.as_object().into_iter().flatten();
    for (name, value) in rest.filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion" | "metadata"))
    {
        put_field(&mut out, true, name, value);
    }
    let mut out = out.into_inner();
    out.put_u8(b'}');
    out.freeze()
}

fn put_owners(out: &mut bytes::buf::Writer<BytesMut>, comma: bool, managed: Option<&[u8]>) {
    let Some(managed) = managed else { return };
    let out = out.get_mut();
    if comma {
        out.put_u8(b',');
    }
    out.put_slice(b"\"managedFields\":");
    out.put_slice(managed);
}

fn put_field(out: &mut bytes::buf::Writer<BytesMut>, comma: bool, name: &str, value: &Value) {
    if comma {
        out.get_mut().put_u8(b',');
    }
    // Writing trees to memory cannot fail.
    serde_json::to_writer(&mut *out, name).ok();
    out.get_mut().put_u8(b':');
    serde_json::to_writer(&mut *out, value).ok();
}

/// Puts the revision into stored bytes. Values that another program stored in its own order are rewritten.
pub(crate) fn with_revision(head: &[u8], stored: &[u8], revision: u64) -> Bytes {
    if let Some(rest) = stored.strip_prefix(head) {
        return join(head, revision, rest);
    }
    let object: Value = serde_json::from_slice(stored).unwrap_or_default();
    let encoded = encode(head, &object);
    join(head, revision, &encoded[head.len()..])
}

fn join(head: &[u8], revision: u64, rest: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(head.len() + rest.len() + REVISION_FIELD.len() + 22);
    out.put_slice(head);
    out.put_slice(REVISION_FIELD);
    out.put_slice(revision.to_string().as_bytes());
    out.put_slice(if rest.starts_with(b"}") { b"\"" } else { b"\"," });
    out.put_slice(rest);
    out.freeze()
}

#[derive(Deserialize)]
struct Partial {
    metadata: PartialMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialMetadata {
    #[serde(default)]
    uid: Box<str>,
    labels: Option<Map<String, Value>>,
    owner_references: Option<Vec<Owner>>,
    finalizers: Option<Vec<Box<str>>>,
    deletion_timestamp: Option<serde::de::IgnoredAny>,
}

/// Takes the facts out of an object's bytes. `fields` are the selectable ones of the collection.
pub(crate) fn facts(json: &[u8], path: &str, fields: &[&str]) -> Facts {
    let Ok(Partial { metadata }) = serde_json::from_slice(json) else {
        return Facts::default();
    };
    let is_own = |field: &&str| matches!(*field, "metadata.name" | "metadata.namespace");
    let whole = if fields.iter().all(is_own) {
        Value::Null
    } else {
        Apart::read(json).object
    };
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    let values = fields.iter().map(|field| match *field {
        "metadata.name" => name.into(),
        "metadata.namespace" => namespace.into(),
        field => selector::field_value(&whole, field).into(),
    });
    Facts {
        uid: metadata.uid,
        labels: metadata.labels,
        fields: values.collect(),
        owners: metadata.owner_references.unwrap_or_default().into(),
        finalizers: metadata.finalizers.unwrap_or_default().into(),
        is_deleting: metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(revision: u64) -> Entry {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
            "metadata": {"name": "x", "namespace": "n", "uid": "u", "resourceVersion": "3", "labels": {"l": "1"},
                "annotations": {"a": "1"}},
        });
        let head = head("v1", "ConfigMap");
        let json = with_revision(&head, &encode(&head, &object), revision);
        let facts = Arc::new(facts(&json, "n/x", &["metadata.name", "metadata.namespace"]));
        Entry {
            path: "n/x".into(),
            revision,
            json,
            facts,
            is_stale: false,
        }
    }

    #[test]
    fn revision_is_put_in_and_replaced() {
        let head_len = head("v1", "ConfigMap").len();
        for (from, to) in [(9, 10), (10, 9), (1, 123_456), (123_456, 1)] {
            let moved = entry(from).at_revision(head_len, to);
            let mut expected = entry(from).value();
            expected["metadata"]["resourceVersion"] = json!(to.to_string());
            assert_eq!(moved.value(), expected);
            assert_eq!(moved.json, entry(to).json);
        }
    }

    #[test]
    fn facts_are_taken_out() {
        let entry = entry(7);
        assert_eq!(
            (entry.namespace(), entry.name(), &*entry.facts.uid),
            ("n", "x", "u")
        );
        assert_eq!(entry.facts.labels.as_ref().unwrap()["l"], "1");
        assert_eq!(entry.facts.fields, ["x".into(), "n".into()].into());
        assert!(!entry.facts.is_deleting);
    }

    #[test]
    fn owners_go_apart_and_come_back_in_their_place() {
        let head = head("v1", "ConfigMap");
        let managed = r#"[{"fieldsV1":{"f:a":{},"k:{\"port\":80}":{},"k:{\"port\":443}":{}},"manager":"m"}]"#;
        let metadatas = [
            json!({"labels": {"l": "1"}, "name": "x"}),
            json!({"labels": {"l": "1"}}),
            json!({"name": "x"}),
            json!({}),
        ];
        for metadata in metadatas {
            for managed in [None, Some(managed)] {
                let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}});
                let stored = encode_apart(&head, &object, managed);
                let apart = Apart::read(&stored);
                assert_eq!((&apart.object, apart.managed), (&object, managed), "{object}");
                // The same bytes as of the whole.
                let whole: Value = serde_json::from_slice(&stored).unwrap();
                assert_eq!(encode(&head, &whole), stored, "{object}");
            }
        }
    }

    #[test]
    fn values_in_another_order_are_rewritten() {
        let head = head("v1", "ConfigMap");
        let foreign = br#"{"metadata":{"name":"x"},"apiVersion":"v1","kind":"ConfigMap","data":{"k":"v"}}"#;
        let json = with_revision(&head, foreign, 5);
        let value: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["metadata"], json!({"name": "x", "resourceVersion": "5"}));
        assert_eq!(value["data"]["k"], "v");
    }
}
