//! Cases of both patches, named by what they show.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod(base: &Value, patch: &Value) -> Result<Value, PatchError> {
    let registry = Registry::builtin();
    strategic_merge(
        registry,
        registry.type_by_gvk("", "v1", "Pod").unwrap(),
        base,
        patch,
    )
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn strategic_patches_give_what_upstream_gives() {
    let cases = [
        (
            "null deletes",
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"a": null}}}),
            json!({"metadata": {"labels": {"b": "2"}}}),
        ),
        (
            "objects merge",
            json!({"metadata": {"name": "p"}}),
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"name": "p", "labels": {"a": "1"}}}),
        ),
        (
            "containers merge by name, new ones come last",
            json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}}),
            json!({"spec": {"containers": [{"name": "c", "image": "3"}, {"name": "b", "image": "2"}]}}),
            json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}}),
        ),
        (
            "a delete directive takes one element out",
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "b"}]}}),
        ),
        (
            "a replace directive in a list replaces it",
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}}),
            json!({"spec": {"containers": [{"name": "c"}]}}),
        ),
        (
            "a replace directive in an object replaces it",
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
            json!({"metadata": {"labels": {"b": "2"}}}),
        ),
        (
            "a delete directive empties an object",
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            json!({"metadata": {"labels": {}}}),
        ),
        (
            "lists without a strategy are replaced",
            json!({"spec": {"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["x"]}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["y"]}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["y"]}]}}),
        ),
        (
            "finalizers are a set",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"finalizers": ["b", "c"]}}),
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
        ),
        (
            "finalizers are taken out by directive",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
            json!({"metadata": {"finalizers": ["b"]}}),
        ),
        (
            "taking out and putting in at once",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"], "$setElementOrder/finalizers": ["c", "b"]}}),
            json!({"metadata": {"finalizers": ["c", "b"]}}),
        ),
        (
            "kubectl orders elements; what it doesn't know keeps its place",
            json!({"spec": {"containers": [{"name": "a"}, {"name": "injected"}, {"name": "b"}]}}),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "2"}]}}),
            json!({"spec": {"containers": [{"name": "injected"}, {"name": "b"}, {"name": "a", "image": "2"}]}}),
        ),
        (
            "ordering alone",
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
            json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}]}}),
        ),
        (
            "retainKeys changes a volume's source",
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
        ),
        (
            "directives don't get into what is new",
            json!({}),
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "image": null}, {"name": "b", "$patch": "delete"}]}}),
            json!({"spec": {"containers": [{"name": "a"}]}}),
        ),
        (
            "conditions merge by type, ports by number",
            json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "x"}]}, "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}}),
            json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]}]}}),
            json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "x"}]}, "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81}]}]}}),
        ),
        (
            "the last-applied annotation is a text like others",
            json!({"metadata": {"annotations": {"k": "{\"a\":1}"}}}),
            json!({"metadata": {"annotations": {"k": "{\"a\":2}"}}}),
            json!({"metadata": {"annotations": {"k": "{\"a\":2}"}}}),
        ),
        (
            "other shapes replace",
            json!({"spec": {"volumes": {"odd": 1}}}),
            json!({"spec": {"volumes": [{"name": "v"}]}}),
            json!({"spec": {"volumes": [{"name": "v"}]}}),
        ),
    ];
    for (name, base, patch, expected) in cases {
        assert_eq!(pod(&base, &patch), Ok(expected), "{name}");
    }
}

#[test]
fn malformed_patches_are_refused() {
    let base = json!({"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v"}]}, "metadata": {"finalizers": ["a"]}});
    let cases = [
        (json!([]), "expected an object at \"\""),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "an element of \"spec.containers\" does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"containers": ["a"]}}),
            "expected an object at \"spec.containers\"",
        ),
        (
            json!({"spec": {"$patch": "destroy"}}),
            "unknown patch directive \"destroy\" at \"spec\"",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": 1}]}}),
            "unknown patch directive 1 at \"spec.containers\"",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": "x"}]}}),
            "$retainKeys at \"spec.volumes\" must be a list of field names",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "emptyDir": {}}]}}),
            "$retainKeys at \"spec.volumes\" doesn't contain \"emptyDir\", which is in the patch",
        ),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}),
            "$deleteFromPrimitiveList/finalizers at \"metadata\" must be a list of values",
        ),
        (
            json!({"spec": {"$setElementOrder/containers": {}}}),
            "$setElementOrder/containers at \"spec.containers\" must be a list of elements",
        ),
    ];
    for (patch, message) in cases {
        assert_eq!(pod(&base, &patch).unwrap_err().to_string(), message, "{patch}");
    }
}

/// The examples of RFC 7386, appendix A, that concern objects.
#[test]
fn merge_patches_follow_the_rfc() {
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (
            json!({"a": {"b": "c"}}),
            json!({"a": {"b": "d", "c": null}}),
            json!({"a": {"b": "d"}}),
        ),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        (
            json!({}),
            json!({"a": {"bb": {"ccc": null}}}),
            json!({"a": {"bb": {}}}),
        ),
    ];
    for (base, patch, expected) in cases {
        assert_eq!(json_merge(&base, &patch), expected, "{base} + {patch}");
    }
}

fn containers() -> impl Strategy<Value = Vec<(u8, u8)>> {
    proptest::collection::btree_map(0u8..6, 0u8..4, 0..6)
        .prop_map(|map| map.into_iter().collect())
        .prop_shuffle()
}

fn object(containers: &[(u8, u8)]) -> Value {
    let list = containers
        .iter()
        .map(|(name, image)| json!({"name": format!("c{name}"), "image": format!("i{image}")}));
    json!({"spec": {"containers": list.collect::<Vec<_>>()}})
}

proptest! {
    /// Applying a patch twice is applying it once, and every element of it is there afterwards, in the order asked.
    #[test]
    fn patches_are_idempotent_and_keep_the_order_asked(base in containers(), patch in containers()) {
        let mut change = object(&patch);
        let order: Vec<Value> = patch.iter().map(|(name, _)| json!({"name": format!("c{name}")})).collect();
        change["spec"]["$setElementOrder/containers"] = order.clone().into();
        let once = pod(&object(&base), &change).unwrap();
        prop_assert_eq!(&pod(&once, &change).unwrap(), &once);
        let merged = once["spec"]["containers"].as_array().unwrap();
        let names: Vec<Value> = merged.iter().map(|one| json!({"name": one["name"]})).filter(|one| order.contains(one)).collect();
        prop_assert_eq!(names, order);
        let all: std::collections::BTreeSet<u8> = base.iter().chain(&patch).map(|(name, _)| *name).collect();
        prop_assert_eq!(merged.len(), all.len());
    }
}
