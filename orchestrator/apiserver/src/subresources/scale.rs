//! `scale`: three fields of the object, at the places that its definition names, or where workloads have them.

use bytes::Bytes;
use http::{StatusCode, header};
use moorline_schema::custom::definition::ScalePaths;
use moorline_schema::custom::jsonpath::Path;
use moorline_schema::managed_fields::{self, Live, ManagedError, OneVersion, from_scale, to_scale};
use moorline_schema::{fields_v1, selector};
use serde_json::{Value, json};

use crate::hooks::{self, Operation};
use crate::http::negotiation::PatchForm;
use crate::http::{Answer, Failure, body, negotiation};
use crate::objects::owners::{self, Owners};
use crate::objects::update::{self, Proposal};
use crate::objects::{Call, apply, decode, patch, tree};

/// The version of scales.
const SCALE: &str = "autoscaling/v1";

/// Answers `GET`, `PUT` and `PATCH`.
pub(super) async fn answer(call: &Call<'_>, verb: &str, body: &Bytes) -> Result<Answer, Failure> {
    let paths = paths(call).ok_or_else(Failure::no_such_path)?;
    let name = call.name()?;
    let mut warnings = Vec::new();
    let object = match verb {
        "get" => {
            let entry = call.collection()?.get(&call.path_of(name));
            let entry = entry.ok_or_else(|| call.not_found(name))?;
            call.resource.served(&entry.value()).into_owned()
        }
        "update" => {
            let scale = decode::object(call, body)?.value;
            change(call, name, &paths, |seen| {
                let owners = owners_after(call, seen, &scale, &paths)?;
                Ok((scale.clone(), owners))
            })
            .await?
        }
        "patch" => {
            let form = negotiation::patch_form(call.header(header::CONTENT_TYPE))?;
            if form == PatchForm::Apply {
                let config = apply::config(call, body)?;
                warnings.clone_from(&config.warnings);
                change(call, name, &paths, |seen| applied(call, seen, &config, &paths)).await?
            } else {
                let patch = patch::parse(form, body)?;
                change(call, name, &paths, |seen| {
                    let mut scale = patch::result(call, &patch, &scale_of(seen.object, &paths))?;
                    if !patch::pins_revision(&patch) {
                        tree::map_mut(&mut scale, &["metadata"]).remove("resourceVersion");
                    }
                    let owners = owners_after(call, seen, &scale, &paths)?;
                    Ok((scale, owners))
                })
                .await?
            }
        }
        _ => return Err(Failure::method_not_allowed()),
    };
    let scale = with_owners(call, &object, &paths);
    let text = Bytes::from(scale.to_string());
    if call.form.shape != negotiation::Shape::Object {
        return Ok(body::json(StatusCode::OK, &scale));
    }
    let answer = crate::objects::render::encoded(call.form.encoding, StatusCode::OK, text);
    Ok(crate::objects::create::with_warnings(answer, &warnings))
}

/// Where an object of the call's resource says how many of it are wanted and there.
fn paths(call: &Call<'_>) -> Option<ScalePaths> {
    match &call.resource.custom {
        Some(custom) => custom.version().scale.clone(),
        None => Some(ScalePaths {
            spec_replicas: ".spec.replicas".to_owned(),
            status_replicas: ".status.replicas".to_owned(),
            label_selector: Some(".spec.selector".to_owned()),
        }),
    }
}

/// Changes the object as the scale says that `propose` makes of it; gives its new state.
async fn change(
    call: &Call<'_>,
    name: &str,
    paths: &ScalePaths,
    propose: impl Fn(Live<'_>) -> Result<(Value, Owners), Failure>,
) -> Result<Value, Failure> {
    // The object itself is written, by the rules of its own path.
    let main = Call {
        resource: call.resource.clone(),
        subresource: None,
        // The scale is what is shown.
        shows: false,
        ..*call
    };
    let admitted = admit(call, name, paths, &propose).await?;
    let changed = update::change(&main, name, |seen| {
        let (scale, owners) = propose(seen)?;
        let mut value = seen.object.clone();
        let revision = tree::at(&scale, &["metadata", "resourceVersion"]).cloned();
        tree::set(
            tree::map_mut(&mut value, &["metadata"]),
            "resourceVersion",
            revision,
        );
        let stated = tree::at(&scale, &["spec", "replicas"]).and_then(Value::as_i64);
        let replicas = admitted.or(stated).unwrap_or(0);
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
            owners,
        })
    })
    .await?;
    let stored: Value = serde_json::from_slice(&changed.json).unwrap_or_default();
    Ok(call.resource.served(&stored).into_owned())
}

