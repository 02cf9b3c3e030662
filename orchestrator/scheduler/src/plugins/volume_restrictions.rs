//! VolumeRestrictions: a claim of access mode ReadWriteOncePod is one pod's alone, cluster-wide.

use moorline_model::access_mode::{AccessMode, AccessModes};

use crate::{
    snapshot::{PodFacts, Snapshot},
    verdict::{Rejection, Verdict},
};

/// Refuses every node while another pod uses such a claim of this pod.
pub fn filter(pod: &PodFacts<'_>, snapshot: &Snapshot<'_>) -> Verdict {
    for claim in &pod.claims {
        let Some(object) = &claim.object else { continue };
        let modes = object
            .spec
            .as_ref()
            .and_then(|spec| spec.access_modes.clone())
            .unwrap_or_default();
        let alone = AccessModes::parse(&modes).contains(AccessMode::ReadWriteOncePod);
        if alone
            && snapshot
                .ledger
                .is_claim_used(&claim.namespace, &claim.name, &pod.uid)
        {
            return Err(Rejection::because(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            ));
        }
    }
    Ok(())
}
