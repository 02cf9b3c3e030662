//! `moorline image load|ls|rm`: the image store of a state directory.

use std::process::ExitCode;

use anyhow::Context as _;
use moorline_container_runtime::ImageService as _;

use crate::{
    args::{Image, ImageCommand},
    cluster::open_runtime,
    privilege,
    state_dir::StateDir,
};

/// Runs one image command.
#[expect(clippy::print_stdout, reason = "the command line's answer to its user")]
pub async fn run(args: Image) -> anyhow::Result<ExitCode> {
    privilege::require_root(
        "moorline image",
        "Images are unpacked with their owners, which only root can set.",
    )?;
    let state = StateDir::resolve(&args.state)?;
    let images = open_runtime(&state, false).await?;
    match args.command {
        ImageCommand::Load { file } => {
            for image in images
                .load(&file)
                .await
                .with_context(|| format!("load {}", file.display()))?
            {
                println!("loaded {}", image.name);
            }
        }
        ImageCommand::Ls => {
            println!("{:<50} {:<20} {:>10}", "IMAGE", "ID", "SIZE");
            for image in images.list().await.context("list images")? {
                let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
                for name in &image.names {
                    println!("{name:<50} {id:<20} {:>7} KiB", image.size_bytes.div_ceil(1024));
                }
            }
        }
        ImageCommand::Rm { image } => {
            images
                .remove(&image)
                .await
                .with_context(|| format!("remove image {image}"))?;
            println!("removed {image}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
