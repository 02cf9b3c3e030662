//! Volumes made from the pod and the API alone: configMap, secret, downwardAPI, projected, emptyDir, hostPath.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume, VolumeProjection};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use moorline_model::quantity::Amount;

use super::atomic_writer::{self, Payload};
use super::desired::WantedMount;
use super::error::{VolumeError, blocking};
use super::ownership::{self, ChangePolicy};
use super::payload::{self, DEFAULT_MODE, Keys};
use super::spec::{LocalSpec, Spec};
use super::tokens::Tokens;
use super::vol_data::make_directory;
use super::{host_path, vol_data};
use crate::objects::Objects;
use crate::paths::Layout;
use crate::pods::fields::NodeFacts;

/// What local volumes are made with.
#[derive(Debug, Clone)]
pub(crate) struct LocalVolumes {
    pub objects: Objects,
    pub layout: Layout,
    pub tokens: Tokens,
    pub node_ip: IpAddr,
    pub allocatable: BTreeMap<String, Quantity>,
}

/// When the content should be looked at again; none if only changes of objects matter.
pub(crate) type RefreshAt = Option<Timestamp>;

impl LocalVolumes {
    /// Makes the volume, or brings its content up to date. Idempotent; never removes data of an emptyDir.
    pub(crate) async fn set_up(&self, wanted: &WantedMount) -> Result<RefreshAt, VolumeError> {
        let Spec::Local(spec) = &wanted.spec else {
            return Err(VolumeError::Lost);
        };
        let pod = &wanted.pod;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let name = wanted.outer_names.first().cloned().unwrap_or_default();
        let directory = self.layout.pod_volume(uid, spec.plugin(), &name);
        let group = fs_group(pod);
        match spec {
            LocalSpec::HostPath(source) => {
                let path = PathBuf::from(&source.path);
                let kind = source.type_.clone().unwrap_or_default();
                blocking(move || host_path::set_up(&path, &kind)).await?;
                Ok(None)
            }
            LocalSpec::EmptyDir(source) => {
                let source = source.clone();
                blocking(move || make_empty_dir(&directory, &source, group)).await?;
                Ok(None)
            }
            LocalSpec::ConfigMap | LocalSpec::Secret | LocalSpec::DownwardApi | LocalSpec::Projected => {
                let volume = find_volume(pod, &name)?;
                let (payload, refresh_at) = self.payload(pod, &volume).await?;
                let is_tmpfs = spec.is_tmpfs();
                blocking(move || write_files(&directory, &payload, is_tmpfs, group)).await?;
                Ok(refresh_at)
            }
        }
    }

    async fn payload(&self, pod: &Pod, volume: &Volume) -> Result<(Payload, RefreshAt), VolumeError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        if let Some(source) = &volume.config_map {
            let keys = self.config_map(namespace, &source.name, source.optional).await?;
            let default = source.default_mode.unwrap_or(DEFAULT_MODE);
            return Ok((payload::project(keys, source.items.as_deref(), default)?, None));
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let keys = self.secret(namespace, name, source.optional).await?;
            let default = source.default_mode.unwrap_or(DEFAULT_MODE);
            return Ok((payload::project(keys, source.items.as_deref(), default)?, None));
        }
        if let Some(source) = &volume.downward_api {
            let default = source.default_mode.unwrap_or(DEFAULT_MODE);
            let items = source.items.as_deref().unwrap_or_default();
            return Ok((payload::downward(pod, items, default, self.node_facts())?, None));
        }
        let Some(projected) = &volume.projected else {
            return Err(VolumeError::Lost);
        };
        let default = projected.default_mode.unwrap_or(DEFAULT_MODE);
        let mut all = Payload::new();
        let mut refresh_at: RefreshAt = None;
        for source in projected.sources.iter().flatten() {
            let (part, at) = self.projection(pod, namespace, source, default).await?;
            refresh_at = refresh_at.into_iter().chain(at).min();
            all.extend(part);
        }
        Ok((all, refresh_at))
    }

    async fn projection(
        &self,
        pod: &Pod,
        namespace: &str,
        source: &VolumeProjection,
        default: i32,
    ) -> Result<(Payload, RefreshAt), VolumeError> {
        if let Some(source) = &source.config_map {
            let keys = self.config_map(namespace, &source.name, source.optional).await?;
            return Ok((payload::project(keys, source.items.as_deref(), default)?, None));
        }
        if let Some(source) = &source.secret {
            let keys = self.secret(namespace, &source.name, source.optional).await?;
            return Ok((payload::project(keys, source.items.as_deref(), default)?, None));
        }
        if let Some(source) = &source.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            return Ok((payload::downward(pod, items, default, self.node_facts())?, None));
        }
        if let Some(source) = &source.service_account_token {
            let client = self.objects.client();
            let token = self
                .tokens
                .get(client, pod, source.audience.as_deref(), source.expiration_seconds)
                .await?;
            let file = payload::token_file(pod, &token.text, default);
            return Ok((
                Payload::from([(source.path.clone(), file)]),
                Some(token.refresh_at),
            ));
        }
        Err(VolumeError::Refused(
            "projected volume has a source of a kind that is not supported".into(),
        ))
    }

    pub(crate) fn node_facts(&self) -> NodeFacts<'_> {
        NodeFacts {
            node_ip: self.node_ip,
            allocatable: &self.allocatable,
        }
    }

    async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Keys, VolumeError> {
        let object = self.objects.config_map(namespace, name).await;
        let object = object.map_err(VolumeError::api(format!("read configmap {namespace}/{name}")))?;
        Ok(Keys {
            what: "configmap",
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            data: object.map(|object| payload::of_config_map(&object)),
            is_optional: optional.unwrap_or_default(),
        })
    }

    async fn secret(&self, namespace: &str, name: &str, optional: Option<bool>) -> Result<Keys, VolumeError> {
        let object = self.objects.secret(namespace, name).await;
        let object = object.map_err(VolumeError::api(format!("read secret {namespace}/{name}")))?;
        Ok(Keys {
            what: "secret",
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            data: object.map(|object| payload::of_secret(&object)),
            is_optional: optional.unwrap_or_default(),
        })
    }
}

