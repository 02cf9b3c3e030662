//! `/healthz`, `/livez` and `/readyz`, whole or by check.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use http::StatusCode;

use crate::api::Api;
use crate::http::query::Query;
use crate::http::{Answer, Failure, body};

/// One check and whether it is well.
type Check = (&'static str, bool);

fn checks(api: &Api, endpoint: &str) -> Vec<Check> {
    let mut checks = vec![("ping", true), ("store", api.caches.revision() > 0)];
    if endpoint == "readyz" {
        checks.push(("started", api.is_ready.load(Ordering::Acquire)));
        checks.push(("shutdown", !api.watches_stop.is_cancelled()));
    }
    checks
}

/// The state of the server, or of the check that the path names.
pub(super) fn answer(api: &Api, endpoint: &str, rest: &[&str], query: &Query<'_>) -> Result<Answer, Failure> {
    let mut checks = checks(api, endpoint);
    match rest {
        [] => checks.retain(|(name, _)| !query.all("exclude").any(|excluded| excluded == *name)),
        [one] if checks.iter().any(|(name, _)| name == one) => checks.retain(|(name, _)| name == one),
        _ => return Err(Failure::no_such_path()),
    }
    let is_well = checks.iter().all(|(_, well)| *well);
    if is_well && !query.all("verbose").any(|_| true) {
        return Ok(body::text(StatusCode::OK, "ok"));
    }
    let mut text = String::new();
    for (name, well) in &checks {
        // Writing to memory cannot fail.
        writeln!(
            text,
            "[{}]{name} {}",
            if *well { '+' } else { '-' },
            if *well { "ok" } else { "failed" }
        )
        .ok();
    }
    writeln!(
        text,
        "{endpoint} check {}",
        if is_well { "passed" } else { "failed" }
    )
    .ok();
    let code = if is_well {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    Ok(body::text(code, text))
}
