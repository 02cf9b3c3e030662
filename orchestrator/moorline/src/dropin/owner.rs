//! The owner of capacity objects: the pod of this process, or a controller above it.

use anyhow::{Context as _, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};

/// Walks `level` controllers up from the pod; `None` below zero.
///
/// # Errors
/// The environment names no pod, an object can't be read, or there aren't so many controllers.
pub(super) async fn find(
    client: &Client,
    namespace: &str,
    level: i64,
) -> anyhow::Result<Option<OwnerReference>> {
    if level < 0 {
        return Ok(None);
    }
    let pod = std::env::var("POD_NAME")
        .context("--capacity-ownerref-level from 0 on needs POD_NAME in the environment")?;
    let mut at = reference(&read(client, namespace, ("v1", "Pod", &pod)).await?, "v1", "Pod");
    for step in 0..level {
        // The pod was read for its UID; the next ones are named with it by their dependents.
        let object = read(client, namespace, (&at.api_version, &at.kind, &at.name)).await?;
        let owners = object.metadata.owner_references.unwrap_or_default();
        let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else {
            bail!(
                "{} {} has no controller: --capacity-ownerref-level may be {step} at most here",
                at.kind,
                at.name
            );
        };
        at = OwnerReference {
            block_owner_deletion: None,
            ..owner
        };
    }
    Ok(Some(at))
}

fn reference(object: &DynamicObject, api_version: &str, kind: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: object.metadata.name.clone().unwrap_or_default(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

async fn read(
    client: &Client,
    namespace: &str,
    (api_version, kind, name): (&str, &str, &str),
) -> anyhow::Result<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    api.get(name)
        .await
        .with_context(|| format!("read {kind} {namespace}/{name}, to own capacity objects"))
}
