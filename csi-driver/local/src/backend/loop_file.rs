//! The `loop` backend: a sparse file per volume, as a loop device raw or with a filesystem. Capacity is enforced.
//!
//! For a filesystem the device is attached with autoclear: it lives exactly as long as the mount at the staging path, so
//! that no crash leaves it behind. For a raw block device nothing holds it open between stage and publish; it is
//! detached explicitly when the volume is unstaged.

mod devices;
mod tuning;

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use moorline_driver_sdk::volume::{VolumeStats, VolumeUsage};
use moorline_mount::{
    allocate,
    beneath::{Seen, Target},
    copy,
    filesystem::{self, FsType},
    loop_device::{self, AttachOptions},
    mount::{self, BindOptions},
    mountinfo::{self, MountEntry},
    usage,
};

use super::{
    Backend, BackendError, Enforcement, Files, NewData, SizeRule,
    directory::{
        TARGET_DIRECTORY_MODE, filesystem_stats, give_to_group, refuse_other_mount, same_writability,
    },
};
use crate::{
    copying::Copying,
    failpoint,
    fit::MountPlan,
    record::{Content, Provisioning},
    settings::Settings,
};

/// Block size of the filesystems and page size of the loop driver.
const STEP_BYTES: u64 = 4096;
const BLOCK_MIN_BYTES: u64 = 1 << 20;
/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;
const TARGET_FILE_MODE: u32 = 0o640;
/// Who has the device open for a moment only, to look what it is, is gone by then.
const DETACH_TIMEOUT: Duration = Duration::from_secs(2);

/// See [`super::forget_limits`].
pub(super) fn forget_limits(devices: &[(u32, u32)]) -> Result<(), BackendError> {
    tuning::forget(devices)
}

pub(crate) struct LoopFiles;

impl LoopFiles {
    /// Never shrinks.
    fn give_size(file: &File, image: &Path, new: NewData) -> Result<(), BackendError> {
        let now = file.metadata().map_err(BackendError::io("look at", image))?.len();
        if now < new.bytes {
            file.set_len(new.bytes)
                .map_err(BackendError::io("set the size of", image))?;
        }
        match new.provisioning {
            Provisioning::Thin => Ok(()),
            Provisioning::Thick => Ok(allocate::reserve(file, new.bytes)?),
        }
    }

    /// A new image with the source's content.
    fn copy_image(
        files: Files<'_>,
        source: Files<'_>,
        may_share: bool,
        copying: &mut Copying,
    ) -> Result<(PathBuf, File), BackendError> {
        let (from_path, image) = (devices::image(source), devices::image(files));
        let from = File::open(&from_path).map_err(BackendError::io("open", &from_path))?;
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let file = options
            .open(&image)
            .map_err(BackendError::io("make the file", &image))?;
        if !may_share || !copy::reflink(&from, &file)? {
            copy::sparse(&from, &file, &mut |progress| {
                copying.note(progress.bytes, progress.bytes_total)
            })?;
        }
        Ok((image, file))
    }

    fn stage_filesystem(
        files: Files<'_>,
        fs_type: FsType,
        staging: &Target,
        plan: &MountPlan,
    ) -> Result<(), BackendError> {
        if let Some(device) = devices::mounted_at(files, staging)? {
            // An earlier try may have died between the mounting and the growing.
            if !fs_type.grows_unmounted() && !filesystem::spans_device(device.path())? {
                filesystem::grow(device.path(), staging.path(), fs_type)?;
            }
            return Ok(());
        }
        staging.ensure_directory(TARGET_DIRECTORY_MODE)?;
        failpoint::hit("stage::after_directory")?;
        refuse_other_mount(staging)?;
        let image = devices::image(files);
        let options = AttachOptions {
            autoclear: true,
            direct_io: plan.settings.direct_io,
            ..AttachOptions::default()
        };
        let found = devices::device(files, false)?;
        let is_mounted_elsewhere = found.is_some() && !devices::filesystem_mounts(files)?.is_empty();
        // Held open until the mount holds it.
        let device = found.map_or_else(|| loop_device::attach(&image, options), Ok)?;
        failpoint::hit("stage::after_device")?;
        if filesystem::probe(device.path())? != Some(fs_type) {
            return Err(BackendError::WrongContent {
                path: image,
                expected: files.content,
            });
        }
        let is_ungrown = !is_mounted_elsewhere && !filesystem::spans_device(device.path())?;
        if !is_mounted_elsewhere && filesystem::needs_check(device.path(), fs_type)? {
            tracing::warn!(device = %device.path().display(), "The filesystem was not unmounted or has noted errors; checking it");
            filesystem::check(device.path(), fs_type)?;
            failpoint::hit("stage::after_check")?;
        }
        if is_ungrown {
            filesystem::grow_unmounted(device.path(), fs_type)?;
            failpoint::hit("stage::after_growth")?;
        }
        tuning::tune(files, &plan.settings)?;
        // Read-only is a matter of publishing: the journal must be replayed first.
        let mut options = plan.options.clone();
        options.attributes.set -= rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY;
        if let Some(discard) = plan.settings.discard {
            // The last word counts, should the mount options have one as well.
            let word = tuning::discard_option(discard).to_owned();
            options.parameters.push((word, None));
        }
        let made = mount::new_filesystem(
            device.path().as_os_str(),
            staging.path(),
            fs_type.as_str(),
            &options,
        )?;
        staging.attach(made)?;
        failpoint::hit("stage::after_mount")?;
        if is_ungrown && !fs_type.grows_unmounted() {
            filesystem::grow(device.path(), staging.path(), fs_type)?;
        }
        Ok(())
    }

