//! The OpenAPI v2 document, without definitions. kubectl 1.28 asks for it before it applies or creates anything, and gives
//! up where there is none; with one that defines nothing it merges by its own types and leaves validation to the server,
//! as OpenAPI v3 tells it to. Everything that clients learn from documents is in v3.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::GIT_VERSION;
use crate::http::{Answer, body};

const TITLE: &str = "Kubernetes";
/// How Go clients ask for the protobuf form, and how it is labelled.
const ASKED_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const PROTOBUF: HeaderValue =
    HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");

/// Answers `/openapi/v2`.
pub(super) fn answer(headers: &HeaderMap) -> Answer {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains(ASKED_PROTOBUF)) {
        return body::whole(StatusCode::OK, PROTOBUF, protobuf().into());
    }
    let info = json!({"title": TITLE, "version": GIT_VERSION});
    body::json(
        StatusCode::OK,
        &json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}}),
    )
}

/// `openapi.v2.Document` of gnostic: `swagger` is field 1, `info` 2 (`title` 1, `version` 2), `paths` 8.
fn protobuf() -> Vec<u8> {
    let info = [field(1, TITLE.as_bytes()), field(2, GIT_VERSION.as_bytes())].concat();
    [field(1, b"2.0"), field(2, &info), field(8, &[])].concat()
}

/// A length-delimited field; all of them here are shorter than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len())
        .ok()
        .filter(|length| *length < 0x80)
        .expect("titles and versions are short");
    let mut bytes = vec![(number << 3) | 2, length];
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protobuf_form_is_asked_for_by_name() {
        let mut headers = HeaderMap::new();
        let content_type = |headers: &HeaderMap| answer(headers).headers()[header::CONTENT_TYPE].clone();
        assert_eq!(content_type(&headers), body::JSON);
        headers.insert(header::ACCEPT, HeaderValue::from_static(ASKED_PROTOBUF));
        assert_eq!(content_type(&headers), PROTOBUF);
    }

    #[test]
    fn fields_are_tagged_and_measured() {
        let bytes = protobuf();
        assert_eq!(bytes[..5], [0x0a, 3, b'2', b'.', b'0']);
        assert_eq!(bytes[5], 0x12);
        assert_eq!(usize::from(bytes[6]), bytes.len() - 7 - 2);
        assert_eq!(bytes[bytes.len() - 2..], [0x42, 0]);
    }
}
