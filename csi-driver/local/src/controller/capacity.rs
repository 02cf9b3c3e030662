//! GetCapacity: what can still be created in the pool that the parameters name, at the place asked about.

use std::sync::Arc;

use moorline_driver_sdk::{
    DriverError, async_trait, request::CapacityQuery, traits::Capacity, volume::AvailableCapacity,
};

use super::{LocalController, create};
use crate::{backend, class::Class, fit, room::Purpose};

/// What can't be created at all has no room.
const NONE: AvailableCapacity = AvailableCapacity {
    available_bytes: 0,
    maximum_volume_bytes: None,
    minimum_volume_bytes: None,
};

#[async_trait]
impl Capacity for LocalController {
    async fn available_capacity(&self, query: CapacityQuery) -> Result<AvailableCapacity, DriverError> {
        let is_here = query
            .topology
            .is_none_or(|topology| topology.contains(&self.here));
        let Ok(class) = Class::parse(query.parameters) else {
            return Ok(NONE);
        };
        let (true, Ok(member)) = (is_here, self.member(&class.pool)) else {
            return Ok(NONE);
        };
        let content = match query.capabilities.as_slice() {
            [] => None,
            capabilities => {
                let content = fit::plan(self.reach.nodes(), member.pool.backend(), capabilities);
                match content.and_then(|content| fit::check_class(content, &class).map(|()| content)) {
                    Ok(content) => Some(content),
                    Err(_) => return Ok(NONE), // The create says why.
                }
            }
        };
        member.all_have_left(&self.blocking).await;
        let (measured, required) = (Arc::clone(member), class.quota);
        let work = move || {
            // What no volume of the class can get here has no room.
            let is_possible = match content {
                Some(content) => create::check_quota(&measured, content, required).is_ok(),
                None => true,
            };
            Ok::<_, DriverError>((measured.pool.space()?, is_possible))
        };
        let (space, is_possible) = self.blocking.run("measure the pool", work).await??;
        if !is_possible {
            return Ok(NONE);
        }
        let available_bytes = member.catalog.left(space, Purpose::Volume(class.provisioning));
        Ok(AvailableCapacity {
            available_bytes,
            maximum_volume_bytes: Some(available_bytes),
            minimum_volume_bytes: content
                .map(|content| backend::of_content(content).sizes(content).min_bytes),
        })
    }
}
