//! The controller over the real socket: capacity, topology, lists, many at once, a full pool, two processes.

use std::{collections::HashSet, fs};

use crate::support::{
    BLOCK, DIR, Driver, EXT4, MIB, NODE, Scratch, Use, cannot_run, config, delete, range, skipped,
    with_parameter,
};
use moorline_driver_local::{BackendKind, PoolConfig, Services, topology_key};
use moorline_driver_sdk::Endpoint;
use moorline_proto::csi;
use tokio_util::task::TaskTracker;
use tonic::Code;

fn topology(node: &str) -> csi::Topology {
    csi::Topology {
        segments: [(topology_key(moorline_driver_local::DRIVER_NAME), node.to_owned())].into(),
    }
}

fn on_nodes(nodes: &[&str]) -> Option<csi::TopologyRequirement> {
    Some(csi::TopologyRequirement {
        requisite: nodes.iter().map(|node| topology(node)).collect(),
        preferred: vec![],
    })
}

#[tokio::test]
async fn volumes_are_made_on_this_node_only() {
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Dir).await;
    let elsewhere = csi::CreateVolumeRequest {
        accessibility_requirements: on_nodes(&["node-2"]),
        ..DIR.create("pvc-1")
    };
    let refused = driver.create(elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let here = csi::CreateVolumeRequest {
        accessibility_requirements: on_nodes(&["node-2", NODE]),
        ..DIR.create("pvc-1")
    };
    let volume = driver.create(here).await.unwrap();
    assert_eq!(volume.accessible_topology, [topology(NODE)]);
    let info = driver
        .node
        .node_get_info(csi::NodeGetInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (info.node_id.as_str(), info.accessible_topology),
        (NODE, Some(topology(NODE)))
    );
    driver.stop().await;
}

async fn available(driver: &mut Driver, place: Option<csi::Topology>) -> i64 {
    let query = csi::GetCapacityRequest {
        accessible_topology: place,
        ..Default::default()
    };
    driver
        .controller
        .get_capacity(query)
        .await
        .unwrap()
        .into_inner()
        .available_capacity
}

#[tokio::test]
async fn capacity_is_accounted_and_given_back() {
    let scratch = Scratch::new();
    let mut config = config(scratch.root(), BackendKind::Dir);
    config.pools[0].capacity_limit_bytes = Some(u64::try_from(40 * MIB).unwrap());
    let mut driver = Driver::with(config).await;
    assert_eq!(available(&mut driver, None).await, 40 * MIB);
    assert_eq!(available(&mut driver, Some(topology(NODE))).await, 40 * MIB);
    assert_eq!(available(&mut driver, Some(topology("node-2"))).await, 0);
    driver.create(DIR.create("pvc-1")).await.unwrap();
    driver.create(DIR.create("pvc-2")).await.unwrap();
    assert_eq!(available(&mut driver, None).await, 8 * MIB);
    let full = driver.create(DIR.create("pvc-3")).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted, "{full}");
    let full = driver.expand("pvc-1", 25 * MIB).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted, "{full}");
    driver.expand("pvc-1", 24 * MIB).await.unwrap();
    assert_eq!(available(&mut driver, None).await, 0);
    driver.delete("pvc-1").await.unwrap();
    assert_eq!(available(&mut driver, None).await, 24 * MIB);
    driver.stop().await;
}

