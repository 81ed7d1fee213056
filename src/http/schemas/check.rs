//! Checking what is published by the schema of its queue or topic.

use std::sync::Arc;

use super::super::problem::Problem;
use super::super::{Gateway, StatusCode};
use crate::domain::{self, Content, Invalid, Message, Schema};
use crate::store::SchemaOf;

/// Bodies, each with its place in the request.
type Bodies = Vec<(String, Content)>;

/// Checks messages with this version, and notes it in them. `at` is where each
/// stands in the request.
///
/// What breaks the schema and was published before under its dedup id is let
/// through: it is answered as it was then, and not stored.
pub(crate) async fn check_schema<'m>(
    gateway: &Gateway,
    of: SchemaOf,
    version: i32,
    messages: impl Iterator<Item = (&'m str, &'m mut Message)>,
) -> Result<(), Problem> {
    let Some(schema) = gateway.schema(of, version).await? else {
        // Its owner is gone, which the publish will find.
        return Ok(());
    };
    let (mut bodies, mut dedup_ids, mut size) = (Bodies::new(), Vec::new(), 0);
    for (at, message) in messages {
        message.schema_version = Some(version);
        size += message.content.body.len();
        bodies.push((at.to_owned(), message.content.clone()));
        dedup_ids.push(message.dedup_id.clone());
    }
    let broken = if size <= Schema::INLINE {
        find_broken(&schema, &bodies)
    } else {
        let schema = Arc::clone(&schema);
        gateway
            .tracker
            .spawn_blocking(move || find_broken(&schema, &bodies))
            .await
            .map_err(|_| Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR))?
    };
    if broken.is_empty() || were_published(gateway, of, &broken, &dedup_ids).await? {
        return Ok(());
    }
    let parts: Vec<Invalid> = broken.into_iter().flat_map(|(_, parts)| parts).collect();
    Err(violation(version, parts))
}

/// The places in which messages break the schema, by message; the first few.
fn find_broken(schema: &Schema, bodies: &Bodies) -> Vec<(usize, Vec<Invalid>)> {
    let (mut broken, mut left) = (Vec::new(), Schema::MAX_NAMED);
    for (place, (at, content)) in bodies.iter().enumerate() {
        // At least one of each that breaks it: whether it was published before is
        // asked of all.
        if let Err(mut parts) = schema.check_content(content, left.max(1)) {
            for part in &mut parts {
                part.pointer.insert_str(0, &format!("{at}/body"));
            }
            parts.truncate(left);
            left -= parts.len();
            broken.push((place, parts));
        }
    }
    broken
}

/// Whether all that are broken are known by their dedup ids.
async fn were_published(
    gateway: &Gateway,
    of: SchemaOf,
    broken: &[(usize, Vec<Invalid>)],
    dedup_ids: &[Option<String>],
) -> Result<bool, Problem> {
    let ids: Option<Vec<&str>> = broken
        .iter()
        .map(|(place, _)| dedup_ids[*place].as_deref())
        .collect();
    let Some(ids) = ids else {
        return Ok(false);
    };
    let known = gateway.broker.store().are_published(of.id(), &ids).await?;
    Ok(known)
}

fn violation(version: i32, parts: Vec<Invalid>) -> Problem {
    domain::Error::Invalid(parts)
        .into_problem_of("schema-violation")
        .saying(|detail| format!("Version {version} of the schema: {detail}"))
}
