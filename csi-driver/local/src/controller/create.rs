//! CreateVolume, DeleteVolume, ValidateVolumeCapabilities.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use moorline_driver_sdk::{
    DriverError, ErrorKind, async_trait,
    request::{ContentSource, CreateVolume, DeleteVolume, StringMap, ValidateCapabilities},
    traits::{ContentSources, Volumes},
    volume::{Confirmation, Volume},
};

use super::{LocalController, Member, modification, reservation::Reservation, source::FoundSource};
use crate::{
    backend::{self, Enforcement, Files, NewData},
    catalog::{Begin, Kept as _},
    class::{Class, Quota, own_parameters},
    copying::Copying,
    failpoint, fit,
    ids::volume_id_of,
    record::{Content, Record, Source},
    requested::{Wanted, check_same},
};

impl LocalController {
    /// What is asked for, checked as far as it can be without looking at the disk.
    fn wanted(&self, request: CreateVolume) -> Result<(Arc<Member>, Wanted), DriverError> {
        let class = Class::parse(request.parameters)?;
        let member = Arc::clone(self.member(&class.pool)?);
        let content = fit::plan(self.reach.nodes(), member.pool.backend(), &request.capabilities)?;
        fit::check_class(content, &class)?;
        let topology = request.topology;
        if !topology.is_none_or(|requirement| requirement.admits(&self.here)) {
            return Err(DriverError::exhausted(
                "the volume is wanted on other nodes than this one",
            ));
        }
        let wanted = Wanted {
            content,
            name: request.name,
            capacity: request.capacity,
            class,
            mutable_parameters: request.mutable_parameters.into(),
            source: request.content_source.map(|source| match source {
                ContentSource::Snapshot(snapshot_id) => Source::Snapshot(snapshot_id.into()),
                ContentSource::Volume(volume_id) => Source::Volume(volume_id.into()),
            }),
        };
        Ok((member, wanted))
    }

    /// One try to make it.
    async fn make(
        &self,
        member: &Arc<Member>,
        record: &Record,
        draft: &Arc<(Wanted, Option<FoundSource>)>,
    ) -> Result<Arc<Record>, DriverError> {
        let mut copying = self.copying();
        let (member, record, draft) = (Arc::clone(member), record.clone(), Arc::clone(draft));
        let work = move || create(&member, &draft.0, record, draft.1.as_ref(), &mut copying);
        self.blocking.run("create the volume", work).await?
    }

    /// The volume of that name, if it is there and fits.
    fn existing(
        &self,
        member: &Arc<Member>,
        volume_id: &str,
        wanted: &Wanted,
    ) -> Result<Option<Arc<Record>>, DriverError> {
        let Some(holder) = self.member_with::<Record>(volume_id) else {
            return Ok(None);
        };
        if !Arc::ptr_eq(holder, member) {
            return Err(DriverError::already_exists(format!(
                "volume {} exists, but in pool {}",
                wanted.name,
                holder.pool.name()
            )));
        }
        match holder.catalog.get(volume_id) {
            Ok(record) => {
                check_same(&record, wanted)?;
                Ok(Some(record))
            }
            // Coming or going, and perhaps there to stay: a deletion may still be refused.
            Err(error) if error.kind() == ErrorKind::NotFound => Err(DriverError::new(
                ErrorKind::Aborted,
                format!("volume {volume_id} is being created or deleted"),
            )),
            Err(error) => Err(error),
        }
    }
}

/// Makes the volume, or finds it. Blocks.
fn create(
    member: &Arc<Member>,
    wanted: &Wanted,
    record: Record,
    source: Option<&FoundSource>,
    copying: &mut Copying,
) -> Result<Arc<Record>, DriverError> {
    let space = member.pool.space()?;
    match member
        .catalog
        .begin_create(&record.volume_id, record.promise(), space)?
    {
        Begin::Exists(found) => {
            check_same(&found, wanted)?;
            return Ok(found);
        }
        Begin::Create => {}
    }
    let reservation = Reservation::new(member, &record.volume_id);
    check_quota(member, wanted.content, wanted.class.quota)?;
    modification::check(member, wanted.content, &wanted.mutable_parameters)?;
    let new = NewData {
        bytes: record.capacity_bytes,
        provisioning: record.provisioning,
    };
    let content = record.content;
    let fill = |directory: &Path| {
        let files = Files { directory, content };
        let Some(source) = source else {
            return backend::of_content(content)
                .make(files, new)
                .map_err(|error| error.into_driver_error("make the volume's data"));
        };
        source.fill(member, files, new, copying)?;
        Ok(failpoint::hit("clone::after_copy")?)
    };
    let made = reservation.made(member.pool.create(record, fill)?);
    check_same(&made, wanted)?;
    tracing::info!(
        volume.id = &*made.volume_id,
        pool = member.pool.name(),
        capacity_bytes = made.capacity_bytes,
        content = %made.content,
        "Volume created"
    );
    Ok(made)
}

