//! Data on real filesystems: pools on ext4, xfs and btrfs, workloads that write while they are copied, grown or out of room.

mod full;
mod many;
mod moving;
mod records;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use moorline_mount::{
    filesystem::{self, FsType},
    loop_device::{self, AttachOptions},
    mount,
};
use moorline_proto::csi;

use crate::support::{Driver, Scratch, Use, cannot_run};

/// Puts the pool directory on a filesystem of its own, of this size.
fn pool_on(scratch: &Scratch, fs_type: FsType, bytes: u64) {
    let (pool, image) = (scratch.directory("pool"), scratch.path("pool.img"));
    File::create(&image).unwrap().set_len(bytes).unwrap();
    filesystem::make(&image, fs_type).unwrap();
    // The device goes with the mount.
    let options = AttachOptions {
        autoclear: true,
        ..AttachOptions::default()
    };
    let device = loop_device::attach(&image, options).unwrap();
    mount::mount(device.path(), &pool, fs_type.as_str(), &[]).unwrap();
}

fn cannot(test: &str, usage: Use, pool: FsType) -> bool {
    let of_pool: &[&str] = match pool {
        FsType::Ext4 => &["mkfs.ext4"],
        FsType::Xfs => &["mkfs.xfs"],
        FsType::Btrfs => &["mkfs.btrfs"],
    };
    cannot_run(test, usage.tools()) || cannot_run(test, of_pool)
}

/// A volume that is published.
#[derive(Debug)]
struct Published {
    id: String,
    staging: PathBuf,
    target: PathBuf,
    /// What workloads write to: a file, or the device.
    file: PathBuf,
}

impl Published {
    async fn create(driver: &mut Driver, scratch: &Scratch, usage: Use, id: &str) -> Self {
        Self::of(driver, scratch, usage, usage.create(id)).await
    }

    async fn of(
        driver: &mut Driver,
        scratch: &Scratch,
        usage: Use,
        request: csi::CreateVolumeRequest,
    ) -> Self {
        let id = request.name.clone();
        driver.create(request).await.unwrap();
        let (staging, target) = (
            scratch.directory(&format!("staging-{id}")),
            scratch.path(&format!("target-{id}")),
        );
        driver.stage(usage.stage(&id, &staging)).await.unwrap();
        let publish = usage.publish(&id, &staging, &target);
        driver.publish(publish).await.unwrap();
        let file = file_at(usage, &target);
        Published {
            id,
            staging,
            target,
            file,
        }
    }

    async fn leave(&self, driver: &mut Driver) {
        driver.unpublish(&self.id, &self.target).await.unwrap();
        driver.unstage(&self.id, &self.staging).await.unwrap();
    }

    async fn remove(self, driver: &mut Driver) {
        self.leave(driver).await;
        driver.delete(&self.id).await.unwrap();
    }
}

fn file_at(usage: Use, target: &Path) -> PathBuf {
    if usage.fs_type.is_some() {
        target.join("file")
    } else {
        target.to_owned()
    }
}
