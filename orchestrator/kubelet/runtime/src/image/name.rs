//! Image references: the short forms people write, brought to the one full form the store keeps.

use crate::error::ImageError;

/// A reference to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// `registry/path:tag` or `registry/path@sha256:digest`.
    Name(String),
    /// `sha256:` and 64 digits: the image's configuration.
    Id(String),
}

/// Brings a reference to its full form: registry `docker.io` and `library/` where none is named, tag `latest` where
/// neither tag nor digest is. A name with both tag and digest is known by its digest.
pub(crate) fn parse(name: &str) -> Result<Reference, ImageError> {
    let invalid = |why| ImageError::InvalidName {
        name: name.to_owned(),
        why,
    };
    if name.is_empty() {
        return Err(invalid("it is empty"));
    }
    if name.len() > 512 {
        return Err(invalid("it is longer than 512 characters"));
    }
    if let Some(digits) = name.strip_prefix("sha256:")
        && is_digest(digits)
    {
        return Ok(Reference::Id(name.to_owned()));
    }
    let (name_and_tag, digest) = match name.split_once('@') {
        Some((before, digest)) => (before, Some(digest)),
        None => (name, None),
    };
    if let Some(digest) = digest
        && !digest.strip_prefix("sha256:").is_some_and(is_digest)
    {
        return Err(invalid(
            "the digest is not sha256: and 64 lower case hexadecimal digits",
        ));
    }
    let (path, tag) = split_tag(name_and_tag);
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err(invalid("the tag holds a character that is not allowed"));
    }
    let (registry, rest) = split_registry(path);
    if !is_registry(registry) {
        return Err(invalid("the registry is not a host name with an optional port"));
    }
    if !rest.split('/').all(is_path_component) {
        return Err(invalid(
            "a part of the path is empty or holds a character that is not allowed",
        ));
    }
    let library = if registry == "docker.io" && !rest.contains('/') {
        "library/"
    } else {
        ""
    };
    let suffix = match (tag, digest) {
        (_, Some(digest)) => format!("@{digest}"),
        (Some(tag), None) => format!(":{tag}"),
        (None, None) => ":latest".to_owned(),
    };
    Ok(Reference::Name(format!("{registry}/{library}{rest}{suffix}")))
}

/// A colon before the last slash belongs to the registry's port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    let path_start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[path_start..].find(':') {
        Some(colon) => (&name[..path_start + colon], Some(&name[path_start + colon + 1..])),
        None => (name, None),
    }
}

/// The first part is a registry only if it can't be a path: it has a dot or a colon, or is `localhost`.
fn split_registry(path: &str) -> (&str, &str) {
    match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (
            if first == "index.docker.io" {
                "docker.io"
            } else {
                first
            },
            rest,
        ),
        Some(_) | None => ("docker.io", path),
    }
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = registry.split_once(':').unwrap_or((registry, "443"));
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.parse::<u16>().is_ok()
}

fn is_digest(digits: &str) -> bool {
    digits.len() == 64
        && digits
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_tag(tag: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=128).contains(&tag.len()) && tag.bytes().all(allowed) && !tag.starts_with(['.', '-'])
}

fn is_path_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let allowed = |b: u8| alphanumeric(b) || matches!(b, b'_' | b'.' | b'-');
    part.bytes().all(allowed)
        && part.bytes().next().is_some_and(alphanumeric)
        && part.bytes().last().is_some_and(alphanumeric)
        && !part.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_become_full_names() {
        let digest = "a".repeat(64);
        let cases: &[(&str, &str)] = &[
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("library/busybox", "docker.io/library/busybox:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            (
                "index.docker.io/library/busybox",
                "docker.io/library/busybox:latest",
            ),
            ("team/app", "docker.io/team/app:latest"),
            ("quay.io/team/app:v1", "quay.io/team/app:v1"),
            ("localhost/app", "localhost/app:latest"),
            ("reg:5000/app", "reg:5000/app:latest"),
            ("reg:5000/app:v2", "reg:5000/app:v2"),
            ("moorline.local/host", "moorline.local/host:latest"),
        ];
        for (given, full) in cases {
            assert_eq!(
                parse(given).unwrap(),
                Reference::Name((*full).to_owned()),
                "{given}"
            );
        }
        let by_digest = format!("quay.io/a/b:v1@sha256:{digest}");
        assert_eq!(
            parse(&by_digest).unwrap(),
            Reference::Name(format!("quay.io/a/b@sha256:{digest}"))
        );
        let id = format!("sha256:{digest}");
        assert_eq!(parse(&id).unwrap(), Reference::Id(id.clone()));
    }

    #[test]
    fn malformed_names_are_refused() {
        let long = "a".repeat(600);
        for name in [
            "",
            " ",
            "Busybox",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:b c",
            "a@sha256:12",
            "a@md5:x",
            "../a",
            "a/../b",
            "a..b",
            "quay.io/",
            "a:.hidden",
            "a.b:x/c",
            "a..b/c",
            &long,
        ] {
            assert!(parse(name).is_err(), "{name:?} was accepted");
        }
    }
}
