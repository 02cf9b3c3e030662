//! One table for each rule, on built-in types.

use serde_json::{Value, json};

use super::{check, compare, field_set, is_same, merge, reconcile, remove};
use crate::fields_v1::Set;
use crate::merge_schema::{Builtin, Untyped};
use crate::registry::Registry;

fn schema(kind: &str) -> Builtin<'static> {
    let registry = Registry::builtin();
    let type_id = registry.type_by_gvk("", "v1", kind).unwrap();
    Builtin::new(registry, type_id)
}

fn pod(spec: Value) -> Value {
    json!({ "spec": spec })
}

fn set(value: Value) -> Set {
    Set::from_json(&value).unwrap()
}

#[test]
fn merging() {
    let cases = [
        (
            "scalars are replaced, others stay",
            json!({"nodeName": "a", "hostNetwork": true}),
            json!({"nodeName": "b"}),
            json!({"nodeName": "b", "hostNetwork": true}),
        ),
        (
            "granular maps are merged",
            json!({"overhead": {"cpu": "1", "memory": "1Gi"}}),
            json!({"overhead": {"cpu": "2"}}),
            json!({"overhead": {"cpu": "2", "memory": "1Gi"}}),
        ),
        (
            "atomic maps are replaced",
            json!({"nodeSelector": {"a": "1", "b": "1"}}),
            json!({"nodeSelector": {"a": "2"}}),
            json!({"nodeSelector": {"a": "2"}}),
        ),
        (
            "atomic lists are replaced",
            json!({"tolerations": [{"key": "a"}, {"key": "b"}]}),
            json!({"tolerations": [{"key": "c"}]}),
            json!({"tolerations": [{"key": "c"}]}),
        ),
        (
            "keyed lists are merged by key, in the order applied",
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]}),
        ),
        (
            "elements only the old list has keep their places",
            json!({"containers": [{"name": "x"}, {"name": "a"}, {"name": "y"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "new"}, {"name": "b"}]}),
            json!({"containers": [{"name": "x"}, {"name": "a", "image": "1"}, {"name": "y"}, {"name": "new"}, {"name": "b"}]}),
        ),
        (
            "a key left out has its default",
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "web"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "TCP", "name": "web"}]}]}),
        ),
        (
            "null is a value",
            json!({"nodeName": "a"}),
            json!({"nodeName": null}),
            json!({"nodeName": null}),
        ),
        (
            "what is empty is kept as it is applied",
            json!({"securityContext": {}}),
            json!({"volumes": []}),
            json!({"securityContext": {}, "volumes": []}),
        ),
    ];
    for (case, old, new, expected) in cases {
        let merged = merge(schema("Pod"), &pod(old), &pod(new)).unwrap();
        assert_eq!(merged, pod(expected), "{case}");
    }
}

#[test]
fn sets_are_merged_by_value() {
    let object = |finalizers: &[&str]| json!({"metadata": {"finalizers": finalizers}});
    let cases: [(&[&str], &[&str], &[&str]); 3] = [
        (&["a/b"], &["c/d"], &["a/b", "c/d"]),
        (&["a/b", "c/d"], &["c/d", "a/b"], &["c/d", "a/b"]),
        (&["a/b", "c/d"], &["c/d"], &["a/b", "c/d"]),
    ];
    for (old, new, expected) in cases {
        let merged = merge(schema("Pod"), &object(old), &object(new)).unwrap();
        assert_eq!(merged, object(expected), "{old:?} {new:?}");
    }
}

#[test]
fn comparing() {
    let cases = [
        (
            "same",
            json!({"nodeName": "a"}),
            json!({"nodeName": "a"}),
            json!({}),
            json!({}),
            json!({}),
        ),
        (
            "modified, added, removed",
            json!({"nodeName": "a", "hostIPC": true}),
            json!({"nodeName": "b", "hostPID": true}),
            json!({"f:spec": {"f:hostPID": {}}}),
            json!({"f:spec": {"f:nodeName": {}}}),
            json!({"f:spec": {"f:hostIPC": {}}}),
        ),
        (
            "an atomic list is one field",
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({}),
            json!({"f:spec": {"f:tolerations": {}}}),
            json!({}),
        ),
        (
            "a new element brings its implied fields",
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "a"}, {"name": "b", "image": "1"}]}),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"b\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {}}}}}),
            json!({}),
            json!({}),
        ),
        (
            "what is implied is the same stated or not",
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "a", "resources": {}}]}),
            json!({}),
            json!({}),
            json!({}),
        ),
        (
            "a double is one field",
            json!({"containers": [{"name": "a", "env": [{"name": "E", "value": "1"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "E", "value": "1"}, {"name": "E", "value": "2"}]}]}),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:env": {"k:{\"name\":\"E\"}": {}}}}}}),
            json!({}),
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:env": {"k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:value": {}}}}}}}),
        ),
    ];
    for (case, old, new, added, modified, removed) in cases {
        let found = compare(schema("Pod"), Some(&pod(old)), Some(&pod(new)));
        assert_eq!(found.added, set(added), "{case}: added");
        assert_eq!(found.modified, set(modified), "{case}: modified");
        assert_eq!(found.removed, set(removed), "{case}: removed");
    }
    assert!(is_same(
        schema("Pod"),
        &json!({"spec": {}}),
        &json!({"spec": {}, "status": {}})
    ));
    assert!(!is_same(
        schema("Pod"),
        &json!({"spec": {}}),
        &json!({"spec": {"nodeName": "a"}})
    ));
}

