//! ServiceAccount tokens for projected volumes and CSI drivers: asked for once, kept until it is time for new ones.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;

use super::error::VolumeError;

/// No token is used longer than this, however long it would be valid.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

/// A token and its times.
#[derive(Clone)]
pub(crate) struct Token {
    pub text: String,
    pub expires_at: Timestamp,
    pub refresh_at: Timestamp,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What a token is asked for with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wish {
    pod_uid: String,
    audiences: Vec<String>,
    expiration_seconds: Option<i64>,
}

/// The tokens of this node's pods.
#[derive(Default, Clone)]
pub(crate) struct Tokens {
    held: Arc<Mutex<HashMap<Wish, Token>>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// When a token is exchanged: at four fifths of its life, or after a day.
pub(crate) fn refresh_at(issued_at: Timestamp, expires_at: Timestamp) -> Timestamp {
    let life = expires_at.duration_since(issued_at);
    let at = life
        .checked_div(5)
        .map_or(life, |fifth| life - fifth)
        .min(MAX_AGE);
    issued_at.saturating_add(at).unwrap_or(expires_at)
}

impl Tokens {
    /// A token for the pod's account, bound to the pod.
    pub(crate) async fn get(
        &self,
        client: &Client,
        pod: &Pod,
        audience: Option<&str>,
        expiration_seconds: Option<i64>,
    ) -> Result<Token, VolumeError> {
        let wish = Wish {
            pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
            audiences: audience
                .filter(|audience| !audience.is_empty())
                .map(str::to_owned)
                .into_iter()
                .collect(),
            expiration_seconds,
        };
        let now = Timestamp::now();
        if let Some(token) = self.held.lock().get(&wish)
            && token.refresh_at > now
        {
            return Ok(token.clone());
        }
        let token = request(client, pod, &wish, now).await?;
        self.held.lock().insert(wish, token.clone());
        Ok(token)
    }

    pub(crate) fn forget(&self, pod_uid: &str) {
        self.held.lock().retain(|wish, _| wish.pod_uid != pod_uid);
    }
}

async fn request(client: &Client, pod: &Pod, wish: &Wish, now: Timestamp) -> Result<Token, VolumeError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.as_deref());
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let body = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(wish.audiences.clone()),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: Some(wish.pod_uid.clone()),
            }),
            expiration_seconds: wish.expiration_seconds,
        }),
        ..Default::default()
    };
    let failed = format!("failed to fetch token for service account {namespace}/{account}");
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &body)
        .await;
    let status = answer.map_err(VolumeError::api(failed.clone()))?.status;
    let status = status.ok_or_else(|| VolumeError::Missing(format!("{failed}: the answer has no status")))?;
    let expires_at = status.expiration_timestamp.map_or(now, |time| time.0);
    let text = status.token.filter(|token| !token.is_empty());
    let text = text.ok_or_else(|| VolumeError::Missing(format!("{failed}: the answer has no token")))?;
    Ok(Token {
        text,
        expires_at,
        refresh_at: refresh_at(now, expires_at),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_exchanged_well_before_they_expire() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        assert_eq!(refresh_at(at(0), at(1000)), at(800));
        assert_eq!(
            refresh_at(at(0), at(31_536_000)),
            at(86_400),
            "a year's token is exchanged daily"
        );
    }
}
