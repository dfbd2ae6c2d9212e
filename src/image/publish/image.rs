//! `publish-image`: an image of the engine to a registry, by the engine itself. It sends only the layers that the
//! registry does not have, each for itself, so that a push that broke off goes on where it was.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::engine::{Engine, Pushing};
use crate::oci::Access;
use crate::report::{Fault, Kind, Reporter, Unit};
use crate::spec::{ByteSize, Digest, Reference};

use super::opt::STEP;

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedImage {
    pub image: String,
    /// Of the manifest in the registry.
    pub digest: Digest,
    pub layers: usize,
    /// Layers that the registry had not, and their bytes before they were compressed.
    pub sent_layers: usize,
    pub sent_bytes: u64,
}

/// Layers on their way: what is sent of each, and how much it has.
#[derive(Debug, Default)]
struct Layers {
    sent: BTreeMap<String, (u64, u64)>,
    there: BTreeMap<String, ()>,
}

impl Layers {
    /// Takes one of the engine's words; whether the sum has changed.
    fn take(&mut self, said: &Pushing) -> bool {
        let Some(id) = &said.id else { return false };
        match said.status.as_str() {
            "Pushing" => {
                let layer = self.sent.entry(id.clone()).or_default();
                *layer = (said.current.max(layer.0), said.total.max(said.current).max(layer.1));
            }
            "Pushed" => {
                let layer = self.sent.entry(id.clone()).or_default();
                layer.0 = layer.1;
            }
            status if status == "Layer already exists" || status.starts_with("Mounted from") => {
                self.there.insert(id.clone(), ());
            }
            _ => return false,
        }
        true
    }

    fn sum(&self) -> (u64, u64) {
        self.sent.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1))
    }
}

/// Publishes the image that the engine has as `to`.
///
/// Not here: [`Kind::NotFound`]; the registry refuses: the engine's own words.
pub async fn publish(
    engine: &Engine,
    to: &Reference,
    access: &Access,
    report: &Reporter,
) -> Result<PublishedImage> {
    let name = to.to_string();
    if engine.image(&name).await?.is_none() {
        return Err(Fault::new(Kind::NotFound, format!("the image {name} is not here"))
            .next("moorage list-images shows what is; make-dev-image and make-base-image make them")
            .into());
    }
    report.begin(STEP, format!("{name} to {}", to.registry));
    let login = access.header(&to.registry).await?;
    let mut layers = Layers::default();
    let mut digest = None;
    engine
        .push(
            &format!("{}/{}", to.registry, to.repository),
            to.tag.as_deref().unwrap_or("latest"),
            &login,
            |said| {
                if layers.take(&said) {
                    let (done, total) = layers.sum();
                    if total > 0 {
                        report.progress(STEP, done, Some(total), Unit::Bytes);
                    }
                }
                digest = said.digest.or(digest.take());
            },
        )
        .await?;
    let digest = digest.and_then(|digest| digest.parse().ok());
    let digest = digest.ok_or_else(|| {
        Fault::new(Kind::Failed, format!("the engine does not say what became of {name}"))
            .next("read dockerd's log, then run the same command again")
    })?;
    let published = PublishedImage {
        image: name,
        digest,
        layers: layers.sent.len() + layers.there.len(),
        sent_layers: layers.sent.len(),
        sent_bytes: layers.sum().1,
    };
    let PublishedImage { image, layers, sent_layers, sent_bytes, .. } = &published;
    report.end(
        STEP,
        format!("{image}: {sent_layers} of {layers} layers had to be sent, {}", ByteSize(*sent_bytes)),
    );
    Ok(published)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_one_sum_and_those_that_are_there_are_none_of_it() {
        let mut layers = Layers::default();
        let said = |id: &str, status: &str, current, total| Pushing {
            id: Some(id.into()),
            status: status.into(),
            current,
            total,
            digest: None,
        };
        for event in [
            said("a", "Preparing", 0, 0),
            said("a", "Pushing", 10, 100),
            said("b", "Layer already exists", 0, 0),
            said("c", "Pushing", 512, 7),
            said("c", "Pushed", 0, 0),
            said("a", "Pushing", 50, 100),
        ] {
            layers.take(&event);
        }
        assert_eq!(layers.sum(), (50 + 512, 100 + 512));
        assert_eq!((layers.sent.len(), layers.there.len()), (2, 1));
    }
}
