//! The last calls, and how many of them failed.

use std::collections::VecDeque;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BreakerSettings;

/// The last calls, oldest first. In JSON a text of `1` (success) and `0`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Window {
    calls: VecDeque<bool>,
    pub(super) failures: u32,
}

impl Window {
    pub(super) fn push(&mut self, success: bool, size: u32) {
        self.calls.push_back(success);
        self.failures += u32::from(!success);
        // More than one when the setting has been made smaller.
        while self.len() > size {
            self.failures -= u32::from(self.calls.pop_front() == Some(false));
        }
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.calls.len()).unwrap_or(u32::MAX)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self
            .calls
            .iter()
            .map(|success| if *success { '1' } else { '0' })
            .collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut window = Self::default();
        for call in text.chars() {
            window.push(call == '1', BreakerSettings::MAX_WINDOW);
        }
        Ok(window)
    }
}
