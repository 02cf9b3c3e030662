//! The annotation in which kubectl keeps what it applied from the client's side, and how it goes over into owners.

use serde_json::Value;

use super::{Versions, Writer};
use crate::fields_v1::Set;
use crate::structured_merge::{check, compare, field_set};

/// Its name.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The one manager that heeds it.
const KUBECTL: &str = "kubectl";
/// All annotations together may have so many bytes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Whether the writer is the one who applied from the client's side before.
pub(super) fn is_kubectl(writer: &Writer<'_>) -> bool {
    writer.manager == KUBECTL
}

fn stated(object: &Value) -> Option<&str> {
    let text = object
        .get("metadata")?
        .get("annotations")?
        .get(ANNOTATION)?
        .as_str()?;
    Some(text).filter(|text| !text.is_empty())
}

/// The fields that were applied from the client's side and have that value still: kubectl may take them over.
pub(super) fn fields<'s, V: Versions<'s>>(versions: &V, writer: &Writer<'_>, live: &Value) -> Option<Set> {
    let applied: Value = serde_json::from_str(stated(live)?).ok()?;
    if applied.get("apiVersion").and_then(Value::as_str) != Some(writer.api_version) {
        return None;
    }
    let schema = versions.schema(writer.api_version)?;
    check(schema, &applied).ok()?;
    let changes = compare(schema, Some(&applied), Some(live));
    let fields = field_set(schema, &applied).difference(&changes.modified);
    Some(fields.difference(&changes.added).difference(&changes.removed))
}

/// Brings the annotation of an object that has one up to date with what is applied from the server's side.
pub(super) fn keep_up(object: &mut Value, applied: &Value) {
    if stated(object).is_none() {
        return;
    }
    let mut applied = applied.clone();
    if let Some(annotations) = applied
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(ANNOTATION);
    }
    let annotations = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    let Some(annotations) = annotations else { return };
    annotations.insert(ANNOTATION.to_owned(), format!("{applied}\n").into());
    let bytes = |value: &Value| value.as_str().map_or(0, str::len);
    let total: usize = annotations
        .iter()
        .map(|(name, value)| name.len() + bytes(value))
        .sum();
    if total > ANNOTATIONS_BYTES_MAX {
        annotations.remove(ANNOTATION);
    }
}
