//! The import table of `ARCHITECTURE.md` is what the code does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use holdpoint_tests::needs::workspace;

/// Module → what it may import. `everything` stands for all.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let section = text
        .split("## Import table")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let mut table = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let modules = words(cells.next().unwrap());
        let may = match cells.next().unwrap() {
            "everything" => BTreeSet::from(["everything".to_owned()]),
            cell => words(cell).into_iter().collect(),
        };
        for module in modules {
            table.insert(module, may.clone());
        }
    }
    assert!(table.len() > 20, "the table was not found: {table:?}");
    table
}

/// What stands in back quotes.
fn words(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test(&path) {
            found.push(path);
        }
    }
    found
}

/// Tests may look at anything.
fn is_test(path: &Path) -> bool {
    path.iter().any(|part| {
        ["tests", "tests.rs", "testing.rs", "tests_support.rs"]
            .iter()
            .any(|test| part == *test)
    })
}

/// The first module under `root` that a file belongs to.
fn module_of(root: &Path, file: &Path) -> String {
    let first = file
        .strip_prefix(root)
        .unwrap()
        .iter()
        .next()
        .unwrap()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// First path segments after `prefix`, such as `crate::`, outside of comments.
fn imports(text: &str, prefix: &str) -> BTreeSet<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = BTreeSet::new();
    for rest in code.split(prefix).skip(1) {
        match rest.strip_prefix('{') {
            // Top-level names of a group.
            Some(group) => {
                let mut depth = 0;
                let mut name = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            found.insert(std::mem::take(&mut name));
                        }
                        c if depth == 0 => name.push(c),
                        _ => {}
                    }
                }
                found.insert(name);
            }
            None => {
                found.insert(rest.to_owned());
            }
        }
    }
    found
        .iter()
        .map(|path| {
            path.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .filter(|name: &String| !name.is_empty() && name != "self")
        .collect()
}

fn check(root: &str, name: &str, faults: &mut Vec<String>) {
    let root = workspace().join(root);
    let table = table();
    let known: BTreeSet<_> = table
        .keys()
        .filter_map(|key| key.strip_prefix(&format!("{name}::")))
        .collect();
    for file in sources(&root) {
        let module = module_of(&root, &file);
        let Some(may) = table.get(&format!("{name}::{module}")) else {
            continue;
        };
        if may.contains("everything") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for used in imports(&text, "crate::") {
            if used != module && known.contains(used.as_str()) && !may.contains(&used) {
                faults.push(format!(
                    "{}: `{module}` may not import `{used}`",
                    file.display()
                ));
            }
        }
        for (other, short) in [("holdpoint_core::", "core"), ("holdpoint_host::", "host")] {
            if text.contains(other) && name == "holdpoint" && !may.contains(short) {
                faults.push(format!(
                    "{}: `{module}` may not import `{short}`",
                    file.display()
                ));
            }
        }
    }
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let mut faults = Vec::new();
    check("proxy/core/src", "core", &mut faults);
    check("proxy/src", "holdpoint", &mut faults);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_module_is_in_the_table() {
    let table = table();
    for (root, name) in [("proxy/core/src", "core"), ("proxy/src", "holdpoint")] {
        let root = workspace().join(root);
        for file in sources(&root) {
            let module = module_of(&root, &file);
            if ["lib", "main", "testing"].contains(&module.as_str()) {
                continue;
            }
            assert!(
                table.contains_key(&format!("{name}::{module}")),
                "`{name}::{module}` is not in the table"
            );
        }
    }
}

#[test]
fn wasmtime_is_named_in_the_host_alone_and_the_core_stays_pure() {
    for manifest in [
        "proxy/core",
        "proxy",
        "tests",
        "benches",
        "plugin-sdk",
        "plugins/echo",
        "plugins/postgres",
    ] {
        let text = fs::read_to_string(workspace().join(manifest).join("Cargo.toml")).unwrap();
        assert!(!text.contains("wasmtime"), "{manifest} names wasmtime");
    }
    let core = fs::read_to_string(workspace().join("proxy/core/Cargo.toml")).unwrap();
    for heavy in ["tokio", "hyper", "rustls", "pingora", "axum"] {
        assert!(!core.contains(heavy), "the core depends on {heavy}");
    }
    for file in sources(&workspace().join("proxy/core/src")) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for banned in [
            "std::fs",
            "std::net::Tcp",
            "std::net::Udp",
            "SystemTime::now",
            "Instant::now",
            "std::thread",
        ] {
            assert!(!code.contains(banned), "{} uses {banned}", file.display());
        }
    }
}
