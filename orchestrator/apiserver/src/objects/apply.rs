//! Server-side apply: `PATCH` with a configuration that is merged into the object, or makes it.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use moorline_schema::decode::Strictness;
use moorline_schema::managed_fields::{self, Applied, ApplyError};
use serde_json::Value;

use super::owners::{self, Owners, ServedVersions};
use super::render::Renderer;
use super::update::{self, Proposal};
use super::{Call, create, decode, tree};
use crate::auth::rbac::Attributes;
use crate::http::{Answer, Cause, Failure};

/// Object and request may miss each other so often: it is gone when changed, and there when made.
const ATTEMPTS_MAX: usize = 4;

/// A configuration as the client sent it.
pub(crate) struct Config {
    pub(crate) value: Value,
    pub(crate) force: bool,
    pub(crate) warnings: Vec<String>,
}

/// `PATCH` of an object or its status with `application/apply-patch+yaml`.
pub(crate) async fn apply(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let name = call.name()?;
    let config = config(call, body)?;
    let renderer = Renderer::new(call.resource.clone(), call.form, call.query)?;
    let mut tried = 0;
    let (code, json, warnings) = loop {
        tried += 1;
        let is_there = call.collection()?.get(&call.path_of(name)).is_some();
        let outcome = if is_there {
            change(call, name, &config).await
        } else if call.subresource.is_some() {
            return Err(call.not_found(name));
        } else {
            make(call, name, &config).await
        };
        match outcome {
            Err(failure) if tried < ATTEMPTS_MAX && is_missed(&failure, is_there) => {}
            outcome => break outcome?,
        }
    };
    let answer = renderer.answer(code, &json, Timestamp::now());
    Ok(create::with_warnings(answer, &warnings))
}

/// Reads a configuration; it is of the type of the call's resource or subresource.
pub(crate) fn config(call: &Call<'_>, body: &Bytes) -> Result<Config, Failure> {
    let config = Config {
        force: call.query.flag("force")?,
        ..parse(call, body)?
    };
    owners::manager(call)?;
    check_type(call, &config.value)?;
    Ok(config)
}

/// Whether the object came or went meanwhile.
fn is_missed(failure: &Failure, was_there: bool) -> bool {
    failure.reason() == if was_there { "NotFound" } else { "AlreadyExists" }
}

type Outcome = (StatusCode, Bytes, Vec<String>);

async fn change(call: &Call<'_>, name: &str, config: &Config) -> Result<Outcome, Failure> {
    let pins_revision = tree::at(&config.value, &["metadata", "resourceVersion"]).is_some();
    let changed = update::change(call, name, |seen| {
        let applied = merged(call, Some(&owners::whole(seen)), config)?;
        let mut value = applied.object;
        if !pins_revision {
            // The revision that came with the object is nothing the client asked for.
            tree::map_mut(&mut value, &["metadata"]).remove("resourceVersion");
        }
        let body = decode::patched(call, &value)?;
        let warnings = config.warnings.iter().chain(&body.warnings).cloned();
        Ok(Proposal {
            warnings: warnings.collect(),
            owners: Owners::Known(applied.managed.as_ref().map(owners::text)),
            value: body.value,
        })
    });
    let changed = changed.await?;
    Ok((StatusCode::OK, changed.json, changed.warnings))
}

