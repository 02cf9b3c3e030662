//! What a webhook is asked, and what its answer says. Pure.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use crate::auth::User;
use crate::http::Failure;
use crate::objects::tree;

/// Versions of reviews that are understood.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const GROUP: &str = "admission.k8s.io";

/// The version of review that a webhook is sent: the first of its own that is understood.
pub(crate) fn version(webhook: &Value) -> Option<&'static str> {
    let stated = tree::list(webhook, &["admissionReviewVersions"]).iter();
    stated
        .filter_map(Value::as_str)
        .find_map(|stated| VERSIONS.into_iter().find(|known| *known == stated))
}

/// Somebody, as reviews name them.
pub(crate) fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    info.insert("username".to_owned(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    info.into()
}

/// The whole review that is sent; `request` is what it is about.
pub(crate) fn review(version: &str, uid: &str, request: &Value) -> Value {
    let mut request = request.clone();
    request["uid"] = uid.into();
    json!({ "kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{version}"), "request": request })
}

/// What a webhook said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) is_allowed: bool,
    /// The status of a refusal.
    pub(crate) result: Option<Value>,
    /// Operations of a JSON patch.
    pub(crate) patch: Option<json_patch::Patch>,
    pub(crate) warnings: Vec<String>,
    pub(crate) annotations: Vec<(String, String)>,
}

/// Reads an answer; an error says why it is none.
pub(crate) fn read(version: &str, uid: &str, mutates: bool, body: &[u8]) -> Result<Answer, String> {
    let review: Value =
        serde_json::from_slice(body).map_err(|error| format!("the answer is no JSON: {error}"))?;
    let response = tree::at(&review, &["response"]).ok_or("webhook response was absent")?;
    if version == "v1" {
        let found = tree::text(response, &["uid"]);
        if found != uid {
            return Err(format!("expected response.uid={uid:?}, got {found:?}"));
        }
        let (api_version, kind) = (
            tree::text(&review, &["apiVersion"]),
            tree::text(&review, &["kind"]),
        );
        if api_version != format!("{GROUP}/v1") || kind != "AdmissionReview" {
            let slash = if api_version.contains('/') { "" } else { "/" };
            return Err(format!(
                "expected webhook response of {GROUP}/v1, Kind=AdmissionReview, got {slash}{api_version}, Kind={kind}"
            ));
        }
    }
    let texts = tree::list(response, &["warnings"]).iter();
    let annotations = tree::at(response, &["auditAnnotations"]).and_then(Value::as_object);
    let annotations = annotations.into_iter().flatten();
    Ok(Answer {
        is_allowed: response["allowed"] == Value::Bool(true),
        result: tree::at(response, &["status"]).cloned(),
        patch: patch(version, mutates, response)?,
        warnings: texts.filter_map(Value::as_str).map(str::to_owned).collect(),
        annotations: annotations
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    })
}

fn patch(version: &str, mutates: bool, response: &Value) -> Result<Option<json_patch::Patch>, String> {
    let (patch, kind) = (
        tree::text(response, &["patch"]),
        tree::at(response, &["patchType"]),
    );
    match (mutates, version) {
        (false, "v1") if !patch.is_empty() => {
            return Err("validating webhook may not return response.patch".to_owned());
        }
        (false, "v1") if kind.is_some() => {
            return Err("validating webhook may not return response.patchType".to_owned());
        }
        (false, _) => return Ok(None),
        (true, "v1") if !patch.is_empty() && kind.is_none() => {
            return Err("webhook returned response.patch but not response.patchType".to_owned());
        }
        (true, "v1") if patch.is_empty() && kind.is_some() => {
            return Err("webhook returned response.patchType but not response.patch".to_owned());
        }
        _ if patch.is_empty() => return Ok(None),
        _ => {}
    }
    if version == "v1" && kind != Some(&json!("JSONPatch")) {
        let kind = kind.and_then(Value::as_str).unwrap_or_default();
        return Err(format!("unsupported patch type {kind:?}"));
    }
    let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
    let text = BASE64_STANDARD
        .decode(patch)
        .map_err(|error| undecodable(error.to_string()))?;
    let patch: json_patch::Patch =
        serde_json::from_slice(&text).map_err(|error| undecodable(error.to_string()))?;
    Ok((!patch.0.is_empty()).then_some(patch))
}

