//! `serviceaccounts/token`: a token for an account, tied to a pod or node if asked.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::auth::token::{Bound, Claims, ISSUER, Reference, find};
use crate::hooks::{self, Operation};
use crate::http::{Answer, Cause, Failure, body};
use crate::objects::{Call, admission, decode, tree};

const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;

/// `POST` of a token request.
pub(super) async fn create(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let name = call.name()?;
    let mut request = decode::object(call, body)?.value;
    let account = call
        .collection()?
        .get(&call.path_of(name))
        .ok_or_else(|| call.not_found(name))?;
    admission::token(call, &request)?;
    hooks::admit_part(call, Operation::Create, None, &mut request).await?;
    let namespace = call.namespace.unwrap_or_default();
    let now = Timestamp::now().as_second();
    let seconds = tree::at(&request, &["spec", "expirationSeconds"])
        .and_then(Value::as_i64)
        .unwrap_or(SECONDS_DEFAULT);
    if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
        return Err(invalid(call, name, seconds));
    }
    let mut bound = Bound {
        namespace: namespace.to_owned(),
        serviceaccount: Reference {
            name: name.to_owned(),
            uid: account.facts.uid.to_string(),
        },
        pod: None,
        node: None,
        secret: None,
    };
    bind(call, &request, &mut bound)?;
    let audiences: Vec<String> = match tree::list(&request, &["spec", "audiences"]) {
        [] => vec![ISSUER.to_owned()],
        list => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    let claims = Claims {
        aud: audiences.clone(),
        exp: now + seconds,
        iat: now,
        iss: ISSUER.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        bound,
        nbf: now,
        sub: format!("system:serviceaccount:{namespace}:{name}"),
    };
    let token = call
        .api
        .tokens
        .sign(&claims)
        .map_err(|error| Failure::internal(format!("sign a token: {error}")))?;
    let expires = Timestamp::from_second(claims.exp).map_err(|error| Failure::internal(error.to_string()))?;
    let spec = tree::map_mut(&mut request, &["spec"]);
    spec.insert("audiences".to_owned(), audiences.into());
    spec.insert("expirationSeconds".to_owned(), seconds.into());
    let metadata = tree::map_mut(&mut request, &["metadata"]);
    metadata.insert("name".to_owned(), name.into());
    metadata.insert("namespace".to_owned(), namespace.into());
    request["status"] = json!({ "token": token, "expirationTimestamp": tree::time(expires) });
    Ok(self::body::json(StatusCode::CREATED, &request))
}

fn invalid(call: &Call<'_>, name: &str, seconds: i64) -> Failure {
    let why = if seconds < SECONDS_MIN {
        "may not specify a duration less than 10 minutes"
    } else {
        "may not specify a duration larger than 2^32 seconds"
    };
    let cause = Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {seconds}: {why}"),
        field: "spec.expirationSeconds".to_owned(),
    };
    let about = crate::http::failure::About {
        group: "authentication.k8s.io",
        resource: "TokenRequest",
        name,
    };
    tracing::debug!(
        account = name,
        namespace = call.namespace,
        "A token request is refused."
    );
    Failure::invalid(about, vec![cause])
}

/// Ties the token to the object that the request names; that must be the one meant and belong to the account.
fn bind(call: &Call<'_>, request: &Value, bound: &mut Bound) -> Result<(), Failure> {
    let Some(reference) = tree::at(request, &["spec", "boundObjectRef"]) else {
        return Ok(());
    };
    let (kind, name) = (tree::text(reference, &["kind"]), tree::text(reference, &["name"]));
    let plural = match kind {
        "Pod" => "pods",
        "Node" => "nodes",
        "Secret" => "secrets",
        _ => {
            return Err(Failure::bad_request(format!(
                "cannot bind token to object of type {kind:?}"
            )));
        }
    };
    let about = crate::http::failure::About {
        group: "",
        resource: plural,
        name,
    };
    let entry = find(call.api, plural, &bound.namespace, name).ok_or_else(|| Failure::not_found(about))?;
    let uid = tree::text(reference, &["uid"]);
    if !uid.is_empty() && uid != &*entry.facts.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Failure::conflict(about, &why));
    }
    let reference = Reference {
        name: name.to_owned(),
        uid: entry.facts.uid.to_string(),
    };
    match kind {
        "Pod" => {
            let pod = entry.value();
            if tree::text(&pod, &["spec", "serviceAccountName"]) != bound.serviceaccount.name {
                let why = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    bound.serviceaccount.name
                );
                return Err(Failure::bad_request(why));
            }
            let node = tree::text(&pod, &["spec", "nodeName"]);
            let node = find(call.api, "nodes", "", node);
            bound.node = node.map(|node| Reference {
                name: node.name().to_owned(),
                uid: node.facts.uid.to_string(),
            });
            bound.pod = Some(reference);
        }
        "Node" => bound.node = Some(reference),
        _ => bound.secret = Some(reference),
    }
    Ok(())
}
