//! Images from archives: loaded, run, removed; and archives that must not be. Needs root.

#[cfg(test)]
#[expect(dead_code, reason = "not every test file uses all of it")]
mod support;

use std::fs;
use std::path::Path;

use moorline_container_runtime::{ContainerConfig, ContainerRuntime, ImageError, ImageRef, ImageService};
use support::archives::{
    config, digest, docker_archive, gzip, libraries, oci_archive, program, tar, tar_with_link,
    tar_with_promise, write,
};
use support::{Bed, can_run};

/// A layer with a shell and `cat`, and what they need.
fn base_layer() -> Vec<u8> {
    let mut paths: Vec<String> = vec!["/bin/sh".into(), "/bin/cat".into()];
    for binary in paths.clone() {
        paths.extend(libraries(&binary));
    }
    paths.sort();
    paths.dedup();
    let contents: Vec<Vec<u8>> = paths.iter().map(|path| program(path)).collect();
    let mut files: Vec<(&str, &[u8])> = vec![
        (
            "etc/passwd",
            b"root:x:0:0::/root:/bin/sh\napp:x:500:501::/srv:/bin/sh\n",
        ),
        ("etc/group", b"root:x:0:\nextra:x:77:app\n"),
        ("greeting", b"lower\n"),
        ("gone", b"lower\n"),
    ];
    files.extend(
        paths
            .iter()
            .map(|path| path.trim_start_matches('/'))
            .zip(contents.iter().map(Vec::as_slice)),
    );
    tar(&files)
}

fn container(image: ImageRef) -> ContainerConfig {
    ContainerConfig {
        name: "main".into(),
        image,
        log_path: "main/0.log".into(),
        ..ContainerConfig::default()
    }
}

