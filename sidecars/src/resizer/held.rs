//! Whether a claim and its volume are this driver's to expand and modify. Pure.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use moorline_model::{claim, volume};

use crate::discovery::DriverFacts;

/// What a claim holds.
#[derive(Debug)]
pub(super) enum Held<'a> {
    /// Nothing that is this driver's.
    Nothing,
    /// A PV of this name, which is not known.
    Unknown(&'a str),
    /// A volume of this driver, bound from both sides.
    Ours(&'a PersistentVolumeClaim, &'a PersistentVolume),
}

pub(super) fn held<'a>(
    held: Option<&'a PersistentVolumeClaim>,
    pv: Option<&'a PersistentVolume>,
    driver: &DriverFacts,
) -> Held<'a> {
    let Some((held, pv_name)) = held.and_then(|held| Some((held, claim::volume_name(held)?))) else {
        return Held::Nothing;
    };
    let Some(pv) = pv else {
        return Held::Unknown(pv_name);
    };
    let csi = pv.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    let is_ours = csi.is_some_and(|csi| csi.driver == driver.driver_name);
    if is_ours && volume::is_linked_to(pv, held) && claim::phase(held) == Some(claim::ClaimPhase::Bound) {
        Held::Ours(held, pv)
    } else {
        Held::Nothing
    }
}
