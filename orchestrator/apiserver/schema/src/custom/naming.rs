//! Which names a definition gets, and whether it is established. Pure: the loop that writes the result is elsewhere.

use serde_json::{Value, json};

use super::definition::Names;
use crate::object::{list, set_default, text};

/// The first name that somebody else in the group has, with upstream's reason.
fn conflict(wanted: &Names, others: &[Names]) -> Option<(&'static str, String)> {
    let resources = |name: &str| {
        let taken = |other: &Names| {
            other.plural == name || other.singular == name || other.short_names.iter().any(|one| one == name)
        };
        others.iter().any(taken)
    };
    let kinds = |name: &str| {
        others
            .iter()
            .any(|other| other.kind == name || other.list_kind == name)
    };
    let in_use = |name: &str| format!("{name:?} is already in use");
    if resources(&wanted.plural) {
        return Some(("PluralConflict", in_use(&wanted.plural)));
    }
    if resources(&wanted.singular) {
        return Some(("SingularConflict", in_use(&wanted.singular)));
    }
    if let Some(name) = wanted.short_names.iter().find(|name| resources(name)) {
        return Some(("ShortNamesConflict", in_use(name)));
    }
    if kinds(&wanted.kind) {
        return Some(("KindConflict", in_use(&wanted.kind)));
    }
    kinds(&wanted.list_kind).then(|| ("ListKindConflict", in_use(&wanted.list_kind)))
}

/// The status a definition should have. `others` are the other definitions of its group; `failure` says why its
/// schema can't be served, if so; `now` is the time of conditions that change.
#[must_use]
pub fn status(object: &Value, others: &[&Value], failure: Option<&str>, now: &str) -> Value {
    let mut status = match &object["status"] {
        Value::Object(status) => Value::Object(status.clone()),
        _ => json!({}),
    };
    let wanted = Names::read(&object["spec"]["names"]);
    let accepted: Vec<Names> = others
        .iter()
        .map(|other| Names::read(&other["status"]["acceptedNames"]))
        .filter(|names| !names.plural.is_empty())
        .collect();
    let conflict = conflict(&wanted, &accepted);
    if conflict.is_none() {
        let mut names = object["spec"]["names"].clone();
        if let Some(map) = names.as_object_mut() {
            set_default(map, "singular", wanted.singular.as_str());
            set_default(map, "listKind", wanted.list_kind.as_str());
        }
        status["acceptedNames"] = names;
    }
    if let Some(map) = status.as_object_mut() {
        set_default(map, "conditions", json!([]));
        set_default(map, "acceptedNames", json!({ "plural": "", "kind": "" }));
        set_default(map, "storedVersions", json!([]));
    }
    let (accepted, established) = match &conflict {
        Some((reason, message)) => (
            ("NamesAccepted", false, *reason, message.clone()),
            (
                "Established",
                false,
                "NotAccepted",
                "not all names are accepted".to_owned(),
            ),
        ),
        None => (
            (
                "NamesAccepted",
                true,
                "NoConflicts",
                "no conflicts found".to_owned(),
            ),
            (
                "Established",
                true,
                "InitialNamesAccepted",
                "the initial names have been accepted".to_owned(),
            ),
        ),
    };
    set_condition(&mut status, accepted, now);
    // What was established once stays so.
    if !is_true(object, "Established") && (conflict.is_some() || failure.is_none()) {
        set_condition(&mut status, established, now);
    }
    if let Some(failure) = failure {
        set_condition(
            &mut status,
            ("NonStructuralSchema", true, "Violations", failure.to_owned()),
            now,
        );
    } else if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.retain(|one| text(one, &["type"]) != "NonStructuralSchema");
    }
    if let Some(condition) = approval(object) {
        set_condition(&mut status, condition, now);
    }
    status
}

type Condition = (&'static str, bool, &'static str, String);

/// Groups of Kubernetes itself need a word about their approval.
fn approval(object: &Value) -> Option<Condition> {
    const KIND: &str = "KubernetesAPIApprovalPolicyConformant";
    if !super::checks::is_protected(text(object, &["spec", "group"])) {
        return None;
    }
    let annotation = text(object, &["metadata", "annotations", super::checks::APPROVED]);
    Some(if annotation.starts_with("unapproved") {
        (
            KIND,
            false,
            "UnapprovedAnnotation",
            format!("not approved: {annotation:?}"),
        )
    } else if annotation.is_empty() {
        let message = format!(
            "protected groups must have approval annotation {:?}",
            super::checks::APPROVED
        );
        (KIND, false, "MissingAnnotation", message)
    } else {
        (
            KIND,
            true,
            "ApprovedAnnotation",
            format!("approved in {annotation}"),
        )
    })
}