/// Everything the store keeps, for comparing.
#[cfg(test)]
fn inventory(bed: &Bed) -> Vec<String> {
    let images = bed.state().join("images");
    let mut found = Vec::new();
    for dir in ["", "blobs/sha256", "l"] {
        found.extend(
            fs::read_dir(images.join(dir))
                .unwrap()
                .flatten()
                .map(|entry| entry.path().display().to_string()),
        );
    }
    found.sort();
    found
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, or one flat table")]
async fn image_of_docker_runs_as_it_says() {
    if !can_run("image_of_docker_runs_as_it_says") {
        return;
    }
    let mut bed = Bed::new().await;
    let base = base_layer();
    let upper = tar(&[("greeting", b"upper\n"), (".wh.gone", b"")]);
    let process = serde_json::json!({
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["read a < /greeting; echo $a $WHO $HOME $PWD; cat /gone || echo hidden; cat /proc/self/status"],
        "Env": ["WHO=image", "PATH=/bin"],
        "WorkingDir": "/srv/new",
        "User": "app",
    });
    let config = config(&[&base, &upper], process);
    let archive = docker_archive("demo:1", &config, &[&base, &upper]);
    let path = write(bed.dir.path(), "demo.tar.gz", &gzip(&archive));
    let loaded = bed.runtime.load(&path).await.unwrap();
    let expected = ImageRef {
        id: format!("sha256:{}", digest(&config)),
        name: "docker.io/library/demo:1".to_owned(),
    };
    assert_eq!(loaded, std::slice::from_ref(&expected));
    assert_eq!(
        bed.runtime.load(&path).await.unwrap(),
        std::slice::from_ref(&expected),
        "loading again changes nothing"
    );
    for name in ["demo:1", "docker.io/demo:1", expected.id.as_str()] {
        assert_eq!(
            bed.runtime.ensure_image(name).await.unwrap().id,
            expected.id,
            "{name}"
        );
    }
    let (status, log) = bed.run_to_end("docker", container(expected.clone())).await;
    assert_eq!(status.exit_code, Some(0), "{status:?} {log}");
    assert!(log.starts_with("upper image /srv /srv/new\n"), "{log}");
    assert!(log.contains("hidden\n"), "{log}");
    assert!(
        log.contains("Uid:\t500\t500\t500\t500\n") && log.contains("Gid:\t501\t501\t501\t501\n"),
        "{log}"
    );
    assert!(log.contains("Groups:\t77 501 \n"), "{log}");
    let used = bed.runtime.remove("demo:1").await.unwrap_err();
    assert!(matches!(used, ImageError::InUse { .. }), "{used}");
    bed.reopen().await;
    let listed = ImageService::list(&bed.runtime).await.unwrap();
    assert_eq!(
        listed[0].names,
        ["docker.io/library/demo:1"],
        "a restart keeps images"
    );
    assert_eq!(
        (listed[0].user.as_str(), listed[0].size_bytes > 1000),
        ("app", true)
    );
    for sandbox in bed.runtime.list_pod_sandboxes().await.unwrap() {
        bed.runtime.remove_pod_sandbox(&sandbox.id).await.unwrap();
    }
    bed.runtime.remove("demo:1").await.unwrap();
    let missing = bed.runtime.ensure_image("demo:1").await.unwrap_err();
    assert!(
        missing.to_string().contains("moorline image load FILE"),
        "{missing}"
    );
    assert_eq!(
        inventory(&bed).len(),
        4,
        "only the empty layout is left: {:?}",
        inventory(&bed)
    );
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn image_of_an_oci_archive_runs() {
    if !can_run("image_of_an_oci_archive_runs") {
        return;
    }
    let bed = Bed::new().await;
    let base = base_layer();
    let config = config(&[&base], serde_json::json!({"Cmd": ["/bin/cat", "/greeting"]}));
    let archive = oci_archive("quay.io/team/app:v1", &config, &[&gzip(&base)], &[]);
    let loaded = bed
        .runtime
        .load(&write(bed.dir.path(), "app.tar", &archive))
        .await
        .unwrap();
    assert_eq!(loaded[0].name, "quay.io/team/app:v1");
    let (status, log) = bed.run_to_end("oci", container(loaded[0].clone())).await;
    assert_eq!(
        (status.exit_code, log.as_str()),
        (Some(0), "lower\n"),
        "{status:?}"
    );
    let mut written = container(loaded[0].clone());
    written.command = ["/bin/sh", "-c", "echo new > /greeting; cat /greeting"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(bed.run_to_end("writes", written).await.1, "new\n");
    let (_, log) = bed.run_to_end("fresh", container(loaded[0].clone())).await;
    assert_eq!(log, "lower\n", "containers don't see each other's changes");
    bed.assert_clean_end().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, or one flat table")]
async fn bad_archives_are_refused_and_leave_nothing() {
    if !can_run("bad_archives_are_refused_and_leave_nothing") {
        return;
    }
    let bed = Bed::new().await;
    let layer = tar(&[("a", b"content")]);
    let zipped = gzip(&layer);
    let good = config(&[&layer], serde_json::json!({"Cmd": ["/a"]}));
    let evil_layer = tar(&[("../../../../etc/moorline-evil", b"x")]);
    let evil_config = config(&[&evil_layer], serde_json::json!({}));
    let foreign = String::from_utf8(good.clone())
        .unwrap()
        .replace("amd64", "s390x")
        .replace("arm64", "s390x");
    let with_more = config(&[&layer, &layer], serde_json::json!({}));
    let manifest = br#"[{"Config":"../../etc/passwd","RepoTags":["x:1"],"Layers":[]}]"#;
    let strange_tag = docker_archive("UPPER CASE", &good, &[&layer]);
    let mut flipped = zipped.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no archive", b"just text, not a tar file".repeat(100), ""),
        ("empty", Vec::new(), "neither a docker-archive nor an oci-archive"),
        (
            "no manifest",
            tar(&[("readme", b"x")]),
            "neither a docker-archive nor an oci-archive",
        ),
        (
            "name goes up",
            tar(&[("../../etc/moorline-evil", b"x")]),
            "lies outside",
        ),
        (
            "absolute name",
            tar(&[("/etc/moorline-evil", b"x")]),
            "lies outside",
        ),
        (
            "absolute link",
            tar_with_link("manifest.json", "/etc/passwd"),
            "lies outside",
        ),
        (
            "link goes up",
            tar_with_link("manifest.json", "../etc/passwd"),
            "lies outside",
        ),
        (
            "manifest goes up",
            tar(&[("manifest.json", manifest)]),
            "missing in it",
        ),
        (
            "promises eight exabytes",
            tar_with_promise("manifest.json", 1 << 62),
            "",
        ),
        (
            "cut off",
            docker_archive("x:1", &good, &[&layer])[..2000].to_vec(),
            "",
        ),
        (
            "layer goes up",
            docker_archive("x:1", &evil_config, &[&evil_layer]),
            "leads out",
        ),
        (
            "layer differs",
            docker_archive("x:1", &good, &[&tar(&[("a", b"other")])]),
            "has digest",
        ),
        (
            "layers and diff ids differ",
            docker_archive("x:1", &with_more, &[&layer]),
            "1 layers, but names 2",
        ),
        (
            "no layers",
            docker_archive("x:1", &config(&[], serde_json::json!({})), &[]),
            "0 layers",
        ),
        ("strange name", strange_tag, "image name"),
        (
            "built-in name",
            docker_archive("moorline.local/host", &good, &[&layer]),
            "built in",
        ),
        (
            "other machine",
            docker_archive("x:1", foreign.as_bytes(), &[&layer]),
            "is for linux/s390x",
        ),
        (
            "wrong config",
            docker_archive("x:1", b"{{", &[&layer]),
            "not understood",
        ),
        (
            "blob with a false digest",
            oci_archive(
                "x/y:1",
                &good,
                &[&zipped],
                &[(&digest(&zipped), b"something else")],
            ),
            "has digest",
        ),
        (
            "config with a false digest",
            oci_archive("x/y:1", &good, &[&zipped], &[(&digest(&good), b"{}")]),
            "has digest",
        ),
        ("damaged gzip", oci_archive("x/y:1", &good, &[&flipped], &[]), ""),
        (
            "zstd",
            [b"\x28\xb5\x2f\xfd".as_slice(), &[0; 100]].concat(),
            "zstd",
        ),
    ];
    let before = inventory(&bed);
    for (name, bytes, expected) in cases {
        let path = write(bed.dir.path(), "bad.tar", &bytes);
        let error = bed.runtime.load(&path).await.expect_err(name);
        assert!(
            matches!(error, ImageError::BadArchive { .. }),
            "{name}: {error:?}"
        );
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert_eq!(inventory(&bed), before, "{name} left something");
    }
    assert!(!Path::new("/etc/moorline-evil").exists());
    let missing = bed.runtime.load(Path::new("/no/such/file")).await.unwrap_err();
    assert!(matches!(missing, ImageError::Io { .. }), "{missing}");
    let image = docker_archive("ok:1", &good, &[&layer]);
    bed.runtime
        .load(&write(bed.dir.path(), "ok.tar", &image))
        .await
        .unwrap();
    assert_eq!(
        ImageService::list(&bed.runtime).await.unwrap().len(),
        2,
        "the store still works"
    );
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn bomb_fills_neither_disk_nor_memory() {
    if !can_run("bomb_fills_neither_disk_nor_memory") {
        return;
    }
    let bed = Bed::new().await;
    let small = support::Mounted::tmpfs(&bed.state().join("images"));
    let error_or_ok = {
        let mut config = moorline_container_runtime::EmbeddedConfig::new(bed.dir.path().join("other"));
        config.cgroup_root = "moorline-test/bomb".into();
        let images = bed.dir.path().join("other/images");
        fs::create_dir_all(&images).unwrap();
        let limited = support::Mounted::tmpfs(&images);
        let runtime = moorline_container_runtime::EmbeddedRuntime::open(config)
            .await
            .unwrap();
        let bomb = gzip(&tar(&[("manifest.json", &vec![0; 64 << 20])]));
        let result = runtime.load(&write(bed.dir.path(), "bomb.tar", &bomb)).await;
        runtime.close().await;
        let left: Vec<_> = fs::read_dir(&images)
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert!(
            !left
                .iter()
                .any(|name| name.to_string_lossy().starts_with("ingest")),
            "{left:?}"
        );
        limited.unmount().unwrap();
        result
    };
    let error = error_or_ok.unwrap_err();
    assert!(
        error.to_string().contains("more than fits on this machine"),
        "{error}"
    );
    small.unmount().unwrap();
    bed.assert_clean_end().await;
}

#[tokio::test]
async fn names_move_to_the_latest_image() {
    if !can_run("names_move_to_the_latest_image") {
        return;
    }
    let bed = Bed::new().await;
    let (one, two) = (tar(&[("v", b"1")]), tar(&[("v", b"2")]));
    let first = docker_archive("app:latest", &config(&[&one], serde_json::json!({})), &[&one]);
    let second = docker_archive("app:latest", &config(&[&two], serde_json::json!({})), &[&two]);
    let old = bed
        .runtime
        .load(&write(bed.dir.path(), "1.tar", &first))
        .await
        .unwrap()
        .remove(0);
    let new = bed
        .runtime
        .load(&write(bed.dir.path(), "2.tar", &second))
        .await
        .unwrap()
        .remove(0);
    assert_ne!(old.id, new.id);
    assert_eq!(bed.runtime.ensure_image("app").await.unwrap(), new);
    assert_eq!(
        bed.runtime.ensure_image(&old.id).await.unwrap().id,
        old.id,
        "by id it is still there"
    );
    bed.runtime.remove(&old.id).await.unwrap();
    bed.runtime.remove("app").await.unwrap();
    assert!(matches!(
        bed.runtime.remove("app").await,
        Err(ImageError::NotPresent { .. })
    ));
    let sandbox = bed.sandbox("imageless").await;
    assert!(
        bed.runtime
            .create_container(&sandbox, container(new))
            .await
            .is_err()
    );
    bed.assert_clean_end().await;
}
