//! Properties of the extractors: whatever is sent is read or refused.

use std::collections::BTreeMap;

use axum::http::Uri;
use proptest::prelude::*;
use serde_json::Value;

use super::extract::{NoParams, parse};
use crate::domain::UniqueNames;

proptest! {
    #[test]
    fn a_query_is_read_or_refused(query in "[ -~]{0,60}") {
        prop_assume!(format!("/x?{query}").parse::<Uri>().is_ok());
        let read = serde_urlencoded::from_str::<NoParams>(&query);
        let names = url::form_urlencoded::parse(query.as_bytes()).count();
        prop_assert_eq!(read.is_ok(), names == 0, "{}", query);
    }

    #[test]
    fn bytes_are_parsed_or_refused_as_the_senders_fault(
        bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[\\[\\]{}:,\"a1 ]{0,40}",
    ) {
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            match parse::<UniqueNames>(bytes) {
                Ok(_) => prop_assert!(serde_json::from_slice::<Value>(bytes).is_ok()),
                Err(problem) => prop_assert!(matches!(problem.status().as_u16(), 400 | 422)),
            }
        }
    }

    #[test]
    fn json_is_taken_up_to_a_depth_of_128(
        leaf in r#"[^"\\\x00-\x1f]{0,9}"#, depth in 0..140usize, is_array: bool,
    ) {
        let (open, close) = if is_array { ("[", "]") } else { (r#"{"a":"#, "}") };
        let json = format!(
            r#"{{"a":{}"{leaf}"{}}}"#,
            open.repeat(depth),
            close.repeat(depth)
        );
        // Brackets in a text do not count.
        prop_assert_eq!(
            parse::<BTreeMap<String, Box<serde_json::value::RawValue>>>(json.as_bytes()).is_ok(),
            depth < 128,
            "{}", depth
        );
    }
}
