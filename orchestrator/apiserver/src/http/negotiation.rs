//! Which form the client wants its answer in, and which form its body is in.

use super::Failure;

/// The encodings of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// What is shown of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All of it.
    Object,
    /// Its metadata only, as `PartialObjectMetadata`.
    Metadata,
    /// Columns, as `Table`.
    Table,
}

/// The agreed form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
}

const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", PROTOBUF];
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Which objects an answer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objects {
    /// They have a protobuf form.
    BuiltIn,
    /// Only their metadata has one.
    Custom,
}

/// Takes the first clause of `Accept` that can be served.
pub(crate) fn answer_form(accept: Option<&str>, objects: Objects) -> Result<Form, Failure> {
    let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else {
        return Ok(Form {
            encoding: Encoding::Json,
            shape: Shape::Object,
        });
    };
    accept
        .split(',')
        .find_map(|clause| clause_form(clause, objects))
        .ok_or_else(|| {
            Failure::not_acceptable(match objects {
                Objects::BuiltIn => &ACCEPTED,
                Objects::Custom => &ACCEPTED[..2],
            })
        })
}

/// Whether a client wants to be told of failures in protobuf.
pub(crate) fn wants_protobuf(accept: Option<&str>) -> bool {
    answer_form(accept, Objects::BuiltIn).is_ok_and(|form| form.encoding == Encoding::Protobuf)
}

fn clause_form(clause: &str, objects: Objects) -> Option<Form> {
    let mut parts = clause.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        PROTOBUF => Encoding::Protobuf,
        _ => return None,
    };
    let (mut shape, mut group, mut version) = (Shape::Object, "", "");
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim() {
            "as" => {
                shape = match value.trim() {
                    "Table" => Shape::Table,
                    "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Metadata,
                    _ => return None,
                }
            }
            "g" => group = value.trim(),
            "v" => version = value.trim(),
            _ => {}
        }
    }
    // The same types are known as v1beta1; their form did not change, but the answer would claim v1.
    let known = shape == Shape::Object || (group == "meta.k8s.io" && version == "v1");
    let encodable = match (encoding, shape) {
        (Encoding::Protobuf, Shape::Table) => false,
        (Encoding::Protobuf, Shape::Object) => objects == Objects::BuiltIn,
        _ => true,
    };
    (known && encodable).then_some(Form { encoding, shape })
}

/// Whether aggregated discovery is asked for before the plain form.
pub(crate) fn wants_aggregated_discovery(accept: Option<&str>) -> bool {
    accept.unwrap_or_default().split(',').any(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let json = matches!(parts.next(), Some("application/json"));
        let wanted = ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"];
        let parts: Vec<&str> = parts.collect();
        json && wanted.iter().all(|part| parts.contains(part))
    })
}

/// The encodings of request bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyForm {
    Json,
    Yaml,
    Protobuf,
}

/// The form of an object in a request; nothing said means JSON.
pub(crate) fn body_form(content_type: Option<&str>) -> Result<BodyForm, Failure> {
    match media_type(content_type) {
        "" | "application/json" => Ok(BodyForm::Json),
        "application/yaml" => Ok(BodyForm::Yaml),
        PROTOBUF => Ok(BodyForm::Protobuf),
        _ => Err(Failure::unsupported_media_type(&[
            "application/json",
            "application/yaml",
            PROTOBUF,
        ])),
    }
}

/// The kinds of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchForm {
    Json,
    Merge,
    Strategic,
    /// Server-side apply; the body is YAML, of which JSON is a part.
    Apply,
}

/// The kind of a patch.
pub(crate) fn patch_form(content_type: Option<&str>) -> Result<PatchForm, Failure> {
    match media_type(content_type) {
        "application/json-patch+json" => Ok(PatchForm::Json),
        "application/merge-patch+json" => Ok(PatchForm::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchForm::Strategic),
        "application/apply-patch+yaml" => Ok(PatchForm::Apply),
        _ => Err(Failure::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ])),
    }
}

fn media_type(content_type: Option<&str>) -> &str {
    content_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        use {Encoding::*, Shape::*};
        let cases: [(&str, Option<(Encoding, Shape)>); 16] = [
            ("", Some((Json, Object))),
            ("*/*", Some((Json, Object))),
            ("application/json", Some((Json, Object))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some((Protobuf, Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf, */*",
                Some((Protobuf, Object)),
            ),
            (
                "application/json,application/vnd.kubernetes.protobuf",
                Some((Json, Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf;type=collection",
                Some((Protobuf, Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
                Some((Protobuf, Metadata)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json",
                Some((Json, Object)),
            ),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some((Json, Table)),
            ),
            (
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
                Some((Json, Metadata)),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some((Json, Metadata)),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some((Json, Object)),
            ),
            ("application/yaml", Some((Yaml, Object))),
            ("application/vnd.kubernetes.protobuf", Some((Protobuf, Object))),
            ("text/html", None),
        ];
        for (accept, expected) in cases {
            let form = answer_form(Some(accept), Objects::BuiltIn)
                .ok()
                .map(|form| (form.encoding, form.shape));
            assert_eq!(form, expected, "{accept}");
        }
    }

    #[test]
    fn answers_about_custom_objects() {
        use {Encoding::*, Shape::*};
        let cases = [
            ("application/vnd.kubernetes.protobuf", None),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some((Json, Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Some((Protobuf, Metadata)),
            ),
        ];
        for (accept, expected) in cases {
            let form = answer_form(Some(accept), Objects::Custom)
                .ok()
                .map(|form| (form.encoding, form.shape));
            assert_eq!(form, expected, "{accept}");
        }
    }

    #[test]
    fn discovery() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert!(wants_aggregated_discovery(Some(kubectl)));
        let newer = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer";
        assert!(wants_aggregated_discovery(Some(newer)));
        assert!(!wants_aggregated_discovery(Some("application/json")));
        let beta =
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert!(!wants_aggregated_discovery(Some(beta)));
    }

    #[test]
    fn bodies() {
        assert_eq!(body_form(None).unwrap(), BodyForm::Json);
        assert_eq!(
            body_form(Some("application/json; charset=utf-8")).unwrap(),
            BodyForm::Json
        );
        assert_eq!(
            body_form(Some("application/vnd.kubernetes.protobuf")).unwrap(),
            BodyForm::Protobuf
        );
        assert_eq!(body_form(Some("text/plain")).unwrap_err().code(), 415);
        assert_eq!(
            patch_form(Some("application/apply-patch+cbor"))
                .unwrap_err()
                .code(),
            415
        );
    }
}
