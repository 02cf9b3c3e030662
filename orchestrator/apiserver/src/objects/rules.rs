//! Completing and checking objects, by the built-in rules or by those of their definition.

use std::sync::Arc;

use moorline_schema::validation::{self, Cause};
use moorline_schema::{custom, defaults};
use serde_json::Value;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::Call;
use super::create::stored_gvk;
use super::strategy::Endpoint;
use crate::http::Failure;

/// Fills in defaults; custom objects also lose what their schema doesn't know.
pub(crate) fn complete(call: &Call<'_>, object: &mut Value) -> Result<(), Failure> {
    match &call.resource.custom {
        Some(custom) => custom::object::normalise(custom.version(), object),
        None => defaults::apply(call.api.registry, stored_gvk(call.collection()?), object),
    }
    Ok(())
}

/// All faults of a new object.
pub(crate) async fn check_new(call: &Call<'_>, object: &Value) -> Result<Vec<Cause>, Failure> {
    let Some(custom) = &call.resource.custom else {
        let gvk = stored_gvk(call.collection()?);
        return Ok(validation::create(call.api.registry, gvk, object));
    };
    let namespaced = custom.facts.namespaced;
    if !custom.version().schema.has_rules {
        return Ok(custom::object::check_new(custom.version(), namespaced, object));
    }
    let (custom, object) = (Arc::clone(custom), object.clone());
    off_the_workers(move || custom::object::check_new(custom.version(), namespaced, &object)).await
}

/// All faults of a change.
pub(crate) async fn check_change(
    call: &Call<'_>,
    endpoint: Endpoint,
    old: &Value,
    new: &Value,
) -> Result<Vec<Cause>, Failure> {
    let Some(custom) = &call.resource.custom else {
        let gvk = stored_gvk(call.collection()?);
        return Ok(match endpoint {
            Endpoint::Status | Endpoint::Approval => {
                validation::status_update(call.api.registry, gvk, old, new)
            }
            _ => validation::update(call.api.registry, gvk, old, new),
        });
    };
    if !custom.version().schema.has_rules {
        return Ok(custom::object::check_change(custom.version(), old, new));
    }
    let (custom, old, new) = (Arc::clone(custom), old.clone(), new.clone());
    off_the_workers(move || custom::object::check_change(custom.version(), &old, &new)).await
}

/// Rules may compute for a while, up to their limit of cost: other requests don't wait for it. A runtime of one thread
/// was chosen by somebody who wants everything in order, such as the simulator.
async fn off_the_workers(check: impl FnOnce() -> Vec<Cause> + Send + 'static) -> Result<Vec<Cause>, Failure> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(check());
    }
    tokio::task::spawn_blocking(check)
        .await
        .map_err(|_| Failure::internal("the rules of the definition could not be evaluated"))
}
