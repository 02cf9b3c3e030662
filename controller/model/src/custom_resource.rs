//! What custom resources need to be read and written like built-in kinds.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A type `ApiVersion` that is written as the module's `API_VERSION`, and never read.
macro_rules! api_version {
    () => {
        /// `apiVersion` of the kinds; written, never read.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct ApiVersion;

        impl serde::Serialize for ApiVersion {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(API_VERSION)
            }
        }
    };
}

/// Makes a type of the module's `GROUP`, version v1, a kind that clients can ask for.
macro_rules! resource {
    ($kind:ident, $plural:literal, $scope:ty) => {
        impl k8s_openapi::Resource for $kind {
            const API_VERSION: &'static str = API_VERSION;
            const GROUP: &'static str = GROUP;
            const KIND: &'static str = stringify!($kind);
            const VERSION: &'static str = "v1";
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $scope;
        }

        impl k8s_openapi::Metadata for $kind {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(crate) use {api_version, resource};

/// Whether the reference names the object, with its UID or another one or none.
fn is_named_for(reference: &ObjectReference, meta: &ObjectMeta) -> bool {
    reference.name == meta.name && reference.namespace == meta.namespace
}

/// Whether the reference is to that very object: namespace, name and UID.
pub(crate) fn refers_to(reference: &ObjectReference, meta: &ObjectMeta) -> bool {
    is_named_for(reference, meta) && reference.uid.is_some() && reference.uid == meta.uid
}

/// Whether the reference names the object, with its UID or without one.
pub(crate) fn may_refer_to(reference: &ObjectReference, meta: &ObjectMeta) -> bool {
    let uid = reference.uid.as_deref().unwrap_or_default();
    is_named_for(reference, meta) && (uid.is_empty() || Some(uid) == meta.uid.as_deref())
}
