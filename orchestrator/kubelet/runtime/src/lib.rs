//! Containers behind an interface of CRI's shape; the embedded OCI runtime, its shim and image store.
