//! The rules in `policies/`: their cases, and what holds of them whatever is asked.

#![allow(
    clippy::disallowed_methods,
    reason = "tests read the shipped rules from the repository"
)]

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn policies() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies")
}

#[test]
fn the_shipped_rules_pass_their_cases() {
    let mut ran = 0;
    for entry in std::fs::read_dir(policies().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut cases = CaseFile::parse(&std::fs::read_to_string(&path).unwrap(), &name)
            .unwrap_or_else(|problems| panic!("{problems}"));
        // Texts need a plugin; `holdpoint policy test` has one.
        cases
            .case
            .retain(|case| case.sql.is_none() && case.input.is_empty());
        let files: Vec<_> = cases
            .policies
            .iter()
            .map(|policy| {
                let path = path.parent().unwrap().join(policy);
                let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
                file(&stem, &std::fs::read_to_string(&path).unwrap())
            })
            .collect();
        let policy = Policy::compile(&files, &BTreeMap::new()).unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(policy.warnings(), [""; 0]);
        for result in run_cases(
            &policy,
            &cases,
            &mut |_, _| Err("no plugin here".to_owned()),
        ) {
            assert_eq!(result.failure, None, "{name}: {}", result.name);
            ran += 1;
        }
    }
    assert!(ran >= 25, "{ran}");
}

#[test]
fn the_schema_of_rule_files_is_fresh() {
    crate::config::tests_support::fresh("policy.schema.json", &schema());
}

#[test]
fn the_page_of_rules_is_fresh() {
    crate::config::reference_tests::fresh_page("rules.md", &schema());
}

fn any_operation() -> impl Strategy<Value = String> {
    let words = prop::sample::subsequence(
        vec![
            "class=write",
            "class=ddl",
            "effect=row_lock",
            "effect=exec",
            "fn=now",
            "unknown",
            "housekeeping",
            "object=public.orders:read",
            "object=secrets:write",
            "fact.no_where=true",
        ],
        0..6,
    );
    words.prop_map(|words| words.join(" "))
}

fn strictness(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Allow => 0,
        Outcome::Hold(_) => 1,
        Outcome::Deny { .. } => 2,
    }
}

proptest! {
    /// Neither a further operation nor a further file loosens a decision.
    #[test]
    fn more_is_never_looser(operations in prop::collection::vec(any_operation(), 1..4), more in any_operation()) {
        let shipped = |name: &str| std::fs::read_to_string(policies().join(name)).unwrap();
        let (default, postgres) = (shipped("default.toml"), shipped("postgres.toml"));
        let one = compile(&[&postgres]).unwrap();
        let two = compile(&[&postgres, &default]).unwrap();
        let mut words: Vec<&str> = operations.iter().map(String::as_str).collect();
        let alone = strictness(&decide(&one, &words).outcome);
        // No rule of `default` allows: it cannot speak for what `postgres` refuses.
        prop_assert!(strictness(&decide(&two, &words).outcome) >= alone.min(1));
        words.push(&more);
        prop_assert!(strictness(&decide(&one, &words).outcome) >= alone);
    }

    /// What is not proven is never allowed by the shipped rules.
    #[test]
    fn unknown_is_never_allowed(words in any_operation()) {
        let shipped = std::fs::read_to_string(policies().join("postgres.toml")).unwrap();
        let policy = compile(&[&shipped]).unwrap();
        let words = format!("{words} unknown");
        prop_assert!(decide(&policy, &[&words]).outcome != Outcome::Allow);
    }
}
