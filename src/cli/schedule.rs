//! `sealift schedule`.

use std::fmt::Write;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::output;
use super::{Output, load_specs};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::spec::{MirrorSpec, Schedule};

/// The most times that are shown of one stream.
const TIMES_MAX: i64 = 1_000;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift schedule mirror-specs/base-images.yaml
  sealift schedule specs/*.yaml --next 40 --from 2027-03-27T00:00:00Z

Asks nobody and changes nothing. The second one shows what happens when clocks are put forward.")]
pub(super) struct ScheduleArguments {
    /// Mirror specs
    #[arg(required = true, value_name = "SPEC")]
    specs: Vec<PathBuf>,
    /// How many times of each stream, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=TIMES_MAX))]
    next: i64,
    /// The moment to begin at, such as 2027-03-27T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
}

/// What `schedule --output json` prints.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct ScheduleReport {
    /// One for each spec.
    pub streams: Vec<StreamTimes>,
}

/// When a stream runs.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct StreamTimes {
    /// Its name.
    pub stream: String,
    /// As the spec says; absent for a stream that runs only by hand.
    #[serde(flatten)]
    pub schedule: Option<Times>,
}

/// The times of a schedule.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Times {
    /// The five fields.
    pub cron: String,
    /// Where the clock hangs.
    pub timezone: String,
    /// By how many seconds each run is put off: what the jitter comes to for this stream.
    pub delay: u64,
    /// The next runs, delay included.
    pub next: Vec<Time>,
}

/// One run.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct Time {
    /// In UTC.
    pub time: String,
    /// As clocks show it there, with what lies between them and UTC.
    pub local: String,
}

pub(super) fn run(arguments: &ScheduleArguments, output: Output) -> Result<Option<Kind>> {
    let specs = load_specs(&arguments.specs)?;
    let from = arguments.from.unwrap_or_else(Timestamp::now);
    let streams = specs.iter().map(|spec| stream(spec, from, arguments.next)).collect::<Result<_>>()?;
    output::report(output, &ScheduleReport { streams }, human)?;
    Ok(None)
}

fn stream(spec: &MirrorSpec, from: Timestamp, count: i64) -> Result<StreamTimes> {
    let times = |schedule| times(schedule, spec.name.as_str(), from, count);
    Ok(StreamTimes { stream: spec.name.to_string(), schedule: spec.schedule.as_ref().map(times).transpose()? })
}

fn times(schedule: &Schedule, stream: &str, from: Timestamp, count: i64) -> Result<Times> {
    let far = |_| Error::usage(format!("{from} is too far away: no time is found after it"));
    let delay = schedule.delay(stream);
    let (mut next, mut after) = (Vec::new(), from.checked_sub(delay).map_err(far)?);
    for _ in 0..count {
        let Some(due) = schedule.next_after(after) else { break };
        let time = due.checked_add(delay).map_err(far)?;
        let local = time.to_zoned(schedule.timezone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string();
        next.push(Time { time: clock::text(time), local });
        after = due;
    }
    let timezone = schedule.timezone.iana_name().unwrap_or("UTC").to_owned();
    Ok(Times { cron: schedule.cron.as_str().to_owned(), timezone, delay: delay.as_secs(), next })
}

fn human(report: &ScheduleReport) -> String {
    let mut text = String::new();
    for StreamTimes { stream, schedule } in &report.streams {
        let Some(Times { cron, timezone, delay, next }) = schedule else {
            let _ = writeln!(text, "{stream}: only by hand");
            continue;
        };
        let put_off = if *delay > 0 { format!(", each {delay} s later") } else { String::new() };
        let _ = writeln!(text, "{stream}: {cron} in {timezone}{put_off}");
        for Time { time, local } in next {
            let _ = writeln!(text, "  {local}   {time}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "apiVersion: sealift/v1
kind: MirrorSpec
name: nightly
schedule: {cron: \"30 2 * * *\", timezone: Europe/Berlin, jitter: 10m}
images:
  - {source: r.example/app, digest: DIGEST, tag: a, platforms: [all]}
";

    /// What is due and put off beyond `from` is still to come.
    #[test]
    fn times_are_those_of_the_clock_and_put_off() {
        let text = SPEC.replace("DIGEST", &format!("sha256:{}", "0".repeat(64)));
        let spec = crate::spec::parse("nightly.yaml".as_ref(), text.as_bytes()).unwrap();
        let from = "2026-10-24T00:30:00Z".parse().unwrap();
        let delay = spec.schedule.as_ref().unwrap().delay("nightly").as_secs();
        assert!((1..=600).contains(&delay), "{delay}");
        let report = stream(&spec, from, 3).unwrap();
        let times = report.schedule.as_ref().unwrap();
        let put_off = |clock: &str| {
            let time: Timestamp = clock.parse().unwrap();
            (time + std::time::Duration::from_secs(delay)).to_string()
        };
        let expected = ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"].map(put_off);
        let found: Vec<&str> = times.next.iter().map(|time| time.time.as_str()).collect();
        assert_eq!(found, expected);
        assert!(times.next[2].local.starts_with("Mon 2026-10-26 02:3") && times.next[2].local.ends_with(" +01:00"));
        let text = human(&ScheduleReport { streams: vec![report] });
        assert!(text.starts_with(&format!("nightly: 30 2 * * * in Europe/Berlin, each {delay} s later\n")), "{text}");
    }
}
