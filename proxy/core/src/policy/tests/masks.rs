//! `[[mask]]` tables: what the plugin is told, and what its answers lead to.

use super::*;

const ALLOW: &str = "[[rule]]\nname = \"all\"\nallow = true\ndanger_allow_unknown = true\n";
const MASK: &str = "[[mask]]\nname = \"numbers\"\ncolumns = [\"public.customers.ssn\", \"pin\"]\n";

fn rules(more: &str) -> Policy {
    compile(&[&format!("{ALLOW}{MASK}{more}")]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// An operation with the plugin's answer, given under these rules.
fn answered(policy: &Policy, answer: &str) -> String {
    let mark = policy.protected("shop").mark();
    format!("object=customers:read fact.protected={answer} fact.protected_set={mark}")
}

fn outcome(policy: &Policy, operation: &str) -> Outcome {
    decide(policy, &[operation]).outcome
}

#[test]
fn what_is_masked_or_shows_nothing_goes_by_the_rules() {
    let policy = rules("");
    for answer in ["none", "masked"] {
        let decision = decide(&policy, &[&answered(&policy, answer)]);
        assert_eq!(
            (decision.outcome, decision.rule.as_str()),
            (Outcome::Allow, "a:all")
        );
    }
}

#[test]
fn every_other_answer_is_refused_by_the_mask() {
    let policy = rules("");
    let mark = policy.protected("shop").mark();
    for operation in [
        answered(&policy, "used"),
        answered(&policy, "perhaps"),
        answered(&policy, "none") + " fact.protected=used",
        answered(&policy, "none") + " fact.protected_set=other",
        "fact.protected=none".to_owned(),
        format!("fact.protected_set={mark}"),
        "fact.protected=none fact.protected_set=other".to_owned(),
        "housekeeping".to_owned(),
        "unknown".to_owned(),
    ] {
        let decision = decide(&policy, &[&operation]);
        assert!(
            matches!(decision.outcome, Outcome::Deny { message: Some(_) }),
            "{operation}"
        );
        assert_eq!(decision.rule, "a:numbers", "{operation}");
    }
    let one = answered(&policy, "none");
    assert!(matches!(
        decide(&policy, &[&one, "class=read"]).outcome,
        Outcome::Deny { .. }
    ));
}

#[test]
fn a_mask_may_hold_and_never_loosens() {
    let policy = rules("hold = { reviewers = [\"group:dba\"] }\n");
    assert!(matches!(
        outcome(&policy, &answered(&policy, "used")),
        Outcome::Hold(_)
    ));
    let deny = format!("[[rule]]\nname = \"none\"\ndeny = \"no\"\n{MASK}");
    let policy = compile(&[&deny]).unwrap();
    let masked = answered(&policy, "masked");
    assert!(matches!(outcome(&policy, &masked), Outcome::Deny { .. }));
    assert_eq!(decide(&policy, &[&masked]).rule, "a:none");
}

#[test]
fn a_mask_counts_in_monitor_mode_and_only_at_its_targets() {
    let policy = compile(&[ALLOW, &format!("mode = \"monitor\"\n{MASK}")]).unwrap();
    assert!(matches!(
        outcome(&policy, "class=read"),
        Outcome::Deny { .. }
    ));
    let policy = rules("targets = [\"other*\"]\n");
    assert_eq!(outcome(&policy, "class=read"), Outcome::Allow);
    assert!(policy.protected("shop").is_empty() && policy.protected("shop").settings().is_empty());
    assert_eq!(
        policy.protected("other-1").columns,
        ["pin", "public.customers.ssn"]
    );
}

#[test]
fn mistakes_in_masks_are_found() {
    for (text, part) in [
        ("columns = []", "an empty list protects nothing"),
        ("columns = [\"a.b.c.d\"]", "no `SCHEMA.TABLE.COLUMN`"),
        ("columns = [\"a..c\"]", "no `SCHEMA.TABLE.COLUMN`"),
        ("columns = [\"a\\nb\"]", "no `SCHEMA.TABLE.COLUMN`"),
        (
            "columns = [\"a\"]\ntargets = []",
            "an empty list matches nothing",
        ),
        (
            "columns = [\"a\"]\ndeny = \"x\"\nhold = { reviewers = [\"group:a\"] }",
            "either held or refused",
        ),
        ("columns = [\"a\"]\nallow = true", "allow"),
    ] {
        let text = format!("{ALLOW}[[mask]]\nname = \"m\"\n{text}\n");
        let problems = compile(&[&text]).unwrap_err().to_string();
        assert!(problems.contains(part), "{text}\n{problems}");
    }
    let same = format!("{ALLOW}[[mask]]\nname = \"all\"\ncolumns = [\"a\"]\n");
    assert!(
        compile(&[&same])
            .unwrap_err()
            .to_string()
            .contains("two rules `all`")
    );
}
