//! Secrets, namespaces, nodes, role bindings, tokens.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{child, elements, existing};
use crate::object::{is_empty, set_default, set_if_empty};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
/// The label by which a namespace can be selected by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn secret(secret: &mut Map<String, Value>) {
    set_if_empty(secret, "type", "Opaque");
    // What is given as text is stored with the rest; the field itself is only ever written.
    let Some(Value::Object(texts)) = secret.remove("stringData") else {
        return;
    };
    let Some(data) = child(secret, "data") else { return };
    for (key, value) in texts {
        let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
        data.insert(key, encoded.into());
    }
}

pub(super) fn namespace(namespace: &mut Map<String, Value>) {
    if let Some(status) = child(namespace, "status") {
        set_if_empty(status, "phase", "Active");
    }
    let Some(metadata) = child(namespace, "metadata") else {
        return;
    };
    let Some(name) = metadata.get("name").filter(|name| !is_empty(Some(name))).cloned() else {
        return;
    };
    if let Some(labels) = child(metadata, "labels") {
        labels.insert(NAME_LABEL.to_owned(), name);
    }
}

/// What a node has, it can give to pods, unless it says otherwise.
pub(super) fn node(node: &mut Map<String, Value>) {
    let Some(status) = existing(node, "status") else {
        return;
    };
    if let Some(capacity) = status
        .get("capacity")
        .filter(|capacity| !is_empty(Some(capacity)))
        .cloned()
    {
        set_default(status, "allocatable", capacity);
    }
}

pub(super) fn role_binding(binding: &mut Map<String, Value>) {
    if let Some(role) = child(binding, "roleRef") {
        set_if_empty(role, "apiGroup", RBAC_GROUP);
    }
    for subject in elements(binding, "subjects") {
        if matches!(
            subject.get("kind").and_then(Value::as_str),
            Some("User" | "Group")
        ) {
            set_if_empty(subject, "apiGroup", RBAC_GROUP);
        }
    }
}

pub(super) fn token_request(request: &mut Map<String, Value>) {
    if let Some(spec) = child(request, "spec") {
        set_default(spec, "expirationSeconds", 3600);
    }
}
