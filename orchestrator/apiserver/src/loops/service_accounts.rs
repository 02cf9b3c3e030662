//! Every namespace has a `default` ServiceAccount and a ConfigMap with the cluster's authority.

use std::collections::HashMap;
use std::time::Duration;

use super::Caller;
use crate::http::Failure;
use crate::objects::tree;
use serde_json::{Value, json};

const ROOT_CA: &str = "kube-root-ca.crt";
/// After a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Looks at all namespaces after each change of what this is about, for as long as it is polled.
pub(crate) async fn run(caller: Caller) {
    let collections = ["namespaces", "serviceaccounts", "configmaps"]
        .map(|plural| caller.collection("", plural).map(|found| found.subscribe()));
    let [Ok(mut namespaces), Ok(mut accounts), Ok(mut config_maps)] = collections else {
        return tracing::error!("Namespaces, ServiceAccounts and ConfigMaps are not served.");
    };
    let mut seen = HashMap::new();
    loop {
        namespaces.borrow_and_update();
        accounts.borrow_and_update();
        config_maps.borrow_and_update();
        let retry = match complete_all(&caller, &mut seen).await {
            Ok(()) => None,
            Err(failure) => {
                tracing::warn!(%failure, "A namespace cannot be completed; it is tried again.");
                Some(RETRY_INTERVAL)
            }
        };
        tokio::select! {
            _ = namespaces.changed() => {}
            _ = accounts.changed() => {}
            _ = config_maps.changed() => {}
            () = tokio::time::sleep(retry.unwrap_or_default()), if retry.is_some() => {}
        }
    }
}

/// `seen` holds the revision at which each ConfigMap was found right.
async fn complete_all(caller: &Caller, seen: &mut HashMap<String, u64>) -> Result<(), Failure> {
    let snapshot = caller.collection("", "namespaces")?.snapshot("", || 0);
    seen.retain(|name, _| snapshot.entries.iter().any(|entry| entry.name() == name));
    let mut first = Ok(());
    for namespace in snapshot
        .entries
        .iter()
        .filter(|namespace| !namespace.facts.is_deleting)
    {
        let outcome = complete(caller, namespace.name(), seen).await;
        // A namespace that went meanwhile is no concern of ours.
        let is_gone = outcome
            .as_ref()
            .is_err_and(|failure| matches!(failure.code().as_u16(), 403 | 404 | 409));
        if !is_gone && first.is_ok() {
            first = outcome;
        }
    }
    first
}

async fn complete(caller: &Caller, namespace: &str, seen: &mut HashMap<String, u64>) -> Result<(), Failure> {
    let accounts = caller.collection("", "serviceaccounts")?;
    if accounts.get(&format!("{namespace}/default")).is_none() {
        let account =
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
        caller.create(accounts.resource, Some(namespace), account).await?;
    }
    let config_maps = caller.collection("", "configmaps")?;
    let path = format!("{namespace}/{ROOT_CA}");
    let pem = caller.api.pki.ca_pem();
    let Some(found) = config_maps.get(&path) else {
        let config_map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": ROOT_CA,
                "annotations": {
                    "kubernetes.io/description": "The certificate authority of this cluster's API server. It may be \
                     used to check the server's own certificate and no other.",
                },
            },
            "data": { "ca.crt": pem },
        });
        return caller
            .create(config_maps.resource, Some(namespace), config_map)
            .await
            .map(drop);
    };
    if seen.get(namespace) == Some(&found.revision) {
        return Ok(());
    }
    if tree::text(&found.value(), &["data", "ca.crt"]) != pem {
        caller
            .change(config_maps.resource, &path, |value: &mut Value| {
                tree::map_mut(value, &[]).insert("data".to_owned(), json!({ "ca.crt": pem }));
            })
            .await?;
    }
    seen.insert(namespace.to_owned(), found.revision);
    Ok(())
}
