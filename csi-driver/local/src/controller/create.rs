//! CreateVolume, DeleteVolume, ValidateVolumeCapabilities.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use moorline_driver_sdk::{
    DriverError, async_trait,
    request::{CreateVolume, DeleteVolume, StringMap, ValidateCapabilities},
    traits::Volumes,
    volume::{Confirmation, Volume},
};

use super::{LocalController, Member};
use crate::{
    backend::{self, Enforcement, NewData},
    catalog::{Begin, Kept as _},
    class::{Class, Quota, own_parameters},
    fit,
    record::Record,
    requested::{Wanted, check_same},
    volume_name::volume_id_of,
};

/// A volume that is being made: its id and bytes are given back unless it is made.
struct Reservation {
    member: Arc<Member>,
    volume_id: Arc<str>,
    made: Option<Arc<Record>>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.member
            .catalog
            .finish_create(&self.volume_id, self.made.take());
    }
}

impl LocalController {
    /// What is asked for, checked as far as it can be without looking at the disk.
    fn wanted(&self, request: CreateVolume) -> Result<(Arc<Member>, Wanted), DriverError> {
        let class = Class::parse(request.parameters)?;
        let member = Arc::clone(self.member(&class.pool)?);
        let content = fit::plan(member.pool.backend(), &request.capabilities)?;
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
            source: None,
        };
        Ok((member, wanted))
    }
}

/// Makes the volume, or finds it. Blocks.
fn create(member: &Arc<Member>, wanted: &Wanted, record: Record) -> Result<Arc<Record>, DriverError> {
    let space = member.pool.space()?;
    let volume_id = Arc::clone(&record.volume_id);
    match member.catalog.begin_create(&volume_id, record.promise(), space)? {
        Begin::Exists(found) => {
            check_same(&found, wanted)?;
            return Ok(found);
        }
        Begin::Create => {}
    }
    let mut reservation = Reservation {
        member: Arc::clone(member),
        volume_id,
        made: None,
    };
    check_quota(member, wanted)?;
    let new = NewData {
        bytes: record.capacity_bytes,
        provisioning: record.provisioning,
    };
    let content = record.content;
    let fill = |directory: &Path| {
        backend::of_content(content)
            .make(backend::Files { directory, content }, new)
            .map_err(|error| error.into_driver_error("make the volume's data"))
    };
    let made = Arc::new(member.pool.create(record, fill)?);
    reservation.made = Some(Arc::clone(&made));
    drop(reservation);
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
fn check_quota(member: &Member, wanted: &Wanted) -> Result<(), DriverError> {
    if wanted.class.quota == Quota::BestEffort {
        return Ok(());
    }
    let enforcement = backend::of_content(wanted.content)
        .enforcement(member.pool.root(), wanted.content)
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
        let size = wanted.size(backend::of_content(wanted.content).sizes(wanted.content))?;
        let volume_id: Arc<str> = volume_id_of(&wanted.name).into();
        if let Some(other) = self
            .member_with(&volume_id)
            .filter(|other| !Arc::ptr_eq(other, &member))
        {
            return Err(DriverError::already_exists(format!(
                "volume {} exists, but in pool {}",
                wanted.name,
                other.pool.name()
            )));
        }
        let record = Record {
            name: if wanted.name == *volume_id {
                Arc::clone(&volume_id)
            } else {
                wanted.name.as_str().into()
            },
            volume_id,
            pool: member.pool.id(),
            capacity_bytes: size,
            content: wanted.content,
            provisioning: wanted.class.provisioning,
            parameters: wanted.class.parameters.clone(),
            mutable_parameters: wanted.mutable_parameters.clone(),
            source: wanted.source.clone().map(Box::new),
            created_at: Timestamp::now(),
        };
        let work = move || create(&member, &wanted, record);
        let record = self.blocking.run("create the volume", work).await??;
        self.volume(&record)
    }

    async fn delete_volume(&self, request: DeleteVolume) -> Result<(), DriverError> {
        self.delete(request.volume_id.as_str()).await
    }

    async fn validate_capabilities(
        &self,
        request: ValidateCapabilities,
    ) -> Result<Confirmation, DriverError> {
        let (_, record) = self.find(request.volume_id.as_str())?;
        let misfit = request
            .capabilities
            .iter()
            .find_map(|capability| fit::fit(record.content, capability).err());
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
