//! Which of our containers the engine starts, whoever asked it to.

use std::collections::HashMap;

use anyhow::Result;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::{Stream, StreamExt as _, future};

use super::{Engine, LABEL, fault};

impl Engine {
    /// The names of our containers, each when it was started. Ends when the engine does.
    pub async fn starts(&self) -> Result<impl Stream<Item = Result<String>> + Unpin> {
        let filters =
            HashMap::from([("type", vec!["container"]), ("event", vec!["start"]), ("label", vec![LABEL])]);
        let options = EventsOptionsBuilder::default().filters(&filters).build();
        let events = self.docker().await?.events(Some(options));
        Ok(events
            .filter_map(|event| {
                future::ready(match event {
                    Ok(event) => event.actor.and_then(|actor| actor.attributes?.remove("name")).map(Ok),
                    Err(e) => Some(Err(fault(e, "listen to what the Docker Engine does").into())),
                })
            })
            .boxed())
    }
}
