//! Tests of `transition`.
