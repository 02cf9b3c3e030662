//! Provisioning throughput: claims created by concurrent clients over TLS until all of them are Bound.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all};
use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};
use kube::{
    Api, Client, ResourceExt as _,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;

use super::{Figures, add, mib, quantile, rounded};
use crate::{cluster::TestCluster, process};

/// What to measure.
#[derive(Debug)]
pub struct Options {
    /// How many claims.
    pub count: usize,
    /// How many clients create them.
    pub clients: usize,
    /// The driver's backend.
    pub backend: String,
    /// How long all of it may take.
    pub limit: Duration,
}

/// When each claim was asked for and when it was seen Bound.
type Times = Arc<Mutex<HashMap<String, (Instant, Option<Instant>)>>>;

/// Measures.
///
/// # Errors
/// When the cluster refuses a claim, or not all are Bound in time.
pub async fn run(options: &Options) -> anyhow::Result<Figures> {
    let cluster = TestCluster::start(&["--driver-backend", &options.backend]);
    let client = cluster.client().await;
    create_class(&client).await?;
    let before = process::usage(cluster.pid())?;
    let times: Times = Arc::default();
    let started = Instant::now();
    let creating = create_claims(&cluster, options, &times);
    let watching = watch_bound(client, options.count, &times);
    let all = async { tokio::try_join!(creating, watching) };
    let Ok(done) = tokio::time::timeout(options.limit, all).await else {
        let bound = times
            .lock()
            .expect("no panic while held")
            .values()
            .filter(|(_, bound)| bound.is_some())
            .count();
        bail!(
            "{bound} of {} claims were Bound after {:?}",
            options.count,
            options.limit
        );
    };
    done?;
    let took = started.elapsed().as_secs_f64();
    let after = process::usage(cluster.pid())?;
    let figures = figures(options, took, &times, &before, &after);
    cluster.finish();
    Ok(figures)
}
fn figures(
    options: &Options,
    took: f64,
    times: &Times,
    before: &process::Usage,
    after: &process::Usage,
) -> Figures {
    let times = times.lock().expect("no panic while held");
    let bound = times
        .values()
        .filter_map(|(asked, bound)| Some((*bound)?.duration_since(*asked).as_secs_f64() * 1e3));
    let mut latencies: Vec<f64> = bound.collect();
    let cpu = after.cpu_seconds - before.cpu_seconds;
    let mut figures = Figures::new();
    add(&mut figures, "claims", options.count);
    add(&mut figures, "clients", options.clients);
    add(&mut figures, "backend", options.backend.as_str());
    add(&mut figures, "all Bound after, s", rounded(took));
    add(
        &mut figures,
        "volumes per second",
        rounded(options.count as f64 / took),
    );
    add(
        &mut figures,
        "creation to Bound p50, ms",
        rounded(quantile(&mut latencies, 0.5)),
    );
    add(
        &mut figures,
        "creation to Bound p99, ms",
        rounded(quantile(&mut latencies, 0.99)),
    );
    add(&mut figures, "CPU of the cluster, s", rounded(cpu));
    add(
        &mut figures,
        "CPU per claim, ms",
        rounded(cpu * 1e3 / options.count as f64),
    );
    add(&mut figures, "RSS before, MiB", mib(before.rss_bytes));
    add(&mut figures, "peak RSS, MiB", mib(after.peak_rss_bytes));
    figures
}

async fn create_class(client: &Client) -> anyhow::Result<()> {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "bench"},
        "provisioner": "local.csi.moorline.dev",
        "volumeBindingMode": "Immediate",
    });
    let class: StorageClass = serde_json::from_value(class)?;
    Api::all(client.clone())
        .create(&PostParams::default(), &class)
        .await
        .context("create the StorageClass")?;
    Ok(())
}

fn claim(name: &str) -> anyhow::Result<PersistentVolumeClaim> {
    let claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": "bench",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    });
    Ok(serde_json::from_value(claim)?)
}
async fn create_claims(cluster: &TestCluster, options: &Options, times: &Times) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let next = &next;
    let workers = (0..options.clients).map(|_| async move {
        let api: Api<PersistentVolumeClaim> = Api::default_namespaced(cluster.client().await);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= options.count {
                return anyhow::Ok(());
            }
            let name = format!("bench-{number:06}");
            let claim = claim(&name)?;
            times
                .lock()
                .expect("no panic while held")
                .insert(name.clone(), (Instant::now(), None));
            api.create(&PostParams::default(), &claim)
                .await
                .with_context(|| format!("create claim {name}"))?;
        }
    });
    try_join_all(workers).await?;
    Ok(())
}
async fn watch_bound(client: Client, count: usize, times: &Times) -> anyhow::Result<()> {
    let api: Api<PersistentVolumeClaim> = Api::default_namespaced(client);
    let mut claims = watcher(api, watcher::Config::default()).applied_objects().boxed();
    let mut bound = 0;
    while bound < count {
        let claim = claims
            .try_next()
            .await
            .context("watch claims")?
            .context("the watch ended")?;
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase != Some("Bound") {
            continue;
        }
        let mut times = times.lock().expect("no panic while held");
        if let Some((_, at @ None)) = times.get_mut(&claim.name_any()) {
            *at = Some(Instant::now());
            bound += 1;
        }
    }
    Ok(())
}
