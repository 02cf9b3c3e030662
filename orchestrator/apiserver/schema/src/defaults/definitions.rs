//! Defaults of CustomResourceDefinitions.

use serde_json::{Map, Value, json};

use super::existing;
use crate::object::{set_default, set_if_empty};

pub(super) fn definition(object: &mut Map<String, Value>) {
    let Some(spec) = existing(object, "spec") else {
        return;
    };
    set_default(spec, "conversion", json!({ "strategy": "None" }));
    if let Some(service) = existing(spec, "conversion")
        .and_then(|conversion| existing(conversion, "webhook"))
        .and_then(|webhook| existing(webhook, "clientConfig"))
        .and_then(|config| existing(config, "service"))
    {
        set_default(service, "port", 443);
    }
    let Some(names) = existing(spec, "names") else {
        return;
    };
    let kind = names
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if !kind.is_empty() {
        set_if_empty(names, "singular", kind.to_lowercase());
        set_if_empty(names, "listKind", format!("{kind}List"));
    }
}
