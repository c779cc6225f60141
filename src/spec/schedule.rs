//! When a spec is due: the five fields of crontab(5), in civil time, mapped to a time zone.
//!
//! The `cron` crate parses the fields and knows their bounds. Three things are done here, because the
//! crate does them as Quartz does: it wants a field for seconds; it counts Sunday as 1 (so numbers
//! become names); and it evaluates clock times directly in a zone, where a run in the hour that spring
//! leaves out never happens, and one in the hour that autumn repeats happens twice.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use cron::TimeUnitSpec;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::oci::Digest;

/// How far ahead a next time is looked for. Between two 29ths of February lie at most eight years.
const SEARCH_DAYS: usize = 366 * 8 + 1;

/// How many changes of a zone's clock are looked at: more than any zone has in that time.
const JUMPS_MAX: usize = 100;

/// Shorter than what lies between two times.
const MOMENT: SignedDuration = SignedDuration::from_secs(1);

/// The names of the days, as the `cron` crate and crontab(5) have them; Sunday is 0.
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// The fields: name, bounds, and words for what else is legal.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12 or jan to dec"),
    ("day of the week", "0 to 7 (0 and 7 are Sunday) or sun to sat"),
];

/// When a spec is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The times of day.
    pub cron: Cron,
    /// Where the clock hangs.
    pub timezone: TimeZone,
    /// A delay up to this, so that not everyone asks a registry at 02:00.
    pub jitter: Duration,
    /// Whether one run is made at start where at least one was missed.
    pub catch_up: bool,
}

impl Schedule {
    /// The first time after `now`, without the delay; `None` when none is to be found.
    ///
    /// Where the clock jumps, the rules of crontab(5) hold. An expression whose hours begin with `*` goes by what the clock
    /// shows: nothing in an hour that is left out, and every time in one that is repeated. Any other one runs once right
    /// after the jump for all its times that were left out, and in a repeated hour the first time alone.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let mut offset = self.timezone.to_offset(now);
        let mut from = offset.to_datetime(now);
        let began = self.timezone.preceding(now.checked_add(MOMENT).ok()?).next().map(|jump| jump.timestamp());
        if let Some(began) = began.filter(|_| !self.cron.every_hour) {
            // What the clock showed before it was put back is over.
            let before = self.timezone.to_offset(began.checked_sub(MOMENT).ok()?);
            from = from.max(just_before(before.to_datetime(began))?);
        }
        for jump in self.timezone.following(now).map(Some).chain([None]).take(JUMPS_MAX) {
            let clock = self.cron.next_civil(from)?;
            let Some(jump) = jump else { return offset.to_timestamp(clock).ok() };
            let at = jump.timestamp();
            if let Some(time) = offset.to_timestamp(clock).ok().filter(|&time| time < at) {
                return Some(time);
            }
            let (left, entered) = (offset.to_datetime(at), jump.offset().to_datetime(at));
            if !self.cron.every_hour && left < entered && self.cron.next_civil(just_before(left)?)? < entered {
                return Some(at);
            }
            from = just_before(if self.cron.every_hour { entered } else { left.max(entered) })?;
            offset = jump.offset();
        }
        None
    }

    /// By how much every run of `stream` is put off, up to the jitter: always the same, so that the distance of two runs is
    /// what was asked for.
    pub fn delay(&self, stream: &str) -> Duration {
        let hash = Digest::of(stream.as_bytes()).hex();
        let number = hash.get(..15).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
        // Jitter is below a day.
        Duration::from_secs(number % self.jitter.as_secs().saturating_add(1))
    }
}

fn just_before(clock: DateTime) -> Option<DateTime> {
    clock.checked_sub(MOMENT).ok()
}

/// A cron expression of five fields that fires now and then.
#[derive(Clone, Debug)]
pub struct Cron {
    text: String,
    fields: cron::Schedule,
    /// crontab(5): where both day fields are restricted (do not begin with `*`), either is enough.
    either_day: bool,
    /// The hours begin with `*`.
    every_hour: bool,
}

/// A text that is no cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no cron expression: {why}")]
pub struct InvalidCron {
    text: String,
    why: String,
}

