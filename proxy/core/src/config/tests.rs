//! Each known mistake earns its message, each good file reads back as itself.

#![allow(
    clippy::disallowed_methods,
    reason = "tests read configuration files of the repository"
)]

use std::path::{Path, PathBuf};

use super::tests_support::{fresh, repository, same};
use super::*;

fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = repository().join("tests/config").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "holdpoint.toml", Path::new("/etc/holdpoint"))
}

fn good() -> Vec<(PathBuf, String)> {
    files("ok")
}

#[test]
fn each_mistake_earns_its_message() {
    let bad = files("bad");
    assert!(bad.len() >= 20);
    for (path, text) in bad {
        let Err(problems) = parse(&text) else {
            panic!("{} was accepted", path.display())
        };
        same(&path.with_extension("err"), &format!("{problems}\n"));
    }
}

#[test]
fn no_message_repeats_a_secret() {
    for (path, text) in files("bad") {
        let Err(problems) = parse(&text) else {
            continue;
        };
        let shown = format!("{problems} {problems:?}");
        assert!(!shown.contains("hunter2"), "{}", path.display());
    }
}

#[test]
fn a_good_file_is_read_and_its_effective_form_reads_back_as_itself() {
    for (path, text) in good() {
        let config =
            parse(&text).unwrap_or_else(|problems| panic!("{}\n{problems}", path.display()));
        let effective = config.to_string();
        let again = parse(&effective).unwrap_or_else(|problems| panic!("{problems}\n{effective}"));
        assert_eq!(again, config, "{}", path.display());
    }
}

#[test]
fn an_unknown_key_is_refused_in_every_table() {
    let mut tables = 0;
    for (path, text) in good() {
        // Of the text as written, and of the effective form, which has every table there is.
        let effective = parse(&text).unwrap().to_string();
        for text in [text, effective] {
            let document: toml::Table = text.parse().unwrap();
            let mut count = 0;
            visit(&mut document.clone().into(), &mut Vec::new(), &mut |_| {
                count += 1
            });
            for nth in 0..count {
                let mut mutated: toml::Value = document.clone().into();
                let mut n = 0;
                let mut free = false;
                visit_mut(&mut mutated, &mut Vec::new(), &mut |at, table| {
                    if n == nth {
                        // Tables whose keys are names or settings of somebody else's.
                        free = at.last().is_some_and(|key| {
                            matches!(
                                key.as_str(),
                                "agents"
                                    | "users"
                                    | "target"
                                    | "listener"
                                    | "plugin"
                                    | "integration"
                                    | "settings"
                                    | "slack"
                                    | "teams"
                                    | "email"
                                    | "pagerduty"
                            )
                        });
                        // A choice between tables: a second one is refused, in serde's words.
                        free |= table.contains_key("verify");
                        table.insert("no_such_key".to_owned(), 1.into());
                    }
                    n += 1;
                });
                let text = toml::to_string(&mutated).unwrap();
                let Err(problems) = parse(&text) else {
                    panic!("{}: an unknown key was accepted:\n{text}", path.display())
                };
                if !free {
                    let said = problems.to_string();
                    assert!(said.contains("unknown key `no_such_key`"), "{said}");
                }
                tables += 1;
            }
        }
    }
    assert!(tables > 40, "{tables}");
}

fn visit(value: &mut toml::Value, at: &mut Vec<String>, seen: &mut dyn FnMut(&[String])) {
    visit_mut(value, at, &mut |at, _| seen(at));
}

/// Calls `seen` with each table and its keys' path.
fn visit_mut(
    value: &mut toml::Value,
    at: &mut Vec<String>,
    seen: &mut dyn FnMut(&[String], &mut toml::Table),
) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                at.push(key.clone());
                visit_mut(value, at, seen);
                at.pop();
            }
            seen(at, table);
        }
        toml::Value::Array(array) => {
            for value in array {
                visit_mut(value, at, seen);
            }
        }
        _ => {}
    }
}

#[test]
fn the_examples_are_read() {
    let folder = repository().join("examples/two-nodes");
    for name in ["node-1.toml", "node-2.toml"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let config = parse(&text).unwrap_or_else(|problems| panic!("{name}\n{problems}"));
        assert!(config.store.is_some());
    }
}

#[test]
fn what_is_not_said_has_a_default() {
    let (_, text) = good()
        .into_iter()
        .find(|(path, _)| path.ends_with("minimal.toml"))
        .unwrap();
    let config = parse(&text).unwrap();
    assert_eq!(config.node, "local");
    assert_eq!(config.state, Path::new("/etc/holdpoint/.holdpoint"));
    assert_eq!(config.journal.dir, Path::new("/etc/holdpoint/journal"));
    assert_eq!(config.journal.sync, Sync::Commands);
    let issuer = &config.identity.issuers[0];
    assert_eq!(issuer.algorithms, ["RS256"]);
    assert_eq!(issuer.connect_scope, "holdpoint.connect");
    let target = &config.targets["shop"];
    assert_eq!(target.tls, UpstreamTls::Verify { ca: None });
    assert_eq!((target.host.as_str(), target.port), ("db.example", 5432));
}

#[test]
fn the_schema_of_the_configuration_is_fresh() {
    fresh("holdpoint.schema.json", &schema());
}
