//! W3C Trace Context: which trace a request or a message belongs to.

/// Characters of a version-00 `traceparent`:
/// `version-trace_id-parent_id-flags` in lower-case hex.
const LENGTH: usize = 55;

/// A valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// Names the trace; never 0.
    pub trace_id: u128,
    /// Names the span that what follows is a child of; never 0.
    pub span_id: u64,
    /// Bit 0: the caller may have recorded its span.
    pub flags: u8,
}

impl TraceParent {
    /// Reads one (W3C Trace Context, section 3.2). `None` for what is not valid,
    /// which the standard says is ignored, as if there were none. A later version
    /// may have more after the flags.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (known, more) = text.as_bytes().split_at_checked(LENGTH)?;
        let version = hex(&known[..2])?;
        let is_whole = more.is_empty() || (version > 0 && more[0] == b'-');
        if !is_whole || version == 0xff || [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return None;
        }
        let (trace_id, span_id) = (hex(&known[3..35])?, hex(&known[36..52])?);
        if trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self {
            trace_id,
            span_id: u64::try_from(span_id).ok()?,
            flags: u8::try_from(hex(&known[53..])?).ok()?,
        })
    }
}

/// The number that these digits write; `None` if one is not a lower-case digit.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_the_standard_shows_is_read() {
        let expected = TraceParent {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span_id: 0xb7ad_6b71_6920_3331,
            flags: 1,
        };
        assert_eq!(TraceParent::parse(GOOD), Some(expected));
        let later = format!("cc{}-what-the-future-brings", &GOOD[2..]);
        assert_eq!(TraceParent::parse(&later), Some(expected));
    }

    #[test]
    fn every_changed_character_changes_or_spoils_it() {
        for at in 0..GOOD.len() {
            let spoilt = format!("{}g{}", &GOOD[..at], &GOOD[at + 1..]);
            assert_eq!(TraceParent::parse(&spoilt), None, "{spoilt}");
            assert_eq!(TraceParent::parse(&GOOD[..at]), None, "{at}");
        }
        for (part, zero) in [(3..35, "0".repeat(32)), (36..52, "0".repeat(16))] {
            let mut nobody = GOOD.to_owned();
            nobody.replace_range(part, &zero);
            assert_eq!(TraceParent::parse(&nobody), None, "{nobody}");
        }
        assert_eq!(TraceParent::parse(&format!("{GOOD}-more")), None);
        assert_eq!(TraceParent::parse(&format!("ff{}", &GOOD[2..])), None);
        assert_eq!(TraceParent::parse(&GOOD.to_uppercase()), None);
        assert_eq!(TraceParent::parse(&format!("cc{}.x", &GOOD[2..])), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = TraceParent::parse(&text);
        }

        #[test]
        fn what_is_written_is_read(
            trace_id in 1..u128::MAX, span_id in 1..u64::MAX, flags in any::<u8>(),
        ) {
            let text = format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}");
            let expected = TraceParent { trace_id, span_id, flags };
            prop_assert_eq!(TraceParent::parse(&text), Some(expected));
        }
    }
}
