//! Rules at their places: transitions, reasons, paths, messages, lists.

use serde_json::{Value, json};

use crate::custom::Schema;
use crate::custom::validation::check;

fn faults(spec: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = Schema::compile_root(&json!({"type": "object", "properties": {"spec": spec}})).unwrap();
    let whole =
        |spec: &Value| json!({"apiVersion": "e/v1", "kind": "K", "metadata": {"name": "n"}, "spec": spec});
    let causes = check(&schema, &whole(new), old.map(whole).as_ref());
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

/// A schema as the snapshot controllers publish it: immutable fields, one of two, once set always set.
fn source() -> Value {
    json!({"type": "object", "properties": {
        "volumeHandle": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "volumeHandle is immutable"}]},
        "snapshotHandle": {"type": "string"},
    }, "x-kubernetes-validations": [
        {"rule": "!has(oldSelf.volumeHandle) || has(self.volumeHandle)", "message": "volumeHandle is required once set"},
        {"rule": "(has(self.volumeHandle) && !has(self.snapshotHandle)) || (!has(self.volumeHandle) && has(self.snapshotHandle))",
            "message": "exactly one of volumeHandle and snapshotHandle must be set"},
    ]})
}

#[test]
fn transitions_look_at_the_state_before() {
    let (a, b, other) = (
        json!({"volumeHandle": "a"}),
        json!({"volumeHandle": "b"}),
        json!({"snapshotHandle": "s"}),
    );
    let cases: [(&str, Value, Option<&Value>, &[&str]); 6] = [
        ("new", a.clone(), None, &[]),
        (
            "neither",
            json!({}),
            None,
            &[
                "Invalid spec: Invalid value: \"object\": exactly one of volumeHandle and snapshotHandle must be set",
            ],
        ),
        (
            "both",
            json!({"volumeHandle": "a", "snapshotHandle": "s"}),
            None,
            &[
                "Invalid spec: Invalid value: \"object\": exactly one of volumeHandle and snapshotHandle must be set",
            ],
        ),
        ("same", a.clone(), Some(&a), &[]),
        (
            "changed",
            b,
            Some(&a),
            &["Invalid spec.volumeHandle: Invalid value: \"string\": volumeHandle is immutable"],
        ),
        (
            "taken away",
            other,
            Some(&a),
            &["Invalid spec: Invalid value: \"object\": volumeHandle is required once set"],
        ),
    ];
    for (case, new, old, expected) in cases {
        assert_eq!(faults(&source(), &new, old), expected, "{case}");
    }
}

#[test]
fn what_a_rule_says() {
    let with = |rule: Value| json!({"type": "object", "properties": {"n": {"type": "integer"}, "old": {"type": "string"}}, "x-kubernetes-validations": [rule]});
    let cases = [
        (
            "its message",
            json!({"rule": "self.n > 5", "message": "too small"}),
            "Invalid spec: Invalid value: \"object\": too small",
        ),
        (
            "itself",
            json!({"rule": "self.n > 5"}),
            "Invalid spec: Invalid value: \"object\": failed rule: self.n > 5",
        ),
        (
            "an expression",
            json!({"rule": "self.n > 5", "messageExpression": "'%d is too small'.format([self.n])"}),
            "Invalid spec: Invalid value: \"object\": 3 is too small",
        ),
        (
            "a failing expression",
            json!({"rule": "self.n > 5", "message": "m", "messageExpression": "self.old"}),
            "Invalid spec: Invalid value: \"object\": m",
        ),
        (
            "forbidden",
            json!({"rule": "self.n > 5", "message": "m", "reason": "FieldValueForbidden"}),
            "Forbidden spec: Forbidden: m",
        ),
        (
            "required",
            json!({"rule": "self.n > 5", "message": "m", "reason": "FieldValueRequired", "fieldPath": ".n"}),
            "Required spec.n: Required value: m",
        ),
        (
            "duplicate",
            json!({"rule": "self.n > 5", "reason": "FieldValueDuplicate"}),
            "Duplicate spec: Duplicate value: \"object\"",
        ),
        (
            "an error",
            json!({"rule": "self.old == 'x'", "message": "m"}),
            "Invalid spec: Invalid value: \"object\": no such key: old evaluating rule: m",
        ),
    ];
    for (case, rule, expected) in cases {
        assert_eq!(faults(&with(rule), &json!({"n": 3}), None), [expected], "{case}");
    }
}

