//! How long calls take: `csi_plugin_operations_seconds`, with upstream's labels.
//!
//! Every call is measured once, around everything: refused ones, those whose caller gives up (`Canceled`) and streams
//! until their last message.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::Registry,
};
use tokio::time::Instant;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::look_out::{Call, Calls};

/// Upstream's buckets, in seconds.
const BUCKETS_SECONDS: [f64; 13] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0,
];

/// All methods there are, so that nobody can make up labels. A test compares them with the contract.
pub(crate) const METHODS: [&str; 32] = [
    "/csi.v1.Identity/GetPluginInfo",
    "/csi.v1.Identity/GetPluginCapabilities",
    "/csi.v1.Identity/Probe",
    "/csi.v1.Controller/CreateVolume",
    "/csi.v1.Controller/DeleteVolume",
    "/csi.v1.Controller/ControllerPublishVolume",
    "/csi.v1.Controller/ControllerUnpublishVolume",
    "/csi.v1.Controller/ValidateVolumeCapabilities",
    "/csi.v1.Controller/ListVolumes",
    "/csi.v1.Controller/GetCapacity",
    "/csi.v1.Controller/ControllerGetCapabilities",
    "/csi.v1.Controller/CreateSnapshot",
    "/csi.v1.Controller/DeleteSnapshot",
    "/csi.v1.Controller/ListSnapshots",
    "/csi.v1.Controller/GetSnapshot",
    "/csi.v1.Controller/ControllerExpandVolume",
    "/csi.v1.Controller/ControllerGetVolume",
    "/csi.v1.Controller/ControllerModifyVolume",
    "/csi.v1.GroupController/GroupControllerGetCapabilities",
    "/csi.v1.GroupController/CreateVolumeGroupSnapshot",
    "/csi.v1.GroupController/DeleteVolumeGroupSnapshot",
    "/csi.v1.GroupController/GetVolumeGroupSnapshot",
    "/csi.v1.SnapshotMetadata/GetMetadataAllocated",
    "/csi.v1.SnapshotMetadata/GetMetadataDelta",
    "/csi.v1.Node/NodeStageVolume",
    "/csi.v1.Node/NodeUnstageVolume",
    "/csi.v1.Node/NodePublishVolume",
    "/csi.v1.Node/NodeUnpublishVolume",
    "/csi.v1.Node/NodeGetVolumeStats",
    "/csi.v1.Node/NodeExpandVolume",
    "/csi.v1.Node/NodeGetCapabilities",
    "/csi.v1.Node/NodeGetInfo",
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method_name: &'static str,
    grpc_status_code: &'static str,
}

/// The histogram of a driver's calls. Clones share it.
#[derive(Clone, Debug)]
pub struct OperationMetrics {
    durations: Family<Labels, Histogram, fn() -> Histogram>,
}

impl OperationMetrics {
    /// Adds `csi_plugin_operations_seconds` to a registry.
    pub fn register(registry: &mut Registry, driver_name: &str) -> Self {
        let durations: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS_SECONDS));
        let driver = ("driver_name".into(), driver_name.to_owned().into());
        registry.sub_registry_with_label(driver).register(
            "csi_plugin_operations_seconds",
            "How long calls of the CSI driver took, by method and gRPC status code",
            durations.clone(),
        );
        OperationMetrics { durations }
    }
}

/// Go's names of the codes: dashboards know these.
fn code_name(code: i32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    usize::try_from(code)
        .ok()
        .and_then(|code| NAMES.get(code))
        .copied()
        .unwrap_or("Unknown")
}

fn status_in(headers: &HeaderMap) -> Option<&'static str> {
    let code = headers.get("grpc-status")?.to_str().ok()?;
    Some(code_name(code.parse().unwrap_or(2)))
}

/// One call. Written down when dropped; until somebody knows better, its caller has given up.
struct Observation {
    metrics: OperationMetrics,
    method_name: &'static str,
    started: Instant,
    grpc_status_code: &'static str,
}

impl Drop for Observation {
    fn drop(&mut self) {
        let labels = Labels {
            method_name: self.method_name,
            grpc_status_code: self.grpc_status_code,
        };
        let duration = self.started.elapsed().as_secs_f64();
        self.metrics.durations.get_or_create(&labels).observe(duration);
    }
}

/// Puts [`Observed`] around the services.
#[derive(Clone, Debug)]
pub(crate) struct Observe {
    pub(crate) metrics: Option<OperationMetrics>,
    pub(crate) calls: Arc<Calls>,
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed {
            inner,
            metrics: self.metrics.clone(),
            calls: Arc::clone(&self.calls),
        }
    }
}

/// Services whose calls are measured.
#[derive(Clone, Debug)]
pub(crate) struct Observed<S> {
    inner: S,
    metrics: Option<OperationMetrics>,
    calls: Arc<Calls>,
}

impl<S> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<ObservedBody>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let method = METHODS.iter().find(|method| **method == path);
        let mut observation = self
            .metrics
            .clone()
            .zip(method)
            .map(|(metrics, method_name)| Observation {
                metrics,
                method_name,
                started: Instant::now(),
                grpc_status_code: code_name(1),
            });
        let call = self.calls.begin();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            // Without an answer to send, the status stands in the headers.
            if let Some(code) = status_in(response.headers())
                && let Some(mut observation) = observation.take()
            {
                observation.grpc_status_code = code;
            }
            Ok(response.map(|inner| ObservedBody {
                inner,
                observation,
                _call: call,
            }))
        })
    }
}

/// An answer on its way; its trailers say how the call ended.
pub(crate) struct ObservedBody {
    inner: Body,
    observation: Option<Observation>,
    _call: Call,
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(code) = status_in(trailers)
            && let Some(mut observation) = self.observation.take()
        {
            observation.grpc_status_code = code;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_methods_are_those_of_the_contract() {
        let pool = prost_reflect::DescriptorPool::decode(moorline_proto::DESCRIPTORS).unwrap();
        let contract: BTreeSet<_> = pool
            .services()
            .filter(|service| service.package_name() == "csi.v1")
            .flat_map(|service| {
                let methods: Vec<_> = service.methods().collect();
                methods
                    .iter()
                    .map(|method| format!("/{}/{}", service.full_name(), method.name()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let ours: BTreeSet<_> = METHODS.iter().map(|method| (*method).to_owned()).collect();
        assert_eq!(ours, contract);
    }

    #[test]
    fn codes_have_the_names_that_dashboards_know() {
        let cases = [
            (0, "OK"),
            (1, "Canceled"),
            (10, "Aborted"),
            (16, "Unauthenticated"),
            (99, "Unknown"),
            (-1, "Unknown"),
        ];
        for (code, name) in cases {
            assert_eq!(code_name(code), name);
        }
    }
}
