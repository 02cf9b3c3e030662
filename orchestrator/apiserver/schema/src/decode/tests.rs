//! Tests of decoding: tables for strictness and type errors, properties for the two encodings.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1 as storage;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::encode;

mod generated;

fn pod() -> TypeId {
    Registry::builtin().type_by_gvk("", "v1", "Pod").unwrap()
}

fn strict(type_id: TypeId, body: &str) -> Result<Decoded, DecodeError> {
    json(Registry::builtin(), type_id, body.as_bytes(), Strictness::Strict)
}

#[test]
fn unknown_and_duplicate_fields_are_named_by_path() {
    let cases: [(&str, &[&str]); 8] = [
        (r#"{"metadata":{"name":"a"},"spec":{"containers":[]}}"#, &[]),
        (
            r#"{"x":1,"spec":{"y":{"z":1}}}"#,
            &[r#"unknown field "x""#, r#"unknown field "spec.y""#],
        ),
        (
            r#"{"spec":{"containers":[{"name":"a"},{"name":"b","imagee":"c"}]}}"#,
            &[r#"unknown field "spec.containers[1].imagee""#],
        ),
        (
            r#"{"spec":{"nodeName":"a","nodeName":"b"},"spec":{}}"#,
            &[r#"duplicate field "spec.nodeName""#, r#"duplicate field "spec""#],
        ),
        (
            r#"{"metadata":{"labels":{"a":"1","a":"2"}}}"#,
            &[r#"duplicate field "metadata.labels.a""#],
        ),
        (
            r#"{"spec":{"volumes":[{"name":"v","emptyDir":{"size":1}}]}}"#,
            &[r#"unknown field "spec.volumes[0].emptyDir.size""#],
        ),
        (r#"{"Spec":{}}"#, &[r#"unknown field "Spec""#]),
        (r#"{"metadata":{"managedFields":[{"fieldsV1":{"f:x":{}}}]}}"#, &[]),
    ];
    for (body, problems) in cases {
        assert_eq!(strict(pod(), body).unwrap().problems, problems, "{body}");
        let ignored = json(Registry::builtin(), pod(), body.as_bytes(), Strictness::Ignore).unwrap();
        assert!(ignored.problems.is_empty(), "{body}");
    }
}

#[test]
fn values_of_the_wrong_type_are_refused_in_gos_words() {
    let claim = Registry::builtin()
        .type_by_gvk("", "v1", "PersistentVolumeClaim")
        .unwrap();
    let cases = [
        (
            r#"{"spec":{"volumeName":1}}"#,
            "json: cannot unmarshal number into Go struct field PersistentVolumeClaimSpec.spec.volumeName of type string",
        ),
        (
            r#"{"spec":{"accessModes":"ReadWriteOnce"}}"#,
            "json: cannot unmarshal string into Go struct field PersistentVolumeClaimSpec.spec.accessModes of type []string",
        ),
        (
            r#"{"spec":[]}"#,
            "json: cannot unmarshal array into Go struct field PersistentVolumeClaim.spec of type v1.PersistentVolumeClaimSpec",
        ),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"metadata":{"generation":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field ObjectMeta.metadata.generation of type int64",
        ),
        (
            r#"[]"#,
            "json: cannot unmarshal array into Go value of type v1.PersistentVolumeClaim",
        ),
        (
            r#"{"spec":{"resources":{"requests":{"storage":"much"}}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"metadata":{"creationTimestamp":"soon"}}"#,
            r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#,
        ),
    ];
    for (body, message) in cases {
        match strict(claim, body) {
            Err(DecodeError::Type(found)) => assert_eq!(found, message, "{body}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    for body in ["", "{", "{}x", "\"a"] {
        assert!(
            matches!(strict(claim, body), Err(DecodeError::Syntax(_))),
            "{body}"
        );
    }
}

#[test]
fn values_get_their_canonical_forms() {
    let claim = Registry::builtin()
        .type_by_gvk("", "v1", "PersistentVolumeClaim")
        .unwrap();
    let cases = [
        (
            json!({"spec": {"resources": {"requests": {"storage": 1024}}}}),
            json!({"spec": {"resources": {"requests": {"storage": "1024"}}}}),
        ),
        (
            json!({"spec": {"resources": {"requests": {"storage": "1024Mi"}}}}),
            json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        (
            json!({"spec": {"storageClassName": "", "volumeName": ""}}),
            json!({"spec": {"storageClassName": ""}}),
        ),
        (
            json!({"spec": {"storageClassName": null, "accessModes": []}}),
            json!({"spec": {}}),
        ),
        (
            json!({"metadata": {"labels": {"a": null}, "finalizers": []}}),
            json!({"metadata": {"labels": {"a": ""}}}),
        ),
        (
            json!({"metadata": {"creationTimestamp": null}}),
            json!({"metadata": {}}),
        ),
        (
            json!({"metadata": {"creationTimestamp": "2024-01-02T03:04:05.9+01:00"}}),
            json!({"metadata": {"creationTimestamp": "2024-01-02T02:04:05Z"}}),
        ),
    ];
    for (body, expected) in cases {
        let decoded = strict(claim, &body.to_string()).unwrap();
        assert_eq!((decoded.value, decoded.problems), (expected, vec![]), "{body}");
        assert!(
            value(Registry::builtin(), claim, &body, Strictness::Strict)
                .unwrap()
                .problems
                .is_empty()
        );
    }
    let pod = strict(
        pod(),
        r#"{"spec":{"volumes":[{"name":"v","emptyDir":{}}],"automountServiceAccountToken":false,"hostNetwork":false}}"#,
    );
    let expected =
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}], "automountServiceAccountToken": false}});
    assert_eq!(pod.unwrap().value, expected);
}

#[test]
fn yaml_is_read_like_json() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  name: b\nspec:\n  colour: red\n  containers:\n  - name: c\n    resources: {limits: {cpu: 0.5}}\n";
    let decoded = yaml(Registry::builtin(), pod(), text.as_bytes(), Strictness::Strict).unwrap();
    assert_eq!(
        decoded.problems,
        [
            r#"duplicate field "metadata.name""#,
            r#"unknown field "spec.colour""#
        ]
    );
    let container = json!({"name": "c", "resources": {"limits": {"cpu": "500m"}}});
    let expected = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}, "spec": {"containers": [container]}});
    assert_eq!(decoded.value, expected);
    assert_eq!(
        type_meta(text.as_bytes()).unwrap(),
        TypeMeta {
            api_version: "v1".into(),
            kind: "Pod".into()
        }
    );
    let wrong = yaml(
        Registry::builtin(),
        pod(),
        b"metadata:\n  name: 5\n",
        Strictness::Strict,
    );
    assert!(matches!(wrong, Err(DecodeError::Type(_))), "{wrong:?}");
}

#[test]
fn type_meta_is_read_without_the_rest() {
    let meta =
        type_meta(br#"{"spec":{"a":[1,2]},"kind":"Lease","apiVersion":"coordination.k8s.io/v1"}"#).unwrap();
    assert_eq!(
        meta,
        TypeMeta {
            api_version: "coordination.k8s.io/v1".into(),
            kind: "Lease".into()
        }
    );
    assert_eq!(type_meta(b"{}").unwrap(), TypeMeta::default());
    assert!(type_meta(b"{").is_err());
}

/// Bytes as client-go writes them: fields that are no pointers are there although they are empty.
#[test]
fn a_claim_written_by_go_is_read() {
    let mut spec = Vec::new();
    crate::wire::put_bytes(&mut spec, 1, b"ReadWriteOnce");
    crate::wire::put_bytes(&mut spec, 2, b"");
    crate::wire::put_bytes(&mut spec, 3, b"");
    crate::wire::put_bytes(&mut spec, 5, b"");
    let mut meta = Vec::new();
    for (number, text) in [(1, "data"), (2, ""), (3, "default"), (4, ""), (5, ""), (6, "")] {
        crate::wire::put_bytes(&mut meta, number, text.as_bytes());
    }
    crate::wire::put_number(&mut meta, 7, 0);
    crate::wire::put_bytes(&mut meta, 8, b"");
    let mut raw = Vec::new();
    crate::wire::put_bytes(&mut raw, 1, &meta);
    crate::wire::put_bytes(&mut raw, 2, &spec);
    crate::wire::put_bytes(&mut raw, 3, &{
        let mut status = Vec::new();
        crate::wire::put_bytes(&mut status, 1, b"");
        status
    });
    crate::wire::put_bytes(&mut raw, 99, b"from the future");
    let mut names = Vec::new();
    crate::wire::put_bytes(&mut names, 1, b"v1");
    crate::wire::put_bytes(&mut names, 2, b"PersistentVolumeClaim");
    let mut body = crate::wire::MAGIC.to_vec();
    crate::wire::put_bytes(&mut body, 1, &names);
    crate::wire::put_bytes(&mut body, 2, &raw);
    crate::wire::put_bytes(&mut body, 3, b"");
    crate::wire::put_bytes(&mut body, 4, b"");
    let (api_version, kind, value) = protobuf(Registry::builtin(), &body).unwrap();
    assert_eq!(
        (api_version.as_str(), kind.as_str()),
        ("v1", "PersistentVolumeClaim")
    );
    let expected = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "default"},
        // The class is a pointer in Go: empty is not absent.
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": ""},
    });
    assert_eq!(value, expected);
}

#[test]
fn kinds_that_are_not_known_and_broken_bodies_are_refused() {
    let registry = Registry::builtin();
    let body = encode::protobuf(registry, pod(), "v1", "Pod", &json!({"metadata": {"name": "a"}}));
    assert!(protobuf(registry, &body).is_ok());
    for end in 0..body.len() - 4 {
        // A cut body is an error or, cut between two fields, an unknown or emptier object; never a panic.
        if let Ok((_, kind, _)) = protobuf(registry, &body[..end]) {
            assert_eq!(kind, "Pod");
        }
    }
    let other = encode::protobuf(registry, pod(), "v9", "Pod", &json!({}));
    assert!(matches!(
        protobuf(registry, &other),
        Err(DecodeError::UnknownKind { .. })
    ));
    assert!(matches!(protobuf(registry, b"{}"), Err(DecodeError::Protobuf(_))));
    assert!(is_protobuf(&body) && !is_protobuf(b"{}"));
}

#[test]
fn options_and_reviews_are_known_in_protobuf() {
    let cases = [
        (
            "v1",
            "DeleteOptions",
            json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Background"}),
        ),
        (
            "meta.k8s.io/v1",
            "DeleteOptions",
            json!({"orphanDependents": false}),
        ),
        (
            "policy/v1",
            "Eviction",
            json!({"metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 5}}),
        ),
        (
            "authentication.k8s.io/v1",
            "TokenRequest",
            json!({"spec": {"audiences": ["a"], "expirationSeconds": 600}}),
        ),
        (
            "v1",
            "Binding",
            json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}),
        ),
        (
            "authentication.k8s.io/v1",
            "TokenReview",
            json!({"spec": {"token": "t"}, "status": {"user": {"extra": {"k": ["a", "b"]}}}}),
        ),
    ];
    let registry = Registry::builtin();
    for (api_version, kind, object) in cases {
        let gvk = crate::Gvk::new(api_version, kind);
        let type_id = registry.type_by_gvk(gvk.group, gvk.version, gvk.kind).unwrap();
        let body = encode::protobuf(registry, type_id, api_version, kind, &object);
        let (_, _, mut found) = protobuf(registry, &body).unwrap();
        let fields = found.as_object_mut().unwrap();
        assert_eq!(fields.remove("apiVersion"), Some(api_version.into()));
        assert_eq!(fields.remove("kind"), Some(kind.into()));
        if kind == "TokenRequest" {
            // No omitempty in Go: written although nothing was said.
            fields["spec"].as_object_mut().unwrap().remove("boundObjectRef");
        }
        assert_eq!(found, object, "{kind}");
    }
}

/// k8s-openapi's idea of a type and ours agree, in both encodings.
fn agrees<K>(object: &K)
where
    K: k8s_openapi::Resource + serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let registry = Registry::builtin();
    let type_id = registry.type_by_gvk(K::GROUP, K::VERSION, K::KIND).unwrap();
    let tree = serde_json::to_value(object).unwrap();
    let decoded = strict(type_id, &tree.to_string()).unwrap();
    assert_eq!(decoded.problems, Vec::<String>::new());
    let body = encode::protobuf(registry, type_id, K::API_VERSION, K::KIND, &decoded.value);
    let (_, _, found) = protobuf(registry, &body).unwrap();
    assert_eq!(found, decoded.value);
    assert_eq!(&serde_json::from_value::<K>(found).unwrap(), object);
}

