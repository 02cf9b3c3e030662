//! Fills in what a schema states as defaults, from the top down.

use serde_json::Value;

use super::structural::Schema;

/// Fills in defaults for what is absent, and for null where null is no value.
pub fn apply(schema: &Schema, value: &mut Value) {
    if !schema.has_defaults {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, field) in &schema.properties {
                let Some(default) = &field.default else { continue };
                match map.get(name) {
                    Some(found) if !found.is_null() || field.nullable => {}
                    _ => {
                        map.insert(name.clone(), default.clone());
                    }
                }
            }
            for (name, inner) in map.iter_mut() {
                let Some(field) = schema.field(name) else { continue };
                if inner.is_null()
                    && !field.nullable
                    && let Some(default) = &field.default
                {
                    *inner = default.clone();
                }
                apply(field, inner);
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for item in list {
                if item.is_null()
                    && !items.nullable
                    && let Some(default) = &items.default
                {
                    *item = default.clone();
                }
                apply(items, item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_filled_in_from_the_top() {
        let schema = Schema::compile_root(&json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "size": {"type": "integer", "default": 3},
            "nullable": {"type": "string", "nullable": true, "default": "x"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}}},
            "map": {"type": "object", "additionalProperties": {"type": "string", "default": "d"}},
            "deep": {"type": "object", "properties": {"a": {"type": "string", "default": "d"}}},
        }}}}))
        .unwrap();
        let cases = [
            ("nothing there", json!({}), json!({"size": 3, "nullable": "x"})),
            (
                "null is no value",
                json!({"size": null}),
                json!({"size": 3, "nullable": "x"}),
            ),
            (
                "null is a value",
                json!({"nullable": null}),
                json!({"size": 3, "nullable": null}),
            ),
            (
                "own value stays",
                json!({"size": 0}),
                json!({"size": 0, "nullable": "x"}),
            ),
            (
                "elements",
                json!({"list": [{}, {"a": 2}]}),
                json!({"size": 3, "nullable": "x", "list": [{"a": 1}, {"a": 2}]}),
            ),
            (
                "nulls in maps",
                json!({"map": {"k": null}}),
                json!({"size": 3, "nullable": "x", "map": {"k": "d"}}),
            ),
            (
                "an absent object stays absent",
                json!({"deep": {}}),
                json!({"size": 3, "nullable": "x", "deep": {"a": "d"}}),
            ),
        ];
        for (case, spec, expected) in cases {
            let mut object = json!({"spec": spec});
            apply(&schema, &mut object);
            assert_eq!(object["spec"], expected, "{case}");
            let once = object.clone();
            apply(&schema, &mut object);
            assert_eq!(object, once, "{case}: a second time changes nothing");
        }
        let mut whole = json!({});
        apply(&schema, &mut whole);
        assert_eq!(
            whole,
            json!({"spec": {"size": 3, "nullable": "x"}}),
            "defaults of defaults"
        );
    }
}
