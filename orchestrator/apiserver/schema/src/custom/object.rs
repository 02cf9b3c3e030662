//! What happens to a custom object on its way into the store, step by step. Pure.

use serde_json::{Map, Value};

use super::{Version, defaulting, pruning, validation};
use crate::decode::{DecodeError, Strictness};
use crate::registry::Registry;
use crate::validation::Cause;
use crate::validation::faults::Faults;
use crate::{decode, validation as builtin};

/// The type by which metadata of custom objects is read.
const METADATA_TYPE: &str = "meta/v1.PartialObjectMetadata";

/// Completes a decoded body: metadata is read by its own rules, unknown fields and needless nulls go, defaults come.
/// `problems` are those found while the body was read; unknown fields are added to them.
///
/// # Errors
/// [`DecodeError::Type`]: metadata has a value of another type.
pub fn complete(
    registry: &Registry,
    version: &Version,
    mut value: Value,
    mut problems: Vec<String>,
    strictness: Strictness,
) -> Result<decode::Decoded, DecodeError> {
    coerce_metadata(registry, &mut value, &mut problems, strictness)?;
    pruning::prune(&version.schema, &mut value, |path| {
        if strictness != Strictness::Ignore {
            problems.push(format!("unknown field \"{path}\""));
        }
    });
    defaulting::apply(&version.schema, &mut value);
    Ok(decode::Decoded { value, problems })
}

fn coerce_metadata(
    registry: &Registry,
    value: &mut Value,
    problems: &mut Vec<String>,
    strictness: Strictness,
) -> Result<(), DecodeError> {
    let Some(object) = value.as_object_mut() else {
        return Err(DecodeError::Type(
            "json: cannot unmarshal the body into an object".to_owned(),
        ));
    };
    let type_id = registry.type_by_id(METADATA_TYPE);
    let Some((type_id, metadata)) =
        type_id.zip(object.get("metadata").filter(|metadata| !metadata.is_null()))
    else {
        return Ok(());
    };
    let mut partial = Map::new();
    partial.insert("metadata".to_owned(), metadata.clone());
    let mut decoded = decode::value(registry, type_id, &Value::Object(partial), strictness)?;
    problems.append(&mut decoded.problems);
    object.insert("metadata".to_owned(), decoded.value["metadata"].take());
    Ok(())
}

/// Brings a stored object under today's schema: what it doesn't know goes, what it states as default comes.
pub fn normalise(version: &Version, value: &mut Value) {
    pruning::prune(&version.schema, value, |_| ());
    defaulting::apply(&version.schema, value);
}

/// All faults of a new object.
#[must_use]
pub fn check_new(version: &Version, namespaced: bool, object: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    builtin::metadata::create_custom(namespaced, object, &mut faults);
    faults.extend(validation::check(&version.schema, object, None));
    faults.into_causes()
}

/// All faults of a changed object.
#[must_use]
pub fn check_change(version: &Version, old: &Value, new: &Value) -> Vec<Cause> {
    let mut faults = Faults::default();
    builtin::metadata::update(old, new, &mut faults);
    faults.extend(validation::check(&version.schema, new, Some(old)));
    faults.into_causes()
}
