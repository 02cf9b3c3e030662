//! Manifests that several tests apply.

use std::path::{Path, PathBuf};

/// The folder of the examples that the README names.
pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e is a folder of the workspace")
        .join("examples")
}

/// The StorageClass of the quickstart, with another binding mode or reclaim policy.
pub(crate) fn class(name: &str, binding_mode: &str, reclaim_policy: &str) -> String {
    format!(
        "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {name}}}
provisioner: local.csi.moorline.dev
volumeBindingMode: {binding_mode}
reclaimPolicy: {reclaim_policy}
allowVolumeExpansion: true
"
    )
}

/// A claim.
pub(crate) fn claim(name: &str, class: &str, access_mode: &str, size: &str) -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  storageClassName: {class}
  accessModes: [{access_mode}]
  resources: {{requests: {{storage: {size}}}}}
"
    )
}

/// A pod that runs a shell script with a claim at /data.
pub(crate) fn pod(name: &str, claim: &str, script: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
    - name: app
      image: moorline.local/host
      command: [/bin/sh, -c, {script:?}]
      volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
    - name: data
      persistentVolumeClaim: {{claimName: {claim}}}
"
    )
}

/// A script that does something and then stays until it is asked to end.
pub(crate) fn and_stay(script: &str) -> String {
    format!("trap 'exit 0' TERM; {script}; while :; do sleep 1 & wait $!; done")
}

/// Several documents as one.
pub(crate) fn together(documents: &[String]) -> String {
    documents.join("\n---\n")
}
