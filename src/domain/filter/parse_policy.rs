//! From the JSON of a policy to a [`Policy`], or to all that is wrong with it,
//! each fault at the pointer of its part.

use serde_json::{Map, Value};

use super::super::error::quoted;
use super::condition::{Bound, Condition, Range, Scalar};
use super::number::Number;
use super::policy::{CONDITIONS, DEPTH, KEY, Node, Policy, TEXT};
use super::{Faults, escaped};

const KNOWN: &str = "prefix, suffix, anything-but, numeric, exists, equals-ignore-case";

/// Parses the policy at `at`; what it returns is only of use if nothing was
/// added to `faults`.
pub(super) fn parse(json: &Value, at: &str, faults: &mut Faults) -> Policy {
    let mut parser = Parser {
        faults,
        conditions: 0,
    };
    let policy = if let Value::Object(fields) = json {
        parser.object(fields, at, 1)
    } else {
        parser.faults.add(
            at,
            "must be an object of keys and conditions, such as {\"country\": [\"de\", \"fr\"]}",
        );
        Policy(Vec::new())
    };
    if parser.conditions > CONDITIONS {
        parser.faults.add(
            at,
            format!(
                "has {} conditions; at most {CONDITIONS} in all, each value of an \
                 anything-but counted",
                parser.conditions
            ),
        );
    }
    policy
}

struct Parser<'a> {
    faults: &'a mut Faults,
    conditions: usize,
}

