//! `/v1/keys`: API keys.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{InKey, Json, NoParams, OptionalJson, Query};
use super::problem::Problem;
use super::resource::NamesPage;
use super::shapes;
use super::whole::optional_whole;
use super::{SharedGateway, reply};
use crate::domain::{NewKey, Scope, Scopes, Seconds};
use crate::store::{ApiKey, KeyRate, NewApiKey, RevokedKey};

/// The longest that a key may be good for: ten years.
const LONGEST: Seconds = Seconds::new(315_360_000);

/// The longest that a rotated key may be good along: thirty days.
const LONGEST_OVERLAP: Seconds = Seconds::new(2_592_000);

/// What a rotated key is good along by default: a day.
const OVERLAP: Seconds = Seconds::new(86_400);

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = KeyRequest, example = json!({"name": "billing", "scopes": ["publish:orders.*", "consume:billing"]}))]
pub(crate) struct KeyRequest {
    /// What you call it; 1 to 200 characters.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$"
    )]
    name: String,
    /// What it may do, 1 to 100: `publish:`, `consume:` or `manage:` and a name or
    /// the beginning of names and a `*` (`publish:orders.*`); `monitor`; `admin`.
    #[schema(schema_with = shapes::scopes)]
    scopes: Vec<String>,
    /// How long it is good; 1 to 315360000 (ten years). Left out: until it is
    /// revoked.
    #[schema(value_type = Option<f64>, minimum = 1, maximum = 315_360_000)]
    expires_in_seconds: Option<Seconds>,
    /// How often it may be used, at each gateway by itself. Left out: no limit.
    rate_limit: Option<KeyRateLimit>,
}

/// A key's rate limit.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRateLimit {
    /// Requests a second, over time; 0.001 to 1000000.
    #[schema(example = 100, minimum = 0.001, maximum = 1_000_000)]
    requests_per_second: f64,
    /// Requests that may come at once; by default what a second allows.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000)]
    burst: Option<u32>,
}

/// An API key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyView {
    /// The part of the key that is no secret.
    #[schema(example = "0f3a9b27c41d")]
    id: String,
    /// What its maker calls it.
    #[schema(example = "billing")]
    name: String,
    /// What it may do.
    scopes: Vec<String>,
    /// How often it may be used at each gateway; null is no limit.
    rate_limit: Option<KeyRateLimit>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// From when it is no good; null is never.
    expires_at: Option<DateTime<Utc>>,
    /// Its last request, to the minute or so; null if there was none.
    last_used_at: Option<DateTime<Utc>>,
    /// Until when the key before the last rotation is good, too; null if it is
    /// not.
    previous_expires_at: Option<DateTime<Utc>>,
    /// The whole key: shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "pr_0f3a9b27c41d_5b0c...")]
    key: Option<String>,
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    keys: Vec<KeyView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

impl KeyView {
    fn new(key: ApiKey, shown: Option<NewKey>) -> Self {
        Self {
            id: key.id,
            name: key.name,
            scopes: key.scopes.0.iter().map(Scope::to_string).collect(),
            rate_limit: key.rate.map(|rate| KeyRateLimit {
                requests_per_second: rate.per_second,
                burst: Some(rate.burst),
            }),
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            previous_expires_at: key.previous_expires_at,
            key: shown.map(|new| new.key),
        }
    }
}

impl KeyRateLimit {
    fn check(self) -> Result<KeyRate, Problem> {
        let per_second = self.requests_per_second;
        if !(0.001..=1_000_000.0).contains(&per_second) {
            return Err(Problem::invalid(
                "/rate_limit/requests_per_second",
                "must be from 0.001 to 1000000",
            ));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is from 0 to a million"
        )]
        let burst = self.burst.unwrap_or((per_second.ceil() as u32).max(1));
        if !(1..=1_000_000).contains(&burst) {
            return Err(Problem::invalid(
                "/rate_limit/burst",
                "must be from 1 to 1000000",
            ));
        }
        Ok(KeyRate { per_second, burst })
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let length = name.chars().count();
    if !(1..=200).contains(&length) || name.chars().any(char::is_control) {
        return Err(Problem::invalid(
            "/name",
            "must be 1 to 200 characters, none of them a control character",
        ));
    }
    Ok(())
}

fn check_scopes(texts: &[String]) -> Result<Scopes, Problem> {
    if !(1..=100).contains(&texts.len()) {
        return Err(Problem::invalid("/scopes", "must be 1 to 100 scopes"));
    }
    let scopes: Result<Vec<_>, _> = texts
        .iter()
        .enumerate()
        .map(|(at, text)| Scope::parse(text, &format!("/scopes/{at}")))
        .collect();
    Ok(Scopes(scopes?))
}

fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "key-not-found",
        "There is no API key with this id: it was revoked, or never there.",
    )
}

