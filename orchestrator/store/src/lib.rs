//! Revisioned key-value store: in-memory and embedded engines behind one trait.
