//! Programs of others that run on this host because moorage starts them: their files, units and processes.

mod background;
mod run;
mod template;

pub use background::{Background, end, end_listener, until};
pub use run::run;
pub use template::render;

/// Where units are, and how one can tell that systemd runs (sd_booted(3)).
pub const UNITS: &str = "/etc/systemd/system";

/// Whether systemd looks after the services of this host.
pub fn systemd_runs() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}