fn find_volume(pod: &Pod, name: &str) -> Result<Volume, VolumeError> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .into_iter()
        .find(|volume| volume.name == name)
        .cloned()
        .ok_or(VolumeError::Lost)
}

/// The pod's `fsGroup`.
pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    let security = pod.spec.as_ref()?.security_context.as_ref()?;
    security.fs_group.and_then(|group| u32::try_from(group).ok())
}

fn mount_tmpfs(directory: &Path, options: &[String]) -> Result<(), VolumeError> {
    let failed = |error: moorline_mount::MountError| VolumeError::Mount {
        action: "mount tmpfs on",
        path: directory.to_owned(),
        reason: error.to_string(),
    };
    if moorline_mount::mount::is_mount_point(directory).map_err(failed)? {
        return Ok(());
    }
    moorline_mount::mount::mount("tmpfs", directory, "tmpfs", options).map_err(failed)
}

fn write_files(
    directory: &Path,
    payload: &Payload,
    is_tmpfs: bool,
    group: Option<u32>,
) -> Result<(), VolumeError> {
    make_directory(directory)?;
    if is_tmpfs {
        mount_tmpfs(directory, &["mode=0755".to_owned()])?;
    }
    set_mode(directory, 0o755)?;
    let unique = format!(
        "{}.{:08x}",
        Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"),
        rand::random::<u32>()
    );
    atomic_writer::write(directory, payload, &unique, |new| match group {
        Some(gid) => ownership::give_to_group(new, gid, true, ChangePolicy::Always),
        None => Ok(()),
    })?;
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), VolumeError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(VolumeError::io("set mode of", path))
}

fn make_empty_dir(
    directory: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<u32>,
) -> Result<(), VolumeError> {
    let is_new = !directory.exists();
    make_directory(directory)?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let mut options = vec!["mode=0777".to_owned()];
            if let Some(limit) = &source.size_limit {
                let bytes = limit
                    .0
                    .parse::<Amount>()
                    .map_err(|error| VolumeError::Refused(error.to_string()))?
                    .bytes();
                if bytes > 0 {
                    options.push(format!("size={bytes}"));
                }
            }
            mount_tmpfs(directory, &options)?;
        }
        other => {
            return Err(VolumeError::Refused(format!(
                "emptyDir medium {other:?} is not supported"
            )));
        }
    }
    if is_new {
        set_mode(directory, 0o777)?;
        if let Some(gid) = group {
            ownership::give_to_group(directory, gid, false, ChangePolicy::Always)?;
        }
    }
    Ok(())
}

/// Takes a local volume away, with its content.
pub(crate) fn tear_down(directory: &Path) -> Result<(), VolumeError> {
    let failed = |error: moorline_mount::MountError| VolumeError::Mount {
        action: "unmount",
        path: directory.to_owned(),
        reason: error.to_string(),
    };
    while moorline_mount::mount::is_mount_point(directory).map_err(failed)? {
        moorline_mount::mount::unmount(directory).map_err(failed)?;
    }
    // Something else mounted inside by a container with mount propagation is not ours to delete into.
    let entries = moorline_mount::mountinfo::read().map_err(failed)?;
    if let Some(inner) = moorline_mount::mountinfo::at_or_below(&entries, directory).first() {
        return Err(VolumeError::Refused(format!(
            "{} is still mounted",
            inner.mount_point.display()
        )));
    }
    match std::fs::remove_dir_all(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(VolumeError::io("remove", directory)(error)),
    }
    remove_empty_parent(directory);
    Ok(())
}

/// The plugin's directory goes with its last volume.
pub(crate) fn remove_empty_parent(directory: &Path) {
    if let Some(parent) = directory.parent() {
        // Not empty: other volumes of the pod are still there.
        vol_data::remove_directory(parent).ok();
    }
}
