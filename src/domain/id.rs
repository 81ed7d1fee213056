//! Message ids as users see them.

use std::fmt;

/// The id of a message. Shown as `msg_` and thirteen base-32 digits (Crockford's
/// alphabet, whose digits sort as the numbers do), so that ids sort by publish
/// order as text too and no JSON parser can round them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub i64);

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 13;

impl MessageId {
    /// Parses what [`fmt::Display`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("msg_").and_then(number).map(Self)
    }
}

/// The number that [`write()`] wrote; `None` for anything else.
pub(super) fn number(digits: &str) -> Option<i64> {
    let digits = digits.as_bytes();
    if digits.len() != LENGTH {
        return None;
    }
    let mut value: u64 = 0;
    for digit in digits {
        let digit = DIGITS.iter().position(|d| d == digit)?;
        value = value.checked_mul(32)?.checked_add(digit as u64)?;
    }
    i64::try_from(value).ok()
}

/// Writes a number as thirteen digits that sort as the numbers do.
pub(super) fn write(f: &mut fmt::Formatter<'_>, number: i64) -> fmt::Result {
    let mut text = [0; LENGTH];
    let mut rest = number.cast_unsigned();
    for place in text.iter_mut().rev() {
        *place = DIGITS[(rest % 32) as usize];
        rest /= 32;
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("msg_")?;
        write(f, self.0)
    }
}

impl serde::Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_survive_the_round_trip(n in 0i64..) {
            prop_assert_eq!(MessageId::parse(&MessageId(n).to_string()), Some(MessageId(n)));
        }

        #[test]
        fn ids_sort_as_text_as_they_sort_as_numbers(a in 0i64.., b in 0i64..) {
            prop_assert_eq!(
                MessageId(a).to_string().cmp(&MessageId(b).to_string()),
                a.cmp(&b)
            );
        }

        #[test]
        fn garbage_is_no_id(text in "\\PC*") {
            if let Some(id) = MessageId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
