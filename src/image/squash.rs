//! One layer above a shared base: all layers of an image above what it was built on become one, and the base's stay as they are.

mod merge;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bollard::query_parameters::ImportImageOptions;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::{STEP, known, label, load};
use crate::engine::Engine;
use crate::report::{Fault, Kind, Reporter};

/// Squashes the image that `reference` stands for, and gives the new one its name. Whether there was anything to squash.
///
/// An image that does not say what it was built on, or whose base is not here: [`Kind::Missing`].
pub async fn squash(engine: &Engine, reference: &str, report: &Reporter) -> Result<bool> {
    let docker = engine.docker().await?;
    let image = known(docker, reference).await?;
    let image = image.with_context(|| format!("the image {reference} is not here"))?;
    let missing = |what: String| Fault::new(Kind::Missing, what).next("moorage list-images");
    let Some(base) = image.labels.get(label::BASE_ID) else {
        return Err(missing(format!("{reference} does not say what it was built on")).into());
    };
    let (whole, below) = (layers(engine, reference).await?, layers(engine, base).await);
    let Ok(below) = below else {
        return Err(missing(format!("{base}, which {reference} was built on, is not here")).into());
    };
    ensure!(whole.starts_with(&below), "{reference} was not built on {base}, although its label says so");
    if whole.len() <= below.len() + 1 {
        return Ok(false);
    }
    report.begin(STEP, format!("make one layer of the {} above {base}", whole.len() - below.len()));
    let work = tempfile::tempdir().context("make a directory to work in")?;
    let saved = work.path().join("saved.tar");
    let mut file = File::create(&saved).context("write the image")?;
    let mut bytes = docker.export_image(&image.id);
    while let Some(chunk) = bytes.try_next().await.with_context(|| format!("read {reference}"))? {
        file.write_all(&chunk).context("write the image")?;
    }
    let (at, name, count) = (work.path().to_owned(), reference.to_owned(), below.len());
    let squashed = tokio::task::spawn_blocking(move || remake(&at, &name, count)).await??;
    let length = std::fs::metadata(&squashed).context("look at the squashed image")?.len();
    let body = load::file(squashed, length, report.clone());
    let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
    let said: Vec<_> = docker
        .import_image(options, bollard::body_try_stream(body.boxed()), None)
        .try_collect()
        .await
        .with_context(|| format!("load {reference} into the engine"))?;
    if let Some(error) = said.into_iter().find_map(|said| said.error_detail) {
        return Err(Fault::new(Kind::Failed, format!("the engine does not take {reference}"))
            .why(error.message.unwrap_or_default())
            .next("see dockerd's log, and whether its disk is full")
            .into());
    }
    report.end(STEP, format!("{reference} has one layer above its base"));
    Ok(true)
}

/// The digests of an image's uncompressed layers, lowest first.
async fn layers(engine: &Engine, reference: &str) -> Result<Vec<String>> {
    let image = engine.docker().await?.inspect_image(reference).await;
    let image = image.with_context(|| format!("look at the image {reference}"))?;
    Ok(image.root_fs.and_then(|root| root.layers).unwrap_or_default())
}

/// From `saved.tar` of `docker save` to an archive for `docker load`; blocks.
fn remake(work: &Path, reference: &str, below: usize) -> Result<PathBuf> {
    let unpacked = work.join("unpacked");
    let saved = File::open(work.join("saved.tar")).context("read the image")?;
    tar::Archive::new(saved).unpack(&unpacked).context("unpack the image")?;
    let read = |name: &str| -> Result<Value> {
        let text = std::fs::read(unpacked.join(name)).with_context(|| format!("read {name} of the image"))?;
        serde_json::from_slice(&text).with_context(|| format!("read {name} of the image"))
    };
    let manifest = read("manifest.json")?;
    let text =
        |value: &Value| value.as_str().map(str::to_owned).context("the manifest of the image is strange");
    let mut config = read(&text(&manifest[0]["Config"])?)?;
    let names: Vec<String> = manifest[0]["Layers"]
        .as_array()
        .context("the image has no layers")?
        .iter()
        .map(text)
        .collect::<Result<_>>()?;
    ensure!(names.len() > below, "the image has fewer layers than its base");
    let above: Vec<PathBuf> = names[below..].iter().map(|name| unpacked.join(name)).collect();
    let merged = work.join("merged.tar");
    merge::merge(&above, &merged)?;

    let digest = super::layer::digest_of_file(&merged).context("read the layer")?;
    let digests =
        config["rootfs"]["diff_ids"].as_array_mut().context("the image has no digests of layers")?;
    digests.truncate(below);
    digests.push(json!(digest.to_string()));
    let created = config["created"].clone();
    if let Some(history) = config["history"].as_array_mut() {
        let mut layers = 0;
        history.retain(|entry| {
            layers += usize::from(entry["empty_layer"] != json!(true));
            layers <= below
        });
        history.push(json!({ "created": created, "created_by": "moorage --squash" }));
    }
    let config = serde_json::to_vec(&config).context("write the configuration")?;
    let name = format!("{}.json", crate::oci::Blob::of(&config).digest.hex());
    let mut layers = names[..below].to_vec();
    layers.push("squashed/layer.tar".to_owned());
    let manifest = json!([{ "Config": name, "RepoTags": [reference], "Layers": layers }]);

    let path = work.join("squashed.tar");
    let mut tar = tar::Builder::new(File::create(&path).context("write the squashed image")?);
    load::append(&mut tar, "manifest.json", &serde_json::to_vec(&manifest)?)?;
    load::append(&mut tar, &name, &config)?;
    for layer in &names[..below] {
        tar.append_path_with_name(unpacked.join(layer).canonicalize()?, layer)
            .with_context(|| format!("pack {layer}"))?;
    }
    tar.append_path_with_name(&merged, "squashed/layer.tar").context("pack the layer")?;
    tar.into_inner().context("pack the squashed image")?.sync_data().context("write the squashed image")?;
    Ok(path)
}
