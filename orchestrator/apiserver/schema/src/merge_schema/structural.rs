//! The schema of custom objects, read from the structural schema of their definition.

use serde_json::Value;

use super::{Builtin, Forms, ListRule, MapRule, MergeSchema, Scalar, Untyped};
use crate::custom::Version;
use crate::custom::structural::{JsonType, ListKind, Schema};
use crate::registry::Registry;

/// The type of `metadata`, also of custom objects.
const METADATA_TYPE: &str = "meta/v1.ObjectMeta";

/// A place in the schema of an object, custom or built in.
#[derive(Clone, Copy, Debug)]
pub struct Structural<'s> {
    registry: &'s Registry,
    place: Place<'s>,
}

#[derive(Clone, Copy, Debug)]
enum Place<'s> {
    /// Of a built-in object.
    Builtin(Builtin<'s>),
    /// In the metadata of a custom object, where nothing is implied.
    Metadata(Builtin<'s>),
    /// Of a custom object; the second says whether unknown fields are kept here, by this schema or one around it.
    Schema(&'s Schema, bool),
    /// `apiVersion` and `kind`.
    Text,
    /// Something the schema leaves open.
    Untyped(Untyped),
}

impl<'s> Structural<'s> {
    /// The schema of a custom object.
    #[must_use]
    pub fn new(registry: &'s Registry, version: &'s Version) -> Self {
        let place = Place::Untyped(Untyped::Deduced);
        Structural { registry, place }.of(&version.schema, false)
    }

    /// The schema of a built-in object.
    #[must_use]
    pub fn builtin(registry: &'s Registry, schema: Builtin<'s>) -> Self {
        Structural {
            registry,
            place: Place::Builtin(schema),
        }
    }

    fn at(self, place: Place<'s>) -> Self {
        Structural { place, ..self }
    }

    fn of(self, schema: &'s Schema, keeps_unknown: bool) -> Self {
        self.at(Place::Schema(schema, keeps_unknown || schema.preserve_unknown))
    }

    fn embedded_field(self, name: &str) -> Option<Place<'s>> {
        match name {
            "metadata" => {
                let type_id = self.registry.type_by_id(METADATA_TYPE)?;
                Some(Place::Metadata(Builtin::new(self.registry, type_id)))
            }
            "apiVersion" | "kind" => Some(Place::Text),
            _ => None,
        }
    }
}

fn list_rule(schema: &Schema) -> ListRule {
    match &schema.list_kind {
        None | Some(ListKind::Atomic) => ListRule::Atomic,
        Some(ListKind::Set) => ListRule::Set,
        Some(ListKind::Map(_)) => ListRule::Keyed,
    }
}

fn map_rule(schema: &Schema) -> MapRule {
    if schema.atomic_map {
        MapRule::Atomic
    } else {
        MapRule::Granular
    }
}

fn forms(schema: &Schema) -> Forms {
    match schema.kind {
        None => Forms {
            scalar: Some(Scalar::Any),
            list: Some(list_rule(schema)),
            map: Some(map_rule(schema)),
        },
        Some(JsonType::Object) => Forms::map(map_rule(schema)),
        Some(JsonType::Array) => Forms::list(list_rule(schema)),
        Some(JsonType::Integer | JsonType::Number) => Forms::scalar(Scalar::Number),
        Some(JsonType::Boolean) => Forms::scalar(Scalar::Boolean),
        // Texts of a format may be written in several ways.
        Some(JsonType::String) if !matches!(schema.format.as_str(), "" | "byte") => {
            Forms::scalar(Scalar::Any)
        }
        Some(JsonType::String) => Forms::scalar(Scalar::Text),
    }
}

impl<'s> MergeSchema<'s> for Structural<'s> {
    fn forms(self) -> Forms {
        match self.place {
            Place::Builtin(inner) | Place::Metadata(inner) => inner.forms(),
            Place::Schema(schema, _) => forms(schema),
            Place::Text => Forms::scalar(Scalar::Text),
            Place::Untyped(untyped) => untyped.forms(),
        }
    }

    fn element(self) -> Self {
        match self.place {
            Place::Builtin(inner) => self.at(Place::Builtin(inner.element())),
            Place::Metadata(inner) => self.at(Place::Metadata(inner.element())),
            Place::Schema(schema, keeps_unknown) => match &schema.items {
                Some(items) => self.of(items, keeps_unknown),
                None => self.at(Place::Untyped(Untyped::Atomic)),
            },
            Place::Text => self.at(Place::Untyped(Untyped::Atomic)),
            Place::Untyped(untyped) => self.at(Place::Untyped(untyped.element())),
        }
    }

    fn field(self, name: &str) -> Option<Self> {
        match self.place {
            Place::Builtin(inner) => inner.field(name).map(|field| self.at(Place::Builtin(field))),
            Place::Metadata(inner) => inner.field(name).map(|field| self.at(Place::Metadata(field))),
            Place::Schema(schema, keeps_unknown) => {
                let own = if schema.embedded {
                    self.embedded_field(name)
                } else {
                    None
                };
                let stated = || schema.properties.get(name);
                own.map(|place| self.at(place))
                    .or_else(|| stated().map(|field| self.of(field, keeps_unknown)))
            }
            Place::Text | Place::Untyped(_) => None,
        }
    }

    fn entry(self) -> Option<Self> {
        match self.place {
            Place::Builtin(inner) => inner.entry().map(|entry| self.at(Place::Builtin(entry))),
            Place::Metadata(inner) => inner.entry().map(|entry| self.at(Place::Metadata(entry))),
            Place::Schema(schema, keeps_unknown) => match &schema.additional {
                Some(values) => Some(self.of(values, keeps_unknown)),
                // An object that says nothing of its fields is open to all.
                None if keeps_unknown || (schema.properties.is_empty() && !schema.embedded) => {
                    Some(self.at(Place::Untyped(Untyped::Deduced)))
                }
                None => None,
            },
            Place::Text => None,
            Place::Untyped(untyped) => untyped.entry().map(|entry| self.at(Place::Untyped(entry))),
        }
    }

    fn list_key(self, index: usize) -> Option<&'s str> {
        match self.place {
            Place::Builtin(inner) | Place::Metadata(inner) => inner.list_key(index),
            Place::Schema(
                Schema {
                    list_kind: Some(ListKind::Map(keys)),
                    ..
                },
                _,
            ) => keys.get(index).map(String::as_str),
            Place::Schema(..) | Place::Text | Place::Untyped(_) => None,
        }
    }

    fn list_key_default(self, key: &str) -> Option<&'s Value> {
        match self.place {
            Place::Builtin(inner) | Place::Metadata(inner) => inner.list_key_default(key),
            Place::Schema(schema, _) => schema.items.as_ref()?.properties.get(key)?.default.as_ref(),
            Place::Text | Place::Untyped(_) => None,
        }
    }

    fn implied(self) -> &'s [(&'static str, Value)] {
        match self.place {
            Place::Builtin(inner) => inner.implied(),
            Place::Metadata(_) | Place::Schema(..) | Place::Text | Place::Untyped(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        let text = || json!({"type": "string"});
        let source = json!({"type": "object", "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}}},
            "spec": {"type": "object", "properties": {
                "ports": {"type": "array", "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["port", "protocol"], "items": {"type": "object", "properties": {
                        "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": text()},
                "args": {"type": "array", "items": text()},
                "selector": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": text()},
                "labels": {"type": "object", "additionalProperties": text()},
                "free": {"type": "object"},
                "amount": {"x-kubernetes-int-or-string": true},
                "when": {"type": "string", "format": "date-time"},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                    "inner": {"type": "object", "properties": {"known": text()}}}},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                    "x-kubernetes-preserve-unknown-fields": true},
            }},
        }});
        Schema::compile_root(&source).unwrap()
    }

    /// Walks down by names; `*` is a list's element or a map's value.
    fn at<'s>(schema: &'s Schema, path: &str) -> Option<Structural<'s>> {
        let root = Structural {
            registry: Registry::builtin(),
            place: Place::Schema(schema, false),
        };
        let mut steps = path.split('.').filter(|step| !step.is_empty());
        steps.try_fold(root, |node, step| match step {
            "*" if node.forms().list.is_some() => Some(node.element()),
            "*" => node.entry(),
            name => node.field(name),
        })
    }

    #[test]
    fn forms_of_places() {
        use Scalar::{Any, Number, Text};
        let any = |list, map| Forms {
            scalar: Some(Any),
            list: Some(list),
            map: Some(map),
        };
        let open = any(ListRule::Atomic, MapRule::Granular);
        let cases = [
            ("", Some(Forms::map(MapRule::Granular))),
            ("kind", Some(Forms::scalar(Text))),
            ("metadata.labels.*", Some(Forms::scalar(Text))),
            ("metadata.finalizers", Some(Forms::list(ListRule::Set))),
            ("metadata.ownerReferences", Some(Forms::list(ListRule::Keyed))),
            ("metadata.nonsense", None),
            ("nonsense", None),
            ("*", None),
            ("spec.ports", Some(Forms::list(ListRule::Keyed))),
            ("spec.ports.*.port", Some(Forms::scalar(Number))),
            ("spec.tags", Some(Forms::list(ListRule::Set))),
            ("spec.args", Some(Forms::list(ListRule::Atomic))),
            ("spec.selector", Some(Forms::map(MapRule::Atomic))),
            ("spec.labels", Some(Forms::map(MapRule::Granular))),
            ("spec.labels.*", Some(Forms::scalar(Text))),
            ("spec.free.*", Some(open)),
            ("spec.amount", Some(open)),
            ("spec.when", Some(Forms::scalar(Any))),
            ("spec.raw.*", Some(open)),
            ("spec.raw.inner.known", Some(Forms::scalar(Text))),
            ("spec.raw.inner.*", Some(open)),
            (
                "spec.template.metadata.finalizers",
                Some(Forms::list(ListRule::Set)),
            ),
            ("spec.template.*", Some(open)),
        ];
        let schema = schema();
        for (path, expected) in cases {
            assert_eq!(at(&schema, path).map(MergeSchema::forms), expected, "{path}");
        }
    }

    #[test]
    fn keys_and_their_defaults() {
        let schema = schema();
        let ports = at(&schema, "spec.ports").unwrap();
        assert_eq!(
            [0, 1, 2].map(|index| ports.list_key(index)),
            [Some("port"), Some("protocol"), None]
        );
        assert_eq!(ports.list_key_default("protocol"), Some(&json!("TCP")));
        assert_eq!(ports.list_key_default("port"), None);
        assert!(at(&schema, "metadata").unwrap().implied().is_empty());
    }
}
