//! Where a test has the daemon killed. Nothing in a release build.

/// Ends this process as `kill -9` would if the environment's `MOORAGE_FAILPOINT` names this place.
#[cfg(debug_assertions)]
pub fn reach(place: &str) {
    if std::env::var_os("MOORAGE_FAILPOINT").is_some_and(|wanted| wanted == place) {
        tracing::error!("killed at {place}");
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

#[cfg(not(debug_assertions))]
pub fn reach(_place: &str) {}
