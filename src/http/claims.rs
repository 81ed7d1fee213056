//! `/v1/claims/{key}`: consumers that must do a thing once.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::read_body;
use super::extract::{InClaim, Json, NoParams, Query, parse_optional};
use super::idempotency::{Keyed, answer, answer_seen, unless_answered};
use super::problem::Problem;
use super::{SharedGateway, reply, to_keep};
use crate::domain::{ClaimKey, ClaimToken, Seconds};
use crate::store::{ClaimDone, ClaimGivenUp, ClaimTaken, Effect, Kept};

/// How long a claim is its taker's who does not say: as long as a job takes that
/// nobody has thought about.
const LOCK: Seconds = Seconds::new(300);

/// The longest lock: as long as the longest lease.
const LONGEST_LOCK: Seconds = Seconds::new(12 * 3600);

/// How long a claim is kept once it is done, if nobody says.
const KEEP: Seconds = Seconds::new(24 * 3600);

/// How to claim.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TakeClaim, example = json!({"lock_seconds": 300, "keep_seconds": 86400}))]
pub(crate) struct TakeRequest {
    /// How long nobody else may take it; 0.001 to 43200 (12 hours), by default 300.
    #[schema(value_type = Option<f64>, minimum = 0.001, maximum = 43_200)]
    lock_seconds: Option<Seconds>,
    /// How long it is known to be done once it is; 0.001 to 31536000 (365 days), by
    /// default 86400 (a day).
    #[schema(value_type = Option<f64>, minimum = 0.001, maximum = 31_536_000)]
    keep_seconds: Option<Seconds>,
}

/// A claim that is the caller's now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TakenClaim<'a> {
    /// `taken`: go ahead.
    #[schema(example = "taken")]
    state: &'static str,
    #[schema(example = "orders:42")]
    key: &'a str,
    /// Completes it or gives it up. A later taking's token sorts behind those of
    /// all takings before.
    #[schema(value_type = String, example = "clm_000000000001a")]
    token: ClaimToken,
    /// Until when nobody else may take it.
    lock_expires_at: DateTime<Utc>,
}

/// A claim that was completed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DoneClaim<'a> {
    /// `done`: there is nothing left to do.
    #[schema(example = "done")]
    state: &'static str,
    #[schema(example = "orders:42")]
    key: &'a str,
    /// When it was completed.
    done_at: DateTime<Utc>,
    /// Until when that is known; then it may be taken anew.
    kept_until: DateTime<Utc>,
}

fn done_view(key: &ClaimKey, done: ClaimDone) -> DoneClaim<'_> {
    DoneClaim {
        state: "done",
        key: key.as_str(),
        done_at: done.done_at,
        kept_until: done.until,
    }
}

fn check(
    value: Option<Seconds>,
    default: Seconds,
    most: Seconds,
    at: &str,
) -> Result<Seconds, Problem> {
    let value = value.unwrap_or(default);
    if (Seconds::from_millis(1)..=most).contains(&value) {
        Ok(value)
    } else {
        let most = most.as_millis() / 1000;
        Err(Problem::invalid(
            at,
            format!("must be from 0.001 to {most}"),
        ))
    }
}

/// 409: somebody else has it.
fn held(left: std::time::Duration) -> Problem {
    // A fraction of a second is one to wait for, and whole seconds are what a
    // header can say.
    let seconds = left.as_millis().div_ceil(1000).max(1);
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    Problem::new(
        StatusCode::CONFLICT,
        "claim-held",
        format!(
            "Somebody else has the claim, for {:.3} s more at most. Ask again then.",
            left.as_secs_f64()
        ),
    )
    .retry_after(seconds)
}

/// 409: somebody else has had it since.
pub(super) fn claim_lost() -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "claim-lost",
        "The claim is not held with this token: its lock ended and it was taken anew, or it was \
         given up or forgotten. Nothing was changed.",
    )
}

