//! A topic's settings: defaults beside the fields, ranges in one place.

use super::error::{Error, Invalid};
use super::queue::QueueSettings;
use super::seconds::Seconds;

/// All settings of a topic, valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// How long its messages can be read from its stream; zero: not at all.
    pub retention: Seconds,
    /// Largest body in bytes.
    pub max_message_bytes: u32,
    /// How long a dedup id is remembered.
    pub dedup_window: Seconds,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            retention: Seconds::ZERO,
            max_message_bytes: 1024 * 1024,
            dedup_window: Seconds::new(86_400),
        }
    }
}

impl TopicSettings {
    /// Checks every range.
    ///
    /// # Errors
    /// [`Error::Invalid`] with each setting that is out of its range.
    pub fn check(&self) -> Result<(), Error> {
        let mut wrong = Vec::new();
        let mut demand = |holds: bool, pointer: &str, detail: String| {
            if !holds {
                wrong.push(Invalid {
                    pointer: pointer.to_owned(),
                    detail,
                });
            }
        };
        demand(
            (Seconds::ZERO..=Seconds::YEAR).contains(&self.retention),
            "/retention_seconds",
            format!("must be from {} to {}", Seconds::ZERO, Seconds::YEAR),
        );
        demand(
            (1..=QueueSettings::MAX_MESSAGE_BYTES).contains(&self.max_message_bytes),
            "/max_message_bytes",
            format!("must be from 1 to {}", QueueSettings::MAX_MESSAGE_BYTES),
        );
        let tick = Seconds::from_millis(1);
        demand(
            (tick..=QueueSettings::MAX_DEDUP_WINDOW).contains(&self.dedup_window),
            "/dedup_window_seconds",
            format!("must be from {tick} to {}", QueueSettings::MAX_DEDUP_WINDOW),
        );
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(wrong))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_each_setting_has_a_range() {
        assert_eq!(TopicSettings::default().check(), Ok(()));
        let wrong = TopicSettings {
            retention: Seconds::from_millis(-1),
            max_message_bytes: 0,
            dedup_window: Seconds::ZERO,
        };
        let Err(Error::Invalid(parts)) = wrong.check() else {
            panic!("not refused");
        };
        assert_eq!(parts.len(), 3);
    }
}
