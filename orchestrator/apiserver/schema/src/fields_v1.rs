//! Sets of field paths and their wire form, `FieldsV1`: who owns what in an object.
//!
//! A set is a tree: each node is one [`Element`] of a path, says whether the path that ends there belongs to the set,
//! and has the longer paths below it. In JSON a node is an object, its elements the keys:
//!
//! | key | element |
//! | --- | --- |
//! | `f:name` | a field of an object |
//! | `k:{"name":"a"}` | an element of a list, by its keys |
//! | `v:"a"` | an element of a list of scalars, by its value |
//! | `i:3` | an element of a list, by its place |
//! | `.` | the path that ends here belongs to the set too; an empty object says the same |

mod element;
mod json;
mod set;

pub use element::{Element, Path};
pub use json::{FieldsError, write_ordered};
pub use set::Set;

pub(crate) use element::values_equal;
pub(crate) use json::element_text;
pub(crate) use set::Branch;

#[cfg(test)]
mod tests;
