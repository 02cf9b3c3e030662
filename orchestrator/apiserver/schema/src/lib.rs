//! The schema registry: facts of every built-in type, decoding, validation, merging, OpenAPI.
