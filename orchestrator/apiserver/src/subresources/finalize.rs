//! `namespaces/finalize`: takes away what holds a namespace; without any of that left it is gone.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use moorline_schema::managed_fields::Live;

use crate::cache::entry::{self, Apart};
use crate::http::{Answer, Failure};
use crate::objects::commit::{self, Committed};
use crate::objects::owners::{self, Owners};
use crate::objects::render::Renderer;
use crate::objects::{Call, decode, tree, update};

const ATTEMPTS_MAX: usize = 8;

/// `PUT` of a namespace whose `spec.finalizers` shall hold.
pub(super) async fn update(call: &Call<'_>, body: &Bytes) -> Result<Answer, Failure> {
    let name = call.name()?;
    let asked = decode::object(call, body)?.value;
    let finalizers = tree::at(&asked, &["spec", "finalizers"]).cloned();
    let revision = tree::text(&asked, &["metadata", "resourceVersion"]);
    let collection = call.collection()?;
    let renderer = Renderer::new(call.resource.clone(), call.form, call.query)?;
    let mut current = collection.get(name).ok_or_else(|| call.not_found(name))?;
    for _ in 0..ATTEMPTS_MAX {
        if !matches!(revision, "" | "0") && revision != current.revision.to_string() {
            return Err(Failure::modified(call.resource.about(name)));
        }
        let Apart { object: old, managed } = current.apart();
        let mut new = old.clone();
        tree::set(
            tree::map_mut(&mut new, &["spec"]),
            "finalizers",
            finalizers.clone(),
        );
        let seen = Live {
            object: &old,
            managed,
        };
        let managed = owners::after(call, Owners::Followed(None), Some(seen), &new)?;
        let stored = entry::encode_apart(&collection.head, &new, managed.as_deref());
        let committed = if update::is_done(call.resource.facts, &new) {
            commit::remove(call.api, collection, name, current.revision).await?
        } else {
            commit::put(call.api, collection, name, stored.clone(), current.revision).await?
        };
        match committed {
            Committed::Done { revision } => {
                let json = entry::with_revision(&collection.head, &stored, revision);
                return Ok(renderer.answer(StatusCode::OK, &json, Timestamp::now()));
            }
            Committed::Conflict { current: None } => return Err(call.not_found(name)),
            Committed::Conflict { current: Some(newer) } => current = newer,
            Committed::Beside => {}
        }
    }
    Err(Failure::modified(call.resource.about(name)))
}
