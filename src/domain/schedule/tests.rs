use super::*;

fn cron(text: &str, zone: &str) -> Cron {
    Cron::parse(text, zone).expect("a pattern")
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

/// The next few ticks after a time, as UTC.
fn ticks(cron: &Cron, after: &str, count: usize) -> Vec<String> {
    let mut at = time(after);
    let mut ticks = Vec::new();
    for _ in 0..count {
        at = cron.next(at).expect("a tick");
        ticks.push(at.format("%d %H:%M:%S").to_string());
    }
    ticks
}

#[test]
fn patterns_have_five_fields_or_six_or_a_nickname() {
    let utc = |text| ticks(&cron(text, "UTC"), "2026-01-01T00:00:30Z", 2);
    assert_eq!(utc("*/5 * * * *"), ["01 00:05:00", "01 00:10:00"]);
    assert_eq!(utc("*/20 * * * * *"), ["01 00:00:40", "01 00:01:00"]);
    assert_eq!(utc("@hourly"), ["01 01:00:00", "01 02:00:00"]);
    assert_eq!(utc("0 12 * * MON-FRI"), ["01 12:00:00", "02 12:00:00"]);
    // Days of the month and of the week: either, as cron has it.
    assert_eq!(utc("0 0 3 * SUN"), ["03 00:00:00", "04 00:00:00"]);
}

#[test]
fn what_is_no_pattern_is_refused_and_so_is_what_never_comes() {
    for text in [
        "",
        " ",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "a * * * *",
        "*/0 * * * *",
        "5-1 * * * *",
        "@often",
        "@reboot",
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "* * * * *\0",
        &"1,".repeat(200),
    ] {
        let error = Cron::parse(text, "UTC").expect_err(text);
        let Error::Invalid(invalid) = error else {
            panic!("{text}: {error:?}");
        };
        assert_eq!(invalid[0].pointer, "/cron", "{text}");
    }
    let error = Cron::parse("* * * * *", "Berlin").expect_err("no zone");
    assert!(matches!(error, Error::Invalid(invalid) if invalid[0].pointer == "/timezone"));
}

#[test]
fn in_spring_a_time_that_does_not_exist_comes_right_after_the_jump() {
    // 2026-03-29 in Berlin: from 02:00 to 03:00, which is 01:00 UTC.
    let daily = cron("30 2 * * *", "Europe/Berlin");
    assert_eq!(
        ticks(&daily, "2026-03-28T00:00:00Z", 3),
        ["28 01:30:00", "29 01:00:00", "30 00:30:00"]
    );
    let quarters = cron("*/15 * * * *", "Europe/Berlin");
    assert_eq!(
        ticks(&quarters, "2026-03-29T00:40:00Z", 3),
        ["29 00:45:00", "29 01:00:00", "29 01:15:00"]
    );
    let hourly = cron("0 * * * *", "Europe/Berlin");
    assert_eq!(
        ticks(&hourly, "2026-03-28T23:30:00Z", 3),
        ["29 00:00:00", "29 01:00:00", "29 02:00:00"]
    );
}

#[test]
fn in_autumn_a_time_that_comes_twice_ticks_once_and_wildcards_go_on() {
    // 2026-10-25 in Berlin: from 03:00 back to 02:00, which is 01:00 UTC.
    let daily = cron("30 2 * * *", "Europe/Berlin");
    assert_eq!(
        ticks(&daily, "2026-10-24T12:00:00Z", 2),
        ["25 00:30:00", "26 01:30:00"]
    );
    let halves = cron("*/30 * * * *", "Europe/Berlin");
    assert_eq!(
        ticks(&halves, "2026-10-24T23:45:00Z", 5),
        [
            "25 00:00:00",
            "25 00:30:00",
            "25 01:00:00",
            "25 01:30:00",
            "25 02:00:00"
        ]
    );
}

#[test]
fn ticks_go_on_for_ever_through_every_change_of_the_clock() {
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"] {
        for text in [
            "30 2 * * *",
            "*/15 * * * *",
            "0 * * * *",
            "45 1 * * 0",
            "@daily",
        ] {
            let cron = cron(text, zone);
            let mut at = time("2025-12-31T00:00:00Z");
            for _ in 0..3000 {
                let next = cron.next(at).expect("a tick");
                assert!(next > at, "{text} in {zone}: {next} after {at}");
                assert_eq!(
                    cron.next(next - TimeDelta::seconds(1)),
                    Some(next),
                    "{text} in {zone} at {next}"
                );
                at = next;
            }
        }
    }
}

#[test]
fn what_is_on_time_has_a_message_for_each_tick() {
    let seconds = cron("* * * * * *", "UTC");
    let (first, now) = (
        time("2026-01-01T00:00:00Z"),
        time("2026-01-01T00:00:02.500Z"),
    );
    for (_, catch_up) in CatchUp::ALL {
        let due = seconds.due(first, now, catch_up, 100);
        assert_eq!(due.ticks.len(), 3, "{catch_up:?}");
        assert_eq!(due.next, Some(time("2026-01-01T00:00:03Z")));
    }
    let some = seconds.due(first, now, CatchUp::One, 2);
    assert_eq!(
        (some.ticks.len(), some.next),
        (2, Some(time("2026-01-01T00:00:02Z")))
    );
    let early = seconds.due(now, first, CatchUp::One, 2);
    assert_eq!((early.ticks.len(), early.next), (0, Some(now)));
}

#[test]
fn after_an_outage_the_policy_decides() {
    let minutes = cron("* * * * *", "UTC");
    let (first, now) = (time("2026-01-01T00:00:00Z"), time("2026-01-03T00:00:30Z"));
    let next = Some(time("2026-01-03T00:01:00Z"));
    let of = |catch_up, most| minutes.due(first, now, catch_up, most);
    let last = time("2026-01-03T00:00:00Z");
    let one = of(CatchUp::One, 100);
    assert_eq!((one.ticks, one.next), (vec![last], next));
    let none = of(CatchUp::None, 100);
    assert_eq!((none.ticks, none.next), (vec![], next));
    let all = of(CatchUp::All, usize::MAX);
    assert_eq!((all.ticks.len(), all.next), (MOST_MISSED, next));
    assert_eq!(all.ticks.last(), Some(&last));
    let some = of(CatchUp::All, 10);
    assert_eq!(some.ticks, all.ticks[..10]);
    assert_eq!(some.next, Some(all.ticks[10]));
    // The one that was missed is the tick itself, on the very second too.
    let daily = cron("0 3 * * *", "UTC");
    let first = time("2026-01-01T03:00:00Z");
    let due = daily.due(first, time("2026-01-02T03:00:00Z"), CatchUp::One, 9);
    assert_eq!(due.ticks, [time("2026-01-02T03:00:00Z")]);
    let due = daily.due(first, time("2026-01-02T02:59:59Z"), CatchUp::All, 9);
    assert_eq!(due.ticks, [first]);
}
