//! The controller's calls: creating, deleting, growing and listing volumes of the pool.

use std::sync::Arc;

use jiff::Timestamp;
use moorline_driver_sdk::{
    DriverError, ErrorKind, async_trait,
    request::{
        CapacityQuery, CreateVolume, DeleteVolume, ExpandVolume, ListPage, StringMap, Topology,
        ValidateCapabilities, VolumeCapability, VolumeId,
    },
    traits::{Capacity, VolumeExpansion, VolumeListing, VolumeLookup, Volumes},
    volume::{AvailableCapacity, Confirmation, ExpandedVolume, ListedVolume, Volume, VolumePage},
};

use crate::{
    backend::{self, Backend, Files},
    blocking::Blocking,
    catalog::{Begin, Catalog, Deleted},
    fit,
    pool::Pool,
    record::Record,
    requested::{Wanted, check_same, grown_size},
    volume_name::volume_id_of,
};

/// A page of a list without a limit of its own.
const PAGE_ENTRIES_MAX: usize = 1000;
/// Page tokens say after which id to go on; the prefix tells them from anything else.
const TOKEN_PREFIX: &str = "after-";

pub(crate) struct LocalController {
    pool: Arc<Pool>,
    catalog: Catalog,
    backend: &'static dyn Backend,
    blocking: Blocking,
    here: Topology,
}

impl LocalController {
    pub(crate) fn new(
        pool: Arc<Pool>,
        catalog: Catalog,
        backend: &'static dyn Backend,
        blocking: Blocking,
        here: Topology,
    ) -> Self {
        LocalController {
            pool,
            catalog,
            backend,
            blocking,
            here,
        }
    }

    fn volume(&self, record: &Record) -> Result<Volume, DriverError> {
        let volume_id = VolumeId::parse(record.volume_id.clone())?;
        let mut volume = Volume::new(volume_id, record.capacity_bytes);
        volume.accessible_topology = vec![self.here.clone()];
        Ok(volume)
    }

    async fn pool_space(&self) -> Result<moorline_mount::usage::Amount, DriverError> {
        let pool = Arc::clone(&self.pool);
        Ok(self
            .blocking
            .run("measure the pool", move || pool.space())
            .await??)
    }

    /// Makes a volume whose name and bytes are reserved.
    async fn make(&self, record: Record) -> Result<Arc<Record>, DriverError> {
        let (pool, backend) = (Arc::clone(&self.pool), self.backend);
        self.blocking
            .run("create the volume", move || {
                let fill = |directory: &std::path::Path| {
                    let files = Files {
                        directory,
                        content: record.content,
                    };
                    backend
                        .make(files, record.capacity_bytes)
                        .map_err(|error| error.into_driver_error("make the volume's data"))
                };
                pool.create(&record, fill).map(Arc::new)
            })
            .await?
    }
}

#[async_trait]
impl Volumes for LocalController {
    async fn create_volume(&self, request: CreateVolume) -> Result<Volume, DriverError> {
        let wanted = Wanted {
            content: fit::plan(self.backend.kind(), &request.capabilities)?,
            name: request.name,
            capacity: request.capacity,
            parameters: fit::own_parameters(request.parameters)?,
        };
        if !request
            .topology
            .is_none_or(|requirement| requirement.admits(&self.here))
        {
            return Err(DriverError::exhausted(
                "the volume is wanted on other nodes than this one",
            ));
        }
        let size = wanted.size(self.backend.sizes(wanted.content))?;
        let volume_id = volume_id_of(&wanted.name);
        let space = self.pool_space().await?;
        match self.catalog.begin_create(&volume_id, size, space.total)? {
            Begin::Exists(record) => {
                check_same(&record, &wanted)?;
                return self.volume(&record);
            }
            Begin::Create => {}
        }
        let record = Record {
            volume_id: volume_id.clone(),
            name: wanted.name.clone(),
            capacity_bytes: size,
            content: wanted.content,
            parameters: wanted.parameters.clone(),
            created_at: Timestamp::now().to_string(),
        };
        let made = if size > space.available {
            Err(DriverError::exhausted(format!(
                "the pool has {} bytes free, not {size}",
                space.available
            )))
        } else {
            self.make(record).await
        };
        self.catalog
            .finish_create(&volume_id, made.as_ref().ok().cloned());
        let record = made?;
        check_same(&record, &wanted)?;
        tracing::info!(volume.id = volume_id, capacity_bytes = size, content = %record.content, "Volume created");
        self.volume(&record)
    }

