//! What the person's own process can see, and what the daemon answers.

use std::collections::BTreeSet;

use crate::api::{Client, Version};
use crate::invocation::Invocation;
use crate::oci::{Access, examine};
use crate::report::{Fault, Finding, Kind, Level};
use crate::site::host::{CONFIG, HostConfig};

const AREA: &str = "daemon";

/// Everything; `deep`: every layer of the store too. A daemon that does not answer is a finding like any other, and what it
/// would have looked at is missing.
///
/// # Errors
/// [`Kind::Denied`]: not everybody may have it look so deep.
pub async fn findings(invocation: &Invocation, deep: bool) -> anyhow::Result<Vec<Finding>> {
    let mut all = Vec::new();
    if let Ok(config) = HostConfig::load(std::path::Path::new(CONFIG)) {
        all = of_config(&config).await;
    }
    let client = match Client::connect(&invocation.socket).await {
        Ok(client) => client,
        Err(error) => {
            all.push(not_answering(&Fault::of(&error)));
            return Ok(all);
        }
    };
    match client.get::<Version>("/v1/version").await {
        Ok(version) => all.push(judge_version(&version, env!("CARGO_PKG_VERSION"))),
        Err(error) => all.push(Finding::of(AREA, &error)),
    }
    match client.get::<Vec<Finding>>(&format!("/v1/doctor?deep={deep}")).await {
        Ok(findings) => all.extend(findings),
        // An older daemon knows no such request; that has been said above.
        Err(error) if Fault::of(&error).kind == Kind::NotFound => {}
        Err(error) if Fault::of(&error).kind == Kind::Denied => return Err(error),
        Err(error) => all.push(Finding::of(AREA, &error)),
    }
    Ok(all)
}

/// The registries of this host. What only may be used need not be there today.
async fn of_config(config: &HostConfig) -> Vec<Finding> {
    // `registry` may name a place in one.
    let host = |name: &String| name.split('/').next().unwrap_or_default().to_owned();
    let needed: BTreeSet<String> = config.registry.iter().chain(&config.in_use_to).map(host).collect();
    let others: BTreeSet<String> = config.registries.iter().map(host).collect();
    let others: Vec<String> = others.difference(&needed).cloned().collect();
    let mut all = registries(&needed.into_iter().collect::<Vec<_>>()).await;
    all.extend(registries(&others).await.into_iter().map(|finding| match finding.level {
        Level::Problem => Finding { level: Level::Warning, ..finding },
        _ => finding,
    }));
    all
}

/// Whether each registry can be used from here, all asked at the same time.
pub async fn registries(hosts: &[String]) -> Vec<Finding> {
    let access = Access::of_docker();
    futures_util::future::join_all(hosts.iter().map(|host| examine(host, &access))).await
}

fn not_answering(fault: &Fault) -> Finding {
    let mut finding = Finding::problem(AREA, fault.what.clone());
    finding.why = fault.why.clone();
    finding.why.push("engine, network and store were not looked at: that takes the daemon".to_owned());
    finding.next = fault.next.clone();
    finding
}

fn judge_version(daemon: &Version, own: &str) -> Finding {
    match daemon.version == own {
        true => Finding::ok(AREA, format!("moorage {own} answers")),
        false => {
            Finding::warning(AREA, format!("the daemon is moorage {}, this command is {own}", daemon.version))
                .next("restart the daemon after an upgrade: systemctl restart moorage")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::API_VERSION;

    #[test]
    fn another_version_is_a_warning() {
        let version = Version { version: "0.1.0".into(), api: API_VERSION };
        assert_eq!(judge_version(&version, "0.1.0").level, Level::Ok);
        assert_eq!(judge_version(&version, "0.2.0").level, Level::Warning);
    }
}
