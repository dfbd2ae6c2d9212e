//! End to end: the installed command, a real Docker Engine, a real DHCP server, in the world that scripts/test makes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod support;

mod e2e {
    mod address;
    mod bundles;
    mod clients;
    mod clone;
    mod clone_faults;
    mod collecting;
    mod doctor;
    mod enter;
    mod faults;
    mod handed;
    mod killed;
    mod lifecycle;
    mod list;
    mod make;
    mod names;
    mod plain;
    mod recovery;
    mod registry;
    mod registryserver;
    mod settings;
    mod setup;
    mod snapshot;
    mod store;
    mod trust;
    mod world;
}
