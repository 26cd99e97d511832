//! Holds with steps, owners, lists, windows and emergencies.

use std::time::Duration;

use super::*;
use crate::decision::Hold;

/// What a rule with this `hold` says at a target with these owners.
fn at(rules: &[&str], owners: Option<&[Reviewers]>) -> Decision {
    let policy = compile(rules).unwrap_or_else(|problems| panic!("{problems}"));
    let command = command(&["class=write"]);
    policy.decide(&Ask {
        command: &command,
        principal: &principal(),
        target: "shop",
        tags: &[],
        owners,
        protocol: "postgres",
        classes: &[],
        now: 0,
    })
}

fn held(decision: &Decision) -> &Hold {
    match &decision.outcome {
        Outcome::Hold(hold) => hold,
        other => panic!("{other:?}"),
    }
}

fn group(name: &str) -> Reviewers {
    Reviewers::Group(name.to_owned())
}

#[test]
fn steps_are_read_in_order_and_the_short_form_is_one_of_them() {
    let long = rule(
        "x",
        "hold = { steps = [{ reviewers = [\"group:dba\"], quorum = 2, escalate = { after = \"5m\", \
         reviewers = [\"oncall:sre\"] } }, { reviewers = [\"owner\"] }], justify = true, \
         windows = [\"session\", \"10m\"], break_glass = [\"group:sre\"], step_up = \"5m\", \
         webauthn = true }",
    );
    let decision = at(&[&long], None);
    let hold = held(&decision);
    assert_eq!(hold.people(), 3);
    assert_eq!(hold.steps[1].reviewers, [Reviewers::Owner]);
    let more = hold.steps[0].escalate.as_ref().unwrap();
    assert_eq!(more.reviewers, [Reviewers::OnCall("sre".to_owned())]);
    assert!(hold.justify && hold.windows.len() == 2);
    assert_eq!(hold.break_glass, [group("sre")]);
    assert_eq!(hold.step_up, Some(Duration::from_secs(300)));
    assert!(hold.webauthn);
    let short = rule(
        "x",
        "hold = { reviewers = [\"group:dba\"], escalate = { after = \"5m\", reviewers = [\"group:x\"] } }",
    );
    assert_eq!(held(&at(&[&short], None)).steps.len(), 1);
}

#[test]
fn owners_stand_in_for_owner_and_without_them_it_is_refused() {
    let rules = rule(
        "x",
        "hold = { reviewers = [\"owner\", \"group:a\"], break_glass = [\"owner\"] }",
    );
    let owners = [group("a"), group("b")];
    let decision = at(&[&rules], Some(&owners));
    assert_eq!(held(&decision).steps[0].reviewers, owners);
    assert_eq!(held(&decision).break_glass, owners);
    let decision = at(&[&rules], Some(&[]));
    assert_eq!(held(&decision).steps[0].reviewers, [group("a")]);
    assert!(held(&decision).break_glass.is_empty());

    let alone = rule("x", "hold = { reviewers = [\"owner\"] }");
    let decision = at(&[&alone], Some(&[]));
    assert_eq!(decision.rule, "a:x");
    let Outcome::Deny {
        message: Some(text),
    } = &decision.outcome
    else {
        panic!("{decision:?}");
    };
    assert!(text.contains("owners of target `shop`"), "{text}");
    let last = rule(
        "x",
        "hold = { steps = [{ reviewers = [\"group:a\"] }, { reviewers = [\"owner\"] }] }",
    );
    assert!(matches!(
        at(&[&last], Some(&[])).outcome,
        Outcome::Deny { .. }
    ));
}

/// The examples, with the comment in their first line that says what they are.
#[test]
fn the_examples_of_the_guides_are_good() {
    assert_eq!(examples("rules.md"), (2, 0));
    let (rules, configs) = examples("approvals.md");
    assert!(rules >= 7 && configs == 2, "{rules} {configs}");
}