/// Make an API key
///
/// The answer shows the key, this once: only a keyed hash of it is stored. Send
/// it as `Authorization: Bearer pr_...`.
///
/// An `Idempotency-Key` does nothing here: the answer that it would keep has a secret
/// in it. If an answer is lost, the list shows the key by its name, to be revoked or
/// rotated.
#[utoipa::path(
    post, path = "/v1/keys", tag = "Keys",
    request_body = KeyRequest,
    responses(
        (status = 201, description = "The key, shown this once", body = KeyView),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn create_key(
    State(gateway): State<SharedGateway>,
    Query(NoParams {}): Query<NoParams>,
    Json(request): Json<KeyRequest>,
) -> Result<Response, Problem> {
    check_name(&request.name)?;
    let scopes = check_scopes(&request.scopes)?;
    let good = Seconds::new(1)..=LONGEST;
    if request
        .expires_in_seconds
        .is_some_and(|s| !good.contains(&s))
    {
        return Err(Problem::invalid(
            "/expires_in_seconds",
            "must be from 1 to 315360000 (ten years)",
        ));
    }
    let rate = request.rate_limit.map(KeyRateLimit::check).transpose()?;
    let new = gateway.gate.new_key(None);
    let key = gateway
        .broker
        .store()
        .create_api_key(&NewApiKey {
            id: &new.id,
            name: &request.name,
            hash: &new.hash,
            scopes: &scopes,
            rate,
            expires_in: request.expires_in_seconds,
        })
        .await?;
    tracing::info!(key = key.id, name = key.name, "API key made");
    Ok(reply(StatusCode::CREATED, &KeyView::new(key, Some(new))))
}

/// Which keys to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeyListParams {
    /// At most so many; 1 to 1000, by default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List API keys
///
/// Those that were not revoked, in order of id, without their secrets.
#[utoipa::path(
    get, path = "/v1/keys", tag = "Keys",
    params(KeyListParams),
    responses(
        (status = 200, description = "A page of keys", body = KeyList,
            headers(("Link" = String, description = "The next page, rel=\"next\""))),
    ),
)]
pub(crate) async fn list_keys(
    State(gateway): State<SharedGateway>,
    Query(params): Query<KeyListParams>,
    uri: Uri,
) -> Result<Response, Problem> {
    let page = NamesPage::of(params.limit, params.cursor.as_deref())?;
    let store = gateway.broker.store();
    let mut keys = store.list_api_keys(&page.after, page.ask()).await?;
    let (next_cursor, headers) = page.cut(&mut keys, |key| &key.id, &uri);
    let list = KeyList {
        keys: keys
            .into_iter()
            .map(|key| KeyView::new(key, None))
            .collect(),
        next_cursor,
    };
    Ok((headers, reply(StatusCode::OK, &list)).into_response())
}

/// Read an API key
#[utoipa::path(
    get, path = "/v1/keys/{id}", tag = "Keys",
    params(("id" = String, Path, description = "Its id", example = "0f3a9b27c41d")),
    responses(
        (status = 200, description = "The key, without its secret", body = KeyView),
        (status = 404, description = "`key-not-found`"),
    ),
)]
pub(crate) async fn get_key(
    State(gateway): State<SharedGateway>,
    InKey(id): InKey,
    Query(NoParams {}): Query<NoParams>,
) -> Result<Response, Problem> {
    let found = gateway.broker.store().find_api_key(&id).await?;
    let key = found.ok_or_else(not_found)?;
    Ok(reply(StatusCode::OK, &KeyView::new(key, None)))
}

/// Revoke an API key
///
/// Refused at this gateway from now on, at others within 5 s. The last admin key
/// cannot be revoked.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "Keys",
    params(("id" = String, Path, description = "Its id", example = "0f3a9b27c41d")),
    responses(
        (status = 204, description = "It is revoked"),
        (status = 404, description = "`key-not-found`"),
        (status = 409, description = "`last-admin-key`"),
    ),
)]
pub(crate) async fn delete_key(
    State(gateway): State<SharedGateway>,
    InKey(id): InKey,
    Query(NoParams {}): Query<NoParams>,
) -> Result<StatusCode, Problem> {
    match gateway.broker.store().revoke_api_key(&id).await? {
        RevokedKey::Gone => {
            tracing::info!(key = id, "API key revoked");
            Ok(StatusCode::NO_CONTENT)
        }
        RevokedKey::Missing => Err(not_found()),
        RevokedKey::LastAdmin => Err(Problem::new(
            StatusCode::CONFLICT,
            "last-admin-key",
            "This is the only admin key. Make another first.",
        )),
    }
}

/// How to rotate.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RotateKey, example = json!({"overlap_seconds": 3600}))]
pub(crate) struct RotateRequest {
    /// How long the old key is good along; 0 to 2592000 (thirty days), by default
    /// 86400 (a day).
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 2_592_000)]
    overlap_seconds: Option<Seconds>,
}

/// Rotate an API key
///
/// Gives it a new secret, shown this once; its id and all else stay. The secret
/// that it had is good for `overlap_seconds` more, one from before that is
/// refused at once.
#[utoipa::path(
    post, path = "/v1/keys/{id}/rotate", tag = "Keys",
    params(("id" = String, Path, description = "Its id", example = "0f3a9b27c41d")),
    request_body(content = RotateRequest, description = "May be left out"),
    responses(
        (status = 200, description = "The key, shown this once", body = KeyView),
        (status = 404, description = "`key-not-found`, also if it has expired"),
        (status = 413, description = "`body-too-large`"),
        (status = 415, description = "`unsupported-media-type`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn rotate_key(
    State(gateway): State<SharedGateway>,
    InKey(id): InKey,
    Query(NoParams {}): Query<NoParams>,
    OptionalJson(request): OptionalJson<RotateRequest>,
) -> Result<Response, Problem> {
    let overlap = request.overlap_seconds.unwrap_or(OVERLAP);
    if !(Seconds::ZERO..=LONGEST_OVERLAP).contains(&overlap) {
        return Err(Problem::invalid(
            "/overlap_seconds",
            "must be from 0 to 2592000 (thirty days)",
        ));
    }
    let new = gateway.gate.new_key(Some(&id));
    let rotated = gateway
        .broker
        .store()
        .rotate_api_key(&id, &new.hash, overlap)
        .await?;
    let key = rotated.ok_or_else(not_found)?;
    tracing::info!(key = key.id, "API key rotated");
    Ok(reply(StatusCode::OK, &KeyView::new(key, Some(new))))
}
