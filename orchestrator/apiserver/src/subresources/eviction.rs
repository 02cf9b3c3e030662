//! `pods/eviction`: a delete that a disruption budget could refuse. There are no budgets yet, so none does.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use crate::http::{Answer, Failure, body};
use crate::objects::{Call, decode, delete, tree};

/// `POST` of an eviction.
pub(super) async fn create(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let name = call.name()?;
    let eviction = decode::object(call, body)?.value;
    let stated = tree::text(&eviction, &["metadata", "name"]);
    if !stated.is_empty() && stated != name {
        return Err(Failure::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let options = delete::options_of(&eviction["deleteOptions"], call)?;
    delete::delete_named(call, name, &options).await?;
    Ok(self::body::json(
        StatusCode::CREATED,
        &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 }),
    ))
}