/// How many rule files and configurations a page has.
fn examples(page: &str) -> (usize, usize) {
    const BASE: &str = r#"
[[identity.issuer]]
name = "okta"
issuer = "https://okta.example"
audiences = ["x"]
[listener.l]
listen = "127.0.0.1:6432"
target = "billing"
tls = { cert = "c", key = "k" }
[policy]
files = ["p.toml"]
"#;
    const TARGET: &str = "[target.billing]\nprotocol = \"postgres\"\naddress = \"db.example:5432\"\nuser = \"app\"\n";
    let guide = crate::config::tests_support::page(page);
    let (mut rules, mut configs) = (0, 0);
    for block in guide.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        if text.starts_with("# rules.toml") {
            let policy = compile(&[text]).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(policy.warnings(), [""; 0]);
            rules += 1;
        } else {
            let target = match text.contains("[target.billing]") {
                true => "",
                false => TARGET,
            };
            let text = format!("{text}{target}{BASE}");
            let config = crate::config::Config::parse(&text, "guide", std::path::Path::new("/"));
            let config = config.unwrap_or_else(|problems| panic!("{problems}"));
            // What is in force reads back as itself.
            let again = crate::config::Config::parse(
                &config.to_string(),
                "again",
                std::path::Path::new("/"),
            );
            assert_eq!(again.unwrap(), config);
            configs += 1;
        }
    }
    (rules, configs)
}

#[test]
fn it_is_known_which_rules_ask_owners_and_which_lists() {
    let rules = rule(
        "x",
        "match = { targets = [\"sh*\"] }\nhold = { reviewers = [\"owner\"] }",
    ) + &rule(
        "y",
        "hold = { reviewers = [\"oncall:sre\", \"oncall:dba\"] }",
    );
    let policy = compile(&[&rules]).unwrap();
    assert_eq!(policy.asks_owners("shop"), ["a:x"]);
    assert!(policy.asks_owners("crm").is_empty());
    assert_eq!(policy.check_lists(&["sre", "dba", "web"]), Ok(()));
    let said = policy
        .check_lists(&["sre", "dbas"])
        .unwrap_err()
        .to_string();
    for part in [
        "error: there is no `[review.oncall.dba]` in the configuration",
        "(`rule[1].hold.reviewers[1]`)",
        "^^^^^^^^^^^^",
        "did you mean `dbas`?",
    ] {
        assert!(said.contains(part), "no {part} in:\n{said}");
    }
    assert_eq!(said.matches("error:").count(), 1, "{said}");
}

#[test]
fn two_holds_ask_for_all_that_each_of_them_asks() {
    let hold = |text: &str| rule("x", &format!("hold = {{ {text} }}"));
    let decide = |one: &str, two: &str| at(&[&hold(one), &hold(two)], None);
    let groups = |decision: &Decision| {
        let steps = held(decision).steps.iter();
        steps.map(|step| step.reviewers.clone()).collect::<Vec<_>>()
    };
    let steps = "steps = [{ reviewers = [\"group:a\"] }, { reviewers = [\"group:b\"] }]";
    let one = "reviewers = [\"group:c\"]";
    let three = [vec![group("a")], vec![group("b")], vec![group("c")]];
    assert_eq!(groups(&decide(steps, one)), three);
    // What is among the steps already is not asked twice.
    assert_eq!(
        groups(&decide(steps, "reviewers = [\"group:b\"]")),
        three[..2]
    );
    assert_eq!(groups(&decide(steps, steps)), three[..2]);
    // Of one plain step each, the shared reviewers; of none, nobody.
    let shared = decide(
        "reviewers = [\"group:a\", \"group:b\"]",
        "reviewers = [\"group:b\"], quorum = 2",
    );
    assert_eq!(
        (groups(&shared), held(&shared).people()),
        (vec![vec![group("b")]], 2)
    );
    let none = decide("reviewers = [\"group:a\"]", "reviewers = [\"group:b\"]");
    assert_eq!(none.rule, "conflicting-holds");

    let generous = "reviewers = [\"group:a\"], windows = [\"session\", \"10m\"], \
                    break_glass = [\"group:g\", \"group:h\"], step_up = \"10m\"";
    let strict = "reviewers = [\"group:a\"], justify = true, windows = [\"10m\"], \
                  break_glass = [\"group:h\"], step_up = \"5m\", webauthn = true";
    for decision in [decide(generous, strict), decide(strict, generous)] {
        let hold = held(&decision);
        assert!(hold.justify);
        assert_eq!(hold.windows.len(), 1);
        assert_eq!(hold.break_glass, [group("h")]);
        assert_eq!(hold.step_up, Some(Duration::from_secs(300)));
        assert!(hold.webauthn);
    }
    // One that says nothing takes nothing away.
    let some = decide(
        "reviewers = [\"group:a\"]",
        "reviewers = [\"group:a\"], step_up = \"1h\"",
    );
    assert_eq!(held(&some).step_up, Some(Duration::from_secs(3_600)));
}

