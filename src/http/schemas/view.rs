//! Schemas as requests and answers have them.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::super::extract::Path;
use super::super::problem::Problem;
use super::super::shapes;
use crate::domain::{Compatibility, QueueName};

/// A schema to put.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"schema": {
    "type": "object", "required": ["order"],
    "properties": {"order": {"type": "integer"}, "amount": {"type": "number", "minimum": 0}},
    "additionalProperties": false,
}}))]
pub(crate) struct SchemaRequest {
    /// A JSON Schema, at most 64 KiB: draft 2020-12, or what its `$schema` names
    /// (2019-09, 7, 6, 4).
    #[schema(schema_with = shapes::json_schema)]
    pub(super) schema: Box<RawValue>,
    /// How it has to go with the version in force; `backward` by default.
    #[serde(default)]
    pub(super) compatibility: CompatibilityName,
}

/// How a version has to go with the one before it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Compatibility)]
pub(crate) enum CompatibilityName {
    /// Whoever reads by the new one can read what the old one let in.
    #[default]
    Backward,
    /// Whoever reads by the old one can read what the new one lets in.
    Forward,
    /// Both.
    Full,
    /// It is not compared.
    None,
}

impl From<CompatibilityName> for Compatibility {
    fn from(name: CompatibilityName) -> Self {
        match name {
            CompatibilityName::Backward => Self::Backward,
            CompatibilityName::Forward => Self::Forward,
            CompatibilityName::Full => Self::Full,
            CompatibilityName::None => Self::None,
        }
    }
}

impl From<Compatibility> for CompatibilityName {
    fn from(compatibility: Compatibility) -> Self {
        match compatibility {
            Compatibility::Backward => Self::Backward,
            Compatibility::Forward => Self::Forward,
            Compatibility::Full => Self::Full,
            Compatibility::None => Self::None,
        }
    }
}

/// A version of a schema.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SchemaVersion)]
pub(crate) struct SchemaView {
    /// 1 first; what messages carry as `schema_version`.
    #[schema(example = 1)]
    pub(super) version: i32,
    /// The JSON Schema, byte for byte as it was put.
    #[schema(schema_with = shapes::json_schema)]
    pub(super) schema: Box<RawValue>,
    /// How it was compared with the version before it.
    pub(super) compatibility: CompatibilityName,
    /// When it was put.
    pub(super) created_at: DateTime<Utc>,
}

/// A version of a schema, without it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedSchemaVersion)]
pub(crate) struct VersionView {
    /// 1 first.
    #[schema(example = 1)]
    pub(super) version: i32,
    /// How it was compared with the version before it.
    pub(super) compatibility: CompatibilityName,
    /// When it was put.
    pub(super) created_at: DateTime<Utc>,
    /// Whether publishes are checked with it.
    pub(super) in_force: bool,
}

/// A page of versions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SchemaVersionList)]
pub(crate) struct VersionList {
    pub(super) versions: Vec<VersionView>,
    /// Where the next page begins; null at the end.
    pub(super) next_cursor: Option<String>,
}

/// Which versions to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct VersionParams {
    /// At most so many; 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<i64>,
    /// `next_cursor` of the page before.
    pub(super) cursor: Option<String>,
}

/// A version of a queue's schema that a path names.
pub(crate) struct InQueueVersion(pub(crate) QueueName, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for InQueueVersion {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path([queue, version]) = Path::<[String; 2]>::from_request_parts(parts, state).await?;
        Ok(Self(QueueName::parse(&queue, "queue")?, version))
    }
}

/// A version of a topic's schema that a path names.
pub(crate) struct InTopicVersion(pub(crate) QueueName, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for InTopicVersion {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path([topic, version]) = Path::<[String; 2]>::from_request_parts(parts, state).await?;
        Ok(Self(QueueName::parse(&topic, "topic")?, version))
    }
}
