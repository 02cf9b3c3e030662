//! ControllerModifyVolume: mutable parameters, on record first, then on the volume as far as this machine has it.

use std::sync::Arc;

use moorline_driver_sdk::{
    DriverError, async_trait,
    request::{ModifyVolume, StringMap},
    traits::Modification,
};
use moorline_mount::{io_limits, loop_device};

use super::{LocalController, Member, files_in};
use crate::{
    backend, failpoint,
    record::{Content, Parameters, Record},
    settings::{Abilities, Settings, changed},
};

/// Refuses mutable parameters that a volume with this content can't have in this pool. Blocks.
pub(super) fn check(member: &Member, content: Content, parameters: &Parameters) -> Result<(), DriverError> {
    let settings = Settings::parse(parameters)?;
    if settings == Settings::default() {
        return Ok(());
    }
    let failed =
        |error| backend::BackendError::from(error).into_driver_error("find out what is possible here");
    let abilities = Abilities {
        limits: io_limits::support().map_err(failed)?,
        has_direct_io: loop_device::can_bypass_cache(member.pool.root()).map_err(failed)?,
    };
    settings.check(content, &abilities)
}

/// Blocks.
fn modify(member: &Member, old: &Record, change: StringMap) -> Result<(), DriverError> {
    let parameters = Parameters::from(changed(&old.mutable_parameters, change));
    check(member, old.content, &parameters)?;
    let settings = Settings::parse(&parameters)?;
    let record = Record {
        mutable_parameters: parameters,
        ..Record::clone(old)
    };
    let _alone = member.pool.tuning.lock();
    if record != *old {
        member.pool.update(&record)?;
        let replaced = Arc::new(record.clone());
        member.catalog.finish_create(&record.volume_id, Some(replaced));
        failpoint::hit("modify::after_record")?;
    }
    // Also when nothing has changed: an earlier call may have come no further than the record. Nodes elsewhere follow
    // the record.
    let directory = member.pool.directory(&record.volume_id);
    let tuned = backend::of_content(record.content).tune(files_in(&directory, &record), &settings);
    tuned.map_err(|error| error.into_driver_error("change the volume's device"))?;
    failpoint::hit("modify::after_tuning")?;
    tracing::info!(volume.id = &*record.volume_id, ?settings, "Volume modified");
    Ok(())
}

#[async_trait]
impl Modification for LocalController {
    async fn modify_volume(&self, request: ModifyVolume) -> Result<(), DriverError> {
        let (member, record) = self.find::<Record>(request.volume_id.as_str())?;
        let member = Arc::clone(member);
        let work = move || modify(&member, &record, request.mutable_parameters);
        self.blocking.run("modify the volume", work).await?
    }
}