#[test]
fn typed_objects_survive_both_encodings() {
    let pod: core::Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "labels": {"a": "b"}, "creationTimestamp": "2024-01-02T03:04:05Z"},
        "spec": {
            "containers": [{
                "name": "c", "image": "i", "args": ["x"], "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k", "optional": true}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5},
                "readinessProbe": {"tcpSocket": {"port": 80}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 0,
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap();
    agrees(&pod);
    let volume: core::PersistentVolume = serde_json::from_value(json!({
        "metadata": {"name": "v"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
            "csi": {"driver": "d", "volumeHandle": "h", "volumeAttributes": {"a": "b"}},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "In", "values": ["n"]}]}]}},
            "claimRef": {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "c", "uid": "u"},
        },
    }))
    .unwrap();
    agrees(&volume);
    let class: storage::StorageClass = serde_json::from_value(json!({
        "metadata": {"name": "fast"}, "provisioner": "d", "allowVolumeExpansion": false,
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}],
    }))
    .unwrap();
    agrees(&class);
    let lease: k8s_openapi::api::coordination::v1::Lease = serde_json::from_value(json!({
        "metadata": {"name": "l"}, "spec": {"renewTime": "2024-01-02T03:04:05.678901Z", "leaseDurationSeconds": 15},
    }))
    .unwrap();
    agrees(&lease);
    let secret: core::Secret =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "data": {"k": "AAEC"}, "type": "Opaque"}))
            .unwrap();
    agrees(&secret);
}

