//! Volumes: made, listed, grown, changed, removed.

use std::collections::{BTreeSet, HashMap};

use moorline_proto::csi::{
    self,
    volume_content_source::{Type, VolumeSource},
};
use tonic::Code;

use super::{
    Checked, Demand, Fault,
    context::{
        Context, UNKNOWN_ID, all_pages, demand_that, ok, refused, unknown_token_refused, unknown_volume,
    },
    demand,
};

pub(super) const DEMANDS: &[Demand] = &[
    demand!(
        "a create without a name is refused",
        ["controller.CreateDeleteVolume"],
        nameless
    ),
    demand!(
        "a create without capabilities is refused",
        ["controller.CreateDeleteVolume"],
        no_capabilities
    ),
    demand!(
        "a create with limit below size is refused",
        ["controller.CreateDeleteVolume"],
        contradictory_size
    ),
    demand!(
        "a new volume has the size asked for",
        ["controller.CreateDeleteVolume"],
        size
    ),
    demand!(
        "a create that is repeated gives the same volume",
        ["controller.CreateDeleteVolume"],
        repeated
    ),
    demand!(
        "a name taken by another size is refused",
        ["controller.CreateDeleteVolume"],
        name_taken
    ),
    demand!(
        "names of 128 bytes are taken",
        ["controller.CreateDeleteVolume"],
        long_name
    ),
    demand!(
        "a delete without an id is refused",
        ["controller.CreateDeleteVolume"],
        delete_nothing
    ),
    demand!(
        "a delete can be repeated",
        ["controller.CreateDeleteVolume"],
        delete_twice
    ),
    demand!(
        "capabilities of a volume are confirmed",
        ["controller.CreateDeleteVolume"],
        validate
    ),
    demand!(
        "capabilities of an unknown volume are not found",
        ["ControllerService"],
        validate_unknown
    ),
    demand!(
        "volumes are listed as long as they exist",
        ["controller.ListVolumes", "controller.CreateDeleteVolume"],
        list
    ),
    demand!(
        "pages of the list have every volume once",
        ["controller.ListVolumes", "controller.CreateDeleteVolume"],
        pages
    ),
    demand!(
        "a made-up page token is refused",
        ["controller.ListVolumes"],
        bad_token
    ),
    demand!(
        "a volume is found by its id",
        ["controller.GetVolume", "controller.CreateDeleteVolume"],
        get
    ),
    demand!(
        "an unknown volume is not found",
        ["controller.GetVolume"],
        get_unknown
    ),
    demand!("capacity makes sense", ["controller.GetCapacity"], capacity),
    demand!(
        "a volume grows, also twice",
        ["controller.ExpandVolume", "controller.CreateDeleteVolume"],
        expand
    ),
    demand!(
        "an unknown volume does not grow",
        ["controller.ExpandVolume"],
        expand_unknown
    ),
    demand!(
        "growing without a size is refused",
        ["controller.ExpandVolume"],
        expand_without_size
    ),
    demand!(
        "parameters change, also twice",
        ["controller.ModifyVolume", "controller.CreateDeleteVolume"],
        modify
    ),
    demand!(
        "parameters of an unknown volume do not change",
        ["controller.ModifyVolume"],
        modify_unknown
    ),
    demand!(
        "a volume is cloned",
        ["controller.CloneVolume", "controller.CreateDeleteVolume"],
        clone
    ),
    demand!(
        "an unknown volume is not cloned",
        ["controller.CloneVolume"],
        clone_unknown
    ),
];

async fn refused_create(context: &Context, what: &str, change: fn(&mut csi::CreateVolumeRequest)) -> Checked {
    let mut request = context.create_request();
    change(&mut request);
    refused(
        what,
        Code::InvalidArgument,
        context.controller().create_volume(request).await,
    )
}

async fn nameless(context: &Context) -> Checked {
    refused_create(context, "CreateVolume without name", |request| {
        request.name.clear()
    })
    .await
}

async fn no_capabilities(context: &Context) -> Checked {
    let what = "CreateVolume without volume_capabilities";
    refused_create(context, what, |request| request.volume_capabilities.clear()).await
}

async fn contradictory_size(context: &Context) -> Checked {
    let mut request = context.create_request();
    request.capacity_range = Some(csi::CapacityRange {
        required_bytes: context.bytes(),
        limit_bytes: context.bytes() / 2,
    });
    match context.controller().create_volume(request).await {
        // The specification has both words for it.
        Err(status) if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange) => Ok(()),
        answer => refused(
            "CreateVolume with limit_bytes below required_bytes",
            Code::OutOfRange,
            answer,
        ),
    }
}

async fn size(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let size = volume.capacity_bytes;
    demand_that(size == 0 || size >= context.bytes(), || {
        format!("the volume has {size} bytes, {} were required", context.bytes())
    })
}