#[tokio::test]
async fn a_pool_without_room_refuses_and_keeps_nothing() {
    if cannot_run("a_pool_without_room_refuses_and_keeps_nothing", EXT4.tools()) {
        return;
    }
    // First without bytes, then without inodes: the second fails in the middle of a create.
    for (options, bytes) in [("size=8m", 32 * MIB), ("size=64m,nr_inodes=12", 4 * MIB)] {
        let scratch = Scratch::new();
        let pool = scratch.directory("pool");
        moorline_mount::mount::mount("tmpfs", &pool, "tmpfs", &[options.to_owned()]).unwrap();
        let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
        let usage = Use { bytes, ..EXT4 };
        let mut made = Vec::new();
        let refused = loop {
            let name = format!("pvc-{}", made.len());
            match driver.create(usage.create(&name)).await {
                Ok(_) => made.push(name),
                Err(refused) => break refused,
            }
            assert!(made.len() < 16, "{options}: it must be full by now");
        };
        assert_eq!(refused.code(), Code::ResourceExhausted, "{options}: {refused}");
        let found: HashSet<_> = fs::read_dir(scratch.path("pool/volumes"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(found, made.iter().cloned().collect(), "{options}");
        for name in made {
            driver.delete(&name).await.unwrap();
        }
        driver.stop().await;
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Dir).await;
    for i in 0..25 {
        driver.create(DIR.create(&format!("pvc-{i}"))).await.unwrap();
    }
    let (mut seen, mut token) = (HashSet::new(), String::new());
    let mut pages = 0;
    loop {
        let request = csi::ListVolumesRequest {
            max_entries: 10,
            starting_token: token,
        };
        let page = driver
            .controller
            .list_volumes(request)
            .await
            .unwrap()
            .into_inner();
        pages += 1;
        for entry in page.entries {
            assert!(seen.insert(entry.volume.unwrap().volume_id), "no entry twice");
        }
        if page.next_token.is_empty() {
            break;
        }
        token = page.next_token;
    }
    assert_eq!((seen.len(), pages), (25, 3));
    let request = csi::ListVolumesRequest {
        max_entries: 0,
        starting_token: "made up".into(),
    };
    assert_eq!(
        driver.controller.list_volumes(request).await.unwrap_err().code(),
        Code::Aborted
    );
    driver.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_volumes_at_once_come_and_go() {
    let scratch = Scratch::new();
    let driver = Driver::start(&scratch, BackendKind::Dir).await;
    let tasks = TaskTracker::new();
    let all: Vec<_> = (0..200)
        .map(|i| {
            let mut controller = driver.controller.clone();
            tasks.spawn(async move {
                let name = format!("pvc-{i}");
                controller.create_volume(DIR.create(&name)).await.unwrap();
                if i % 2 == 0 {
                    controller.delete_volume(delete(&name)).await.unwrap();
                }
            })
        })
        .collect();
    for task in all {
        task.await.unwrap();
    }
    // What is deleted may go on leaving until then.
    driver.stop().await;
    assert_eq!(fs::read_dir(scratch.path("pool/volumes")).unwrap().count(), 100);
}

#[tokio::test]
async fn controller_and_node_may_be_two_processes() {
    if cannot_run("controller_and_node_may_be_two_processes", EXT4.tools()) {
        return;
    }
    let scratch = Scratch::new();
    let mut controller_config = config(scratch.root(), BackendKind::Loop);
    controller_config.services = Services::Controller;
    let mut node_config = config(scratch.root(), BackendKind::Loop);
    node_config.services = Services::Node;
    node_config.serving.endpoint = Endpoint::Unix(scratch.path("node.sock"));
    let mut node = Driver::with(node_config).await;
    let mut controller = Driver::with(controller_config).await;
    let missing = node.create(EXT4.create("pvc-1")).await.unwrap_err();
    assert_eq!(missing.code(), Code::Unimplemented);
    controller.create(EXT4.create("pvc-1")).await.unwrap();
    let (staging, target) = (scratch.directory("staging"), scratch.path("target"));
    node.stage(EXT4.stage("pvc-1", &staging)).await.unwrap();
    node.publish(EXT4.publish("pvc-1", &staging, &target))
        .await
        .unwrap();
    let in_use = controller.delete("pvc-1").await.unwrap_err();
    assert_eq!(in_use.code(), Code::FailedPrecondition);
    node.unpublish("pvc-1", &target).await.unwrap();
    node.unstage("pvc-1", &staging).await.unwrap();
    controller.delete("pvc-1").await.unwrap();
    controller.stop().await;
    node.stop().await;
    assert_eq!(scratch.in_use(), (vec![], vec![]));
}

#[tokio::test]
async fn a_name_that_is_taken_otherwise_is_a_conflict() {
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Dir).await;
    driver.create(DIR.create("pvc-1")).await.unwrap();
    let larger = csi::CreateVolumeRequest {
        capacity_range: Some(range(2 * DIR.bytes)),
        ..DIR.create("pvc-1")
    };
    assert_eq!(
        driver.create(larger).await.unwrap_err().code(),
        Code::AlreadyExists
    );
    driver.stop().await;
}

async fn capacity(driver: &mut Driver, parameters: &[(&str, &str)]) -> csi::GetCapacityResponse {
    let parameters = parameters.iter();
    let query = csi::GetCapacityRequest {
        parameters: parameters
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..Default::default()
    };
    driver.controller.get_capacity(query).await.unwrap().into_inner()
}

#[tokio::test]
async fn each_pool_has_its_own_room_and_a_volume_is_in_one() {
    let scratch = Scratch::new();
    let mut config = config(scratch.root(), BackendKind::Dir);
    config.pools[0].capacity_limit_bytes = Some(u64::try_from(40 * MIB).unwrap());
    let mut fast = PoolConfig::new("fast", scratch.path("fast"), BackendKind::Loop);
    fast.capacity_limit_bytes = Some(u64::try_from(64 * MIB).unwrap());
    fast.overcommit = "1.5".parse().unwrap();
    config.pools.push(fast);
    let mut driver = Driver::with(config.clone()).await;
    let in_fast = |request| with_parameter(request, "pool", "fast");
    driver.create(DIR.create("pvc-1")).await.unwrap();
    driver.create(in_fast(BLOCK.create("pvc-2"))).await.unwrap();
    assert!(scratch.path("fast/volumes/pvc-2").exists());
    assert_eq!(capacity(&mut driver, &[]).await.available_capacity, 24 * MIB);
    assert_eq!(
        capacity(&mut driver, &[("pool", "fast")])
            .await
            .available_capacity,
        80 * MIB
    );
    let thick = capacity(&mut driver, &[("pool", "fast"), ("provisioning", "thick")]).await;
    assert_eq!(thick.available_capacity, 64 * MIB);
    assert_eq!(
        capacity(&mut driver, &[("pool", "slow")])
            .await
            .available_capacity,
        0
    );
    let cases = [
        (
            "no such pool",
            with_parameter(DIR.create("pvc-3"), "pool", "slow"),
            Code::InvalidArgument,
        ),
        (
            "a name of another pool",
            in_fast(BLOCK.create("pvc-1")),
            Code::AlreadyExists,
        ),
        (
            "a thick directory",
            with_parameter(DIR.create("pvc-3"), "provisioning", "thick"),
            Code::InvalidArgument,
        ),
        (
            "a sure quota",
            with_parameter(DIR.create("pvc-3"), "quota", "required"),
            Code::InvalidArgument,
        ),
    ];
    for (name, request, expected) in cases {
        let refused = driver.create(request).await.unwrap_err();
        assert_eq!(refused.code(), expected, "{name}: {refused}");
    }
    let thick = with_parameter(in_fast(BLOCK.create("pvc-3")), "provisioning", "thick");
    driver.create(thick).await.unwrap();
    let allocated = fs::metadata(scratch.path("fast/volumes/pvc-3/image")).unwrap();
    assert!(std::os::unix::fs::MetadataExt::blocks(&allocated) * 512 >= u64::try_from(BLOCK.bytes).unwrap());
    driver.stop().await;
    let mut driver = Driver::with(config).await;
    let all = driver.controller.list_volumes(csi::ListVolumesRequest::default());
    let all = all.await.unwrap().into_inner().entries;
    assert_eq!(all.len(), 3, "of both pools");
    driver.stop().await;
}

#[tokio::test]
async fn a_volume_without_its_data_is_told_to_be_abnormal() {
    let scratch = Scratch::new();
    let mut driver = Driver::start(&scratch, BackendKind::Loop).await;
    driver.create(BLOCK.create("pvc-3")).await.unwrap();
    let all = driver.controller.list_volumes(csi::ListVolumesRequest::default());
    let all = all.await.unwrap().into_inner().entries;
    let conditions = all.into_iter().filter_map(|entry| entry.status?.volume_condition);
    assert!(conditions.into_iter().all(|condition| !condition.abnormal));
    fs::remove_file(scratch.path("pool/volumes/pvc-3/image")).unwrap();
    let request = csi::ControllerGetVolumeRequest {
        volume_id: "pvc-3".into(),
    };
    let status = driver.controller.controller_get_volume(request).await.unwrap();
    let condition = status.into_inner().status.unwrap().volume_condition.unwrap();
    assert!(
        condition.abnormal && condition.message.contains("missing"),
        "{condition:?}"
    );
    driver.stop().await;
}

#[tokio::test]
async fn an_id_that_is_in_two_pools_is_served_from_the_first() {
    let scratch = Scratch::new();
    let mut config = config(scratch.root(), BackendKind::Dir);
    config
        .pools
        .push(PoolConfig::new("b", scratch.path("b"), BackendKind::Dir));
    let mut driver = Driver::with(config.clone()).await;
    driver.create(DIR.create("pvc-1")).await.unwrap();
    driver
        .create(with_parameter(DIR.create("pvc-2"), "pool", "b"))
        .await
        .unwrap();
    driver.stop().await;
    fs::rename(scratch.path("b/volumes/pvc-2"), scratch.path("b/volumes/pvc-1")).unwrap();
    for file in ["record", "record.copy"] {
        let from = scratch.path("pool/volumes/pvc-1").join(file);
        fs::copy(from, scratch.path("b/volumes/pvc-1").join(file)).unwrap();
    }
    let mut driver = Driver::with(config).await;
    let all = driver.controller.list_volumes(csi::ListVolumesRequest::default());
    assert_eq!(all.await.unwrap().into_inner().entries.len(), 1);
    driver.delete("pvc-1").await.unwrap();
    assert!(!scratch.path("pool/volumes/pvc-1").exists());
    assert!(
        scratch.path("b/volumes/pvc-1").exists(),
        "nobody touches the other"
    );
    driver.stop().await;
}

/// Writes and fsyncs up to `bytes`; how many there was room for.
fn fill(path: &std::path::Path, bytes: i64) -> i64 {
    let mut file = fs::File::create(path).unwrap();
    let mut written = 0;
    while written < bytes {
        if std::io::Write::write_all(&mut file, &[7; 1 << 16])
            .and_then(|()| file.sync_data())
            .is_err()
        {
            break;
        }
        written += 1 << 16;
    }
    written
}

#[tokio::test]
async fn directories_have_limits_where_the_filesystem_has_project_quotas() {
    let test = "directories_have_limits_where_the_filesystem_has_project_quotas";
    if cannot_run(test, EXT4.tools()) {
        return;
    }
    let scratch = Scratch::new();
    let (image, pool) = (scratch.path("pool.img"), scratch.directory("pool"));
    fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
    let made = std::process::Command::new("mkfs.ext4")
        .args([
            "-q",
            "-F",
            "-O",
            "quota,project",
            "-E",
            "quotatype=prjquota",
            "--",
        ])
        .arg(&image)
        .status();
    assert!(made.unwrap().success());
    let options = moorline_mount::loop_device::AttachOptions {
        autoclear: true,
        ..Default::default()
    };
    let device = moorline_mount::loop_device::attach(&image, options).unwrap();
    let mounted = moorline_mount::mount::mount(device.path(), &pool, "ext4", &["prjquota".to_owned()]);
    if let Err(error) = mounted {
        skipped(test, &format!("no project quotas here: {error}"));
        return;
    }
    drop(device);
    let mut driver = Driver::start(&scratch, BackendKind::Dir).await;
    let usage = Use {
        bytes: 4 * MIB,
        ..DIR
    };
    let sure = |request| with_parameter(request, "quota", "required");
    driver.create(sure(usage.create("pvc-1"))).await.unwrap();
    let data = pool.join("volumes/pvc-1/data");
    let written = fill(&data.join("file"), 16 * MIB);
    assert!((3 * MIB..=4 * MIB).contains(&written), "{written}");
    driver.expand("pvc-1", 8 * MIB).await.unwrap();
    let written = fill(&data.join("file"), 16 * MIB);
    assert!((7 * MIB..=8 * MIB).contains(&written), "{written}");
    let larger = Use {
        bytes: 10 * MIB,
        ..DIR
    };
    driver
        .create(sure(crate::support::from_volume(larger.create("clone"), "pvc-1")))
        .await
        .unwrap();
    let more = fill(&pool.join("volumes/clone/data/more"), 16 * MIB);
    assert!((MIB..=3 * MIB).contains(&more), "{more} beside what was copied");
    let all = driver.controller.list_volumes(csi::ListVolumesRequest::default());
    for entry in all.await.unwrap().into_inner().entries {
        let condition = entry.status.unwrap().volume_condition.unwrap();
        assert!(!condition.abnormal, "{condition:?}");
    }
    for id in ["pvc-1", "clone"] {
        driver.delete(id).await.unwrap();
    }
    driver.stop().await;
    moorline_mount::mount::unmount(&pool).unwrap();
}
