//! The generic handlers: what every resource can do, driven by its facts. Rules of single kinds are in [`strategy`]
//! and [`admission`], which are pure.

pub(crate) mod admission;
pub(crate) mod apply;
pub(crate) mod commit;
pub(crate) mod create;
pub(crate) mod decode;
pub(crate) mod delete;
pub(crate) mod forms;
pub(crate) mod list;
pub(crate) mod list_options;
pub(crate) mod metadata;
pub(crate) mod notes;
pub(crate) mod notice;
pub(crate) mod owners;
pub(crate) mod patch;
pub(crate) mod pod_resources;
pub(crate) mod quotas;
pub(crate) mod render;
pub(crate) mod resource;
pub(crate) mod rules;
pub(crate) mod select;
pub(crate) mod services;
pub(crate) mod strategy;
pub(crate) mod tree;
pub(crate) mod update;
pub(crate) mod watch;

pub(crate) use resource::{Call, Resource};
