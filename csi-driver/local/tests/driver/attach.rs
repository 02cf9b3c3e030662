//! Several nodes that share the pools: leases, fencing, limits, topology, and what is left after a restart.

use std::{collections::HashMap, fs, path::Path};

use moorline_driver_local::{BackendKind, Config, DRIVER_NAME, Services, pool_topology_key};
use moorline_driver_sdk::Endpoint;
use moorline_proto::csi::{self, volume_capability::access_mode::Mode};
use tonic::{Code, Status};

use crate::support::{BLOCK, DIR, Driver, EXT4, Scratch, Use, cannot_run, config, text};

type Context = HashMap<String, String>;

fn controller_config(scratch: &Scratch, usage: Use) -> Config {
    let mut config = config(scratch.root(), usage.backend);
    config.services = Services::Controller;
    config.is_attachable = true;
    config
}

fn node_config(scratch: &Scratch, usage: Use, node_id: &str, max_volumes: Option<u64>) -> Config {
    let mut config = config(scratch.root(), usage.backend);
    config.services = Services::Node;
    config.is_attachable = true;
    config.node_id = node_id.to_owned();
    config.max_volumes = max_volumes;
    config.serving.endpoint = Endpoint::Unix(scratch.path(&format!("{node_id}.sock")));
    config
}

/// One controller and two nodes.
struct Cluster {
    scratch: Scratch,
    usage: Use,
    controller: Driver,
    one: Driver,
    two: Driver,
}

impl Cluster {
    async fn start(usage: Use) -> Self {
        let scratch = Scratch::new();
        let controller = Driver::with(controller_config(&scratch, usage)).await;
        let one = Driver::with(node_config(&scratch, usage, "one", Some(2))).await;
        let two = Driver::with(node_config(&scratch, usage, "two", None)).await;
        Cluster {
            scratch,
            usage,
            controller,
            one,
            two,
        }
    }

    fn attach_request(&self, volume_id: &str, node_id: &str) -> csi::ControllerPublishVolumeRequest {
        csi::ControllerPublishVolumeRequest {
            volume_id: volume_id.into(),
            node_id: node_id.into(),
            volume_capability: Some(self.usage.capability(Mode::SingleNodeWriter)),
            ..Default::default()
        }
    }

    async fn attach(&mut self, volume_id: &str, node_id: &str) -> Result<Context, Status> {
        let request = self.attach_request(volume_id, node_id);
        attach(&mut self.controller, request).await
    }

    async fn detach(&mut self, volume_id: &str, node_id: &str) -> Result<(), Status> {
        let request = csi::ControllerUnpublishVolumeRequest {
            volume_id: volume_id.into(),
            node_id: node_id.into(),
            ..Default::default()
        };
        self.controller
            .controller
            .controller_unpublish_volume(request)
            .await
            .map(drop)
    }

    fn stage_request(
        &self,
        volume_id: &str,
        staging: &Path,
        context: &Context,
    ) -> csi::NodeStageVolumeRequest {
        csi::NodeStageVolumeRequest {
            publish_context: context.clone(),
            ..self.usage.stage(volume_id, staging)
        }
    }

    async fn restart_controller(self) -> Self {
        self.controller.stop().await;
        let controller = Driver::with(controller_config(&self.scratch, self.usage)).await;
        Cluster { controller, ..self }
    }

    async fn published_nodes(&mut self, volume_id: &str) -> Vec<String> {
        let request = csi::ControllerGetVolumeRequest {
            volume_id: volume_id.into(),
        };
        let one = self
            .controller
            .controller
            .controller_get_volume(request)
            .await
            .unwrap()
            .into_inner();
        let list = csi::ListVolumesRequest::default();
        let list = self
            .controller
            .controller
            .list_volumes(list)
            .await
            .unwrap()
            .into_inner();
        let listed = list.entries.into_iter().find(|entry| {
            let volume = entry.volume.as_ref();
            volume.is_some_and(|volume| volume.volume_id == volume_id)
        });
        let nodes = one.status.unwrap().published_node_ids;
        assert_eq!(listed.unwrap().status.unwrap().published_node_ids, nodes);
        nodes
    }

    async fn end(self) {
        self.one.stop().await;
        self.two.stop().await;
        self.controller.stop().await;
        assert_eq!(self.scratch.in_use(), (vec![], vec![]));
    }
}

