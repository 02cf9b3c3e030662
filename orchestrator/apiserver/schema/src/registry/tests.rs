//! Tests of the registry: every record can be read, lookups find what is served.

use super::*;

#[test]
fn every_type_of_the_facts_can_be_decoded() {
    let registry = Registry::builtin();
    assert_eq!(registry.types().count(), 1248);
    let fields: usize = registry.types().map(|facts| facts.proto.len()).sum();
    assert_eq!(fields, 4267);
    for facts in registry.types() {
        assert!(
            facts.json.len() <= 128,
            "{}: the decoder's set of seen fields is too small",
            facts.name
        );
        assert!(
            facts.json.windows(2).all(|pair| pair[0].name < pair[1].name),
            "{}: a name twice",
            facts.name
        );
        assert!(
            facts.proto.windows(2).all(|pair| pair[0].number < pair[1].number),
            "{}: a number twice",
            facts.name
        );
    }
}

#[test]
fn inlined_fields_stand_in_the_outer_object() {
    let registry = Registry::builtin();
    let volume = registry.get(registry.type_by_id("core/v1.Volume").unwrap());
    assert!(volume.field("name").is_some() && volume.field("emptyDir").is_some());
    assert!(volume.field("volumeSource").is_none());
    assert!(matches!(volume.proto_field(2).unwrap().kind, Kind::Inline(_)));
}

#[test]
fn what_is_served_is_found_and_the_rest_is_known() {
    let registry = Registry::builtin();
    let claims = registry.resource("", "v1", "persistentvolumeclaims").unwrap();
    assert_eq!(
        (claims.kind, claims.list_kind, claims.namespaced),
        ("PersistentVolumeClaim", Some("PersistentVolumeClaimList"), true)
    );
    assert!(claims.allows("watch") && claims.subresource("status").is_some());
    assert_eq!(
        registry
            .resource_by_kind("storage.k8s.io", "v1", "CSINode")
            .unwrap()
            .plural,
        "csinodes"
    );
    assert_eq!(
        registry
            .resource_by_kind("storage.k8s.io", "v1", "CSINode")
            .unwrap()
            .api_version(),
        "storage.k8s.io/v1"
    );
    assert!(
        registry
            .resource("apps", "v1", "deployments")
            .unwrap()
            .subresource("scale")
            .is_some()
    );
    assert!(
        registry
            .resource("resource.k8s.io", "v1beta1", "deviceclasses")
            .is_none()
    );
    assert!(
        registry
            .type_by_gvk("resource.k8s.io", "v1beta1", "DeviceClass")
            .is_some()
    );
    assert!(
        registry
            .type_by_gvk("meta.k8s.io", "v1", "DeleteOptions")
            .is_some()
    );
    let gvs: Vec<_> = registry.served_group_versions().collect();
    let stable = registry.groups().iter().flat_map(|group| &group.versions);
    let stable = stable
        .filter(|version| version.stability == Stability::Stable)
        .count();
    assert_eq!(gvs.len(), stable);
    assert_eq!(gvs[0], ("", "v1"));
}

#[test]
fn presence_follows_the_go_declarations() {
    let registry = Registry::builtin();
    let spec = registry.get(registry.type_by_id("core/v1.PersistentVolumeClaimSpec").unwrap());
    assert!(spec.field("storageClassName").unwrap().pointer);
    assert!(!spec.field("volumeName").unwrap().pointer);
    let container = registry.get(registry.type_by_id("core/v1.Container").unwrap());
    assert!(container.field("name").unwrap().keep_empty);
}
