//! Going on with what a daemon that was killed had begun on a container that exists.

use anyhow::{Context as _, Result};

use super::{Host, Intent, Record, anew, clone};
use crate::report::Reporter;

/// Ends what was begun on a container that exists and goes on existing; answers its record as it is then. One that was
/// half made or half removed is not settled here, and neither is one that nothing was begun on.
pub async fn settle(host: &Host, record: &Record) -> Result<Record> {
    match &record.intent {
        None | Some(Intent::Make | Intent::Remove) => Ok(record.clone()),
        Some(Intent::Clone { runs }) => {
            clone::source::settle(host, record, *runs).await?;
            Ok(Record { intent: None, ..record.clone() })
        }
        Some(Intent::Anew { .. }) => {
            let name = &record.spec.name;
            let done = anew::go_on(host, record, &Reporter::silent()).await;
            done.with_context(|| format!("{name} was being made anew, and that cannot be ended"))
        }
    }
}
