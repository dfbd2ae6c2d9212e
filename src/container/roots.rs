//! What containers leave when they are gone and others may still need: committed root filesystems, frozen layers.
//! Whether one is needed is asked of the records, each time anew.

use anyhow::Result;

use super::{Host, build};
use crate::opt::Needs;

/// Removes the committed root filesystems and the layers frozen from volumes that nothing needs any more.
pub async fn collect(host: &Host) -> Result<()> {
    // The images first: a record that names one is written before the image is there.
    let here = host.engine.roots().await?;
    let records = host.records.all()?;
    for (key, image) in here {
        let needed = |cloned: &super::Cloned| cloned.root == key;
        if records.iter().any(|(_, record)| record.cloned.as_ref().is_some_and(needed)) {
            continue;
        }
        if host.engine.remove_root(&key).await? {
            host.images.remove(image.trim_start_matches("sha256:"))?;
        }
    }
    let opt = host.opt.clone();
    build::blocking(move || opt.collect(&Needs::default(), false)).await?;
    Ok(())
}
