//! Collects faults in the forms that clients of the API know.

use serde_json::Value;

use super::Cause;
use crate::place::Place;

/// What has been found so far.
#[derive(Default)]
pub(super) struct Faults {
    causes: Vec<Cause>,
}

impl Faults {
    pub(super) fn into_causes(self) -> Vec<Cause> {
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

    pub(super) fn required(&mut self, place: &Place<'_>, detail: &str) {
        self.push("FieldValueRequired", place, "Required value".to_owned(), detail);
    }

    pub(super) fn invalid(&mut self, place: &Place<'_>, value: impl Into<Value>, detail: &str) {
        self.push(
            "FieldValueInvalid",
            place,
            format!("Invalid value: {}", value.into()),
            detail,
        );
    }

    /// Each explanation becomes a fault of its own.
    pub(super) fn invalid_each(&mut self, place: &Place<'_>, value: &str, details: &[String]) {
        for detail in details {
            self.invalid(place, value, detail);
        }
    }

    pub(super) fn not_supported(&mut self, place: &Place<'_>, value: impl Into<Value>, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let detail = format!("supported values: {}", supported.join(", "));
        self.push(
            "FieldValueNotSupported",
            place,
            format!("Unsupported value: {}", value.into()),
            &detail,
        );
    }

    pub(super) fn forbidden(&mut self, place: &Place<'_>, detail: &str) {
        self.push("FieldValueForbidden", place, "Forbidden".to_owned(), detail);
    }

    pub(super) fn duplicate(&mut self, place: &Place<'_>, value: impl Into<Value>) {
        self.duplicate_by(place, value, "");
    }

    /// Says too by what elements are told apart.
    pub(super) fn duplicate_by(&mut self, place: &Place<'_>, value: impl Into<Value>, detail: &str) {
        self.push(
            "FieldValueDuplicate",
            place,
            format!("Duplicate value: {}", value.into()),
            detail,
        );
    }

    pub(super) fn not_found(&mut self, place: &Place<'_>, value: impl Into<Value>) {
        self.push(
            "FieldValueNotFound",
            place,
            format!("Not found: {}", value.into()),
            "",
        );
    }

    pub(super) fn too_long(&mut self, place: &Place<'_>, bytes_max: usize) {
        let detail = format!("may not be more than {bytes_max} bytes");
        self.push("FieldValueTooLong", place, "Too long".to_owned(), &detail);
    }

    /// A value out of a closed set; the empty one is required to be another.
    pub(super) fn one_of(&mut self, place: &Place<'_>, value: &str, supported: &[&str]) {
        match value {
            "" => self.required(place, ""),
            value if supported.contains(&value) => {}
            value => self.not_supported(place, value, supported),
        }
    }

    /// A value out of a closed set, if there is one.
    pub(super) fn one_of_if_set(&mut self, place: &Place<'_>, value: &str, supported: &[&str]) {
        if !value.is_empty() && !supported.contains(&value) {
            self.not_supported(place, value, supported);
        }
    }

    /// A value out of a closed set, if the field is there; empty is a value too.
    pub(super) fn one_of_if_there(&mut self, place: &Place<'_>, value: Option<&Value>, supported: &[&str]) {
        if let Some(value) = value
            .and_then(Value::as_str)
            .filter(|value| !supported.contains(value))
        {
            self.not_supported(place, value, supported);
        }
    }

    /// A field that must not change.
    pub(super) fn immutable(&mut self, place: &Place<'_>, old: Option<&Value>, new: Option<&Value>) {
        if old.filter(|value| !value.is_null()) != new.filter(|value| !value.is_null()) {
            self.invalid(place, new.cloned().unwrap_or_default(), "field is immutable");
        }
    }

    /// An integer that must not be negative.
    pub(super) fn non_negative(&mut self, place: &Place<'_>, value: Option<&Value>) {
        if let Some(number) = value.and_then(Value::as_i64).filter(|&number| number < 0) {
            self.invalid(place, number, "must be greater than or equal to 0");
        }
    }
}