/// Objects as k8s.io/apimachinery 0.36 wrote them, in both encodings: one line each.
#[test]
fn what_go_wrote_is_read_the_same_from_both_encodings() {
    let registry = Registry::builtin();
    let mut count = 0;
    for line in include_str!("tests/go_objects.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let bytes = STANDARD.decode(line["protobuf"].as_str().unwrap()).unwrap();
        let (api_version, kind, found) = protobuf(registry, &bytes).unwrap();
        let gvk = crate::Gvk::new(&api_version, &kind);
        let type_id = registry.type_by_gvk(gvk.group, gvk.version, gvk.kind).unwrap();
        let decoded = value(registry, type_id, &line["json"], Strictness::Strict).unwrap();
        assert_eq!(decoded.problems, Vec::<String>::new(), "{kind}");
        let plain = |value: &Value| generated::without_empty_structs(registry, type_id, value);
        assert_eq!(plain(&found), plain(&decoded.value), "{kind}");
        let again = encode::protobuf(registry, type_id, &api_version, &kind, &decoded.value);
        assert_eq!(
            plain(&protobuf(registry, &again).unwrap().2),
            plain(&decoded.value),
            "{kind}"
        );
        count += 1;
    }
    assert_eq!(count, 158);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// JSON -> protobuf -> JSON loses nothing, for every type there is.
    #[test]
    fn both_encodings_hold_the_same(entropy in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..4000) {
        let registry = Registry::builtin();
        let (type_id, tree) = generated::object(registry, at, &entropy);
        let decoded = value(registry, type_id, &tree, Strictness::Strict).unwrap();
        prop_assert!(decoded.problems.is_empty(), "{:?}", decoded.problems);
        let again = json(registry, type_id, decoded.value.to_string().as_bytes(), Strictness::Strict).unwrap();
        prop_assert_eq!(&again.value, &decoded.value);
        let bytes = encode::message(registry, type_id, &decoded.value);
        let found = message::bare(registry, type_id, &bytes).unwrap();
        prop_assert_eq!(
            generated::without_empty_structs(registry, type_id, &found),
            generated::without_empty_structs(registry, type_id, &decoded.value),
            "{}", registry.get(type_id).name
        );
    }

    /// Whatever bytes come, decoding ends without a panic.
    #[test]
    fn no_bytes_break_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let registry = Registry::builtin();
        message::bare(registry, pod(), &bytes).ok();
        json(registry, pod(), &bytes, Strictness::Strict).ok();
        yaml(registry, pod(), &bytes, Strictness::Strict).ok();
    }
}
