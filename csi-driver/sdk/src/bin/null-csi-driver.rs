//! A driver that stores nothing, as a program of its own: for measuring what is around a driver, and the shortest
//! `main` there is.

use std::{convert::Infallible, process::ExitCode};

use moorline_driver_sdk::{DriverInfo, cli, null};

fn main() -> ExitCode {
    let info = DriverInfo::new("null.csi.moorline.dev", env!("CARGO_PKG_VERSION"));
    cli::main(info, |driver, cli::NoArgs {}| async {
        Ok::<_, Infallible>(null::add_to(driver))
    })
}
