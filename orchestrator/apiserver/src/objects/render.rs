//! Objects into answers: as they are, as metadata alone, or as rows of a table. Whole objects are never parsed for it.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use moorline_schema::custom::columns;
use moorline_schema::registry::{Gvk, Registry};
use moorline_schema::{encode, table};
use serde_json::{Value, json};

use super::Resource;
use super::forms::Forms;
use crate::cache::Entry;
use crate::http::negotiation::{Encoding, Form, Shape};
use crate::http::query::Query;
use crate::http::{Answer, Failure, ResponseBody, body};

/// What a table's rows carry of their objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowObject {
    None,
    Metadata,
    Object,
}

/// Renders objects of one resource in the form a request asked for.
#[derive(Debug, Clone)]
pub(crate) struct Renderer {
    resource: Resource,
    form: Form,
    row_object: RowObject,
}

/// What stands in a list's metadata.
#[derive(Debug, Default)]
pub(crate) struct ListMetadata {
    pub(crate) revision: u64,
    pub(crate) continue_token: Option<String>,
    pub(crate) remaining: Option<u64>,
}

impl ListMetadata {
    fn to_json(&self) -> Value {
        let mut metadata = json!({ "resourceVersion": self.revision.to_string() });
        if let Some(token) = &self.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        metadata
    }
}

impl Renderer {
    pub(crate) fn new(resource: Resource, form: Form, query: &Query<'_>) -> Result<Self, Failure> {
        let row_object = match query.get("includeObject") {
            None | Some("Metadata") => RowObject::Metadata,
            Some("None") => RowObject::None,
            Some("Object") => RowObject::Object,
            Some(other) => return Err(Failure::bad_request(format!("invalid includeObject {other:?}"))),
        };
        Ok(Renderer {
            resource,
            form,
            row_object,
        })
    }

    /// Whether stored bytes are the answer's bytes.
    pub(crate) fn is_plain(&self) -> bool {
        self.form.shape == Shape::Object && self.resource.is_served_as_stored()
    }

    /// The object as it is served, as a tree.
    pub(crate) fn served(&self, json: &[u8]) -> Value {
        let value: Value = serde_json::from_slice(json).unwrap_or_default();
        if self.resource.is_served_as_stored() {
            value
        } else {
            self.resource.served(&value).into_owned()
        }
    }

    /// One object in the agreed shape, as JSON.
    pub(crate) fn object(&self, json: &Bytes, now: Timestamp) -> Bytes {
        if self.is_plain() {
            return json.clone();
        }
        let value = self.served(json);
        let shaped = match self.form.shape {
            Shape::Object => value,
            Shape::Metadata => partial(&value),
            Shape::Table => {
                let revision = value
                    .pointer("/metadata/resourceVersion")
                    .cloned()
                    .unwrap_or_default();
                self.table(json!({ "resourceVersion": revision }), vec![self.row(value, now)])
            }
        };
        Bytes::from(shaped.to_string())
    }

    /// The answer with one object.
    pub(crate) fn answer(&self, code: StatusCode, json: &Bytes, now: Timestamp) -> Answer {
        encoded(self.form.encoding, code, self.object(json, now))
    }