/// Shows the scale as it would be to webhooks and policies; gives what they made of the number, if they changed it.
async fn admit(
    call: &Call<'_>,
    name: &str,
    paths: &ScalePaths,
    propose: &impl Fn(Live<'_>) -> Result<(Value, Owners), Failure>,
) -> Result<Option<i64>, Failure> {
    let entry = call.collection()?.get(&call.path_of(name));
    let entry = entry.ok_or_else(|| call.not_found(name))?;
    let apart = entry.apart();
    let served = call.resource.served(&apart.object);
    let seen = Live {
        object: &served,
        managed: apart.managed,
    };
    let (before, (mut scale, _)) = (scale_of(&served, paths), propose(seen)?);
    let replicas = |scale: &Value| tree::at(scale, &["spec", "replicas"]).and_then(Value::as_i64);
    let stated = replicas(&scale);
    hooks::admit_part(call, Operation::Update, Some(&before), &mut scale).await?;
    Ok(replicas(&scale).filter(|_| replicas(&scale) != stated))
}

/// The field that is scaled, in a version of the object.
fn replicas(call: &Call<'_>, api_version: &str) -> Option<fields_v1::Path> {
    let Some(custom) = &call.resource.custom else {
        let is_own = api_version == call.resource.facts.api_version();
        return is_own.then(|| fields_v1::Path::fields(&["spec", "replicas"]));
    };
    let definition = &custom.definition;
    let (group, name) = api_version.split_once('/')?;
    let mut versions = definition.versions.iter().filter(|_| group == definition.group);
    let scale = versions.find(|version| version.name == name)?.scale.as_ref()?;
    let path = Path::parse(&scale.spec_replicas).ok()?;
    Some(fields_v1::Path::fields(&path.fields()?))
}

/// The scale of an object, with the owners of what is scaled.
fn with_owners(call: &Call<'_>, object: &Value, paths: &ScalePaths) -> Value {
    let mut scale = scale_of(object, paths);
    let managed = tree::at(object, &["metadata", "managedFields"]);
    // Owners that can't be read are those of nothing.
    let owned = managed.and_then(|managed| to_scale(managed, |version| replicas(call, version)).ok()?);
    if let Some(owned) = owned {
        scale["metadata"]["managedFields"] = owned;
    }
    scale
}

/// The owners of the object after its scale was written: who scales owns that field, through this subresource.
fn owners_after(
    call: &Call<'_>,
    seen: Live<'_>,
    scale: &Value,
    paths: &ScalePaths,
) -> Result<Owners, Failure> {
    let Some(before) = seen
        .managed
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
    else {
        return Ok(Owners::Kept);
    };
    let replicas = |version: &str| replicas(call, version);
    let old = scale_of(seen.object, paths);
    if old["spec"] == scale["spec"] {
        return Ok(Owners::Kept);
    }
    let owned = to_scale(&before, replicas).map_err(unreadable)?;
    let owned = owned.as_ref().map(owners::text);
    let live = owned.as_deref().map(|managed| Live {
        object: &old,
        managed: Some(managed),
    });
    let manager = owners::manager(call)?;
    let type_id = decode::expected(call).type_id;
    let versions = OneVersion::new(call.api.registry, type_id, SCALE);
    let writer = owners::writer(call, &manager, SCALE);
    let after = managed_fields::update(&versions, &writer, live, scale, None);
    let after = after.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let after = after.unwrap_or_else(|| json!([]));
    let api_version = call.resource.facts.api_version();
    let managed = from_scale(&before, &after, &api_version, replicas).map_err(unreadable)?;
    Ok(Owners::Known(managed.as_ref().map(owners::text)))
}

fn unreadable(error: ManagedError) -> Failure {
    Failure::internal(format!("the owners of fields: {error}"))
}

/// The scale with a configuration merged into it, and the owners of the object after that.
fn applied(
    call: &Call<'_>,
    seen: Live<'_>,
    config: &apply::Config,
    paths: &ScalePaths,
) -> Result<(Value, Owners), Failure> {
    let before = seen
        .managed
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
        .unwrap_or_else(|| json!([]));
    let replicas = |version: &str| replicas(call, version);
    let mut live = scale_of(seen.object, paths);
    if let Some(owned) = to_scale(&before, replicas).map_err(unreadable)? {
        live["metadata"]["managedFields"] = owned;
    }
    let manager = owners::manager(call)?;
    let type_id = decode::expected(call).type_id;
    let versions = OneVersion::new(call.api.registry, type_id, SCALE);
    let writer = owners::writer(call, &manager, SCALE);
    let applied = managed_fields::apply(&versions, &writer, Some(&live), &config.value, config.force);
    let applied = applied.map_err(apply::failure)?;
    let after = applied.managed.unwrap_or_else(|| json!([]));
    let api_version = call.resource.facts.api_version();
    let managed = from_scale(&before, &after, &api_version, replicas).map_err(unreadable)?;
    let mut scale = applied.object;
    if tree::at(&config.value, &["metadata", "resourceVersion"]).is_none() {
        // The revision that came with the object is nothing the client asked for.
        tree::map_mut(&mut scale, &["metadata"]).remove("resourceVersion");
    }
    Ok((scale, Owners::Known(managed.as_ref().map(owners::text))))
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
    let selector = paths.label_selector.as_deref().and_then(find);
    if let Some(text) = selector.as_ref().and_then(selector_text) {
        status["selector"] = text.into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": { "replicas": number(&paths.spec_replicas) },
        "status": status,
    })
}

/// A selector as text: it is one already, or a `LabelSelector`, or a map of labels.
fn selector_text(selector: &Value) -> Option<String> {
    match selector {
        Value::String(text) => Some(text.clone()),
        Value::Object(map) if map.values().all(Value::is_string) => Some(selector::describe_labels(map)),
        Value::Object(_) => Some(selector::describe(selector)),
        _ => None,
    }
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
