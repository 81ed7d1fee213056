//! Numbers of JSON, compared by value.

use std::cmp::Ordering;

/// A number as `serde_json` reads it: an integer of 64 bits exactly, anything
/// else (fractions, exponents, larger integers) as the nearest double. Between
/// these the comparison is exact: 300, 300.0 and 3.0e2 are equal, while
/// 9007199254740993 and 9007199254740992.0 are not, although the one rounds to
/// the other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    /// Every i64 and u64.
    Integer(i128),
    /// Finite.
    Double(f64),
}

impl Number {
    pub(super) fn new(number: &serde_json::Number) -> Self {
        number
            .as_i64()
            .map(i128::from)
            .or(number.as_u64().map(i128::from))
            .map_or_else(
                || Self::Double(number.as_f64().unwrap_or_default()),
                Self::Integer,
            )
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(&b),
            // A JSON number is never NaN.
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Self::Integer(a), Self::Double(b)) => integer_and_double(a, b),
            (Self::Double(a), Self::Integer(b)) => integer_and_double(b, a).reverse(),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Double(number) => write!(f, "{number:?}"),
        }
    }
}

fn integer_and_double(integer: i128, double: f64) -> Ordering {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the whole part; what does not fit saturates, beyond any 64-bit integer"
    )]
    let whole = double.trunc() as i128;
    integer
        .cmp(&whole)
        .then_with(|| 0.0.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::new(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn numbers_are_compared_by_value() {
        for text in ["300.0", "3.0e2", "3e2", "300"] {
            assert_eq!(number(text), number("300"), "{text}");
        }
        assert_eq!(number("-0.0"), number("0"));
        // In this order, each less than the next.
        let rising = [
            "-1e308",
            "-9223372036854775809",
            "-9223372036854775807",
            "-1.5",
            "-1",
            "-0.5",
            "0",
            "5e-324",
            "0.5",
            "1",
            "9007199254740992.0",
            "9007199254740993",
            "9007199254740994.0",
            "1e19",
            "18446744073709551615",
            "18446744073709551616",
            "1e300",
        ];
        for (at, less) in rising.iter().enumerate() {
            for more in &rising[at + 1..] {
                assert!(number(less) < number(more), "{less} < {more}");
                assert!(number(more) > number(less), "{more} > {less}");
            }
        }
    }
}
