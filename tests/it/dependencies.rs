//! The fewest features of each crate: what is on by default is on because it is named.

/// Those that are taken with their defaults, and why.
const WITH_DEFAULTS: [(&str, &str); 0] = [];

/// The dependencies of a manifest that are taken with their defaults.
fn with_defaults(manifest: &str) -> Vec<&str> {
    let mut is_dependency = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            // `[dev-dependencies]` and `[target.'cfg(unix)'.dependencies]` as well.
            is_dependency = line.ends_with("dependencies]");
            assert!(!line.contains("dependencies."), "one line for each: {line}");
        } else if is_dependency
            && let Some((name, settings)) = line.split_once(" = ")
            && !name.starts_with('#')
            && !settings.contains("default-features = false")
        {
            found.push(name);
        }
    }
    found
}

#[test]
fn no_dependency_has_features_that_nobody_named() {
    let manifest = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    assert!(manifest.contains("\n[dependencies]\n"));
    let reasons = WITH_DEFAULTS.map(|(name, reason)| {
        assert!(!reason.is_empty(), "{name}");
        name
    });
    assert_eq!(with_defaults(manifest), reasons);
}

#[test]
fn a_dependency_with_its_defaults_is_found() {
    for (manifest, expected) in [
        ("[dependencies]\na = \"1\"", vec!["a"]),
        (
            "[dependencies]\na = { version = \"1\", features = [\"x\"] }",
            vec!["a"],
        ),
        (
            "[dev-dependencies]\n# b = 1\na = { version = \"1\", default-features = false }",
            vec![],
        ),
        ("[dependencies]\n[profile.dev]\na = 1", vec![]),
        ("[target.'cfg(unix)'.dependencies]\na = \"1\"\n", vec!["a"]),
    ] {
        assert_eq!(with_defaults(manifest), expected, "{manifest}");
    }
}