/// Sets a condition; its time moves only with its status.
pub fn set_condition(status: &mut Value, (kind, holds, reason, message): Condition, now: &str) {
    let holds = if holds { "True" } else { "False" };
    let Some(conditions) = status["conditions"].as_array_mut() else {
        return;
    };
    let found = conditions.iter_mut().find(|one| text(one, &["type"]) == kind);
    let Some(found) = found else {
        conditions.push(json!({
            "type": kind, "status": holds, "lastTransitionTime": now, "reason": reason, "message": message,
        }));
        return;
    };
    if text(found, &["status"]) != holds {
        found["lastTransitionTime"] = now.into();
        found["status"] = holds.into();
    }
    found["reason"] = reason.into();
    found["message"] = message.into();
}

/// Whether a condition of a definition holds.
#[must_use]
pub fn is_true(object: &Value, kind: &str) -> bool {
    list(object, &["status", "conditions"])
        .iter()
        .any(|one| text(one, &["type"]) == kind && text(one, &["status"]) == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "names": {"plural": plural, "kind": kind, "shortNames": short}}})
    }

    fn accepted(mut object: Value) -> Value {
        object["status"] = status(&object, &[], None, "t0");
        object
    }

    fn condition<'v>(status: &'v Value, kind: &str) -> &'v Value {
        list(status, &["conditions"])
            .iter()
            .find(|one| one["type"] == kind)
            .unwrap_or(&Value::Null)
    }

    #[test]
    fn names_without_conflict_are_accepted_and_established_at_once() {
        let object = accepted(definition("widgets", "Widget", &["wd"]));
        let status = &object["status"];
        assert_eq!(status["acceptedNames"]["listKind"], "WidgetList");
        assert_eq!(status["acceptedNames"]["singular"], "widget");
        assert_eq!(condition(status, "NamesAccepted")["reason"], "NoConflicts");
        assert_eq!(condition(status, "Established")["status"], "True");
        assert_eq!(
            super::status(&object, &[], None, "t1"),
            *status,
            "nothing to do the second time"
        );
    }

    #[test]
    fn conflicts_are_named() {
        let first = accepted(definition("widgets", "Widget", &["wd"]));
        let cases = [
            ("plural", definition("widget", "Other", &[]), "PluralConflict"),
            (
                "singular",
                definition("others", "Widgets", &[]),
                "SingularConflict",
            ),
            (
                "short name",
                definition("others", "Other", &["wd"]),
                "ShortNamesConflict",
            ),
            ("kind", definition("others", "WidgetList", &[]), "KindConflict"),
            ("none", definition("others", "Other", &["o"]), "NoConflicts"),
        ];
        for (case, mut second, reason) in cases {
            if case == "kind" {
                second["spec"]["names"]["singular"] = json!("other");
            }
            let status = status(&second, &[&first], None, "t1");
            assert_eq!(condition(&status, "NamesAccepted")["reason"], reason, "{case}");
            let is_established = condition(&status, "Established")["status"] == "True";
            assert_eq!(is_established, reason == "NoConflicts", "{case}");
        }
    }

    #[test]
    fn what_is_established_stays_so() {
        let first = accepted(definition("widgets", "Widget", &[]));
        let mut second = accepted(definition("others", "Other", &[]));
        second["spec"]["names"]["shortNames"] = json!(["widget"]);
        let status = status(&second, &[&first], None, "t1");
        assert_eq!(condition(&status, "NamesAccepted")["status"], "False");
        assert_eq!(condition(&status, "Established")["status"], "True");
        assert_eq!(
            status["acceptedNames"].get("shortNames"),
            Some(&json!([])),
            "the old names stay"
        );
    }

    #[test]
    fn a_schema_that_cannot_be_served_is_not_established() {
        let object = definition("widgets", "Widget", &[]);
        let status = status(&object, &[], Some("broken"), "t0");
        assert_eq!(condition(&status, "NonStructuralSchema")["message"], "broken");
        assert_eq!(condition(&status, "Established"), &Value::Null);
    }
}
