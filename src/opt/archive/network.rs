//! An archive from a web server: asked for once, taken up where it broke off, and asked again with growing pauses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode};

use super::arriving::{Arriving, Chunks, Pump, Unwanted, channel};
use crate::opt::spool::Spool;
use crate::report::{Fault, Kind};

/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// How often a transfer is tried again without one more byte having come.
const RETRIES: u32 = 5;
/// After which first pause; each next one is twice as long: a quarter of a minute for all of them.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a server may ask for.
const LONGEST: Duration = Duration::from_secs(60);

/// A transfer that has begun.
pub struct Transfer {
    asking: Asking,
    answer: Option<Answer>,
    chunks: Chunks,
    unwanted: Unwanted,
    /// Bytes of the archive that are in the spool or on their way there.
    done: u64,
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All of it came.
    Whole,
    /// It broke: what came can be used.
    Broken,
    /// The reader went away.
    Unwanted,
}

/// What is asked for.
#[derive(Clone)]
struct Asking {
    client: reqwest::Client,
    url: String,
    spool: Arc<Spool>,
}

/// What a server sends.
enum Answer {
    /// Bytes, of which the first few are here already.
    Bytes { response: Response, skip: u64, total: Option<u64> },
    /// All is here.
    Nothing { total: u64 },
    /// It has another archive there now than the one that is in the spool.
    Another(Response),
}

/// Why there is no answer.
struct Refusal {
    kind: Kind,
    why: String,
    /// It may be otherwise a little later.
    passing: bool,
    /// Nobody listens, or the name is unknown: before anything came, people want to know at once.
    unreachable: bool,
    /// When the server wants to be asked again.
    after: Option<Duration>,
}

