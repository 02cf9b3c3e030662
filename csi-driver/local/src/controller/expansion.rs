//! ControllerExpandVolume.

use std::sync::Arc;

use moorline_driver_sdk::{
    DriverError, async_trait,
    request::{ExpandVolume, VolumeCapability},
    traits::VolumeExpansion,
    volume::ExpandedVolume,
};

use super::{LocalController, Member, files_in};
use crate::{
    backend::{self, NewData},
    failpoint, fit,
    reach::Nodes,
    record::Record,
    requested::grown_size,
};

fn check_usable(
    nodes: Nodes,
    record: &Record,
    capability: Option<&VolumeCapability>,
) -> Result<(), DriverError> {
    capability.map_or(Ok(()), |capability| {
        fit::fit(nodes, record.content, capability).map_err(DriverError::invalid)
    })
}

/// Bytes that are reserved for a growth: given back unless it comes to its end.
struct Reservation {
    member: Arc<Member>,
    old: Arc<Record>,
    new_bytes: u64,
    grown: Option<Arc<Record>>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let grown = self.grown.take();
        self.member
            .catalog
            .finish_expand(&self.old, self.new_bytes, grown);
    }
}

/// Grows the volume. Blocks.
fn expand(member: &Arc<Member>, old: &Arc<Record>, bytes: u64) -> Result<(), DriverError> {
    member.catalog.begin_expand(old, bytes, member.pool.space()?)?;
    let mut reservation = Reservation {
        member: Arc::clone(member),
        old: Arc::clone(old),
        new_bytes: bytes,
        grown: None,
    };
    let grown = Record {
        capacity_bytes: bytes,
        ..Record::clone(old)
    };
    let directory = member.pool.directory(&grown.volume_id);
    let new = NewData {
        bytes,
        provisioning: grown.provisioning,
    };
    // The data first: a record never promises more than there is.
    backend::of_content(grown.content)
        .grow(files_in(&directory, &grown), new)
        .map_err(|error| error.into_driver_error("grow the volume's data"))?;
    failpoint::hit("expand::after_data")?;
    member.pool.update(&grown)?;
    reservation.grown = Some(Arc::new(grown));
    Ok(())
}

#[async_trait]
impl VolumeExpansion for LocalController {
    async fn expand_volume(&self, request: ExpandVolume) -> Result<ExpandedVolume, DriverError> {
        let (member, record) = self.find::<Record>(request.volume_id.as_str())?;
        check_usable(self.reach.nodes(), &record, request.capability.as_ref())?;
        let backend = backend::of_content(record.content);
        let is_node_expansion_required = backend.needs_node_expansion();
        let old_bytes = record.capacity_bytes;
        let Some(size) = grown_size(&record, request.capacity, backend.sizes(record.content))? else {
            return Ok(ExpandedVolume {
                capacity_bytes: old_bytes,
                is_node_expansion_required,
            });
        };
        member.all_have_left(&self.blocking).await;
        let (member, old) = (Arc::clone(member), Arc::clone(&record));
        let work = move || expand(&member, &old, size);
        self.blocking.run("expand the volume", work).await??;
        tracing::info!(
            volume.id = &*record.volume_id,
            from_bytes = old_bytes,
            to_bytes = size,
            "Volume expanded"
        );
        Ok(ExpandedVolume {
            capacity_bytes: size,
            is_node_expansion_required,
        })
    }
}
