//! Label and field selectors: parsing and matching.

mod description;
mod fields;
mod labels;

pub use description::{describe, describe_labels};
pub use fields::{FieldRequirement, FieldSelector, field_value, selectable};
pub use labels::{LabelOperator, LabelRequirement, LabelSelector};

/// Why a selector can't be used (400 Bad Request).
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelectorError {
    /// It can't be parsed.
    #[error("{0}")]
    Syntax(String),
    /// The kind has no such field to select by.
    #[error("{0}")]
    UnknownField(String),
}
