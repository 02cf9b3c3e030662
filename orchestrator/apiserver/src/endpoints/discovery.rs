//! Which resources there are, in the plain and in the aggregated form.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use moorline_schema::discovery::{self, Root};
use sha2::{Digest, Sha256};

use super::with_etag;
use crate::api::Api;
use crate::http::{Answer, Failure, body, negotiation};

const AGGREGATED: HeaderValue =
    HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");

/// Answers below `/api` and `/apis`; `parts` is the path.
pub(super) fn answer(api: &Api, parts: &[&str], headers: &HeaderMap) -> Result<Answer, Failure> {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (registry, served) = (api.registry, api.customs.served());
    let custom = served.groups.as_slice();
    let root = match parts {
        ["api"] => Some(Root::Api),
        ["apis"] => Some(Root::Apis),
        _ => None,
    };
    if let Some(root) = root.filter(|_| negotiation::wants_aggregated_discovery(accept)) {
        let text = discovery::aggregated(registry, custom, root).to_string();
        let tag = hex::encode_upper(Sha256::digest(&text));
        return Ok(with_etag(
            body::whole(StatusCode::OK, AGGREGATED, text.into()),
            &tag,
            headers,
        ));
    }
    let document = match parts {
        ["api"] => Some(discovery::api_versions(&api.address.to_string())),
        ["apis"] => Some(discovery::api_group_list(registry, custom)),
        ["apis", group] => discovery::api_group(registry, custom, group),
        ["api", version] => discovery::api_resource_list(registry, custom, "", version),
        ["apis", group, version] => discovery::api_resource_list(registry, custom, group, version),
        _ => None,
    };
    let document = document.ok_or_else(Failure::no_such_path)?;
    let mut answer = body::json(StatusCode::OK, &document);
    answer
        .headers_mut()
        .append(header::VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}
