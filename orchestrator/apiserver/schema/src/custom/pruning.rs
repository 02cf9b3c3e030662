//! Drops what a schema doesn't know.

use serde_json::{Map, Value};

use super::structural::Schema;
use crate::place::Place;

/// Fields that every resource has, whatever its schema says of them.
const OF_EVERY_RESOURCE: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops unknown fields and nulls where null is no value; tells `unknown` of each dropped field by its path.
pub fn prune(schema: &Schema, value: &mut Value, mut unknown: impl FnMut(String)) {
    prune_at(schema, value, &Place::ROOT, &mut unknown);
}

fn prune_at(schema: &Schema, value: &mut Value, place: &Place<'_>, unknown: &mut dyn FnMut(String)) {
    match value {
        Value::Object(map) => prune_map(schema, map, place, unknown),
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, item) in list.iter_mut().enumerate() {
                    prune_at(items, item, &place.index(index), unknown);
                }
            } else if !schema.preserve_unknown {
                // A list where the schema has none is wrong, which validation says.
                for (index, item) in list.iter_mut().enumerate() {
                    prune_at(&Schema::default(), item, &place.index(index), unknown);
                }
            }
        }
        _ => {}
    }
}

fn prune_map(
    schema: &Schema,
    map: &mut Map<String, Value>,
    place: &Place<'_>,
    unknown: &mut dyn FnMut(String),
) {
    let mut dropped = Vec::new();
    for (name, value) in map.iter_mut() {
        if schema.embedded && OF_EVERY_RESOURCE.contains(&name.as_str()) {
            continue;
        }
        let here = place.entry(name);
        match schema.field(name) {
            Some(field) if value.is_null() && !allows_null(field) && field.default.is_none() => {
                dropped.push(name.clone());
            }
            Some(field) => prune_at(field, value, &here, unknown),
            None if schema.preserve_unknown => {}
            None => {
                unknown(here.to_string());
                dropped.push(name.clone());
            }
        }
    }
    for name in dropped {
        map.remove(&name);
    }
}

/// Whether null stays where it is.
fn allows_null(schema: &Schema) -> bool {
    schema.nullable || (schema.kind.is_none() && schema.preserve_unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub(super) fn schema() -> Schema {
        Schema::compile_root(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "known": {"type": "string"},
                "nullable": {"type": "string", "nullable": true},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "integer"}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"inner": {"type": "object", "properties": {"a": {"type": "integer"}}}}},
                "any": {"x-kubernetes-preserve-unknown-fields": true},
                "port": {"x-kubernetes-int-or-string": true},
                "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
                    "spec": {"type": "object", "properties": {"a": {"type": "integer"}}}}},
            }},
        }}))
        .unwrap()
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one flat table")]
    fn unknown_fields_go_and_are_told() {
        let cases: [(&str, Value, Value, &[&str]); 10] = [
            ("known", json!({"known": "a"}), json!({"known": "a"}), &[]),
            (
                "unknown",
                json!({"known": "a", "x": 1}),
                json!({"known": "a"}),
                &["spec.x"],
            ),
            (
                "in a list",
                json!({"list": [{"a": 1}, {"b": 1}]}),
                json!({"list": [{"a": 1}, {}]}),
                &["spec.list[1].b"],
            ),
            (
                "in a map",
                json!({"map": {"k": {"a": 1, "b": 2}}}),
                json!({"map": {"k": {"a": 1}}}),
                &["spec.map.k.b"],
            ),
            (
                "preserved",
                json!({"free": {"x": 1}}),
                json!({"free": {"x": 1}}),
                &[],
            ),
            (
                "below preserved, where it is known again",
                json!({"free": {"inner": {"a": 1, "b": 2}}}),
                json!({"free": {"inner": {"a": 1}}}),
                &["spec.free.inner.b"],
            ),
            (
                "anything",
                json!({"any": [{"x": null}]}),
                json!({"any": [{"x": null}]}),
                &[],
            ),
            (
                "int or string",
                json!({"port": "http"}),
                json!({"port": "http"}),
                &[],
            ),
            (
                "embedded resource",
                json!({"template": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": {"b": 1}, "other": 1}}),
                json!({"template": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "spec": {}}}),
                &["spec.template.other", "spec.template.spec.b"],
            ),
            (
                "nulls",
                json!({"known": null, "nullable": null}),
                json!({"nullable": null}),
                &[],
            ),
        ];
        for (case, spec, expected, paths) in cases {
            let mut object =
                json!({"apiVersion": "e/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec});
            let mut unknown = Vec::new();
            prune(&schema(), &mut object, |path| unknown.push(path));
            unknown.sort();
            assert_eq!(object["spec"], expected, "{case}");
            assert_eq!(unknown, paths, "{case}");
            assert_eq!(object["metadata"]["name"], "n", "{case}");
            let once = object.clone();
            prune(&schema(), &mut object, |path| {
                panic!("{case}: {path} is unknown the second time")
            });
            assert_eq!(object, once, "{case}: a second time changes nothing");
        }
    }
}
