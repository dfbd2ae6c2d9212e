//! What a manifest refers to: images, indexes and artifacts (image specification; Docker's schema 2 has the same keys). Pure.

use serde::Deserialize;

use crate::spec::Digest;

/// What of a manifest decides about others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Its configuration, where it has one that may say what the image was built on.
    pub config: Option<Digest>,
    /// Configuration and layers.
    pub blobs: Vec<Digest>,
    /// Manifests of an index.
    pub children: Vec<Digest>,
    /// What it was attached to (a signature, a list of packages).
    pub subject: Option<Digest>,
    /// What it was built on: digests of manifests, or of their configurations.
    pub bases: Vec<Digest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
    /// Of Docker's schema 1.
    #[serde(default, rename = "fsLayers")]
    fs_layers: Vec<FsLayer>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: Digest,
    #[serde(default)]
    media_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FsLayer {
    blob_sum: Digest,
}

/// The annotation, or label, with the digest of what an image was built on (image specification, annotations).
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// The label with the id of what moorage built an image on: the digest of its configuration.
const BASE_ID: &str = "moorage.base.id";

impl Manifest {
    /// Reads one; nothing where the bytes are no manifest.
    pub fn read(bytes: &[u8]) -> Option<Manifest> {
        let raw: Raw = serde_json::from_slice(bytes).ok()?;
        let of_image = |config: &&Descriptor| {
            ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"]
                .contains(&config.media_type.as_str())
        };
        let base = raw.annotations.get(BASE_DIGEST).and_then(|digest| digest.parse().ok());
        Some(Manifest {
            config: raw.config.as_ref().filter(of_image).map(|config| config.digest),
            blobs: raw
                .config
                .iter()
                .chain(&raw.layers)
                .map(|blob| blob.digest)
                .chain(raw.fs_layers.iter().map(|layer| layer.blob_sum))
                .collect(),
            children: raw.manifests.iter().map(|child| child.digest).collect(),
            subject: raw.subject.map(|subject| subject.digest),
            bases: base.into_iter().collect(),
        })
    }

    /// Takes what the image's configuration says of what it was built on.
    pub fn learn(&mut self, configuration: &[u8]) {
        #[derive(Deserialize)]
        struct Configuration {
            config: Option<Inner>,
        }
        #[derive(Deserialize)]
        struct Inner {
            #[serde(rename = "Labels")]
            labels: Option<std::collections::HashMap<String, String>>,
        }
        let read: Option<Configuration> = serde_json::from_slice(configuration).ok();
        let labels = read.and_then(|read| read.config?.labels).unwrap_or_default();
        let said =
            [BASE_DIGEST, BASE_ID].into_iter().filter_map(|key| labels.get(key)?.parse::<Digest>().ok());
        self.bases.extend(said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(n: u8) -> Digest {
        Digest([n; 32])
    }

    #[test]
    fn images_indexes_and_artifacts_say_what_they_need() {
        let image = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":1,"digest":"{}"}},
                "layers":[{{"mediaType":"x","size":1,"digest":"{}"}}]}}"#,
            d(1),
            d(2)
        );
        let mut read = Manifest::read(image.as_bytes()).unwrap();
        assert_eq!((read.config, read.blobs.as_slice()), (Some(d(1)), &[d(1), d(2)][..]));
        let labels = format!(
            r#"{{"config":{{"Labels":{{"moorage.base.id":"{}","{BASE_DIGEST}":"{}"}}}}}}"#,
            d(3),
            d(4)
        );
        read.learn(labels.as_bytes());
        assert_eq!(read.bases, [d(4), d(3)]);
        read.learn(b"{\"config\":{\"Labels\":null}}");
        read.learn(b"no JSON");
        let index = format!(r#"{{"manifests":[{{"digest":"{}","mediaType":"m"}}]}}"#, d(5));
        assert_eq!(Manifest::read(index.as_bytes()).unwrap().children, [d(5)]);
        let attached = format!(
            r#"{{"subject":{{"digest":"{}"}},"config":{{"digest":"{}","mediaType":"e"}}}}"#,
            d(6),
            d(7)
        );
        let attached = Manifest::read(attached.as_bytes()).unwrap();
        assert_eq!((attached.subject, attached.config, attached.blobs), (Some(d(6)), None, vec![d(7)]));
        let first = format!(r#"{{"fsLayers":[{{"blobSum":"{}"}}]}}"#, d(8));
        assert_eq!(Manifest::read(first.as_bytes()).unwrap().blobs, [d(8)]);
        assert_eq!(Manifest::read(b"{"), None);
        assert_eq!(Manifest::read(b"{\"layers\":[{\"digest\":\"sha256:1\"}]}"), None);
    }
}