/// A client for the daemon's life.
pub fn client() -> Result<reqwest::Client> {
    // Another part of the process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(20))
        .read_timeout(SILENCE)
        .user_agent(concat!("moorage/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("set up the HTTP client")
}

impl Transfer {
    /// Asks for what of `url` is not in the spool. Also returns the number of bytes of all, where the server says it.
    pub async fn begin(
        client: &reqwest::Client,
        url: &str,
        spool: Arc<Spool>,
    ) -> Result<(Transfer, Pump, Arriving, Option<u64>)> {
        let asking = Asking { client: client.clone(), url: url.to_owned(), spool: spool.clone() };
        let failed = |refusal: Refusal| {
            Fault::new(refusal.kind, format!("fetch {url}"))
                .why(refusal.why)
                .next(format!("see that this works: curl -fI {url}"))
        };
        // A server may send all of it again to who asks for what comes behind the end.
        let answer = match spool.is_whole() {
            true => Answer::Nothing { total: spool.have() },
            false => asking.patiently().await.map_err(failed)?,
        };
        let (answer, total) = match answer {
            Answer::Bytes { response, skip, total } => (Answer::Bytes { response, skip, total }, total),
            Answer::Nothing { total } => (Answer::Nothing { total }, Some(total)),
            Answer::Another(response) => {
                spool.clear()?;
                let total = response.content_length();
                (Answer::Bytes { response, skip: 0, total }, total)
            }
        };
        if let Answer::Bytes { response, skip: 0, .. } = &answer
            && spool.have() == 0
        {
            spool.describe(validator(response.headers()).as_deref(), total);
        }
        let done = spool.have();
        let (chunks, unwanted, pump, arriving) = channel(spool);
        Ok((Transfer { asking, answer: Some(answer), chunks, unwanted, done }, pump, arriving, total))
    }

    /// Passes all on. Ends early when the reader goes away; an error goes to the reader.
    pub async fn run(self) -> Ended {
        let unwanted = self.unwanted.clone();
        tokio::select! {
            biased;
            ended = self.pass() => ended,
            () = unwanted.wait() => Ended::Unwanted,
        }
    }

    async fn pass(mut self) -> Ended {
        let mut answer = self.answer.take();
        let (mut failures, mut pause) = (0, PAUSE);
        loop {
            let before = self.done;
            let why = match answer.take() {
                Some(Answer::Nothing { .. }) => return self.end().await,
                Some(Answer::Another(_)) => {
                    self.asking.spool.mark_stale();
                    return self.give_up("the archive was changed on the server meanwhile".into()).await;
                }
                Some(Answer::Bytes { response, skip, .. }) => match self.drain(response, skip).await {
                    Ok(true) => return self.end().await,
                    Ok(false) => return Ended::Unwanted,
                    Err(why) => why,
                },
                None => String::new(),
            };
            if self.done > before {
                (failures, pause) = (0, PAUSE);
            }
            let mut last = why;
            while answer.is_none() {
                failures += 1;
                if failures > RETRIES {
                    return self
                        .give_up(format!("the transfer broke after {} bytes: {last}", self.done))
                        .await;
                }
                tracing::debug!("{}: {last}; taking it up at {} in {pause:?}", self.asking.url, self.done);
                tokio::time::sleep(pause).await;
                pause *= 2;
                match self.asking.once(self.done).await {
                    Ok(next) => answer = Some(next),
                    Err(refusal) if refusal.passing => last = refusal.why,
                    Err(refusal) => {
                        let why = format!("the transfer broke after {} bytes: {}", self.done, refusal.why);
                        return self.give_up(why).await;
                    }
                }
            }
        }
    }

    /// Whether all came, and somebody wanted it; or why it broke off.
    async fn drain(&mut self, mut response: Response, mut skip: u64) -> Result<bool, String> {
        loop {
            match response.chunk().await {
                Ok(Some(mut chunk)) => {
                    let behind = chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
                    skip -= behind as u64;
                    let _ = chunk.split_to(behind);
                    self.done += chunk.len() as u64;
                    if !chunk.is_empty() && self.chunks.send(Ok(chunk)).await.is_err() {
                        return Ok(false);
                    }
                }
                Ok(None) => return Ok(true),
                Err(e) => return Err(words(&e)),
            }
        }
    }

    async fn end(&self) -> Ended {
        match self.chunks.send(Ok(Bytes::new())).await {
            Ok(()) => Ended::Whole,
            Err(_) => Ended::Unwanted,
        }
    }

    async fn give_up(&self, why: String) -> Ended {
        let _ = self.chunks.send(Err(io::Error::other(why))).await;
        Ended::Broken
    }
}

impl Asking {
    /// Asks until there is an answer, with growing pauses.
    async fn patiently(&self) -> Result<Answer, Refusal> {
        let (mut left, mut pause) = (RETRIES, PAUSE);
        loop {
            match self.once(self.spool.have()).await {
                Err(refusal) if refusal.passing && !refusal.unreachable && left > 0 => {
                    tracing::debug!("{}: {}; asking again", self.url, refusal.why);
                    tokio::time::sleep(refusal.after.unwrap_or(pause).min(LONGEST)).await;
                }
                answer => return answer,
            }
            (left, pause) = (left - 1, pause * 2);
        }
    }

    /// Asks for all from byte `from` on.
    async fn once(&self, from: u64) -> Result<Answer, Refusal> {
        let mut request = self.client.get(&self.url);
        let known = self.spool.validator();
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
            if let Some(known) = &known {
                request = request.header(IF_RANGE, known);
            }
        }
        let response = request.send().await.map_err(|e| unanswered(&e))?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
        let (begin, total) = range.map(content_range).unwrap_or_default();
        match response.status() {
            StatusCode::OK if from == 0 => {
                let total = response.content_length();
                Ok(Answer::Bytes { response, skip: 0, total })
            }
            // A server without ranges begins at the begin again; so does one that has another archive there now.
            StatusCode::OK => {
                let now = validator(response.headers());
                let total = response.content_length();
                let same = match (&known, &now) {
                    (Some(known), Some(now)) => known == now,
                    _ => known.is_none() && total.is_none_or(|total| total >= from),
                };
                match same {
                    true => Ok(Answer::Bytes { response, skip: from, total }),
                    false => Ok(Answer::Another(response)),
                }
            }
            // Where nothing is said of the range, it is the one that was asked for; the digest would tell.
            StatusCode::PARTIAL_CONTENT if begin.is_none_or(|begin| begin == from) => {
                Ok(Answer::Bytes { response, skip: 0, total })
            }
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 && total == Some(from) => {
                Ok(Answer::Nothing { total: from })
            }
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => Ok(Answer::Another(self.anew().await?)),
            status => Err(refused(status, response.headers())),
        }
    }

    /// Asks for all of it.
    async fn anew(&self) -> Result<Response, Refusal> {
        let response = self.client.get(&self.url).send().await.map_err(|e| unanswered(&e))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(refused(status, response.headers())),
        }
    }
}

