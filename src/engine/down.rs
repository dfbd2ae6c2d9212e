//! Containers that the engine leaves down though nobody has stopped them.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use bollard::models::{ContainerInspectResponse, RestartPolicyNameEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;
use jiff::{SignedDuration, Timestamp};
use tokio::net::UnixStream;

use super::{DRIVER, Engine, fault, found};

/// Where dockerd writes its process id, where nobody says otherwise.
const PID_FILE: &str = "/run/docker.pid";
/// Units of a second in `/proc/PID/stat` (USER_HZ, the same on every architecture that Docker runs on).
const TICKS: i64 = 100;

/// A container that dockerd did not start again though its restart policy says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    pub name: String,
    /// dockerd's words, or ours where it has none.
    pub why: String,
}

/// What tells one that was given up from one that a person has stopped.
#[derive(Debug, Clone)]
struct Ended {
    policy: Option<RestartPolicyNameEnum>,
    error: String,
    began: Option<Timestamp>,
    finished: Option<Timestamp>,
    /// Whether it is on a network of our driver.
    ours: bool,
}

impl Engine {
    /// The containers, whoever made them, that dockerd would have started again if our drivers had been there; and those
    /// on our networks that it has ended itself when it was started, which it then takes for stopped by a person.
    pub async fn given_up(&self) -> Result<Vec<GivenUp>> {
        let filters: HashMap<&str, Vec<&str>> = [("status", vec!["exited"])].into();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let docker = self.docker().await?;
        let all = docker.list_containers(Some(options)).await.map_err(|e| fault(e, "list the containers"))?;
        // With live-restore nothing ends with its dockerd.
        let outlived = self.about().await?.live_restore;
        let started = if outlived { None } else { self.incarnation().await.and_then(Incarnation::since) };
        let networks = self.own_networks().await?;
        let mut given_up = Vec::new();
        for id in all.into_iter().filter_map(|seen| seen.id) {
            let answer = docker.inspect_container(&id, None).await;
            let Some(seen) = found(answer, format!("look at the container {id}"))? else { continue };
            let name = seen.name.clone().unwrap_or_default().trim_start_matches('/').to_owned();
            if let Some(why) = left_down(&ended(seen, &networks), started) {
                given_up.push(GivenUp { name, why });
            }
        }
        Ok(given_up)
    }

    /// Names and IDs of the networks of our driver: a container may be on one by either.
    async fn own_networks(&self) -> Result<Vec<String>> {
        let networks =
            self.docker().await?.list_networks(None).await.map_err(|e| fault(e, "list the networks"))?;
        let ours = networks.into_iter().filter(|network| network.driver.as_deref() == Some(DRIVER));
        Ok(ours.flat_map(|network| [network.name, network.id]).flatten().collect())
    }

    /// The dockerd that answers. None where it cannot be told.
    pub async fn incarnation(&self) -> Option<Incarnation> {
        let found = async {
            let stream = UnixStream::connect(&self.socket).await.context("connect to dockerd")?;
            // Whoever listens first: systemd, where it holds the socket.
            let pid = match stream.peer_cred()?.pid() {
                Some(pid) if pid > 1 => pid,
                _ => std::fs::read_to_string(PID_FILE).context(PID_FILE)?.trim().parse().context(PID_FILE)?,
            };
            Incarnation::of(pid)
        };
        let found: Result<Incarnation> = found.await;
        found.map_err(|error| tracing::debug!("which process dockerd is: {error:#}")).ok()
    }
}

/// Which dockerd: its process among all that have had this number since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    pid: i32,
    /// When it was started: ticks from boot.
    start: i64,
}

impl Incarnation {
    fn of(pid: i32) -> Result<Incarnation> {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(Path::new(&path)).context(path)?;
        let start = start_ticks(&stat).context("what the kernel says of a process has changed its form")?;
        Ok(Incarnation { pid, start })
    }