    fn publish_filesystem(
        files: Files<'_>,
        staging: &Target,
        target: &Target,
        plan: &MountPlan,
    ) -> Result<(), BackendError> {
        if devices::mounted_at(files, target)?.is_some() {
            return same_writability(target, plan);
        }
        if devices::mounted_at(files, staging)?.is_none() {
            return Err(BackendError::NotStaged(staging.path().to_owned()));
        }
        give_to_group(&staging.pinned_path(), plan)?;
        target.ensure_directory(TARGET_DIRECTORY_MODE)?;
        failpoint::hit("publish::after_entry")?;
        refuse_other_mount(target)?;
        let options = BindOptions {
            attributes: plan.attributes(),
            recursive: false,
        };
        target.attach(staging.clone_tree(options)?)?;
        Ok(failpoint::hit("publish::after_mount")?)
    }

    /// A read-only mount of a device node would not keep anybody from writing to the device, so that read-only users
    /// get a read-only device of their own.
    fn publish_block(files: Files<'_>, target: &Target, plan: &MountPlan) -> Result<(), BackendError> {
        if let Some(device) = devices::node_at(files, target)? {
            if device.is_read_only()? == plan.is_read_only() {
                return Ok(());
            }
            let what = "has the volume with other access already";
            return Err(BackendError::Conflict {
                path: target.path().to_owned(),
                what,
            });
        }
        let remembered = match plan.device.filter(|_| !plan.is_read_only()) {
            Some(number) => devices::device_of_number(files, number)?,
            None => None,
        };
        let device = match remembered {
            Some(device) if !device.is_read_only()? => Some(device),
            _ => devices::device(files, plan.is_read_only())?,
        };
        let device = match device {
            Some(device) => device,
            None if plan.is_read_only() && devices::device(files, false)?.is_some() => loop_device::attach(
                devices::image(files),
                AttachOptions {
                    read_only: true,
                    ..AttachOptions::default()
                },
            )?,
            None => return Err(BackendError::NotStaged(devices::image(files))),
        };
        failpoint::hit("publish::after_device")?;
        target.ensure_file(TARGET_FILE_MODE)?;
        failpoint::hit("publish::after_entry")?;
        refuse_other_mount(target)?;
        target.attach(mount::clone_tree(device.path(), BindOptions::default())?)?;
        Ok(failpoint::hit("publish::after_mount")?)
    }
}

impl Backend for LoopFiles {
    fn sizes(&self, content: Content) -> SizeRule {
        let min_bytes = content
            .filesystem()
            .map_or(BLOCK_MIN_BYTES, FsType::size_min_bytes);
        SizeRule {
            min_bytes,
            step_bytes: STEP_BYTES,
        }
    }

    fn enforcement(&self, _pool: &Path, _content: Content) -> Result<Enforcement, BackendError> {
        Ok(Enforcement::Enforced)
    }

    fn make(&self, files: Files<'_>, new: NewData) -> Result<(), BackendError> {
        let image = devices::image(files);
        let file = File::options().write(true).create_new(true).open(&image);
        let file = file.map_err(BackendError::io("make the file", &image))?;
        Self::give_size(&file, &image, new)?;
        if let Some(fs_type) = files.content.filesystem() {
            filesystem::make(&image, fs_type)?;
        }
        file.sync_all().map_err(BackendError::io("fsync", &image))
    }

