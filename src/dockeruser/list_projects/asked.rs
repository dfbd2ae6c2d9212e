//! Asking many servers and disks at once, and only for as long as a person likes to wait.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

/// How many are asked for at the same time.
const AT_ONCE: usize = 32;
/// How long all of it may take: a list must not hang on a server or disk that does not answer.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// What `ask` finds for each of `things`, in their order; none for one that has not answered in time.
pub async fn each_within<'a, T, F>(
    patience: Duration,
    things: &[&'a T],
    ask: impl Fn(&'a T) -> F,
) -> Vec<Option<u64>>
where
    T: ?Sized,
    F: Future<Output = Option<u64>>,
{
    let deadline = Instant::now() + patience;
    let asked = things.iter().map(|thing| timeout_at(deadline, ask(thing)));
    stream::iter(asked).buffered(AT_ONCE).map(|answer| answer.ok().flatten()).collect().await
}
