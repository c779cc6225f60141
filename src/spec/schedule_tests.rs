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

fn berlin(text: &str) -> Schedule {
    let timezone = TimeZone::get("Europe/Berlin").expect("the bundled database has it");
    Schedule { cron: text.parse().expect(text), timezone, jitter: Duration::ZERO, catch_up: false }
}

fn following(schedule: &Schedule, start: &str, count: usize) -> Vec<String> {
    let start: Timestamp = start.parse().expect(start);
    let times = std::iter::successors(schedule.next_after(start), |&time| schedule.next_after(time));
    times.take(count).map(|time| time.to_zoned(schedule.timezone.clone()).datetime().to_string()).collect()
}

#[test]
fn a_run_in_the_hour_that_spring_leaves_out_happens_an_hour_later() {
    let found = following(&berlin("30 2 * * *"), "2026-03-28T00:00:00Z", 3);
    assert_eq!(found, ["2026-03-28T02:30:00", "2026-03-29T03:30:00", "2026-03-30T02:30:00"]);
}

#[test]
fn a_run_in_the_hour_that_autumn_repeats_happens_once() {
    let found = following(&berlin("30 2 * * *"), "2026-10-24T00:00:00Z", 3);
    assert_eq!(found, ["2026-10-24T02:30:00", "2026-10-25T02:30:00", "2026-10-26T02:30:00"]);
    let found = following(&berlin("*/30 1-3 * * *"), "2026-10-24T23:30:00Z", 4);
    assert_eq!(found, ["2026-10-25T02:00:00", "2026-10-25T02:30:00", "2026-10-25T03:00:00", "2026-10-25T03:30:00"]);
}