#[test]
fn fields_of_objects() {
    let object = json!({
        "metadata": {"labels": {"a": "1"}, "finalizers": ["x/y"], "annotations": {}},
        "spec": {"nodeSelector": {"a": "1"}, "tolerations": [], "containers": [{"name": "c", "securityContext": {}}]},
    });
    let expected = json!({
        "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x/y\"": {}}, "f:annotations": {}},
        "f:spec": {"f:nodeSelector": {}, "f:tolerations": {}, "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:securityContext": {}}}},
    });
    assert_eq!(field_set(schema("Pod"), &object), set(expected));
    // Without a schema every field has an owner, and lists are atomic.
    let object = json!({"a": {"b": 1, "c": [1, 2]}});
    assert_eq!(
        field_set(Untyped::Deduced, &object),
        set(json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}}))
    );
}

#[test]
fn removing() {
    let object = pod(json!({
        "nodeName": "a", "nodeSelector": {"a": "1"},
        "containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}],
    }));
    let cases = [
        (
            "a field",
            json!({"f:spec": {"f:nodeName": {}}}),
            "/spec/nodeName",
            None,
        ),
        (
            "an element",
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {}}}}),
            "/spec/containers",
            Some(json!([{"name": "b", "image": "1"}])),
        ),
        (
            "a field of an element",
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}}}}),
            "/spec/containers/0",
            Some(json!({"name": "a"})),
        ),
        (
            "all there is leaves null",
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {}, "k:{\"name\":\"b\"}": {}}}}),
            "/spec/containers",
            Some(json!(null)),
        ),
    ];
    for (case, fields, path, expected) in cases {
        let rest = remove(schema("Pod"), &object, &set(fields));
        assert_eq!(rest.pointer(path), expected.as_ref(), "{case}");
    }
}

#[test]
fn faults() {
    let cases = [
        (
            json!({"nonsense": 1}),
            ".spec.nonsense: field not declared in schema",
        ),
        (json!({"nodeName": 1}), ".spec.nodeName: expected string, got 1"),
        (
            json!({"hostNetwork": "yes"}),
            ".spec.hostNetwork: expected boolean, got \"yes\"",
        ),
        (
            json!({"priority": "1"}),
            ".spec.priority: expected numeric (int or float), got \"1\"",
        ),
        (
            json!({"containers": {}}),
            ".spec.containers: expected list, got {}",
        ),
        (
            json!({"securityContext": []}),
            ".spec.securityContext: expected map, got []",
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "a"}]}),
            ".spec.containers: duplicate entries for key [name=\"a\"]",
        ),
        (
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z"}, null]}),
            ".spec.topologySpreadConstraints: element 1: associative list with keys may not have a null element",
        ),
    ];
    for (spec, expected) in cases {
        let faults = check(schema("Pod"), &pod(spec)).unwrap_err();
        assert_eq!(faults.to_string(), expected);
    }
    let several = check(schema("Pod"), &pod(json!({"a": 1, "b": 1}))).unwrap_err();
    assert!(
        several.to_string().starts_with("errors:\n  .spec.a: "),
        "{several}"
    );
    assert_eq!(
        check(schema("Pod"), &pod(json!({"nodeName": null, "priority": 1}))),
        Ok(())
    );
}

#[test]
fn owners_of_what_became_atomic() {
    let fields = set(json!({
        "f:spec": {
            "f:nodeSelector": {".": {}, "f:a": {}},
            "f:tolerations": {"i:0": {}},
            "f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}},
            "f:gone": {"f:x": {}},
        },
    }));
    let expected = set(json!({
        "f:spec": {
            "f:nodeSelector": {},
            "f:tolerations": {},
            "f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}},
            "f:gone": {"f:x": {}},
        },
    }));
    assert_eq!(reconcile(schema("Pod"), &fields), expected);
}
