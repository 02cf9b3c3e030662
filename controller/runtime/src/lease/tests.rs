//! Elections over a Lease in memory, under paused time.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::*;

/// One Lease behind an API that can be cut off.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    is_cut_off: Arc<AtomicBool>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("body").to_bytes();
                let (code, answer) = server.answer(&parts.method, &body);
                let response = Response::builder()
                    .status(code)
                    .body(Full::from(answer.to_string()));
                Ok::<_, Infallible>(response.expect("response"))
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, body: &[u8]) -> (u16, Value) {
        let failure = |code: u16, reason: &str| {
            (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code}),
            )
        };
        if self.is_cut_off.load(Ordering::Relaxed) {
            return failure(503, "ServiceUnavailable");
        }
        let mut held = self.lease.lock();
        let version = |lease: &Value| {
            lease["metadata"]["resourceVersion"]
                .as_str()
                .and_then(|v| v.parse::<u64>().ok())
        };
        match (method.as_str(), held.as_ref()) {
            ("GET", Some(lease)) => (200, lease.clone()),
            ("GET", None) => failure(404, "NotFound"),
            ("POST", Some(_)) => failure(409, "AlreadyExists"),
            (_, current) => {
                let mut lease: Value = serde_json::from_slice(body).expect("json");
                let current = current.and_then(version).unwrap_or(0);
                if method == Method::PUT && version(&lease) != Some(current) {
                    return failure(409, "Conflict");
                }
                lease["metadata"]["resourceVersion"] = json!((current + 1).to_string());
                *held = Some(lease.clone());
                (200, lease)
            }
        }
    }

    fn candidate(&self, identity: &str) -> LeaderElection {
        LeaderElection::new(self.client(), "ns", "my.lock", identity, Timings::default())
    }

    fn holder(&self) -> String {
        let lease = self.lease.lock();
        let holder = lease
            .as_ref()
            .and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_string));
        holder.unwrap_or_default()
    }
}

#[test]
fn lock_names_become_object_names() {
    let cases = [
        ("external-attacher-leader-a.b/c", "external-attacher-leader-a-b-c"),
        ("x.", "x-X"),
        ("abc", "abc"),
    ];
    for (lock, name) in cases {
        assert_eq!(object_name(lock), name);
    }
}

