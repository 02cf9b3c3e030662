//! The grammar of API paths. It knows the shapes, not which resources there are.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target<'p> {
    /// A collection, an object, or a part of one.
    Resource(ResourcePath<'p>),
    /// Everything else: discovery, health, version ...
    Other(&'p str),
}

/// The parts of a resource's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourcePath<'p> {
    /// API group, empty for core.
    pub(crate) group: Cow<'p, str>,
    pub(crate) version: Cow<'p, str>,
    /// Absent: a cluster-wide resource, or all namespaces.
    pub(crate) namespace: Option<Cow<'p, str>>,
    /// Plural name.
    pub(crate) resource: Cow<'p, str>,
    pub(crate) name: Option<Cow<'p, str>>,
    pub(crate) subresource: Option<Cow<'p, str>>,
}

/// Subresources of a namespace; anything else behind `namespaces/x/` is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Takes a path apart. A final slash does not matter.
pub(crate) fn parse(path: &str) -> Target<'_> {
    find_resource(path).map_or(Target::Other(path), Target::Resource)
}

fn find_resource(path: &str) -> Option<ResourcePath<'_>> {
    let trimmed = path.strip_prefix('/')?;
    let mut parts = trimmed.strip_suffix('/').unwrap_or(trimmed).split('/');
    let (group, version) = match parts.next()? {
        "api" => (Cow::Borrowed(""), decode(parts.next()?)?),
        "apis" => (decode(parts.next()?)?, decode(parts.next()?)?),
        _ => return None,
    };
    let rest: Vec<Cow<'_, str>> = parts.map(decode).collect::<Option<_>>()?;
    if rest.iter().any(|part| part.is_empty()) {
        return None;
    }
    let mut rest = rest.into_iter();
    let first = rest.next()?;
    let mut parsed = ResourcePath {
        group,
        version,
        namespace: None,
        resource: first,
        name: None,
        subresource: None,
    };
    if parsed.resource == "namespaces" && parsed.group.is_empty() {
        return namespace_path(parsed, rest);
    }
    if parsed.resource == "namespaces" {
        parsed.namespace = Some(rest.next()?);
        parsed.resource = rest.next()?;
    }
    finish(parsed, rest)
}

/// `namespaces[/NS[/status|finalize]]` is the namespace itself, `namespaces/NS/...` what is in it.
fn namespace_path<'p>(
    mut parsed: ResourcePath<'p>,
    mut rest: impl Iterator<Item = Cow<'p, str>>,
) -> Option<ResourcePath<'p>> {
    let Some(namespace) = rest.next() else {
        return Some(parsed);
    };
    match rest.next() {
        None => {
            parsed.name = Some(namespace.clone());
            parsed.namespace = Some(namespace);
            Some(parsed)
        }
        Some(part) if NAMESPACE_SUBRESOURCES.contains(&part.as_ref()) => {
            parsed.name = Some(namespace.clone());
            parsed.namespace = Some(namespace);
            parsed.subresource = Some(part);
            rest.next().is_none().then_some(parsed)
        }
        Some(resource) => {
            parsed.namespace = Some(namespace);
            parsed.resource = resource;
            finish(parsed, rest)
        }
    }
}

fn finish<'p>(
    mut parsed: ResourcePath<'p>,
    mut rest: impl Iterator<Item = Cow<'p, str>>,
) -> Option<ResourcePath<'p>> {
    parsed.name = rest.next();
    parsed.subresource = rest.next();
    rest.next().is_none().then_some(parsed)
}

/// Nothing for text that is not UTF-8 or hides a slash, which could name another object than the one authorised.
fn decode(part: &str) -> Option<Cow<'_, str>> {
    let decoded = percent_decode_str(part).decode_utf8().ok()?;
    let hidden = matches!(&decoded, Cow::Owned(text) if text.contains('/'));
    let stepping = decoded == "." || decoded == "..";
    (!hidden && !stepping).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(path: &str) -> String {
        match parse(path) {
            Target::Other(_) => "other".to_owned(),
            Target::Resource(found) => {
                let part = |part: Option<Cow<'_, str>>| part.map_or("-".to_owned(), Cow::into_owned);
                [
                    found.group.into_owned(),
                    found.version.into_owned(),
                    part(found.namespace),
                    found.resource.into_owned(),
                    part(found.name),
                    part(found.subresource),
                ]
                .join(" ")
            }
        }
    }

    #[test]
    fn shapes() {
        let cases = [
            ("/api/v1/pods", " v1 - pods - -"),
            ("/api/v1/pods/", " v1 - pods - -"),
            ("/api/v1/nodes/n1", " v1 - nodes n1 -"),
            ("/api/v1/nodes/n1/status", " v1 - nodes n1 status"),
            ("/api/v1/namespaces", " v1 - namespaces - -"),
            ("/api/v1/namespaces/a", " v1 a namespaces a -"),
            ("/api/v1/namespaces/a/status", " v1 a namespaces a status"),
            ("/api/v1/namespaces/a/finalize", " v1 a namespaces a finalize"),
            ("/api/v1/namespaces/a/pods", " v1 a pods - -"),
            ("/api/v1/namespaces/a/pods/p/log", " v1 a pods p log"),
            (
                "/apis/storage.k8s.io/v1/storageclasses/x",
                "storage.k8s.io v1 - storageclasses x -",
            ),
            (
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/l",
                "coordination.k8s.io v1 a leases l -",
            ),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
                "rbac.authorization.k8s.io v1 - clusterroles system:node -",
            ),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "rbac.authorization.k8s.io v1 - clusterroles system:node -",
            ),
            ("/api", "other"),
            ("/api/v1", "other"),
            ("/apis", "other"),
            ("/apis/storage.k8s.io", "other"),
            ("/apis/storage.k8s.io/v1", "other"),
            ("/healthz", "other"),
            ("/", "other"),
            ("/api/v1//pods", "other"),
            ("/api/v1/pods/a%2Fb", "other"),
            ("/api/v1/namespaces/../pods", "other"),
            ("/api/v1/namespaces/a/pods/p/log/more", "other"),
        ];
        for (path, expected) in cases {
            assert_eq!(show(path), expected, "{path}");
        }
    }
}
