//! `moorline image load|ls|rm`: the image store of a state directory, whether its cluster runs or not.

use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    args::{Image, ImageCommand},
    cluster::open_runtime,
    image_socket::{Request, Row, ask, handle},
    privilege,
    state_dir::StateDir,
};

/// Runs one image command.
pub async fn run(args: Image) -> anyhow::Result<ExitCode> {
    privilege::require_root(
        "moorline image",
        "Images are unpacked with their owners, which only root can set.",
    )?;
    let state = StateDir::resolve(&args.state)?;
    let request = match &args.command {
        ImageCommand::Load { file } => Request::Load(
            file.canonicalize()
                .with_context(|| format!("find {}", file.display()))?,
        ),
        ImageCommand::Ls => Request::List,
        ImageCommand::Rm { image } => Request::Remove(image.clone()),
    };
    let progress = progress(&request);
    let rows = match ask(&state.image_socket(), &request).await? {
        Some(rows) => rows,
        None => {
            std::fs::create_dir_all(state.root())
                .with_context(|| format!("make {}", state.root().display()))?;
            let runtime = open_runtime(&state, false).await?;
            let rows = handle(&runtime, request).await;
            runtime.close().await;
            rows?
        }
    };
    progress.finish_and_clear();
    show(&args.command, &rows);
    Ok(ExitCode::SUCCESS)
}

/// Unpacking a large image takes more than a moment; a terminal shows that something happens.
fn progress(request: &Request) -> ProgressBar {
    let Request::Load(path) = request else {
        return ProgressBar::hidden();
    };
    let style = ProgressStyle::with_template("{spinner} loading {msg} ({elapsed})");
    let spinner =
        ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    spinner.set_message(path.display().to_string());
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    spinner
}

#[expect(clippy::print_stdout, reason = "the command line's answer to its user")]
fn show(command: &ImageCommand, rows: &[Row]) {
    match command {
        ImageCommand::Load { .. } => rows.iter().for_each(|row| println!("loaded {}", row.name)),
        ImageCommand::Rm { .. } => rows.iter().for_each(|row| println!("removed {}", row.name)),
        ImageCommand::Ls => {
            println!("{:<50} {:<14} {:>12}", "IMAGE", "ID", "SIZE");
            for row in rows {
                let id: String = row.id.trim_start_matches("sha256:").chars().take(12).collect();
                println!(
                    "{:<50} {id:<14} {:>8} KiB",
                    row.name,
                    row.size_bytes.div_ceil(1024)
                );
            }
        }
    }
}
