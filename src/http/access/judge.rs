//! What a request asks for, and whether a key with its scopes may have it.

use axum::http::{Request, header};

use super::super::operations::{Access, Found, Kind};
use super::super::problem::Problem;
use crate::domain::{ClaimKey, Need, QueueName, Scopes, ShownKey, Verdict};

/// What the request needs. Where there is no operation the router will refuse
/// it; under `/v1` only after a key was shown.
pub(super) fn access<B>(request: &Request<B>, found: Option<Found<'_>>) -> Access {
    match found {
        Some(found) => found.operation.access,
        None if request.uri().path().starts_with("/v1") => Access::Key,
        None => Access::Open,
    }
}

/// What stands behind `Authorization: Bearer`.
pub(super) enum Bearer<'r> {
    /// There is no such header.
    Missing,
    /// No key, or more than one.
    Other,
    Key(ShownKey<'r>),
}

pub(super) fn bearer<B>(request: &Request<B>) -> Bearer<'_> {
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let only = match (values.next(), values.next()) {
        (None, _) => return Bearer::Missing,
        (Some(only), None) => only.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    only.and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then(|| ShownKey::parse(key.trim())).flatten()
    })
    .map_or(Bearer::Other, Bearer::Key)
}

/// Whether a key with these scopes may do what the request asks for.
pub(super) fn judge<B>(
    scopes: &Scopes,
    request: &Request<B>,
    found: Option<Found<'_>>,
) -> Result<(), Problem> {
    let (need, scope) = match access(request, found) {
        Access::Open => return Ok(()),
        Access::Key => (Need::Key, ""),
        Access::Monitor => (Need::Monitor, "monitor"),
        Access::Admin => (Need::Admin, "admin"),
        Access::Claim => {
            let named = found.and_then(|found| found.name());
            // What is no key is nobody's: the endpoint says why.
            let Some(Ok(key)) = named.map(|(_, key)| ClaimKey::parse(&key, "")) else {
                return Ok(());
            };
            return judge_claim(scopes, &key);
        }
        access @ (Access::Seen | Access::Named(_)) => {
            let named = found.and_then(|found| found.name());
            // What is no name is not there for anybody: the endpoint says why.
            let Some((kind, name)) = named else {
                return Ok(());
            };
            let Ok(name) = QueueName::parse(&name, "") else {
                return Ok(());
            };
            let makes = found.is_some_and(|found| found.operation.makes);
            return judge_named(scopes, access, kind, &name, makes);
        }
    };
    match scopes.judge(need) {
        Verdict::Allowed => Ok(()),
        Verdict::Forbidden | Verdict::Hidden => Err(Problem::scope_missing(scope)),
    }
}

pub(super) fn judge_claim(scopes: &Scopes, key: &ClaimKey) -> Result<(), Problem> {
    if scopes.judge(Need::Claim(key)) == Verdict::Allowed {
        return Ok(());
    }
    // Only what could be a scope is shown as one.
    let name = QueueName::parse(key.name(), "");
    let name = name.as_ref().map_or("*", QueueName::as_str);
    Err(Problem::scope_missing(&format!("consume:{name}")))
}

pub(super) fn judge_named(
    scopes: &Scopes,
    access: Access,
    kind: Kind,
    name: &QueueName,
    makes: bool,
) -> Result<(), Problem> {
    let need = match access {
        Access::Named(verb) => Need::Named(verb, name),
        _ => Need::Seen(name),
    };
    match scopes.judge(need) {
        Verdict::Allowed => Ok(()),
        // What would make it cannot say that it is missing.
        Verdict::Hidden if !makes => Err(match kind {
            Kind::Queue | Kind::Claim => Problem::queue_not_found(name),
            Kind::Topic => Problem::topic_not_found(name),
            Kind::Schedule => Problem::schedule_not_found(name),
        }),
        Verdict::Hidden | Verdict::Forbidden => {
            let verb = match access {
                Access::Named(verb) => verb.as_str(),
                _ => "",
            };
            Err(Problem::scope_missing(&format!("{verb}:{name}")))
        }
    }
}