async fn attach(
    controller: &mut Driver,
    request: csi::ControllerPublishVolumeRequest,
) -> Result<Context, Status> {
    let answer = controller.controller.controller_publish_volume(request).await?;
    Ok(answer.into_inner().publish_context)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> Status {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status}");
    status
}

#[tokio::test]
async fn two_nodes_fight_for_a_directory() {
    two_nodes_fight(DIR).await;
}

#[tokio::test]
async fn two_nodes_fight_for_a_filesystem() {
    if !cannot_run("two_nodes_fight_for_a_filesystem", EXT4.tools()) {
        two_nodes_fight(EXT4).await;
    }
}

#[tokio::test]
async fn two_nodes_fight_for_a_device() {
    if !cannot_run("two_nodes_fight_for_a_device", BLOCK.tools()) {
        two_nodes_fight(BLOCK).await;
    }
}

async fn two_nodes_fight(usage: Use) {
    if cannot_run("two_nodes_fight", &[]) {
        return;
    }
    let mut it = Cluster::start(usage).await;
    it.controller.create(usage.create("v")).await.unwrap();
    let staging = it.scratch.directory("staging");
    let early = it.stage_request("v", &staging, &Context::new());
    refused(it.one.stage(early).await, Code::FailedPrecondition);

    let first = it.attach("v", "one").await.unwrap();
    assert_eq!(
        it.attach("v", "one").await.unwrap(),
        first,
        "the same lease again"
    );
    let held = refused(it.attach("v", "two").await, Code::FailedPrecondition);
    assert!(held.message().contains("one"), "{held}");
    assert_eq!(it.published_nodes("v").await, ["one"]);
    let other_way = csi::ControllerPublishVolumeRequest {
        readonly: true,
        ..it.attach_request("v", "one")
    };
    refused(attach(&mut it.controller, other_way).await, Code::AlreadyExists);
    refused(it.controller.delete("v").await, Code::FailedPrecondition);

    let request = it.stage_request("v", &staging, &first);
    refused(it.two.stage(request.clone()).await, Code::FailedPrecondition);
    it.one.stage(request.clone()).await.unwrap();
    it.one.unstage("v", &staging).await.unwrap();

    // The lease is taken while the node does not answer: what it was told is worth nothing any more.
    let mut it = it.restart_controller().await;
    assert_eq!(
        it.published_nodes("v").await,
        ["one"],
        "leases survive the controller"
    );
    for _ in 0..2 {
        it.detach("v", "one").await.unwrap();
    }
    let second = it.attach("v", "two").await.unwrap();
    assert_ne!(first, second);
    let fenced = refused(it.one.stage(request.clone()).await, Code::FailedPrecondition);
    assert!(fenced.message().contains("leased to node two"), "{fenced}");
    let current = it.stage_request("v", &staging, &second);
    it.two.stage(current).await.unwrap();
    let target = it.scratch.path("target");
    let stolen = csi::NodePublishVolumeRequest {
        publish_context: first.clone(),
        ..usage.publish("v", &staging, &target)
    };
    refused(it.one.publish(stolen).await, Code::FailedPrecondition);
    assert!(!target.exists());
    it.two.unstage("v", &staging).await.unwrap();
    // Back where it was: still not by the old lease.
    it.detach("v", "").await.unwrap();
    let third = it.attach("v", "one").await.unwrap();
    refused(it.one.stage(request).await, Code::FailedPrecondition);
    let current = it.stage_request("v", &staging, &third);
    it.one.stage(current).await.unwrap();
    it.one.unstage("v", &staging).await.unwrap();
    it.detach("v", "one").await.unwrap();
    it.controller.delete("v").await.unwrap();
    assert_eq!(fs::read_dir(it.scratch.path("pool/leases")).unwrap().count(), 0);
    it.end().await;
}

#[tokio::test]
async fn nodes_are_known_and_full_at_some_point() {
    let mut it = Cluster::start(DIR).await;
    for id in ["v1", "v2", "v3"] {
        it.controller.create(DIR.create(id)).await.unwrap();
    }
    refused(it.attach("v1", "three").await, Code::NotFound);
    refused(it.attach("v1", "../pool.id").await, Code::NotFound);
    refused(it.attach("v9", "one").await, Code::NotFound);
    it.attach("v1", "one").await.unwrap();
    it.attach("v2", "one").await.unwrap();
    refused(it.attach("v3", "one").await, Code::ResourceExhausted);
    it.attach("v1", "one").await.expect("what it has counts once");
    it.attach("v3", "two").await.expect("the other node has no limit");
    it.detach("v1", "one").await.unwrap();
    it.detach("v3", "two").await.unwrap();
    it.attach("v3", "one").await.expect("there is room again");
    // A volume or node that is gone is no obstacle to detaching.
    it.detach("v9", "one").await.unwrap();
    it.detach("v1", "three").await.unwrap();
    it.end().await;
}

