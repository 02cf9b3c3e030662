//! Snapshot metadata: which blocks hold data and which have changed, in order, resumed at any range.

use std::future::Future;

use moorline_proto::csi;
use tonic::{Code, Response, Status, Streaming};

use super::{
    Checked, Demand, Fault,
    context::{Context, UNKNOWN_ID, demand_that, refused},
    demand,
};

pub(super) const DEMANDS: &[Demand] = &[
    demand!(
        "allocated blocks are told in order, and again from any of them",
        [
            "SnapshotMetadataService",
            "controller.CreateDeleteSnapshot",
            "controller.CreateDeleteVolume"
        ],
        allocated
    ),
    demand!(
        "changed blocks are told in order, and again from any of them",
        [
            "SnapshotMetadataService",
            "controller.CreateDeleteSnapshot",
            "controller.CreateDeleteVolume"
        ],
        changed
    ),
    demand!(
        "blocks of an unknown snapshot are not found",
        ["SnapshotMetadataService"],
        unknown
    ),
    demand!(
        "incomplete and negative requests for blocks are refused",
        ["SnapshotMetadataService"],
        incomplete
    ),
    demand!(
        "blocks behind the end of the snapshot are out of range",
        [
            "SnapshotMetadataService",
            "controller.CreateDeleteSnapshot",
            "controller.CreateDeleteVolume"
        ],
        beyond
    ),
];

/// Ranges in one message at most, so that several messages are seen.
const RANGES_MAX: i32 = 2;

/// One message of either stream.
#[derive(Debug)]
struct Message {
    kind: i32,
    capacity_bytes: i64,
    ranges: Vec<csi::BlockMetadata>,
}

impl From<csi::GetMetadataAllocatedResponse> for Message {
    fn from(answer: csi::GetMetadataAllocatedResponse) -> Self {
        Message {
            kind: answer.block_metadata_type,
            capacity_bytes: answer.volume_capacity_bytes,
            ranges: answer.block_metadata,
        }
    }
}

impl From<csi::GetMetadataDeltaResponse> for Message {
    fn from(answer: csi::GetMetadataDeltaResponse) -> Self {
        Message {
            kind: answer.block_metadata_type,
            capacity_bytes: answer.volume_capacity_bytes,
            ranges: answer.block_metadata,
        }
    }
}

/// A stream to its end; it may be refused at once or by what comes instead of the first message.
async fn collected<T: Into<Message>>(
    answer: Result<Response<Streaming<T>>, Status>,
) -> Result<Response<Vec<Message>>, Status> {
    let mut stream = answer?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message.into());
    }
    Ok(Response::new(messages))
}

async fn allocated_blocks(
    context: &Context,
    snapshot_id: &str,
    starting_offset: i64,
) -> Result<Response<Vec<Message>>, Status> {
    let request = csi::GetMetadataAllocatedRequest {
        snapshot_id: snapshot_id.to_owned(),
        starting_offset,
        max_results: RANGES_MAX,
        secrets: context.secrets(),
    };
    let mut client = context.snapshot_metadata();
    collected(client.get_metadata_allocated(request).await).await
}

async fn changed_blocks(
    context: &Context,
    [base, target]: [&str; 2],
    starting_offset: i64,
) -> Result<Response<Vec<Message>>, Status> {
    let request = csi::GetMetadataDeltaRequest {
        base_snapshot_id: base.to_owned(),
        target_snapshot_id: target.to_owned(),
        starting_offset,
        max_results: RANGES_MAX,
        secrets: context.secrets(),
    };
    let mut client = context.snapshot_metadata();
    collected(client.get_metadata_delta(request).await).await
}

/// What is wrong with a stream. Pure.
fn flaw(messages: &[Message]) -> Option<String> {
    let Some(first) = messages.first() else {
        return Some("not even one message says how large the volume is".to_owned());
    };
    if first.capacity_bytes <= 0 {
        return Some(format!("volume_capacity_bytes is {}", first.capacity_bytes));
    }
    if first.kind == 0 {
        return Some("block_metadata_type is missing".to_owned());
    }
    let (mut end, mut size) = (0, None);
    for message in messages {
        if (message.kind, message.capacity_bytes) != (first.kind, first.capacity_bytes) {
            return Some("two messages have two types or capacities".to_owned());
        }
        if message.ranges.len() > usize::try_from(RANGES_MAX).unwrap_or(usize::MAX) {
            return Some(format!(
                "a message has more than max_results = {RANGES_MAX} ranges"
            ));
        }
        for range in &message.ranges {
            let range_end = range.byte_offset.saturating_add(range.size_bytes);
            if range.size_bytes <= 0 || range.byte_offset < end || range_end > first.capacity_bytes {
                return Some(format!("{range:?} is empty, out of order or behind the end"));
            }
            let is_fixed = first.kind == i32::from(csi::BlockMetadataType::FixedLength);
            if is_fixed && *size.get_or_insert(range.size_bytes) != range.size_bytes {
                return Some("ranges of fixed length have two lengths".to_owned());
            }
            end = range_end;
        }
    }
    None
}

fn ranges(messages: Vec<Message>) -> Vec<csi::BlockMetadata> {
    messages.into_iter().flat_map(|message| message.ranges).collect()
}