impl Cron {
    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first clock time after `after`.
    pub fn next_civil(&self, after: DateTime) -> Option<DateTime> {
        let mut date = after.date();
        for _ in 0..SEARCH_DAYS {
            if self.on(date) {
                let mut times = self.times(date);
                if let Some(found) = times.find(|&time| time > after) {
                    return Some(found);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    fn on(&self, date: Date) -> bool {
        let day = self.fields.days_of_month().includes(unsigned(date.day()));
        let weekday = self.fields.days_of_week().includes(unsigned(date.weekday().to_sunday_one_offset()));
        let in_month = self.fields.months().includes(unsigned(date.month()));
        in_month && if self.either_day { day || weekday } else { day && weekday }
    }

    fn times(&self, date: Date) -> impl Iterator<Item = DateTime> {
        let minutes = || self.fields.minutes().iter();
        let pairs = self.fields.hours().iter().flat_map(move |hour| minutes().map(move |minute| (hour, minute)));
        pairs.filter_map(move |(hour, minute)| {
            let (hour, minute) = (i8::try_from(hour).ok()?, i8::try_from(minute).ok()?);
            Some(date.at(hour, minute, 0, 0))
        })
    }
}

fn unsigned(number: i8) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

impl FromStr for Cron {
    type Err = InvalidCron;

    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        let invalid = |why: String| InvalidCron { text: text.chars().take(80).collect(), why };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(invalid(wrong_count(text, fields.len())));
        };
        for (field, (name, legal)) in fields.iter().zip(FIELDS) {
            check_form(field).map_err(|why| invalid(format!("{name} `{field}`: {why}; expected {legal}")))?;
        }
        let weekdays = weekday_names(weekday).ok_or_else(|| out_of_bounds(4, weekday)).map_err(invalid)?;
        // Field by field, so that the message can name the one that is wrong.
        let alone = [
            format!("0 {minute} * * * *"),
            format!("0 * {hour} * * *"),
            format!("0 * * {day} * *"),
            format!("0 * * * {month} *"),
        ];
        for (at, expression) in alone.iter().enumerate() {
            if expression.parse::<cron::Schedule>().is_err() {
                return Err(invalid(out_of_bounds(at, fields.get(at).copied().unwrap_or_default())));
            }
        }
        let whole = format!("0 {minute} {hour} {day} {month} {weekdays}");
        let parsed = whole.parse().map_err(|error: cron::error::Error| invalid(error.to_string()))?;
        let either_day = !day.starts_with('*') && !weekday.starts_with('*');
        let cron = Cron { text: text.to_owned(), fields: parsed, either_day, every_hour: hour.starts_with('*') };
        // Any leap year will do as a start; the search is longer than their distance.
        match cron.next_civil(jiff::civil::date(2000, 1, 1).at(0, 0, 0, 0)) {
            Some(_) => Ok(cron),
            None => Err(invalid("it never fires: no month has that day".into())),
        }
    }
}

fn wrong_count(text: &str, count: usize) -> String {
    let fields = "minute, hour, day of the month, month, day of the week";
    match count {
        _ if text.starts_with('@') => format!("@ words are not taken; write the five fields: {fields}"),
        6 | 7 => format!("it has {count} fields; expected five: {fields} (no seconds, no years)"),
        _ => format!("it has {count} fields; expected five: {fields}"),
    }
}

fn out_of_bounds(field: usize, text: &str) -> String {
    let (name, legal) = FIELDS.get(field).copied().unwrap_or(("field", "its bounds"));
    format!("{name} `{text}`: a number or name is out of bounds; expected {legal}")
}

/// The grammar of crontab(5): `*` or a number or a range, the first and the last with a step, in a
/// list. The `cron` crate takes more (`?`, `5/15`), whose meaning differs from one cron to the next.
fn check_form(field: &str) -> Result<(), &'static str> {
    for item in field.split(',') {
        let (base, step) = match item.split_once('/') {
            Some((base, step)) => (base, Some(step)),
            None => (item, None),
        };
        let word = |text: &str| !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_alphanumeric());
        match base.split_once('-') {
            Some((from, to)) if word(from) && word(to) => {}
            None if base == "*" => {}
            None if word(base) && step.is_none() => {}
            None if word(base) => return Err("a step needs * or a range before it"),
            _ => return Err("no *, number, name or range"),
        }
        let legal_step = |step: &str| step.parse::<u8>().is_ok_and(|step| step > 0) && !step.starts_with('+');
        if step.is_some_and(|step| !legal_step(step)) {
            return Err("the step is no number above 0");
        }
    }
    Ok(())
}

/// A weekday field as a list of names: the one form on whose meaning everyone agrees.
fn weekday_names(field: &str) -> Option<String> {
    let mut days = BTreeSet::new();
    for item in field.split(',') {
        let (base, step) = match item.split_once('/') {
            Some((base, step)) => (base, step.parse::<usize>().ok()?),
            None => (item, 1),
        };
        let (from, to) = match base.split_once('-') {
            Some((from, to)) => (weekday(from)?, weekday(to)?),
            None if base == "*" => (0, 6),
            None => (weekday(base)?, weekday(base)?),
        };
        // `fri-sun` and `5-0` end on a Sunday.
        let to = if to == 0 && from > 0 { 7 } else { to };
        if from > to {
            return None;
        }
        days.extend((from..=to).step_by(step).map(|day| day % 7));
    }
    let names: Option<Vec<&str>> = days.into_iter().map(|day| DAYS.get(day).copied()).collect();
    names.map(|names| names.join(","))
}

fn weekday(text: &str) -> Option<usize> {
    match text.parse::<usize>() {
        Ok(number) => (number <= 7).then_some(number),
        Err(_) => DAYS.iter().position(|day| day.eq_ignore_ascii_case(text)),
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
