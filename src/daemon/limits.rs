//! Limits that need somebody to look after them: those that are for a time, and those that a container which the engine
//! starts by itself would lose.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::App;
use super::operations::RECOVERY;
use crate::container::{check, resize, throttle};

/// Between two attempts at what did not work, or while the Docker Engine is not there.
const AGAIN: Duration = Duration::from_secs(2);

/// The longest sleep: clocks are set, and the machine may have been asleep itself.
const LONGEST: Duration = Duration::from_secs(60);

/// Looks after them until `stop`.
pub async fn keep(app: Arc<App>, stop: CancellationToken) {
    tokio::select! {
        ((), ()) = async { tokio::join!(lent(&app), throttled(&app)) } => {}
        () = stop.cancelled() => {}
    }
}

/// Gives back what was for a time, each when it is over.
async fn lent(app: &App) {
    let mut changed = app.host.limits_changed.subscribe();
    loop {
        let pause = give_back(app).await.unwrap_or_else(|error| {
            tracing::warn!("limits that were for a time: {error:#}");
            Some(AGAIN)
        });
        tokio::select! {
            told = changed.changed() => if told.is_err() { return },
            () = tokio::time::sleep(pause.unwrap_or(LONGEST).min(LONGEST)), if pause.is_some() => {}
        }
    }
}

/// Gives back what is over, and says how long it is to the next.
async fn give_back(app: &App) -> Result<Option<Duration>> {
    let mut next: Option<Duration> = None;
    let mut sooner = |pause: Duration| next = Some(next.map_or(pause, |next| next.min(pause)));
    for (name, record) in app.host.records.all()? {
        let Some(lent) = &record.lent else { continue };
        if let Ok(left) = Duration::try_from(lent.until.duration_since(Timestamp::now()))
            && !left.is_zero()
        {
            sooner(left);
            continue;
        }
        // A person who works on it is quicker, or done soon.
        let Ok(_operation) = app.operations.begin_now(&name, RECOVERY, 0) else {
            sooner(AGAIN);
            continue;
        };
        let Some(current) = app.host.records.get(&name)? else { continue };
        if current.intent.is_some() || current.lent != record.lent {
            sooner(AGAIN);
            continue;
        }
        let given = resize::give_back(&app.host, &current).await;
        let given = given.with_context(|| format!("give {name} back the limits it had"))?;
        tracing::info!("{name}: its limits are again what they were: {:?}", given.limits.words());
    }
    Ok(next)
}

/// Limits again what containers do to their disks whenever the engine has started one.
async fn throttled(app: &App) {
    let mut changed = app.host.limits_changed.subscribe();
    loop {
        let wanted = app.host.records.all().is_ok_and(|all| {
            all.iter().any(|(_, record)| {
                !check::effective(&record.spec.limits, &app.host.config.limits).io.is_empty()
            })
        });
        if !wanted {
            match changed.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        }
        if let Err(error) = listen(app).await {
            tracing::debug!("listening to what the engine starts waits: {error:#}");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Until the engine ends.
async fn listen(app: &App) -> Result<()> {
    app.host.engine.ping().await?;
    let mut starts = app.host.engine.starts().await?;
    let running = async {
        for (name, _) in app.host.records.all()? {
            throttle(app, &name).await;
        }
        anyhow::Ok(())
    };
    tokio::pin!(running);
    let mut all_done = false;
    loop {
        // It is listened first, so that nothing is started unnoticed meanwhile.
        tokio::select! {
            biased;
            start = starts.next() => match start {
                Some(name) => throttle(app, &name?).await,
                None => return Ok(()),
            },
            done = &mut running, if !all_done => {
                done?;
                all_done = true;
            }
        }
    }
}

async fn throttle(app: &App, name: &str) {
    let limited = async {
        let Some(record) = app.host.records.get(name)? else { return Ok(false) };
        match app.host.engine.inspect(name).await? {
            Some(found) if found.engine_id == record.engine_id => {
                throttle::apply(&app.host, &record, &found).await
            }
            _ => Ok(false),
        }
    };
    match limited.await {
        Ok(true) => tracing::info!("{name}: what it does to its disks is limited"),
        Ok(false) => {}
        Err(error) => tracing::warn!("{name}: {error:#}"),
    }
}