fn unanswered(error: &reqwest::Error) -> Refusal {
    let (why, unreachable) = (words(error), error.is_connect());
    Refusal { kind: Kind::Failed, why, passing: true, unreachable, after: None }
}

/// RFC 9110, 15.5 and 15.6: what may be otherwise later.
fn refused(status: StatusCode, headers: &HeaderMap) -> Refusal {
    let passing = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Refusal {
        kind: if status == StatusCode::NOT_FOUND { Kind::NotFound } else { Kind::Failed },
        why: format!("the server answers {status}"),
        passing,
        unreachable: false,
        after: after.map(Duration::from_secs),
    }
}

/// What If-Range takes: a strong ETag, else the date (RFC 9110, 13.1.5).
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let strong = text(ETAG).filter(|tag| !tag.starts_with("W/"));
    strong.or(text(LAST_MODIFIED)).map(str::to_owned)
}

/// The first byte and the length of all, of `bytes 5-9/10` and `bytes */10` (RFC 9110, 14.4).
fn content_range(text: &str) -> (Option<u64>, Option<u64>) {
    let Some((range, total)) = text.strip_prefix("bytes ").and_then(|rest| rest.split_once('/')) else {
        return (None, None);
    };
    let begin = range.split_once('-').and_then(|(begin, _)| begin.trim().parse().ok());
    (begin, total.trim().parse().ok())
}

/// The error with its causes, without the URL, which the caller names.
fn words(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    match causes.is_empty() {
        true => error.to_string(),
        false => causes.join(": "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), (Some(5), Some(10)));
        assert_eq!(content_range("bytes 5-9/*"), (Some(5), None));
        assert_eq!(content_range("bytes */10"), (None, Some(10)));
        assert_eq!(content_range("pages 1-2/3"), (None, None));
    }

    #[test]
    fn only_what_tells_every_byte_is_a_validator() {
        let headers = |pairs: &[(reqwest::header::HeaderName, &str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
        };
        let date = "Sat, 01 Jan 2022 00:00:00 GMT";
        assert_eq!(validator(&headers(&[(ETAG, "\"a\""), (LAST_MODIFIED, date)])).as_deref(), Some("\"a\""));
        assert_eq!(validator(&headers(&[(ETAG, "W/\"a\""), (LAST_MODIFIED, date)])).as_deref(), Some(date));
        assert_eq!(validator(&headers(&[(ETAG, "W/\"a\"")])), None);
    }

    #[test]
    fn what_may_pass_is_asked_again() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, "3".parse().unwrap())]);
        let busy = refused(StatusCode::SERVICE_UNAVAILABLE, &headers);
        assert!(busy.passing);
        assert_eq!(busy.after, Some(Duration::from_secs(3)));
        assert!(!refused(StatusCode::NOT_FOUND, &headers).passing);
        assert_eq!(refused(StatusCode::NOT_FOUND, &headers).kind, Kind::NotFound);
        assert!(!refused(StatusCode::FORBIDDEN, &headers).passing);
    }
}
