//! Cron expressions, and the two nights a year on which clocks jump.

#![allow(clippy::expect_used)]

use super::*;

fn next(text: &str, after: &str) -> String {
    let cron: Cron = text.parse().unwrap_or_else(|error| panic!("{error}"));
    let after: DateTime = after.parse().expect(after);
    cron.next_civil(after).map(|time| time.to_string()).unwrap_or_default()
}

#[test]
fn times_of_crontab() {
    // 2026-11-01 is a Sunday.
    let rows = [
        ("15 2 * * 1-5", "2026-11-01T00:00", "2026-11-02T02:15:00"),
        ("15 2 * * 0", "2026-11-01T00:00", "2026-11-01T02:15:00"),
        ("15 2 * * 7", "2026-11-01T02:15", "2026-11-08T02:15:00"),
        ("0 0 * * fri-sun", "2026-11-02T00:00", "2026-11-06T00:00:00"),
        ("0 0 * * 5-7", "2026-11-07T00:00", "2026-11-08T00:00:00"),
        ("0 0 * * */2", "2026-11-02T00:00", "2026-11-03T00:00:00"),
        ("*/20 * * * *", "2026-11-01T00:41", "2026-11-01T01:00:00"),
        ("0 8-18/2,23 * * *", "2026-11-01T18:00", "2026-11-01T23:00:00"),
        ("0 0 1 jan *", "2026-11-01T00:00", "2027-01-01T00:00:00"),
        ("0 0 29 2 *", "2026-11-01T00:00", "2028-02-29T00:00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00", "2104-02-29T00:00:00"),
        // Both day fields restricted: either is enough. One begins with a star: both must hold.
        ("0 0 13 * 5", "2026-11-01T00:00", "2026-11-06T00:00:00"),
        ("0 0 */2 * 1", "2026-11-01T00:00", "2026-11-09T00:00:00"),
        ("0 0 31 2 1", "2026-11-01T00:00", "2027-02-01T00:00:00"),
    ];
    for (text, after, expected) in rows {
        assert_eq!(next(text, after), expected, "{text} after {after}");
    }
}

