//! How values are merged: what merging, comparing and owning fields have to know of a type, and nothing else.
//!
//! [`MergeSchema`] is one place in a schema. Built-in types are read through [`Builtin`], custom ones through
//! [`Structural`]:
//!
//! | structural schema | here |
//! | --- | --- |
//! | `type` | [`Forms::scalar`], [`Forms::list`] or [`Forms::map`] |
//! | `x-kubernetes-int-or-string` | [`Scalar::Any`] |
//! | `x-kubernetes-list-type` | [`ListRule`]; without one a list is atomic |
//! | `x-kubernetes-list-map-keys` | [`MergeSchema::list_key`] |
//! | `x-kubernetes-map-type` | [`MapRule`]; without one a map is granular |
//! | `properties` | [`MergeSchema::field`] |
//! | `additionalProperties` | [`MergeSchema::entry`] |
//! | `x-kubernetes-preserve-unknown-fields`, here or further out | [`MergeSchema::entry`] is [`Untyped::Deduced`] |
//! | `x-kubernetes-embedded-resource` | `metadata` is that of built-in types |
//! | no schema at all | [`Untyped::Deduced`] |

mod builtin;
mod structural;

use serde_json::Value;

pub use builtin::Builtin;
pub use structural::Structural;

/// The scalars a value may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scalar {
    /// Text.
    Text,
    /// A number, whole or not.
    Number,
    /// True or false.
    Boolean,
    /// Any of them.
    Any,
}

/// How a list is merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListRule {
    /// It has one owner and is replaced as a whole.
    Atomic,
    /// It is a set of scalars, each with owners of its own.
    Set,
    /// Its elements are objects, told apart by their keys.
    Keyed,
}

/// How an object is merged, be it a struct or a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapRule {
    /// Field by field.
    Granular,
    /// It has one owner and is replaced as a whole.
    Atomic,
}

/// The forms a value may have; at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Forms {
    /// It may be a scalar.
    pub scalar: Option<Scalar>,
    /// It may be a list.
    pub list: Option<ListRule>,
    /// It may be an object.
    pub map: Option<MapRule>,
}

impl Forms {
    /// A scalar and nothing else.
    #[must_use]
    pub const fn scalar(scalar: Scalar) -> Forms {
        Forms {
            scalar: Some(scalar),
            list: None,
            map: None,
        }
    }

    /// A list and nothing else.
    #[must_use]
    pub const fn list(rule: ListRule) -> Forms {
        Forms {
            scalar: None,
            list: Some(rule),
            map: None,
        }
    }

    /// An object and nothing else.
    #[must_use]
    pub const fn map(rule: MapRule) -> Forms {
        Forms {
            scalar: None,
            list: None,
            map: Some(rule),
        }
    }
}

/// One place in a schema that lives for `'s`. Cheap to copy, and pure: the same question has the same answer.
pub trait MergeSchema<'s>: Copy {
    /// The forms a value may have here.
    fn forms(self) -> Forms;

    /// The schema of the elements of a list; asked only where [`Forms::list`] is given.
    #[must_use]
    fn element(self) -> Self;

    /// The schema of a declared field of an object.
    #[must_use]
    fn field(self, name: &str) -> Option<Self>;

    /// The schema of the fields that are not declared: a map's values. Nothing: there are no others.
    #[must_use]
    fn entry(self) -> Option<Self>;

    /// The keys by which the elements of a [`ListRule::Keyed`] list are told apart, in the schema's order.
    fn list_key(self, index: usize) -> Option<&'s str>;

    /// What an element that leaves out a key has in its place.
    fn list_key_default(self, key: &str) -> Option<&'s Value>;

    /// The fields an object has also when they are not written, with their values, sorted by name: in the reference
    /// server's built-in types, what is no pointer. Structural schemas have none.
    fn implied(self) -> &'s [(&'static str, Value)] {
        &[]
    }
}

/// Values without a schema, merged by what they look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Untyped {
    /// Objects are granular, lists are atomic.
    Deduced,
    /// Objects and lists are atomic.
    Atomic,
}

impl<'s> MergeSchema<'s> for Untyped {
    fn forms(self) -> Forms {
        Forms {
            scalar: Some(Scalar::Any),
            list: Some(ListRule::Atomic),
            map: Some(match self {
                Untyped::Deduced => MapRule::Granular,
                Untyped::Atomic => MapRule::Atomic,
            }),
        }
    }

    fn element(self) -> Self {
        Untyped::Atomic
    }

    fn field(self, _: &str) -> Option<Self> {
        None
    }

    fn entry(self) -> Option<Self> {
        Some(self)
    }

    fn list_key(self, _: usize) -> Option<&'s str> {
        None
    }

    fn list_key_default(self, _: &str) -> Option<&'s Value> {
        None
    }
}
