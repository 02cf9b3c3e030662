//! Definitions, good and bad, by cases.

use serde_json::{Value, json};

use crate::validation;
use crate::{Gvk, Registry};

const GVK: Gvk<'static> = Gvk {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
};

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}],
            "conversion": {"strategy": "None"}},
        "status": {"storedVersions": ["v1"]},
    })
}

/// The faults as `field: message`.
fn faults(object: &Value) -> Vec<String> {
    let causes = validation::create(Registry::builtin(), GVK, object);
    causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

#[test]
fn a_plain_definition_is_allowed() {
    assert_eq!(faults(&definition()), Vec::<String>::new());
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn what_is_wrong_with_a_definition_is_said_at_its_place() {
    let version = "/spec/versions/0";
    let cases: &[(&str, &str, Value, &str)] = &[
        (
            "name",
            "/metadata/name",
            json!("other.example.com"),
            "metadata.name: Invalid value: \"other.example.com\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            "group",
            "/spec/group",
            json!("example"),
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
        ),
        (
            "scope",
            "/spec/scope",
            json!("World"),
            "spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            "kind",
            "/spec/names/kind",
            json!("wid get"),
            "spec.names.kind: Invalid value: \"wid get\": may have mixed case, but should otherwise match: ",
        ),
        (
            "list kind",
            "/spec/names/listKind",
            json!("Widget"),
            "spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same",
        ),
        (
            "short names",
            "/spec/names/shortNames",
            json!(["W"]),
            "spec.names.shortNames[0]: Invalid value: \"W\": ",
        ),
        (
            "no versions",
            "/spec/versions",
            json!([]),
            "spec.versions: Required value",
        ),
        (
            "no storage",
            &format!("{version}/storage"),
            json!(false),
            "spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version",
        ),
        (
            "version",
            &format!("{version}/name"),
            json!("1"),
            "spec.versions[0].name: Invalid value: \"1\": ",
        ),
        (
            "no schema",
            &format!("{version}/schema"),
            json!({}),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (
            "preserve",
            "/spec/preserveUnknownFields",
            json!(true),
            "spec.preserveUnknownFields: Invalid value: true: must be false",
        ),
        (
            "conversion",
            "/spec/conversion/strategy",
            json!("Magic"),
            "spec.conversion.strategy: Unsupported value: \"Magic\"",
        ),
        (
            "no webhook",
            "/spec/conversion/strategy",
            json!("Webhook"),
            "spec.conversion.webhook: Required value",
        ),
        (
            "column",
            &format!("{version}/additionalPrinterColumns"),
            json!([{"name": "A", "type": "string", "jsonPath": "spec"}]),
            "spec.versions[0].additionalPrinterColumns[0].jsonPath: Invalid value: \"spec\": is not a valid json path",
        ),
        (
            "column type",
            &format!("{version}/additionalPrinterColumns"),
            json!([{"name": "A", "type": "text", "jsonPath": ".spec"}]),
            "spec.versions[0].additionalPrinterColumns[0].type: Unsupported value: \"text\"",
        ),
        (
            "scale",
            &format!("{version}/subresources"),
            json!({"scale": {"specReplicasPath": ".status.n", "statusReplicasPath": ".status.n"}}),
            "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".status.n\": should be a json path under .spec",
        ),
        (
            "selectable",
            &format!("{version}/selectableFields"),
            json!([{"jsonPath": ".spec.none"}]),
            "spec.versions[0].selectableFields[0].jsonPath: Invalid value: \".spec.none\": is an invalid path: does not refer to a valid field",
        ),
        (
            "deprecation",
            &format!("{version}/deprecationWarning"),
            json!("old"),
            "spec.versions[0].deprecationWarning: Invalid value: \"old\": can only be set for deprecated versions",
        ),
    ];
    for (case, pointer, value, expected) in cases {
        let mut object = definition();
        let (outer, field) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(outer).unwrap()[field.to_owned()] = value.clone();
        let found = faults(&object);
        assert!(
            found.iter().any(|fault| fault.starts_with(expected)),
            "{case}: {found:#?}"
        );
    }
}

#[test]
fn protected_groups_need_approval() {
    let mut object = definition();
    object["metadata"]["name"] = json!("widgets.snapshot.storage.k8s.io");
    object["spec"]["group"] = json!("snapshot.storage.k8s.io");
    let found = faults(&object);
    assert!(
        found[0].starts_with("metadata.annotations[api-approved.kubernetes.io]: Required value"),
        "{found:?}"
    );
    for (stated, is_fine) in [
        ("https://github.com/x/y", true),
        ("unapproved, so far", true),
        ("yes", false),
    ] {
        object["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": stated});
        assert_eq!(faults(&object).is_empty(), is_fine, "{stated}");
    }
}

#[test]
fn a_webhook_is_allowed_where_it_is_never_asked() {
    let mut one = definition();
    one["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://localhost/convert"}}});
    assert_eq!(faults(&one), Vec::<String>::new());
    let mut two = one.clone();
    let versions = two["spec"]["versions"].as_array_mut().unwrap();
    let mut second = versions[0].clone();
    (second["name"], second["storage"]) = (json!("v2"), json!(false));
    versions.push(second);
    let found = faults(&two);
    assert!(
        matches!(&found[..], [one] if one.starts_with("spec.conversion.strategy: Forbidden: this server doesn't call webhooks")),
        "{found:?}"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one flat table")]
fn schemas_must_be_structural() {
    let cases = [
        (
            "no type",
            json!({"properties": {"a": {}}}),
            "type: Required value: must not be empty at the root",
        ),
        (
            "root is a list",
            json!({"type": "array", "items": {"type": "string"}}),
            "type: Invalid value: \"array\": must be object at the root",
        ),
        (
            "field without type",
            json!({"type": "object", "properties": {"a": {}}}),
            "properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            "items without type",
            json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}),
            "properties[a].items.type: Required value: must not be empty for specified array items",
        ),
        (
            "unknown type",
            json!({"type": "object", "properties": {"a": {"type": "text"}}}),
            "properties[a].type: Unsupported value: \"text\"",
        ),
        (
            "no items",
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            "properties[a].items: Required value: must be specified",
        ),
        (
            "type in anyOf",
            json!({"type": "object", "properties": {"a": {"type": "string", "anyOf": [{"type": "string"}]}}}),
            "properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            "unspecified in anyOf",
            json!({"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]}),
            "anyOf[0].properties[b]: Required value: because it is defined in",
        ),
        (
            "both kinds of properties",
            json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}}}),
            "properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            "unique items",
            json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true, "items": {"type": "string"}}}}),
            "properties[a].uniqueItems: Forbidden",
        ),
        (
            "reference",
            json!({"type": "object", "properties": {"a": {"type": "string", "$ref": "x"}}}),
            "properties[a].$ref: Forbidden: $ref is not supported",
        ),
        (
            "metadata",
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            "properties[metadata]: Forbidden: must not specify anything other than name and generateName",
        ),
        (
            "pattern",
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
            "properties[a].pattern: Invalid value: \"(\"",
        ),
        (
            "default of another type",
            json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
            "properties[a].default: Invalid value: \"string\"",
        ),
        (
            "default with unknown field",
            json!({"type": "object", "properties": {"a": {"type": "object", "default": {"x": 1}}}}),
            "properties[a].default: Invalid value: {\"x\":1}: must not have unknown field x",
        ),
        (
            "list type of no list",
            json!({"type": "object", "properties": {"a": {"type": "string", "x-kubernetes-list-type": "set"}}}),
            "properties[a].type: Invalid value: \"string\": must be array",
        ),
        (
            "map without keys",
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}}}),
            "properties[a].x-kubernetes-list-map-keys: Required value",
        ),
        (
            "key that may be absent",
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {"k": {"type": "string"}}}}}}),
            "properties[a].items.properties[k].default: Required value",
        ),
        (
            "embedded without fields",
            json!({"type": "object", "properties": {"a": {"type": "object", "x-kubernetes-embedded-resource": true}}}),
            "properties[a].properties: Required value",
        ),
    ];
    for (case, schema, expected) in cases {
        let mut object = definition();
        object["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
        let expected = format!("spec.versions[0].schema.openAPIV3Schema.{expected}");
        let found = faults(&object);
        assert!(
            found.iter().any(|fault| fault.starts_with(&expected)),
            "{case}: {found:#?}"
        );
    }
    let fine = [
        json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^a", "x-kubernetes-int-or-string": true}}}),
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^a"}}}),
        json!({"type": "object", "properties": {"a": {"type": "object", "additionalProperties": true}}}),
        json!({"type": "object", "properties": {"spec": {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}}}),
        json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}}}}}),
    ];
    for schema in fine {
        let mut object = definition();
        object["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema.clone();
        assert_eq!(faults(&object), Vec::<String>::new(), "{schema}");
    }
}

#[test]
fn what_must_stay_is_told() {
    let mut old = definition();
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let update = |change: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        let causes = validation::update(Registry::builtin(), GVK, &old, &new);
        causes.into_iter().map(|cause| cause.field).collect::<Vec<_>>()
    };
    assert_eq!(
        update(&|new| new["spec"]["names"]["shortNames"] = json!(["w"])),
        Vec::<String>::new()
    );
    assert_eq!(
        update(&|new| new["spec"]["scope"] = json!("Cluster")),
        ["spec.scope"]
    );
    assert_eq!(
        update(&|new| new["spec"]["names"]["kind"] = json!("Gadget")),
        ["spec.names.kind"]
    );
    let dropped = update(&|new| {
        new["spec"]["versions"][0]["name"] = json!("v2");
        new["status"]["storedVersions"] = json!(["v1", "v2"]);
    });
    assert_eq!(dropped, ["status.storedVersions[0]"]);
}