#[tokio::test]
async fn volumes_are_where_their_pool_is() {
    let mut it = Cluster::start(DIR).await;
    let id = fs::read_to_string(it.scratch.path("pool/pool.id")).unwrap();
    let place = csi::Topology {
        segments: [(pool_topology_key(DRIVER_NAME, "default"), id.trim().to_owned())].into(),
    };
    for (node_id, node) in [("one", &mut it.one), ("two", &mut it.two)] {
        let info = node
            .node
            .node_get_info(csi::NodeGetInfoRequest {})
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (info.node_id.as_str(), info.accessible_topology.as_ref()),
            (node_id, Some(&place))
        );
    }
    let request = csi::CreateVolumeRequest {
        accessibility_requirements: Some(csi::TopologyRequirement {
            requisite: vec![place.clone()],
            preferred: vec![place.clone()],
        }),
        ..DIR.create("v")
    };
    let volume = it.controller.create(request).await.unwrap();
    assert_eq!(volume.accessible_topology, [place]);
    it.end().await;
}

#[tokio::test]
async fn a_read_only_lease_lets_nobody_write() {
    if cannot_run("a_read_only_lease_lets_nobody_write", EXT4.tools()) {
        return;
    }
    for usage in [DIR, EXT4, BLOCK] {
        let mut it = Cluster::start(usage).await;
        it.controller.create(usage.create("v")).await.unwrap();
        let request = csi::ControllerPublishVolumeRequest {
            readonly: true,
            ..it.attach_request("v", "one")
        };
        let context = attach(&mut it.controller, request).await.unwrap();
        let (staging, target) = (it.scratch.directory("staging"), it.scratch.path("target"));
        let request = it.stage_request("v", &staging, &context);
        it.one.stage(request).await.unwrap();
        // The caller forgets to say that it is read-only; the lease does not.
        let publish = csi::NodePublishVolumeRequest {
            publish_context: context,
            ..usage.publish("v", &staging, &target)
        };
        it.one.publish(publish).await.unwrap();
        let written = match usage.fs_type {
            Some(_) => fs::write(target.join("file"), "x"),
            None => fs::File::options()
                .write(true)
                .open(&target)
                .and_then(|mut device| {
                    std::io::Write::write_all(&mut device, b"x")?;
                    device.sync_all()
                }),
        };
        written.expect_err(&text(&target));
        it.one.unpublish("v", &target).await.unwrap();
        it.one.unstage("v", &staging).await.unwrap();
        it.detach("v", "one").await.unwrap();
        it.controller.delete("v").await.unwrap();
        it.end().await;
    }
}

/// What the second node may do beside the first, by access mode.
struct Together {
    mode: Mode,
    /// Does the first write?
    first_writes: bool,
    /// Is the second refused the volume for writing?
    is_second_refused: bool,
    /// Does it write once it has the volume?
    second_writes: bool,
}

impl Cluster {
    /// On its way to a node's target: attached, staged, published.
    async fn bring(&mut self, mode: Mode, node_id: &str, readonly: bool) -> Result<(), Status> {
        let request = csi::ControllerPublishVolumeRequest {
            volume_capability: Some(self.usage.capability(mode)),
            readonly,
            ..self.attach_request("v", node_id)
        };
        let context = attach(&mut self.controller, request).await?;
        let staging = self.scratch.directory(&format!("staging-{node_id}"));
        let target = self.scratch.path(&format!("target-{node_id}"));
        let stage = csi::NodeStageVolumeRequest {
            volume_capability: Some(self.usage.capability(mode)),
            ..self.stage_request("v", &staging, &context)
        };
        // Not a word of `readonly` to the node: the lease has it.
        let publish = csi::NodePublishVolumeRequest {
            volume_capability: Some(self.usage.capability(mode)),
            publish_context: context,
            ..self.usage.publish("v", &staging, &target)
        };
        let node = self.node(node_id);
        node.stage(stage).await?;
        node.publish(publish).await
    }

