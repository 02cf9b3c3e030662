//! Two hundred volumes at once, each with its own content, from nothing to nothing.

use std::{fs, sync::Arc};

use tokio::task::JoinSet;

use super::{Published, records::record};
use crate::support::{DIR, Driver, EXT4, Scratch, Use, cannot_run, config};

const VOLUMES: u64 = 200;

async fn life(number: u64, usage: Use, scratch: Arc<Scratch>) -> Published {
    let mut driver = Driver::connect(&config(scratch.root(), usage.backend)).await;
    let id = format!("pvc-{number}");
    let it = Published::create(&mut driver, &scratch, usage, &id).await;
    let file = it.file.clone();
    let written = tokio::task::spawn_blocking(move || fs::write(file, record(number)));
    written.await.unwrap().unwrap();
    it
}

async fn two_hundred(usage: Use) {
    let scratch = Arc::new(Scratch::new());
    let mut driver = Driver::start(&scratch, usage.backend).await;
    let mut making = JoinSet::new();
    for number in 0..VOLUMES {
        making.spawn(life(number, usage, Arc::clone(&scratch)));
    }
    let all = making.join_all().await;
    let mut checked = 0;
    for it in &all {
        let number = it.id.trim_start_matches("pvc-").parse().unwrap();
        assert_eq!(fs::read(&it.file).unwrap(), record(number), "{}", it.id);
        checked += 1;
    }
    assert_eq!(checked, VOLUMES);
    let mut removing = JoinSet::new();
    for it in all {
        let config = config(scratch.root(), usage.backend);
        removing.spawn(async move { it.remove(&mut Driver::connect(&config).await).await });
    }
    removing.join_all().await;
    assert_eq!(driver.volume_ids().await, [""; 0]);
    driver.stop().await;
    assert_eq!(fs::read_dir(scratch.path("pool/volumes")).unwrap().count(), 0);
    assert_eq!(scratch.in_use(), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_directories_at_once() {
    if !cannot_run("two_hundred_directories_at_once", &[]) {
        two_hundred(DIR).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_filesystems_at_once() {
    if !cannot_run("two_hundred_filesystems_at_once", EXT4.tools()) {
        two_hundred(EXT4).await;
    }
}
