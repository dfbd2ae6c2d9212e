//! A branch laid over the project's defaults.

use std::collections::BTreeMap;

use super::raw::Settings;

/// A key of the branch replaces the same key of the defaults whole; `env`, `ulimits`, `limits` and `patches` merge
/// entry by entry.
pub(super) fn merge(defaults: &Settings, branch: &Settings) -> Settings {
    let (below, above) = (defaults.clone(), branch.clone());
    Settings {
        pattern: above.pattern,
        image: above.image.or(below.image),
        opt: above.opt.or(below.opt),
        source: above.source.or(below.source),
        env: over(below.env, above.env),
        ulimits: over(below.ulimits, above.ulimits),
        shm: above.shm.or(below.shm),
        limits: above.limits.or(&below.limits),
        mounts: above.mounts.or(below.mounts),
        licence: above.licence.or(below.licence),
        capabilities: above.capabilities.or(below.capabilities),
        address: above.address.or(below.address),
        setup: above.setup.or(below.setup),
        ready: above.ready.or(below.ready),
        patches: over(below.patches, above.patches),
    }
}

fn over<T>(mut below: BTreeMap<String, T>, above: BTreeMap<String, T>) -> BTreeMap<String, T> {
    below.extend(above);
    below
}
