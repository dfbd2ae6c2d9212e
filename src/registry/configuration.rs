//! What the servers are told: their configuration files and units. Pure.

use anyhow::Result;
use minijinja::context;

use super::place::{Place, Settings};
use super::server::Server;
use crate::service::render;

/// The program, as the package of the distribution installs it.
pub const PROGRAM: &str = "docker-registry";

/// The configuration file of a server.
pub fn configuration(place: &Place, settings: &Settings, server: Server) -> Result<String> {
    let values = context! {
        writer => server == Server::Writer,
        directory => settings.directory.display().to_string(),
        users => place.users().display().to_string(),
        port => server.port(settings),
        secret => &settings.secret,
        certificate => place.certificate().display().to_string(),
        key => place.key().display().to_string(),
    };
    render(include_str!("../../templates/registry/config.yml.j2"), values)
}

/// The systemd unit of a server; `program` is the path of moorage.
pub fn unit(place: &Place, settings: &Settings, server: Server, program: &str) -> Result<String> {
    // A percent sign begins a specifier (systemd.unit(5)).
    let path = |path: &std::path::Path| path.display().to_string().replace('%', "%%");
    let values = context! {
        writer => server == Server::Writer,
        purpose => match server {
            Server::Reader => "for everybody who pulls",
            Server::Writer => "for those who publish",
        },
        state => path(place.root()),
        directory => path(&settings.directory),
        program => program.replace('%', "%%"),
        configuration => path(&server.configuration(place)),
    };
    render(include_str!("../../templates/systemd/moorage-registry.service"), values)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn settings() -> Settings {
        Settings {
            names: vec!["registry.corp".parse().unwrap()],
            port: 5000,
            push_port: 5001,
            directory: "/srv/our \"images\" 100%".into(),
            secret: "0123abcd".into(),
        }
    }

    #[test]
    fn everybody_may_read() {
        let place = Place::at(Path::new("/var/lib/moorage/registry"));
        insta::assert_snapshot!(configuration(&place, &settings(), Server::Reader).unwrap());
    }

    #[test]
    fn who_publishes_logs_in() {
        let place = Place::at(Path::new("/var/lib/moorage/registry"));
        insta::assert_snapshot!(configuration(&place, &settings(), Server::Writer).unwrap());
    }

    #[test]
    fn the_units() {
        let place = Place::at(Path::new("/var/lib/moorage/registry"));
        let unit = |server| unit(&place, &settings(), server, "/usr/local/bin/moorage").unwrap();
        insta::assert_snapshot!(unit(Server::Reader) + "\n" + &unit(Server::Writer));
    }
}
