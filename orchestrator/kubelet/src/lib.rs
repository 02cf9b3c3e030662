//! The node agent: pods, volumes, plugin registration.