#[tokio::test(start_paused = true)]
async fn only_one_leads_and_the_next_follows_after_release() {
    let server = Server::default();
    let (first, second) = (server.candidate("a"), server.candidate("b"));
    let (stop_first, stop_second) = (CancellationToken::new(), CancellationToken::new());
    let leading = Arc::new(Mutex::new(Vec::new()));
    let work = |name: &'static str| {
        let leading = leading.clone();
        move |leadership: Leadership| async move {
            leading.lock().push(format!("+{name}"));
            assert!(leadership.is_held());
            leadership.ended().cancelled().await;
            leading.lock().push(format!("-{name}"));
        }
    };
    let ends = futures::future::join3(
        first.run(&stop_first, work("a")),
        async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            second.run(&stop_second, work("b")).await
        },
        async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!((server.holder().as_str(), leading.lock().len()), ("a", 1));
            stop_first.cancel();
            // Given back, so the next one doesn't wait for it to expire.
            tokio::time::sleep(Duration::from_secs(7)).await;
            assert_eq!(server.holder(), "b");
            stop_second.cancel();
        },
    );
    let (first, second, ()) = ends.await;
    assert_eq!((first, second), (Ended::Stopped, Ended::Stopped));
    assert_eq!(*leading.lock(), ["+a", "-a", "+b", "-b"]);
    let transitions = server
        .lease
        .lock()
        .as_ref()
        .map(|lease| lease["spec"]["leaseTransitions"].clone());
    assert_eq!(transitions, Some(json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_gives_up_before_others_take_over() {
    let server = Server::default();
    let stop = CancellationToken::new();
    let cut_at = Arc::new(Mutex::new(None));
    let ended_at = Arc::new(Mutex::new(None));
    let sink = ended_at.clone();
    let candidate = server.candidate("a");
    let leading = candidate.run(&stop, |leadership| async move {
        leadership.ended().cancelled().await;
        assert!(!leadership.is_held());
        *sink.lock() = Some(Instant::now());
    });
    let cutting = async {
        tokio::time::sleep(Duration::from_secs(32)).await;
        server.is_cut_off.store(true, Ordering::Relaxed);
        *cut_at.lock() = Some(Instant::now());
    };
    let (ended, ()) = futures::future::join(leading, cutting).await;
    assert_eq!(ended, Ended::Lost);
    let (cut, end) = (cut_at.lock().expect("cut"), ended_at.lock().expect("ended"));
    assert!(
        end.duration_since(cut) < Timings::default().lease_duration,
        "others may lead by now"
    );
    assert_eq!(server.holder(), "a", "not given back by one who may be late");
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_dead_leader_is_taken_after_it_expires() {
    let server = Server::default();
    *server.lease.lock() = Some(json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "my-lock", "namespace": "ns", "resourceVersion": "7"},
        "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 15, "leaseTransitions": 4},
    }));
    let start = Instant::now();
    let candidate = server.candidate("a");
    let stop = CancellationToken::new();
    let ended = candidate.run(&stop, |_| async {}).await;
    assert_eq!(ended, Ended::Finished);
    assert!(
        start.elapsed() >= Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    let spec = server
        .lease
        .lock()
        .as_ref()
        .map(|lease| lease["spec"].clone())
        .expect("lease");
    assert_eq!(
        (&spec["holderIdentity"], &spec["leaseTransitions"]),
        (&json!(""), &json!(5))
    );
}

#[tokio::test(start_paused = true)]
async fn work_that_ends_by_itself_gives_the_lease_back() {
    let server = Server::default();
    let stop = CancellationToken::new();
    let ended = server.candidate("a").run(&stop, |_| async {}).await;
    assert_eq!((ended, server.holder().as_str()), (Ended::Finished, ""));
}

#[tokio::test(start_paused = true)]
async fn work_that_is_slow_to_end_is_waited_for_even_without_the_lease() {
    let server = Server::default();
    let stop = CancellationToken::new();
    let has_ended = Arc::new(AtomicBool::new(false));
    let sink = has_ended.clone();
    let candidate = server.candidate("a");
    let leading = candidate.run(&stop, |leadership| async move {
        leadership.ended().cancelled().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!leadership.is_held());
        sink.store(true, Ordering::Relaxed);
    });
    let stopping = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        server.is_cut_off.store(true, Ordering::Relaxed);
        stop.cancel();
    };
    let (ended, ()) = futures::future::join(leading, stopping).await;
    assert_eq!(ended, Ended::Stopped);
    assert!(
        has_ended.load(Ordering::Relaxed),
        "dropped in the middle of its work"
    );
    assert_eq!(server.holder(), "a", "not given back by one who may be late");
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_leader_has_its_labels_and_may_be_kept_at_the_end() {
    let server = Server::default();
    let stop = CancellationToken::new();
    let labels = BTreeMap::from([("app".to_string(), "csi".to_string())]);
    let candidate = server.candidate("a").with_labels(labels).keeping_lease();
    let health = candidate.health();
    let seen = health.clone();
    let ended = candidate
        .run(&stop, |_| async move { assert!(seen.is_leading()) })
        .await;
    assert_eq!((ended, server.holder().as_str()), (Ended::Finished, "a"));
    assert!(!health.is_leading());
    let lease = server.lease.lock().clone().expect("lease");
    assert_eq!(lease["metadata"]["labels"], json!({"app": "csi"}));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_renews_no_more_is_unhealthy_after_its_lease_and_a_while() {
    let health = ElectionHealth {
        lease_duration: Duration::from_secs(15),
        renewed: Arc::default(),
    };
    assert!(health.check().is_ok(), "not leading");
    *health.renewed.lock() = Some(Instant::now());
    tokio::time::advance(Duration::from_secs(35)).await;
    assert!(health.check().is_ok());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(health.check().unwrap_err().contains("36 s ago"));
}