    async fn delete_volume(&self, request: DeleteVolume) -> Result<(), DriverError> {
        let Some(record) = self.catalog.begin_delete(request.volume_id.as_str())? else {
            return Ok(());
        };
        let (pool, taken) = (Arc::clone(&self.pool), Arc::clone(&record));
        let deleted = self
            .blocking
            .run("delete the volume", move || delete(&pool, &taken))
            .await;
        let (end, result) = match deleted {
            Ok((end, result)) => (end, result),
            Err(error) => (Deleted::Left, Err(error)),
        };
        self.catalog.finish_delete(&record, end);
        result?;
        tracing::info!(volume.id = record.volume_id, "Volume deleted");
        Ok(())
    }

    async fn validate_capabilities(
        &self,
        request: ValidateCapabilities,
    ) -> Result<Confirmation, DriverError> {
        let record = self.catalog.get(request.volume_id.as_str())?;
        let misfit = request
            .capabilities
            .iter()
            .find_map(|capability| fit::fit(record.content, capability).err());
        let parameters = fit::own_parameters(request.parameters);
        Ok(match (misfit, parameters) {
            (Some(reason), _) => Confirmation::Refused(reason),
            (None, Err(error)) => Confirmation::Refused(error.full_message()),
            (None, Ok(parameters)) if !parameters.is_empty() && parameters != record.parameters => {
                Confirmation::Refused("the volume has other parameters".to_owned())
            }
            // The driver gives no context of its own, so that there is none to confirm.
            (None, Ok(parameters)) => Confirmation::Confirmed {
                capabilities: request.capabilities,
                volume_context: StringMap::new(),
                parameters,
                mutable_parameters: StringMap::new(),
            },
        })
    }
}

fn delete(pool: &Pool, record: &Record) -> (Deleted, Result<(), DriverError>) {
    let directory = pool.directory(&record.volume_id);
    let files = Files {
        directory: &directory,
        content: record.content,
    };
    match backend::of_content(record.content).users(files) {
        Ok(users) => {
            if let Some(user) = users.first() {
                let message = format!("volume {} is in use at {}", record.volume_id, user.display());
                return (Deleted::Kept, Err(DriverError::precondition(message)));
            }
        }
        Err(error) => {
            return (
                Deleted::Kept,
                Err(error.into_driver_error("find out who uses the volume")),
            );
        }
    }
    match pool.delete(&record.volume_id) {
        Ok(()) => (Deleted::Gone, Ok(())),
        Err(error) if directory.exists() => (Deleted::Kept, Err(error.into())),
        Err(error) => (Deleted::Left, Err(error.into())),
    }
}

#[async_trait]
impl Capacity for LocalController {
    async fn available_capacity(&self, query: CapacityQuery) -> Result<AvailableCapacity, DriverError> {
        let is_here = query
            .topology
            .is_none_or(|topology| topology.contains(&self.here));
        let content = match query.capabilities.as_slice() {
            [] => Ok(None),
            capabilities => fit::plan(self.backend.kind(), capabilities).map(Some),
        };
        // What can't be created at all has no room.
        let (true, Ok(content), Ok(_)) = (is_here, content, fit::own_parameters(query.parameters)) else {
            return Ok(AvailableCapacity {
                available_bytes: 0,
                maximum_volume_bytes: None,
                minimum_volume_bytes: None,
            });
        };
        let space = self.pool_space().await?;
        let available_bytes = self.catalog.unreserved_bytes(space.total).min(space.available);
        Ok(AvailableCapacity {
            available_bytes,
            maximum_volume_bytes: Some(available_bytes),
            minimum_volume_bytes: content.map(|content| self.backend.sizes(content).min_bytes),
        })
    }
}

