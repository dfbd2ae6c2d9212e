//! `collect-garbage`.

mod here;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::registry::Place;
use crate::registry::collect::{Collected, Collection, Keep, Plan, Policy};
use crate::report::{Fault, Kind, Table, escape, output};
use crate::spec::ByteSize;

/// Remove from the registry what nobody needs any more
///
/// What containers use stays, here and on every host that tells the registry; and so does what the site's projects name,
/// what other images are built on or attached to, and the images of an index. Of the tags those stay that a --keep rule
/// keeps; without a rule all of them, and only what lost its tag goes. Whatever has just lost its tag, or has just been
/// pushed, stays for --grace: somebody may be pulling it, and a later collection takes it.
///
/// Pulls go on throughout. Who pushes meanwhile is told to come again in a minute, which Docker does by itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage collect-garbage --keep-last 5 --keep-tag 'release-*' --dry-run
  moorage collect-garbage --keep-for 90d --keep-last 5 --yes
  moorage collect-garbage --keep-last 5 --dry-run --format json >plan.json
  moorage collect-garbage --plan plan.json --yes")]
pub struct Args {
    /// Keep so many tags of each repository, those that were pushed last
    #[arg(long, value_name = "COUNT")]
    keep_last: Option<usize>,
    /// Keep tags that were pushed within this time: 90d, 12h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    keep_for: Option<i64>,
    /// Keep tags that match: 'release-*', or with their repository 'team/*:release-*'; may be repeated
    #[arg(long = "keep-tag", value_name = "PATTERN")]
    keep_tags: Vec<String>,
    /// How long something stays that nobody needs, for pulls and pushes that are under way
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds)]
    grace: i64,
    /// Apply this plan, as --dry-run --format json has printed it, and nothing else; refused when it has gone stale
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keep_last", "keep_for", "keep_tags", "grace", "dry_run"])]
    plan: Option<PathBuf>,
    /// Do without the list of a host that is gone for good; may be repeated
    #[arg(long = "forget-host", value_name = "HOST")]
    forget: Vec<String>,
    /// Say what would go, with its size, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// A time that is over: `90d`, `1h 30m`, `0s`.
fn seconds(text: &str) -> Result<i64, String> {
    let bad = |why: &str| format!("{why}; for example 90d, 12h or 0s");
    let span: jiff::Span = text.parse().map_err(|_| bad("it is no time"))?;
    let relative = jiff::SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(relative).map_err(|_| bad("months and years differ in length"))?;
    match duration.as_secs() {
        seconds if seconds >= 0 => Ok(seconds),
        _ => Err(bad("it is less than nothing")),
    }
}

/// What is printed as JSON by a dry run, and read again by `--plan`.
#[derive(Debug, Serialize)]
struct Planned {
    dry_run: bool,
    plan: Plan,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    super::only_root("collect-garbage")?;
    let place = Place::of_this_host();
    let settings = place.started()?;
    let reporter = invocation.reporter();
    let wanted = args.plan.as_deref().map(read).transpose()?;
    let used = here::used(invocation, &settings).await?;
    let collection =
        Collection { place: &place, settings: &settings, used, forget: args.forget, reporter: &reporter };
    let exactly = wanted.is_some() || !invocation.yes;
    let plan = match wanted {
        Some(plan) => plan,
        None => {
            let keep = Keep { last: args.keep_last, seconds: args.keep_for, tags: args.keep_tags };
            collection.plan(&Policy { keep, grace: args.grace }).await?
        }
    };
    if args.dry_run {
        return invocation.print(&Planned { dry_run: true, plan }, |planned| text(&planned.plan, "would go"));
    }
    if !plan.is_empty() && !invocation.yes {
        output::stderr(text(&plan, "would go").trim_end());
        let question = format!("Remove {} tag(s) and free {}?", plan.tags.len(), ByteSize(plan.bytes));
        invocation.confirm(question).await?;
    }
    // From here on it goes to its end: who interrupts now does not leave publishers before a closed door.
    if invocation.interrupted.is_cancelled() {
        return Err(Fault::new(Kind::Interrupted, "interrupted, nothing was removed")
            .next("the same command again")
            .into());
    }
    let collected = collection.apply(&plan, exactly).await?;
    drop(reporter);
    invocation.print(&collected, |collected: &Collected| text(&collected.plan, "went"))
}

/// A plan as a dry run has printed it.
fn read(path: &std::path::Path) -> Result<Plan> {
    let bad = |why: String| {
        Fault::new(Kind::Usage, format!("{} is no plan", path.display()))
            .why(why)
            .next("moorage collect-garbage --dry-run --format json >plan.json")
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut value: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    Ok(serde_json::from_value(value["plan"].take()).map_err(|e| bad(e.to_string()))?)
}

fn text(plan: &Plan, word: &str) -> String {
    let mut text = String::new();
    if !plan.tags.is_empty() {
        let mut table = Table::new(&["TAG", "PUSHED", "DIGEST"]);
        for tag in &plan.tags {
            let pushed = jiff::Timestamp::from_second(tag.pushed)
                .map(|pushed| pushed.strftime("%Y-%m-%d").to_string());
            let name = format!("{}:{}", tag.repository, tag.tag);
            table.row([escape(&name).as_ref(), &pushed.unwrap_or_default(), &tag.digest.to_string()]);
        }
        text = table.text() + "\n";
    }
    text.push_str(&match plan.is_empty() {
        true => format!("nothing {word}\n"),
        false => format!(
            "{word}: {} tags, {} manifests, {} blobs: {}\n",
            plan.tags.len(),
            plan.manifests.len(),
            plan.blobs.len(),
            ByteSize(plan.bytes)
        ),
    });
    if plan.later.bytes > 0 {
        text.push_str(&format!(
            "later: {} manifests with all they need: {}, from a collection after the grace (--grace) on\n",
            plan.later.manifests,
            ByteSize(plan.later.bytes)
        ));
    }
    text.push_str(&format!(
        "kept: {} tags, {} manifests: {}\n",
        plan.kept.tags,
        plan.kept.manifests,
        ByteSize(plan.kept.bytes)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::collect::{DroppedBlob, DroppedTag, Kept, Later};
    use crate::spec::Digest;

    #[test]
    fn what_people_see_of_a_plan() {
        let digest = Digest([0xab; 32]);
        let plan = Plan {
            tags: vec![DroppedTag {
                repository: "team/siem".into(),
                tag: "9.1".into(),
                digest,
                pushed: 1_700_000_000,
            }],
            blobs: vec![DroppedBlob { digest, bytes: 3 << 20 }],
            bytes: 3 << 20,
            later: Later { manifests: 1, bytes: 5 << 30 },
            kept: Kept { tags: 3, manifests: 4, bytes: 9 << 30 },
            ..Plan::default()
        };
        insta::assert_snapshot!(text(&plan, "would go"));
        assert!(text(&Plan::default(), "went").starts_with("nothing went\n"));
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        assert_eq!(seconds("90d"), Ok(90 * 86400));
        assert_eq!((seconds("1h 30m"), seconds("0s")), (Ok(5400), Ok(0)));
        for bad in ["", "5", "-1h", "1mo", "soon"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
