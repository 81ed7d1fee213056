//! What an API key may do: scopes.

use super::claim::ClaimKey;
use super::error::{Error, quoted};
use super::name::QueueName;

/// What may be done with a queue or a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Put messages in.
    Publish,
    /// Look at messages, take them out, settle them.
    Consume,
    /// Make, change and delete it and what belongs to it.
    Manage,
}

impl Verb {
    /// As scopes are written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
            Self::Manage => "manage",
        }
    }
}

/// One permission of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// `publish:orders.*`: a verb on the names that match.
    Named(Verb, NamePattern),
    /// `monitor`: read metrics and the storage's health.
    Monitor,
    /// `admin`: everything, keys included.
    Admin,
}

/// A name, or the beginning of names with a `*` after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    name: String,
    /// Whether more may follow.
    open: bool,
}

impl NamePattern {
    fn parse(text: &str) -> Option<Self> {
        let (name, open) = match text.strip_suffix('*') {
            Some(name) => (name, true),
            None => (text, false),
        };
        // What could be made into a valid name.
        let valid = if open {
            name.is_empty() || QueueName::parse(&format!("{name}x"), "").is_ok()
        } else {
            QueueName::parse(name, "").is_ok()
        };
        valid.then(|| Self {
            name: name.to_owned(),
            open,
        })
    }

    /// Whether it takes this name.
    #[must_use]
    pub fn takes(&self, name: &QueueName) -> bool {
        self.takes_text(name.as_str())
    }

    fn takes_text(&self, name: &str) -> bool {
        if self.open {
            name.starts_with(&self.name)
        } else {
            name == self.name
        }
    }
}

impl std::fmt::Display for NamePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        f.write_str(if self.open { "*" } else { "" })
    }
}

