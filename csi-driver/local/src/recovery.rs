//! A start: what the last one has left half-done is brought to its end in all pools, and what there is is read. Blocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    catalog::{Entry, FoundEntries, FoundInPool, Kept},
    pool::{Pool, PoolError},
    pools::Pools,
    record::{GroupRecord, SnapshotRecord},
};

/// Brings all pools in order and reads them, in their order.
pub(crate) fn recover(pools: &Pools) -> Result<Vec<FoundInPool>, PoolError> {
    for pool in pools.iter() {
        pool.thaw_leftovers()?;
        pool.replay()?;
    }
    // The snapshots of a group may be in other pools than its record, which goes last.
    for doomed in pools
        .iter()
        .map(|pool| pool.doomed_snapshots())
        .collect::<Result<Vec<_>, _>>()?
    {
        for snapshot_id in doomed {
            pools
                .iter()
                .try_for_each(|pool| pool.snapshots.delete(&snapshot_id))?;
        }
    }
    let mut found = pools
        .iter()
        .map(|pool| pool.recover())
        .collect::<Result<Vec<_>, _>>()?;
    quarantine_twins(&mut found, |found| &mut found.volumes);
    quarantine_twins(&mut found, |found| &mut found.snapshots);
    quarantine_twins(&mut found, |found| &mut found.groups);
    let pools: Vec<_> = pools.iter().collect();
    rebuild_groups(&pools, &mut found)?;
    Ok(found)
}

/// An id that is in several pools, because somebody has copied it, is served from the first of them alone.
fn quarantine_twins<R: Kept>(
    found: &mut [FoundInPool],
    entries: impl Fn(&mut FoundInPool) -> &mut FoundEntries<R>,
) {
    let mut seen = BTreeSet::new();
    for pool in found {
        for (id, entry) in entries(pool) {
            if seen.insert(Arc::clone(id)) || !matches!(entry, Entry::Ready(_)) {
                continue;
            }
            tracing::error!(
                id = &**id,
                noun = R::NOUN,
                "It is in two pools; it is served from the first alone"
            );
            let reason = "another pool has the same id; remove one of the two".into();
            *entry = Entry::Damaged { reason };
        }
    }
}

/// Groups whose record is lost are known from their snapshots.
fn rebuild_groups(pools: &[&Arc<Pool>], found: &mut [FoundInPool]) -> Result<(), PoolError> {
    let mut members: BTreeMap<String, (usize, Vec<Arc<SnapshotRecord>>)> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (index, pool) in found.iter().enumerate() {
        known.extend(pool.groups.iter().filter_map(|(id, entry)| match entry {
            Entry::Ready(_) => Some(Arc::clone(id)),
            _ => None,
        }));
        for entry in pool.snapshots.values() {
            if let Entry::Ready(record) = entry
                && let Some(group) = &record.group
            {
                let (_, list) = members
                    .entry(group.group_id.clone())
                    .or_insert((index, Vec::new()));
                list.push(Arc::clone(record));
            }
        }
    }
    for (group_id, (index, members)) in members {
        if known.contains(group_id.as_str()) {
            continue;
        }
        let Some(group) = GroupRecord::from_members(&members) else {
            tracing::error!(
                group.id = group_id,
                "The record of a group of snapshots is lost, and so are some of its snapshots"
            );
            continue;
        };
        let damaged = found
            .iter()
            .position(|pool| pool.groups.contains_key(group_id.as_str()));
        let index = damaged.unwrap_or(index);
        pools[index].rebuild_group(&group)?;
        let id = Arc::clone(&group.group_id);
        found[index].groups.insert(id, Entry::Ready(Arc::new(group)));
    }
    Ok(())
}
