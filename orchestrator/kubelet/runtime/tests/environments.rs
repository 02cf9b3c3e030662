//! One story on machines of several kinds, made by changing the mounts of a namespace of its own. Needs root.

#[cfg(test)]
#[expect(dead_code, reason = "not every test file uses all of it")]
mod support;

use std::process::Command;
use std::time::Duration;

use moorline_container_runtime::{ContainerConfig, ContainerRuntime, ImageService};
use support::archives::{config, docker_archive, libraries, program, tar, write};
use support::{Bed, can_run};

/// Says that the process is the one inside.
const INSIDE: &str = "MOORLINE_TEST_INSIDE";

/// Everything a pod does, in short. Does nothing unless one of the tests below starts it.
#[tokio::test]
async fn story() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let mut bed = Bed::new().await;
    let sandbox = bed.sandbox("story").await;
    let mut config = bed
        .script(
            "main",
            "echo up; trap 'exit 6' TERM; while :; do sleep 0.02; done",
        )
        .await;
    config.resources.memory_limit_bytes = Some(64 << 20);
    config.resources.oom_score_adj = Some(500);
    let id = bed.run(&sandbox, config).await;
    bed.logged("story", "main", "up").await;
    bed.reopen().await;
    let command = ["cat", "/etc/hostname", "/proc/1/oom_score_adj"].map(str::to_owned);
    let output = bed
        .runtime
        .exec_sync(&id, &command, Some(Duration::from_secs(30)))
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "story\n500\n");
    bed.runtime
        .stop_container(&id, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(bed.status(&id).await.exit_code, Some(6));
    let (status, log) = bed.run_to_end("image", layered(&bed).await).await;
    assert_eq!(
        (status.exit_code, log.as_str()),
        (Some(0), "upper\nhidden\nwritten\n"),
        "{status:?}"
    );
    bed.assert_clean_end().await;
}

/// A container of an image of two layers, the upper one with a whiteout.
#[cfg(test)]
async fn layered(bed: &Bed) -> ContainerConfig {
    let mut paths: Vec<String> = vec!["/bin/sh".into(), "/bin/cat".into()];
    paths.extend(paths.clone().iter().flat_map(|path| libraries(path)));
    paths.sort();
    paths.dedup();
    let contents: Vec<Vec<u8>> = paths.iter().map(|path| program(path)).collect();
    let mut files: Vec<(&str, &[u8])> = vec![("word", b"lower\n"), ("gone", b"lower\n")];
    files.extend(
        paths
            .iter()
            .map(|path| path.trim_start_matches('/'))
            .zip(contents.iter().map(Vec::as_slice)),
    );
    let (lower, upper) = (tar(&files), tar(&[("word", b"upper\n"), (".wh.gone", b"")]));
    let config = config(
        &[&lower, &upper],
        serde_json::json!({"Entrypoint": ["/bin/sh", "-c"]}),
    );
    let archive = write(
        bed.dir.path(),
        "image.tar",
        &docker_archive("story:1", &config, &[&lower, &upper]),
    );
    let script = "cat /word; test -e /gone || echo hidden; echo written > /word; cat /word";
    ContainerConfig {
        name: "main".into(),
        image: bed.runtime.load(&archive).await.unwrap().remove(0),
        args: vec![script.to_owned()],
        log_path: "main/0.log".into(),
        ..ContainerConfig::default()
    }
}

/// Runs the story after `prepare` in a mount namespace of its own.
#[cfg(test)]
fn story_after(test: &str, prepare: &str) {
    if !can_run(test) {
        return;
    }
    let script = format!("set -e\n{prepare}\nexec \"$0\" --exact story --nocapture");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return eprintln!("skipped: {test}: unshare: {error}"),
    };
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn machine_as_it_is() {
    story_after("machine_as_it_is", "true");
}

#[test]
fn machine_without_cgroups() {
    story_after("machine_without_cgroups", "umount -lR /sys/fs/cgroup");
}

#[test]
fn machine_without_sysfs() {
    story_after("machine_without_sysfs", "umount -lR /sys");
}

#[test]
fn machine_with_cgroup_version_2_alone() {
    let prepare = "umount -lR /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup";
    story_after("machine_with_cgroup_version_2_alone", prepare);
}

#[test]
fn machine_with_read_only_cgroups() {
    let prepare =
        "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mount -o remount,bind,ro $d 2>/dev/null || true; done";
    story_after("machine_with_read_only_cgroups", prepare);
}

#[test]
fn machine_with_shared_mounts() {
    story_after("machine_with_shared_mounts", "mount --make-rshared /");
}

#[test]
fn machine_whose_root_is_an_overlay() {
    let prepare = "\
        mount -t tmpfs none /mnt; mkdir /mnt/upper /mnt/work /mnt/root; \
        mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work none /mnt/root; \
        for d in proc sys dev; do mount --rbind /$d /mnt/root/$d; done; \
        cd /mnt/root; mkdir -p old; pivot_root . old; umount -l /old; cd /";
    story_after("machine_whose_root_is_an_overlay", prepare);
}
