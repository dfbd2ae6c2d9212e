//! `resize-container`.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use jiff::civil::Time;
use jiff::{Timestamp, Zoned};

use crate::api::{Client, ResizeRequest, Resized, client};
use crate::invocation::Invocation;
use crate::report::table::fields;
use crate::spec::{ByteSize, Io, Limits};

/// Give a container other limits, at once and without a restart
///
/// What is not named stays as it is. The most that may be asked for is in /etc/moorage/config.toml. What is done to disks
/// is limited for each disk that the container's files are on; 0 takes such a limit away.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage resize-container siem-9.2 --memory 64GiB
  moorage resize-container siem-9.2 --cpu-weight 50 --pids 2000
  moorage resize-container siem-9.2 --io-write 100MB --io-write-ops 500
  moorage resize-container siem-9.2 --cpu-weight 1000 --until 18:00")]
pub struct Args {
    /// The container; your own also by its short name (siem-9.2)
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    name: String,
    #[command(flatten)]
    wanted: Wanted,
    /// When it gets back what it had: 18:00, '2026-07-01 18:00'
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Say what would be set, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Wanted {
    /// The most memory it may use: 512MB, 64GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Its share of CPU time against others, 1 to 10000; 100 is usual
    #[arg(long, value_name = "WEIGHT")]
    cpu_weight: Option<u32>,
    /// The most processes and threads
    #[arg(long, value_name = "COUNT")]
    pids: Option<u32>,
    /// The most it reads from a disk in a second: 100MB
    #[arg(long, value_name = "SIZE")]
    io_read: Option<ByteSize>,
    /// The most it writes to a disk in a second: 100MB
    #[arg(long, value_name = "SIZE")]
    io_write: Option<ByteSize>,
    /// The most reads from a disk in a second
    #[arg(long, value_name = "COUNT")]
    io_read_ops: Option<u32>,
    /// The most writes to a disk in a second
    #[arg(long, value_name = "COUNT")]
    io_write_ops: Option<u32>,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let Wanted { memory, cpu_weight, pids, io_read, io_write, io_read_ops, io_write_ops } = args.wanted;
    let io = Io { read: io_read, write: io_write, read_ops: io_read_ops, write_ops: io_write_ops };
    let limits = Limits { memory, cpu_weight, pids, io };
    let request = ResizeRequest { limits, until: args.until };
    if args.dry_run {
        return invocation.print(&request, |wanted| shown(&wanted.limits, wanted.until));
    }
    let resized: Resized = client.post(&client::container(&args.name, "/resize"), &request).await?;
    invocation.print(&resized, |resized| shown(&resized.limits, resized.until))
}

fn shown(limits: &Limits, until: Option<Timestamp>) -> String {
    let zone = jiff::tz::TimeZone::system();
    let until = until.map(|until| until.to_zoned(zone).strftime("%F %T %Z").to_string());
    fields(limits.words().into_iter().chain(until.map(|until| ("until", until))))
}

/// A time of today, or of tomorrow where that is over; with a date, that one; here where nothing else is said.
fn time(text: &str) -> Result<Timestamp, String> {
    at(text, &Zoned::now())
}

fn at(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let wrong = || format!("{text:?} is not a time: 18:00, '2026-07-01 18:00', 2026-07-01T18:00:00Z");
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    // A date with a time could be read as the time alone.
    if let Ok(time) = text.parse::<Time>()
        && text.parse::<jiff::civil::Date>().is_err()
    {
        let mut day = now.date();
        if time <= now.time() {
            day = day.tomorrow().map_err(|_| wrong())?;
        }
        let then = day.to_datetime(time).to_zoned(now.time_zone().clone());
        return Ok(then.map_err(|_| wrong())?.timestamp());
    }
    let date: jiff::civil::DateTime = text.parse().map_err(|_| wrong())?;
    Ok(date.to_zoned(now.time_zone().clone()).map_err(|_| wrong())?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_todays_or_tomorrows() {
        let now: Zoned = "2026-06-30T12:00:00+02:00[Europe/Berlin]".parse().unwrap();
        let then = |text: &str| at(text, &now).map(|then| then.to_string());
        assert_eq!(then("18:00").unwrap(), "2026-06-30T16:00:00Z");
        assert_eq!(then("11:59:30").unwrap(), "2026-07-01T09:59:30Z");
        assert_eq!(then("2026-07-02 08:00").unwrap(), "2026-07-02T06:00:00Z");
        assert_eq!(then("2026-07-02T08:00:00Z").unwrap(), "2026-07-02T08:00:00Z");
        assert!(then("six").unwrap_err().contains("is not a time"));
        assert!(then("25:00").is_err());
    }
}