#[test]
fn expressions_that_are_none() {
    let rows = [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("0 0 2 * * *", "no seconds"),
        ("@daily", "@ words"),
        ("60 * * * *", "minute `60`"),
        ("* 24 * * *", "hour `24`"),
        ("* * 0 * *", "day of the month `0`"),
        ("* * * 13 *", "month `13`"),
        ("* * * * 8", "day of the week `8`"),
        ("* * * * mo", "day of the week `mo`"),
        ("5/15 * * * *", "a step needs"),
        ("*/0 * * * *", "the step"),
        ("*/+5 * * * *", "the step"),
        ("5-1 * * * *", "minute `5-1`"),
        ("* * ? * *", "no *, number"),
        ("* * L * *", "day of the month `L`"),
        ("* * * * 5#2", "no *, number"),
        ("1,,2 * * * *", "no *, number"),
        ("0 0 31 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
    ];
    for (text, expected) in rows {
        match text.parse::<Cron>() {
            Ok(_) => panic!("{text:?} was taken"),
            Err(error) => assert!(error.to_string().contains(expected), "{error}"),
        }
    }
}

#[test]
fn when_clocks_jump() {
    // In Berlin, the clock goes from 2 to 3 on 2026-03-29, and from 3 to 2 on 2026-10-25; in Lord Howe by half an hour.
    let (spring, autumn) = ("2026-03-29T00:00:00Z", "2026-10-24T23:10:00Z");
    let rows: [(&str, &str, &str, &[&str]); 14] = [
        // Fixed hours: what was left out runs at once, and once.
        ("Europe/Berlin", "30 2 * * *", spring, &["03-29T03:00+02", "03-30T02:30+02"]),
        ("Europe/Berlin", "0 2 * * *", spring, &["03-29T03:00+02", "03-30T02:00+02"]),
        ("Europe/Berlin", "*/15 2 * * *", spring, &["03-29T03:00+02", "03-30T02:00+02"]),
        ("Europe/Berlin", "0,30 2,3 * * *", spring, &["03-29T03:00+02", "03-29T03:30+02", "03-30T02:00+02"]),
        ("Europe/Berlin", "59 1 * * *", spring, &["03-29T01:59+01", "03-30T01:59+02"]),
        ("Europe/Berlin", "30 2 * * 1", spring, &["03-30T02:30+02"]),
        // Every hour: by what the clock shows.
        ("Europe/Berlin", "30 * * * *", spring, &["03-29T01:30+01", "03-29T03:30+02"]),
        ("Europe/Berlin", "0 */2 * * *", spring, &["03-29T04:00+02"]),
        // What is repeated.
        ("Europe/Berlin", "30 2 * * *", autumn, &["10-25T02:30+02", "10-26T02:30+01"]),
        ("Europe/Berlin", "30 2 * * *", "2026-10-25T01:00:00Z", &["10-26T02:30+01"]),
        ("Europe/Berlin", "*/30 2,3 * * *", autumn, &["10-25T02:00+02", "10-25T02:30+02", "10-25T03:00+01"]),
        ("Europe/Berlin", "30 * * * *", autumn, &["10-25T01:30+02", "10-25T02:30+02", "10-25T02:30+01"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00:00Z", &["10-04T02:30+11", "10-05T02:15+11"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00:00Z", &["04-05T01:45+11", "04-06T01:45+10:30"]),
    ];
    for (zone, text, start, expected) in rows {
        assert_eq!(following(&schedule(zone, text), start, expected.len()), expected, "{text} in {zone}");
    }
}

fn schedule(zone: &str, text: &str) -> Schedule {
    let timezone = TimeZone::get(zone).expect("the bundled database has it");
    Schedule { cron: text.parse().expect(text), timezone, jitter: Duration::ZERO, catch_up: false }
}

fn following(schedule: &Schedule, start: &str, count: usize) -> Vec<String> {
    let start: Timestamp = start.parse().expect(start);
    let times = std::iter::successors(schedule.next_after(start), |&time| schedule.next_after(time));
    let shown = |time: Timestamp| {
        let (clock, offset) = (schedule.timezone.to_datetime(time), schedule.timezone.to_offset(time));
        format!("{}{offset}", clock.strftime("%m-%dT%H:%M"))
    };
    times.take(count).map(shown).collect()
}

#[test]
fn every_run_of_a_stream_is_put_off_by_the_same_time() {
    let mut with_jitter = schedule("UTC", "0 2 * * *");
    assert_eq!(with_jitter.delay("base"), Duration::ZERO);
    with_jitter.jitter = Duration::from_secs(600);
    let delays: Vec<u64> = (0..200).map(|n| with_jitter.delay(&format!("stream-{n}")).as_secs()).collect();
    assert!(delays.iter().all(|&delay| delay <= 600));
    assert!(delays.iter().any(|&delay| delay < 60) && delays.iter().any(|&delay| delay > 540));
    assert_eq!(with_jitter.delay("stream-7").as_secs(), delays[7]);
}

/// The same by another way: a clock that is looked at every minute, and fields that are sets of numbers.
mod reference {
    use super::*;

    pub struct Fields {
        sets: [Vec<bool>; 5],
        stars: [bool; 5],
    }

    impl Fields {
        pub fn new(text: &str) -> Self {
            let words: Vec<&str> = text.split(' ').collect();
            let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
            let sets = std::array::from_fn(|at| set(words[at], bounds[at]));
            Fields { sets, stars: std::array::from_fn(|at| words[at].starts_with('*')) }
        }

        pub fn match_clock(&self, clock: &DateTime) -> bool {
            let [minutes, hours, days, months, weekdays] = &self.sets;
            let weekday = clock.weekday().to_sunday_zero_offset() as usize;
            let day = days[clock.day() as usize];
            let on_weekday = weekdays[weekday] || weekday == 0 && weekdays[7];
            let any = !self.stars[2] && !self.stars[4];
            let on = if any { day || on_weekday } else { day && on_weekday };
            on && months[clock.month() as usize] && minutes[clock.minute() as usize] && hours[clock.hour() as usize]
        }

        pub fn every_hour(&self) -> bool {
            self.stars[1]
        }
    }

    fn set(word: &str, (least, most): (usize, usize)) -> Vec<bool> {
        let mut set = vec![false; 64];
        for part in word.split(',') {
            let (range, step) = part.split_once('/').map_or((part, 1), |(range, step)| (range, step.parse().unwrap()));
            let (first, last) = match range.split_once('-') {
                Some((first, last)) => (first.parse().unwrap(), last.parse().unwrap()),
                None if range == "*" => (least, if most == 7 { 6 } else { most }),
                None => (range.parse().unwrap(), range.parse().unwrap()),
            };
            let mut number: usize = first;
            while number <= last {
                set[number] = true;
                number += step;
            }
        }
        set
    }

    /// The minutes of some days, from `start` on, as a clock shows them.
    ///
    /// Beside it what it has shown at the most until then: what is at or below that has been.
    pub struct Minutes(Vec<(Timestamp, DateTime, DateTime)>);

    impl Minutes {
        pub fn new(zone: &TimeZone, start: Timestamp, count: i64) -> Self {
            let mut most = DateTime::MIN;
            let minute = |minute| {
                let time = start + SignedDuration::from_mins(minute);
                let clock = zone.to_datetime(time);
                most = most.max(clock);
                (time, clock, most)
            };
            Minutes((0..count).map(minute).collect())
        }

        pub fn instants(&self) -> impl Iterator<Item = Timestamp> {
            self.0.iter().map(|(time, ..)| *time)
        }

        /// The first run after the minute at `from`; `None` when there is none in these days.
        pub fn next(&self, fields: &Fields, from: usize) -> Option<Timestamp> {
            for pair in self.0[from..].windows(2) {
                let ((_, _, shown), (time, clock, _)) = (pair[0], pair[1]);
                if fields.every_hour() {
                    if fields.match_clock(&clock) {
                        return Some(time);
                    }
                    continue;
                }
                // Each minute that was left out, and this one.
                let mut minute = shown;
                while minute < clock {
                    minute += SignedDuration::from_mins(1);
                    if fields.match_clock(&minute) {
                        return Some(time);
                    }
                }
            }
            None
        }
    }
}

const MINUTES_OF_A_DAY: i64 = 24 * 60;

/// Numbers that look random, the same ones each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn within(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.below(most - least + 1)
    }

    fn field(&mut self, bounds: (u64, u64), stars: u64) -> String {
        let item = |numbers: &mut Self| {
            let (one, other) = (numbers.within(bounds), numbers.within(bounds));
            match numbers.below(4) {
                0 => format!("{}-{}", one.min(other), one.max(other)),
                1 => format!("{}-{}/{}", one.min(other), one.max(other), numbers.within((1, 9))),
                _ => one.to_string(),
            }
        };
        if self.below(10) < stars {
            return if self.below(3) == 0 { format!("*/{}", self.within((1, 20))) } else { "*".to_owned() };
        }
        let items: Vec<String> = (0..self.within((1, 3))).map(|_| item(self)).collect();
        items.join(",")
    }

    fn expression(&mut self) -> String {
        let fields = [((0, 59), 3), ((0, 23), 4), ((1, 31), 8), ((1, 12), 9), ((0, 7), 8)];
        fields.map(|(bounds, stars)| self.field(bounds, stars)).join(" ")
    }
}