impl Parser<'_> {
    fn object(&mut self, fields: &Map<String, Value>, at: &str, depth: usize) -> Policy {
        if fields.is_empty() {
            self.faults.add(at, "must have at least one key");
        }
        if depth > DEPTH {
            self.faults.add(
                at,
                format!("is nested too deep: at most {DEPTH} objects in one another"),
            );
            return Policy(Vec::new());
        }
        Policy(
            fields
                .iter()
                .filter_map(|(key, value)| {
                    let at = format!("{at}/{}", escaped(key));
                    Some((key.clone(), self.node(key, value, &at, depth)?))
                })
                .collect(),
        )
    }

    fn node(&mut self, key: &str, value: &Value, at: &str, depth: usize) -> Option<Node> {
        if key == "$or" {
            self.faults.add(
                at,
                "$or is not supported: make a second subscription to the same queue, \
                 a message that matches both arrives once",
            );
            return None;
        }
        if key.len() > KEY {
            self.faults
                .add(at, format!("a key must be at most {KEY} bytes"));
            return None;
        }
        match value {
            Value::Object(fields) => Some(Node::Object(self.object(fields, at, depth + 1))),
            Value::Array(conditions) if conditions.is_empty() => {
                self.faults
                    .add(at, "must have at least one condition, such as [\"de\"]");
                None
            }
            Value::Array(conditions) => Some(Node::OneOf(
                conditions
                    .iter()
                    .enumerate()
                    .filter_map(|(index, value)| self.condition(value, &format!("{at}/{index}")))
                    .collect(),
            )),
            _ => {
                self.faults.add(
                    at,
                    "must be an array of conditions, such as [\"de\"], or an object of keys",
                );
                None
            }
        }
    }

    fn condition(&mut self, value: &Value, at: &str) -> Option<Condition> {
        if let Value::Object(fields) = value {
            let mut fields = fields.iter();
            let (Some((name, value)), None) = (fields.next(), fields.next()) else {
                self.faults
                    .add(at, format!("must have exactly one of {KNOWN}"));
                return None;
            };
            return self.named_condition(name, value, &format!("{at}/{}", escaped(name)));
        }
        let scalar = self.scalar(
            value,
            at,
            "must be a string, number, true, false, null or an object such as {\"prefix\": \"a\"}",
        )?;
        Some(Condition::Is(scalar))
    }

    fn named_condition(&mut self, name: &str, value: &Value, at: &str) -> Option<Condition> {
        if name != "anything-but" {
            self.conditions += 1;
        }
        match name {
            "prefix" => self.text(value, at).map(Condition::Prefix),
            "suffix" => self.text(value, at).map(Condition::Suffix),
            "equals-ignore-case" => self.text(value, at).map(Condition::IgnoreCase),
            "anything-but" => self.anything_but(value, at),
            "numeric" => self.numeric(value, at).map(Condition::Numeric),
            "exists" => {
                let exists = value.as_bool();
                if exists.is_none() {
                    self.faults.add(at, "must be true or false");
                }
                exists.map(Condition::Exists)
            }
            _ => {
                self.faults.add(
                    at,
                    format!("{} is not a condition; there are {KNOWN}", quoted(name)),
                );
                None
            }
        }
    }

    fn anything_but(&mut self, value: &Value, at: &str) -> Option<Condition> {
        let kinds = "must be a string, number, true, false or null, an array of these, \
                     or an object with prefix or suffix";
        match value {
            Value::Array(values) if values.is_empty() => {
                self.faults.add(at, "must have at least one value");
                None
            }
            Value::Array(values) => Some(Condition::AnythingBut(
                values
                    .iter()
                    .enumerate()
                    .filter_map(|(index, value)| {
                        self.scalar(
                            value,
                            &format!("{at}/{index}"),
                            "must be a string, number, true, false or null",
                        )
                    })
                    .collect(),
            )),
            Value::Object(fields) => {
                self.conditions += 1;
                let mut fields = fields.iter();
                match (fields.next(), fields.next()) {
                    (Some((name, text)), None) if name == "prefix" => self
                        .text(text, &format!("{at}/prefix"))
                        .map(Condition::AnythingButPrefix),
                    (Some((name, text)), None) if name == "suffix" => self
                        .text(text, &format!("{at}/suffix"))
                        .map(Condition::AnythingButSuffix),
                    (Some((name, _)), None) => {
                        self.faults.add(
                            format!("{at}/{}", escaped(name)),
                            format!("{} is not possible here: {kinds}", quoted(name)),
                        );
                        None
                    }
                    _ => {
                        self.faults
                            .add(at, "must have exactly one of prefix, suffix");
                        None
                    }
                }
            }
            value => self
                .scalar(value, at, kinds)
                .map(|scalar| Condition::AnythingBut(vec![scalar])),
        }
    }

    fn scalar(&mut self, value: &Value, at: &str, kinds: &str) -> Option<Scalar> {
        self.conditions += 1;
        let scalar = Scalar::new(value);
        match &scalar {
            None => self.faults.add(at, kinds),
            Some(Scalar::String(text)) if text.len() > TEXT => {
                self.faults.add(at, format!("must be at most {TEXT} bytes"));
            }
            Some(_) => {}
        }
        scalar
    }

    fn text(&mut self, value: &Value, at: &str) -> Option<String> {
        match value {
            Value::String(text) if (1..=TEXT).contains(&text.len()) => Some(text.clone()),
            _ => {
                self.faults
                    .add(at, format!("must be a string of 1 to {TEXT} bytes"));
                None
            }
        }
    }

    /// `[operator, number]`, or a range: `[">", low, "<=", high]`.
    fn numeric(&mut self, value: &Value, at: &str) -> Option<Range> {
        let parts = value.as_array().map_or(&[][..], Vec::as_slice);
        if !matches!(parts.len(), 2 | 4) {
            self.faults.add(
                at,
                "must be an operator and a number, such as [\">=\", 10], or a range, \
                 such as [\">=\", 10, \"<\", 20]",
            );
            return None;
        }
        let ranged = parts.len() == 4;
        let mut range = Range::default();
        let mut sound = true;
        for (index, pair) in parts.chunks(2).enumerate() {
            let at = |part: usize| format!("{at}/{}", index * 2 + part);
            let operator = pair[0].as_str().unwrap_or_default();
            let expected = match (ranged, index) {
                (false, _) => "must be one of <, <=, >, >=, =",
                (true, 0) => "a range begins with > or >=",
                (true, _) => "a range ends with < or <=",
            };
            let known = match (ranged, index) {
                (false, _) => matches!(operator, "<" | "<=" | ">" | ">=" | "="),
                (true, 0) => matches!(operator, ">" | ">="),
                (true, _) => matches!(operator, "<" | "<="),
            };
            if !known {
                self.faults.add(at(0), expected);
                sound = false;
            }
            let Value::Number(number) = &pair[1] else {
                self.faults.add(at(1), "must be a number");
                sound = false;
                continue;
            };
            let bound = Bound {
                number: Number::new(number),
                included: operator.ends_with('='),
            };
            if operator.starts_with(['>', '=']) {
                range.low = Some(bound);
            }
            if operator.starts_with(['<', '=']) {
                range.high = Some(bound);
            }
        }
        if sound && range.is_empty() {
            self.faults.add(
                format!("{at}/3"),
                "no number is in this range: it must be above the first",
            );
            sound = false;
        }
        sound.then_some(range)
    }
}
