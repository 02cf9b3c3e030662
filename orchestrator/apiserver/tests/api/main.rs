//! The server as clients see it: over HTTP without a socket, with kube-rs, and with kubectl over TLS.

mod clients;
mod errors;
mod harness;
mod kubectl;
mod lists;
mod loops;
mod security;
mod verbs;
mod watches;