#[async_trait]
impl VolumeListing for LocalController {
    async fn list_volumes(&self, page: ListPage) -> Result<VolumePage, DriverError> {
        let start = match &page.starting_token {
            None => None,
            Some(token) => Some(token.strip_prefix(TOKEN_PREFIX).ok_or_else(|| {
                DriverError::new(
                    ErrorKind::Aborted,
                    format!("starting_token {token} is none of this driver's"),
                )
            })?),
        };
        let count = page.max_entries.unwrap_or(PAGE_ENTRIES_MAX).min(PAGE_ENTRIES_MAX);
        let (records, has_more) = self.catalog.page(start, count);
        let last = records.last().filter(|_| has_more);
        let next_token = last.map(|record| format!("{TOKEN_PREFIX}{}", record.volume_id));
        let entries = records
            .iter()
            .map(|record| self.volume(record).map(listed))
            .collect::<Result<_, _>>()?;
        Ok(VolumePage { entries, next_token })
    }
}

fn listed(volume: Volume) -> ListedVolume {
    ListedVolume {
        volume,
        published_node_ids: Vec::new(),
        condition: None,
    }
}

#[async_trait]
impl VolumeLookup for LocalController {
    async fn get_volume(&self, volume_id: VolumeId) -> Result<ListedVolume, DriverError> {
        self.volume(&*self.catalog.get(volume_id.as_str())?).map(listed)
    }
}

fn check_usable(record: &Record, capability: Option<&VolumeCapability>) -> Result<(), DriverError> {
    capability.map_or(Ok(()), |capability| {
        fit::fit(record.content, capability).map_err(DriverError::invalid)
    })
}

#[async_trait]
impl VolumeExpansion for LocalController {
    async fn expand_volume(&self, request: ExpandVolume) -> Result<ExpandedVolume, DriverError> {
        let record = self.catalog.get(request.volume_id.as_str())?;
        check_usable(&record, request.capability.as_ref())?;
        let backend = backend::of_content(record.content);
        let is_node_expansion_required = backend.needs_node_expansion();
        let Some(size) = grown_size(&record, request.capacity, backend.sizes(record.content))? else {
            return Ok(ExpandedVolume {
                capacity_bytes: record.capacity_bytes,
                is_node_expansion_required,
            });
        };
        let space = self.pool_space().await?;
        let old = record.capacity_bytes;
        if size - old > space.available {
            return Err(DriverError::out_of_range(format!(
                "the pool has {} bytes free, not {}",
                space.available,
                size - old
            )));
        }
        self.catalog.begin_expand(old, size, space.total)?;
        let grown = Record {
            capacity_bytes: size,
            ..Record::clone(&record)
        };
        let pool = Arc::clone(&self.pool);
        let work = move || {
            let directory = pool.directory(&grown.volume_id);
            let files = Files {
                directory: &directory,
                content: grown.content,
            };
            // The data first: a record never promises more than there is.
            backend
                .grow(files, size)
                .map_err(|error| error.into_driver_error("grow the volume's data"))?;
            pool.update(&grown)?;
            Ok::<_, DriverError>(Arc::new(grown))
        };
        let result = self
            .blocking
            .run("expand the volume", work)
            .await
            .and_then(|result| result);
        self.catalog
            .finish_expand(old, size, result.as_ref().ok().cloned());
        result?;
        tracing::info!(
            volume.id = record.volume_id,
            from_bytes = old,
            to_bytes = size,
            "Volume expanded"
        );
        Ok(ExpandedVolume {
            capacity_bytes: size,
            is_node_expansion_required,
        })
    }
}
