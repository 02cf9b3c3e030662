//! ListVolumes and ControllerGetVolume.

use std::sync::Arc;

use moorline_driver_sdk::{
    DriverError, ErrorKind, async_trait,
    request::{ListPage, VolumeId},
    traits::{VolumeListing, VolumeLookup},
    volume::{ListedVolume, Volume, VolumeCondition, VolumePage},
};

use super::{LocalController, Member, files_in};
use crate::{backend, record::Record};

/// A page of a list without a limit of its own.
const PAGE_ENTRIES_MAX: usize = 1000;
/// Page tokens say after which id to go on; the prefix tells them from anything else.
const TOKEN_PREFIX: &str = "after-";

/// After which id a list goes on.
pub(super) fn start(page: &ListPage) -> Result<Option<&str>, DriverError> {
    let Some(token) = &page.starting_token else {
        return Ok(None);
    };
    token.strip_prefix(TOKEN_PREFIX).map(Some).ok_or_else(|| {
        DriverError::new(
            ErrorKind::Aborted,
            format!("starting_token {token} is none of this driver's"),
        )
    })
}

/// Merges pages of several pools, each in the order of ids, into one; says after which id to go on, if there is more.
pub(super) fn merge<R>(
    pages: Vec<(Vec<Arc<R>>, bool)>,
    count: usize,
    id: impl Fn(&R) -> &str,
) -> (Vec<Arc<R>>, Option<String>) {
    let mut has_more = pages.iter().any(|(_, has_more)| *has_more);
    let is_one = pages.len() == 1;
    let mut all: Vec<_> = pages.into_iter().flat_map(|(page, _)| page).collect();
    if !is_one {
        all.sort_by(|one, two| id(one).cmp(id(two)));
        has_more |= all.len() > count;
        all.truncate(count);
    }
    let last = all.last().filter(|_| has_more);
    let next_token = last.map(|record| format!("{TOKEN_PREFIX}{}", id(record)));
    (all, next_token)
}

/// How many entries a page gets.
pub(super) fn count(page: &ListPage) -> usize {
    page.max_entries.unwrap_or(PAGE_ENTRIES_MAX).min(PAGE_ENTRIES_MAX)
}

#[async_trait]
impl VolumeListing for LocalController {
    async fn list_volumes(&self, page: ListPage) -> Result<VolumePage, DriverError> {
        let (start, count) = (start(&page)?, count(&page));
        let members = self.members.iter();
        let pages = members.map(|member| member.catalog.page(start, count)).collect();
        let (records, next_token) = merge(pages, count, |record: &Record| &record.volume_id);
        let volumes = records.iter().map(|record| self.volume(record));
        let volumes = volumes.collect::<Result<Vec<_>, _>>()?;
        let conditions = self.conditions(records).await?;
        let entries = volumes.into_iter().zip(conditions);
        Ok(VolumePage {
            entries: entries
                .map(|(volume, condition)| self.listed(volume, Some(condition)))
                .collect(),
            next_token,
        })
    }

    fn knows_published_nodes(&self) -> bool {
        self.leases.is_some()
    }

    fn knows_condition(&self) -> bool {
        true
    }
}

impl LocalController {
    fn listed(&self, volume: Volume, condition: Option<VolumeCondition>) -> ListedVolume {
        let leases = self.leases.as_ref();
        let nodes = leases.map(|leases| leases.nodes(volume.volume_id.as_str()));
        ListedVolume {
            volume,
            published_node_ids: nodes.unwrap_or_default(),
            condition,
        }
    }

    /// What can be seen of the volumes' data from here, in the same order.
    async fn conditions(&self, records: Vec<Arc<Record>>) -> Result<Vec<VolumeCondition>, DriverError> {
        let members = self.members.clone();
        let work = move || {
            let record_of = |record: &Arc<Record>| condition(&members, record);
            records.iter().map(record_of).collect()
        };
        self.blocking.run("look at the volumes", work).await
    }
}

/// Blocks.
fn condition(members: &[Arc<Member>], record: &Record) -> VolumeCondition {
    let member = members
        .iter()
        .find(|member| member.catalog.has::<Record>(&record.volume_id));
    let fault = member.map(|member| {
        let directory = member.pool.directory(&record.volume_id);
        let files = files_in(&directory, record);
        backend::of_content(record.content).fault(files, record.capacity_bytes)
    });
    let message = match fault {
        // Removed since the list was made.
        None | Some(Ok(None)) => None,
        Some(Ok(Some(fault))) => Some(fault),
        Some(Err(error)) => Some(
            error
                .into_driver_error("look at the volume's data")
                .full_message(),
        ),
    };
    VolumeCondition {
        is_abnormal: message.is_some(),
        message: message.unwrap_or_else(|| "the data is there".to_owned()),
    }
}

#[async_trait]
impl VolumeLookup for LocalController {
    async fn get_volume(&self, volume_id: VolumeId) -> Result<ListedVolume, DriverError> {
        let (_, record) = self.find::<Record>(volume_id.as_str())?;
        let volume = self.volume(&record)?;
        let mut conditions = self.conditions(vec![record]).await?;
        let condition = conditions.pop();
        Ok(self.listed(volume, condition))
    }

    fn knows_condition(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case = (
        &'static str,
        &'static [(&'static str, bool)],
        usize,
        &'static str,
        Option<&'static str>,
    );

    #[test]
    fn pages_of_several_pools_become_one_in_order() {
        // Each pool's page as letters, and whether it has more; then the page and the id to go on after.
        let cases: [Case; 6] = [
            ("nothing", &[("", false)], 2, "", None),
            ("one pool, all", &[("ab", false)], 2, "ab", None),
            ("one pool, more", &[("ab", true)], 2, "ab", Some("b")),
            (
                "two pools in turns",
                &[("ac", false), ("b", false)],
                3,
                "abc",
                None,
            ),
            (
                "the second waits",
                &[("ab", true), ("cd", true)],
                2,
                "ab",
                Some("b"),
            ),
            (
                "cut by the count alone",
                &[("ac", false), ("bd", false)],
                3,
                "abc",
                Some("c"),
            ),
        ];
        for (name, pages, count, expected, more) in cases {
            let pages = pages.iter().map(|(letters, has_more)| {
                let page = letters.chars().map(|letter| Arc::new(letter.to_string()));
                (page.collect(), *has_more)
            });
            let (page, token) = merge(pages.collect(), count, |id: &String| id);
            let letters: String = page.iter().map(|id| id.as_str()).collect();
            assert_eq!(letters, expected, "{name}");
            assert_eq!(token, more.map(|id| format!("after-{id}")), "{name}");
        }
    }
}
