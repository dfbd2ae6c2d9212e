//! The Docker Engine: whether it answers, knows our drivers, and has the network.

use std::path::Path;

use super::host::{judge_room, room};
use crate::container::Host;
use crate::engine::{About, DRIVER, Network};
use crate::report::Finding;

const AREA: &str = "engine";
/// Where dockerd finds our socket, also after a reboot.
const SPEC: &str = "/etc/docker/plugins/moorage.spec";
/// The oldest engine this is tested with.
const OLDEST: (u32, u32) = (20, 10);

pub async fn findings(host: &Host) -> Vec<Finding> {
    let about = match host.engine.about().await {
        Ok(about) => about,
        Err(error) => return vec![Finding::of(AREA, &error)],
    };
    let name = &host.config.network;
    let mut all = vec![judge_version(&about), judge_spec(Path::new(SPEC).exists())];
    let kind = host.config.address;
    all.push(match host.engine.network(name).await {
        Ok(None) if !kind.is_on_lan() => {
            Finding::ok(AREA, format!("there is no LAN here, as configured: containers get address = {kind}"))
        }
        Ok(network) => judge_network(name, network.as_ref(), host.config.parent.as_deref()),
        Err(error) => Finding::of(AREA, &error),
    });
    if let Ok(room) = room(&about.root) {
        all.push(judge_room(AREA, "images and containers", &about.root, room));
    }
    all
}

fn judge_version(about: &About) -> Finding {
    let mut numbers = about.version.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let live = if about.live_restore { ", containers outlive it (live-restore)" } else { "" };
    match version >= OLDEST {
        true => Finding::ok(AREA, format!("Docker Engine {} answers{live}", about.version)),
        false => Finding::warning(AREA, format!("Docker Engine {} is older than 20.10", about.version))
            .next("install a newer one: apt-get install docker.io"),
    }
}

fn judge_spec(there: bool) -> Finding {
    match there {
        true => Finding::ok(AREA, format!("dockerd finds moorage by {SPEC}")),
        false => Finding::problem(AREA, format!("{SPEC} is missing: dockerd finds no driver after a reboot"))
            .next("moorage setup"),
    }
}

fn judge_network(name: &str, network: Option<&Network>, configured: Option<&str>) -> Finding {
    let setup = match configured {
        Some(parent) => format!("moorage setup --parent {parent}"),
        None => "moorage setup --parent INTERFACE".to_owned(),
    };
    let Some(network) = network else {
        return Finding::problem(AREA, format!("Docker has no network {name}")).next(setup);
    };
    if network.driver != DRIVER {
        let what = format!("the network {name} is Docker's {}, not moorage's", network.driver);
        return Finding::problem(AREA, what).next(format!("docker network rm {name}; {setup}"));
    }
    let parent = network.options.get("parent").map(String::as_str);
    if let (Some(parent), Some(configured)) = (parent, configured)
        && parent != configured
    {
        let what = format!("the network {name} hangs on {parent}, and the configuration says {configured}");
        return Finding::warning(AREA, what).next(format!("docker network rm {name}; {setup}"));
    }
    Finding::ok(AREA, format!("the network {name} hangs on {}", parent.unwrap_or("?")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Level;

    fn network(driver: &str, parent: &str) -> Network {
        let options = [("parent".to_owned(), parent.to_owned())].into();
        Network { id: "n".into(), driver: driver.into(), options }
    }

    #[test]
    fn an_old_engine_is_named() {
        let about = |version: &str| About { version: version.into(), live_restore: false, root: "/".into() };
        assert_eq!(judge_version(&about("20.10.24+dfsg1")).level, Level::Ok);
        assert_eq!(judge_version(&about("26.1.5")).level, Level::Ok);
        assert_eq!(judge_version(&about("19.03.1")).level, Level::Warning);
    }

    #[test]
    fn the_network_has_to_be_ours_and_on_the_right_interface() {
        let level =
            |network: Option<Network>, configured| judge_network("lan", network.as_ref(), configured).level;
        assert_eq!(level(Some(network("moorage", "eth0")), Some("eth0")), Level::Ok);
        assert_eq!(level(Some(network("moorage", "eth0")), None), Level::Ok);
        assert_eq!(level(Some(network("moorage", "eth1")), Some("eth0")), Level::Warning);
        assert_eq!(level(Some(network("bridge", "eth0")), Some("eth0")), Level::Problem);
        assert_eq!(level(None, None), Level::Problem);
        assert_eq!(judge_spec(false).level, Level::Problem);
    }
}
