//! Schedules: when a message is published by the clock.
//!
//! A pattern of cron says at which times of a zone's wall clock; what follows for
//! instants is decided here, with `now` as an argument.
//!
//! # When clocks are changed
//!
//! As Vixie's cron has it. A time that the clock jumps over, of a pattern that
//! names hours and minutes (`30 2 * * *`), comes right after the jump; a time that
//! it shows twice comes the first time only. Patterns with a wildcard in the
//! minute or hour (`*/15 * * * *`, `0 * * * *`) go on with the time that passes:
//! nothing is left out and both of two equal hours have their ticks.

use std::str::FromStr as _;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};

use super::error::{Error, quoted};
use super::filter::RoutingKey;
use super::message::Message;
use super::name::QueueName;

/// A tick that is found later than this was missed: there was an outage, and the
/// schedule's policy says what becomes of it.
pub(super) const MISSED: TimeDelta = TimeDelta::minutes(1);

/// Ticks of one outage that `all` makes up for, the latest.
pub(super) const MOST_MISSED: usize = 1000;

/// Longest pattern, in bytes.
pub const MAX_CRON: usize = 256;

/// A pattern of cron in a time zone.
#[derive(Clone)]
pub struct Cron {
    text: String,
    zone: Tz,
    pattern: croner::Cron,
}

impl std::fmt::Debug for Cron {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The parsed pattern fills pages.
        write!(f, "{:?} in {}", self.text, self.zone)
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, self.zone) == (&other.text, other.zone)
    }
}

impl Cron {
    /// Parses a pattern of five fields, of six with seconds in front, or a
    /// nickname such as `@hourly`; and the name of a zone in the IANA's database.
    ///
    /// # Errors
    /// [`Error::Invalid`] at `/cron` or `/timezone`, also for a pattern that never
    /// comes.
    pub fn parse(text: &str, zone: &str) -> Result<Self, Error> {
        let zone = Tz::from_str(zone).map_err(|_| {
            Error::invalid(
                "/timezone",
                format!(
                    "{} is not a time zone: name one of the IANA's, such as Europe/Berlin or UTC",
                    quoted(zone)
                ),
            )
        })?;
        let wrong = |why: &str| {
            Error::invalid(
                "/cron",
                format!(
                    "{} is not a pattern of cron ({why}): minute, hour, day of the month, month, \
                     day of the week, with seconds before them if need be; or @hourly, @daily, \
                     @weekly, @monthly, @yearly",
                    quoted(text)
                ),
            )
        };
        if text.len() > MAX_CRON {
            return Err(wrong("too long"));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let pattern = parser.parse(text).map_err(|e| wrong(&e.to_string()))?;
        let cron = Self {
            text: text.to_owned(),
            zone,
            pattern,
        };
        // As good as any to see whether it ever comes.
        if cron.next(DateTime::UNIX_EPOCH).is_none() {
            return Err(wrong("it never comes"));
        }
        Ok(cron)
    }

    /// The pattern, as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name of the zone.
    #[must_use]
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }

    /// The first tick after this time.
    #[must_use]
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let found = self
            .pattern
            .find_next_occurrence(&after.with_timezone(&self.zone), false);
        found.ok().map(|tick| tick.to_utc())
    }

    /// The last tick before this time.
    fn previous(&self, before: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let found = self
            .pattern
            .find_previous_occurrence(&before.with_timezone(&self.zone), false);
        found.ok().map(|tick| tick.to_utc())
    }

    /// What is to be done at `now`, where `first` is the first tick that nothing
    /// was done for yet; at most so many ticks, the others stay due.
    #[must_use]
    pub fn due(
        &self,
        first: DateTime<Utc>,
        now: DateTime<Utc>,
        catch_up: CatchUp,
        most: usize,
    ) -> Due {
        let outage = now - first > MISSED;
        // What is before it is over. Fractions of a second count for nothing.
        let just_after = now + TimeDelta::seconds(1);
        let from = match (outage, catch_up) {
            (false, _) => first,
            (true, CatchUp::None) => {
                return Due {
                    ticks: Vec::new(),
                    next: self.next(now),
                };
            }
            (true, CatchUp::One) => {
                let last = self.previous(just_after);
                return Due {
                    ticks: vec![last.unwrap_or(first).max(first)],
                    next: self.next(now),
                };
            }
            (true, CatchUp::All) => {
                let (mut from, mut count) = (just_after, 0);
                while count < MOST_MISSED
                    && let Some(earlier) = self.previous(from).filter(|tick| *tick >= first)
                {
                    from = earlier;
                    count += 1;
                }
                from
            }
        };
        let mut next = Some(from);
        let mut ticks = Vec::new();
        while let Some(tick) = next
            && tick <= now
            && ticks.len() < most
        {
            ticks.push(tick);
            next = self.next(tick);
        }
        Due { ticks, next }
    }
}

/// What is to be done for a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// A message for each of these.
    pub ticks: Vec<DateTime<Utc>>,
    /// And then at this time, which may be over too; `None`: never again.
    pub next: Option<DateTime<Utc>>,
}

/// What becomes of ticks that were missed, found more than a minute late, since no
/// gateway ran, or no database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// One message for all of them, with the time of the last.
    #[default]
    One,
    /// None.
    None,
    /// A message for each, of the last 1000.
    All,
}

impl CatchUp {
    /// All, by the word that the API has for each.
    pub const ALL: [(&'static str, Self); 3] =
        [("one", Self::One), ("none", Self::None), ("all", Self::All)];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::None => "none",
            Self::All => "all",
        }
    }

    /// By its word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == word);
        found.map(|(_, catch_up)| *catch_up)
    }
}

/// Where a schedule publishes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To a queue.
    Queue(QueueName),
    /// To a topic, with a routing key.
    Topic(QueueName, RoutingKey),
}

/// A schedule's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleSettings {
    /// When.
    pub cron: Cron,
    /// Where to.
    pub target: Target,
    /// What; without a time of delivery and dedup id.
    pub message: Message,
    /// Whether it rests.
    pub paused: bool,
    /// What becomes of missed ticks.
    pub catch_up: CatchUp,
}

/// The beginning of the names of headers that the gateway writes into the messages
/// of a schedule.
pub const HEADER_PREFIX: &str = "postrider-";

impl ScheduleSettings {
    /// The message for a tick.
    #[must_use]
    pub fn message_for(&self, schedule: &QueueName, tick: DateTime<Utc>) -> Message {
        let mut message = self.message.clone();
        let time = tick.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        for (name, value) in [("schedule", schedule.to_string()), ("scheduled-at", time)] {
            message
                .headers
                .insert(format!("{HEADER_PREFIX}{name}"), value);
        }
        message
    }
}

#[cfg(test)]
mod tests;
