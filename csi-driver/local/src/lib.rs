//! The reference CSI driver: node-local volumes over interchangeable backends.
