//! `keep-registry`.

use std::path::PathBuf;

use anyhow::Result;

use crate::invocation::Invocation;
use crate::registry::{Place, SERVERS, keep};
use crate::report::{Fault, Kind};

/// Keep one of the registry's two servers serving, in the foreground
///
/// start-registry has systemd start this, or starts it in the background. The server's own process is started again when it
/// ends; after SIGHUP another one takes over, with the certificate as it is then, while the former sends to the end what it
/// is sending.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {
    /// The server's configuration, as start-registry wrote it
    configuration: PathBuf,
}

pub async fn run(args: Args, _: &Invocation) -> Result<()> {
    super::only_root("keep-registry")?;
    let place = Place::of_this_host();
    let settings = place.started()?;
    let server = SERVERS.into_iter().find(|server| server.configuration(&place) == args.configuration);
    let server = server.ok_or_else(|| {
        Fault::new(Kind::Usage, format!("{} is the configuration of no server", args.configuration.display()))
            .next("moorage start-registry")
    })?;
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    // Another part of the process may have begun to log.
    let _ = log.try_init();
    keep(&args.configuration, server.port(&settings)).await
}
