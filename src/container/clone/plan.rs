//! What cloning would do, what it costs and what it means for the source, before anything is done.

use anyhow::Result;

use crate::api::{ClonePlan, LargeFile};
use crate::container::{Host, Record, lifecycle};
use crate::opt::Store;
use crate::spec::plan::{Plan, Step};
use crate::spec::{Addressing, ByteSize, ContainerName};

/// A file of this many bytes is named: a first write copies it whole.
const LARGE: u64 = 1 << 30;
/// Bytes that an engine commits in a second, on a slow disk: to say how long it may take.
const COMMITTED: u64 = 100 << 20;

/// What cloning `source` as `names` would do, for the user `uid`.
pub async fn plan(
    host: &Host,
    (source, uid): (&Record, u32),
    names: Vec<ContainerName>,
    start: bool,
) -> Result<ClonePlan> {
    let name = source.spec.name.as_str();
    let found = lifecycle::engine_container(host, source).await?;
    let (opt, volume) = (host.opt.clone(), source.opt_volume().to_owned());
    let reflinks = opt.reflinks();
    let look = move || {
        // Where a first write copies nothing, no file needs to be looked for: it takes longer the more there are.
        let large = if reflinks { Vec::new() } else { opt.large_files(&volume, LARGE)? };
        Ok((opt.layers_of(&volume)?, large))
    };
    let look = host.walks.walk(uid, look);
    let (disk_bytes, (layers, large)) = tokio::try_join!(host.engine.written_bytes(name), look)?;
    let large = large.into_iter();
    let large =
        large.map(|file| LargeFile { path: format!("/opt/{}", file.path.display()), bytes: file.bytes });
    let flatten = Store::is_high(&layers);
    Ok(ClonePlan {
        source: source.spec.name.clone(),
        method: method(reflinks),
        stop: stop(name, found.running, disk_bytes),
        plan: steps(name, &names, (&source.spec.address, found.running, flatten, start), disk_bytes),
        clones: names,
        disk_bytes,
        large_files: large.collect(),
    })
}

fn method(reflinks: bool) -> String {
    let written = match reflinks {
        true => "a first write to a file copies nothing, because the store's filesystem shares blocks",
        false => "a first write to a file copies that file whole (XFS and btrfs would share its blocks)",
    };
    format!("/opt becomes layers that all share, the root filesystem is committed once; {written}")
}

fn stop(name: &str, runs: bool, bytes: u64) -> String {
    match runs {
        false => format!("{name} does not run and is not started"),
        true => format!(
            "{name} stops for as long as its services take to end (30 s at most) and {} s to commit {}, then it boots again",
            bytes / COMMITTED + 1,
            ByteSize(bytes)
        ),
    }
}

fn steps(
    name: &str,
    names: &[ContainerName],
    (address, runs, flatten, start): (&Addressing, bool, bool, bool),
    bytes: u64,
) -> Plan {
    let count = names.len();
    let mut steps = Vec::new();
    let mut step = |stage, step: &str, text: String, bytes, shell: Vec<String>| {
        steps.push(Step { stage, step: step.to_owned(), text, bytes, shell });
    };
    match address {
        Addressing::Dhcp => {
            step(1, "address", format!("reserve {count} address(es) on the LAN"), None, vec![]);
        }
        Addressing::Static(fixed) => {
            let text =
                format!("reserve {count} address(es) of the LAN's DHCP server: {fixed} stays {name}'s alone");
            step(1, "address", text, None, vec![]);
        }
        Addressing::Nat => {
            step(1, "address", "addresses are Docker's, on its bridge".to_owned(), None, vec![])
        }
        Addressing::None => {}
    }
    if flatten {
        step(2, "flatten", format!("make one layer of the many of {name}'s /opt"), None, vec![]);
    }
    if runs {
        step(3, "stop", format!("stop {name}"), None, vec![format!("docker stop {name}")]);
    }
    let commit = format!("docker commit {name} moorage-root/KEY");
    step(4, "root", format!("commit the root filesystem of {name}"), Some(bytes), vec![commit]);
    step(5, "freeze", format!("make {name}'s own files in /opt a layer that all share"), None, vec![]);
    if runs {
        step(6, "start", format!("start {name} again"), None, vec![format!("docker start {name}")]);
    }
    for clone in names {
        let verb = if start { "make and start" } else { "make" };
        step(7, "clones", format!("{verb} {clone}"), None, vec![]);
    }
    Plan { steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_does_not_run_is_not_stopped() {
        let names = ["x-1-ann".parse().unwrap(), "x-2-ann".parse().unwrap()];
        let said = |runs| steps("x-ann", &names, (&Addressing::Dhcp, runs, false, true), 5).steps;
        let fixed = Addressing::Static("10.0.0.5/24@10.0.0.1".parse().unwrap());
        let first = &steps("x-ann", &names, (&fixed, true, false, true), 5).steps[0];
        assert!(first.text.contains("10.0.0.5") && first.text.contains("DHCP"), "{}", first.text);
        assert_eq!(said(true).len(), said(false).len() + 2);
        assert!(!said(false).iter().any(|step| step.step == "stop"));
        assert!(
            stop("x-ann", true, 1 << 30).contains(" 11 s to commit 1"),
            "{}",
            stop("x-ann", true, 1 << 30)
        );
    }
}
