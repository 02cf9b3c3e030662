//! Request bodies into objects, with the strictness the client asked for.

use bytes::Bytes;
use http::header;
use moorline_schema::custom::object::complete;
use moorline_schema::decode::{self, DecodeError, Strictness};
use moorline_schema::{Registry, TypeId};
use serde_json::Value;

use super::Call;
use crate::customs::CustomResource;
use crate::http::Failure;
use crate::http::negotiation::{self, BodyForm};
use crate::http::query::Query;

/// The type a body must have.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) type_id: TypeId,
    pub(crate) api_version: String,
    pub(crate) kind: &'static str,
}

impl Expected {
    /// The refusal of a body of this type.
    fn refuse(&self, why: &str) -> Failure {
        let version = self.api_version.rsplit('/').next().unwrap_or_default();
        let kind = self.kind;
        Failure::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
        ))
    }
}

/// A decoded object and what the client is to be warned of.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) value: Value,
    pub(crate) warnings: Vec<String>,
}

/// The type of the objects of a call's resource or subresource.
pub(crate) fn expected(call: &Call<'_>) -> Expected {
    match call.subresource {
        Some(sub) => Expected {
            type_id: sub.type_id,
            api_version: if sub.group.is_empty() {
                sub.version.to_owned()
            } else {
                format!("{}/{}", sub.group, sub.version)
            },
            kind: sub.kind,
        },
        None => Expected {
            type_id: call.resource.facts.type_id,
            api_version: call.resource.facts.api_version(),
            kind: call.resource.facts.kind,
        },
    }
}

/// The `fieldValidation` parameter.
pub(crate) fn strictness(query: &Query<'_>) -> Result<Strictness, Failure> {
    match query.get("fieldValidation") {
        None | Some("Warn") => Ok(Strictness::Warn),
        Some("Strict") => Ok(Strictness::Strict),
        Some("Ignore") => Ok(Strictness::Ignore),
        Some(other) => {
            let message = format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            );
            Err(Failure::bad_request(message))
        }
    }
}

/// Decodes the body of a write.
pub(crate) fn object(call: &Call<'_>, body: &Bytes) -> Result<Body, Failure> {
    let expected = expected(call);
    let strictness = strictness(call.query)?;
    let form = negotiation::body_form(call.header(header::CONTENT_TYPE))?;
    if let Some(custom) = own_form(call) {
        return self::custom(call, custom, form, body, strictness);
    }
    typed(call.api.registry, &expected, form, body, strictness)
}

/// The definition by which a call's body is read, if its body is a custom object.
fn own_form<'c>(call: &'c Call<'_>) -> Option<&'c CustomResource> {
    let is_own = call.subresource.is_none() || call.is_status();
    call.resource.custom.as_deref().filter(|_| is_own)
}

/// Decodes a custom object; these have no protobuf form.
fn custom(
    call: &Call<'_>,
    custom: &CustomResource,
    form: BodyForm,
    body: &[u8],
    strictness: Strictness,
) -> Result<Body, Failure> {
    let expected = expected(call);
    let is_yaml = match form {
        BodyForm::Json => false,
        BodyForm::Yaml => true,
        BodyForm::Protobuf => {
            let accepted = ["application/json", "application/yaml"];
            return Err(Failure::unsupported_media_type(&accepted));
        }
    };
    let read =
        decode::anything(body, is_yaml, strictness).map_err(|error| expected.refuse(&error.to_string()))?;
    let mut value = read.value;
    check_type(&mut value, &expected)?;
    let decoded = complete(
        call.api.registry,
        custom.version(),
        value,
        read.problems,
        strictness,
    );
    let decoded = decoded.map_err(|error| expected.refuse(&error.to_string()))?;
    if strictness == Strictness::Strict && !decoded.problems.is_empty() {
        let problems = decoded.problems.join(", ");
        return Err(expected.refuse(&format!("strict decoding error: {problems}")));
    }
    Ok(Body {
        value: decoded.value,
        warnings: decoded.problems,
    })
}

/// Decodes a body of a known type.
pub(crate) fn typed(
    registry: &Registry,
    expected: &Expected,
    form: BodyForm,
    body: &[u8],
    strictness: Strictness,
) -> Result<Body, Failure> {
    let refuse = |why: String| expected.refuse(&why);
    let decoded =
        match form {
            BodyForm::Protobuf => {
                let (_, _, value) =
                    decode::protobuf(registry, body).map_err(|error| refuse(error.to_string()))?;
                decode::Decoded {
                    value,
                    problems: Vec::new(),
                }
            }
            BodyForm::Json => decode::json(registry, expected.type_id, body, strictness)
                .map_err(|e| refuse(e.to_string()))?,
            BodyForm::Yaml => decode::yaml(registry, expected.type_id, body, strictness)
                .map_err(|e| refuse(e.to_string()))?,
        };
    let mut value = decoded.value;
    check_type(&mut value, expected)?;
    if strictness == Strictness::Strict && !decoded.problems.is_empty() {
        return Err(refuse(format!(
            "strict decoding error: {}",
            decoded.problems.join(", ")
        )));
    }
    Ok(Body {
        value,
        warnings: decoded.problems,
    })
}

/// A body may leave out its type, but not state another one.
fn check_type(value: &mut Value, expected: &Expected) -> Result<(), Failure> {
    let Some(object) = value.as_object_mut() else {
        return Err(Failure::bad_request("the body is not an object"));
    };
    let stated = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (stated("apiVersion"), stated("kind"));
    if !kind.is_empty() && kind != expected.kind {
        let message = format!(
            "{kind} in version {api_version:?} cannot be handled as a {}: the object provided is unrecognized (must be of type {})",
            expected.kind, expected.kind
        );
        return Err(Failure::bad_request(message));
    }
    if !api_version.is_empty() && api_version != expected.api_version {
        let message = format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version
        );
        return Err(Failure::bad_request(message));
    }
    object.insert("apiVersion".to_owned(), expected.api_version.as_str().into());
    object.insert("kind".to_owned(), expected.kind.into());
    Ok(())
}

/// Checks an object that came from a patch.
pub(crate) fn patched(call: &Call<'_>, value: &Value) -> Result<Body, Failure> {
    let expected = expected(call);
    let strictness = strictness(call.query)?;
    let decoded = match own_form(call) {
        None => decode::value(call.api.registry, expected.type_id, value, strictness),
        Some(custom) => complete(
            call.api.registry,
            custom.version(),
            value.clone(),
            Vec::new(),
            strictness,
        ),
    };
    let decoded = decoded.map_err(|error: DecodeError| {
        let about = call.resource.about_kind(call.name.unwrap_or_default());
        let cause = crate::http::Cause {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {error}"),
            field: "patch".to_owned(),
        };
        Failure::invalid(about, vec![cause])
    })?;
    if strictness == Strictness::Strict && !decoded.problems.is_empty() {
        return Err(Failure::bad_request(format!(
            "strict decoding error: {}",
            decoded.problems.join(", ")
        )));
    }
    let mut value = decoded.value;
    check_type(&mut value, &expected)?;
    Ok(Body {
        value,
        warnings: decoded.problems,
    })
}
