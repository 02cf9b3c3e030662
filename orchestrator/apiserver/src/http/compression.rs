//! Large answers are compressed for clients that take it.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, header};

use super::{Answer, ResponseBody};

/// Smaller answers are not worth it; upstream's threshold.
const THRESHOLD_BYTES: usize = 128 * 1024;

/// Compresses an answer of one piece. Streams are left alone: each of their pieces counts at once.
pub(crate) async fn compress(request: &HeaderMap, mut answer: Answer) -> Answer {
    let takes_gzip = request
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| one.split(';').next().unwrap_or_default().trim() == "gzip");
    let is_encoded = answer.headers().contains_key(header::CONTENT_ENCODING);
    let ResponseBody::Whole(Some(bytes)) = answer.body() else {
        return answer;
    };
    if !takes_gzip || is_encoded || bytes.len() < THRESHOLD_BYTES {
        return answer;
    }
    let plain = bytes.clone();
    if let Ok(Some(packed)) = tokio::task::spawn_blocking(move || gzip(&plain)).await {
        *answer.body_mut() = ResponseBody::Whole(Some(packed));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    answer
}

/// Packs bytes quickly rather than tightly.
pub(crate) fn gzip(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok().map(Bytes::from)
}
