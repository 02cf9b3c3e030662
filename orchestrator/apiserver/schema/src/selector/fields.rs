//! Field selectors: `=`, `==` and `!=`, joined by commas, on the few fields that a kind allows.

use std::borrow::Cow;

use serde_json::Value;

use super::SelectorError;

/// One condition of a field selector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldRequirement {
    /// Such as `metadata.name`.
    pub field: String,
    /// True for `=` and `==`, false for `!=`.
    pub equal: bool,
    /// The value compared with.
    pub value: String,
}

/// A parsed field selector; the empty one matches all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Parses the `fieldSelector` parameter and checks its fields against [`selectable`].
    ///
    /// # Errors
    /// [`SelectorError`].
    pub fn parse(text: &str, group: &str, version: &str, plural: &str) -> Result<Self, SelectorError> {
        Self::parse_known(text, (group, plural), selectable(group, version, plural))
    }

    /// As [`FieldSelector::parse`], for the fields of a definition.
    ///
    /// # Errors
    /// [`SelectorError`].
    pub fn parse_known(
        text: &str,
        (group, plural): (&str, &str),
        known: &[&str],
    ) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split(text).filter(|term| !term.is_empty()) {
            let mut requirement = parse_term(term).ok_or_else(|| {
                SelectorError::Syntax(format!("invalid selector: '{text}'; can't understand '{term}'"))
            })?;
            if (group, plural) == ("", "pods") && requirement.field == "spec.host" {
                "spec.nodeName".clone_into(&mut requirement.field);
            }
            if !known.contains(&requirement.field.as_str()) {
                return Err(unknown(&requirement.field, known));
            }
            requirements.push(requirement);
        }
        Ok(FieldSelector { requirements })
    }

    /// The conditions, all of which must hold.
    #[must_use]
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// The value that a field must have for any match, if the selector says so.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        let mut equal = self.requirements.iter().filter(|one| one.equal);
        equal.find(|one| one.field == field).map(|one| one.value.as_str())
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object matches.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements
            .iter()
            .all(|one| (field_value(object, &one.field) == one.value.as_str()) == one.equal)
    }
}

fn unknown(field: &str, known: &[&str]) -> SelectorError {
    SelectorError::UnknownField(if known == NAME_ONLY || known == NAME_AND_NAMESPACE {
        let known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
        format!(
            "{field:?} is not a known field selector: only {}",
            known.join(", ")
        )
    } else {
        format!("field label not supported: {field}")
    })
}

/// Splits at commas that are not escaped.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let at_comma = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        at_comma
    })
}

fn parse_term(term: &str) -> Option<FieldRequirement> {
    // The longest operator at the first place where one stands.
    let at = term.find(['=', '!'])?;
    let (field, rest) = term.split_at(at);
    let (equal, value) = match (
        rest.strip_prefix("!="),
        rest.strip_prefix("=="),
        rest.strip_prefix('='),
    ) {
        (Some(value), _, _) => (false, value),
        (None, Some(value), _) | (None, None, Some(value)) => (true, value),
        (None, None, None) => return None,
    };
    Some(FieldRequirement {
        field: field.to_owned(),
        equal,
        value: unescape(value)?,
    })
}

/// Takes backslashes off; they may stand before `\`, `,` and `=` only, and these not alone.
fn unescape(value: &str) -> Option<String> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}

const NAME_ONLY: &[&str] = &["metadata.name"];
const NAME_AND_NAMESPACE: &[&str] = &["metadata.name", "metadata.namespace"];