/// Makes an object that isn't there; for that its writer must be allowed to create.
async fn make(call: &Call<'_>, name: &str, config: &Config) -> Result<Outcome, Failure> {
    let facts = call.resource.facts;
    let attributes = Attributes {
        verb: "create",
        group: facts.group,
        resource: facts.plural,
        namespace: call.namespace.unwrap_or_default(),
        name,
        ..Attributes::default()
    };
    call.api.authorizer.check(call.user, &attributes)?;
    for pinned in ["uid", "resourceVersion"] {
        let stated = tree::text(&config.value, &["metadata", pinned]);
        if !matches!(stated, "" | "0") {
            let why = format!(
                "{pinned} mismatch: the provided object specified {pinned} {stated}, and no existing object was found"
            );
            return Err(Failure::conflict(call.resource.about(name), &why));
        }
    }
    let applied = merged(call, None, config)?;
    let body = decode::patched(call, &applied.object)?;
    let owners = Owners::Known(applied.managed.as_ref().map(owners::text));
    let json = create::store_new(call, body.value, owners).await?;
    let warnings = config.warnings.iter().chain(&body.warnings).cloned();
    Ok((StatusCode::CREATED, json, warnings.collect()))
}

fn merged(call: &Call<'_>, served: Option<&Value>, config: &Config) -> Result<Applied, Failure> {
    let manager = owners::manager(call)?;
    let api_version = call.resource.facts.api_version();
    let writer = owners::writer(call, &manager, &api_version);
    let versions = ServedVersions::of(call);
    managed_fields::apply(&versions, &writer, served, &config.value, config.force).map_err(failure)
}

/// What is told of an apply that is refused.
pub(crate) fn failure(error: ApplyError) -> Failure {
    let message = error.to_string();
    match error {
        ApplyError::OtherType(_) | ApplyError::StatesOwners => Failure::bad_request(message),
        ApplyError::Conflict(conflicts) => {
            let causes = conflicts.0.iter().map(|conflict| Cause {
                reason: "FieldManagerConflict",
                message: format!("conflict with {}", conflict.manager),
                field: conflict.path.to_string(),
            });
            let causes = causes.collect();
            Failure::apply_conflict(message, causes)
        }
        ApplyError::Malformed { .. }
        | ApplyError::Merge(_)
        | ApplyError::Owners(_)
        | ApplyError::Version(_) => Failure::unclassified(message),
    }
}

/// Reads the body and checks the parameters that come with it.
fn parse(call: &Call<'_>, body: &Bytes) -> Result<Config, Failure> {
    if call.query.get("fieldManager").is_none() {
        let cause = Cause {
            reason: "FieldValueRequired",
            message: "Required value: is required for apply patch".to_owned(),
            field: "fieldManager".to_owned(),
        };
        return Err(Failure::invalid(
            owners::about_options("PatchOptions"),
            vec![cause],
        ));
    }
    let strictness = decode::strictness(call.query)?;
    let is_yaml = !moorline_schema::decode::is_json(body);
    let read = moorline_schema::decode::anything(body, is_yaml, strictness)
        .map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))?;
    if !read.value.is_object() {
        return Err(Failure::bad_request(
            "error decoding YAML: the configuration is not an object",
        ));
    }
    if strictness == Strictness::Strict && !read.problems.is_empty() {
        let message = format!("error strict decoding YAML: {}", read.problems.join(", "));
        return Err(Failure::bad_request(message));
    }
    Ok(Config {
        value: read.value,
        force: false,
        warnings: read.problems,
    })
}

/// A configuration states its type and its name.
fn check_type(call: &Call<'_>, config: &Value) -> Result<(), Failure> {
    let expected = decode::expected(call);
    let (api_version, kind) = (tree::text(config, &["apiVersion"]), tree::text(config, &["kind"]));
    if api_version != expected.api_version || kind != expected.kind {
        let slash = if api_version.contains('/') { "" } else { "/" };
        let message = format!("invalid object type: {slash}{api_version}, Kind={kind}");
        return Err(Failure::bad_request(message));
    }
    let name = call.name()?;
    let stated = tree::text(config, &["metadata", "name"]);
    if stated.is_empty() {
        let message =
            format!("the name of the object ({name} based on URL) was undeterminable: name must be provided");
        return Err(Failure::bad_request(message));
    }
    if stated != name {
        let message =
            format!("the name of the object ({stated}) does not match the name on the URL ({name})");
        return Err(Failure::bad_request(message));
    }
    Ok(())
}
