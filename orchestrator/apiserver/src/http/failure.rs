//! Errors in the words of the Kubernetes API: each is one `Status` object with code, reason and details.

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

/// One entry of `details.causes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) field: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    causes: Vec<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u32>,
}

/// A refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.message)]
pub(crate) struct Failure(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Details,
    /// For an expired list: the token that goes on with newer data.
    continue_token: Option<String>,
    /// What the client is told beside it.
    warnings: Vec<String>,
    /// The whole `Status`, where somebody else made it.
    status: Option<Value>,
}

/// The object or collection a failure is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// API group, empty for core.
    pub(crate) group: &'a str,
    /// Plural name, or the kind for invalid objects.
    pub(crate) resource: &'a str,
    pub(crate) name: &'a str,
}

impl About<'_> {
    /// `pods` or `leases.coordination.k8s.io`, as upstream writes it in messages.
    pub(crate) fn qualified(&self) -> String {
        qualified(self.group, self.resource)
    }
}

/// `pods` or `leases.coordination.k8s.io`.
pub(crate) fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

impl Failure {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Failure(Box::new(Inner {
            code,
            reason,
            message,
            details: Details::default(),
            continue_token: None,
            warnings: Vec::new(),
            status: None,
        }))
    }

    fn about(mut self, about: About<'_>) -> Self {
        self.0.details.name = about.name.to_owned();
        self.0.details.group = about.group.to_owned();
        self.0.details.kind = about.resource.to_owned();
        self
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn not_found(about: About<'_>) -> Self {
        let message = format!("{} {:?} not found", about.qualified(), about.name);
        Failure::new(StatusCode::NOT_FOUND, "NotFound", message).about(about)
    }

    pub(crate) fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        Failure::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// Nothing new is created once a definition is deleted.
    pub(crate) fn terminating_definition() -> Self {
        let message = "create not allowed while custom resource definition is terminating";
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(crate) fn not_acceptable(accepted: &[&str]) -> Self {
        let list = accepted.join(", ");
        let message = format!("only the following media types are accepted: {list}");
        Failure::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub(crate) fn unsupported_media_type(accepted: &[&str]) -> Self {
        let list = accepted.join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {list}"
        );
        Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    pub(crate) fn already_exists(about: About<'_>) -> Self {
        let message = format!("{} {:?} already exists", about.qualified(), about.name);
        Failure::new(StatusCode::CONFLICT, "AlreadyExists", message).about(about)
    }

    pub(crate) fn conflict(about: About<'_>, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {:?}: {why}",
            about.qualified(),
            about.name
        );
        Failure::new(StatusCode::CONFLICT, "Conflict", message).about(about)
    }

    /// Others own fields that an apply would change.
    pub(crate) fn apply_conflict(message: String, causes: Vec<Cause>) -> Self {
        Failure::new(StatusCode::CONFLICT, "Conflict", message).with_causes(causes)
    }

    /// An error that the reference server passes on as it is, without a reason.
    pub(crate) fn unclassified(message: String) -> Self {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// The object changed between the client's read and its write.
    pub(crate) fn modified(about: About<'_>) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Failure::conflict(about, why)
    }

    pub(crate) fn forbidden(about: About<'_>, why: &str) -> Self {
        let qualified = about.qualified();
        let message = match about.name {
            "" => format!("{qualified} is forbidden: {why}"),
            name => format!("{qualified} {name:?} is forbidden: {why}"),
        };
        Failure::new(StatusCode::FORBIDDEN, "Forbidden", message).about(about)
    }

    /// A path outside of the resources is refused.
    pub(crate) fn forbidden_path(why: &str) -> Self {
        Failure::new(StatusCode::FORBIDDEN, "Forbidden", format!("forbidden: {why}"))
    }

    /// `about.resource` is the kind here.
    pub(crate) fn invalid(about: About<'_>, causes: Vec<Cause>) -> Self {
        let texts: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let list = if texts.len() == 1 {
            texts.concat()
        } else {
            format!("[{}]", texts.join(", "))
        };
        let message = format!("{} {:?} is invalid: {list}", about.qualified(), about.name);
        let failure = Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(about);
        failure.with_causes(causes)
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::GONE, "Expired", message)
    }

    pub(crate) fn too_large(limit_bytes: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit_bytes}");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// Something that must not happen did.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        let text = message.into();
        let failure = Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("Internal error occurred: {text}"),
        );
        failure.with_causes(vec![Cause {
            reason: "",
            message: text,
            field: String::new(),
        }])
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let mut failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        failure.0.details.retry_after_seconds = Some(1);
        failure
    }

    /// Not now, perhaps later.
    pub(crate) fn too_many_requests(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
    }

    /// The request's time is over; whether it took effect is not known.
    pub(crate) fn deadline() -> Self {
        let message = "the server was unable to return a response in the time allotted, but may still be processing the request";
        Failure::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    /// The client knows a revision that this server has not reached.
    pub(crate) fn revision_too_large(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let mut failure = Failure::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        failure.0.details.retry_after_seconds = Some(1);
        let cause = "Too large resource version".to_owned();
        failure.with_causes(vec![Cause {
            reason: "ResourceVersionTooLarge",
            message: cause,
            field: String::new(),
        }])
    }

    pub(crate) fn with_causes(mut self, causes: Vec<Cause>) -> Self {
        self.0.details.causes = causes;
        self
    }

    pub(crate) fn with_uid(mut self, uid: &str) -> Self {
        uid.clone_into(&mut self.0.details.uid);
        self
    }

    pub(crate) fn with_continue(mut self, token: String) -> Self {
        self.0.continue_token = Some(token);
        self
    }

    /// A `Status` that somebody else made; it has code and message.
    pub(crate) fn from_status(status: Value) -> Self {
        let text = |field: &str| status.get(field).and_then(Value::as_str).unwrap_or_default();
        let code = status.get("code").and_then(Value::as_u64);
        let code = code.and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
        let known = [
            "Forbidden",
            "Invalid",
            "NotFound",
            "Conflict",
            "BadRequest",
            "Unauthorized",
            "TooManyRequests",
        ];
        let reason = known
            .into_iter()
            .find(|known| *known == text("reason"))
            .unwrap_or_default();
        let mut failure = Failure::new(code.unwrap_or(StatusCode::BAD_REQUEST), reason, text("message"));
        failure.0.status = Some(status);
        failure
    }

    /// The refusal of a policy, for the reason that it gives.
    pub(crate) fn by_policy(mut self, reason: &str, message: String) -> Self {
        let (code, reason) = match reason {
            "Forbidden" => (StatusCode::FORBIDDEN, "Forbidden"),
            "Unauthorized" => (StatusCode::UNAUTHORIZED, "Unauthorized"),
            "RequestEntityTooLarge" => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            _ => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
        };
        self.0.code = code;
        self.0.reason = reason;
        self.with_causes(vec![Cause {
            reason: "",
            message,
            field: String::new(),
        }])
    }

    /// The refusal of a policy that could not change an object.
    pub(crate) fn by_mutation(mut self, message: String) -> Self {
        self.0.reason = "Invalid";
        self.0.message.clone_from(&message);
        self.with_causes(vec![Cause {
            reason: "",
            message,
            field: String::new(),
        }])
    }

    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.0.warnings = warnings;
        self
    }

    pub(crate) fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    pub(crate) fn code(&self) -> StatusCode {
        self.0.code
    }

    pub(crate) fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// Seconds for the `Retry-After` header, where asking again helps.
    pub(crate) fn retry_after_seconds(&self) -> Option<u32> {
        self.0.details.retry_after_seconds
    }

    /// The `Status` object.
    pub(crate) fn to_json(&self) -> Value {
        let inner = &self.0;
        if let Some(status) = &inner.status {
            return status.clone();
        }
        let mut metadata = json!({});
        if let Some(token) = &inner.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": inner.message,
            "reason": inner.reason,
            "code": inner.code.as_u16(),
        });
        if inner.details != Details::default() {
            status["details"] = serde_json::to_value(&inner.details).unwrap_or_default();
        }
        status
    }
}

