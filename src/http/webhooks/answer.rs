//! The beginning of what an endpoint answered, as it is shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

/// The beginning of what the endpoint answered, at most 1024 bytes.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct AnswerBody {
    /// The beginning of the answer's body, at most 1024 bytes; null if there was
    /// none, or if it is not text.
    #[schema(example = "accepted")]
    answer: Option<String>,
    /// In base64, if it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_base64: Option<String>,
}

impl AnswerBody {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self {
                answer: Some(text),
                answer_base64: None,
            },
            Err(error) => {
                let cut_at = error.utf8_error();
                let bytes = error.into_bytes();
                // A text whose last character was cut.
                if cut_at.error_len().is_none()
                    && let Ok(text) = std::str::from_utf8(&bytes[..cut_at.valid_up_to()])
                {
                    return Self {
                        answer: Some(text.to_owned()),
                        answer_base64: None,
                    };
                }
                Self {
                    answer: None,
                    answer_base64: Some(STANDARD.encode(bytes)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_text_and_the_rest_in_base64() {
        let shown = |bytes: &[u8]| {
            let body = AnswerBody::of(bytes.to_vec());
            (body.answer, body.answer_base64)
        };
        assert_eq!(shown(b""), (None, None));
        assert_eq!(shown("grün".as_bytes()), (Some("grün".to_owned()), None));
        // Cut within the ü.
        assert_eq!(shown(b"gr\xc3"), (Some("gr".to_owned()), None));
        assert_eq!(shown(b"\xff\x00"), (None, Some("/wA=".to_owned())));
    }
}
