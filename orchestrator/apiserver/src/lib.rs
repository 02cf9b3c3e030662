//! The Kubernetes API over a revisioned store.
//!
//! One generic handler serves every resource from the facts of `moorline-schema`; objects are kept once, as the bytes
//! clients get. [`ApiServer::start`] brings all of it up: keys and certificates, caches, the TLS listener and the
//! control loops that the API itself needs. [`ApiServer::client`] gives clients that need no socket.
//!
//! | module | answers |
//! | --- | --- |
//! | `service` | which way does a request go? |
//! | `http` | paths, parameters, media types, bodies, errors, the listener |
//! | `objects` | get, list, watch, create, update, patch, delete of any resource; strategies and admission |
//! | `subresources`, `reviews`, `components`, `endpoints` | what is not an object |
//! | `cache` | what is stored, as clients see it |
//! | `customs` | which custom resources are served now? |
//! | `hooks` | what do webhooks and policies say? |
//! | `auth`, `pki` | who asks, may they, and with which keys |
//! | `loops` | namespaces, garbage, definitions, ServiceAccounts, compaction |
#![forbid(unsafe_code)]

mod api;
mod auth;
mod cache;
mod components;
mod customs;
mod endpoints;
mod hooks;
mod http;
mod loops;
mod metrics;
mod objects;
mod pki;
mod reviews;
mod server;
mod service;
mod subresources;

pub use api::Config;
pub use pki::{KeyAndCertificate, Names, Pki, PkiError};
pub use server::{ApiServer, StartError};

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
