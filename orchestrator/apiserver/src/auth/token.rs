//! ServiceAccount tokens: signing them, and finding out who sends one.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::User;
use crate::api::Api;
use crate::cache::Entry;

/// Who issues tokens, and for whom they are by default.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
#[error("use the key that signs ServiceAccount tokens: {0}")]
pub struct TokenKeyError(String);

/// A named object a token is tied to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// The part of the claims that only Kubernetes has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bound {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Reference>,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) bound: Bound,
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

/// The key of all tokens.
pub(crate) struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    key_id: String,
    /// The point of the public key, as the key set shows it.
    x: String,
    y: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Takes over an ECDSA P-256 key.
    pub(crate) fn new(key_pem: &str) -> Result<Self, TokenKeyError> {
        let failed = |error: &dyn std::fmt::Display| TokenKeyError(error.to_string());
        let key = KeyPair::from_pem(key_pem).map_err(|error| failed(&error))?;
        // Uncompressed: a four, then both coordinates.
        let (x, y) = match key.public_key_raw() {
            [4, point @ ..] if point.len() == 64 => point.split_at(32),
            _ => return Err(TokenKeyError("it is not an ECDSA P-256 key".to_owned())),
        };
        let (x, y) = (BASE64_URL_SAFE_NO_PAD.encode(x), BASE64_URL_SAFE_NO_PAD.encode(y));
        Ok(Tokens {
            signing: EncodingKey::from_ec_pem(key_pem.as_bytes()).map_err(|error| failed(&error))?,
            verifying: DecodingKey::from_ec_components(&x, &y).map_err(|error| failed(&error))?,
            key_id: BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(key.subject_public_key_info())),
            x,
            y,
        })
    }

    /// Signs a token.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let header = Header {
            kid: Some(self.key_id.clone()),
            typ: None,
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, claims, &self.signing)
    }

    /// The claims of a token of ours that is valid now. `audiences` must have one of the token's.
    pub(crate) fn verify(&self, token: &str, audiences: &[&str], now: Timestamp) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(audiences);
        // Time is checked below, against the clock that was passed in.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &validation)
            .ok()?
            .claims;
        let now = now.as_second();
        (claims.nbf <= now && now < claims.exp).then_some(claims)
    }

    /// The public key, for others that verify our tokens.
    pub(crate) fn key_set(&self) -> Value {
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.key_id, "x": self.x, "y": self.y,
        }]})
    }
}

/// The user behind a bearer token of ours: its account, and what it is tied to, must still be there.
pub(crate) fn authenticate(
    api: &Api,
    token: &str,
    audiences: &[&str],
    now: Timestamp,
) -> Option<(User, Claims)> {
    let claims = api.tokens.verify(token, audiences, now)?;
    let bound = &claims.bound;
    let exists = |plural: &str, namespace: &str, reference: &Reference| {
        find(api, plural, namespace, &reference.name).is_some_and(|entry| *entry.facts.uid == *reference.uid)
    };
    let account = find(
        api,
        "serviceaccounts",
        &bound.namespace,
        &bound.serviceaccount.name,
    )?;
    let holds = *account.facts.uid == *bound.serviceaccount.uid
        && !account.facts.is_deleting
        && bound
            .pod
            .as_ref()
            .is_none_or(|pod| exists("pods", &bound.namespace, pod))
        && bound
            .secret
            .as_ref()
            .is_none_or(|secret| exists("secrets", &bound.namespace, secret));
    holds.then(|| (user(&claims), claims))
}

fn user(claims: &Claims) -> User {
    let bound = &claims.bound;
    let name = format!(
        "system:serviceaccount:{}:{}",
        bound.namespace, bound.serviceaccount.name
    );
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{}", bound.namespace),
    ];
    let mut user = User::authenticated(&name, groups);
    user.uid.clone_from(&bound.serviceaccount.uid);
    let mut add = |key: &str, value: &str| {
        user.extra.insert(
            format!("authentication.kubernetes.io/{key}"),
            vec![value.to_owned()],
        );
    };
    add("credential-id", &format!("JTI={}", claims.jti));
    for (reference, kind) in [(&bound.pod, "pod"), (&bound.node, "node")] {
        if let Some(reference) = reference {
            add(&format!("{kind}-name"), &reference.name);
            add(&format!("{kind}-uid"), &reference.uid);
        }
    }
    user
}

/// Finds an object of the core group in the caches.
pub(crate) fn find(api: &Api, plural: &str, namespace: &str, name: &str) -> Option<std::sync::Arc<Entry>> {
    let facts = api.registry.resource("", "v1", plural)?;
    let path = if facts.namespaced {
        format!("{namespace}/{name}")
    } else {
        name.to_owned()
    };
    api.caches.collection(facts)?.get(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        Tokens::new(&KeyPair::generate().unwrap().serialize_pem()).unwrap()
    }

    fn claims() -> Claims {
        let reference = |name: &str| Reference {
            name: name.to_owned(),
            uid: format!("{name}-uid"),
        };
        Claims {
            aud: vec![ISSUER.to_owned()],
            exp: 2000,
            iat: 1000,
            iss: ISSUER.to_owned(),
            jti: "j".to_owned(),
            bound: Bound {
                namespace: "n".to_owned(),
                serviceaccount: reference("sa"),
                pod: Some(reference("p")),
                node: None,
                secret: None,
            },
            nbf: 1000,
            sub: "system:serviceaccount:n:sa".to_owned(),
        }
    }

    #[test]
    fn only_our_tokens_within_their_time_and_audience() {
        let (ours, theirs) = (tokens(), tokens());
        let at = |second| Timestamp::from_second(second).unwrap();
        let other_issuer = Claims {
            iss: "x".to_owned(),
            ..claims()
        };
        let cases = [
            ("valid", &ours, claims(), 1500, ISSUER, true),
            ("too early", &ours, claims(), 999, ISSUER, false),
            ("too late", &ours, claims(), 2000, ISSUER, false),
            ("other audience", &ours, claims(), 1500, "vault", false),
            ("other key", &theirs, claims(), 1500, ISSUER, false),
            ("other issuer", &ours, other_issuer, 1500, ISSUER, false),
        ];
        for (case, signer, claims, second, audience, expected) in cases {
            let token = signer.sign(&claims).unwrap();
            assert_eq!(
                ours.verify(&token, &[audience], at(second)).is_some(),
                expected,
                "{case}"
            );
        }
        assert!(ours.verify("no.token.at-all", &[ISSUER], at(1500)).is_none());
    }
}