#[test]
fn optional_old_self_is_there_on_creation_too() {
    let spec = json!({"type": "integer", "x-kubernetes-validations": [
        {"rule": "oldSelf.orValue(0) < self", "optionalOldSelf": true, "message": "must grow"}]});
    assert_eq!(faults(&spec, &json!(1), None), Vec::<String>::new());
    assert_eq!(faults(&spec, &json!(0), None).len(), 1);
    assert_eq!(faults(&spec, &json!(2), Some(&json!(1))), Vec::<String>::new());
    assert_eq!(
        faults(&spec, &json!(1), Some(&json!(1))).len(),
        1,
        "a transition rule also looks at what is unchanged"
    );
}

#[test]
fn elements_of_lists_are_known_by_their_keys() {
    let spec = |list_type: &str| {
        json!({"type": "array", "x-kubernetes-list-type": list_type, "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "must not shrink"}]}})
    };
    let old = json!([{"k": "a", "v": 5}, {"k": "b", "v": 1}]);
    let moved = json!([{"k": "b", "v": 2}, {"k": "a", "v": 4}, {"k": "c", "v": 0}]);
    assert_eq!(
        faults(&spec("map"), &moved, Some(&old)),
        ["Invalid spec[1]: Invalid value: \"object\": must not shrink"]
    );
    assert_eq!(faults(&spec("atomic"), &moved, Some(&old)), Vec::<String>::new());
}

#[test]
fn what_stands_unchanged_is_not_asked_again() {
    let spec = json!({"type": "object", "properties": {
        "a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 5", "message": "small"}]}, "b": {"type": "integer"}}});
    let old = json!({"a": 1, "b": 1});
    assert_eq!(
        faults(&spec, &json!({"a": 1, "b": 2}), Some(&old)),
        Vec::<String>::new()
    );
    assert_eq!(faults(&spec, &json!({"a": 2, "b": 1}), Some(&old)).len(), 1);
}

#[test]
fn rules_that_cost_too_much_end_the_check() {
    let list: Vec<i64> = (0..200).collect();
    let spec = json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [
        {"rule": "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))"}, {"rule": "false"}]});
    let found = faults(&spec, &json!(list), None);
    assert_eq!(found.len(), 1, "nothing is checked afterwards: {found:?}");
    assert!(
        found[0].contains("no further validation rules will be run due to call cost exceeds limit for rule"),
        "{found:?}"
    );
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let cases = [
        (json!({"rule": ""}), "rule", "rule is not specified"),
        (
            json!({"rule": "self.x == 1"}),
            "rule",
            "compilation failed: ERROR: <input>:1:5: undefined field 'x'\n | self.x == 1\n | ....^",
        ),
        (
            json!({"rule": "self.n"}),
            "rule",
            "compilation failed: ERROR: <input>:1:5: must evaluate to bool",
        ),
        (
            json!({"rule": "self.n >"}),
            "rule",
            "compilation failed: ERROR: <input>:1:9: Syntax error",
        ),
        (
            json!({"rule": "true", "messageExpression": "self.n == 1"}),
            "messageExpression",
            "compilation failed: ERROR: <input>:1:8: must evaluate to string",
        ),
        (
            json!({"rule": "true", "reason": "Because"}),
            "reason",
            "supported values",
        ),
        (
            json!({"rule": "true", "fieldPath": ".x"}),
            "fieldPath",
            "does not refer to a valid field",
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            "optionalOldSelf",
            "may not be set if oldSelf is not used",
        ),
        (
            json!({"rule": "true ||\n false"}),
            "message",
            "message must be specified",
        ),
    ];
    for (rule, field, expected) in cases {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "x-kubernetes-validations": [rule]});
        let error = Schema::compile_root(&schema).expect_err(&rule.to_string());
        assert_eq!(
            error.path,
            format!("x-kubernetes-validations[0].{field}"),
            "{rule}"
        );
        assert!(error.message.contains(expected), "{rule}: {}", error.message);
    }
}
