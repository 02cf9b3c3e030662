//! One intent as text: all that is needed to ask the driver again, and to write the PV that comes of it. Pure.
//!
//! References to secrets are in it, their values never: a plan has none, they are read right before each call.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{PersistentVolume, SecretReference};
use moorline_proto::csi::CreateVolumeRequest;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use crate::provisioner::plan::Plan;
use crate::provisioner::source::SourceKey;

/// Of the text. A reader that doesn't know the version leaves the intent alone.
const VERSION: u32 = 1;

/// An intent that can't be read: written by another version, or edited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IntentError {
    #[error("not an intent: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("version {0} is unknown, this program knows {VERSION}")]
    Version(u32),
    #[error("its request is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("its request is not a CreateVolumeRequest: {0}")]
    Request(#[from] prost::DecodeError),
    #[error("it is about volume {found:?}, filed under {key:?}")]
    Misfiled { key: String, found: String },
}

/// The form of the text. Names that people look for come first.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    version: u32,
    /// `csi.v1.CreateVolumeRequest` in protobuf, as base64: sent again, it must be the same to the last byte.
    request: String,
    class_name: String,
    class_uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selected_node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<SecretReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<SourceKey>,
    requested_bytes: i64,
    persistent_volume: PersistentVolume,
}

/// The text of a plan.
pub(crate) fn encode(plan: &Plan) -> String {
    let mut request = plan.request.clone();
    // A plan has none. If that ever changes, they still don't get out here.
    request.secrets.clear();
    let text = Text {
        version: VERSION,
        request: STANDARD.encode(request.encode_to_vec()),
        class_name: plan.class_name.clone(),
        class_uid: plan.class_uid.clone(),
        selected_node: plan.selected_node.clone(),
        secret: plan.secret.clone(),
        source: plan.source.clone(),
        requested_bytes: plan.requested_bytes,
        persistent_volume: plan.draft.clone(),
    };
    serde_json::to_string(&text).expect("maps with string keys and numbers are valid JSON")
}

/// The plan of a text filed under `key`, the volume's name.
pub(crate) fn decode(key: &str, text: &str) -> Result<Plan, IntentError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_str(text)?;
    if version != VERSION {
        return Err(IntentError::Version(version));
    }
    let text: Text = serde_json::from_str(text)?;
    let request = CreateVolumeRequest::decode(STANDARD.decode(&text.request)?.as_slice())?;
    let pv_name = text.persistent_volume.metadata.name.clone().unwrap_or_default();
    if request.name != key || pv_name != key {
        return Err(IntentError::Misfiled {
            key: key.to_string(),
            found: request.name,
        });
    }
    let spec = text.persistent_volume.spec.as_ref();
    Ok(Plan {
        request,
        secret: text.secret,
        requested_bytes: text.requested_bytes,
        selected_node: text.selected_node,
        claim: spec.and_then(|spec| spec.claim_ref.clone()).unwrap_or_default(),
        source: text.source,
        class_name: text.class_name,
        class_uid: text.class_uid,
        draft: text.persistent_volume,
    })
}

#[cfg(test)]
mod tests {
    use moorline_proto::csi::{Topology, TopologyRequirement, VolumeContentSource, volume_content_source};
    use serde_json::json;

    use super::*;
    use crate::discovery::ControllerCapability;
    use crate::provisioner::{ProvisionerConfig, plan::plan};
    use crate::testing::{claim, class, driver};

    fn full_plan() -> Plan {
        let parameters = json!({"parameters": {
            "pool": "p1", "csi.storage.k8s.io/fstype": "xfs",
            "csi.storage.k8s.io/provisioner-secret-name": "s", "csi.storage.k8s.io/provisioner-secret-namespace": "ns",
        }, "mountOptions": ["noatime"]});
        let facts = driver(&[ControllerCapability::CreateDeleteVolume]);
        let config = ProvisionerConfig::new("/csi.sock");
        let mut plan = plan(&claim(json!({})), &class(parameters), &facts, &config).expect("a plan");
        plan.selected_node = Some("n1".into());
        plan.source = Some(SourceKey {
            kind: crate::provisioner::source::SourceKind::Claim,
            namespace: "ns".into(),
            name: "old".into(),
        });
        let segments = [("zone".to_string(), "a".to_string())].into();
        plan.request.accessibility_requirements = Some(TopologyRequirement {
            requisite: vec![Topology { segments }],
            preferred: Vec::new(),
        });
        plan.request.volume_content_source = Some(VolumeContentSource {
            r#type: Some(volume_content_source::Type::Volume(
                volume_content_source::VolumeSource {
                    volume_id: "vol-0".into(),
                },
            )),
        });
        plan.request.mutable_parameters = [("iops".to_string(), "5".to_string())].into();
        plan
    }

    #[test]
    fn a_plan_comes_back_whole() {
        let plan = full_plan();
        assert_eq!(decode("pvc-u1", &encode(&plan)).expect("an intent"), plan);
    }

    #[test]
    fn secret_values_never_get_in() {
        let mut plan = full_plan();
        plan.request.secrets = [("password".to_string(), "hunter2".to_string())].into();
        let text = encode(&plan);
        let read = decode("pvc-u1", &text).expect("an intent");
        assert!(read.request.secrets.is_empty() && !text.contains("hunter2"));
        assert_eq!(
            read.secret.and_then(|secret| secret.name).as_deref(),
            Some("s"),
            "the reference is kept"
        );
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let good = encode(&full_plan());
        let cases = [
            ("pvc-u1", "{".to_string(), "not an intent"),
            (
                "pvc-u1",
                good.replace("\"version\":1", "\"version\":2"),
                "version 2 is unknown",
            ),
            (
                "pvc-u1",
                good.replace("\"request\":\"", "\"request\":\"!"),
                "not base64",
            ),
            (
                "pvc-u1",
                good.replace("\"request\":\"", "\"request\":\"AAAA"),
                "not a CreateVolumeRequest",
            ),
            ("pvc-u2", good, "filed under \"pvc-u2\""),
        ];
        for (key, text, says) in cases {
            let error = decode(key, &text).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
