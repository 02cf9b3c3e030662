//! Collects faults in the forms that clients of the API know.

use serde_json::Value;

use super::Cause;
use crate::place::Place;

/// What has been found so far.
#[derive(Default)]
pub(crate) struct Faults {
    causes: Vec<Cause>,
}

impl Faults {
    pub(crate) fn into_causes(self) -> Vec<Cause> {
        self.causes
    }

    fn push(&mut self, reason: &'static str, place: &Place<'_>, what: String, detail: &str) {
        let message = if detail.is_empty() {
            what
        } else {
            format!("{what}: {detail}")
        };
        self.causes.push(Cause {
            reason,
            message,
            field: place.to_string(),
        });
    }

    /// Whether nothing has been found.
    pub(crate) fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    /// The number of faults so far.
    pub(crate) fn len(&self) -> usize {
        self.causes.len()
    }

    /// Takes over faults that were found elsewhere.
    pub(crate) fn extend(&mut self, causes: Vec<Cause>) {
        self.causes.extend(causes);
    }

    /// Takes over faults of an inner object, whose places are told from its own beginning.
    pub(crate) fn extend_below(&mut self, place: &Place<'_>, inner: Faults) {
        self.causes.extend(inner.causes.into_iter().map(|cause| Cause {
            field: format!("{place}.{}", cause.field),
            ..cause
        }));
    }

    pub(crate) fn required(&mut self, place: &Place<'_>, detail: &str) {
        self.push("FieldValueRequired", place, "Required value".to_owned(), detail);
    }

    pub(crate) fn invalid(&mut self, place: &Place<'_>, value: impl Into<Value>, detail: &str) {
        self.push(
            "FieldValueInvalid",
            place,
            format!("Invalid value: {}", value.into()),
            detail,
        );
    }

    /// Each explanation becomes a fault of its own.
    pub(crate) fn invalid_each(&mut self, place: &Place<'_>, value: &str, details: &[String]) {
        for detail in details {
            self.invalid(place, value, detail);
        }
    }

    pub(crate) fn not_supported(&mut self, place: &Place<'_>, value: impl Into<Value>, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let detail = format!("supported values: {}", supported.join(", "));
        self.push(
            "FieldValueNotSupported",
            place,
            format!("Unsupported value: {}", value.into()),
            &detail,
        );
    }

    pub(crate) fn forbidden(&mut self, place: &Place<'_>, detail: &str) {
        self.push("FieldValueForbidden", place, "Forbidden".to_owned(), detail);
    }

    pub(crate) fn duplicate(&mut self, place: &Place<'_>, value: impl Into<Value>) {
        self.duplicate_by(place, value, "");
    }

    /// Says too by what elements are told apart.
    pub(crate) fn duplicate_by(&mut self, place: &Place<'_>, value: impl Into<Value>, detail: &str) {
        self.push(
            "FieldValueDuplicate",
            place,
            format!("Duplicate value: {}", value.into()),
            detail,
        );
    }

    pub(crate) fn not_found(&mut self, place: &Place<'_>, value: impl Into<Value>) {
        self.push(
            "FieldValueNotFound",
            place,
            format!("Not found: {}", value.into()),
            "",
        );
    }

    /// A value of another type than wanted; `detail` is the whole explanation.
    pub(crate) fn type_invalid(&mut self, place: &Place<'_>, value: impl Into<Value>, detail: &str) {
        let what = format!("Invalid value: {}", value.into());
        self.push("FieldValueTypeInvalid", place, what, detail);
    }

    /// A fault that upstream tells of the whole object, without a field.
    pub(crate) fn of_whole(&mut self, detail: &str) {
        self.causes.push(Cause {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: \"\": {detail}"),
            field: "<nil>".to_owned(),
        });
    }

    /// A fault at a place below another that is known as text only.
    pub(crate) fn invalid_at(&mut self, place: &Place<'_>, below: &str, value: Value, detail: &str) {
        let dot = if below.is_empty() { "" } else { "." };
        self.causes.push(Cause {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {detail}"),
            field: format!("{place}{dot}{below}"),
        });
    }

    /// A fault with a reason and a message of the caller's.
    pub(crate) fn because(&mut self, reason: &'static str, field: String, message: String) {
        self.causes.push(Cause {
            reason,
            message,
            field,
        });
    }

    /// A value that is not in a closed set of any values.
    pub(crate) fn not_among(&mut self, place: &Place<'_>, value: &Value, supported: &[Value]) {
        let supported: Vec<String> = supported
            .iter()
            .map(|one| match one {
                Value::String(_) => one.to_string(),
                other => format!("{:?}", other.to_string()),
            })
            .collect();
        let detail = format!("supported values: {}", supported.join(", "));
        self.push(
            "FieldValueNotSupported",
            place,
            format!("Unsupported value: {value}"),
            &detail,
        );
    }

    pub(crate) fn too_many(&mut self, place: &Place<'_>, count: u64, count_max: u64) {
        let detail = format!("must have at most {count_max} items");
        self.push("FieldValueTooMany", place, format!("Too many: {count}"), &detail);
    }

    pub(crate) fn too_long(&mut self, place: &Place<'_>, bytes_max: usize) {
        let detail = format!("may not be more than {bytes_max} bytes");
        self.push("FieldValueTooLong", place, "Too long".to_owned(), &detail);
    }

    /// A value out of a closed set; the empty one is required to be another.
    pub(crate) fn one_of(&mut self, place: &Place<'_>, value: &str, supported: &[&str]) {
        match value {
            "" => self.required(place, ""),
            value if supported.contains(&value) => {}
            value => self.not_supported(place, value, supported),
        }
    }

    /// A value out of a closed set, if there is one.
    pub(crate) fn one_of_if_set(&mut self, place: &Place<'_>, value: &str, supported: &[&str]) {
        if !value.is_empty() && !supported.contains(&value) {
            self.not_supported(place, value, supported);
        }
    }

    /// A value out of a closed set, if the field is there; empty is a value too.
    pub(crate) fn one_of_if_there(&mut self, place: &Place<'_>, value: Option<&Value>, supported: &[&str]) {
        if let Some(value) = value
            .and_then(Value::as_str)
            .filter(|value| !supported.contains(value))
        {
            self.not_supported(place, value, supported);
        }
    }

    /// A field that must not change.
    pub(crate) fn immutable(&mut self, place: &Place<'_>, old: Option<&Value>, new: Option<&Value>) {
        if old.filter(|value| !value.is_null()) != new.filter(|value| !value.is_null()) {
            self.invalid(place, new.cloned().unwrap_or_default(), "field is immutable");
        }
    }

    /// An integer that must not be negative.
    pub(crate) fn non_negative(&mut self, place: &Place<'_>, value: Option<&Value>) {
        if let Some(number) = value.and_then(Value::as_i64).filter(|&number| number < 0) {
            self.invalid(place, number, "must be greater than or equal to 0");
        }
    }
}
