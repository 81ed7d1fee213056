//! `--database-url`.

use std::str::FromStr;

use serde::Serialize;

use crate::store::ConnectOptions;

/// The URL of a Postgres database; its password never shows.
#[derive(Clone)]
pub struct DatabaseUrl {
    url: url::Url,
    options: ConnectOptions,
}

impl DatabaseUrl {
    /// How to connect.
    #[must_use]
    pub fn options(&self) -> ConnectOptions {
        self.options.clone()
    }
}

/// Parses the option; unlike clap's own parsers it does not repeat a value that
/// it refuses.
#[derive(Debug, Clone, Copy)]
pub(super) struct DatabaseUrlParser;

impl clap::builder::TypedValueParser for DatabaseUrlParser {
    type Value = DatabaseUrl;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<DatabaseUrl, clap::Error> {
        let url = value
            .to_str()
            .ok_or_else(|| "not UTF-8".to_owned())
            .and_then(str::parse);
        url.map_err(|error| {
            clap::Error::raw(
                clap::error::ErrorKind::ValueValidation,
                format!("invalid value for '--database-url <URL>': {error}\n"),
            )
            .with_cmd(command)
        })
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Neither error repeats the URL, which holds a password.
        let url = url::Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err("must begin with postgres://".to_owned());
        }
        let options = ConnectOptions::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self { url, options })
    }
}

impl std::fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = self.url.clone();
        if shown.password().is_some() && shown.set_password(Some("hidden")).is_err() {
            return f.write_str("postgres://hidden");
        }
        // A password may also be a query parameter.
        let query: Vec<(String, String)> = shown
            .query_pairs()
            .map(|(name, value)| {
                let value = if name == "password" {
                    "hidden".into()
                } else {
                    value
                };
                (name.into_owned(), value.into_owned())
            })
            .collect();
        if !query.is_empty() {
            shown.query_pairs_mut().clear().extend_pairs(query);
        }
        shown.fmt(f)
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_show() {
        for text in [
            "postgres://me:s3cret@db/x?sslmode=require",
            "postgres://me@db/x?password=s3cret&sslmode=require",
        ] {
            let url: DatabaseUrl = text.parse().expect("a good URL");
            let shown = format!(
                "{url} {url:?} {}",
                serde_json::to_string(&url).expect("text")
            );
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(shown.contains("sslmode=require"), "{shown}");
        }
    }

    #[test]
    fn refused_urls_are_not_repeated() {
        for text in [
            "mysql://me:s3cret@db/x",
            "postgres://me:s3cret@db:port/x",
            "s3cret",
        ] {
            let error = text.parse::<DatabaseUrl>().expect_err("a bad URL");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
