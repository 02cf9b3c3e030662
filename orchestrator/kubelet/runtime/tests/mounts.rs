//! Volumes in containers: binds, propagation, devices. Needs root.

#[cfg(test)]
#[expect(dead_code, reason = "not every test file uses all of it")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moorline_container_runtime::{ContainerRuntime, Device, Mount, MountPropagation, RuntimeError};
use moorline_mount::mount;
use support::{Bed, can_run, eventually, log_text};

const LOOP: &str = "echo up; while :; do sleep 0.02; done";

#[cfg(test)]
fn volume(bed: &Bed, name: &str) -> PathBuf {
    let dir = bed.dir.path().join("volumes").join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn at(host: &Path, container: &str) -> Mount {
    Mount {
        host_path: host.to_owned(),
        container_path: container.into(),
        ..Mount::default()
    }
}

#[tokio::test]
async fn data_goes_both_ways_and_read_only_is_kept() {
    if !can_run("data_goes_both_ways_and_read_only_is_kept") {
        return;
    }
    let bed = Bed::new().await;
    let (rw, ro) = (volume(&bed, "rw"), volume(&bed, "ro"));
    let file = bed.dir.path().join("single");
    fs::write(&file, "one file\n").unwrap();
    fs::write(ro.join("in"), "from outside\n").unwrap();
    let script =
        "cat /ro/in /etc/deep/single; echo out > /data/out; echo x > /ro/x || echo refused; ls /data/nested";
    let mut config = bed.script("main", script).await;
    fs::create_dir(rw.join("nested")).unwrap();
    fs::write(ro.join("inner"), "").unwrap();
    config.mounts = vec![
        at(&ro, "/data/nested"),
        at(&rw, "/data"),
        Mount {
            read_only: true,
            ..at(&ro, "/ro")
        },
        at(&file, "/etc/deep/single"),
    ];
    let (status, log) = bed.run_to_end("binds", config).await;
    let log: Vec<&str> = log.lines().filter(|line| !line.contains("/ro/x")).collect();
    assert_eq!(
        log,
        ["from outside", "one file", "refused", "in", "inner"],
        "{status:?}"
    );
    assert_eq!(fs::read_to_string(rw.join("out")).unwrap(), "out\n");
    assert!(!ro.join("x").exists());
    bed.assert_clean_end().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn mounts_travel_as_asked() {
    if !can_run("mounts_travel_as_asked") {
        return;
    }
    let bed = Bed::new().await;
    let base = volume(&bed, "base");
    let base_mount = support::Mounted::shared(&base);
    for name in ["late", "made"] {
        fs::create_dir(base.join(name)).unwrap();
    }
    let with = |propagation| Mount {
        propagation,
        ..at(&base, "/v")
    };
    let sandbox = bed.sandbox("travel").await;
    let mut ids = Vec::new();
    for (name, propagation) in [
        ("none", MountPropagation::None),
        ("slave", MountPropagation::HostToContainer),
        ("shared", MountPropagation::Bidirectional),
    ] {
        let mut config = bed.script(name, LOOP).await;
        config.mounts = vec![with(propagation)];
        config.security.privileged = true;
        ids.push(bed.run(&sandbox, config).await);
        bed.logged("travel", name, "up").await;
    }
    let in_container = async |number: usize, script: &str| {
        let command = ["sh", "-c", script].map(str::to_owned);
        bed.runtime
            .exec_sync(&ids[number], &command, Some(Duration::from_secs(30)))
            .await
            .unwrap()
            .exit_code
    };
    let late = support::Mounted::tmpfs(&base.join("late"));
    fs::write(base.join("late/seen"), "").unwrap();
    assert_eq!(
        in_container(0, "test -e /v/late/seen").await,
        1,
        "None: later mounts stay out"
    );
    assert_eq!(
        in_container(1, "test -e /v/late/seen").await,
        0,
        "HostToContainer: later mounts come in"
    );
    assert_eq!(
        in_container(2, "test -e /v/late/seen").await,
        0,
        "Bidirectional: later mounts come in"
    );
    let mount = "mount -t tmpfs made /v/made && touch /v/made/by-container";
    assert_eq!(in_container(0, mount).await, 0);
    assert_eq!(in_container(1, mount).await, 0);
    assert!(
        !base.join("made/by-container").exists(),
        "neither None nor HostToContainer lets mounts out"
    );
    assert_eq!(in_container(2, mount).await, 0);
    assert!(
        base.join("made/by-container").exists(),
        "Bidirectional lets mounts out"
    );
    assert_eq!(in_container(2, "umount /v/made").await, 0);
    assert!(!base.join("made/by-container").exists());
    drop(late);
    eventually(
        || async { in_container(1, "test -e /v/late/seen").await == 1 },
        "the unmount comes in",
    )
    .await;
    for id in &ids {
        bed.runtime.remove_container(id).await.unwrap();
    }
    // A container that would keep the volume busy would make this fail.
    drop(base_mount);
    assert!(!mount::is_mount_point(&base).unwrap());
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn propagation_is_refused_where_it_would_not_work() {
    if !can_run("propagation_is_refused_where_it_would_not_work") {
        return;
    }
    let bed = Bed::new().await;
    let base = volume(&bed, "private");
    let mounted = support::Mounted::tmpfs(&base);
    mount::make_private(&base).unwrap();
    let sandbox = bed.sandbox("refused").await;
    for propagation in [MountPropagation::HostToContainer, MountPropagation::Bidirectional] {
        let mut config = bed.script("main", "true").await;
        config.mounts = vec![Mount {
            propagation,
            ..at(&base, "/v")
        }];
        let error = bed.runtime.create_container(&sandbox, config).await.unwrap_err();
        assert!(
            matches!(&error, RuntimeError::Invalid { why, .. } if why.contains("needs it to be on")),
            "{error}"
        );
    }
    mounted.unmount().unwrap();
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn unmounting_a_volume_after_its_container_works_at_once() {
    if !can_run("unmounting_a_volume_after_its_container_works_at_once") {
        return;
    }
    let bed = Bed::new().await;
    let base = volume(&bed, "busy");
    let sandbox = bed.sandbox("busy").await;
    for attempt in 0..5 {
        let mounted = support::Mounted::tmpfs(&base);
        let mut config = bed
            .script("main", "cd /v; echo x > file; exec sleep 100 < file")
            .await;
        config.attempt = attempt;
        config.mounts = vec![at(&base, "/v")];
        let id = bed.run(&sandbox, config).await;
        eventually(|| async { base.join("file").exists() }, "the container writes").await;
        bed.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
        mounted.unmount().unwrap();
    }
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn block_devices_can_be_read_as_allowed() {
    if !can_run("block_devices_can_be_read_as_allowed") {
        return;
    }
    let bed = Bed::new().await;
    let file = bed.dir.path().join("disk");
    fs::write(&file, [b'A'; 1 << 20]).unwrap();
    let device = match support::LoopDevice::attach(&file) {
        Ok(device) => device,
        Err(error) => {
            return eprintln!("skipped: block_devices_can_be_read_as_allowed: no loop device: {error}");
        }
    };
    let link = bed.dir.path().join("link-to-device");
    std::os::unix::fs::symlink(&device.path, &link).unwrap();
    let script =
        "head -c 3 /dev/xvda; head -c 3 /raw; echo; printf BBB > /dev/xvda && echo written; ls -l /dev/xvda";
    let with = |permissions: &str, place: &str| Device {
        host_path: link.clone(),
        container_path: place.into(),
        permissions: permissions.to_owned(),
    };
    let mut config = bed.script("main", script).await;
    config.devices = vec![with("rwm", "/dev/xvda"), with("rwm", "/raw")];
    let (status, log) = bed.run_to_end("block", config).await;
    assert!(log.starts_with("AAAAAA\nwritten\nb"), "{status:?} {log}");
    let mut config = bed
        .script(
            "main",
            "head -c 3 /dev/xvda; printf CCC > /dev/xvda || echo refused",
        )
        .await;
    config.devices = vec![with("r", "/dev/xvda")];
    let sandbox = bed.sandbox("block-ro").await;
    let id = bed.run(&sandbox, config).await;
    let log = log_text(&bed.exited(&id).await.log_path);
    if Path::new("/sys/fs/cgroup/devices/devices.list").exists() {
        assert!(log.contains("BBB") && log.contains("refused"), "{log}");
    } else {
        eprintln!("skipped: block_devices_can_be_read_as_allowed: read-only part: no device cgroup");
    }
    bed.assert_clean_end().await;
}
