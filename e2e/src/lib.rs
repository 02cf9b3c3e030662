//! End-to-end tests, kept out of the parts they test.