/// The fields by which objects of a resource can be selected.
#[must_use]
pub fn selectable(group: &str, _version: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "events") => &[
            "metadata.name",
            "metadata.namespace",
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => &[
            "metadata.name",
            "metadata.namespace",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "nodes") => &["metadata.name", "metadata.namespace", "spec.unschedulable"],
        ("", "namespaces") => &["metadata.name", "status.phase"],
        ("", "secrets") => &["metadata.name", "metadata.namespace", "type"],
        ("", "services") => &[
            "metadata.name",
            "metadata.namespace",
            "spec.clusterIP",
            "spec.type",
        ],
        ("", "replicationcontrollers") => &["metadata.name", "metadata.namespace", "status.replicas"],
        ("batch", "jobs") => &["metadata.name", "metadata.namespace", "status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["metadata.name", "spec.signerName"],
        ("resource.k8s.io", "resourceslices") => &["metadata.name", "spec.nodeName", "spec.driver"],
        _ => NAME_AND_NAMESPACE,
    }
}

/// The value of a selectable field as text; empty if absent. Flags that are absent are `false`.
#[must_use]
pub fn field_value<'a>(object: &'a Value, field: &str) -> Cow<'a, str> {
    let at = |path: &str| path.split('.').try_fold(object, |value, name| value.get(name));
    let found = match field {
        "status.podIPs" => return Cow::Owned(joined_addresses(at(field))),
        // An event says who it is from in one of two places.
        "source" => at("source.component")
            .filter(|value| value.as_str() != Some(""))
            .or_else(|| at("reportingComponent")),
        _ => at(field),
    };
    match found {
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(Value::Bool(flag)) => Cow::Borrowed(if *flag { "true" } else { "false" }),
        Some(Value::Number(number)) => Cow::Owned(number.to_string()),
        _ if matches!(field, "spec.unschedulable" | "spec.hostNetwork") => Cow::Borrowed("false"),
        _ => Cow::Borrowed(""),
    }
}

fn joined_addresses(list: Option<&Value>) -> String {
    let list = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let addresses: Vec<&str> = list
        .iter()
        .filter_map(|entry| entry.get("ip")?.as_str())
        .collect();
    addresses.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods(text: &str) -> Result<FieldSelector, SelectorError> {
        FieldSelector::parse(text, "", "v1", "pods")
    }

    #[test]
    fn objects_match_by_their_fields() {
        let pod =
            json!({"metadata": {"name": "a=b,c"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let cases = [
            ("", true),
            ("spec.nodeName=n", true),
            ("spec.nodeName==n,status.phase!=Failed", true),
            ("spec.host=n", true),
            ("spec.nodeName!=n", false),
            ("spec.nodeName=", false),
            ("status.podIP=", true),
            ("spec.hostNetwork=false", true),
            (r"metadata.name=a\=b\,c", true),
            ("metadata.name=a", false),
        ];
        for (text, matches) in cases {
            assert_eq!(pods(text).unwrap().matches(&pod), matches, "{text}");
        }
        assert_eq!(
            pods("metadata.name!=x,metadata.name=a")
                .unwrap()
                .exact("metadata.name"),
            Some("a")
        );
    }

    #[test]
    fn what_cannot_be_selected_is_refused_in_upstreams_words() {
        let error = pods("spec.priority=1").unwrap_err();
        assert_eq!(error.to_string(), "field label not supported: spec.priority");
        let error = FieldSelector::parse("spec.x=1", "storage.k8s.io", "v1", "csinodes").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#""spec.x" is not a known field selector: only "metadata.name", "metadata.namespace""#
        );
        for text in [
            "spec.nodeName",
            "spec.nodeName=a=b",
            r"spec.nodeName=a\b",
            "spec.nodeName>1",
        ] {
            assert!(matches!(pods(text), Err(SelectorError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn an_event_is_found_by_its_source() {
        let by = |text: &str| FieldSelector::parse(text, "", "v1", "events").unwrap();
        assert!(by("source=kubelet").matches(&json!({"source": {"component": "kubelet"}})));
        assert!(by("source=kubelet").matches(&json!({"source": {}, "reportingComponent": "kubelet"})));
        assert!(!by("involvedObject.uid=u").matches(&json!({"involvedObject": {"uid": "v"}})));
    }
}
