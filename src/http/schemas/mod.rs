//! Schemas of queues and topics: their versions, and [what is
//! published](check_schema) by them.
//!
//! The schema that counts for a message is that of what it is published to: a
//! topic's is checked once, whatever queues it reaches, and those queues' own are
//! not. Else a subscription would decide over what others may publish.

mod check;
mod queue;
mod topic;
mod view;

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use serde_json::value::RawValue;

use super::page::of_another_list;
use super::problem::Problem;
use super::resource::{self, NamesPage, PATCH_TRIES, put_status};
use super::{Gateway, precondition, reply};
use crate::domain::{Compatibility, QueueName, Schema, UniqueNames};
use crate::store::{self, NewSchema, NoSchema, SchemaOf, SchemaVersion};

pub(super) use check::check_schema;
pub(super) use queue::*;
pub(super) use topic::*;
use view::{SchemaRequest, SchemaView, VersionList, VersionParams, VersionView};

/// Which kind of thing has the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Queue,
    Topic,
}

/// Who has a schema, and the version that is in force.
type Owned = (SchemaOf, Option<i32>);

fn etag(of: SchemaOf, version: i32) -> String {
    resource::etag(of.id(), version.into())
}

fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "schema-not-found",
        "There is no such version of a schema, or none is in force. PUT one to .../schema.",
    )
}

fn internal() -> Problem {
    Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR)
}

impl Gateway {
    /// A version of a schema, compiled.
    async fn schema(&self, of: SchemaOf, version: i32) -> Result<Option<Arc<Schema>>, Problem> {
        match self.broker.store().schema(of, version).await? {
            Ok(schema) => Ok(Some(schema)),
            Err(NoSchema::Gone) => Ok(None),
            Err(NoSchema::Unusable) => Err(internal()),
        }
    }

    /// Compiles a schema, which may take a while.
    async fn compile(&self, text: String) -> Result<Result<Arc<Schema>, Problem>, Problem> {
        let compiling = self.tracker.spawn_blocking(move || {
            let value = parsed(&text)?;
            Schema::compile(&value)
                .map(Arc::new)
                .map_err(|error| error.into_problem_of("schema-invalid").under("/schema"))
        });
        compiling.await.map_err(|_| internal())
    }

    /// Who has the schema, from the database.
    async fn schema_owner(&self, owner: Owner, name: &QueueName) -> Result<Owned, Problem> {
        Ok(match owner {
            Owner::Queue => {
                let queue = self.broker.store().queue_now(name).await?;
                let queue = queue.ok_or_else(|| Problem::queue_not_found(name))?;
                (SchemaOf::Queue(queue.id), queue.schema_version)
            }
            Owner::Topic => {
                let topic = self.topic_now(name).await?;
                (SchemaOf::Topic(topic.id), topic.schema_version)
            }
        })
    }
}

fn parsed(text: &str) -> Result<Value, Problem> {
    serde_json::from_str(text)
        .map(|UniqueNames(value)| value)
        .map_err(|error| {
            Problem::with_part(
                StatusCode::UNPROCESSABLE_ENTITY,
                "schema-invalid",
                "/schema",
                crate::domain::quoted(&error.to_string()),
            )
        })
}

async fn put(
    gateway: &Gateway,
    owner: Owner,
    name: &QueueName,
    headers: &HeaderMap,
    request: SchemaRequest,
) -> Result<Response, Problem> {
    let compatibility = Compatibility::from(request.compatibility);
    let text = request.schema.get();
    if text.len() > Schema::MAX_BYTES {
        return Err(Problem::with_part(
            StatusCode::UNPROCESSABLE_ENTITY,
            "schema-invalid",
            "/schema",
            format!(
                "is {} bytes, over the limit of {}: leave out what does not check",
                text.len(),
                Schema::MAX_BYTES
            ),
        ));
    }
    let value = parsed(text)?;
    // Who owns it is asked first: a name that is not there is 404, whatever is sent.
    gateway.schema_owner(owner, name).await?;
    let schema = gateway.compile(text.to_owned()).await??;
    let store = gateway.broker.store();
    for _ in 0..PATCH_TRIES {
        let (of, active) = gateway.schema_owner(owner, name).await?;
        precondition::check(headers, active.map(|active| etag(of, active)).as_deref())?;
        if let Some(active) = active
            && let Some(old) = store.schema_version(of, active).await?
        {
            if parsed(&old.schema)? == value {
                return answer(StatusCode::OK, of, &old);
            }
            compare(gateway, (of, active), &schema, compatibility).await?;
        }
        let after = match active {
            Some(active) => active,
            None => store.last_schema_version(of).await?,
        };
        let new = NewSchema {
            active,
            after,
            schema: text,
            compatibility,
        };
        match store.put_schema(of, name, new).await {
            Err(store::Error::Conflict) => {}
            Err(error) => return Err(error.into()),
            Ok(created_at) => {
                let version = after + 1;
                store.keep_schema(of, version, &schema);
                tracing::info!(%name, ?owner, version, "schema put");
                let made = SchemaVersion {
                    version,
                    schema: text.to_owned(),
                    compatibility,
                    created_at,
                };
                return answer(put_status(active.is_none()), of, &made);
            }
        }
    }
    Err(store::Error::Conflict.into())
}

