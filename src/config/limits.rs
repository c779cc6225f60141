//! Limits as meant: bandwidth by the time of day, and how much of one registry is used.

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use super::file::{DayWord, LimitsFile, RegistryLimitsFile, WindowFile};
use crate::yaml::{At, Fault};

/// The smallest bandwidth: below it, a piece of a blob takes longer than others wait for it.
pub const BANDWIDTH_MIN: u64 = 16 * 1024;

/// The word for no limit.
const UNLIMITED: &str = "unlimited";

/// Bytes in a second; `None` for as many as there are.
pub type Bandwidth = Option<u64>;

/// Limits over all registries together.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Outside of all windows.
    pub bandwidth: Bandwidth,
    /// Where the clock of the windows hangs.
    pub timezone: TimeZone,
    /// The first that holds the moment decides.
    pub windows: Vec<Window>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bandwidth: None, timezone: TimeZone::UTC, windows: Vec::new() }
    }
}

/// A time of day with a bandwidth of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The days on which it begins; empty for every day.
    pub days: Vec<Weekday>,
    /// Its first moment.
    pub from: Time,
    /// The moment after its last; not after `from`, it is one of the next day.
    pub to: Time,
    /// What holds in it.
    pub bandwidth: Bandwidth,
}

/// How much of one registry is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryLimits {
    /// Requests on their way at once; `None` for the default.
    pub requests: Option<u32>,
    /// Requests that begin in a second; `None` for no limit.
    pub requests_per_second: Option<u32>,
    /// Bytes of blobs, both ways together.
    pub bandwidth: Bandwidth,
    /// Pulls that are left for others, where the registry counts them.
    pub reserve: u64,
}

impl Limits {
    /// The bandwidth that holds at `now`.
    pub fn bandwidth_at(&self, now: Timestamp) -> Bandwidth {
        if self.windows.is_empty() {
            return self.bandwidth;
        }
        let clock = self.timezone.to_datetime(now);
        let (time, today) = (clock.time(), clock.date().weekday());
        let held = self.windows.iter().find(|window| window.holds(today, time));
        held.map_or(self.bandwidth, |window| window.bandwidth)
    }
}

impl Window {
    fn begins_on(&self, day: Weekday) -> bool {
        self.days.is_empty() || self.days.contains(&day)
    }

    fn holds(&self, today: Weekday, time: Time) -> bool {
        if self.from < self.to {
            return self.begins_on(today) && self.from <= time && time < self.to;
        }
        // Over midnight: what began today, or what began yesterday and is not over.
        (self.begins_on(today) && self.from <= time) || (self.begins_on(today.previous()) && time < self.to)
    }
}

impl DayWord {
    fn meant(self) -> Weekday {
        match self {
            DayWord::Mon => Weekday::Monday,
            DayWord::Tue => Weekday::Tuesday,
            DayWord::Wed => Weekday::Wednesday,
            DayWord::Thu => Weekday::Thursday,
            DayWord::Fri => Weekday::Friday,
            DayWord::Sat => Weekday::Saturday,
            DayWord::Sun => Weekday::Sunday,
        }
    }
}

/// The limits over all that `file` means.
pub(super) fn limits(at: At<'_>, file: &LimitsFile) -> Option<Limits> {
    let bandwidth = optional_bandwidth(at, file.bandwidth.as_deref());
    let timezone = match &file.timezone {
        Some(name) => at.key("timezone").timezone(name),
        None => Some(TimeZone::UTC),
    };
    let windows = at.key("windows");
    let windows: Vec<Option<Window>> =
        file.windows.iter().enumerate().map(|(i, file)| window(windows.item(i), file)).collect();
    Some(Limits { bandwidth: bandwidth?, timezone: timezone?, windows: windows.into_iter().collect::<Option<_>>()? })
}