#[test]
fn mistakes_in_holds_are_found_with_their_place() {
    for (hold, wanted) in [
        ("", "nobody is named who could decide"),
        (
            "reviewers = [\"group:a\"], steps = []",
            "both say who decides",
        ),
        ("steps = []", "1 to 8 steps"),
        (
            "steps = [{ reviewers = [\"group:a\"] }], quorum = 2",
            "belongs into a step",
        ),
        (
            "steps = [{ reviewers = [\"group:a\"], quorum = 0 }]",
            "at least one person",
        ),
        ("steps = [{ quorum = 1 }]", "missing key `reviewers`"),
        (
            "steps = [{ reviewers = [\"dba\"] }]",
            "none of `group:NAME`",
        ),
        ("reviewers = [\"oncall:\"]", "needs the name"),
        ("reviewers = [\"person:x|y\"]", "there is no issuer `x`"),
        (
            "reviewers = [\"group:a\"], escalate = { after = \"0s\", reviewers = [\"group:b\"] }",
            "no time passes",
        ),
        (
            "reviewers = [\"group:a\"], escalate = { after = \"1m\", reviewers = [] }",
            "adds nobody",
        ),
        (
            "reviewers = [\"group:a\"], windows = [\"once\"]",
            "neither `session` nor",
        ),
        (
            "reviewers = [\"group:a\"], windows = [\"0s\"]",
            "neither `session` nor",
        ),
        (
            "reviewers = [\"group:a\"], windows = [\"25h\"]",
            "at most 1d",
        ),
        ("reviewers = [\"group:a\"], break_glass = []", "lets nobody"),
        (
            "reviewers = [\"group:a\"], step_up = \"9s\"",
            "at least 10s",
        ),
        (
            "reviewers = [\"group:a\"], step_up = \"0s\"",
            "at least 10s",
        ),
        (
            "reviewers = [\"group:a\"], justifiy = true",
            "did you mean `justify`?",
        ),
    ] {
        let problems = compile(&[&rule("x", &format!("hold = {{ {hold} }}"))]);
        let said = problems.unwrap_err().to_string();
        assert!(said.contains(wanted), "{hold}: {said}");
    }
}

#[test]
fn what_nobody_could_decide_or_never_comes_is_warned_of() {
    for (hold, wanted) in [
        ("reviewers = []", "names none"),
        (
            "steps = [{ reviewers = [\"group:a\"] }, { reviewers = [] }]",
            "names none",
        ),
        (
            "reviewers = [\"person:okta|a\"], quorum = 2",
            "wants 2 approvals from 1 people",
        ),
        (
            "reviewers = [\"group:a\"], expires_in = \"5m\", \
             escalate = { after = \"5m\", reviewers = [\"group:b\"] }",
            "never does",
        ),
    ] {
        let policy = compile(&[&rule("x", &format!("hold = {{ {hold} }}"))]).unwrap();
        let warnings = policy.warnings().join("\n");
        assert!(warnings.contains(wanted), "{hold}: {warnings}");
    }
    let none = rule("x", "hold = { steps = [{ reviewers = [] }] }");
    assert!(matches!(at(&[&none], None).outcome, Outcome::Deny { .. }));
}
