//! A root filesystem as an image of one layer. The engine stacks no more than 127 (overlay2; moby's own limit is 125 to
//! be built on), and each clone of a clone is one more.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use bollard::models::ImageConfig;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;

use super::{Engine, fault, found};
use crate::report::{Fault, Kind};

/// A root filesystem over so many layers is written anew as one.
const MOST_LAYERS: usize = 64;

/// What an image of one layer has in place of its configuration's stop signal.
const STOP_SIGNAL: &str = "moorage.stop-signal";

/// The signal that ends what an image starts, if it says one.
pub(super) fn stop_signal(config: &ImageConfig) -> Option<String> {
    let labels = config.labels.as_ref();
    config.stop_signal.clone().or_else(|| labels?.get(STOP_SIGNAL).cloned())
}

impl Engine {
    /// Whether the image of a container has so many layers that one more should not be put onto it.
    pub(super) async fn is_high(&self, container: &str) -> Result<bool> {
        let docker = self.docker().await?;
        let seen = found(docker.inspect_container(container, None).await, format!("look at {container}"))?;
        let Some(image) = seen.and_then(|seen| seen.image) else { return Ok(false) };
        let image = found(docker.inspect_image(&image).await, format!("look at the image {image}"))?;
        let layers = image.and_then(|image| image.root_fs).and_then(|root| root.layers).unwrap_or_default();
        Ok(layers.len() >= MOST_LAYERS)
    }

    /// Makes the whole root filesystem of a stopped container the one layer of the image `name:latest`, with the
    /// configuration of its own image and `labels`. Reads and writes all of it.
    pub(super) async fn import(
        &self,
        container: &str,
        name: &str,
        labels: &[(&str, &str)],
    ) -> Result<String> {
        let doing = format!("write the root filesystem of {container} as one layer");
        let docker = self.docker().await?;
        let gone = || Fault::new(Kind::NotFound, format!("Docker no longer has the container {container}"));
        let seen = found(docker.inspect_container(container, None).await, &doing)?.ok_or_else(gone)?;
        let image = seen.image.context("a container has an image")?;
        let image = found(docker.inspect_image(&image).await, &doing)?;
        let config = image.and_then(|image| image.config).unwrap_or_default();
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(name)
            .tag("latest")
            .changes(changes(&config, labels))
            .build();
        // It answers when it has all. An export that breaks off ends the import, which says why.
        let docker = docker.clone().with_timeout(super::WHOLE_DISK);
        let tar = docker.export_container(container).map(|part| part.map_err(std::io::Error::other));
        let body = bollard::body_try_stream(tar);
        let mut said = docker.create_image(Some(options), Some(body), None);
        while let Some(event) = said.next().await {
            event.map_err(|e| fault(e, &doing))?;
        }
        let made = self.image(&format!("{name}:latest")).await?;
        Ok(made.with_context(|| format!("{name} was imported and is not here"))?.id)
    }
}

/// An image's configuration as lines of a Dockerfile, which is all that an import takes.
fn changes(config: &ImageConfig, labels: &[(&str, &str)]) -> Vec<String> {
    let json = |words: &Vec<String>| serde_json::to_string(words).unwrap_or_default();
    let mut lines = Vec::new();
    lines.extend(
        config.entrypoint.as_ref().filter(|e| !e.is_empty()).map(|e| format!("ENTRYPOINT {}", json(e))),
    );
    lines.extend(config.cmd.as_ref().filter(|c| !c.is_empty()).map(|c| format!("CMD {}", json(c))));
    for pair in config.env.iter().flatten() {
        if let Some((name, value)) = pair.split_once('=') {
            lines.push(format!("ENV {name}={}", quoted(value)));
        }
    }
    let plain = [("WORKDIR", &config.working_dir), ("USER", &config.user)];
    for (word, value) in plain {
        lines.extend(value.as_ref().filter(|value| !value.is_empty()).map(|value| format!("{word} {value}")));
    }
    lines.extend(config.volumes.as_ref().filter(|v| !v.is_empty()).map(|v| format!("VOLUME {}", json(v))));
    lines.extend(config.exposed_ports.iter().flatten().map(|port| format!("EXPOSE {port}")));
    let mut own: HashMap<String, String> = config.labels.clone().unwrap_or_default();
    // An import takes none.
    own.extend(config.stop_signal.clone().map(|signal| (STOP_SIGNAL.to_owned(), signal)));
    let own = own.iter().filter(|(name, _)| !labels.iter().any(|(other, _)| name == other));
    let mut all: Vec<(&str, &str)> = own.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.extend(labels);
    all.sort_unstable();
    lines.extend(all.iter().map(|(name, value)| format!("LABEL {}={}", quoted(name), quoted(value))));
    lines
}

/// A word of a Dockerfile that means exactly this text.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_written_as_a_dockerfile_takes_it() {
        let config = ImageConfig {
            cmd: Some(vec!["/sbin/init".into(), "a \"b\"".into()]),
            env: Some(vec!["PATH=/bin:/sbin".into(), "ODD=a $b \"c\" \\d".into()]),
            user: Some(String::new()),
            labels: Some(
                [("moorage.root".to_owned(), "old".to_owned()), ("z".to_owned(), "kept".to_owned())].into(),
            ),
            stop_signal: Some("SIGRTMIN+4".into()),
            ..ImageConfig::default()
        };
        assert_eq!(
            changes(&config, &[("moorage.root", "new")]),
            [
                r#"CMD ["/sbin/init","a \"b\""]"#,
                r#"ENV PATH="/bin:/sbin""#,
                r#"ENV ODD="a \$b \"c\" \\d""#,
                r#"LABEL "moorage.root"="new""#,
                r#"LABEL "moorage.stop-signal"="SIGRTMIN+4""#,
                r#"LABEL "z"="kept""#,
            ]
        );
    }
}
