//! What can be wrong with what a user sent.

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// RFC 6901 JSON pointer into the request's body, or the name of a query
    /// parameter, path segment or header.
    pub pointer: String,
    /// What is wrong and what would be right; ends up in an answer.
    pub detail: String,
}

/// Why a request is refused before it reaches the database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Well-formed, but these parts are not acceptable.
    #[error("{} invalid part(s), the first at {}: {}", .0.len(), .0[0].pointer, .0[0].detail)]
    Invalid(Vec<Invalid>),
    /// A body over the queue's or topic's limit, in bytes.
    #[error("the body at {pointer} is {size} bytes, over the limit of {limit}")]
    TooLarge {
        /// Where the body is.
        pointer: String,
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A receipt that this gateway's database never gave out.
    #[error("the receipt is malformed")]
    ReceiptMalformed,
}

impl Error {
    /// One invalid part.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Invalid {
            pointer: pointer.into(),
            detail: detail.into(),
        }])
    }
}

/// At most 100 characters of a user's input, made safe to show: control
/// characters and the like are escaped.
#[must_use]
pub fn quoted(input: &str) -> String {
    let cut = input
        .char_indices()
        .nth(100)
        .map_or(input.len(), |(at, _)| at);
    format!("{:?}", &input[..cut])
}
