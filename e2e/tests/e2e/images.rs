//! `moorline image` beside a running cluster: archives in, a pod of one of them, and out again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use moorline_e2e::{cluster::TestCluster, machine, process, require, require_kubectl, require_node, wait};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a tool that has to succeed, and gives what it printed.
fn tool(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A root filesystem of a shell and the libraries it wants, as a layer; its file and digest.
fn layer(dir: &Path) -> (PathBuf, String) {
    let root = dir.join("rootfs");
    let listed = tool("ldd", &["/bin/sh"]);
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/bin/sh"]) {
        let place = root.join(file.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(file, place).unwrap();
    }
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/greeting"), "hello from the image").unwrap();
    let layer = dir.join("layer.tar");
    tool("tar", &["-cf", text(&layer), "-C", text(&root), "."]);
    let digest = digest(&layer);
    (layer, digest)
}

fn digest(file: &Path) -> String {
    let line = tool("sha256sum", &[text(file)]);
    line.split_whitespace().next().unwrap().to_owned()
}

fn config(layer_digest: &str) -> Value {
    json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/sh", "-c", "trap 'exit 0' TERM; read text < /etc/greeting; echo $text; while :; do :; done"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
    })
}

fn docker_archive(dir: &Path, name: &str) -> PathBuf {
    let (_, layer_digest) = layer(dir);
    fs::write(dir.join("config.json"), config(&layer_digest).to_string()).unwrap();
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = dir.join("docker.tar");
    let entries = ["manifest.json", "config.json", "layer.tar"];
    tool(
        "tar",
        &[&["-cf", text(&archive), "-C", text(dir)], entries.as_slice()].concat(),
    );
    archive
}

/// Puts a document among the blobs; its descriptor.
fn blob(blobs: &Path, media_type: &str, content: &[u8]) -> Value {
    let incoming = blobs.join("incoming");
    fs::write(&incoming, content).unwrap();
    let digest = digest(&incoming);
    fs::rename(&incoming, blobs.join(&digest)).unwrap();
    json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len()})
}

fn oci_archive(dir: &Path, name: &str) -> PathBuf {
    const TYPES: &str = "application/vnd.oci.image";
    let (layer_file, layer_digest) = layer(dir);
    let (root, blobs) = (dir.join("oci"), dir.join("oci/blobs/sha256"));
    fs::create_dir_all(&blobs).unwrap();
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let layer = blob(
        &blobs,
        &format!("{TYPES}.layer.v1.tar"),
        &fs::read(layer_file).unwrap(),
    );
    let config = blob(
        &blobs,
        &format!("{TYPES}.config.v1+json"),
        config(&layer_digest).to_string().as_bytes(),
    );
    let manifest_type = format!("{TYPES}.manifest.v1+json");
    let manifest =
        json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer]});
    let mut manifest = blob(&blobs, &manifest_type, manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(root.join("index.json"), index.to_string()).unwrap();
    let archive = dir.join("oci.tar");
    tool("tar", &["-cf", text(&archive), "-C", text(&root), "."]);
    archive
}

/// `moorline image` on a cluster's state directory.
fn image(cluster: &TestCluster, args: &[&str]) -> (Option<i32>, String, String) {
    let state = cluster.state();
    process::run(&[&["image"], args, &["--state-dir", text(&state)]].concat())
}

fn pod(name: &str, image: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: app, image: {image}, imagePullPolicy: IfNotPresent}}]
"
    )
}

#[test]
fn archives_are_loaded_beside_a_running_cluster_and_pods_run_them() {
    require_node!();
    require_kubectl!();
    for name in ["tar", "ldd", "sha256sum"] {
        require!(machine::has_tool(name), format!("{name} is missing"));
    }
    let cluster = TestCluster::start(&[]);
    let kubectl = cluster.kubectl();
    for (number, name) in ["example.test/docker:1", "example.test/oci:2"]
        .into_iter()
        .enumerate()
    {
        let dir = cluster.root().join(format!("archive-{number}"));
        fs::create_dir(&dir).unwrap();
        let archive = match number {
            0 => docker_archive(&dir, name),
            _ => oci_archive(&dir, name),
        };
        let (code, stdout, stderr) = image(&cluster, &["load", text(&archive)]);
        assert_eq!(
            (code, stdout.trim()),
            (Some(0), &*format!("loaded {name}")),
            "{stderr}"
        );
        let (code, stdout, stderr) = image(&cluster, &["ls"]);
        assert!(code == Some(0) && stdout.contains(name), "{stdout}{stderr}");

        kubectl.apply_ok(&pod("app", name));
        kubectl.wait_field("pod", "app", "{.status.phase}", "Running", LIMIT);
        wait::until("the image's own file in the log", LIMIT, || {
            let log = kubectl.run(&["logs", "app"]);
            if log == "hello from the image" {
                Ok(())
            } else {
                Err(log)
            }
        });
        let (code, _, stderr) = image(&cluster, &["rm", name]);
        assert!(
            code == Some(1) && stderr.contains("is used by container"),
            "{stderr}"
        );
        kubectl.run(&["delete", "pod", "app", "--timeout=60s"]);
        let (code, stdout, stderr) = image(&cluster, &["rm", name]);
        assert_eq!(
            (code, stdout.trim()),
            (Some(0), &*format!("removed {name}")),
            "{stderr}"
        );
        let (_, stdout, _) = image(&cluster, &["ls"]);
        assert!(!stdout.contains(name), "{stdout}");
    }
    cluster.finish();
}

#[test]
fn what_is_no_image_archive_is_refused_in_plain_words() {
    require_node!();
    let cluster = TestCluster::start(&[]);
    let dir = cluster.root().to_owned();
    fs::write(
        dir.join("letter"),
        "Dear reader, this is no archive. ".repeat(100),
    )
    .unwrap();
    fs::write(dir.join("short"), "x").unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::create_dir(dir.join("some")).unwrap();
    fs::copy("/bin/sh", dir.join("shell")).unwrap();
    fs::write(dir.join("some/file"), "text").unwrap();
    tool(
        "tar",
        &["-cf", text(&dir.join("other.tar")), "-C", text(&dir), "some"],
    );
    tool(
        "tar",
        &[
            "-czf",
            text(&dir.join("cut.tar.gz")),
            "-C",
            text(&dir),
            "some",
            "shell",
        ],
    );
    let whole = fs::read(dir.join("cut.tar.gz")).unwrap();
    fs::write(dir.join("cut.tar.gz"), &whole[..whole.len() / 2]).unwrap();
    for (file, says) in [
        ("letter", "it is no tar archive"),
        ("short", "it is no tar archive"),
        ("empty", "neither a docker-archive nor an oci-archive"),
        ("other.tar", "neither a docker-archive nor an oci-archive"),
        ("cut.tar.gz", "it is damaged or cut off"),
        ("missing", "missing"),
    ] {
        let path = dir.join(file);
        let (code, _, stderr) = image(&cluster, &["load", text(&path)]);
        assert_eq!(code, Some(1), "{file}: {stderr}");
        assert!(stderr.contains(says), "{file}: {stderr}");
        assert!(stderr.contains(text(&path)), "{file}: {stderr}");
    }
    cluster.finish();
}
