//! The `scale` subresource: a view of one field of the object, so its owners are those of that field.

use serde_json::Value;

use super::{Entry, Managed, ManagedError};
use crate::fields_v1::{Path, Set};

/// The version of scales.
const SCALE: &str = "autoscaling/v1";

fn replicas_in_scale() -> Path {
    Path::fields(&["spec", "replicas"])
}

/// The owners of a scale, given those of its object. `replicas` names the field that is scaled in a version of the
/// object; nothing for versions that are not known or have no scale.
///
/// # Errors
/// [`ManagedError`]: the object's owners can't be read.
pub fn to_scale(
    parent: &Value,
    replicas: impl Fn(&str) -> Option<Path>,
) -> Result<Option<Value>, ManagedError> {
    let owns = |entry: &Entry| replicas(&entry.api_version).is_some_and(|path| entry.fields.has(&path));
    let mut managed = Managed::decode(parent)?;
    managed.entries.retain(owns);
    for entry in &mut managed.entries {
        entry.api_version = SCALE.to_owned();
        entry.fields = Set::of([replicas_in_scale()]);
    }
    Ok(managed.encode())
}

/// The owners of an object after its scale was written: `before` are those it had, `scale` those of the written scale,
/// `api_version` is the version of the request.
///
/// # Errors
/// [`ManagedError`]: owners can't be read.
pub fn from_scale(
    before: &Value,
    scale: &Value,
    api_version: &str,
    replicas: impl Fn(&str) -> Option<Path>,
) -> Result<Option<Value>, ManagedError> {
    let before = Managed::decode(before)?;
    let mut scale = Managed::decode(scale)?;
    let mut after = Managed::default();
    for mut entry in before.entries {
        if let Some(path) = replicas(&entry.api_version).filter(|path| entry.fields.has(path)) {
            let as_scale = Entry {
                api_version: SCALE.to_owned(),
                ..entry.clone()
            };
            if scale.take(&as_scale).is_none() {
                // Somebody else scales now.
                entry.fields = entry.fields.difference(&Set::of([path]));
            }
        }
        after.put(entry);
    }
    for mut entry in scale.entries {
        let Some(path) = replicas(api_version).filter(|_| entry.fields.has(&replicas_in_scale())) else {
            continue;
        };
        entry.api_version = api_version.to_owned();
        entry.fields = Set::of([path]);
        after.put(entry);
    }
    after.drop_empty();
    Ok(after.encode())
}