async fn repeated(context: &Context) -> Checked {
    let request = context.create_request();
    let first = context.create(request.clone()).await?;
    let second = context.create(request).await?;
    demand_that(first.volume_id == second.volume_id, || {
        format!(
            "the same name became {} and {}",
            first.volume_id, second.volume_id
        )
    })
}

async fn name_taken(context: &Context) -> Checked {
    let mut request = context.create_request();
    context.create(request.clone()).await?;
    request.capacity_range = Some(csi::CapacityRange {
        required_bytes: context.bytes() * 2,
        limit_bytes: context.bytes() * 2,
    });
    let answer = context.controller().create_volume(request).await;
    refused(
        "CreateVolume of a taken name with another size",
        Code::AlreadyExists,
        answer,
    )
}

async fn long_name(context: &Context) -> Checked {
    let mut request = context.create_request();
    request.name = format!("{:x<128}", request.name);
    context.create(request).await.map(|_| ())
}

async fn delete_nothing(context: &Context) -> Checked {
    let answer = context
        .controller()
        .delete_volume(csi::DeleteVolumeRequest::default())
        .await;
    refused("DeleteVolume without volume_id", Code::InvalidArgument, answer)
}

async fn delete_twice(context: &Context) -> Checked {
    let volume = context.volume().await?;
    context.delete(&volume.volume_id).await?;
    context.delete(&volume.volume_id).await?;
    context.delete(UNKNOWN_ID).await
}

fn validate_request(context: &Context, volume: &csi::Volume) -> csi::ValidateVolumeCapabilitiesRequest {
    csi::ValidateVolumeCapabilitiesRequest {
        volume_id: volume.volume_id.clone(),
        volume_context: volume.volume_context.clone(),
        volume_capabilities: vec![context.capability()],
        secrets: context.secrets(),
        ..Default::default()
    }
}

async fn validate(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let request = validate_request(context, &volume);
    let answer = context
        .controller()
        .validate_volume_capabilities(request.clone())
        .await;
    let confirmed = ok("ValidateVolumeCapabilities", answer)?.confirmed;
    let capabilities = confirmed.map(|confirmed| confirmed.volume_capabilities);
    demand_that(
        capabilities.as_ref() == Some(&request.volume_capabilities),
        || "the volume was made for a capability that is not confirmed".to_owned(),
    )?;
    let request = csi::ValidateVolumeCapabilitiesRequest {
        volume_capabilities: Vec::new(),
        ..request
    };
    let answer = context.controller().validate_volume_capabilities(request).await;
    refused(
        "ValidateVolumeCapabilities without any",
        Code::InvalidArgument,
        answer,
    )
}

async fn validate_unknown(context: &Context) -> Checked {
    let request = validate_request(context, &unknown_volume());
    let answer = context.controller().validate_volume_capabilities(request).await;
    refused(
        "ValidateVolumeCapabilities of an unknown volume",
        Code::NotFound,
        answer,
    )
}

/// Every id of the list, in pages of so many.
async fn listed(context: &Context, max_entries: i32) -> Result<Vec<String>, Fault> {
    let entries = all_pages(max_entries, |starting_token| async move {
        let request = csi::ListVolumesRequest {
            max_entries,
            starting_token,
        };
        let page = ok("ListVolumes", context.controller().list_volumes(request).await)?;
        Ok((page.entries, page.next_token))
    });
    let volumes = entries.await?.into_iter().filter_map(|entry| entry.volume);
    Ok(volumes.map(|volume| volume.volume_id).collect())
}

async fn list(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let id = &volume.volume_id;
    demand_that(listed(context, 0).await?.contains(id), || {
        format!("{id} is not listed")
    })?;
    context.delete(id).await?;
    demand_that(!listed(context, 0).await?.contains(id), || {
        format!("{id} is listed after its end")
    })
}

async fn pages(context: &Context) -> Checked {
    let mut ours = BTreeSet::new();
    for _ in 0..3 {
        ours.insert(context.volume().await?.volume_id);
    }
    let ids = listed(context, 2).await?;
    let distinct: BTreeSet<_> = ids.iter().cloned().collect();
    demand_that(distinct.len() == ids.len(), || {
        "an entry is on two pages".to_owned()
    })?;
    demand_that(ours.is_subset(&distinct), || "a volume is on no page".to_owned())
}

async fn bad_token(context: &Context) -> Checked {
    unknown_token_refused("ListVolumes", |starting_token| async move {
        let request = csi::ListVolumesRequest {
            max_entries: 0,
            starting_token,
        };
        context.controller().list_volumes(request).await
    })
    .await
}

