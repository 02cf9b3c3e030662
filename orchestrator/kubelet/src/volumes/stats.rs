//! How full the volumes of claims are, asked of the drivers when somebody scrapes, at most once per interval.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use moorline_proto::csi;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::actual::Mounted;
use super::csi_mount::text;
use super::manager::VolumeManager;
use super::spec::{MountId, Spec};

/// Usage of one claim's volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClaimUsage {
    pub namespace: String,
    pub claim: String,
    pub capacity_bytes: i64,
    pub available_bytes: i64,
    pub used_bytes: i64,
    pub inodes: i64,
    pub inodes_free: i64,
    pub inodes_used: i64,
}

/// The last answers of the drivers.
#[derive(Debug, Default)]
pub(crate) struct UsageCache {
    held: Mutex<HashMap<(String, String), (Instant, ClaimUsage)>>,
}

fn usage(namespace: &str, claim: &str, answer: &csi::NodeGetVolumeStatsResponse) -> ClaimUsage {
    use csi::volume_usage::Unit;
    let mut usage = ClaimUsage {
        namespace: namespace.to_owned(),
        claim: claim.to_owned(),
        ..Default::default()
    };
    for part in &answer.usage {
        match Unit::try_from(part.unit) {
            Ok(Unit::Bytes) => {
                (usage.capacity_bytes, usage.available_bytes, usage.used_bytes) =
                    (part.total, part.available, part.used);
            }
            Ok(Unit::Inodes) => {
                (usage.inodes, usage.inodes_free, usage.inodes_used) =
                    (part.total, part.available, part.used);
            }
            Ok(Unit::Unknown) | Err(_) => {}
        }
    }
    usage
}

impl VolumeManager {
    /// Usage of all claims mounted here; answers younger than `max_age` are given again.
    pub(crate) async fn usage(&self, cache: &UsageCache, max_age: Duration) -> Vec<ClaimUsage> {
        let mounted = self.claims_mounted();
        let asked = mounted.into_iter().map(|(id, csi_spec)| async move {
            let (namespace, claim) = csi_spec.claim.clone()?;
            let slot = (namespace.clone(), claim.clone());
            if let Some((at, usage)) = cache.held.lock().get(&slot)
                && at.elapsed() < max_age
            {
                return Some(usage.clone());
            }
            let driver = self
                .csi
                .drivers
                .get(&csi_spec.driver_name)
                .ok()
                .filter(|driver| driver.capabilities.stats)?;
            let layout = &self.csi.layout;
            let path = if csi_spec.block {
                layout.block_publish_target(&id.pod_uid, &id.spec_name)
            } else {
                layout.publish_target(&id.pod_uid, &id.spec_name)
            };
            let request = csi::NodeGetVolumeStatsRequest {
                volume_id: csi_spec.volume_handle.clone(),
                volume_path: text(&path),
                ..Default::default()
            };
            match driver.client.stats(request).await {
                Ok(answer) => {
                    let usage = usage(&namespace, &claim, &answer);
                    cache.held.lock().insert(slot, (Instant::now(), usage.clone()));
                    Some(usage)
                }
                Err(error) => {
                    tracing::debug!(%error, claim, "Usage of a volume can't be had");
                    None
                }
            }
        });
        let found: Vec<ClaimUsage> = join_all(asked).await.into_iter().flatten().collect();
        cache.held.lock().retain(|slot, _| {
            found
                .iter()
                .any(|usage| usage.namespace == slot.0 && usage.claim == slot.1)
        });
        found
    }

    fn claims_mounted(&self) -> Vec<(MountId, super::spec::CsiSpec)> {
        let state = self.state.lock();
        let mut found: HashMap<(String, String), (MountId, super::spec::CsiSpec)> = HashMap::new();
        for (key, mounts) in state.desired.volumes() {
            for (id, wanted) in mounts {
                let Spec::Csi(csi) = &wanted.spec else { continue };
                let held = state.actual.get(key).and_then(|volume| volume.mounts.get(id));
                if let (Some(claim), true) = (&csi.claim, held.is_some_and(|held| held.state == Mounted::Yes))
                {
                    found.insert(claim.clone(), (id.clone(), csi.clone()));
                }
            }
        }
        found.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_apart() {
        let part = |unit: csi::volume_usage::Unit, total| csi::VolumeUsage {
            available: 1,
            total,
            used: 2,
            unit: unit.into(),
        };
        let answer = csi::NodeGetVolumeStatsResponse {
            usage: vec![
                part(csi::volume_usage::Unit::Inodes, 10),
                part(csi::volume_usage::Unit::Bytes, 100),
            ],
            ..Default::default()
        };
        let got = usage("ns", "c", &answer);
        assert_eq!(
            (got.capacity_bytes, got.inodes, got.inodes_free, got.used_bytes),
            (100, 10, 1, 2)
        );
    }
}
