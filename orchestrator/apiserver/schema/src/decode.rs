//! Request bodies into objects: JSON, YAML, protobuf.

mod anything;
mod message;
mod scalar;
mod tree;

use std::borrow::Cow;
use std::cell::RefCell;

use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::place::Place;
use crate::registry::{Kind, Registry, TypeId};
use tree::{Body, Seed, Shape};

/// What to do about unknown and duplicate fields: the values of the `fieldValidation` parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Strictness {
    /// They are dropped and not reported.
    Ignore,
    /// They are dropped and reported in [`Decoded::problems`], for `Warning` headers.
    #[default]
    Warn,
    /// They are dropped and reported in [`Decoded::problems`], for a refusal.
    Strict,
}

/// A decoded body.
#[derive(Clone, PartialEq, Debug)]
pub struct Decoded {
    /// The object: known fields only, values in their canonical forms.
    pub value: Value,
    /// Such as `unknown field "spec.x"` and `duplicate field "spec.y"`, in the order of the body; empty with
    /// [`Strictness::Ignore`].
    pub problems: Vec<String>,
}

/// Why a body can't be decoded. The text is upstream's, to be put behind
/// `PersistentVolumeClaim in version "v1" cannot be handled as a PersistentVolumeClaim: `.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body is not JSON or YAML at all.
    #[error("{0}")]
    Syntax(String),
    /// A value doesn't have the type of its field.
    #[error("{0}")]
    Type(String),
    /// The bytes are no protobuf message of that kind.
    #[error("protobuf body: {0}")]
    Protobuf(String),
    /// No type is known under the names in the envelope.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// As the body says.
        api_version: String,
        /// As the body says.
        kind: String,
    },
}

/// `apiVersion` and `kind` of a body; empty where absent.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TypeMeta {
    /// Such as `storage.k8s.io/v1`.
    pub api_version: String,
    /// Such as `StorageClass`.
    pub kind: String,
}

/// Decodes a JSON body of a known type.
///
/// # Errors
/// [`DecodeError::Syntax`] and [`DecodeError::Type`].
pub fn json(
    registry: &Registry,
    type_id: TypeId,
    body: &[u8],
    strictness: Strictness,
) -> Result<Decoded, DecodeError> {
    decode_with(registry, type_id, strictness, |seed| {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let value = seed.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok::<_, serde_json::Error>(value)
    })
}

/// Decodes a YAML body of a known type. Duplicate keys are reported like those of JSON.
///
/// # Errors
/// As [`json`].
pub fn yaml(
    registry: &Registry,
    type_id: TypeId,
    body: &[u8],
    strictness: Strictness,
) -> Result<Decoded, DecodeError> {
    let options = yaml_options();
    decode_with(registry, type_id, strictness, |seed| {
        serde_saphyr::with_deserializer_from_slice_with_options(body, options, |deserializer| {
            seed.deserialize(deserializer)
        })
    })
}

/// Decodes a JSON or YAML body whose type is not known here, or plays no part: all that it says, nulls too. Problems are
/// fields that are there twice.
///
/// # Errors
/// [`DecodeError::Syntax`].
pub fn anything(body: &[u8], is_yaml: bool, strictness: Strictness) -> Result<Decoded, DecodeError> {
    let duplicates = RefCell::new(Vec::new());
    let seed = anything::Untyped {
        duplicates: &duplicates,
        place: &Place::ROOT,
        depth: 0,
    };
    let syntax = |error: &dyn std::fmt::Display| DecodeError::Syntax(error.to_string());
    let value = if is_yaml {
        let read = |deserializer: serde_saphyr::Deserializer<'_, '_>| seed.deserialize(deserializer);
        serde_saphyr::with_deserializer_from_slice_with_options(body, yaml_options(), read)
            .map_err(|error| syntax(&error))?
    } else {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let value = seed
            .deserialize(&mut deserializer)
            .map_err(|error| syntax(&error))?;
        deserializer.end().map_err(|error| syntax(&error))?;
        value
    };
    let mut problems = duplicates.into_inner();
    if strictness == Strictness::Ignore {
        problems.clear();
    }
    Ok(Decoded { value, problems })
}

/// Decodes an object that is already a tree, such as the result of a patch: types are checked, unknown fields are
/// reported, values get their canonical forms.
///
/// # Errors
/// [`DecodeError::Type`].
pub fn value(
    registry: &Registry,
    type_id: TypeId,
    value: &Value,
    strictness: Strictness,
) -> Result<Decoded, DecodeError> {
    decode_with(registry, type_id, strictness, |seed| seed.deserialize(value))
}

/// Whether a body that may be JSON or YAML is to be read as JSON.
#[must_use]
pub fn is_json(body: &[u8]) -> bool {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    first.is_none_or(|&byte| byte == b'{')
}

fn decode_with<'r, E: std::fmt::Display>(
    registry: &'r Registry,
    type_id: TypeId,
    strictness: Strictness,
    read: impl FnOnce(Seed<'_>) -> Result<Value, E>,
) -> Result<Decoded, DecodeError> {
    let body: Body<'r> = Body::new(registry, strictness != Strictness::Ignore);
    let owner = registry.get(type_id).short_name;
    let shape = Shape::One(Kind::Message(type_id));
    let result = read(Seed {
        body: &body,
        place: &Place::ROOT,
        shape,
        owner,
    });
    match (result, body.failure.into_inner()) {
        (_, Some(failure)) => Err(DecodeError::Type(failure)),
        (Err(error), None) => Err(DecodeError::Syntax(error.to_string())),
        (Ok(Value::Null), None) => Err(DecodeError::Type("the body is null".to_owned())),
        (Ok(value), None) => Ok(Decoded {
            value,
            problems: body.problems.into_inner(),
        }),
    }
}

fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "apiVersion", default)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
}

/// `apiVersion` and `kind` of a JSON or YAML body, without decoding the rest.
///
/// # Errors
/// [`DecodeError::Syntax`].
pub fn type_meta(body: &[u8]) -> Result<TypeMeta, DecodeError> {
    let syntax = |error: String| DecodeError::Syntax(error);
    if is_json(body) {
        let head: Head<'_> = serde_json::from_slice(body).map_err(|error| syntax(error.to_string()))?;
        return Ok(head.into());
    }
    let head: YamlHead = serde_saphyr::from_slice_with_options(body, yaml_options())
        .map_err(|error| syntax(error.to_string()))?;
    Ok(TypeMeta {
        api_version: head.api_version,
        kind: head.kind,
    })
}

/// As [`Head`], but YAML can't be borrowed from.
#[derive(Deserialize, Default)]
#[serde(default)]
struct YamlHead {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
}

impl From<Head<'_>> for TypeMeta {
    fn from(head: Head<'_>) -> Self {
        TypeMeta {
            api_version: head.api_version.unwrap_or_default().into_owned(),
            kind: head.kind.unwrap_or_default().into_owned(),
        }
    }
}

/// Whether a body is in Kubernetes' protobuf envelope.
#[must_use]
pub fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(crate::wire::MAGIC)
}

/// Decodes a protobuf body in its envelope: `apiVersion`, `kind` and the object with these two in it. Unknown fields
/// are skipped, as upstream does.
///
/// # Errors
/// [`DecodeError::Protobuf`] and [`DecodeError::UnknownKind`].
pub fn protobuf(registry: &Registry, body: &[u8]) -> Result<(String, String, Value), DecodeError> {
    message::enveloped(registry, body)
}

#[cfg(test)]
mod tests;