async fn get(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let request = csi::ControllerGetVolumeRequest {
        volume_id: volume.volume_id.clone(),
    };
    let answer = context.controller().controller_get_volume(request).await;
    let found = ok("ControllerGetVolume", answer)?.volume.unwrap_or_default();
    demand_that(found.volume_id == volume.volume_id, || {
        "another volume is found".to_owned()
    })?;
    demand_that(found.capacity_bytes == volume.capacity_bytes, || {
        "it has another size".to_owned()
    })
}

async fn get_unknown(context: &Context) -> Checked {
    let request = csi::ControllerGetVolumeRequest {
        volume_id: UNKNOWN_ID.to_owned(),
    };
    let answer = context.controller().controller_get_volume(request).await;
    refused("ControllerGetVolume of an unknown volume", Code::NotFound, answer)
}

async fn capacity(context: &Context) -> Checked {
    let request = csi::GetCapacityRequest {
        volume_capabilities: vec![context.capability()],
        parameters: context.options.parameters.clone().into_iter().collect(),
        ..Default::default()
    };
    let answer = ok("GetCapacity", context.controller().get_capacity(request).await)?;
    let (least, most) = (answer.minimum_volume_size, answer.maximum_volume_size);
    let makes_sense = answer.available_capacity >= 0
        && least.unwrap_or(0) >= 0
        && most.is_none_or(|most| most >= 0)
        && (answer.available_capacity == 0 || most.zip(least).is_none_or(|(most, least)| least <= most));
    demand_that(makes_sense, || format!("{answer:?}"))
}

async fn expand(context: &Context) -> Checked {
    let volume = context.volume().await?;
    for _ in 0..2 {
        let request = context.expand_request(&volume.volume_id);
        let answer = context.controller().controller_expand_volume(request).await;
        let size = ok("ControllerExpandVolume", answer)?.capacity_bytes;
        demand_that(size >= context.bytes() * 2, || {
            format!(
                "the volume has {size} bytes, {} were required",
                context.bytes() * 2
            )
        })?;
    }
    Ok(())
}

async fn expand_unknown(context: &Context) -> Checked {
    let request = context.expand_request(UNKNOWN_ID);
    let answer = context.controller().controller_expand_volume(request).await;
    refused(
        "ControllerExpandVolume of an unknown volume",
        Code::NotFound,
        answer,
    )
}

async fn expand_without_size(context: &Context) -> Checked {
    let request = csi::ControllerExpandVolumeRequest {
        capacity_range: None,
        ..context.expand_request(UNKNOWN_ID)
    };
    let answer = context.controller().controller_expand_volume(request).await;
    refused(
        "ControllerExpandVolume without capacity_range",
        Code::InvalidArgument,
        answer,
    )
}

fn modify_request(context: &Context, volume_id: &str) -> csi::ControllerModifyVolumeRequest {
    csi::ControllerModifyVolumeRequest {
        volume_id: volume_id.to_owned(),
        secrets: context.secrets(),
        mutable_parameters: context.options.mutable_parameters.clone().into_iter().collect(),
    }
}

async fn modify(context: &Context) -> Checked {
    if context.options.mutable_parameters.is_empty() {
        return Err(Fault::Skipped(
            "the options have no mutable_parameters".to_owned(),
        ));
    }
    let volume = context.volume().await?;
    for _ in 0..2 {
        let request = modify_request(context, &volume.volume_id);
        ok(
            "ControllerModifyVolume",
            context.controller().controller_modify_volume(request).await,
        )?;
    }
    let request = csi::ControllerModifyVolumeRequest {
        mutable_parameters: HashMap::from([("conformance/made-up".to_owned(), "x".to_owned())]),
        ..modify_request(context, &volume.volume_id)
    };
    let answer = context.controller().controller_modify_volume(request).await;
    refused(
        "ControllerModifyVolume of an unknown parameter",
        Code::InvalidArgument,
        answer,
    )
}

async fn modify_unknown(context: &Context) -> Checked {
    let request = modify_request(context, UNKNOWN_ID);
    let answer = context.controller().controller_modify_volume(request).await;
    refused(
        "ControllerModifyVolume of an unknown volume",
        Code::NotFound,
        answer,
    )
}

fn source(volume_id: &str) -> Type {
    Type::Volume(VolumeSource {
        volume_id: volume_id.to_owned(),
    })
}

async fn clone(context: &Context) -> Checked {
    let volume = context.volume().await?;
    let copy = context.volume_from(source(&volume.volume_id)).await?;
    demand_that(copy.volume_id != volume.volume_id, || {
        "the clone is the volume itself".to_owned()
    })
}

async fn clone_unknown(context: &Context) -> Checked {
    context
        .no_volume_from("an unknown volume", source(UNKNOWN_ID))
        .await
}
