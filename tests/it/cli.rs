//! The command line.

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{Database, Process, eventually, program};

/// The program, without settings from the environment.
fn postrider(args: &[&str]) -> Command {
    let mut command = program();
    command.args(args);
    command
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a run that fails says.
#[track_caller]
fn failure(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{errors}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(!errors.contains("s3cret"), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

/// The effective configuration.
fn config(command: &mut Command) -> Value {
    serde_json::from_str(&stdout(&command.output().unwrap())).unwrap()
}

#[test]
fn the_help_names_each_option_with_its_environment_variable() {
    let help = stdout(&postrider(&["--help"]).output().unwrap());
    for command in ["serve", "migrate", "openapi", "config"] {
        assert!(help.contains(command), "{command}: {help}");
    }
    // Every setting that there is has an option and a variable.
    let config = config(&mut postrider(&["config"]));
    for setting in config.as_object().unwrap().keys() {
        let option = format!("--{}", setting.replace('_', "-"));
        let variable = format!("[env: POSTRIDER_{}", setting.to_uppercase());
        assert!(help.contains(&option), "{option}: {help}");
        assert!(help.contains(&variable), "{variable}: {help}");
    }
    assert!(
        help.contains("127.0.0.1:8080") && help.contains(".postrider"),
        "{help}"
    );
}

#[test]
fn the_version_is_the_packages() {
    let version = stdout(&postrider(&["--version"]).output().unwrap());
    assert_eq!(
        version,
        format!("postrider {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn options_win_over_the_environment_and_that_over_defaults() {
    let defaults = config(&mut postrider(&["config"]));
    assert_eq!(defaults["listen"], "127.0.0.1:8080");
    assert_eq!(defaults["data_dir"], ".postrider");
    assert_eq!(defaults["database_url"], Value::Null);
    assert_eq!(defaults["auth"], "required");

    let mut command = postrider(&["--drain-seconds", "7", "config", "--log", "debug"]);
    command
        .env("POSTRIDER_LISTEN", "0.0.0.0:9999")
        .env("POSTRIDER_DRAIN_SECONDS", "8")
        .env("POSTRIDER_LOG", "error");
    let config = config(&mut command);
    assert_eq!(config["listen"], "0.0.0.0:9999");
    assert_eq!(config["drain_seconds"], 7);
    assert_eq!(config["log"], "debug");
}

#[test]
fn the_configuration_is_printed_without_the_password() {
    for url in [
        "postgres://me:s3cret@db.example:5433/x?sslmode=require",
        "postgres://me@db.example/x?password=s3cret&sslmode=require",
    ] {
        let by_option = postrider(&["config", "--database-url", url]).output();
        let by_variable = postrider(&["config"])
            .env("POSTRIDER_DATABASE_URL", url)
            .output();
        for output in [by_option, by_variable] {
            let text = stdout(&output.unwrap());
            assert!(!text.contains("s3cret"), "{text}");
            let config: Value = serde_json::from_str(&text).unwrap();
            let shown = config["database_url"].as_str().unwrap();
            assert!(
                shown.contains("me") && shown.contains("db.example"),
                "{shown}"
            );
            assert!(shown.contains("sslmode=require"), "{shown}");
        }
    }
    let mut help = postrider(&["--help"]);
    help.env("POSTRIDER_DATABASE_URL", "postgres://me:s3cret@db/x");
    assert!(!stdout(&help.output().unwrap()).contains("s3cret"));
}

#[test]
fn the_allow_list_and_the_key_files_path_are_printed_but_never_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "5ec7e7".repeat(10) + "5ec7").unwrap();
    let mut command = postrider(&["config", "--secret-key-file", file.to_str().unwrap()]);
    command.env("POSTRIDER_WEBHOOK_ALLOW", "127.0.0.0/8,[::1]:8080");
    let printed = stdout(&command.output().unwrap());
    assert!(!printed.contains("5ec7e7"), "{printed}");
    let config: Value = serde_json::from_str(&printed).unwrap();
    let expected = serde_json::json!(["127.0.0.0/8", "[::1]/128:8080"]);
    assert_eq!(config["webhook_allow"], expected);
    assert_eq!(config["secret_key_file"], file.to_str().unwrap());

    let args = [
        "--webhook-allow",
        "10.0.0.0/8",
        "--webhook-allow",
        "fd00::/8:443",
        "config",
    ];
    let config: Value = serde_json::from_str(&stdout(&postrider(&args).output().unwrap())).unwrap();
    let expected = serde_json::json!(["10.0.0.0/8", "[fd00::]/8:443"]);
    assert_eq!(config["webhook_allow"], expected);
}

#[test]
fn the_document_is_printed() {
    let text = stdout(&postrider(&["openapi"]).output().unwrap());
    let printed: Value = serde_json::from_str(&text).unwrap();
    // Not assert_eq: the document fills many screens.
    assert!(printed == serde_json::to_value(postrider::http::document()).unwrap());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(text == committed, "`make openapi` writes it anew");
}

#[test]
fn what_is_wrong_on_the_command_line_is_named() {
    for (args, names) in [
        (&["--lissen", "127.0.0.1:1"][..], "--lissen"),
        (&["serv"], "serv"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--database-connections", "2"], "--database-connections"),
        (&["--partition-messages", "5"], "--partition-messages"),
        (&["--log-format", "xml"], "--log-format"),
        (&["--log-requests", "some"], "--log-requests"),
        (&["--drain-seconds", "soon"], "--drain-seconds"),
        (&["--webhook-allow", "10.0.0.1/8"], "10.0.0.0/8"),
        (&["--webhook-allow", "localhost"], "CIDR:PORT"),
        (&["--max-connections", "0"], "--max-connections"),
        (&["--http2", "perhaps"], "--http2"),
        (
            &["--cors-origin", "https://a.example/"],
            "https://a.example",
        ),
        (&["migrate", "--log", "no=such=filter"], "--log"),
    ] {
        let errors = failure(&postrider(args).output().unwrap());
        assert!(errors.contains(names), "{names}: {errors}");
    }
}

#[test]
fn a_bad_database_url_is_refused_without_showing_its_password() {
    for url in [
        "mysql://me:s3cret@db/x",
        "postgres://me:s3cret@db:port/x",
        "postgres://me:s3cret@db/x?sslmode=sometimes",
        "me:s3cret@db/x",
        "s3cret",
    ] {
        for command in ["config", "migrate", "serve"] {
            let by_option = postrider(&[command, "--database-url", url]).output();
            let by_variable = postrider(&[command])
                .env("POSTRIDER_DATABASE_URL", url)
                .output();
            for output in [by_option, by_variable] {
                let errors = failure(&output.unwrap());
                assert!(errors.contains("--database-url"), "{errors}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_migrated_also_by_several_at_once_and_twice() {
    let database = Database::empty().await;
    let url = database.url();
    let running: Vec<_> = (0..3)
        .map(|_| {
            let mut command = postrider(&["migrate", "--database-url", &url]);
            command
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in running {
        assert_eq!(stdout(&child.wait_with_output().unwrap()), "");
    }
    let again = postrider(&["migrate"])
        .env("POSTRIDER_DATABASE_URL", &url)
        .output();
    let again = again.unwrap();
    assert!(again.status.success(), "{again:?}");
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("the schema is up to date"), "{said}");

    let (queues,): (i64,) = sqlx::query_as("SELECT count(*) FROM postrider.queues")
        .fetch_one(&mut database.connect().await)
        .await
        .unwrap();
    assert_eq!(queues, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_said_so() {
    let database = Database::empty().await;
    let url = database.url().replace(&database.name, "no_such_database");
    let url = url.replace("postgres@", "postgres:s3cret@");
    for command in ["migrate", "serve"] {
        let args = [command, "--listen", "127.0.0.1:0", "--database-url", &url];
        let errors = failure(&postrider(&args).output().unwrap());
        assert!(errors.contains("no_such_database"), "{errors}");
    }
}

/// Serves with these arguments besides, until it has printed what it is expected to:
/// what it printed, and its log.
async fn serve(url: &str, more: &[&str], expected: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let printed = folder.path().join("stdout");
    let file = std::fs::File::create(&printed).unwrap();
    let mut command = postrider(&["serve", "--listen", "127.0.0.1:0", "--database-url", url]);
    command.args(more);
    let process = Process::spawn_into(command, file.into());
    let livez = format!("{}/readyz", process.url);
    let client = crate::support::http_client();
    eventually("it serves", async || {
        client
            .get(&livez)
            .send()
            .await
            .is_ok_and(|a| a.status() == 200)
    })
    .await;
    let read = || std::fs::read_to_string(&printed).unwrap();
    eventually("it has printed", async || read().contains(expected)).await;
    let log = process.stop();
    (read(), log)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_on_a_database_prints_an_admin_key_and_no_other_does() {
    let database = Database::empty().await;
    let url = database.url();
    let (printed, log) = serve(&url, &[], "pr_").await;
    let key = printed.lines().last().unwrap();
    assert!(key.starts_with("pr_") && key.len() == 64, "{printed}");
    assert!(!log.contains(key), "{log}");
    assert!(log.contains("auth: required"), "{log}");
    let (printed, log) = serve(&url, &[], "").await;
    assert_eq!(printed, "");
    assert!(log.contains("auth: required"), "{log}");
    assert!(!log.contains("pr_"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_the_log_says_so_and_none_is_printed() {
    let database = Database::empty().await;
    let (printed, log) = serve(&database.url(), &["--auth", "off"], "").await;
    assert_eq!(printed, "");
    assert!(log.contains("auth: off"), "{log}");
}

#[test]
fn make_run_asks_nobody_for_a_key_unless_it_is_told_where_to_listen_or_whom_to_ask() {
    let run = |args: &str| {
        let mut make = Command::new("make");
        make.args(["-n", "run", args])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        for name in [
            "POSTRIDER_AUTH",
            "POSTRIDER_LISTEN",
            "MAKEFLAGS",
            "MAKELEVEL",
        ] {
            make.env_remove(name);
        }
        let said = stdout(&make.output().unwrap());
        let line = said.lines().find(|line| line.contains("postrider serve"));
        line.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let plain = run("ARGS=");
    assert!(plain.contains("serve --auth off"), "{plain}");
    let other = run("ARGS=--log debug");
    assert!(other.contains("serve --auth off --log debug"), "{other}");
    for args in ["--auth required", "--listen 127.0.0.1:9000"] {
        let line = run(&format!("ARGS={args}"));
        assert!(line.contains(args), "{line}");
        assert!(!line.contains("--auth off"), "{line}");
    }
}
