//! What a container may do to the disks its files are on.
//!
//! On cgroup v2 the ceilings are properties of the container's slice (`slice`), which holds them over reboots. Version 1
//! knows no ceilings that hold for groups below, so there they are the container's own group's, and a container that the
//! engine starts again has a new one: they are written after each start.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Host, Record, check};
use crate::engine::{self, Disk, Found, Version};
use crate::report::{Fault, Kind};
use crate::spec::limits::Io;

/// The disks that `record`'s files are on: its `/opt`, its root filesystem, mapped directories.
pub async fn disks(host: &Host, record: &Record) -> Result<Vec<Disk>> {
    let mut paths = vec![host.config.storage.clone(), host.engine.about().await?.root];
    paths.extend(record.spec.mounts.iter().map(|mount| PathBuf::from(&mount.source)));
    // One that is gone is no reason for no limits on the others.
    paths.retain(|path| path.exists());
    engine::disks_of(paths.iter().map(PathBuf::as_path))
}

/// Whether containers of this image run an init of their own, in a slice of their own on cgroup v2.
pub async fn own_init(host: &Host, image: &str) -> Result<bool> {
    Ok(match host.engine.image(image).await? {
        Some(image) => host.facts(&image).await?.init.is_some(),
        None => false,
    })
}

/// Sets the ceilings of a container that runs, and says whether it asks for any.
pub async fn apply(host: &Host, record: &Record, found: &Found) -> Result<bool> {
    let io = check::effective(&record.spec.limits, &host.config.limits).io;
    match found.pid.filter(|_| found.running && !io.is_empty()) {
        Some(pid) => set(host, record, &found.image_id, (&io, pid)).await.map(|()| true),
        None => Ok(false),
    }
}

/// Sets `io` for a container of that image whose init has that PID, and takes away what it does not ask for.
pub async fn set(host: &Host, record: &Record, image: &str, (io, pid): (&Io, i32)) -> Result<()> {
    let name = &record.spec.name;
    let cgroups = host.engine.cgroups(&host.config.cgroup).await?;
    if cgroups.version == Version::V2 && own_init(host, image).await? {
        return Ok(());
    }
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .with_context(|| format!("read the control groups of {name}"))?;
    let disks = disks(host, record).await?;
    if disks.is_empty() && !io.is_empty() {
        return Err(Fault::new(Kind::Missing, format!("what {name} does to its disks cannot be limited"))
            .why("its files are on a filesystem without a disk of this host")
            .into());
    }
    for (file, line) in lines(&groups, &disks, io)? {
        std::fs::write(&file, &line)
            .with_context(|| format!("write {line:?} to {}", file.display()))
            .with_context(|| format!("limit what {name} does to its disks"))?;
    }
    Ok(())
}

/// What has to be written where, of a text as in `/proc/PID/cgroup` (cgroups(7)).
fn lines(groups: &str, disks: &[Disk], io: &Io) -> Result<Vec<(PathBuf, String)>> {
    let of = |wanted: &str| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            names.split(',').any(|name| name == wanted).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let [read, write, read_ops, write_ops] = io.numbers().map(|(_, number)| number.unwrap_or(0));
    if let Some(group) = of("blkio") {
        let directory = Path::new("/sys/fs/cgroup/blkio").join(group);
        let files = [
            ("read_bps_device", read),
            ("write_bps_device", write),
            ("read_iops_device", read_ops),
            ("write_iops_device", write_ops),
        ];
        let line = |disk: &Disk, (file, number): (&str, u64)| {
            (directory.join(format!("blkio.throttle.{file}")), format!("{} {number}", disk.number))
        };
        return Ok(disks.iter().flat_map(|disk| files.map(|file| line(disk, file))).collect());
    }
    let group = of("").context("it is in no control group that could be limited")?;
    let file = Path::new("/sys/fs/cgroup").join(group).join("io.max");
    let number = |number: u64| if number == 0 { "max".to_owned() } else { number.to_string() };
    let line = |disk: &Disk| {
        let [read, write, read_ops, write_ops] = [read, write, read_ops, write_ops].map(number);
        format!("{} rbps={read} wbps={write} riops={read_ops} wiops={write_ops}", disk.number)
    };
    Ok(disks.iter().map(|disk| (file.clone(), line(disk))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteSize;

    fn disk() -> Disk {
        Disk { number: "252:0".into(), node: "/dev/vda".into() }
    }

    fn io() -> Io {
        Io { write: Some(ByteSize(1000)), read_ops: Some(7), ..Io::default() }
    }

    #[test]
    fn version_1_has_a_file_for_each_ceiling() {
        let groups = "4:memory:/a\n3:blkio:/moorage/abc/def\n0::/x\n";
        let lines = lines(groups, &[disk()], &io()).unwrap();
        let shown: Vec<String> =
            lines.iter().map(|(file, line)| format!("{} {line}", file.display())).collect();
        let at = "/sys/fs/cgroup/blkio/moorage/abc/def/blkio.throttle";
        assert_eq!(
            shown,
            [
                format!("{at}.read_bps_device 252:0 0"),
                format!("{at}.write_bps_device 252:0 1000"),
                format!("{at}.read_iops_device 252:0 7"),
                format!("{at}.write_iops_device 252:0 0"),
            ]
        );
    }

    #[test]
    fn version_2_has_a_line_for_each_disk() {
        let lines = lines("0::/moorage.slice/x\n", &[disk()], &io()).unwrap();
        assert_eq!(
            lines,
            [(
                "/sys/fs/cgroup/moorage.slice/x/io.max".into(),
                "252:0 rbps=max wbps=1000 riops=7 wiops=max".to_owned()
            )]
        );
    }
}
