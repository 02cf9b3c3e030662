//! `scale` of custom resources: three fields of the object, at the places its definition names.

use bytes::Bytes;
use http::{StatusCode, header};
use moorline_schema::custom::definition::ScalePaths;
use moorline_schema::custom::jsonpath::Path;
use serde_json::{Value, json};

use crate::http::{Answer, Failure, body, negotiation};
use crate::objects::owners::Owners;
use crate::objects::update::{self, Proposal};
use crate::objects::{Call, decode, patch, tree};

/// Answers `GET`, `PUT` and `PATCH`.
pub(super) async fn answer(call: &Call<'_>, verb: &str, body: &Bytes) -> Result<Answer, Failure> {
    let custom = call
        .resource
        .custom
        .as_ref()
        .ok_or_else(Failure::method_not_allowed)?;
    let paths = custom.version().scale.clone().ok_or_else(Failure::no_such_path)?;
    let name = call.name()?;
    let object = match verb {
        "get" => {
            let entry = call.collection()?.get(&call.path_of(name));
            let entry = entry.ok_or_else(|| call.not_found(name))?;
            call.resource.served(&entry.value()).into_owned()
        }
        "update" => {
            let scale = decode::object(call, body)?.value;
            change(call, name, &paths, |_| Ok(scale.clone())).await?
        }
        "patch" => {
            let form = negotiation::patch_form(call.header(header::CONTENT_TYPE))?;
            let patch = patch::parse(form, body)?;
            change(call, name, &paths, |object| {
                patch::result(call, &patch, &scale_of(object, &paths))
            })
            .await?
        }
        _ => return Err(Failure::method_not_allowed()),
    };
    let scale = scale_of(&object, &paths);
    let text = Bytes::from(scale.to_string());
    if call.form.shape != negotiation::Shape::Object {
        return Ok(body::json(StatusCode::OK, &scale));
    }
    Ok(crate::objects::render::encoded(
        call.form.encoding,
        StatusCode::OK,
        text,
    ))
}

/// Changes the object as the scale says that `propose` makes of it; gives its new state.
async fn change(
    call: &Call<'_>,
    name: &str,
    paths: &ScalePaths,
    propose: impl Fn(&Value) -> Result<Value, Failure>,
) -> Result<Value, Failure> {
    // The object itself is written, by the rules of its own path.
    let main = Call {
        resource: call.resource.clone(),
        subresource: None,
        ..*call
    };
    let changed = update::change(&main, name, |object| {
        let scale = propose(object)?;
        let mut value = object.clone();
        let revision = tree::at(&scale, &["metadata", "resourceVersion"]).cloned();
        tree::set(
            tree::map_mut(&mut value, &["metadata"]),
            "resourceVersion",
            revision,
        );
        let replicas = tree::at(&scale, &["spec", "replicas"])
            .and_then(Value::as_i64)
            .unwrap_or(0);
        if replicas < 0 {
            let cause = crate::http::Cause {
                reason: "FieldValueInvalid",
                message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
                field: "spec.replicas".to_owned(),
            };
            return Err(Failure::invalid(call.resource.about_kind(name), vec![cause]));
        }
        set(&mut value, &paths.spec_replicas, replicas.into());
        Ok(Proposal {
            value,
            warnings: Vec::new(),
            owners: Owners::Followed(None),
        })
    })
    .await?;
    let stored: Value = serde_json::from_slice(&changed.json).unwrap_or_default();
    Ok(call.resource.served(&stored).into_owned())
}

fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let find = |path: &str| {
        let path = Path::parse(path).ok()?;
        path.find(object).first().map(|value| (*value).clone())
    };
    let number = |path: &str| find(path).and_then(|value| value.as_i64()).unwrap_or(0);
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = tree::at(object, &["metadata", field]) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({ "replicas": number(&paths.status_replicas) });
    if let Some(Value::String(selector)) = paths.label_selector.as_deref().and_then(find) {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": { "replicas": number(&paths.spec_replicas) },
        "status": status,
    })
}

fn set(object: &mut Value, path: &str, value: Value) {
    let parsed = Path::parse(path).ok();
    if let Some((last, outer)) = parsed
        .as_ref()
        .and_then(Path::fields)
        .as_deref()
        .and_then(<[_]>::split_last)
    {
        tree::map_mut(object, outer).insert((*last).to_owned(), value);
    }
}
