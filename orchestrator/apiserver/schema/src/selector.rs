//! Label and field selectors: parsing and matching.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Why a selector can't be used (400 Bad Request).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelectorError {
    /// It can't be parsed.
    #[error("{0}")]
    Syntax(String),
    /// The kind has no such field to select by.
    #[error("field label not supported: {0}")]
    UnknownField(String),
}

/// A parsed label selector; the empty one matches all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LabelSelector {}

impl LabelSelector {
    /// Parses the `labelSelector` parameter.
    ///
    /// # Errors
    /// [`SelectorError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let _ = text;
        Ok(Self {})
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Whether an object with these labels (`metadata.labels`) matches.
    #[must_use]
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        let _ = labels;
        true
    }
}

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
        let _ = (text, group, version, plural);
        Ok(Self::default())
    }

    /// The conditions, all of which must hold.
    #[must_use]
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// The value that a field must have for any match, if the selector says so.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|one| one.equal && one.field == field)
            .map(|one| one.value.as_str())
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

/// The fields by which objects of a resource can be selected.
#[must_use]
pub fn selectable(group: &str, version: &str, plural: &str) -> &'static [&'static str] {
    let _ = (group, version, plural);
    &["metadata.name", "metadata.namespace"]
}

/// The value of a selectable field as text; empty if absent.
#[must_use]
pub fn field_value<'a>(object: &'a Value, field: &str) -> Cow<'a, str> {
    let found = field.split('.').try_fold(object, |value, name| value.get(name));
    match found {
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(Value::Bool(flag)) => Cow::Borrowed(if *flag { "true" } else { "false" }),
        Some(Value::Number(number)) => Cow::Owned(number.to_string()),
        _ => Cow::Borrowed(""),
    }
}
