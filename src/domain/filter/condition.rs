//! One condition on one value of a body, after Amazon SNS.

use serde_json::Value;

use super::super::error::quoted;
use super::number::Number;

/// What a value may have to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    /// `"a"`, `300`, `true`, `null`
    Is(Scalar),
    /// `{"prefix": "a"}`
    Prefix(String),
    /// `{"suffix": "a"}`
    Suffix(String),
    /// `{"equals-ignore-case": "a"}`
    IgnoreCase(String),
    /// `{"anything-but": ["a", 300]}`, or one scalar
    AnythingBut(Vec<Scalar>),
    /// `{"anything-but": {"prefix": "a"}}`
    AnythingButPrefix(String),
    /// `{"anything-but": {"suffix": "a"}}`
    AnythingButSuffix(String),
    /// `{"numeric": [">", 0, "<=", 5]}`
    Numeric(Range),
    /// `{"exists": true}`
    Exists(bool),
}

/// A value without parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
}

/// Bounds, at least one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Range {
    pub(super) low: Option<Bound>,
    pub(super) high: Option<Bound>,
}

/// An end of a range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bound {
    pub(super) number: Number,
    /// Whether the number itself is in the range.
    pub(super) included: bool,
}

impl Condition {
    /// Whether a key with these values (several if the message has an array
    /// there, none if the key is missing) meets the condition.
    pub(super) fn is_met_by(&self, values: &[&Value]) -> bool {
        match self {
            Self::Exists(false) => values.is_empty(),
            condition => values.iter().any(|value| condition.holds_for(value)),
        }
    }

    fn holds_for(&self, value: &Value) -> bool {
        let text = value.as_str();
        match self {
            Self::Is(scalar) => scalar.is(value),
            Self::Prefix(prefix) => text.is_some_and(|text| text.starts_with(prefix)),
            Self::Suffix(suffix) => text.is_some_and(|text| text.ends_with(suffix)),
            Self::IgnoreCase(wanted) => text.is_some_and(|text| {
                let lower = |text: &'_ str| -> String {
                    text.chars().flat_map(char::to_lowercase).collect()
                };
                lower(text) == lower(wanted)
            }),
            Self::AnythingBut(scalars) => !scalars.iter().any(|scalar| scalar.is(value)),
            Self::AnythingButPrefix(prefix) => !text.is_some_and(|text| text.starts_with(prefix)),
            Self::AnythingButSuffix(suffix) => !text.is_some_and(|text| text.ends_with(suffix)),
            Self::Numeric(range) => match value {
                Value::Number(number) => range.contains(Number::new(number)),
                _ => false,
            },
            Self::Exists(wanted) => *wanted && !value.is_null() && text != Some(""),
        }
    }
}

impl Scalar {
    /// The scalar, unless it is an array or an object.
    pub(super) fn new(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Null),
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Number(number) => Some(Self::Number(Number::new(number))),
            Value::String(text) => Some(Self::String(text.clone())),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(wanted), Value::Bool(value)) => wanted == value,
            (Self::Number(wanted), Value::Number(number)) => *wanted == Number::new(number),
            (Self::String(wanted), Value::String(text)) => wanted == text,
            _ => false,
        }
    }
}

impl Range {
    fn contains(self, number: Number) -> bool {
        self.low
            .is_none_or(|low| low.number < number || (low.included && low.number == number))
            && self
                .high
                .is_none_or(|high| number < high.number || (high.included && number == high.number))
    }

    /// Whether no number lies in it.
    pub(super) fn is_empty(self) -> bool {
        match (self.low, self.high) {
            (Some(low), Some(high)) => {
                low.number > high.number
                    || (low.number == high.number && !(low.included && high.included))
            }
            _ => false,
        }
    }
}

/// What the value should do: "begin with \"a\"".
impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Is(scalar) => write!(f, "be {scalar}"),
            Self::Prefix(prefix) => write!(f, "begin with {}", quoted(prefix)),
            Self::Suffix(suffix) => write!(f, "end with {}", quoted(suffix)),
            Self::IgnoreCase(text) => write!(f, "be {} in any case", quoted(text)),
            Self::AnythingBut(scalars) => {
                write!(f, "be anything but {}", scalars[0])?;
                match scalars.len() - 1 {
                    0 => Ok(()),
                    more => write!(f, " (and {more} more)"),
                }
            }
            Self::AnythingButPrefix(prefix) => write!(f, "not begin with {}", quoted(prefix)),
            Self::AnythingButSuffix(suffix) => write!(f, "not end with {}", quoted(suffix)),
            Self::Numeric(range) => write!(f, "be {range}"),
            Self::Exists(true) => f.write_str("be there, neither null nor empty"),
            Self::Exists(false) => f.write_str("be missing"),
        }
    }
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::String(text) => f.write_str(&quoted(text)),
        }
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(low), Some(high)) = (self.low, self.high)
            && low.number == high.number
        {
            return write!(f, "= {}", low.number);
        }
        let sign = |included| if included { "=" } else { "" };
        if let Some(low) = self.low {
            write!(f, ">{} {}", sign(low.included), low.number)?;
        }
        if self.low.is_some() && self.high.is_some() {
            f.write_str(" and ")?;
        }
        if let Some(high) = self.high {
            write!(f, "<{} {}", sign(high.included), high.number)?;
        }
        Ok(())
    }
}