impl Scope {
    /// Parses `publish:`, `consume:` or `manage:` with a name pattern, `monitor`
    /// or `admin`.
    ///
    /// # Errors
    /// [`Error::Invalid`] at `pointer`.
    pub fn parse(text: &str, pointer: &str) -> Result<Self, Error> {
        let named = |verb, pattern| NamePattern::parse(pattern).map(|p| Self::Named(verb, p));
        let scope = match text.split_once(':') {
            Some(("publish", pattern)) => named(Verb::Publish, pattern),
            Some(("consume", pattern)) => named(Verb::Consume, pattern),
            Some(("manage", pattern)) => named(Verb::Manage, pattern),
            None if text == "monitor" => Some(Self::Monitor),
            None if text == "admin" => Some(Self::Admin),
            _ => None,
        };
        scope.ok_or_else(|| {
            Error::invalid(
                pointer,
                format!(
                    "{} is not a scope: publish:, consume: or manage: and a name, or the beginning \
                     of names and a '*'; monitor; or admin",
                    quoted(text)
                ),
            )
        })
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(verb, pattern) => write!(f, "{}:{pattern}", verb.as_str()),
            Self::Monitor => f.write_str("monitor"),
            Self::Admin => f.write_str("admin"),
        }
    }
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    /// Any key will do.
    Key,
    /// A verb on a name.
    Named(Verb, &'a QueueName),
    /// [`Verb::Consume`] on the name of a claim's key.
    Claim(&'a ClaimKey),
    /// Any verb on a name.
    Seen(&'a QueueName),
    /// [`Scope::Monitor`].
    Monitor,
    /// [`Scope::Admin`].
    Admin,
}

/// What a key's scopes say to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// The scope is missing; that says nothing of what is there.
    Forbidden,
    /// The key does not see the name: for it there is no such thing.
    Hidden,
}

/// All permissions of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(pub Vec<Scope>);

impl Scopes {
    /// Whether a request may be served.
    #[must_use]
    pub fn judge(&self, need: Need<'_>) -> Verdict {
        if self.0.contains(&Scope::Admin) {
            return Verdict::Allowed;
        }
        match need {
            Need::Key => Verdict::Allowed,
            Need::Monitor if self.0.contains(&Scope::Monitor) => Verdict::Allowed,
            Need::Admin | Need::Monitor => Verdict::Forbidden,
            Need::Seen(name) if self.sees(name) => Verdict::Allowed,
            Need::Seen(_) => Verdict::Hidden,
            Need::Named(verb, name) => self.judge_verb(verb, name),
            Need::Claim(key) => self.judge_claim(key),
        }
    }

    fn judge_verb(&self, verb: Verb, name: &QueueName) -> Verdict {
        let mut has_verb = false;
        for scope in &self.0 {
            if let Scope::Named(of, pattern) = scope
                && *of == verb
            {
                if pattern.takes(name) {
                    return Verdict::Allowed;
                }
                has_verb = true;
            }
        }
        if has_verb && !self.sees(name) {
            Verdict::Hidden
        } else {
            Verdict::Forbidden
        }
    }

    /// Whoever asks for a claim makes it, so nothing has to be hidden.
    fn judge_claim(&self, key: &ClaimKey) -> Verdict {
        let takes = |scope: &Scope| match scope {
            Scope::Named(Verb::Consume, pattern) => pattern.takes_text(key.name()),
            _ => false,
        };
        if self.0.iter().any(takes) {
            Verdict::Allowed
        } else {
            Verdict::Forbidden
        }
    }

    /// Whether any scope takes this name.
    #[must_use]
    pub fn sees(&self, name: &QueueName) -> bool {
        self.0.iter().any(|scope| match scope {
            Scope::Named(_, pattern) => pattern.takes(name),
            Scope::Admin => true,
            Scope::Monitor => false,
        })
    }

    /// The patterns of the names that it sees; `None` is all.
    #[must_use]
    pub fn patterns(&self) -> Option<Vec<String>> {
        self.patterns_where(|_| true)
    }

    /// The patterns of the names that it has this verb for; `None` is all.
    #[must_use]
    pub fn patterns_of(&self, verb: Verb) -> Option<Vec<String>> {
        self.patterns_where(|of| of == verb)
    }

    fn patterns_where(&self, is_wanted: impl Fn(Verb) -> bool) -> Option<Vec<String>> {
        if self.0.contains(&Scope::Admin) {
            return None;
        }
        let patterns = self.0.iter().filter_map(|scope| match scope {
            Scope::Named(verb, pattern) if is_wanted(*verb) => Some(pattern.to_string()),
            _ => None,
        });
        Some(patterns.collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts that are scopes, and such as are nearly.
    fn texts() -> impl Strategy<Value = String> {
        let verb = prop::sample::select(vec![
            "publish", "consume", "manage", "monitor", "admin", "Publish", "",
        ]);
        let rest = prop_oneof![
            Just(String::new()),
            ":[A-Za-z0-9_.*-]{0,6}",
            ":[A-Za-z0-9_][A-Za-z0-9_.-]{0,90}\\*?",
            ":.{0,8}",
        ];
        prop_oneof![
            (verb, rest).prop_map(|(verb, rest)| format!("{verb}{rest}")),
            "\\PC{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn a_scope_is_written_as_it_was_read_or_is_none(text in texts()) {
            if let Ok(scope) = Scope::parse(&text, "") {
                prop_assert_eq!(scope.to_string(), text);
            }
        }

        #[test]
        fn a_name_is_a_scope_and_so_is_every_beginning_of_one(
            verb in prop::sample::select(vec!["publish", "consume", "manage"]),
            name in "[A-Za-z0-9_](\\.?[A-Za-z0-9_-]){0,20}", end in 0usize..40,
        ) {
            for pattern in [name.clone(), format!("{}*", &name[..end.min(name.len())])] {
                let text = format!("{verb}:{pattern}");
                prop_assert!(Scope::parse(&text, "").is_ok(), "{}", text);
            }
        }

        // Of few letters, so that they often match.
        #[test]
        fn a_pattern_takes_its_name_or_all_that_begin_with_it(
            begin in "[ab_](\\.?[ab_-]){0,3}", open: bool, name in "[ab_](\\.?[ab_-]){0,5}",
            more in "[ab_-]{0,2}", near: bool,
        ) {
            let text = format!("consume:{begin}{}", if open { "*" } else { "" });
            let Ok(Scope::Named(Verb::Consume, pattern)) = Scope::parse(&text, "") else {
                return Err(TestCaseError::fail(text));
            };
            let name = if near { format!("{begin}{more}") } else { name };
            let takes = if open { name.starts_with(&begin) } else { name == begin };
            let name = QueueName::parse(&name, "").expect("a name");
            prop_assert_eq!(pattern.takes(&name), takes, "{} {}", text, name);
        }
    }

    fn scopes(all: &[&str]) -> Scopes {
        Scopes(
            all.iter()
                .map(|text| Scope::parse(text, "").expect("a scope"))
                .collect(),
        )
    }

    fn name(name: &str) -> QueueName {
        QueueName::parse(name, "").expect("a name")
    }

    #[test]
    fn scopes_are_written_as_they_are_read() {
        for text in [
            "publish:orders",
            "consume:orders.*",
            "manage:*",
            "monitor",
            "admin",
        ] {
            assert_eq!(Scope::parse(text, "").expect(text).to_string(), text);
        }
        for text in [
            "",
            "publish",
            "publish:",
            "publish:*x",
            "publish:a**",
            "publish:.a*",
            "publish:a..*",
            "publish:a/b",
            "admin:*",
            "monitor:x",
            "Publish:a",
            "publish:a b",
        ] {
            assert!(Scope::parse(text, "").is_err(), "{text}");
        }
    }

    #[test]
    fn a_missing_scope_is_forbidden_and_an_unseen_name_hidden() {
        let key = scopes(&["publish:orders.*", "consume:jobs"]);
        let judge = |verb, of: &str| key.judge(Need::Named(verb, &name(of)));
        assert_eq!(judge(Verb::Publish, "orders.eu"), Verdict::Allowed);
        assert_eq!(judge(Verb::Consume, "jobs"), Verdict::Allowed);
        // It knows of the name, so it is told what it lacks.
        assert_eq!(judge(Verb::Publish, "jobs"), Verdict::Forbidden);
        assert_eq!(judge(Verb::Consume, "orders.eu"), Verdict::Forbidden);
        // It lacks the verb for any name, which says nothing of this one.
        assert_eq!(judge(Verb::Manage, "secret"), Verdict::Forbidden);
        assert_eq!(judge(Verb::Publish, "secret"), Verdict::Hidden);
        assert_eq!(judge(Verb::Publish, "orders"), Verdict::Hidden);
        assert_eq!(key.judge(Need::Seen(&name("jobs"))), Verdict::Allowed);
        assert_eq!(key.judge(Need::Seen(&name("secret"))), Verdict::Hidden);
        assert_eq!(key.judge(Need::Key), Verdict::Allowed);
        assert_eq!(key.judge(Need::Monitor), Verdict::Forbidden);
        assert_eq!(key.judge(Need::Admin), Verdict::Forbidden);
    }

    #[test]
    fn a_claim_is_for_who_consumes_the_name_before_its_colon() {
        let key = scopes(&["consume:orders", "consume:jobs.*", "publish:mail"]);
        let judge = |of: &str| key.judge(Need::Claim(&ClaimKey::parse(of, "").expect(of)));
        for claim in ["orders", "orders:42", "orders:a:b", "jobs.eu:1", "jobs.x"] {
            assert_eq!(judge(claim), Verdict::Allowed, "{claim}");
        }
        for claim in [
            "orders2",
            "order",
            ":orders",
            "mail:1",
            "jobs:1",
            "x/orders:1",
        ] {
            assert_eq!(judge(claim), Verdict::Forbidden, "{claim}");
        }
        let any = scopes(&["consume:*"]);
        let odd = ClaimKey::parse("/ :x", "").expect("a key");
        assert_eq!(any.judge(Need::Claim(&odd)), Verdict::Allowed);
    }

    #[test]
    fn an_admin_may_do_everything_and_sees_all() {
        let admin = scopes(&["admin"]);
        for need in [
            Need::Key,
            Need::Monitor,
            Need::Admin,
            Need::Named(Verb::Manage, &name("x")),
        ] {
            assert_eq!(admin.judge(need), Verdict::Allowed);
        }
        assert_eq!(admin.patterns(), None);
        let some = scopes(&["publish:a*", "monitor", "consume:b"]);
        assert_eq!(some.patterns(), Some(vec!["a*".into(), "b".into()]));
    }
}