/// Refuses a version that may not follow the one in force.
async fn compare(
    gateway: &Gateway,
    (of, active): (SchemaOf, i32),
    new: &Arc<Schema>,
    by: Compatibility,
) -> Result<(), Problem> {
    if by == Compatibility::None {
        return Ok(());
    }
    let Some(old) = gateway.schema(of, active).await? else {
        return Ok(());
    };
    let new = Arc::clone(new);
    let comparing = gateway
        .tracker
        .spawn_blocking(move || new.incompatibilities(&old, by));
    let found = comparing.await.map_err(|_| internal())?;
    if found.is_empty() {
        return Ok(());
    }
    Err(crate::domain::Error::Invalid(found)
        .into_problem_of("schema-incompatible")
        .under("/schema")
        .with_status(StatusCode::CONFLICT)
        .saying(|detail| {
            format!(
                "It is not known to be {} compatible with version {active}: {detail} \
                 (`\"compatibility\": \"none\"` puts it all the same.)",
                by.as_str()
            )
        }))
}

fn answer(status: StatusCode, of: SchemaOf, version: &SchemaVersion) -> Result<Response, Problem> {
    let view = SchemaView {
        version: version.version,
        schema: RawValue::from_string(version.schema.clone()).map_err(|_| internal())?,
        compatibility: version.compatibility.into(),
        created_at: version.created_at,
    };
    Ok(resource::answer(status, &view, &etag(of, version.version)))
}

async fn get(gateway: &Gateway, owner: Owner, name: &QueueName) -> Result<Response, Problem> {
    let (of, active) = gateway.schema_owner(owner, name).await?;
    show(gateway, of, active).await
}

async fn get_version(
    gateway: &Gateway,
    owner: Owner,
    name: &QueueName,
    version: &str,
) -> Result<Response, Problem> {
    let (of, _) = gateway.schema_owner(owner, name).await?;
    let version = version.parse().ok().filter(|version| *version > 0);
    show(gateway, of, version).await
}

async fn show(gateway: &Gateway, of: SchemaOf, version: Option<i32>) -> Result<Response, Problem> {
    let version = version.ok_or_else(not_found)?;
    let found = gateway.broker.store().schema_version(of, version).await?;
    answer(StatusCode::OK, of, &found.ok_or_else(not_found)?)
}

async fn list(
    gateway: &Gateway,
    owner: Owner,
    name: &QueueName,
    params: &VersionParams,
    uri: &Uri,
) -> Result<Response, Problem> {
    let page = NamesPage::of(params.limit, params.cursor.as_deref())?;
    let after = match page.after.as_str() {
        "" => 0,
        number => number.parse().map_err(|_| of_another_list())?,
    };
    let (of, active) = gateway.schema_owner(owner, name).await?;
    let store = gateway.broker.store();
    let found = store.list_schemas(of, after, page.ask()).await?.into_iter();
    let mut found: Vec<_> = found.map(|one| (one.version.to_string(), one)).collect();
    let (next_cursor, headers) = page.cut(&mut found, |(number, _)| number, uri);
    let versions = found.iter().map(|(_, one)| VersionView {
        version: one.version,
        compatibility: one.compatibility.into(),
        created_at: one.created_at,
        in_force: active == Some(one.version),
    });
    let list = VersionList {
        versions: versions.collect(),
        next_cursor,
    };
    Ok((headers, reply(StatusCode::OK, &list)).into_response())
}

async fn delete(
    gateway: &Gateway,
    owner: Owner,
    name: &QueueName,
    headers: &HeaderMap,
) -> Result<StatusCode, Problem> {
    let (of, active) = gateway.schema_owner(owner, name).await?;
    let tag = active.map(|active| etag(of, active));
    precondition::check(headers, tag.as_deref())?;
    let version = active.ok_or_else(not_found)?;
    let store = gateway.broker.store();
    if !store.delete_schema(of, name, version).await? {
        return Err(store::Error::Conflict.into());
    }
    tracing::info!(%name, ?owner, version, "schema deleted");
    Ok(StatusCode::NO_CONTENT)
}
