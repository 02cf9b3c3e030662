//! The schema registry: facts of every built-in type, decoding, validation, merging, OpenAPI.
//!
//! Everything here is pure and synchronous: no client, no clock, no I/O. Objects are [`serde_json::Value`] trees.
//! One set of facts about every built-in type of Kubernetes (`facts/`) drives all of it; a type's facts are decoded
//! when it is first used, so that an idle server only pays for what it serves.
//!
//! | module | question it answers |
//! | --- | --- |
//! | [`registry`] | which types, fields and resources are there, which of them are served? |
//! | [`decode`] | what does this JSON, YAML or protobuf body say, and what in it is unknown or twice there? |
//! | [`encode`] | how does this object look in protobuf? |
//! | [`defaults`] | what does upstream fill in? |
//! | [`validation`] | is this object, or this change, allowed? |
//! | [`patch`] | what results from this patch? |
//! | [`managed_fields`] | who owns which fields after this write, and what results from this apply? |
//! | [`merge_schema`], [`structured_merge`], [`fields_v1`] | how are values merged, compared, and their fields named? |
//! | [`selector`] | does this object match a label or field selector? |
//! | [`discovery`], [`openapi`] | what does a client learn about the API? |
//! | [`table`] | what does `kubectl get` print? |
//! | [`cel`] | what does an expression of a webhook or policy say? |
//! | [`custom`] | all of this for the resources of CustomResourceDefinitions |
//! | [`names`], [`quantity`], [`time`] | the value formats all of these share |
//!
//! A write goes `decode::json` (or `yaml`, `protobuf`, or `patch::*` then [`decode::value`]) -> [`defaults::apply`] ->
//! [`validation::create`] or [`validation::update`].
#![forbid(unsafe_code)]

/// Expressions of admission webhooks and policies.
pub mod cel {
    pub use crate::custom::cel::names;
    pub use crate::custom::cel::program::{Ask, Decision, Given, Outcome, Program, Question, evaluate};
}
pub mod custom;
pub mod decode;
pub mod defaults;
pub mod discovery;
pub mod encode;
pub mod fields_v1;
pub mod managed_fields;
pub mod merge_schema;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod registry;
pub mod selector;
pub mod structured_merge;
pub mod table;
pub mod time;
pub mod validation;

mod object;
mod place;
mod wire;

pub use registry::{Gvk, Registry, ResourceFacts, TypeId};

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
