//! Requests for certificates.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::faults::Faults;
use crate::names;
use crate::object::{at, list, text};
use crate::place::Place;

const SPEC: Place<'static> = Place::top("spec");
const SECONDS_MIN: i64 = 600;
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";

pub(super) fn request(request: &Value, faults: &mut Faults) {
    let field = |name: &str| text(request, &["spec", name]);
    if !field("request").is_empty() {
        let pem = STANDARD.decode(field("request")).unwrap_or_default();
        if !String::from_utf8_lossy(&pem).contains(PEM_BEGIN) {
            let detail = "PEM block type must be CERTIFICATE REQUEST";
            faults.invalid(&SPEC.field("request"), field("request"), detail);
        }
    }
    let usages = list(request, &["spec", "usages"]);
    if usages.is_empty() {
        faults.required(&SPEC.field("usages"), "");
    }
    let place = SPEC.field("usages");
    for (index, usage) in usages.iter().enumerate() {
        if usages[..index].contains(usage) {
            faults.duplicate(&place.index(index), usage.clone());
        }
    }
    let signer = field("signerName");
    if !signer.is_empty() {
        let place = SPEC.field("signerName");
        match signer.split_once('/') {
            Some((domain, path)) if domain.contains('.') && !path.is_empty() => {
                faults.invalid_each(&place, domain, &names::dns1123_subdomain(domain));
            }
            _ => faults.invalid(
                &place,
                signer,
                "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            ),
        }
    }
    let seconds = at(request, &["spec", "expirationSeconds"]).and_then(Value::as_i64);
    if let Some(seconds) = seconds.filter(|&seconds| seconds < SECONDS_MIN) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        faults.invalid(&SPEC.field("expirationSeconds"), seconds, detail);
    }
}

/// Conditions of a request: what was said once is not taken back.
pub(super) fn status(old: &Value, new: &Value, faults: &mut Faults) {
    let has = |request: &Value, kind: &str| {
        let mut conditions = list(request, &["status", "conditions"]).iter();
        conditions.any(|condition| text(condition, &["type"]) == kind)
    };
    let status = Place::top("status");
    let place = status.field("conditions");
    if has(new, "Approved") && has(new, "Denied") {
        faults.invalid(
            &place,
            "Denied",
            "Approved and Denied conditions are mutually exclusive",
        );
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if has(old, kind) && !has(new, kind) {
            faults.forbidden(
                &place,
                &format!("updates may not remove a condition of type {kind:?}"),
            );
        }
    }
    let certificate = |request| at(request, &["status", "certificate"]);
    if certificate(old).is_some() && certificate(old) != certificate(new) {
        faults.invalid(
            &status.field("certificate"),
            certificate(new).cloned().unwrap_or_default(),
            "field is immutable",
        );
    }
}
