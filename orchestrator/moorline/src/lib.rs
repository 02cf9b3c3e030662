//! The moorline command.
