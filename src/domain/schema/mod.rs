//! JSON Schemas that bodies of messages are checked with.
//!
//! A schema comes from outside and runs on every publish, so what could take a
//! gateway down is refused before it is compiled ([`bounds`]): nothing is fetched,
//! nothing refers to itself, patterns run in linear time, and how often a part is
//! applied is bounded. Whether a version may follow another is a matter of rules
//! over their keywords ([`compatible`]).

mod bounds;
mod compatible;
mod document;
mod numbers;
mod objects;
mod shape;
#[cfg(test)]
mod tests;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::error::{Error, Invalid, quoted};
use super::json::UniqueNames;
use super::message::Content;
use document::Document;

/// How a version of a schema is compared with the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compatibility {
    /// Whoever reads by the new one can read what the old one let in.
    Backward,
    /// Whoever reads by the old one can read what the new one lets in.
    Forward,
    /// Both.
    Full,
    /// Not at all.
    None,
}

impl Compatibility {
    /// All, as they are written.
    pub const ALL: [(Self, &str); 4] = [
        (Self::Backward, "backward"),
        (Self::Forward, "forward"),
        (Self::Full, "full"),
        (Self::None, "none"),
    ];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(one, _)| *one == self)
            .map_or("", |(_, text)| text)
    }
}

/// A schema that may be used, compiled.
#[derive(Debug)]
pub struct Schema {
    document: Document,
    validator: Validator,
}

/// Bytes that a compiled pattern may take, and its cache.
const PATTERN_BYTES: usize = 256 * 1024;

/// Characters of what is said of one part, at most: schemas have long lists.
const DETAIL: usize = 300;

impl Schema {
    /// Bytes of a schema's text, at most.
    pub const MAX_BYTES: usize = 65_536;
    /// Bytes of bodies up to which they are checked where they are asked of: read in
    /// a third of a millisecond, and checked in a tenth of that (1 KiB: 10 and 2 µs).
    /// More would keep others waiting, and goes to a thread of its own.
    pub const INLINE: usize = 32 * 1024;
    /// Parts that one refusal names, at most.
    pub const MAX_NAMED: usize = 20;

    /// Checks and compiles a schema. Pointers are into it.
    ///
    /// # Errors
    /// [`Error::Invalid`]: it is no JSON Schema, or one that is not taken.
    pub fn compile(schema: &Value) -> Result<Self, Error> {
        let document = Document::new(schema)?;
        bounds::check(&document)?;
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_BYTES)
            .dfa_size_limit(PATTERN_BYTES);
        let validator = jsonschema::options()
            .offline()
            .with_draft(document.draft.of_crate())
            .should_validate_formats(true)
            .with_pattern_options(patterns)
            .build(schema)
            .map_err(|error| refused(&error))?;
        Ok(Self {
            document,
            validator,
        })
    }

    /// Where a body breaks the schema, with pointers into it; the first few places.
    ///
    /// # Errors
    /// At most `limit` places.
    pub fn check(&self, body: &Value, limit: usize) -> Result<(), Vec<Invalid>> {
        if self.validator.is_valid(body) {
            return Ok(());
        }
        Err(self
            .validator
            .iter_errors(body)
            .take(limit)
            .map(|error| Invalid {
                pointer: error.instance_path().as_str().to_owned(),
                detail: told(&error),
            })
            .collect())
    }

    /// Checks a message's content, as everybody reads it: a name that comes twice is
    /// read as the first by some and as the last by others, and a number may be too
    /// large.
    ///
    /// # Errors
    /// At most `limit` places.
    pub fn check_content(&self, content: &Content, limit: usize) -> Result<(), Vec<Invalid>> {
        let refuse = |detail: String| {
            Err(vec![Invalid {
                pointer: String::new(),
                detail,
            }])
        };
        if content.content_type.is_some() {
            return refuse(
                "must be JSON, in `body`: bytes cannot be checked by a schema".to_owned(),
            );
        }
        match serde_json::from_slice(&content.body) {
            Ok(UniqueNames(body)) => self.check(&body, limit),
            Err(error) => refuse(format!(
                "cannot be checked by a schema: {}",
                quoted(&error.to_string())
            )),
        }
    }

    /// Why this version may not follow `old`; empty if it may.
    #[must_use]
    pub fn incompatibilities(&self, old: &Self, by: Compatibility) -> Vec<Invalid> {
        let (new, old) = (&self.document, &old.document);
        let backward = || compatible::contains(old, new);
        // The pointers are into the old version, which the request does not hold.
        let forward = || {
            let found = compatible::contains(new, old).into_iter();
            found.map(|Invalid { pointer, detail }| Invalid {
                pointer: String::new(),
                detail: format!("by the version before, at {}: {detail}", place(&pointer)),
            })
        };
        let mut found: Vec<Invalid> = match by {
            Compatibility::Backward => backward(),
            Compatibility::Forward => forward().collect(),
            Compatibility::Full => backward().into_iter().chain(forward()).collect(),
            Compatibility::None => Vec::new(),
        };
        found.truncate(Self::MAX_NAMED);
        found
    }
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() {
        "its root".to_owned()
    } else {
        clipped(pointer, 100)
    }
}

/// Why a schema does not compile. Of a pattern, a reference and the like the crate
/// knows the keyword; of what breaks the meta-schema, the place in the schema.
fn refused(error: &ValidationError<'_>) -> Error {
    let detail = match error.kind() {
        ValidationErrorKind::Referencing(_) => {
            "holds a $ref that leads nowhere: only those into the schema itself are followed"
                .to_owned()
        }
        ValidationErrorKind::Format { format } if format == "regex" => format!(
            "is not a pattern that is taken: one without look-around and back-references, of at \
             most {} KiB once compiled",
            PATTERN_BYTES / 1024
        ),
        _ => clipped(&error.masked().to_string(), DETAIL),
    };
    Error::invalid(error.instance_path().as_str(), detail)
}

/// What is wrong with a part of a body, without the part.
fn told(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let first = unexpected.first().map(|name| quoted(name));
            format!(
                "has {} that the schema does not allow: {}",
                match unexpected.len() {
                    1 => "a property".to_owned(),
                    more => format!("{more} properties"),
                },
                first.unwrap_or_default(),
            )
        }
        // Its error is about a name, which is input.
        ValidationErrorKind::PropertyNames { .. } => {
            "has a property whose name breaks the schema's propertyNames".to_owned()
        }
        ValidationErrorKind::UnevaluatedItems { .. } => {
            "has items that the schema does not allow".to_owned()
        }
        _ => clipped(&error.masked().to_string(), DETAIL),
    }
}

fn clipped(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