    fn make_from(
        &self,
        files: Files<'_>,
        source: Files<'_>,
        new: NewData,
        copying: &mut Copying,
    ) -> Result<(), BackendError> {
        // A thick volume's blocks are its own: shared ones would have to be found anew when they are written to.
        let may_share = new.provisioning == Provisioning::Thin;
        let (image, file) = Self::copy_image(files, source, may_share, copying)?;
        if let Some(fs_type) = files.content.filesystem() {
            filesystem::new_identity(&image, fs_type)?;
        }
        Self::give_size(&file, &image, new)?;
        file.sync_all().map_err(BackendError::io("fsync", &image))
    }

    fn cut(&self, snapshot: Files<'_>, source: Files<'_>, copying: &mut Copying) -> Result<(), BackendError> {
        let (image, file) = Self::copy_image(snapshot, source, true, copying)?;
        file.sync_all().map_err(BackendError::io("fsync", &image))
    }

    fn can_share(&self, _content: Content, pool_reflinks: bool) -> bool {
        pool_reflinks
    }

    fn image(&self, files: Files<'_>) -> Option<PathBuf> {
        Some(devices::image(files))
    }

    fn allocated_bytes(&self, files: Files<'_>) -> Result<u64, BackendError> {
        let image = devices::image(files);
        let seen = fs::metadata(&image).map_err(BackendError::io("look at", &image))?;
        Ok(seen.blocks() * BLOCK_BYTES)
    }

