//! Other limits for a container, in force at once.

use anyhow::Result;
use jiff::Timestamp;

use super::{Host, Lent, Record, check, lifecycle, slice, throttle};
use crate::api::{ResizeRequest, Resized};
use crate::report::{Fault, Kind};
use crate::spec::{ByteSize, Limits};

/// As much memory as nobody has: what the kernel of cgroup v1 says where there is no ceiling. Docker takes a ceiling away
/// in no other manner.
const NO_CEILING: ByteSize = ByteSize(i64::MAX as u64 - 4095);
/// The weight of a container that asks for none.
const USUAL_WEIGHT: u32 = 100;

/// Sets what is asked for, and leaves the rest as it is. A container that is made anew keeps it.
pub async fn resize(host: &Host, record: &Record, request: &ResizeRequest) -> Result<Resized> {
    if let Some(until) = request.until.filter(|until| *until <= Timestamp::now()) {
        let what = format!("{until} is over already");
        return Err(Fault::new(Kind::Usage, what).next("name a time that is to come").into());
    }
    let wanted = wanted(record, request);
    set(host, record, wanted).await
}

/// Gives a container back the limits it had before those that were for a time.
pub async fn give_back(host: &Host, record: &Record) -> Result<Resized> {
    let mut wanted = record.clone();
    if let Some(lent) = wanted.lent.take() {
        wanted.spec.limits = lent.before;
    }
    match set(host, record, wanted.clone()).await {
        // Docker has lost it: whoever makes it anew makes it of the record.
        Err(error) if Fault::of(&error).kind == Kind::NotFound => {
            host.records.put(wanted.spec.name.as_str(), &wanted)?;
            Ok(Resized { name: wanted.spec.name, limits: wanted.spec.limits, until: None })
        }
        done => done,
    }
}

async fn set(host: &Host, record: &Record, wanted: Record) -> Result<Resized> {
    let name = record.spec.name.as_str();
    check::check(&wanted.spec, &host.config)?;
    let limits = check::effective(&wanted.spec.limits, &host.config.limits);
    let found = lifecycle::engine_container(host, record).await?;
    let before = check::effective(&record.spec.limits, &host.config.limits);
    // What is not asked for any more is taken away.
    let limits = Limits {
        memory: limits.memory.or(before.memory.map(|_| NO_CEILING)),
        cpu_weight: limits.cpu_weight.or(before.cpu_weight.map(|_| USUAL_WEIGHT)),
        ..limits
    };
    host.engine.limit(&found.engine_id, &limits).await?;
    let io = !before.io.is_empty() || !limits.io.is_empty();
    if throttle::own_init(host, &found.image_id).await? {
        let cgroups = host.engine.cgroups(&host.config.cgroup).await?;
        let disks = if io { throttle::disks(host, &wanted).await? } else { Vec::new() };
        slice::confine(&cgroups, &record.id, &limits, &disks).await?;
    }
    if let Some(pid) = found.pid.filter(|_| found.running && io) {
        throttle::set(host, &wanted, &found.image_id, (&limits.io, pid)).await?;
    }
    host.records.put(name, &wanted)?;
    host.limits_changed.send_replace(());
    let until = wanted.lent.map(|lent| lent.until);
    let limits = check::effective(&wanted.spec.limits, &host.config.limits);
    Ok(Resized { name: wanted.spec.name, limits, until })
}

/// What is asked for holds for ever, or until a time; what was for a time before stays so.
fn wanted(record: &Record, request: &ResizeRequest) -> Record {
    let mut wanted = record.clone();
    let now = &record.spec.limits;
    wanted.made_with.get_or_insert_with(|| record.lent.as_ref().map_or(now, |lent| &lent.before).clone());
    wanted.lent = match (request.until, &record.lent) {
        (Some(until), lent) => {
            let before = lent.as_ref().map_or(now, |lent| &lent.before).clone();
            Some(Lent { until, before })
        }
        (None, Some(lent)) => Some(Lent { until: lent.until, before: request.limits.or(&lent.before) }),
        (None, None) => None,
    };
    wanted.spec.limits = request.limits.or(now);
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(pids: Option<u32>, cpu_weight: Option<u32>) -> Limits {
        Limits { pids, cpu_weight, ..Limits::default() }
    }

    fn asked(pids: Option<u32>, cpu_weight: Option<u32>, until: Option<Timestamp>) -> ResizeRequest {
        ResizeRequest { limits: limits(pids, cpu_weight), until }
    }

    #[test]
    fn what_is_for_a_time_goes_back_and_what_is_for_ever_stays() {
        let mut record = crate::container::sample::record();
        record.spec.limits = limits(Some(10), None);
        let later = Timestamp::now();
        let lent = wanted(&record, &asked(Some(20), None, Some(later)));
        assert_eq!(lent.spec.limits, limits(Some(20), None));
        assert_eq!(lent.lent, Some(Lent { until: later, before: limits(Some(10), None) }));
        // Once more: what it goes back to is what was for ever.
        let again = wanted(&lent, &asked(Some(30), None, Some(later)));
        assert_eq!(again.lent.as_ref().unwrap().before, limits(Some(10), None));
        let for_ever = wanted(&again, &asked(None, Some(50), None));
        assert_eq!(for_ever.spec.limits, limits(Some(30), Some(50)));
        assert_eq!(for_ever.lent.as_ref().unwrap().before, limits(Some(10), Some(50)));
        // It is still the container that was asked for.
        for resized in [lent, again, for_ever] {
            assert_eq!(resized.as_made(), record.spec);
        }
    }
}
