//! HTTP without Kubernetes objects: paths, parameters, media types, bodies, errors.

pub(crate) mod body;
pub(crate) mod compression;
pub(crate) mod failure;
pub(crate) mod listener;
pub(crate) mod negotiation;
pub(crate) mod path;
pub(crate) mod query;

pub(crate) use body::ResponseBody;
pub(crate) use failure::{Cause, Failure};

/// An answer of the server.
pub(crate) type Answer = http::Response<ResponseBody>;
