//! Numbers of a schema, compared without rounding.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::document::{Draft, Node};

/// Integers up to here are exact as floating point.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn whole(number: &Number) -> Option<i128> {
    let of_i64 = number.as_i64().map(i128::from);
    of_i64.or_else(|| number.as_u64().map(i128::from))
}

/// Which of two is larger; `None`: it cannot be told.
fn compare(a: &Number, b: &Number) -> Option<Ordering> {
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        return Some(a.cmp(&b));
    }
    let (a, b) = (a.as_f64()?, b.as_f64()?);
    let is_exact = |x: f64| x.abs() <= EXACT;
    (is_exact(a) && is_exact(b))
        .then(|| a.partial_cmp(&b))
        .flatten()
}

/// A bound on numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound<'a> {
    pub(super) keyword: &'static str,
    limit: &'a Number,
    exclusive: bool,
}

impl Bound<'_> {
    /// Whether what keeps to `old` keeps to this too. `tighter` is how a tighter
    /// bound compares.
    pub(super) fn follows_from(&self, old: &Bound<'_>, tighter: Ordering) -> bool {
        match compare(old.limit, self.limit) {
            Some(Ordering::Equal) => old.exclusive || !self.exclusive,
            other => other == Some(tighter),
        }
    }
}

/// The bounds of a schema that `keywords` set: the one, and the exclusive one.
pub(super) fn bounds<'a>(node: &Node<'a>, keywords: [&'static str; 2]) -> Vec<Bound<'a>> {
    let [inclusive, exclusive] = keywords;
    let number = |keyword| node.get(keyword).and_then(Value::as_number);
    let bound = |keyword, limit, exclusive| Bound {
        keyword,
        limit,
        exclusive,
    };
    if node.document.draft == Draft::Four {
        // There it says of the other what that is.
        let is_exclusive = node.get(exclusive) == Some(&Value::Bool(true));
        let limit = number(inclusive);
        return limit
            .map(|limit| bound(inclusive, limit, is_exclusive))
            .into_iter()
            .collect();
    }
    let both = [(inclusive, false), (exclusive, true)];
    both.into_iter()
        .filter_map(|(keyword, is_exclusive)| Some(bound(keyword, number(keyword)?, is_exclusive)))
        .collect()
}

/// A number of characters, items or properties.
pub(super) fn size(node: &Node<'_>, keyword: &str) -> Option<u64> {
    let number = node.get(keyword)?.as_number()?;
    number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole and in range"
        )]
        (float.fract() == 0.0 && (0.0..=EXACT).contains(&float)).then_some(float as u64)
    })
}

/// Whether each multiple of `old` is one of `new`.
pub(super) fn is_multiple(old: &Value, new: &Value) -> bool {
    old == new
        || match (old.as_u64(), new.as_u64()) {
            (Some(old), Some(new)) => new > 0 && old % new == 0,
            _ => false,
        }
}
