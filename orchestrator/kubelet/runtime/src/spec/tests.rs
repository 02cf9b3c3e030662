//! Configurations of typical containers, looked at where the kubelet's wishes must show.

use super::*;
use crate::container::SecurityContext;

fn facts(config: &ContainerConfig) -> Facts<'_> {
    Facts {
        config,
        rootfs: "/state/rootfs".into(),
        identity: Identity {
            uid: 7,
            gid: 8,
            additional_gids: vec![8, 9],
            home: "/home/x".into(),
        },
        arguments: vec!["sh".into(), "-c".into(), "true".into()],
        environment: vec!["PATH=/bin".into()],
        working_dir: "/work".into(),
        capabilities: ["CHOWN".to_owned()].into(),
        binds: vec![],
        devices: vec![],
        cgroup_hierarchies: vec![],
        scratch_dirs: vec![],
        hidden: vec![],
        host_pid: false,
        cgroup_namespace: true,
    }
}

fn json(facts: &Facts<'_>) -> serde_json::Value {
    serde_json::to_value(generate(facts).unwrap()).unwrap()
}

fn bind(destination: &str, propagation: MountPropagation) -> Bind {
    Bind {
        source: "/mnt/0".into(),
        destination: destination.into(),
        read_only: false,
        recursive_read_only: false,
        propagation,
        is_dir: true,
    }
}

fn has(list: &serde_json::Value, wanted: &str) -> bool {
    list.as_array()
        .is_some_and(|list| list.iter().any(|one| one == wanted))
}

fn options(spec: &serde_json::Value, destination: &str) -> Option<serde_json::Value> {
    let mounts = spec["mounts"].as_array()?;
    Some(mounts.iter().find(|mount| mount["destination"] == destination)?["options"].clone())
}

#[test]
fn plain_container() {
    let config = ContainerConfig::default();
    let spec = json(&facts(&config));
    assert_eq!(spec["process"]["args"], serde_json::json!(["sh", "-c", "true"]));
    assert_eq!(
        spec["process"]["env"],
        serde_json::json!(["PATH=/bin", "HOME=/home/x"])
    );
    assert_eq!(spec["process"]["cwd"], "/work");
    assert_eq!(
        spec["process"]["user"],
        serde_json::json!({"uid": 7, "gid": 8, "additionalGids": [8, 9]})
    );
    assert_eq!(
        spec["process"]["capabilities"]["bounding"],
        serde_json::json!(["CAP_CHOWN"])
    );
    for absent in ["inheritable", "ambient"] {
        assert!(spec["process"]["capabilities"].get(absent).is_none(), "{absent}");
    }
    for absent in ["rlimits", "oomScoreAdj"] {
        assert!(spec["process"].get(absent).is_none(), "{absent}");
    }
    assert!(spec.get("hostname").is_none(), "the shim sets it for the pod");
    assert_eq!(
        spec["root"],
        serde_json::json!({"path": "/state/rootfs", "readonly": false})
    );
    assert_eq!(
        spec["linux"]["namespaces"],
        serde_json::json!([{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}])
    );
    assert!(has(&spec["linux"]["maskedPaths"], "/proc/kcore"));
    assert!(has(&spec["linux"]["readonlyPaths"], "/proc/sys"));
    assert_eq!(spec["linux"]["rootfsPropagation"], "slave");
    assert!(has(&options(&spec, "/sys").unwrap(), "ro"));
    assert!(options(&spec, "/dev/shm").is_some());
    for absent in ["resources", "cgroupsPath", "uidMappings", "seccomp"] {
        assert!(spec["linux"].get(absent).is_none(), "{absent}");
    }
}

#[test]
fn privileged_container_sees_all() {
    let config = ContainerConfig {
        security: SecurityContext {
            privileged: true,
            ..SecurityContext::default()
        },
        ..ContainerConfig::default()
    };
    let spec = json(&facts(&config));
    assert_eq!(spec["linux"]["maskedPaths"], serde_json::json!([]));
    assert_eq!(spec["linux"]["readonlyPaths"], serde_json::json!([]));
    assert!(!has(&options(&spec, "/sys").unwrap(), "ro"));
}

#[test]
fn wishes_of_the_pod_show() {
    let config = ContainerConfig {
        tty: true,
        security: SecurityContext {
            read_only_root_filesystem: true,
            no_new_privileges: true,
            ..SecurityContext::default()
        },
        ..ContainerConfig::default()
    };
    let mut facts = facts(&config);
    facts.environment = vec!["HOME=/srv".into()];
    facts.host_pid = true;
    facts.cgroup_namespace = false;
    facts.hidden = vec!["/var/lib/moorline".into()];
    facts.scratch_dirs = vec!["/tmp".into(), "/run".into()];
    facts.devices = vec![DeviceNode {
        path: "/dev/xvda".into(),
        block: true,
        major: 7,
        minor: 2,
        mode: 0o660,
        uid: 0,
        gid: 6,
    }];
    let spec = json(&facts);
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["process"]["noNewPrivileges"], true);
    assert_eq!(spec["process"]["env"], serde_json::json!(["HOME=/srv"]));
    assert_eq!(spec["root"]["readonly"], true);
    assert_eq!(
        spec["linux"]["namespaces"],
        serde_json::json!([{"type": "mount"}])
    );
    assert!(has(&spec["linux"]["maskedPaths"], "/var/lib/moorline"));
    assert_eq!(
        spec["linux"]["devices"],
        serde_json::json!([
            {"path": "/dev/xvda", "type": "b", "major": 7, "minor": 2, "fileMode": 0o660, "uid": 0, "gid": 6}
        ])
    );
    assert!(has(&options(&spec, "/tmp").unwrap(), "mode=1777"));
    assert!(has(&options(&spec, "/run").unwrap(), "mode=755"));
}

#[test]
fn binds_carry_their_options() {
    let config = ContainerConfig::default();
    let mut facts = facts(&config);
    facts.binds = vec![
        bind("/dev/shm", MountPropagation::None),
        Bind {
            read_only: true,
            ..bind("/ro", MountPropagation::HostToContainer)
        },
        Bind {
            read_only: true,
            recursive_read_only: true,
            ..bind("/rro", MountPropagation::None)
        },
    ];
    let spec = json(&facts);
    assert_eq!(spec["linux"]["rootfsPropagation"], "slave");
    assert_eq!(
        options(&spec, "/dev/shm").unwrap(),
        serde_json::json!(["rbind"]),
        "the pod's, not a fresh one"
    );
    assert_eq!(options(&spec, "/ro").unwrap(), serde_json::json!(["rbind", "ro"]));
    assert_eq!(
        options(&spec, "/rro").unwrap(),
        serde_json::json!(["rbind", "rro"])
    );
    facts.binds.push(bind("/shared", MountPropagation::Bidirectional));
    assert_eq!(json(&facts)["linux"]["rootfsPropagation"], "shared");
}
