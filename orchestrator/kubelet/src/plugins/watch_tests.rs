//! Drivers come and go over real sockets: what the cluster is told, and what the kubelet knows.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kube::Client;
use moorline_proto::pluginregistration::registration_server::{Registration, RegistrationServer};
use moorline_proto::pluginregistration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::run;
use crate::csi::drivers::Drivers;
use crate::plugins::registration::{ApiOf, Registrar};
use crate::testing::api::{merge, next_version};
use crate::testing::csi_driver::{Driver, NAME};
use crate::testing::eventually;

/// Node and CSINode `n1`.
#[derive(Clone)]
struct Api {
    node: Arc<Mutex<Value>>,
    csi_node: Arc<Mutex<Option<Value>>>,
}

impl Api {
    fn new() -> Self {
        let node = json!({"metadata": {"name": "n1", "uid": "node-uid", "resourceVersion": "1"}});
        Self {
            node: Arc::new(Mutex::new(node)),
            csi_node: Arc::default(),
        }
    }

    fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body
                    .collect()
                    .await
                    .map(|body| body.to_bytes())
                    .unwrap_or_default();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (code, value) = api.answer(&parts.method, parts.uri.path(), body);
                let body = Full::new(bytes::Bytes::from(value.to_string()));
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let mut csi_node = self.csi_node.lock();
        match (method, path) {
            (&Method::GET, "/api/v1/nodes/n1") => (200, self.node.lock().clone()),
            (&Method::PATCH, "/api/v1/nodes/n1") => {
                let mut node = self.node.lock();
                merge(&mut node, &body);
                next_version(&mut node);
                (200, node.clone())
            }
            (&Method::GET, "/apis/storage.k8s.io/v1/csinodes/n1") => match csi_node.clone() {
                Some(object) => (200, object),
                None => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "code": 404, "message": "", "reason": "NotFound"}),
                ),
            },
            (&Method::POST | &Method::PUT, _) => {
                let mut object = body;
                object["metadata"]["resourceVersion"] = json!("1");
                *csi_node = Some(object.clone());
                (200, object)
            }
            _ => panic!("{method} {path}"),
        }
    }

    /// Names and node ids of the CSINode's drivers.
    fn drivers(&self) -> Vec<(String, String)> {
        let object = self.csi_node.lock().clone().unwrap_or_default();
        let drivers = object["spec"]["drivers"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        drivers
            .iter()
            .map(|driver| (text(&driver["name"]), text(&driver["nodeID"])))
            .collect()
    }
}

/// A registrar beside a driver.
#[derive(Clone)]
struct Plugin {
    info: PluginInfo,
    told: Arc<Mutex<Vec<RegistrationStatus>>>,
}

#[tonic::async_trait]
impl Registration for Plugin {
    async fn get_info(
        &self,
        _request: tonic::Request<InfoRequest>,
    ) -> Result<tonic::Response<PluginInfo>, Status> {
        Ok(tonic::Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: tonic::Request<RegistrationStatus>,
    ) -> Result<tonic::Response<RegistrationStatusResponse>, Status> {
        self.told.lock().push(request.into_inner());
        Ok(tonic::Response::new(RegistrationStatusResponse {}))
    }
}

struct World {
    place: tempfile::TempDir,
    api: Api,
    driver: Driver,
    drivers: Arc<Drivers>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl World {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let api = Api::new();
        let driver = Driver::start(place.path(), true, &tasks, &stop);
        let drivers = Arc::new(Drivers::default());
        let registry = place.path().join("registry");
        std::fs::create_dir(&registry).unwrap();
        let registrar = Arc::new(Registrar {
            client: ApiOf(api.client()),
            node_name: "n1".into(),
            drivers: drivers.clone(),
            csi_call_timeout: Duration::from_secs(10),
            writing: tokio::sync::Mutex::new(()),
        });
        let watching = run(registry, registrar, stop.clone());
        tasks.spawn(async move { watching.await.unwrap() });
        Self {
            place,
            api,
            driver,
            drivers,
            tasks,
            stop,
        }
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.place.path().join("registry").join(name)
    }

