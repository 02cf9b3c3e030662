//! Objects into answers: as they are, as metadata alone, or as rows of a table. Whole objects are never parsed for it.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use moorline_schema::custom::columns;
use moorline_schema::table;
use serde_json::{Value, json};

use super::Resource;
use crate::cache::Entry;
use crate::http::negotiation::{Encoding, Form, Shape};
use crate::http::query::Query;
use crate::http::{Answer, Failure, body};

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
        if self.form.shape == Shape::Table {
            let rows = entries
                .map(|entry| self.row(self.served(&entry.json), now))
                .collect();
            let table = self.table(metadata.to_json(), rows);
            return encoded(self.form.encoding, StatusCode::OK, Bytes::from(table.to_string()));
        }
        let (kind, api_version) = match self.form.shape {
            Shape::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
            _ => (
                self.resource.facts.list_kind.unwrap_or("List"),
                self.resource.facts.api_version(),
            ),
        };
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
            None => table::row(self.resource.facts.group, self.resource.facts.kind, &object, now),
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

/// An answer of finished JSON in the agreed encoding.
pub(crate) fn encoded(encoding: Encoding, code: StatusCode, json: Bytes) -> Answer {
    match encoding {
        Encoding::Json => body::whole(code, body::JSON, json),
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