#[test]
fn a_clock_that_is_looked_at_every_minute_comes_to_the_same_times() {
    compare(5_000);
}

#[test]
#[ignore = "takes a minute; tests/run runs it"]
fn a_clock_that_is_looked_at_every_minute_comes_to_the_same_times_for_many_expressions() {
    compare(100_000);
}

/// Compares the next run of `count` pairs of an expression and a minute.
fn compare(count: usize) {
    // Days around jumps, and some without: an hour forth and back, half an hour, at midnight, and a day that never was.
    let windows = [
        ("Europe/Berlin", "2026-03-27T00:00:00Z"),
        ("Europe/Berlin", "2026-10-23T00:00:00Z"),
        ("America/New_York", "2027-03-12T00:00:00Z"),
        ("America/New_York", "2027-11-05T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-02T00:00:00Z"),
        ("Australia/Lord_Howe", "2027-04-02T00:00:00Z"),
        ("Africa/Cairo", "2026-04-22T00:00:00Z"),
        ("Africa/Cairo", "2026-10-28T00:00:00Z"),
        ("Pacific/Apia", "2011-12-28T00:00:00Z"),
        ("Asia/Kathmandu", "2028-02-26T00:00:00Z"),
        ("UTC", "2026-12-29T00:00:00Z"),
    ];
    let mut numbers = Numbers(2026);
    let (mut compared, mut found) = (0, 0);
    for (at, (zone, start)) in windows.into_iter().enumerate() {
        let timezone = TimeZone::get(zone).expect(zone);
        let minutes = reference::Minutes::new(&timezone, start.parse().expect(start), 6 * MINUTES_OF_A_DAY);
        let instants: Vec<Timestamp> = minutes.instants().collect();
        let last = *instants.last().expect("there are some");
        while compared * windows.len() < count * (at + 1) {
            let text = numbers.expression();
            // What never fires is refused, which has rows of its own.
            let Ok(cron) = text.parse::<Cron>() else { continue };
            let fields = reference::Fields::new(&text);
            let schedule = Schedule { cron, timezone: timezone.clone(), jitter: Duration::ZERO, catch_up: true };
            for _ in 0..4 {
                // From the second day on, so that it is known what the clock has shown.
                let from = numbers.within((MINUTES_OF_A_DAY as u64, instants.len() as u64 - 1)) as usize;
                let expected = minutes.next(&fields, from);
                let next = schedule.next_after(instants[from]).filter(|&time| time <= last);
                assert_eq!(next, expected, "{text} in {zone} after {}", instants[from]);
                compared += 1;
                found += usize::from(expected.is_some());
            }
        }
    }
    // Most of the others fire after these days.
    assert!(compared >= count && found * 10 > compared * 4, "{found} of {compared}");
}