/// Asks for all, and then for what comes behind the first range.
async fn in_order_and_resumed<F>(what: &str, ask: impl Fn(i64) -> F) -> Checked
where
    F: Future<Output = Result<Response<Vec<Message>>, Status>>,
{
    let good = |answer: Result<Response<Vec<Message>>, Status>| match answer {
        Ok(messages) => match flaw(messages.get_ref()) {
            None => Ok(ranges(messages.into_inner())),
            Some(flaw) => Err(Fault::Failed(format!("{what}: {flaw}"))),
        },
        // CSI 1.12: "The SP was not able to ... because of the state of the volume".
        Err(status) if status.code() == Code::FailedPrecondition => {
            Err(Fault::Skipped(format!("{what}: {}", status.message())))
        }
        Err(status) => Err(Fault::Failed(format!(
            "{what} is answered with {:?}: {}",
            status.code(),
            status.message()
        ))),
    };
    let all = good(ask(0).await)?;
    let Some((first, rest)) = all.split_first() else {
        return Ok(());
    };
    let resumed = good(ask(first.byte_offset + first.size_bytes).await)?;
    demand_that(resumed == rest, || {
        format!(
            "{what} from the end of the first of {} ranges gives {} other ones",
            all.len(),
            resumed.len()
        )
    })
}

async fn allocated(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let snapshot = context.snapshot_named(&context.name(), &volume.volume_id).await?;
    let ask = |offset| allocated_blocks(context, &snapshot.snapshot_id, offset);
    in_order_and_resumed("GetMetadataAllocated", ask).await
}

async fn changed(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let base = context.snapshot_named(&context.name(), &volume.volume_id).await?;
    let target = context.snapshot_named(&context.name(), &volume.volume_id).await?;
    let ask = |offset| changed_blocks(context, [&base.snapshot_id, &target.snapshot_id], offset);
    in_order_and_resumed("GetMetadataDelta", ask).await
}

async fn unknown(context: &Context) -> Checked {
    refused(
        "GetMetadataAllocated of an unknown snapshot",
        Code::NotFound,
        allocated_blocks(context, UNKNOWN_ID, 0).await,
    )?;
    refused(
        "GetMetadataDelta of unknown snapshots",
        Code::NotFound,
        changed_blocks(context, [UNKNOWN_ID, "conformance-nor-this"], 0).await,
    )
}

async fn incomplete(context: &Context) -> Checked {
    for (snapshot_id, offset) in [("", 0), (UNKNOWN_ID, -1)] {
        let what =
            format!("GetMetadataAllocated with snapshot_id {snapshot_id:?} and starting_offset {offset}");
        let answer = allocated_blocks(context, snapshot_id, offset).await;
        refused(&what, Code::InvalidArgument, answer)?;
    }
    for (pair, offset) in [(["", "s"], 0), (["s", ""], 0), (["s", "t"], -1)] {
        let what = format!("GetMetadataDelta of {pair:?} with starting_offset {offset}");
        let answer = changed_blocks(context, pair, offset).await;
        refused(&what, Code::InvalidArgument, answer)?;
    }
    Ok(())
}

async fn beyond(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let snapshot = context.snapshot_named(&context.name(), &volume.volume_id).await?;
    let id = snapshot.snapshot_id.as_str();
    match allocated_blocks(context, id, 0).await {
        Err(status) if status.code() == Code::FailedPrecondition => {
            return Err(Fault::Skipped(status.message().to_owned()));
        }
        // Anything else that is wrong is another check's.
        _ => {}
    }
    let offset = i64::MAX / 2;
    refused(
        "GetMetadataAllocated from behind the end",
        Code::OutOfRange,
        allocated_blocks(context, id, offset).await,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_make_no_sense_are_told_apart() {
        let range = |byte_offset, size_bytes| csi::BlockMetadata {
            byte_offset,
            size_bytes,
        };
        let message = |kind, capacity_bytes, ranges: &[csi::BlockMetadata]| Message {
            kind,
            capacity_bytes,
            ranges: ranges.to_vec(),
        };
        let (fixed, variable) = (1, 2);
        let cases: [(&str, Vec<Message>, Option<&str>); 10] = [
            ("nothing at all", vec![], Some("not even one")),
            ("an empty one", vec![message(variable, 9, &[])], None),
            ("no capacity", vec![message(variable, 0, &[])], Some("capacity")),
            ("no type", vec![message(0, 9, &[])], Some("type is missing")),
            (
                "in order",
                vec![
                    message(variable, 99, &[range(0, 1), range(1, 2)]),
                    message(variable, 99, &[range(98, 1)]),
                ],
                None,
            ),
            (
                "overlapping over two messages",
                vec![
                    message(variable, 99, &[range(0, 10)]),
                    message(variable, 99, &[range(9, 1)]),
                ],
                Some("out of order"),
            ),
            (
                "behind the end",
                vec![message(variable, 9, &[range(0, 10)])],
                Some("behind"),
            ),
            (
                "too many",
                vec![message(variable, 9, &[range(0, 1), range(1, 1), range(2, 1)])],
                Some("more than max_results"),
            ),
            (
                "two capacities",
                vec![message(variable, 9, &[]), message(variable, 8, &[])],
                Some("two messages"),
            ),
            (
                "two lengths of fixed ones",
                vec![message(fixed, 9, &[range(0, 1), range(2, 2)])],
                Some("two lengths"),
            ),
        ];
        for (name, messages, expected) in cases {
            match (flaw(&messages), expected) {
                (None, None) => {}
                (Some(why), Some(expected)) => assert!(why.contains(expected), "{name}: {why}"),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }
}
