//! The scheduler: framework and plugins, volume binding first.
