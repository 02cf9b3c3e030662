//! Custom resources: what a CustomResourceDefinition says, and what follows from it for its objects.
//!
//! | module | question it answers |
//! | --- | --- |
//! | [`definition`] | which names, versions, columns and schemas does a definition have? |
//! | [`checks`] | is a definition, or its change, allowed? |
//! | [`naming`] | which names does it get, and is it established? |
//! | [`facts`] | how does it look among the built-in resources? |
//! | [`structural`] | what does a schema say at each place? |
//! | [`pruning`], [`defaulting`] | what is dropped from an object, what is filled in? |
//! | [`validation`] | is an object allowed? |
//! | [`rules`] | what do its CEL rules say? |
//! | [`columns`], [`jsonpath`] | what does `kubectl get` print? |

pub(crate) mod cel;
pub mod checks;
pub mod columns;
pub mod defaulting;
pub mod definition;
pub mod facts;
mod formats;
pub(crate) mod go_duration;
pub mod jsonpath;
mod list_types;
pub mod naming;
pub mod object;
pub mod openapi;
pub mod pruning;
pub mod rules;
pub mod structural;
pub mod validation;

pub use definition::{Definition, Version};
pub use structural::Schema;

/// The group of definitions themselves.
pub const GROUP: &str = "apiextensions.k8s.io";
/// The plural name of definitions.
pub const DEFINITIONS: &str = "customresourcedefinitions";
/// Holds a definition until its instances are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
