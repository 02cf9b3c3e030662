//! Who the driver is, and whether its capabilities fit together.

use std::collections::BTreeSet;

use moorline_proto::csi;

use super::{
    Checked, Demand, Fault,
    context::{Context, demand_that, ok},
    demand,
};

pub(super) const DEMANDS: &[Demand] = &[
    demand!("the driver has a name and a version", [], names_itself),
    demand!("the driver becomes ready", [], is_ready),
    demand!("capabilities come with what they rest on", [], capabilities_fit),
];

async fn names_itself(context: &Context) -> Checked {
    let answer = context
        .identity()
        .get_plugin_info(csi::GetPluginInfoRequest {})
        .await;
    let info = ok("GetPluginInfo", answer)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_well_formed = info.name.len() <= 63
        && info.name.chars().all(is_name)
        && ends(info.name.chars().next())
        && ends(info.name.chars().next_back());
    demand_that(is_well_formed, || {
        format!("{:?} is not a domain name of at most 63 characters", info.name)
    })?;
    demand_that(!info.vendor_version.is_empty(), || {
        "vendor_version is empty".to_owned()
    })
}

async fn is_ready(context: &Context) -> Checked {
    let answer = ok("Probe", context.identity().probe(csi::ProbeRequest {}).await)?;
    demand_that(answer.ready != Some(false), || {
        "Probe says that it is not ready".to_owned()
    })
}

async fn capabilities_fit(context: &Context) -> Checked {
    match misfit(context.capabilities()) {
        None => Ok(()),
        Some(why) => Err(Fault::Failed(why)),
    }
}

/// Pure: what does not fit together in a set of capabilities.
fn misfit(capabilities: &BTreeSet<String>) -> Option<String> {
    let rests_on = [
        ("controller.ListVolumesPublishedNodes", "controller.ListVolumes"),
        ("controller.PublishReadonly", "controller.PublishUnpublishVolume"),
        ("controller.CloneVolume", "controller.CreateDeleteVolume"),
        ("node.VolumeCondition", "node.GetVolumeStats"),
    ];
    let missing = rests_on
        .into_iter()
        .find(|(capability, needs)| capabilities.contains(*capability) && !capabilities.contains(*needs));
    if let Some((capability, needs)) = missing {
        return Some(format!("{capability} is advertised without {needs}"));
    }
    let unknown = capabilities.iter().find(|name| name.ends_with("Unknown"));
    unknown.map(|name| format!("{name} has no meaning"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_found() {
        let cases: [(&[&str], Option<&str>); 7] = [
            (&[], None),
            (
                &["controller.ListVolumes", "controller.ListVolumesPublishedNodes"],
                None,
            ),
            (
                &["controller.ListVolumesPublishedNodes"],
                Some("without controller.ListVolumes"),
            ),
            (
                &["controller.PublishReadonly"],
                Some("without controller.PublishUnpublishVolume"),
            ),
            (
                &["controller.CloneVolume"],
                Some("without controller.CreateDeleteVolume"),
            ),
            (&["node.VolumeCondition"], Some("without node.GetVolumeStats")),
            (&["node.Unknown"], Some("node.Unknown has no meaning")),
        ];
        for (capabilities, expected) in cases {
            let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
            match (misfit(&capabilities), expected) {
                (None, None) => {}
                (Some(why), Some(expected)) => assert!(why.contains(expected), "{why}"),
                (got, _) => panic!("{capabilities:?}: {got:?}"),
            }
        }
    }
}
