//! What owners of fields cost: CPU time of writes to an in-memory store, of objects with owners and without.
//!
//! `cargo run --release -p moorline-apiserver --example write_cost [writes]`
//!
//! An object without owners is written as if there were none: `managedFields: [{}]` makes the server forget them, and
//! updates alone don't begin them again.

use std::error::Error;
use std::io::Write;
use std::sync::Arc;

use http::{Method, Request};
use kube::client::Body;
use moorline_apiserver::{ApiServer, Config};
use moorline_store::MemoryStore;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const PODS: &str = "/api/v1/namespaces/default/pods";

struct Bench {
    client: kube::Client,
    writes: usize,
}

impl Bench {
    async fn send(&self, method: Method, path: &str, kind: &str, body: &Value) -> Result<(), Box<dyn Error>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind);
        let request = request.body(Body::from(body.to_string().into_bytes()))?;
        let (parts, body) = self.client.send(request).await?.into_parts();
        let bytes = body.collect_bytes().await?;
        if !parts.status.is_success() {
            return Err(String::from_utf8_lossy(&bytes).into_owned().into());
        }
        // Nobody reads the answer: that would be the client's cost.
        Ok(())
    }

    /// Microseconds a write, for objects with owners and without.
    async fn compare(
        &self,
        path: &str,
        kind: &str,
        change: impl Fn(usize) -> Value,
    ) -> Result<[f64; 2], Box<dyn Error>> {
        let forget = json!({ "metadata": { "managedFields": [{}] } });
        let mut best = [f64::MAX; 2];
        for _ in 0..5 {
            for (way, best) in best.iter_mut().enumerate() {
                let object = format!("{path}-{way}");
                if way == 1 {
                    self.send(Method::PATCH, &object, "application/merge-patch+json", &forget)
                        .await?;
                }
                let started = cpu_nanos()?;
                for n in 0..self.writes {
                    self.send(Method::PATCH, &object, kind, &change(n)).await?;
                }
                let nanos = u32::try_from((cpu_nanos()? - started) / u64::try_from(self.writes)?)?;
                *best = best.min(f64::from(nanos) / 1e3);
            }
        }
        Ok(best)
    }
}

/// CPU time of the main thread, which does all the work; other load on the machine doesn't count.
fn cpu_nanos() -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

fn lease(name: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
        "spec": {"holderIdentity": "node-1", "leaseDurationSeconds": 40, "renewTime": "2026-03-01T12:00:00.000000Z"}})
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "a"}}, "spec": {
        "containers": [{"name": "main", "image": "img", "env": [{"name": "A", "value": "1"}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "emptyDir": {}}]}})
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let writes = std::env::args().nth(1).map_or(Ok(2000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let stop = CancellationToken::new();
    let store = Arc::new(MemoryStore::new());
    let server = ApiServer::start(Config::new(dir.path().join("pki")), store, stop.clone()).await?;
    let client = server.client("bench", &["system:masters"]);
    let bench = Bench { client, writes };
    for way in 0..2 {
        let json = "application/json";
        bench
            .send(Method::POST, LEASES, json, &lease(&format!("l-{way}")))
            .await?;
        bench
            .send(Method::POST, PODS, json, &pod(&format!("p-{way}")))
            .await?;
    }
    let renewed = |n: usize| json!({"spec": {"renewTime": format!("2026-03-01T12:00:00.{n:06}Z")}});
    let merge = "application/merge-patch+json";
    let leases = bench.compare(&format!("{LEASES}/l"), merge, renewed).await?;
    let labelled = |n: usize| json!({"metadata": {"labels": {"app": n.to_string()}}});
    let pods = bench.compare(&format!("{PODS}/p"), merge, labelled).await?;
    let mut out = std::io::stdout();
    for (what, [with, without]) in [("renew a lease", leases), ("label a pod", pods)] {
        let more = (with / without - 1.0) * 100.0;
        writeln!(
            out,
            "{what}: {with:.0} us with owners, {without:.0} us without, {more:+.0} %"
        )?;
    }
    stop.cancel();
    server.stopped().await;
    Ok(())
}
