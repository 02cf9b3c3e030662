//! Probes: one task per probe of a running container; results wake the pod's worker when they change something.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use moorline_container_runtime::{ContainerId, ContainerRuntime, ContainerState, ContainerStatus};
use moorline_runtime::Queue;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::memory::ProbeResults;
use super::{find_container, uid};

/// Which of a container's probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Startup,
    Readiness,
    Liveness,
}

/// Counts a probe's results towards its thresholds. Pure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streak {
    is_success: bool,
    length: i32,
}

impl Streak {
    /// Takes a result; returns the verdict once a threshold is reached.
    pub(crate) fn take(
        &mut self,
        is_success: bool,
        success_threshold: i32,
        failure_threshold: i32,
    ) -> Option<bool> {
        self.length = if self.is_success == is_success {
            self.length.saturating_add(1)
        } else {
            1
        };
        self.is_success = is_success;
        let threshold = if is_success {
            success_threshold
        } else {
            failure_threshold
        };
        (self.length >= threshold.max(1)).then_some(is_success)
    }
}

type Results = Arc<Mutex<HashMap<ContainerId, ProbeResults>>>;

/// The probes of all containers.
#[derive(Clone)]
pub(crate) struct Probes {
    tasks: TaskTracker,
    node_ip: IpAddr,
    runtime: Arc<dyn ContainerRuntime>,
    queue: Queue<String>,
    running: Arc<Mutex<HashMap<ContainerId, (String, CancellationToken)>>>,
    results: Results,
}

impl Probes {
    pub(crate) fn new(
        tasks: TaskTracker,
        node_ip: IpAddr,
        runtime: Arc<dyn ContainerRuntime>,
        queue: Queue<String>,
    ) -> Self {
        Self {
            tasks,
            node_ip,
            runtime,
            queue,
            running: Arc::default(),
            results: Arc::default(),
        }
    }

    /// Starts the probes of containers that run, stops those of containers that don't, and hands out the results.
    pub(crate) fn follow(
        &self,
        pod: &Pod,
        containers: &[ContainerStatus],
        is_live: bool,
        mut report: impl FnMut(ContainerId, ProbeResults),
    ) {
        let is_running = |id: &ContainerId| {
            is_live
                && containers
                    .iter()
                    .any(|held| held.id == *id && held.state == ContainerState::Running)
        };
        let mut running = self.running.lock();
        running.retain(|id, (pod_uid, stop)| {
            let stays = pod_uid != uid(pod) || is_running(id);
            if !stays {
                stop.cancel();
                self.results.lock().remove(id);
            }
            stays
        });
        for status in containers.iter().filter(|status| is_running(&status.id)) {
            let Some(container) = find_container(pod, &status.name).filter(|container| has_probe(container))
            else {
                continue;
            };
            running.entry(status.id.clone()).or_insert_with(|| {
                let stop = CancellationToken::new();
                self.start(pod, container, &status.id, &stop);
                (uid(pod).to_owned(), stop)
            });
            if let Some(results) = self.results.lock().get(&status.id) {
                report(status.id.clone(), *results);
            }
        }
    }

    pub(crate) fn stop_all(&self) {
        for (_, stop) in self.running.lock().values() {
            stop.cancel();
        }
    }

    fn start(&self, pod: &Pod, container: &Container, id: &ContainerId, stop: &CancellationToken) {
        let probes = [
            (Kind::Startup, &container.startup_probe),
            (Kind::Readiness, &container.readiness_probe),
            (Kind::Liveness, &container.liveness_probe),
        ];
        for (kind, probe) in probes {
            let Some(probe) = probe.clone() else { continue };
            let task = ProbeTask {
                kind,
                probe,
                container: container.clone(),
                id: id.clone(),
                pod_uid: uid(pod).to_owned(),
                waits_for_startup: kind != Kind::Startup && container.startup_probe.is_some(),
                probes: self.clone(),
            };
            let stop = stop.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = task.run() => {}
                }
            });
        }
    }
}

fn has_probe(container: &Container) -> bool {
    container.startup_probe.is_some()
        || container.readiness_probe.is_some()
        || container.liveness_probe.is_some()
}

struct ProbeTask {
    kind: Kind,
    probe: Probe,
    container: Container,
    id: ContainerId,
    pod_uid: String,
    waits_for_startup: bool,
    probes: Probes,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|value| u64::try_from(value).ok())
            .unwrap_or(default),
    )
}

