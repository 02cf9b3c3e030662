//! `PATCH`: JSON patch, JSON merge patch and strategic merge patch, applied to what is there.

mod operations;

use std::borrow::Cow;

use bytes::Bytes;
use http::{StatusCode, header};
use jiff::Timestamp;
use moorline_schema::patch as schema_patch;
use serde_json::Value;

use super::owners::{self, Owners};
use super::render::Renderer;
use super::update::{self, Proposal};
use super::{Call, apply, create, decode, tree};
use crate::http::negotiation::{self, PatchForm};
use crate::http::{Answer, Cause, Failure};

/// JSON patches of more operations are refused, as upstream does.
const OPERATIONS_MAX: usize = 10_000;

/// A parsed patch.
pub(crate) enum Patch {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

/// `PATCH` of an object or its status.
pub(crate) async fn patch(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let name = call.name()?;
    let form = negotiation::patch_form(call.header(header::CONTENT_TYPE))?;
    if form == PatchForm::Apply {
        return Box::pin(apply::apply(call, body)).await;
    }
    check_options(call)?;
    let patch = parse(form, body)?;
    let pins_revision = pins_revision(&patch);
    let names_owners = names_owners(&patch);
    let changed = update::change(call, name, |seen| {
        // Few patches look at the owners, who are costly to read.
        let base = if names_owners {
            Cow::Owned(owners::whole(seen))
        } else {
            Cow::Borrowed(seen.object)
        };
        let mut patched = result(call, &patch, &base)?;
        if !pins_revision {
            // The revision that came with the base is nothing the client asked for.
            tree::map_mut(&mut patched, &["metadata"]).remove("resourceVersion");
        }
        let mut body = decode::patched(call, &patched)?;
        Ok(Proposal {
            owners: Owners::of(&mut body.value),
            value: body.value,
            warnings: body.warnings,
        })
    })
    .await?;
    let renderer = Renderer::new(call.resource.clone(), call.form, call.query)?;
    let answer = renderer.answer(StatusCode::OK, &changed.json, Timestamp::now());
    Ok(create::with_warnings(answer, &changed.warnings))
}

/// Force is for those who apply.
fn check_options(call: &Call<'_>) -> Result<(), Failure> {
    if call.query.optional_flag("force")?.is_none() {
        return Ok(());
    }
    let cause = Cause {
        reason: "FieldValueForbidden",
        message: "Forbidden: may not be specified for non-apply patch".to_owned(),
        field: "force".to_owned(),
    };
    Err(Failure::invalid(
        owners::about_options("PatchOptions"),
        vec![cause],
    ))
}

pub(crate) fn parse(form: PatchForm, body: &Bytes) -> Result<Patch, Failure> {
    let malformed = |error: String| Failure::bad_request(format!("error decoding patch: {error}"));
    match form {
        PatchForm::Json => {
            let patch: json_patch::Patch =
                serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
            if patch.0.len() > OPERATIONS_MAX {
                let message = format!(
                    "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
                    patch.0.len()
                );
                return Err(Failure::bad_request(message));
            }
            Ok(Patch::Json(patch))
        }
        PatchForm::Merge => object(body).map(Patch::Merge).map_err(malformed),
        PatchForm::Strategic => object(body).map(Patch::Strategic).map_err(malformed),
        // Taken out before.
        PatchForm::Apply => Err(Failure::internal("an apply is no patch of this kind")),
    }
}

/// Some clients send patches as YAML; its superset of JSON does no harm here.
fn object(body: &Bytes) -> Result<Value, String> {
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => {
            let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
            serde_saphyr::from_str(text).map_err(|_| error.to_string())?
        }
    };
    if value.is_object() {
        Ok(value)
    } else {
        Err("a patch is an object".to_owned())
    }
}

