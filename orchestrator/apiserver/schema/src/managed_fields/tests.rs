//! Owners after histories of writes.

mod histories;
mod tables;