impl ProbeTask {
    /// Probes until the task is dropped or has nothing more to find out.
    async fn run(self) {
        let period = seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1));
        tokio::time::sleep(seconds(self.probe.initial_delay_seconds, 0)).await;
        let mut streak = Streak::default();
        loop {
            if !self.waits_for_startup || self.is_started() {
                let is_success = self.once().await;
                let success = self.probe.success_threshold.unwrap_or(1);
                let failure = self.probe.failure_threshold.unwrap_or(3);
                if let Some(verdict) = streak.take(is_success, success, failure) {
                    self.record(verdict);
                    if self.kind == Kind::Startup {
                        return;
                    }
                }
            }
            tokio::time::sleep(period).await;
        }
    }

    fn is_started(&self) -> bool {
        self.probes
            .results
            .lock()
            .get(&self.id)
            .is_some_and(|results| results.is_started == Some(true))
    }

    fn record(&self, verdict: bool) {
        let is_new = {
            let mut results = self.probes.results.lock();
            let held = results.entry(self.id.clone()).or_default();
            let before = *held;
            match self.kind {
                Kind::Startup => {
                    held.is_started = Some(verdict);
                    held.has_failed |= !verdict;
                }
                Kind::Readiness => held.is_ready = Some(verdict),
                Kind::Liveness => held.has_failed |= !verdict,
            }
            before != *held
        };
        if is_new {
            self.probes.queue.add(self.pod_uid.clone());
        }
    }

    async fn once(&self) -> bool {
        let timeout = seconds(self.probe.timeout_seconds, 1).max(Duration::from_secs(1));
        let outcome = tokio::time::timeout(timeout, self.attempt(timeout)).await;
        outcome.unwrap_or(Err("timed out".to_owned())).map_or_else(
            |why| {
                tracing::debug!(container = %self.id, kind = ?self.kind, why, "Probe failed");
                false
            },
            |()| true,
        )
    }

    async fn attempt(&self, timeout: Duration) -> Result<(), String> {
        if let Some(exec) = &self.probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            let output = self
                .probes
                .runtime
                .exec_sync(&self.id, &command, Some(timeout))
                .await;
            return match output {
                Ok(output) if output.exit_code == 0 => Ok(()),
                Ok(output) => Err(format!("exit code {}", output.exit_code)),
                Err(error) => Err(error.to_string()),
            };
        }
        if let Some(action) = &self.probe.http_get {
            return self.http_get(action).await;
        }
        if let Some(action) = &self.probe.tcp_socket {
            let port = self.port(&action.port)?;
            let host = action
                .host
                .clone()
                .unwrap_or_else(|| self.probes.node_ip.to_string());
            return TcpStream::connect((host.as_str(), port))
                .await
                .map(|_| ())
                .map_err(|error| error.to_string());
        }
        Err("this kind of probe is not supported".to_owned())
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        match port {
            IntOrString::Int(number) => {
                u16::try_from(*number).map_err(|_| format!("port {number} is out of range"))
            }
            IntOrString::String(name) => {
                let ports = self.container.ports.iter().flatten();
                let named = ports.into_iter().find(|port| port.name.as_deref() == Some(name));
                let number = named
                    .map(|port| port.container_port)
                    .or_else(|| name.parse().ok());
                number
                    .and_then(|number| u16::try_from(number).ok())
                    .ok_or_else(|| format!("port {name:?} is not known"))
            }
        }
    }

    async fn http_get(&self, action: &HTTPGetAction) -> Result<(), String> {
        if action.scheme.as_deref() == Some("HTTPS") {
            return Err("HTTPS probes are not supported".to_owned());
        }
        let port = self.port(&action.port)?;
        let host = action.host.clone().filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| self.probes.node_ip.to_string());
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
        let mut request = hyper::Request::get(action.path.as_deref().unwrap_or("/"))
            .header(hyper::header::HOST, format!("{host}:{port}"))
            .header(hyper::header::USER_AGENT, "kube-probe/1.36");
        for header in action.http_headers.iter().flatten() {
            request = request.header(&header.name, &header.value);
        }
        let request = request
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = response.status();
            response
                .into_body()
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            if status.is_success() || status.is_redirection() {
                Ok(())
            } else {
                Err(format!("status {status}"))
            }
        };
        // The connection only moves bytes for the exchange and ends with it.
        tokio::select! {
            biased;
            done = exchange => done,
            broken = connection => Err(broken.err().map_or_else(|| "connection closed".to_owned(), |error| error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_comes_with_the_threshold() {
        let mut streak = Streak::default();
        let steps = [
            (false, None),
            (false, None),
            (false, Some(false)),
            (true, None),
            (true, Some(true)),
            (false, None),
            (true, None),
        ];
        for (number, (is_success, want)) in steps.into_iter().enumerate() {
            assert_eq!(streak.take(is_success, 2, 3), want, "step {number}");
        }
    }
}