/// A class that wants a sure quota gets no volume without one.
pub(super) fn check_quota(member: &Member, content: Content, quota: Quota) -> Result<(), DriverError> {
    if quota == Quota::BestEffort {
        return Ok(());
    }
    let enforcement = backend::of_content(content)
        .enforcement(member.pool.root(), content)
        .map_err(|error| error.into_driver_error("find out whether quotas are enforced"))?;
    match enforcement {
        Enforcement::Enforced => Ok(()),
        Enforcement::Accounted { why } => Err(DriverError::invalid(format!(
            "pool {} can't give the quota that the class requires: {why}",
            member.pool.name()
        ))),
    }
}

#[async_trait]
impl Volumes for LocalController {
    async fn create_volume(&self, request: CreateVolume) -> Result<Volume, DriverError> {
        let (member, wanted) = self.wanted(request)?;
        let volume_id: Arc<str> = volume_id_of(&wanted.name).into();
        if let Some(record) = self.existing(&member, &volume_id, &wanted)? {
            return self.volume(&record);
        }
        let source = wanted.source.as_ref().map(|source| self.find_source(source));
        let source = source.transpose()?;
        let rule = backend::of_content(wanted.content).sizes(wanted.content);
        let capacity_bytes = match &source {
            None => wanted.size(rule)?,
            Some(source) => wanted.size_from(source.size_bytes(), source.content(), rule)?,
        };
        let record = Record {
            name: if wanted.name == *volume_id {
                Arc::clone(&volume_id)
            } else {
                wanted.name.as_str().into()
            },
            volume_id,
            pool: member.pool.id(),
            capacity_bytes,
            content: wanted.content,
            provisioning: wanted.class.provisioning,
            parameters: wanted.class.parameters.clone(),
            mutable_parameters: wanted.mutable_parameters.clone(),
            source: wanted.source.clone().map(Box::new),
            created_at: Timestamp::now(),
        };
        let draft = Arc::new((wanted, source));
        let may_get_room = !member.leaving.is_empty();
        let made = self.make(&member, &record, &draft).await;
        let made = match made {
            // Somebody may still have the room who is on the way out.
            Err(error) if error.kind() == ErrorKind::ResourceExhausted && may_get_room => {
                member.all_have_left(&self.blocking).await;
                self.make(&member, &record, &draft).await
            }
            made => made,
        };
        let record = made?;
        self.volume(&record)
    }

    fn content_sources(&self) -> ContentSources {
        ContentSources {
            clones: true,
            snapshots: true,
        }
    }

    async fn delete_volume(&self, request: DeleteVolume) -> Result<(), DriverError> {
        self.delete(request.volume_id.as_str()).await
    }

    async fn validate_capabilities(
        &self,
        request: ValidateCapabilities,
    ) -> Result<Confirmation, DriverError> {
        let (_, record) = self.find::<Record>(request.volume_id.as_str())?;
        let misfit = request
            .capabilities
            .iter()
            .find_map(|capability| fit::fit(self.reach.nodes(), record.content, capability).err());
        if let Some(reason) = misfit {
            return Ok(Confirmation::Refused(reason));
        }
        let parameters = own_parameters(request.parameters);
        if !parameters.is_empty() && parameters != *record.parameters {
            return Ok(Confirmation::Refused(
                "the volume has other parameters".to_owned(),
            ));
        }
        // The driver gives no context of its own, so that there is none to confirm.
        Ok(Confirmation::Confirmed {
            capabilities: request.capabilities,
            volume_context: StringMap::new(),
            parameters,
            mutable_parameters: StringMap::new(),
        })
    }
}
