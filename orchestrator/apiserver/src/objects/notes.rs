//! What a client is told beside the answer to its request, be that a failure or not.

use parking_lot::Mutex;

/// No more warnings than these are told, nor longer ones, so that headers stay within what clients read.
const WARNINGS_MAX: usize = 64;
const WARNING_BYTES_MAX: usize = 1024;

/// Notes of one request.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Vec<String>>);

impl Notes {
    /// Adds a warning; one that was told before is not told again.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        let mut text = text.into();
        if let Some(cut) = (0..=WARNING_BYTES_MAX.min(text.len()))
            .rev()
            .find(|at| text.is_char_boundary(*at))
        {
            text.truncate(cut);
        }
        let mut warnings = self.0.lock();
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Takes all warnings.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_told_once_and_are_not_too_long() {
        let notes = Notes::default();
        notes.warn("a");
        notes.warn("a");
        notes.warn("\u{e4}".repeat(1000));
        let warnings = notes.take();
        assert_eq!((warnings.len(), warnings[1].len()), (2, WARNING_BYTES_MAX));
        assert!(notes.take().is_empty());
    }
}
