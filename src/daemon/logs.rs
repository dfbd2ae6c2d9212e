//! What a container's init and services wrote to its console, as the engine kept it.

use anyhow::Result;
use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::App;

#[derive(Debug, Deserialize)]
pub struct Wanted {
    #[serde(default)]
    follow: bool,
    lines: Option<u32>,
}

pub async fn stream(app: &App, name: &str, wanted: &Wanted) -> Result<Response> {
    let output = app.host.engine.output(name, wanted.follow, wanted.lines).await?;
    Ok(Response::new(Body::from_stream(output.map(|chunk| chunk.map_err(std::io::Error::other)))))
}
