//! `show-registry`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::invocation::Invocation;
use crate::registry::collect::{self, Record};
use crate::registry::contents::{Repository, bytes, repositories};
use crate::registry::{Place, SERVERS, Server, Settings, read_certificate, users};
use crate::report::table::fields;
use crate::report::{Table, escape};
use crate::spec::ByteSize;

/// Show the registry of this host: where it is, whether it answers, its certificate, users, repositories and size
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage show-registry
  moorage show-registry --format json | jq -r '.repositories[] | .name as $name | .tags[] | \"\\($name):\\(.)\"'")]
pub struct Args {}

/// One of the two servers.
#[derive(Debug, Serialize)]
struct ServerView {
    /// Its address by each name.
    at: Vec<String>,
    answers: bool,
    /// The command that shows its words.
    log: String,
}

#[derive(Debug, Serialize)]
struct View {
    pull: ServerView,
    push: ServerView,
    /// When the servers' certificate ends; start-registry replaces it before.
    certificate_end: Option<Timestamp>,
    /// What client hosts have to know.
    authority: PathBuf,
    authority_end: Option<Timestamp>,
    directory: PathBuf,
    bytes: u64,
    /// What the last collect-garbage did.
    last_collection: Option<Record>,
    users: Vec<String>,
    repositories: Vec<Repository>,
}

pub async fn run(_: Args, invocation: &Invocation) -> Result<()> {
    super::only_root("show-registry")?;
    let place = Place::of_this_host();
    let settings = place.started()?;
    let (pull, push) =
        tokio::join!(server(&place, &settings, SERVERS[0]), server(&place, &settings, SERVERS[1]));
    let end = |path| -> Result<Option<Timestamp>> {
        let text = place.text(path)?;
        text.map(|text| read_certificate(&text).map(|facts| facts.end)).transpose()
    };
    let directory = settings.directory.clone();
    let (repositories, bytes) =
        tokio::task::spawn_blocking(move || anyhow::Ok((repositories(&directory)?, bytes(&directory)?)))
            .await??;
    let users = place.text(&place.users())?.unwrap_or_default();
    let view = View {
        pull,
        push,
        certificate_end: end(&place.certificate()).context("read the servers' certificate")?,
        authority_end: end(&place.authority()).context("read the authority's certificate")?,
        authority: place.authority(),
        directory: settings.directory,
        bytes,
        last_collection: collect::last(&place)?,
        users: users::names(&users).into_iter().map(str::to_owned).collect(),
        repositories,
    };
    invocation.print(&view, text)
}

async fn server(place: &Place, settings: &Settings, server: Server) -> ServerView {
    let port = server.port(settings);
    ServerView {
        at: settings.names.iter().map(|name| name.at(port)).collect(),
        answers: server.answers(place, settings).await,
        log: server.log(),
    }
}

fn text(view: &View) -> String {
    let server = |server: &ServerView| {
        let state =
            if server.answers { "answers".to_owned() } else { format!("does not answer: {}", server.log) };
        format!("{} ({state})", server.at.join(" "))
    };
    let day = |end: Option<Timestamp>| {
        end.map_or_else(|| "-".to_owned(), |end| end.strftime("until %Y-%m-%d").to_string())
    };
    let users =
        if view.users.is_empty() { "nobody: moorage add-user NAME".into() } else { view.users.join(" ") };
    let mut text = fields([
        ("pull", server(&view.pull)),
        ("push", server(&view.push)),
        ("certificate", day(view.certificate_end)),
        ("authority", format!("{}, {}", view.authority.display(), day(view.authority_end))),
        ("users", users),
        ("directory", view.directory.display().to_string()),
        ("size", ByteSize(view.bytes).to_string()),
        (
            "collected",
            view.last_collection
                .as_ref()
                .map_or_else(|| "never: moorage collect-garbage".to_owned(), collected),
        ),
    ]);
    if !view.repositories.is_empty() {
        let mut table = Table::new(&["REPOSITORY", "TAGS"]);
        for repository in &view.repositories {
            table.row([
                escape(&repository.name).into_owned(),
                escape(&repository.tags.join(" ")).into_owned(),
            ]);
        }
        text.push('\n');
        text.push_str(&table.text());
    }
    text
}

fn collected(last: &Record) -> String {
    let when = last.when.strftime("%Y-%m-%d %H:%M UTC");
    format!("{when}: {} tags, {} manifests, {} freed", last.tags, last.manifests, ByteSize(last.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_see() {
        let server = |port, answers| ServerView {
            at: vec![format!("registry.corp:{port}"), format!("10.0.0.5:{port}")],
            answers,
            log: "journalctl -u moorage-registry-writer.service".into(),
        };
        let end: Timestamp = "2028-01-01T00:00:00Z".parse().unwrap();
        let view = View {
            pull: server(5000, true),
            push: server(5001, false),
            certificate_end: Some(end),
            authority: "/var/lib/moorage/registry/ca.crt".into(),
            authority_end: Some(end),
            directory: "/srv/registry".into(),
            bytes: 3 << 30,
            last_collection: Some(Record { when: end, tags: 2, manifests: 3, blobs: 9, bytes: 4 << 20 }),
            users: Vec::new(),
            repositories: vec![Repository {
                name: "opt/siem".into(),
                tags: vec!["9.1".into(), "9.2".into()],
            }],
        };
        insta::assert_snapshot!(text(&view));
    }
}
