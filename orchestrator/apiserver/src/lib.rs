//! The Kubernetes API over a revisioned store.