    fn fault(&self, files: Files<'_>, bytes: u64) -> Result<Option<String>, BackendError> {
        let image = devices::image(files);
        match fs::symlink_metadata(&image) {
            Ok(seen) if !seen.is_file() => Ok(Some(format!("{} is no file", image.display()))),
            Ok(seen) if seen.len() < bytes => Ok(Some(format!(
                "{} has {} bytes, not {bytes}",
                image.display(),
                seen.len()
            ))),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Some(format!("the file {} is missing", image.display())))
            }
            Err(error) => Err(BackendError::io("look at", image)(error)),
        }
    }

    fn freeze_points(&self, files: Files<'_>) -> Result<Vec<PathBuf>, BackendError> {
        if files.content.filesystem().is_none() {
            return Ok(Vec::new());
        }
        let mut mounts = devices::filesystem_mounts(files)?;
        // However often it is mounted, it is one filesystem.
        mounts.sort_by_key(|entry| entry.device);
        mounts.dedup_by_key(|entry| entry.device);
        Ok(mounts.into_iter().map(|entry| entry.mount_point).collect())
    }

    fn flush(&self, files: Files<'_>) -> Result<(), BackendError> {
        for device in devices::devices(files)? {
            let path = device.path();
            let opened = File::open(path).map_err(BackendError::io("open", path))?;
            opened.sync_all().map_err(BackendError::io("fsync", path))?;
        }
        Ok(())
    }

    fn grow(&self, files: Files<'_>, new: NewData) -> Result<(), BackendError> {
        let image = devices::image(files);
        let file = File::options()
            .write(true)
            .open(&image)
            .map_err(BackendError::io("open", &image))?;
        Self::give_size(&file, &image, new)?;
        file.sync_all().map_err(BackendError::io("fsync", &image))
    }

    fn needs_node_expansion(&self) -> bool {
        true
    }

    fn users(&self, files: Files<'_>) -> Result<Vec<PathBuf>, BackendError> {
        Ok(devices::devices(files)?
            .iter()
            .map(|device| device.path().to_owned())
            .collect())
    }

    fn stage(&self, files: Files<'_>, staging: &Target, plan: &MountPlan) -> Result<(), BackendError> {
        match files.content.filesystem() {
            Some(fs_type) => Self::stage_filesystem(files, fs_type, staging, plan),
            None => {
                staging.ensure_directory(TARGET_DIRECTORY_MODE)?;
                failpoint::hit("stage::after_directory")?;
                devices::ensure_device(
                    files,
                    AttachOptions {
                        read_only: plan.is_read_only(),
                        direct_io: plan.settings.direct_io,
                        ..AttachOptions::default()
                    },
                )?;
                failpoint::hit("stage::after_device")?;
                tuning::tune(files, &plan.settings)
            }
        }
    }

    fn unstage(&self, files: Files<'_>) -> Result<(), BackendError> {
        let devices = devices::devices(files)?;
        // With autoclear the unmounting of a filesystem was all. One that is mounted elsewhere too keeps its device
        // until then.
        if devices.is_empty() || !devices::filesystem_mounts_of(&devices, &mountinfo::current()?)?.is_empty()
        {
            return Ok(());
        }
        if let Some(user) = devices::node_mounts(&devices)?.first() {
            return Err(BackendError::StillPublished(user.mount_point.clone()));
        }
        devices.into_iter().try_for_each(devices::detach)?;
        failpoint::hit("unstage::after_detach")?;
        let image = devices::image(files);
        if loop_device::wait_until_detached(&image, DETACH_TIMEOUT)? {
            return Ok(());
        }
        Err(BackendError::Busy(image))
    }

    fn publish(
        &self,
        files: Files<'_>,
        staging: &Target,
        target: &Target,
        plan: &MountPlan,
    ) -> Result<(), BackendError> {
        if plan.is_block {
            Self::publish_block(files, target, plan)
        } else {
            Self::publish_filesystem(files, staging, target, plan)
        }
    }

    fn tune(&self, files: Files<'_>, settings: &Settings) -> Result<(), BackendError> {
        tuning::tune(files, settings)
    }

    fn devices(&self, files: Files<'_>) -> Result<Vec<(u32, u32)>, BackendError> {
        tuning::numbers(files)
    }

    /// A read-only device may be left, also when nothing is seen because an earlier try came no further.
    fn leaves_nothing(&self, files: Files<'_>, seen: Seen) -> Result<bool, BackendError> {
        if files.content != Content::Block {
            return Ok(true);
        }
        if !seen.is_mount_point {
            return Ok(false);
        }
        match devices::device_of_number(files, seen.represents)? {
            Some(device) => Ok(!device.is_read_only()?),
            None => Ok(false),
        }
    }

    fn unpublish(&self, files: Files<'_>) -> Result<(), BackendError> {
        if files.content != Content::Block {
            return Ok(());
        }
        // The read-only device beside a writable one is made by publishing and goes with its last user.
        let devices = devices::devices(files)?;
        let (mut read_only, mut writable) = (Vec::new(), 0);
        for device in devices {
            if device.is_read_only()? {
                read_only.push(device)
            } else {
                writable += 1
            }
        }
        if writable == 0 || !devices::node_mounts(&read_only)?.is_empty() {
            return Ok(());
        }
        read_only.into_iter().try_for_each(devices::detach)
    }

    fn published_at(&self, files: Files<'_>, staging: Option<&Path>) -> Result<Vec<PathBuf>, BackendError> {
        let mounts = if files.content == Content::Block {
            devices::node_mounts(&devices::devices(files)?)?
        } else {
            devices::filesystem_mounts(files)?
        };
        let is_whole = |entry: &MountEntry| files.content == Content::Block || entry.root == Path::new("/");
        let paths = mounts.into_iter().filter(is_whole).map(|entry| entry.mount_point);
        Ok(paths.filter(|path| Some(path.as_path()) != staging).collect())
    }

    fn grow_on_node(&self, files: Files<'_>, path: &Target) -> Result<(), BackendError> {
        let not_there = || BackendError::NotThere(path.path().to_owned());
        let fs_type = files.content.filesystem();
        let is_there = match fs_type {
            Some(_) => devices::mounted_at(files, path)?.is_some(),
            // A block volume is named by the path of its staging directory, of its node, or of something made of that.
            None => path.look()?.is_some(),
        };
        if !is_there {
            return Err(not_there());
        }
        let devices = devices::devices(files)?;
        for device in &devices {
            loop_device::refresh_size(device.path())?;
        }
        let device = devices.first().ok_or_else(not_there)?;
        if let Some(fs_type) = fs_type {
            filesystem::grow(device.path(), path.path(), fs_type)?;
        }
        Ok(())
    }

    fn stats(&self, files: Files<'_>, path: &Target) -> Result<VolumeStats, BackendError> {
        if files.content != Content::Block {
            if devices::mounted_at(files, path)?.is_none() {
                return Err(BackendError::NotThere(path.path().to_owned()));
            }
            return filesystem_stats(path);
        }
        let device = devices::devices(files)?.into_iter().next();
        let (Some(device), Some(_)) = (device, path.look()?) else {
            return Err(BackendError::NotThere(path.path().to_owned()));
        };
        let image = devices::image(files);
        let allocated = fs::metadata(&image)
            .map_err(BackendError::io("look at", &image))?
            .blocks()
            * BLOCK_BYTES;
        let total = usage::block_size(device.path())?;
        let bytes = VolumeUsage {
            total,
            available: total.saturating_sub(allocated),
            used: allocated.min(total),
        };
        Ok(VolumeStats {
            bytes: Some(bytes),
            ..VolumeStats::default()
        })
    }
}