    /// When it was started, by the wall clock.
    fn since(self) -> Option<Timestamp> {
        let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let up = SignedDuration::new(up.tv_sec, up.tv_nsec as i32);
        let after = SignedDuration::from_millis(self.start * 1000 / TICKS);
        Timestamp::now().checked_sub(up).and_then(|boot| boot.checked_add(after)).ok()
    }
}

/// Field 22 of proc(5)'s `stat`: ticks from boot to the process's start. Its name, in brackets, may be anything.
fn start_ticks(stat: &str) -> Option<i64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn ended(seen: ContainerInspectResponse, networks: &[String]) -> Ended {
    let state = seen.state.unwrap_or_default();
    let host = seen.host_config.unwrap_or_default();
    let time = |text: Option<String>| text.and_then(|text| text.parse().ok());
    Ended {
        ours: host.network_mode.is_some_and(|mode| networks.contains(&mode)),
        policy: host.restart_policy.and_then(|policy| policy.name),
        error: state.error.unwrap_or_default(),
        began: time(state.started_at),
        finished: time(state.finished_at),
    }
}

/// Why a container that is down should not be. `started`: when the dockerd of now was.
///
/// A dockerd without live-restore ends what it finds running when it starts. Such a container began before that dockerd
/// and ended after; nobody else's end of one lies so, since under the old dockerd it ends before, and under the new one
/// it also begins after.
fn left_down(ended: &Ended, started: Option<Timestamp>) -> Option<String> {
    use RestartPolicyNameEnum::{ALWAYS, ON_FAILURE, UNLESS_STOPPED};
    let policy = ended.policy?;
    if matches!(policy, ALWAYS | UNLESS_STOPPED | ON_FAILURE) && is_our_absence(&ended.error) {
        return Some(ended.error.clone());
    }
    let by_dockerd = matches!((ended.began, started, ended.finished),
        (Some(began), Some(started), Some(finished)) if began < started && started <= finished);
    (ended.ours && matches!(policy, ALWAYS | UNLESS_STOPPED) && by_dockerd)
        .then(|| "it ran when its dockerd ended".to_owned())
}

/// Whether dockerd says that it did not find our drivers.
fn is_our_absence(why: &str) -> bool {
    why.contains(&format!("plugin \"{DRIVER}\" not found")) || why.contains("/run/moorage/plugin.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Option<Timestamp> {
        Timestamp::from_second(second).ok()
    }

    fn ended(began: i64, finished: i64) -> Ended {
        let policy = Some(RestartPolicyNameEnum::UNLESS_STOPPED);
        Ended { policy, error: String::new(), began: at(began), finished: at(finished), ours: true }
    }

    #[test]
    fn what_a_new_dockerd_ended_is_told_from_what_a_person_stopped() {
        let started = at(100);
        assert!(left_down(&ended(50, 101), started).is_some());
        assert_eq!(left_down(&ended(50, 99), started), None, "stopped under the old one");
        assert_eq!(left_down(&ended(102, 103), started), None, "stopped under the new one");
        assert_eq!(left_down(&ended(50, 101), None), None, "nobody knows, or live-restore");
        assert_eq!(left_down(&Ended { ours: false, ..ended(50, 101) }, started), None);
        let once = Ended { policy: Some(RestartPolicyNameEnum::NO), ..ended(50, 101) };
        assert_eq!(left_down(&once, started), None);
    }

    #[test]
    fn who_found_no_driver_is_given_up_whenever_that_was() {
        let error = "plugin \"moorage\" not found".to_owned();
        assert_eq!(left_down(&Ended { error: error.clone(), ..ended(102, 103) }, at(100)), Some(error));
    }

    #[test]
    fn a_process_says_when_it_was_started() {
        let stat = "42 (a) b) (c) S 1 42 42 0 -1 4194560 100 0 0 0 1 2 3 4 20 0 9 0 777 1000 50";
        assert_eq!(start_ticks(stat), Some(777));
        let ago = Timestamp::now()
            .duration_since(Incarnation::of(std::process::id() as i32).unwrap().since().unwrap());
        assert!(ago >= SignedDuration::from_secs(-1) && ago < SignedDuration::from_hours(1), "{ago}");
    }
}
