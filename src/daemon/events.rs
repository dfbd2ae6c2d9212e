//! An operation and the stream of what it says.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::OPERATION_HEADER;
use crate::report::{Event, Fault, Kind, Reporter};

/// Events that wait for a slow client; more are left out, all but the last one.
const WAITING: usize = 4096;

/// Runs `work` in a task of its own and answers with its id and its events. A client that goes away cancels it; the
/// work goes on until it has undone itself.
pub fn stream<T, F>((id, cancel): (String, CancellationToken), work: impl FnOnce(Reporter) -> F) -> Response
where
    T: Serialize,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let (send, receive) = mpsc::channel(WAITING);
    let sink = send.clone();
    let report = Reporter::new(move |event| {
        let _ = sink.try_send(event);
    });
    let future = work(report);
    tokio::spawn(async move {
        let result = future.await.and_then(|result| Ok(serde_json::to_value(result)?));
        let last = match result {
            Ok(result) => Event::Done { result },
            Err(error) => Event::Failed { fault: Fault::of(&error) },
        };
        let _ = send.send(last).await;
        super::memory::trim();
    });
    let lines = ReceiverStream::new(receive).map(|event| line(&event));
    let body = CancelOnDrop { stream: Box::pin(lines), _guard: Arc::new(cancel.drop_guard()) };
    let mut response = Response::new(Body::from_stream(body));
    let json_lines = axum::http::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(axum::http::header::CONTENT_TYPE, json_lines);
    if let Ok(id) = axum::http::HeaderValue::from_str(&id) {
        response.headers_mut().insert(OPERATION_HEADER, id);
    }
    response
}

fn line(event: &Event) -> Result<Bytes, std::convert::Infallible> {
    let fallback = || {
        let fault = Fault::new(Kind::Failed, "an event could not be written");
        serde_json::to_vec(&Event::Failed { fault }).unwrap_or_default()
    };
    let mut line = serde_json::to_vec(event).unwrap_or_else(|_| fallback());
    line.push(b'\n');
    Ok(line.into())
}

struct CancelOnDrop {
    stream: Pin<Box<dyn Stream<Item = Result<Bytes, std::convert::Infallible>> + Send>>,
    _guard: Arc<DropGuard>,
}

impl Stream for CancelOnDrop {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}