/// Whether the patch names a revision and so makes it a condition.
pub(crate) fn pins_revision(patch: &Patch) -> bool {
    match patch {
        Patch::Merge(patch) | Patch::Strategic(patch) => {
            tree::at(patch, &["metadata", "resourceVersion"]).is_some()
        }
        Patch::Json(patch) => patch.0.iter().any(|operation| match operation {
            json_patch::PatchOperation::Add(add) => add.path.as_str() == "/metadata/resourceVersion",
            json_patch::PatchOperation::Replace(replace) => {
                replace.path.as_str() == "/metadata/resourceVersion"
            }
            json_patch::PatchOperation::Test(test) => test.path.as_str() == "/metadata/resourceVersion",
            _ => false,
        }),
    }
}

/// Whether the patch says anything of the owners, or takes them along with what is around them.
fn names_owners(patch: &Patch) -> bool {
    const PLACE: &str = "/metadata/managedFields";
    let is_near = |path: &str| {
        let both = [(path, PLACE), (PLACE, path)];
        both.iter().any(|(outer, inner)| {
            inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    match patch {
        Patch::Merge(patch) | Patch::Strategic(patch) => patch
            .get("metadata")
            .is_some_and(|metadata| metadata.get("managedFields").is_some()),
        Patch::Json(patch) => patch.0.iter().any(|operation| {
            use json_patch::PatchOperation as Op;
            let from = match operation {
                Op::Move(step) => Some(step.from.as_str()),
                Op::Copy(step) => Some(step.from.as_str()),
                Op::Add(_) | Op::Remove(_) | Op::Replace(_) | Op::Test(_) => None,
            };
            is_near(operation.path().as_str()) || from.is_some_and(is_near)
        }),
    }
}

pub(crate) fn result(call: &Call<'_>, patch: &Patch, base: &Value) -> Result<Value, Failure> {
    match patch {
        Patch::Json(patch) => {
            let mut patched = base.clone();
            operations::apply(&mut patched, patch).map_err(|error| {
                let cause = Cause {
                    reason: "FieldValueInvalid",
                    message: format!("Invalid value: {error}"),
                    field: "patch".to_owned(),
                };
                Failure::invalid(
                    call.resource.about_kind(call.name.unwrap_or_default()),
                    vec![cause],
                )
            })?;
            Ok(patched)
        }
        Patch::Merge(patch) => Ok(schema_patch::json_merge(base, patch)),
        // Nobody knows how lists of custom objects are merged.
        Patch::Strategic(_) if call.resource.custom.is_some() => Err(Failure::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
        ])),
        Patch::Strategic(patch) => {
            let type_id = decode::expected(call).type_id;
            schema_patch::strategic_merge(call.api.registry, type_id, base, patch)
                .map_err(|error| Failure::bad_request(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_that_look_at_owners() {
        let json_patch = |op: Value| Patch::Json(serde_json::from_value(json!([op])).unwrap());
        let cases = [
            (
                "a label",
                Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}})),
                false,
            ),
            (
                "forgets them",
                Patch::Merge(json!({"metadata": {"managedFields": [{}]}})),
                true,
            ),
            (
                "takes them away",
                Patch::Strategic(json!({"metadata": {"managedFields": null}})),
                true,
            ),
            (
                "adds a label",
                json_patch(json!({"op": "add", "path": "/metadata/labels/a", "value": "b"})),
                false,
            ),
            (
                "a name alike",
                json_patch(json!({"op": "remove", "path": "/metadata/managedFieldsX"})),
                false,
            ),
            (
                "one of them",
                json_patch(json!({"op": "test", "path": "/metadata/managedFields/0/time", "value": 1})),
                true,
            ),
            (
                "what is around",
                json_patch(json!({"op": "copy", "from": "/metadata", "path": "/data"})),
                true,
            ),
            (
                "all of it",
                json_patch(json!({"op": "replace", "path": "", "value": {}})),
                true,
            ),
        ];
        for (case, patch, expected) in cases {
            assert_eq!(names_owners(&patch), expected, "{case}");
        }
    }
}