    async fn take_back(&mut self, node_id: &str) {
        let staging = self.scratch.path(&format!("staging-{node_id}"));
        let target = self.scratch.path(&format!("target-{node_id}"));
        let node = self.node(node_id);
        node.unpublish("v", &target).await.unwrap();
        node.unstage("v", &staging).await.unwrap();
        self.detach("v", node_id).await.unwrap();
    }

    fn node(&mut self, node_id: &str) -> &mut Driver {
        match node_id {
            "one" => &mut self.one,
            _ => &mut self.two,
        }
    }

    fn can_write(&self, node_id: &str) -> bool {
        let target = self.scratch.path(&format!("target-{node_id}"));
        fs::write(target.join(node_id), "was here").is_ok()
    }
}

#[tokio::test]
async fn several_nodes_have_a_directory_at_once() {
    if cannot_run("several_nodes_have_a_directory_at_once", &[]) {
        return;
    }
    let cases = [
        Together {
            mode: Mode::MultiNodeMultiWriter,
            first_writes: true,
            is_second_refused: false,
            second_writes: true,
        },
        Together {
            mode: Mode::MultiNodeSingleWriter,
            first_writes: true,
            is_second_refused: true,
            second_writes: false,
        },
        Together {
            mode: Mode::MultiNodeReaderOnly,
            first_writes: false,
            is_second_refused: false,
            second_writes: false,
        },
    ];
    let mut it = Cluster::start(DIR).await;
    for case in cases {
        let mode = case.mode;
        let create = csi::CreateVolumeRequest {
            volume_capabilities: vec![DIR.capability(mode)],
            ..DIR.create("v")
        };
        it.controller.create(create).await.unwrap();
        it.bring(mode, "one", false).await.unwrap();
        assert_eq!(it.can_write("one"), case.first_writes, "{mode:?}");
        if case.is_second_refused {
            refused(it.bring(mode, "two", false).await, Code::FailedPrecondition);
            it.bring(mode, "two", true).await.unwrap();
        } else {
            it.bring(mode, "two", false).await.unwrap();
        }
        assert_eq!(it.can_write("two"), case.second_writes, "{mode:?}");
        let seen = it.scratch.path("target-two").join("one").exists();
        assert_eq!(
            seen, case.first_writes,
            "{mode:?}: what one wrote is seen on the other"
        );
        let mut nodes = it.published_nodes("v").await;
        nodes.sort();
        assert_eq!(nodes, ["one", "two"], "{mode:?}");
        // For itself alone nobody gets it meanwhile.
        it.take_back("two").await;
        let alone = it.bring(Mode::SingleNodeWriter, "two", false).await;
        refused(alone, Code::FailedPrecondition);
        it.take_back("one").await;
        it.controller.delete("v").await.unwrap();
    }
    it.end().await;
}

#[tokio::test]
async fn what_nodes_would_cache_apart_is_not_shared() {
    let scratch = Scratch::new();
    let shared = |usage: Use| csi::CreateVolumeRequest {
        volume_capabilities: vec![usage.capability(Mode::MultiNodeMultiWriter)],
        ..usage.create("v")
    };
    let mut controller = Driver::with(controller_config(&scratch, EXT4)).await;
    for usage in [EXT4, BLOCK] {
        let why = refused(controller.create(shared(usage)).await, Code::InvalidArgument);
        assert!(why.message().contains("use a pool with the dir backend"), "{why}");
    }
    controller.stop().await;
    let mut alone = Driver::start(&Scratch::new(), BackendKind::Dir).await;
    let why = refused(alone.create(shared(DIR)).await, Code::InvalidArgument);
    assert!(why.message().contains("--attachable"), "{why}");
    alone.stop().await;
}

#[tokio::test]
async fn without_the_flag_nothing_is_attached() {
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Dir).await;
    driver.create(DIR.create("v")).await.unwrap();
    let request = csi::ControllerPublishVolumeRequest {
        volume_id: "v".into(),
        node_id: "one".into(),
        volume_capability: Some(DIR.capability(Mode::SingleNodeWriter)),
        ..Default::default()
    };
    refused(attach(&mut driver, request).await, Code::Unimplemented);
    driver.stop().await;
    assert!(!scratch.path("pool/leases").exists() && !scratch.path("pool/nodes").exists());
}
