//! An API server for tests of shells: objects in memory, versions, watches, merge and JSON patches, finalizers. It
//! knows no kinds and validates nothing; every request is noted.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper_frame::Frame;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::merge;

/// Uninteresting alias that keeps the import of the frame type in one place.
mod hyper_frame {
    pub(super) use http_body_util::combinators::UnsyncBoxBody;
    pub(super) type Frame<T> = http_body::Frame<T>;
}
