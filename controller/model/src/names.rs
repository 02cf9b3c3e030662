//! Names that follow from what an object is for, so that making it twice finds the first one.

use sha2::{Digest, Sha256};

/// The default prefix of provisioned PVs (`--volume-name-prefix` of the provisioner).
pub const PV_NAME_PREFIX: &str = "pvc";

/// Name of the PV, and of the CSI volume, provisioned for a claim.
pub fn pv_name(claim_uid: &str) -> String {
    format!("{PV_NAME_PREFIX}-{claim_uid}")
}

/// Name of the VolumeAttachment of a volume to a node.
///
/// The parts are hashed without separators, as upstream does: changing that would orphan existing attachments.
pub fn volume_attachment_name(volume_handle: &str, driver_name: &str, node_name: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(volume_handle);
    hash.update(driver_name);
    hash.update(node_name);
    format!("csi-{}", hex::encode(hash.finalize()))
}

/// Name of the claim made for a generic ephemeral volume of a pod.
pub fn ephemeral_claim_name(pod_name: &str, volume_name: &str) -> String {
    format!("{pod_name}-{volume_name}")
}

/// Name under which node status (`volumesAttached`, `volumesInUse`) lists a CSI volume.
pub fn unique_volume_name(driver_name: &str, volume_handle: &str) -> String {
    format!("kubernetes.io/csi/{driver_name}^{volume_handle}")
}

/// Driver name and volume handle of a name made by [`unique_volume_name`].
///
/// Upstream refuses handles that contain `^` here and can then never detach them; this splits at the first one,
/// which is right because driver names cannot contain it.
pub fn parse_unique_volume_name(name: &str) -> Option<(&str, &str)> {
    let (driver_name, volume_handle) = name.strip_prefix("kubernetes.io/csi/")?.split_once('^')?;
    let is_whole = !driver_name.is_empty() && !volume_handle.is_empty();
    is_whole.then_some((driver_name, volume_handle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachment_name_is_the_hash_of_the_parts_in_order() {
        // printf 'vol-1local.csi.moorline.devn1' | sha256sum
        let expected = "csi-216c64e17ff2f70d31306e66385afdc1dc30b9ffe802572a3ffd167201400e5e";
        let name = volume_attachment_name("vol-1", "local.csi.moorline.dev", "n1");
        assert_eq!(name, expected);
        assert_eq!(name.len(), 68);
    }

    #[test]
    fn derived_names() {
        assert_eq!(pv_name("0b5c"), "pvc-0b5c");
        assert_eq!(ephemeral_claim_name("web-0", "scratch"), "web-0-scratch");
    }

    #[test]
    fn unique_volume_names_come_apart_again() {
        for (driver_name, handle) in [("a.b", "h"), ("a.b", "h^i"), ("d", "kubernetes.io/csi/x^y")] {
            let name = unique_volume_name(driver_name, handle);
            assert_eq!(parse_unique_volume_name(&name), Some((driver_name, handle)));
        }
        for other in [
            "",
            "kubernetes.io/csi/",
            "kubernetes.io/csi/d^",
            "kubernetes.io/csi/^h",
            "kubernetes.io/nfs/d^h",
        ] {
            assert_eq!(parse_unique_volume_name(other), None, "{other}");
        }
    }
}