/// The failure with which a refusal is passed on.
pub(crate) fn refusal(webhook: &str, result: Option<&Value>) -> Failure {
    let mut status = result.cloned().unwrap_or_else(|| json!({}));
    let denied = format!("admission webhook {webhook:?} denied the request");
    let (message, reason) = (
        tree::text(&status, &["message"]),
        tree::text(&status, &["reason"]),
    );
    let message = match (message, reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = tree::at(&status, &["code"]).and_then(Value::as_i64).unwrap_or(0);
    let map = tree::map_mut(&mut status, &[]);
    map.insert("kind".to_owned(), "Status".into());
    map.insert("apiVersion".to_owned(), "v1".into());
    map.entry("metadata").or_insert_with(|| json!({}));
    map.insert("status".to_owned(), "Failure".into());
    map.insert("message".to_owned(), message.into());
    // A refusal is no success, whatever the webhook says.
    map.insert("code".to_owned(), if code < 400 { 400 } else { code }.into());
    Failure::from_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Value {
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
    }

    fn encoded(patch: &Value) -> String {
        BASE64_STANDARD.encode(patch.to_string())
    }

    #[test]
    fn answers() {
        let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {}}]);
        let good = json!({"uid": "u", "allowed": true, "patch": encoded(&patch), "patchType": "JSONPatch", "warnings": ["w"],
            "auditAnnotations": {"k": "v"}});
        let read_good = read("v1", "u", true, answer(good).to_string().as_bytes()).unwrap();
        assert_eq!(
            (read_good.is_allowed, read_good.patch.map(|patch| patch.0.len())),
            (true, Some(1))
        );
        assert_eq!(
            (read_good.warnings, read_good.annotations),
            (vec!["w".to_owned()], vec![("k".to_owned(), "v".to_owned())])
        );
        let mut other = answer(json!({"uid": "u", "allowed": true}));
        other["apiVersion"] = json!("admission.k8s.io/v1beta1");
        let cases = [
            ("none", json!({}), true, "webhook response was absent"),
            (
                "another uid",
                answer(json!({"uid": "x"})),
                true,
                "expected response.uid=\"u\", got \"x\"",
            ),
            (
                "another version",
                other,
                true,
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview",
            ),
            (
                "patch without type",
                answer(json!({"uid": "u", "patch": encoded(&patch)})),
                true,
                "webhook returned response.patch but not response.patchType",
            ),
            (
                "type without patch",
                answer(json!({"uid": "u", "patchType": "JSONPatch"})),
                true,
                "webhook returned response.patchType but not response.patch",
            ),
            (
                "patch of one that validates",
                answer(json!({"uid": "u", "patch": encoded(&patch)})),
                false,
                "validating webhook may not return response.patch",
            ),
            (
                "another type",
                answer(json!({"uid": "u", "patch": encoded(&patch), "patchType": "X"})),
                true,
                "unsupported patch type \"X\"",
            ),
        ];
        for (case, review, mutates, expected) in cases {
            let found = read("v1", "u", mutates, review.to_string().as_bytes());
            assert_eq!(found.err().as_deref(), Some(expected), "{case}");
        }
        let old = json!({"response": {"allowed": true, "patch": encoded(&patch)}});
        assert!(
            read("v1beta1", "u", true, old.to_string().as_bytes())
                .unwrap()
                .patch
                .is_some()
        );
    }

    #[test]
    fn refusals() {
        let cases = [
            (
                Value::Null,
                400,
                "admission webhook \"w\" denied the request without explanation",
            ),
            (
                json!({"message": "no", "code": 403}),
                403,
                "admission webhook \"w\" denied the request: no",
            ),
            (
                json!({"reason": "Forbidden", "code": 200}),
                400,
                "admission webhook \"w\" denied the request: Forbidden",
            ),
        ];
        for (result, code, message) in cases {
            let failure = refusal("w", Some(&result).filter(|result| !result.is_null()));
            assert_eq!(
                (failure.code().as_u16(), &failure.to_json()["message"]),
                (code, &json!(message))
            );
        }
    }

    #[test]
    fn versions() {
        let webhook = |versions: Value| json!({"admissionReviewVersions": versions});
        assert_eq!(version(&webhook(json!(["v2", "v1beta1", "v1"]))), Some("v1beta1"));
        assert_eq!(version(&webhook(json!(["v2"]))), None);
    }
}