    /// The answer with a list. Memory: one copy of the list's bytes.
    pub(crate) fn list<'e>(
        &self,
        entries: impl Iterator<Item = &'e Entry> + Clone,
        metadata: &ListMetadata,
        now: Timestamp,
    ) -> Answer {
        if self.form.encoding == Encoding::Protobuf
            && let Some(answer) = self.protobuf_list(entries.clone(), metadata)
        {
            return answer;
        }
        if self.form.shape == Shape::Table {
            let rows = entries
                .map(|entry| self.row(self.served(&entry.json), now))
                .collect();
            let table = self.table(metadata.to_json(), rows);
            return encoded(self.form.encoding, StatusCode::OK, Bytes::from(table.to_string()));
        }
        let (kind, api_version) = self.list_type();
        let size: usize = entries.clone().map(|entry| entry.json.len() + 1).sum();
        let mut out = BytesMut::with_capacity(size + 256);
        let head = format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{},\"items\":[",
            metadata.to_json()
        );
        out.put_slice(head.as_bytes());
        for (index, entry) in entries.enumerate() {
            if index > 0 {
                out.put_u8(b',');
            }
            if self.is_plain() {
                out.put_slice(&entry.json);
            } else {
                out.put_slice(&self.object(&entry.json, now));
            }
        }
        out.put_slice(b"]}");
        encoded(self.form.encoding, StatusCode::OK, out.freeze())
    }

    /// The kind and version of a list that is no table.
    fn list_type(&self) -> (&'static str, String) {
        match self.form.shape {
            Shape::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
            _ => (
                self.resource.facts.list_kind.unwrap_or("List"),
                self.resource.facts.api_version(),
            ),
        }
    }

    /// The list in protobuf, if its type has that form. Memory: one copy of the list's bytes, one object as a tree.
    fn protobuf_list<'e>(
        &self,
        entries: impl Iterator<Item = &'e Entry>,
        metadata: &ListMetadata,
    ) -> Option<Answer> {
        let registry = Registry::builtin();
        let (kind, api_version) = self.list_type();
        let gvk = Gvk::new(&api_version, kind);
        let list = registry.type_by_gvk(gvk.group, gvk.version, gvk.kind)?;
        let mut encoder = encode::ListEncoder::new(registry, list, &metadata.to_json())?;
        for entry in entries {
            let value = self.served(&entry.json);
            encoder.push(&match self.form.shape {
                Shape::Metadata => partial(&value),
                _ => value,
            });
        }
        let bytes = encoder.finish(&api_version, kind).into();
        Some(body::whole(StatusCode::OK, body::PROTOBUF, bytes))
    }

    /// How an answer of events is labelled.
    pub(crate) fn stream_type(&self) -> HeaderValue {
        match self.form.encoding {
            Encoding::Protobuf => body::PROTOBUF_WATCH,
            Encoding::Json | Encoding::Yaml => body::JSON,
        }
    }

    /// Appends an event about a stored object to an answer of events.
    pub(crate) fn put_event(&self, out: &mut BytesMut, kind: &str, json: &Bytes, now: Timestamp) {
        let shaped = self.object(json, now);
        match self.form.encoding {
            Encoding::Protobuf => {
                self.put_tree(out, kind, &serde_json::from_slice(&shaped).unwrap_or_default())
            }
            Encoding::Json | Encoding::Yaml => put_line(out, kind, &shaped),
        }
    }

    /// Appends an event about a finished object.
    pub(crate) fn put_tree(&self, out: &mut BytesMut, kind: &str, object: &Value) {
        match self.form.encoding {
            Encoding::Protobuf => {
                // Negotiation gave protobuf only for kinds that have it; a client would skip an empty object.
                let object = encode::named(Registry::builtin(), object).unwrap_or_default();
                out.put_slice(&encode::watch_frame(kind, &object));
            }
            Encoding::Json | Encoding::Yaml => put_line(out, kind, object.to_string().as_bytes()),
        }
    }

    /// The object of a bookmark.
    pub(crate) fn bookmark(&self, revision: u64, ends_initial_events: bool) -> Value {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if ends_initial_events {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        match self.form.shape {
            Shape::Object => json!({
                "kind": self.resource.facts.kind,
                "apiVersion": self.resource.facts.api_version(),
                "metadata": metadata,
            }),
            Shape::Metadata => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
            }
            Shape::Table => {
                let object = json!({
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                });
                self.table(metadata, vec![json!({ "cells": [], "object": object })])
            }
        }
    }

    fn table(&self, metadata: Value, rows: Vec<Value>) -> Value {
        let columns: Vec<Value> = match &self.resource.custom {
            Some(custom) => columns::definitions(&custom.version().columns),
            None => table::columns(self.resource.facts.group, self.resource.facts.kind)
                .iter()
                .map(table::Column::to_json)
                .collect(),
        };
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns,
            "rows": rows,
        })
    }

    fn row(&self, object: Value, now: Timestamp) -> Value {
        let cells = match &self.resource.custom {
            Some(custom) => columns::row(&custom.version().columns, &object, now),
            None => {
                let facts = self.resource.facts;
                // Cells are made from the stored form, but those of events.
                let shown = match Forms::of(facts) {
                    Some(Forms::Autoscalers) => {
                        Cow::Owned(Forms::Autoscalers.convert(object.clone(), "autoscaling/v2"))
                    }
                    _ => Cow::Borrowed(&object),
                };
                table::row(facts.group, facts.kind, &shown, now)
            }
        };
        match self.row_object {
            RowObject::None => json!({ "cells": cells }),
            RowObject::Metadata => json!({ "cells": cells, "object": partial(&object) }),
            RowObject::Object => json!({ "cells": cells, "object": object }),
        }
    }
}

fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

fn put_line(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}

/// Turns a finished answer of JSON into protobuf, if it is an object that has this form.
pub(crate) fn in_protobuf(mut answer: Answer) -> Answer {
    if answer.headers().get(header::CONTENT_TYPE) != Some(&body::JSON) {
        return answer;
    }
    let ResponseBody::Whole(Some(json)) = answer.body() else {
        return answer;
    };
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    let Some(bytes) = encode::named(Registry::builtin(), &value) else {
        return answer;
    };
    *answer.body_mut() = ResponseBody::Whole(Some(bytes.into()));
    answer.headers_mut().insert(header::CONTENT_TYPE, body::PROTOBUF);
    answer
}

/// An answer of finished JSON in the agreed encoding; protobuf is made on the way out, by [`in_protobuf`].
pub(crate) fn encoded(encoding: Encoding, code: StatusCode, json: Bytes) -> Answer {
    match encoding {
        Encoding::Json | Encoding::Protobuf => body::whole(code, body::JSON, json),
        Encoding::Yaml => {
            let value: Value = serde_json::from_slice(&json).unwrap_or_default();
            match serde_saphyr::to_string(&value) {
                Ok(text) => body::whole(code, HeaderValue::from_static("application/yaml"), text.into()),
                Err(error) => body::failure(&Failure::internal(format!(
                    "the answer has no YAML form: {error}"
                ))),
            }
        }
    }
}