    /// A registrar that serves `socket` until its token is cancelled.
    fn plugin(&self, socket: &Path, endpoint: &Path, versions: &[&str]) -> (Plugin, CancellationToken) {
        let info = PluginInfo {
            r#type: "CSIPlugin".into(),
            name: NAME.into(),
            endpoint: endpoint.to_string_lossy().into_owned(),
            supported_versions: versions.iter().map(|version| (*version).to_owned()).collect(),
        };
        let plugin = Plugin {
            info,
            told: Arc::default(),
        };
        let listener = UnixListener::bind(socket).unwrap();
        let server = tonic::transport::Server::builder().add_service(RegistrationServer::new(plugin.clone()));
        let stop = self.stop.child_token();
        let stopped = stop.clone().cancelled_owned();
        self.tasks.spawn(async move {
            server
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped)
                .await
                .unwrap();
        });
        (plugin, stop)
    }

    async fn told(&self, plugin: &Plugin, is_registered: bool, part: &str) {
        eventually("the plugin is told", || {
            let told = plugin.told.lock().clone();
            let is_told = |status: &RegistrationStatus| {
                status.plugin_registered == is_registered && status.error.contains(part)
            };
            if told.iter().any(is_told) {
                Ok(())
            } else {
                Err(format!("{told:?}"))
            }
        })
        .await;
    }

    async fn shown(&self, want: &[(&str, &str)]) {
        let want: Vec<(String, String)> = want
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect();
        eventually("the CSINode", || {
            let got = self.api.drivers();
            if got == want {
                Ok(())
            } else {
                Err(format!("{got:?}"))
            }
        })
        .await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[tokio::test]
async fn driver_comes_goes_and_comes_back() {
    let world = World::new();
    let socket = world.socket("d-reg.sock");
    for round in 0..2 {
        let (plugin, stop) = world.plugin(&socket, &world.driver.socket, &["1.0.0"]);
        world.told(&plugin, true, "").await;
        world.shown(&[(NAME, "id-1")]).await;
        assert!(
            world.drivers.get(NAME).unwrap().capabilities.stage,
            "round {round}"
        );
        let annotation =
            world.api.node.lock()["metadata"]["annotations"]["csi.volume.kubernetes.io/nodeid"].clone();
        assert_eq!(annotation, json!(format!("{{\"{NAME}\":\"id-1\"}}")));
        stop.cancel();
        std::fs::remove_file(&socket).unwrap();
        world.shown(&[]).await;
        eventually("the driver is forgotten", || match world.drivers.get(NAME) {
            Err(_) => Ok(()),
            Ok(driver) => Err(format!("{driver:?}")),
        })
        .await;
    }
    world.end().await;
}

#[tokio::test]
async fn replaced_socket_is_registered_again() {
    let world = World::new();
    let socket = world.socket("d-reg.sock");
    let (first, stop) = world.plugin(&socket, &world.driver.socket, &["1.0.0"]);
    world.told(&first, true, "").await;
    stop.cancel();
    std::fs::remove_file(&socket).unwrap();
    let (second, _stop) = world.plugin(&socket, &world.driver.socket, &["1.0.0"]);
    world.told(&second, true, "").await;
    world.shown(&[(NAME, "id-1")]).await;
    world.end().await;
}

#[tokio::test]
async fn refused_plugins_hear_why() {
    let world = World::new();
    let (old, _stop) = world.plugin(&world.socket("old.sock"), &world.driver.socket, &["0.3.0"]);
    world.told(&old, false, "supports none of the versions").await;
    let (good, _stop) = world.plugin(&world.socket("good.sock"), &world.driver.socket, &["1.0.0"]);
    world.told(&good, true, "").await;
    let elsewhere = world.place.path().join("other.sock");
    let (second, _stop) = world.plugin(&world.socket("second.sock"), &elsewhere, &["1.0.0"]);
    world.told(&second, false, "is already registered at").await;
    world.shown(&[(NAME, "id-1")]).await;
    world.end().await;
}
