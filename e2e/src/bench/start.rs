//! Cold start, idleness, and the way of one pod with a claim to its running container.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use super::{Figures, add, mib, quantile, rounded};
use crate::{cluster::TestCluster, process};

/// What to measure.
#[derive(Debug)]
pub struct Options {
    /// How many cold starts, and how many pods.
    pub runs: usize,
    /// How long the idle cluster is watched.
    pub idle: Duration,
    /// The driver's backend.
    pub backend: String,
}

/// Measures.
///
/// # Errors
/// When a cluster does not start, or a pod does not run.
pub async fn run(options: &Options) -> anyhow::Result<Figures> {
    let args = ["--driver-backend", &options.backend, "--host-image"];
    let mut starts = Vec::new();
    for _ in 0..options.runs {
        let started = Instant::now();
        let cluster = TestCluster::start(&args);
        starts.push(started.elapsed().as_secs_f64() * 1e3);
        cluster.finish();
    }
    let cluster = TestCluster::start(&args);
    // What is left from starting must not count as idleness.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = process::usage(cluster.pid())?;
    tokio::time::sleep(options.idle).await;
    let after = process::usage(cluster.pid())?;
    let mut pods = pods(&cluster, options.runs).await?;
    cluster.finish();

    let mut figures = Figures::new();
    add(&mut figures, "backend", options.backend.as_str());
    add(
        &mut figures,
        "cold start to ready p50, ms",
        rounded(quantile(&mut starts, 0.5)),
    );
    add(
        &mut figures,
        "cold start to ready max, ms",
        rounded(quantile(&mut starts, 1.0)),
    );
    add(&mut figures, "idle RSS, MiB", mib(after.rss_bytes));
    let idle = (after.cpu_seconds - before.cpu_seconds) / options.idle.as_secs_f64() * 100.0;
    add(&mut figures, "idle CPU, % of one core", rounded(idle));
    add(
        &mut figures,
        "claim and pod to running p50, ms",
        rounded(quantile(&mut pods, 0.5)),
    );
    add(
        &mut figures,
        "claim and pod to running max, ms",
        rounded(quantile(&mut pods, 1.0)),
    );
    Ok(figures)
}

/// Milliseconds from the creation of claim and pod until the container is seen running, one pod after the other.
async fn pods(cluster: &TestCluster, runs: usize) -> anyhow::Result<Vec<f64>> {
    let client = cluster.client().await;
    let class: StorageClass = serde_json::from_value(json!({
        "metadata": {"name": "bench"},
        "provisioner": "local.csi.moorline.dev",
        "volumeBindingMode": "WaitForFirstConsumer",
    }))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &class)
        .await
        .context("create the StorageClass")?;
    let mut times = Vec::new();
    for run in 0..runs {
        let name = format!("bench-{run}");
        let started = Instant::now();
        create(&client, &name).await?;
        wait(&client, &name, |pod| pod.is_some_and(is_running)).await?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        pods.delete(&name, &DeleteParams::default())
            .await
            .context("delete the pod")?;
        wait(&client, &name, |pod| pod.is_none()).await?;
        let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
        claims
            .delete(&name, &DeleteParams::default())
            .await
            .context("delete the claim")?;
    }
    Ok(times)
}

async fn create(client: &Client, name: &str) -> anyhow::Result<()> {
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "storageClassName": "bench",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "16Mi"}},
        },
    }))?;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "app",
                "image": "moorline.local/host",
                "command": ["/bin/sleep", "3600"],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
        },
    }))?;
    let parameters = PostParams::default();
    Api::default_namespaced(client.clone())
        .create(&parameters, &claim)
        .await
        .context("create the claim")?;
    Api::default_namespaced(client.clone())
        .create(&parameters, &pod)
        .await
        .context("create the pod")?;
    Ok(())
}

fn is_running(pod: &Pod) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses
        .into_iter()
        .flatten()
        .any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// Watches one pod until `done` accepts what is seen of it.
async fn wait(client: &Client, name: &str, done: impl Fn(Option<&Pod>) -> bool) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let mut seen = kube::runtime::watcher::watch_object(api, name).boxed();
    let until = async {
        while let Some(pod) = seen.try_next().await? {
            if done(pod.as_ref()) {
                return anyhow::Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(Duration::from_secs(60), until)
        .await
        .with_context(|| format!("wait for pod {name}"))?
}