/// The limits of one registry that `file` means.
pub(super) fn of_registry(at: At<'_>, file: &RegistryLimitsFile) -> Option<RegistryLimits> {
    let bounds = [("requests", file.requests, 256), ("requestsPerSecond", file.requests_per_second, 100_000)];
    for (key, number, max) in bounds {
        if number.is_some_and(|number| number == 0 || number > max) {
            at.key(key).wrong(Fault::new(format!("`{key}` is out of bounds")).expected(format!("1 to {max}")));
        }
    }
    Some(RegistryLimits {
        requests: file.requests,
        requests_per_second: file.requests_per_second,
        bandwidth: optional_bandwidth(at, file.bandwidth.as_deref())?,
        reserve: file.reserve.unwrap_or_default(),
    })
}

fn window(at: At<'_>, file: &WindowFile) -> Option<Window> {
    let from = time(at.key("from"), &file.from);
    let to = time(at.key("to"), &file.to);
    if from.is_some() && from == to {
        at.key("to").wrong(Fault::new("the window is empty: it ends where it begins").expected("another time"));
    }
    let days: Vec<Weekday> = file.days.iter().flatten().map(|day| day.meant()).collect();
    if file.days.is_some() && days.is_empty() {
        at.key("days").wrong(Fault::new("no day is named").expected("days such as [mon, tue], or no `days` at all"));
    }
    let bandwidth = bandwidth(at.key("bandwidth"), &file.bandwidth);
    Some(Window { days, from: from?, to: to?, bandwidth: bandwidth? })
}

/// `HH:MM`; 24:00 is the midnight at the end of the day.
fn time(at: At<'_>, text: &str) -> Option<Time> {
    let parsed = text.split_once(':').filter(|(hour, minute)| hour.len() == 2 && minute.len() == 2);
    let parsed = parsed.and_then(|(hour, minute)| Some((hour.parse::<i8>().ok()?, minute.parse::<i8>().ok()?)));
    let found = match parsed {
        Some((24, 0)) => Some(Time::midnight()),
        Some((hour, minute)) => Time::new(hour, minute, 0, 0).ok(),
        None => None,
    };
    if found.is_none() {
        at.wrong(Fault::new(format!("{text:?} is no time of day")).expected("HH:MM, for example \"07:00\""));
    }
    found
}

fn optional_bandwidth(at: At<'_>, text: Option<&str>) -> Option<Bandwidth> {
    text.map_or(Some(None), |text| bandwidth(at.key("bandwidth"), text))
}

fn bandwidth(at: At<'_>, text: &str) -> Option<Bandwidth> {
    if text == UNLIMITED {
        return Some(None);
    }
    let bytes = at.size(text)?;
    if bytes < BANDWIDTH_MIN {
        let fault = Fault::new(format!("{bytes} bytes a second are too few"));
        at.wrong(fault.expected("16KiB or more, or `unlimited`"));
        return None;
    }
    Some(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(limits: &Limits, clock: &str) -> Bandwidth {
        limits.bandwidth_at(format!("{clock}Z").parse().unwrap())
    }

    #[test]
    fn the_first_window_that_holds_the_moment_decides() {
        let time = |hour| Time::new(hour, 0, 0, 0).unwrap();
        let window = |days: &[Weekday], from, to, bandwidth| Window {
            days: days.to_vec(),
            from: time(from),
            to: time(to),
            bandwidth: Some(bandwidth),
        };
        let limits = Limits {
            bandwidth: None,
            timezone: TimeZone::get("Europe/Berlin").unwrap(),
            windows: vec![
                window(&[Weekday::Friday], 22, 4, 1),
                window(&[Weekday::Monday, Weekday::Friday], 7, 19, 2),
                window(&[], 18, 0, 3),
            ],
        };
        // 2026-11-27 is a Friday; Berlin is an hour ahead of UTC.
        let rows = [
            ("2026-11-27T05:59:59", None),
            ("2026-11-27T06:00:00", Some(2)),
            ("2026-11-27T17:59:59", Some(2)),
            ("2026-11-27T18:00:00", Some(3)),
            ("2026-11-27T21:00:00", Some(1)),
            ("2026-11-28T02:59:59", Some(1)),
            ("2026-11-28T03:00:00", None),
            ("2026-11-28T22:59:59", Some(3)),
            ("2026-11-28T23:00:00", None),
            ("2026-11-26T02:00:00", None),
        ];
        for (clock, expected) in rows {
            assert_eq!(at(&limits, clock), expected, "{clock}");
        }
    }
}