/// Take a claim
///
/// 201: the claim is the caller's, who goes ahead, and completes it with the token
/// when the thing is done. 200: it was done before. 409 `claim-held`: somebody is
/// at it, for as long as `Retry-After` says at most.
///
/// The key is whatever names the thing, for instance the queue's name, a colon and
/// the message's id. Its name, as scopes take it, is what stands before the first
/// colon: a key with the scope `consume:orders` may claim `orders:42`.
///
/// A lock ends by itself, and its holder is not told. So the token fences: tokens of
/// later takings are greater, as text, and an older one completes nothing. Hand it
/// on to your own store, to refuse a holder that was slow there, too.
#[utoipa::path(
    post, path = "/v1/claims/{key}", tag = "Claims",
    params(("key" = String, Path, description = "What is to be done once", example = "orders:42")),
    request_body(content = TakeRequest, description = "May be left out"),
    responses(
        (status = 201, description = "It is the caller's", body = TakenClaim<'static>),
        (status = 200, description = "It was done before", body = DoneClaim<'static>),
        (status = 409, description = "`claim-held`: somebody else has it",
            headers(("Retry-After" = u32, description = "Seconds until its lock ends"))),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn take_claim(
    State(gateway): State<SharedGateway>,
    InClaim(key): InClaim,
    Query(NoParams {}): Query<NoParams>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let keyed = Keyed::of(&mut parts, &gateway).await?;
    let headers = &parts.headers;
    let (bytes, _room) = read_body(&gateway.capacity, headers, body).await?;
    let request: TakeRequest = parse_optional(headers, &bytes)?;
    let lock = check(request.lock_seconds, LOCK, LONGEST_LOCK, "/lock_seconds")?;
    let keep = check(request.keep_seconds, KEEP, Seconds::YEAR, "/keep_seconds")?;
    let store = gateway.broker.store();
    let Some(keyed) = keyed else {
        let taken = store.take_claim(&key, lock, keep).await?;
        return taken_answer(&key, taken).map(answer);
    };
    let once = keyed.once("take_claim", &[key.as_str()], headers, &bytes);
    let result = async {
        let done = store.once(once, move |transaction| {
            let key = key.clone();
            Box::pin(async move {
                let taken = transaction.take_claim(&key, lock, keep).await?;
                Ok(match taken_answer(&key, taken) {
                    Ok(kept) => Effect::Done((), kept),
                    Err(refusal) => Effect::Refused(refusal),
                })
            })
        });
        match done.await? {
            Ok(Effect::Done((), kept)) => Ok(answer(kept)),
            Ok(Effect::Refused(refusal)) => Err(refusal),
            Err(seen) => answer_seen(seen),
        }
    };
    unless_answered(&gateway, once, result.await).await
}

/// What is said to whoever asks for a claim.
fn taken_answer(key: &ClaimKey, taken: ClaimTaken) -> Result<Kept, Problem> {
    match taken {
        ClaimTaken::Taken { token, until } => {
            let view = TakenClaim {
                state: "taken",
                key: key.as_str(),
                token,
                lock_expires_at: until,
            };
            Ok(to_keep(StatusCode::CREATED, &view))
        }
        ClaimTaken::Done(was) => Ok(to_keep(StatusCode::OK, &done_view(key, was))),
        ClaimTaken::Held { left } => Err(held(left)),
    }
}

/// Which claim to complete.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CompleteClaim, example = json!({"token": "clm_000000000001a"}))]
pub(crate) struct CompleteRequest {
    /// What the taking answered.
    #[schema(pattern = "^clm_[0-7][0-9a-hjkmnp-tv-z]{12}$")]
    token: String,
}

/// Complete a claim
///
/// The thing is done: whoever asks for the claim from now on is told so, for the
/// `keep_seconds` that it was taken with. To complete it again is fine. A lock that
/// has ended counts as long as nobody has taken the claim since.
#[utoipa::path(
    post, path = "/v1/claims/{key}/complete", tag = "Claims",
    params(("key" = String, Path, description = "What is done", example = "orders:42")),
    request_body = CompleteRequest,
    responses(
        (status = 200, description = "It is done", body = DoneClaim<'static>),
        (status = 409, description = "`claim-lost`"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn complete_claim(
    State(gateway): State<SharedGateway>,
    InClaim(key): InClaim,
    Query(NoParams {}): Query<NoParams>,
    Json(request): Json<CompleteRequest>,
) -> Result<Response, Problem> {
    let token = ClaimToken::parse(&request.token, "/token")?;
    let completed = gateway.broker.store().complete_claim(&key, token).await?;
    let was = completed.ok_or_else(claim_lost)?;
    Ok(reply(StatusCode::OK, &done_view(&key, was)))
}

/// Whose claim to give up.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GiveUpParams {
    /// What the taking answered.
    #[param(
        pattern = "^clm_[0-7][0-9a-hjkmnp-tv-z]{12}$",
        example = "clm_000000000001a"
    )]
    token: String,
}

/// Give up a claim
///
/// Others may take it at once. Fine twice, and fine if the lock has ended and nobody
/// has taken the claim since.
#[utoipa::path(
    delete, path = "/v1/claims/{key}", tag = "Claims",
    params(
        ("key" = String, Path, description = "What is not done", example = "orders:42"),
        GiveUpParams,
    ),
    responses(
        (status = 204, description = "Nobody has it"),
        (status = 409, description = "`claim-lost`; `claim-done`: it was completed"),
        (status = 422, description = "`invalid`"),
    ),
)]
pub(crate) async fn give_up_claim(
    State(gateway): State<SharedGateway>,
    InClaim(key): InClaim,
    Query(params): Query<GiveUpParams>,
) -> Result<StatusCode, Problem> {
    let token = ClaimToken::parse(&params.token, "token")?;
    match gateway.broker.store().give_up_claim(&key, token).await? {
        ClaimGivenUp::Free => Ok(StatusCode::NO_CONTENT),
        ClaimGivenUp::Lost => Err(claim_lost()),
        ClaimGivenUp::Done => Err(Problem::new(
            StatusCode::CONFLICT,
            "claim-done",
            "The claim was completed with this token, so it cannot be given up.",
        )),
    }
}