impl From<moorline_store::StoreError> for Failure {
    /// Errors that no handler treats in its own way.
    fn from(error: moorline_store::StoreError) -> Self {
        match error {
            moorline_store::StoreError::TooLarge { .. } => Failure::too_large(crate::http::body::LIMIT_BYTES),
            moorline_store::StoreError::Closed => Failure::unavailable("the server is shutting down"),
            other => Failure::internal(other.to_string()),
        }
    }
}

/// The `Status` of a success without an object of its own.
pub(crate) fn success(about: About<'_>, uid: &str) -> Value {
    let details = Details {
        name: about.name.to_owned(),
        group: about.group.to_owned(),
        kind: about.resource.to_owned(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_upstreams() {
        let pod = About {
            group: "",
            resource: "pods",
            name: "a",
        };
        let lease = About {
            group: "coordination.k8s.io",
            resource: "leases",
            name: "l",
        };
        let cases = [
            (Failure::not_found(pod), 404, "NotFound", "pods \"a\" not found"),
            (
                Failure::already_exists(lease),
                409,
                "AlreadyExists",
                "leases.coordination.k8s.io \"l\" already exists",
            ),
            (
                Failure::modified(pod),
                409,
                "Conflict",
                "Operation cannot be fulfilled on pods \"a\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (
                Failure::forbidden(pod, "no"),
                403,
                "Forbidden",
                "pods \"a\" is forbidden: no",
            ),
            (
                Failure::revision_too_large(9, 4),
                504,
                "Timeout",
                "Too large resource version: 9, current: 4",
            ),
        ];
        for (failure, code, reason, message) in cases {
            let status = failure.to_json();
            assert_eq!(status["code"], code);
            assert_eq!(status["reason"], reason);
            assert_eq!(status["message"], message);
        }
    }

    #[test]
    fn one_cause_stands_alone_and_several_in_brackets() {
        let about = About {
            group: "",
            resource: "Pod",
            name: "a",
        };
        let cause = |field: &str| Cause {
            reason: "FieldValueRequired",
            message: "Required value".into(),
            field: field.into(),
        };
        let one = Failure::invalid(about, vec![cause("spec.x")]);
        assert_eq!(one.to_string(), "Pod \"a\" is invalid: spec.x: Required value");
        let two = Failure::invalid(about, vec![cause("spec.x"), cause("spec.y")]);
        assert_eq!(
            two.to_string(),
            "Pod \"a\" is invalid: [spec.x: Required value, spec.y: Required value]"
        );
        assert_eq!(two.to_json()["details"]["causes"][1]["field"], "spec.y");
    }
}
