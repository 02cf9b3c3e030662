//! Finding drivers: sockets in the registry directory, the handshake over them, and what the cluster is told.

pub(crate) mod node_facts;
pub(crate) mod registration;
pub(crate) mod watch;
