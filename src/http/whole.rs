//! Whole numbers in JSON. `1.0` is one, too: to JSON Schema, which describes the
//! requests, and to clients whose language has one kind of numbers.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserializer;
use serde::de::{self, Visitor};

struct Whole<T>(PhantomData<T>);

impl<T: TryFrom<i64>> Whole<T> {
    fn fit<E: de::Error>(number: i64, found: de::Unexpected<'_>) -> Result<T, E> {
        T::try_from(number).map_err(|_| E::invalid_value(found, &"a number in range"))
    }
}

impl<T: TryFrom<i64>> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        Self::fit(number, de::Unexpected::Signed(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        let found = de::Unexpected::Unsigned(number);
        let number =
            i64::try_from(number).map_err(|_| E::invalid_value(found, &"a number in range"))?;
        Self::fit(number, found)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        /// 2^53: up to here each whole number is told from the next.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let found = de::Unexpected::Float(number);
        if number.fract() != 0.0 || number.abs() > EXACT {
            return Err(E::invalid_type(found, &self));
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole, and bounded by the line above it"
        )]
        Self::fit(number as i64, found)
    }
}

/// For fields: a whole number.
pub(crate) fn whole<'de, T: TryFrom<i64>, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    d.deserialize_any(Whole(PhantomData))
}

/// For fields: a whole number or null.
pub(crate) fn optional_whole<'de, T, D>(d: D) -> Result<Option<T>, D::Error>
where
    T: TryFrom<i64>,
    D: Deserializer<'de>,
{
    struct Optional<T>(PhantomData<T>);
    impl<'de, T: TryFrom<i64>> Visitor<'de> for Optional<T> {
        type Value = Option<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number or null")
        }
        fn visit_unit<E>(self) -> Result<Option<T>, E> {
            Ok(None)
        }
        fn visit_none<E>(self) -> Result<Option<T>, E> {
            Ok(None)
        }
        fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Option<T>, D::Error> {
            whole(d).map(Some)
        }
    }
    d.deserialize_option(Optional(PhantomData))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Numbers {
        #[serde(deserialize_with = "whole")]
        one: u32,
        #[serde(default, deserialize_with = "optional_whole")]
        other: Option<i64>,
    }

    fn one(number: &str) -> Option<u32> {
        let json = format!(r#"{{"one": {number}}}"#);
        serde_json::from_str(&json).ok().map(|n: Numbers| n.one)
    }

    #[test]
    fn what_is_no_whole_number_is_refused() {
        for number in [
            "-1",
            "1.5",
            "1e300",
            "-0.5",
            "4294967296",
            "18446744073709551615",
            "1e-3",
            "\"1\"",
            "true",
            "null",
            "[1]",
            "{}",
            "9007199254740994.0",
        ] {
            assert_eq!(one(number), None, "{number}");
            if number != "null" && number != "-1" && number != "4294967296" {
                let json = format!(r#"{{"one": 1, "other": {number}}}"#);
                assert!(serde_json::from_str::<Numbers>(&json).is_err(), "{number}");
            }
        }
    }

    #[test]
    fn null_and_nothing_are_no_number() {
        for json in [r#"{"one": 1}"#, r#"{"one": 1.0, "other": null}"#] {
            let numbers: Numbers = serde_json::from_str(json).expect("numbers");
            assert_eq!(
                numbers,
                Numbers {
                    one: 1,
                    other: None
                }
            );
        }
    }

    proptest! {
        #[test]
        fn a_number_is_the_same_however_it_is_written(number: u32) {
            prop_assert_eq!(one(&number.to_string()), Some(number));
            prop_assert_eq!(one(&format!("{number}.0")), Some(number));
            prop_assert_eq!(one(&format!("{number}0e-1")), Some(number));
            let json = format!(r#"{{"one": 1, "other": -{number}.000}}"#);
            let numbers: Numbers = serde_json::from_str(&json).expect("numbers");
            prop_assert_eq!(numbers.other, Some(-i64::from(number)));
        }
    }
}
