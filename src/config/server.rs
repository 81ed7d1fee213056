//! What can be set of the HTTP server.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

/// Settings of the HTTP server.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Server {
    /// Serve over TLS with this certificate: PEM, those that vouch for it after
    /// it; read anew on SIGHUP
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_TLS_CERT",
        value_name = "FILE",
        help_heading = "HTTP server"
    )]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key: PEM
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_TLS_KEY",
        value_name = "FILE",
        help_heading = "HTTP server"
    )]
    pub tls_key: Option<PathBuf>,

    /// Speak HTTP/2, too: over TLS to whoever asks for it, in the clear to who
    /// begins with it (h2c by prior knowledge)
    #[arg(
        long, global = true, env = "POSTRIDER_HTTP2", default_value_t = true,
        action = ArgAction::Set, value_name = "BOOL", help_heading = "HTTP server"
    )]
    pub http2: bool,

    /// Connections at the same time; one more is answered with 503
    ///
    /// A receiver that waits is one. Less if the limit of open files is lower;
    /// the log says so.
    #[arg(
        long, global = true, env = "POSTRIDER_MAX_CONNECTIONS", default_value_t = Self::MAX_CONNECTIONS,
        value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        help_heading = "HTTP server"
    )]
    pub max_connections: u32,

    /// Let scripts of web pages of this origin ask, as `https://host[:port]`,
    /// or `*` for any (CORS)
    ///
    /// May be given several times, or with commas between.
    #[arg(
        long,
        global = true,
        env = "POSTRIDER_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = "HTTP server"
    )]
    pub cors_origin: Vec<Origin>,

    /// How long the head of a request may take; tests have less time.
    #[arg(skip = Self::HEAD_TIME)]
    #[serde(skip)]
    pub head_time: Duration,

    /// How long a connection may rest between two requests.
    #[arg(skip = Self::IDLE_TIME)]
    #[serde(skip)]
    pub idle_time: Duration,
}

impl Server {
    const MAX_CONNECTIONS: u32 = 20_000;
    /// Enough for a client on the far side of the world.
    const HEAD_TIME: Duration = Duration::from_secs(10);
    /// Longer than load balancers keep connections by default (60 s), so that
    /// they close them, not we while they send.
    const IDLE_TIME: Duration = Duration::from_secs(75);
}

impl Server {
    /// How many connections there may be, if so many files are needed for other
    /// things.
    #[must_use]
    pub fn connections(&self, reserved: u32) -> u32 {
        let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let room = open_files.saturating_sub(reserved.into()).max(1);
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        if room < self.max_connections {
            tracing::warn!(
                "--max-connections is {room} instead of {}: the limit of open files (ulimit -n) is \
                 {open_files}",
                self.max_connections
            );
        }
        room.min(self.max_connections)
    }

    /// The origins, as they are compared.
    #[must_use]
    pub fn origins(&self) -> Vec<String> {
        self.cors_origin
            .iter()
            .map(|origin| origin.0.clone())
            .collect()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            tls_cert: None,
            tls_key: None,
            http2: true,
            max_connections: Self::MAX_CONNECTIONS,
            cors_origin: Vec::new(),
            head_time: Self::HEAD_TIME,
            idle_time: Self::IDLE_TIME,
        }
    }
}

/// An origin of the web, as browsers send it; or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self(text.to_owned()));
        }
        let url = url::Url::parse(text).map_err(|error| error.to_string())?;
        let origin = url.origin().ascii_serialization();
        if !matches!(url.scheme(), "http" | "https") {
            return Err("must begin with https:// or http://, or be *".to_owned());
        }
        // Browsers send it in lower case and without its scheme's port.
        if origin != text {
            return Err(format!("an origin has no path or the like: {origin}"));
        }
        Ok(Self(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_taken_as_browsers_send_them() {
        for origin in ["https://app.example", "http://localhost:3000", "*"] {
            let parsed: Origin = origin.parse().expect("an origin");
            assert_eq!(parsed.0, origin);
        }
        for (refused, hint) in [
            ("https://app.example/", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("https://App.Example", "https://app.example"),
            ("https://me@app.example", "https://app.example"),
            ("app.example", "URL"),
            ("ftp://app.example", "https://"),
            ("null", "URL"),
            ("", "URL"),
        ] {
            let error = refused.parse::<Origin>().expect_err(refused);
            assert!(error.contains(hint), "{refused}: {error}");
        }
    }
}
