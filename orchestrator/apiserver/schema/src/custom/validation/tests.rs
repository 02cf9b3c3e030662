//! Objects against schemas, by cases, with upstream's words.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::check;
use crate::custom::{Schema, defaulting, pruning};

fn schema(spec: &Value) -> Schema {
    Schema::compile_root(&json!({"type": "object", "properties": {"spec": spec}})).unwrap()
}

/// The faults as `reason field: message`.
fn faults(spec: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    let whole =
        |spec: &Value| json!({"apiVersion": "e/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec});
    let causes = check(&schema(spec), &whole(new), old.map(whole).as_ref());
    let tell = |cause: crate::validation::Cause| {
        format!(
            "{} {}: {}",
            cause.reason.trim_start_matches("FieldValue"),
            cause.field,
            cause.message
        )
    };
    causes.into_iter().map(tell).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn faults_are_told_in_upstreams_words() {
    let one = |field: Value| json!({"type": "object", "properties": {"f": field}});
    let cases: [(&str, Value, Value, &[&str]); 32] = [
        (
            "type",
            one(json!({"type": "integer"})),
            json!({"f": "x"}),
            &[
                "TypeInvalid spec.f: Invalid value: \"string\": spec.f in body must be of type integer: \"string\"",
            ],
        ),
        (
            "null",
            one(json!({"type": "string"})),
            json!({"f": null}),
            &["TypeInvalid spec.f: Invalid value: \"null\": spec.f in body must be of type string: \"null\""],
        ),
        (
            "nullable",
            one(json!({"type": "string", "nullable": true})),
            json!({"f": null}),
            &[],
        ),
        (
            "number takes whole ones",
            one(json!({"type": "number"})),
            json!({"f": 1}),
            &[],
        ),
        (
            "integer takes whole floats",
            one(json!({"type": "integer"})),
            json!({"f": 1.0}),
            &[],
        ),
        (
            "integer",
            one(json!({"type": "integer"})),
            json!({"f": 1.5}),
            &[
                "TypeInvalid spec.f: Invalid value: \"number\": spec.f in body must be of type integer: \"number\"",
            ],
        ),
        (
            "int or string",
            one(json!({"x-kubernetes-int-or-string": true})),
            json!({"f": 1.5}),
            &[
                "TypeInvalid spec.f: Invalid value: \"number\": spec.f in body must be of type integer,string: \"number\"",
            ],
        ),
        (
            "enum",
            one(json!({"type": "string", "enum": ["a", "b"]})),
            json!({"f": "c"}),
            &["NotSupported spec.f: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        ),
        (
            "pattern",
            one(json!({"type": "string", "pattern": "^a+$"})),
            json!({"f": "b"}),
            &["Invalid spec.f: Invalid value: \"b\": spec.f in body should match '^a+$'"],
        ),
        (
            "max length",
            one(json!({"type": "string", "maxLength": 2})),
            json!({"f": "abc"}),
            &["TooLong spec.f: Too long: may not be more than 2 bytes"],
        ),
        (
            "characters, not bytes",
            one(json!({"type": "string", "maxLength": 2})),
            json!({"f": "äö"}),
            &[],
        ),
        (
            "min length",
            one(json!({"type": "string", "minLength": 2})),
            json!({"f": "a"}),
            &["Invalid spec.f: Invalid value: \"a\": spec.f in body should be at least 2 chars long"],
        ),
        (
            "format",
            one(json!({"type": "string", "format": "date-time"})),
            json!({"f": "x"}),
            &["TypeInvalid spec.f: Invalid value: \"x\": spec.f in body must be of type date-time: \"x\""],
        ),
        (
            "maximum",
            one(json!({"type": "integer", "maximum": 3})),
            json!({"f": 4}),
            &["Invalid spec.f: Invalid value: 4: spec.f in body should be less than or equal to 3"],
        ),
        (
            "exclusive maximum",
            one(json!({"type": "integer", "maximum": 3, "exclusiveMaximum": true})),
            json!({"f": 3}),
            &["Invalid spec.f: Invalid value: 3: spec.f in body should be less than 3"],
        ),
        (
            "minimum",
            one(json!({"type": "integer", "minimum": 3})),
            json!({"f": 2}),
            &["Invalid spec.f: Invalid value: 2: spec.f in body should be greater than or equal to 3"],
        ),
        (
            "multiple",
            one(json!({"type": "integer", "multipleOf": 3})),
            json!({"f": 4}),
            &["Invalid spec.f: Invalid value: 4: spec.f in body should be a multiple of 3"],
        ),
        (
            "max items",
            one(json!({"type": "array", "maxItems": 1, "items": {"type": "string"}})),
            json!({"f": ["a", "b"]}),
            &["TooMany spec.f: Too many: 2: must have at most 1 items"],
        ),
        (
            "min items",
            one(json!({"type": "array", "minItems": 1, "items": {"type": "string"}})),
            json!({"f": []}),
            &["Invalid spec.f: Invalid value: 0: spec.f in body should have at least 1 items"],
        ),
        (
            "element",
            one(json!({"type": "array", "items": {"type": "string"}})),
            json!({"f": ["a", 1]}),
            &[
                "TypeInvalid spec.f[1]: Invalid value: \"integer\": spec.f[1] in body must be of type string: \"integer\"",
            ],
        ),
        (
            "required",
            json!({"type": "object", "required": ["f"], "properties": {"f": {"type": "string"}}}),
            json!({}),
            &["Required spec.f: Required value"],
        ),
        (
            "map value",
            one(json!({"type": "object", "additionalProperties": {"type": "integer"}})),
            json!({"f": {"k": "x"}}),
            &[
                "TypeInvalid spec.f.k: Invalid value: \"string\": spec.f.k in body must be of type integer: \"string\"",
            ],
        ),
        (
            "max properties",
            one(json!({"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}})),
            json!({"f": {"a": 1, "b": 2}}),
            &["TooMany spec.f: Too many: 2: must have at most 1 items"],
        ),
        (
            "min properties",
            one(json!({"type": "object", "minProperties": 1, "additionalProperties": {"type": "integer"}})),
            json!({"f": {}}),
            &["Invalid spec.f: Invalid value: 0: spec.f in body should have at least 1 properties"],
        ),
        (
            "one of none",
            json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({}),
            &[
                "Invalid <nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
                "Required spec.a: Required value",
            ],
        ),
        (
            "one of both",
            json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({"a": 1, "b": 1}),
            &[
                "Invalid <nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ],
        ),
        (
            "any of",
            one(json!({"type": "integer", "anyOf": [{"minimum": 5}, {"maximum": 1}]})),
            json!({"f": 3}),
            &[
                "Invalid <nil>: Invalid value: \"\": \"spec.f\" must validate at least one schema (anyOf)",
                "Invalid spec.f: Invalid value: 3: spec.f in body should be greater than or equal to 5",
            ],
        ),
        (
            "all of",
            one(json!({"type": "integer", "allOf": [{"minimum": 5}, {"maximum": 9}]})),
            json!({"f": 3}),
            &[
                "Invalid spec.f: Invalid value: 3: spec.f in body should be greater than or equal to 5",
                "Invalid <nil>: Invalid value: \"\": \"spec.f\" must validate all the schemas (allOf)",
            ],
        ),
        (
            "not",
            one(json!({"type": "integer", "not": {"minimum": 5}})),
            json!({"f": 7}),
            &["Invalid <nil>: Invalid value: \"\": \"spec.f\" must not validate the schema (not)"],
        ),
        (
            "set",
            one(json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}})),
            json!({"f": ["a", "b", "a"]}),
            &["Duplicate spec.f[2]: Duplicate value: \"a\""],
        ),
        (
            "map list",
            one(
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}}),
            ),
            json!({"f": [{"k": "a", "v": 1}, {"k": "a", "v": 2}]}),
            &["Duplicate spec.f[1]: Duplicate value: {\"k\":\"a\"}"],
        ),
        (
            "embedded",
            one(
                json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            ),
            json!({"f": {"apiVersion": "v1"}}),
            &["Required spec.f.kind: Required value: must not be empty"],
        ),
    ];
    for (case, spec, value, expected) in cases {
        assert_eq!(faults(&spec, &value, None), expected, "{case}");
    }
}

#[test]
fn what_stands_unchanged_is_not_checked_again() {
    let spec = json!({"type": "object", "properties": {
        "f": {"type": "string", "maxLength": 1},
        "g": {"type": "integer"},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}},
        "atomic": {"type": "array", "items": {"type": "string", "maxLength": 1}},
    }});
    let old = json!({"f": "long", "g": 1, "list": [{"k": "a", "v": "long"}, {"k": "b", "v": "x"}], "atomic": ["long"]});
    let cases: [(&str, Value, &[&str]); 5] = [
        ("same", old.clone(), &[]),
        (
            "other field changes",
            json!({"f": "long", "g": 2, "list": old["list"], "atomic": ["long"]}),
            &[],
        ),
        (
            "the field changes",
            json!({"f": "longer"}),
            &["TooLong spec.f: Too long: may not be more than 1 bytes"],
        ),
        (
            "elements are known by their keys",
            json!({"list": [{"k": "b", "v": "y"}, {"k": "a", "v": "long"}]}),
            &[],
        ),
        (
            "elements of other lists are not",
            json!({"atomic": ["long", "a"]}),
            &["TooLong spec.atomic[0]: Too long: may not be more than 1 bytes"],
        ),
    ];
    for (case, new, expected) in cases {
        assert_eq!(faults(&spec, &new, Some(&old)), expected, "{case}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..100).prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("(name|size|list|map|free|deep|x)", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn wide_schema() -> Schema {
    schema(&json!({"type": "object", "default": {}, "properties": {
        "name": {"type": "string", "default": "a", "maxLength": 2},
        "size": {"type": "integer", "nullable": true, "default": 5, "minimum": 0},
        "list": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string", "default": "b"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "integer", "default": 1}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"size": {"type": "integer"}}},
        "deep": {"type": "object", "default": {"name": "c"}, "properties": {"name": {"type": "string"}, "size": {"type": "integer", "default": 1}}},
    }}))
}

proptest! {
    #[test]
    fn defaulting_and_pruning_are_idempotent_and_agree(spec in any_value()) {
        let schema = wide_schema();
        let mut object = json!({"apiVersion": "e/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec});
        pruning::prune(&schema, &mut object, |_| ());
        defaulting::apply(&schema, &mut object);
        let once = object.clone();
        pruning::prune(&schema, &mut object, |_| ());
        prop_assert_eq!(&object, &once, "pruning takes nothing that defaulting gave");
        defaulting::apply(&schema, &mut object);
        prop_assert_eq!(&object, &once);
        prop_assert_eq!(check(&schema, &object, Some(&once)), vec![], "unchanged objects are never wrong");
    }

    #[test]
    fn pruned_objects_validate_the_same(spec in any_value()) {
        let schema = wide_schema();
        let object = json!({"apiVersion": "e/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec});
        let mut pruned = object.clone();
        pruning::prune(&schema, &mut pruned, |_| ());
        // Nulls are dropped with the unknown, and they alone are faults that pruning takes away.
        let faults = |object: &Value| -> Vec<String> {
            let causes = check(&schema, object, None).into_iter();
            causes.map(|cause| format!("{}: {}", cause.field, cause.message)).filter(|text| !text.contains("\"null\"")).collect()
        };
        prop_assert_eq!(faults(&object), faults(&pruned));
    }
}
