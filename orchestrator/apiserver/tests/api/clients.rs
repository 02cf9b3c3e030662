//! kube-rs against the server, inside the process and over TLS.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event, InitialListStrategy};
use serde_json::json;

use crate::harness::{PATIENCE, Server};

fn map(name: &str) -> ConfigMap {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    };
    ConfigMap {
        metadata,
        data: Some([("a".to_owned(), "1".to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn api(client: &kube::Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

async fn writes(client: kube::Client) {
    let maps = api(&client);
    let created = maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let mut changed = created.clone();
    changed.data = Some([("b".to_owned(), "2".to_owned())].into());
    let replaced = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(
        replaced.metadata.resource_version,
        created.metadata.resource_version
    );
    // The first revision is outdated now.
    let conflict = maps
        .replace("a", &PostParams::default(), &changed)
        .await
        .unwrap_err();
    assert!(
        matches!(&conflict, kube::Error::Api(status) if status.code == 409 && status.is_conflict()),
        "{conflict}"
    );
    let patches = [
        Patch::Merge(json!({"data": {"c": "3"}})),
        Patch::Strategic(json!({"data": {"d": "4", "b": null}})),
    ];
    for patch in patches {
        maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    }
    let operations = serde_json::from_value(json!([{"op": "remove", "path": "/data/c"}])).unwrap();
    let patched = maps
        .patch("a", &PatchParams::default(), &Patch::Json::<()>(operations))
        .await
        .unwrap();
    assert_eq!(patched.data.unwrap(), [("d".to_owned(), "4".to_owned())].into());
    assert_eq!(
        maps.get_metadata("a").await.unwrap().metadata.uid,
        created.metadata.uid
    );
    let list = maps
        .list(&ListParams::default().fields("metadata.name=a"))
        .await
        .unwrap();
    assert_eq!(list.items.len(), 1);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn writes_inside_the_process() {
    let server = Server::start().await;
    writes(server.admin()).await;
    server.shut_down().await;
}

#[tokio::test]
async fn writes_over_tls() {
    let server = Server::start().await;
    writes(server.tls_client().await).await;
    server.shut_down().await;
}

async fn follows(client: kube::Client, strategy: InitialListStrategy) {
    let maps = api(&client);
    maps.create(&PostParams::default(), &map("before")).await.unwrap();
    let config = watcher::Config {
        initial_list_strategy: strategy,
        ..watcher::Config::default()
    };
    let mut events = watcher::watcher(maps.clone(), config.fields("metadata.name!=kube-root-ca.crt")).boxed();
    let mut next = async || {
        tokio::time::timeout(PATIENCE, events.try_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };
    assert!(matches!(next().await, Event::Init));
    assert!(matches!(next().await, Event::InitApply(map) if map.metadata.name.as_deref() == Some("before")));
    assert!(matches!(next().await, Event::InitDone));
    maps.create(&PostParams::default(), &map("after")).await.unwrap();
    assert!(matches!(next().await, Event::Apply(map) if map.metadata.name.as_deref() == Some("after")));
    maps.delete("after", &DeleteParams::default()).await.unwrap();
    assert!(matches!(next().await, Event::Delete(map) if map.metadata.name.as_deref() == Some("after")));
}

#[tokio::test]
async fn a_watcher_with_a_streamed_list() {
    let server = Server::start().await;
    follows(server.admin(), InitialListStrategy::StreamingList).await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_watcher_with_a_paged_list_over_tls() {
    let server = Server::start().await;
    follows(server.tls_client().await, InitialListStrategy::ListWatch).await;
    server.shut_down().await;
}

#[tokio::test]
async fn a_write_is_seen_by_every_later_read() {
    let server = Server::start().await;
    let (writer, reader) = (api(&server.admin()), api(&server.tls_client().await));
    for index in 0..50 {
        let name = format!("m{index}");
        writer.create(&PostParams::default(), &map(&name)).await.unwrap();
        assert!(reader.get_opt(&name).await.unwrap().is_some(), "{name}");
        assert!(
            reader
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .iter()
                .any(|map| map.metadata.name.as_ref() == Some(&name))
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn concurrent_patches_all_take_effect() {
    let server = Server::start().await;
    let maps = api(&server.admin());
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let patches = (0..16).map(|index| {
        let maps = maps.clone();
        async move {
            let patch = Patch::Merge(json!({"data": {format!("k{index}"): "v"}}));
            maps.patch("a", &PatchParams::default(), &patch).await
        }
    });
    for outcome in futures::future::join_all(patches).await {
        outcome.unwrap();
    }
    assert_eq!(maps.get("a").await.unwrap().data.unwrap().len(), 17);
    server.shut_down().await;
}

#[tokio::test]
async fn typed_objects_come_back_as_they_went() {
    let server = Server::start().await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(server.admin(), "default");
    let claim: PersistentVolumeClaim = serde_json::from_value(crate::harness::claim("c")).unwrap();
    let created = claims.create(&PostParams::default(), &claim).await.unwrap();
    assert_eq!(created.spec.unwrap().access_modes.unwrap(), ["ReadWriteOnce"]);
    let pods: Api<Pod> = Api::namespaced(server.admin(), "default");
    let pod: Pod = serde_json::from_value(crate::harness::pod("p")).unwrap();
    let created = pods.create(&PostParams::default(), &pod).await.unwrap();
    assert_eq!(created.spec.unwrap().dns_policy.as_deref(), Some("ClusterFirst"));
    server.shut_down().await;
}
