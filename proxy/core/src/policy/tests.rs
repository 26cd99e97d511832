//! What rules say, and rule files' mistakes.

mod holds;
mod masks;
mod shipped;

use super::*;
use crate::decision::Reviewers;
use crate::principal::{Identity, Kind};

fn issuers() -> BTreeMap<String, String> {
    BTreeMap::from([("okta".to_owned(), "https://okta.example".to_owned())])
}

fn file(name: &str, text: &str) -> RuleFile {
    RuleFile {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn compile(texts: &[&str]) -> Result<Policy, Problems> {
    let names = ["a", "b", "c"];
    let files: Vec<_> = names
        .into_iter()
        .zip(texts)
        .map(|(n, t)| file(n, t))
        .collect();
    Policy::compile(&files, &issuers())
}

/// One operation: words such as `class=read`, `object=public.x:read`,
/// `effect=row_lock`, `fn=now`, `unknown`, `housekeeping`, `fact.kind=select`.
fn operation(words: &str) -> Operation {
    let mut op = Operation {
        class: "read".to_owned(),
        effects: Vec::new(),
        objects: Vec::new(),
        functions: Vec::new(),
        unknown_functions: Vec::new(),
        confidence: Confidence::Proven,
        housekeeping: false,
        facts: Vec::new(),
    };
    for word in words.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("class", class) => op.class = class.to_owned(),
            ("effect", effect) => op.effects.push(effect.to_owned()),
            ("fn", name) => op.functions.push(name.to_owned()),
            ("unknown", _) => op.confidence = Confidence::Unknown,
            ("housekeeping", _) => op.housekeeping = true,
            ("object", text) => {
                let (name, access) = text.split_once(':').unwrap();
                let (schema, name) = name
                    .split_once('.')
                    .map_or((None, name), |(s, n)| (Some(s), n));
                op.objects.push(crate::command::Object {
                    kind: "table".to_owned(),
                    schema: schema.map(str::to_owned),
                    name: name.to_owned(),
                    access: access.to_owned(),
                });
            }
            (fact, value) => {
                let name = fact.strip_prefix("fact.").unwrap();
                op.facts.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    op
}

fn command(operations: &[&str]) -> Command {
    Command {
        operations: operations.iter().map(|words| operation(words)).collect(),
        text: bytes::Bytes::from_static(b"SELECT 1 FROM orders"),
        parameters: Vec::new(),
        secrets: Vec::new(),
        context: Vec::new(),
        in_transaction: false,
        canonical: None,
        reject: None,
        wire: bytes::Bytes::new(),
    }
}

fn principal() -> Principal {
    Principal {
        identity: Identity {
            issuer: "https://okta.example".to_owned(),
            subject: "00u1".to_owned(),
        },
        kind: Kind::Agent,
        label: "ada".to_owned(),
        client_id: None,
        actors: Vec::new(),
        owners: Vec::new(),
        groups: vec!["agents".to_owned()],
        scopes: Vec::new(),
        expires: 0,
        token: String::new(),
        token_id: None,
        auth_time: None,
    }
}

fn decide(policy: &Policy, operations: &[&str]) -> Decision {
    judged(policy, &command(operations))
}

fn judged(policy: &Policy, command: &Command) -> Decision {
    let principal = principal();
    policy.decide(&Ask {
        command,
        principal: &principal,
        target: "shop",
        tags: &["prod".to_owned()],
        owners: None,
        protocol: "postgres",
        classes: &[],
        now: 1_700_000_000,
    })
}

/// `allow by a:x`, and for holds who and how many.
fn said(decision: &Decision) -> String {
    let outcome = match &decision.outcome {
        Outcome::Allow => "allow".to_owned(),
        Outcome::Deny { .. } => "deny".to_owned(),
        Outcome::Hold(hold) => {
            let reviewers: Vec<_> = hold
                .everyone()
                .map(|one| match one {
                    Reviewers::Group(group) => group.clone(),
                    Reviewers::Person { issuer, subject } => format!("{issuer}|{subject}"),
                    Reviewers::Owner => "owner".to_owned(),
                    Reviewers::OnCall(list) => format!("oncall:{list}"),
                })
                .collect();
            format!("hold {} of {}", hold.people(), reviewers.join(","))
        }
    };
    format!("{outcome} by {}", decision.rule)
}

#[track_caller]
fn check(rules: &[&str], operations: &[&str], wanted: &str) {
    let policy = compile(rules).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(said(&decide(&policy, operations)), wanted);
}

fn rule(name: &str, rest: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\n{rest}\n")
}

#[test]
fn the_first_rule_that_matches_decides_for_its_file() {
    let rules =
        rule("x", "match = { classes = [\"read\"] }\nallow = true") + &rule("y", "deny = \"no\"");
    check(&[&rules], &["class=read"], "allow by a:x");
    check(&[&rules], &["class=write"], "deny by a:y");
}

#[test]
fn across_files_and_operations_the_strictest_wins() {
    let allow = rule("x", "allow = true");
    let hold = rule(
        "y",
        "match = { classes = [\"write\"] }\nhold = { reviewers = [\"group:dba\"] }",
    );
    let deny = rule("z", "match = { classes = [\"ddl\"] }\ndeny = \"no\"");
    let all = [allow.as_str(), hold.as_str(), deny.as_str()];
    check(&all, &["class=read"], "allow by a:x");
    check(&all, &["class=read", "class=write"], "hold 1 of dba by b:y");
    check(
        &all,
        &["class=write", "class=ddl", "class=read"],
        "deny by c:z",
    );
}

#[test]
fn what_no_rule_speaks_of_is_refused_and_nothing_at_all_is_allowed() {
    let rules = rule("x", "match = { classes = [\"read\"] }\nallow = true");
    check(&[&rules], &["class=write"], "deny by no-rule");
    check(&[&rules], &["class=read", "class=write"], "deny by no-rule");
    check(&[&rules], &[], "allow by no-operation");
    check(&[""], &["class=read"], "deny by no-rule");
    check(&[], &["class=read"], "deny by no-rule");
}

#[test]
fn two_holds_need_the_larger_quorum_from_reviewers_that_both_name() {
    let one = rule(
        "x",
        "hold = { reviewers = [\"group:dba\", \"group:sec\"], quorum = 2, reason = \"r1\" }",
    );
    let two = rule(
        "y",
        "hold = { reviewers = [\"person:okta|rita\", \"group:sec\"], expires_in = \"5m\", reason = \"r2\" }",
    );
    check(&[&one, &two], &["class=read"], "hold 2 of sec by a:x");
    let policy = compile(&[&one, &two]).unwrap();
    let Outcome::Hold(hold) = decide(&policy, &["class=read"]).outcome else {
        panic!()
    };
    assert_eq!(hold.expires_in.as_secs(), 300);
    assert_eq!(hold.reason.as_deref(), Some("r1; r2"));
}

#[test]
fn two_holds_without_a_common_reviewer_refuse() {
    let one = rule("x", "hold = { reviewers = [\"group:dba\"] }");
    let two = rule("y", "hold = { reviewers = [\"group:sec\"] }");
    check(&[&one, &two], &["class=read"], "deny by conflicting-holds");
}

#[test]
fn a_rule_about_some_objects_allows_nothing_beside_them() {
    let rules = rule(
        "x",
        "match = { objects = [\"public.orders\"], access = [\"read\"] }\nallow = true",
    );
    check(&[&rules], &["object=public.orders:read"], "allow by a:x");
    check(
        &[&rules],
        &["object=public.orders:read object=public.secrets:read"],
        "deny by no-rule",
    );
    check(
        &[&rules],
        &["object=public.orders:write"],
        "deny by no-rule",
    );
    check(&[&rules], &["object=orders:read"], "deny by no-rule");
    check(&[&rules], &[""], "deny by no-rule");
}

#[test]
fn a_rule_about_some_objects_denies_as_soon_as_one_is_touched() {
    let rules = rule(
        "x",
        "match = { objects = [\"*.secrets\", \"audit.*\"] }\ndeny = \"no\"",
    ) + &rule("y", "allow = true");
    check(
        &[&rules],
        &["object=public.orders:read object=public.secrets:read"],
        "deny by a:x",
    );
    check(&[&rules], &["object=secrets:read"], "deny by a:x");
    // An unqualified name may be in any schema.
    check(&[&rules], &["object=anything:read"], "deny by a:x");
    check(&[&rules], &["object=public.orders:read"], "allow by a:y");
}

#[test]
fn effects_and_functions_are_all_listed_to_allow_and_one_is_enough_to_deny() {
    let allow = rule(
        "x",
        "match = { effects = [\"row_lock\"], functions = [\"now\", \"pg_catalog.*\"] }\nallow = true",
    );
    check(&[&allow], &["effect=row_lock fn=now"], "allow by a:x");
    check(&[&allow], &["fn=pg_catalog.lower"], "allow by a:x");
    check(
        &[&allow],
        &["effect=row_lock effect=outbound"],
        "deny by no-rule",
    );
    check(&[&allow], &["fn=now fn=pg_sleep"], "deny by no-rule");
    let deny = rule(
        "x",
        "match = { functions = [\"pg_catalog.pg_sleep\"] }\ndeny = \"no\"",
    ) + &rule("y", "allow = true");
    check(&[&deny], &["fn=now fn=pg_sleep"], "deny by a:x");
    check(&[&deny], &["fn=now"], "allow by a:y");
    let none = rule("x", "match = { effects = [] }\nallow = true");
    check(&[&none], &[""], "allow by a:x");
    check(&[&none], &["effect=row_lock"], "deny by no-rule");
}

/// `EXECUTE s` shows nothing of what it runs.
#[test]
fn a_text_is_also_looked_for_in_what_names_stand_for() {
    let deny = rule("x", "match = { text = \"token\" }\ndeny = \"no\"");
    let policy = compile(&[&(deny + &rule("y", "allow = true"))]).unwrap();
    let named = |policy: &Policy, name: &str| {
        let mut command = command(&["class=read"]);
        command.text = bytes::Bytes::from_static(b"EXECUTE s");
        let shown = "SELECT token FROM secrets".to_owned();
        command.context.push((name.to_owned(), shown));
        said(&judged(policy, &command))
    };
    assert_eq!(named(&policy, "statement s"), "deny by a:x");
    assert_eq!(named(&policy, "cursor c"), "deny by a:x");
    assert_eq!(named(&policy, "search_path"), "allow by a:y");
    // What it stands for is no reason to allow.
    let policy = compile(&[&rule("x", "match = { text = \"token\" }\nallow = true")]).unwrap();
    assert!(named(&policy, "statement s").starts_with("deny"));
}

#[test]
fn what_is_unknown_is_matched_only_by_rules_that_say_so() {
    let reads = rule("reads", "match = { classes = [\"read\"] }\nallow = true");
    let writes = rule(
        "writes",
        "match = { classes = [\"write\"] }\nhold = { reviewers = [\"group:dba\"] }",
    );
    let everyone = rule(
        "all",
        "match = { groups = [\"agents\"] }\nhold = { reviewers = [\"group:sec\"] }",
    );
    let explicit = rule(
        "unknown",
        "match = { confidence = \"unknown\" }\nhold = { reviewers = [\"group:sec\"], quorum = 2 }",
    );
    let any = rule("any", "allow = true");
    check(&[&reads], &["class=read unknown"], "deny by unknown-fact");
    check(&[&any], &["class=read unknown"], "deny by unknown-fact");
    check(
        &[&(writes.clone() + &explicit)],
        &["class=write unknown"],
        "hold 2 of sec by a:unknown",
    );
    check(
        &[&(writes + &everyone)],
        &["class=write unknown"],
        "hold 1 of sec by a:all",
    );
    let danger = rule("x", "danger_allow_unknown = true\nallow = true");
    check(&[&danger], &["class=read unknown"], "allow by a:x");
}

#[test]
fn a_denial_applies_to_what_is_unknown_as_far_as_it_was_reported() {
    let rules = rule("x", "match = { effects = [\"exec\"] }\ndeny = \"no\"")
        + &rule(
            "y",
            "match = { confidence = \"unknown\" }\nhold = { reviewers = [\"group:sec\"] }",
        );
    check(&[&rules], &["unknown effect=exec"], "deny by a:x");
    check(&[&rules], &["unknown"], "hold 1 of sec by a:y");
}

#[test]
fn a_rule_that_needs_an_absent_fact_refuses() {
    let rules = rule(
        "x",
        "when = 'facts.no_where == \"true\"'\nhold = { reviewers = [\"group:dba\"] }",
    ) + &rule("y", "allow = true");
    check(&[&rules], &["fact.no_where=true"], "hold 1 of dba by a:x");
    check(&[&rules], &["fact.no_where=false"], "allow by a:y");
    check(&[&rules], &[""], "deny by unknown-fact");
    let deny =
        rule("x", "when = 'facts.kind == \"select\"'\ndeny = \"no\"") + &rule("y", "allow = true");
    check(&[&deny], &[""], "deny by a:x");
    // The answer does not depend on the fact: nothing is unknown.
    let either = rule(
        "x",
        "when = 'facts.kind == \"select\" || command.class == \"read\"'\nallow = true",
    );
    check(&[&either], &["class=read"], "allow by a:x");
    let asked = rule("x", "when = '!has(facts.kind)'\nallow = true");
    check(&[&asked], &[""], "allow by a:x");
}

#[test]
fn expressions_see_command_principal_target_and_time() {
    for expression in [
        "command.statement_count == 1 && command.classes.all(c, c == \"read\")",
        "command.objects.exists(o, o.name.startsWith(\"ord\") && o.access == \"read\")",
        "command.confidence == \"proven\" && !command.in_transaction",
        "\"agents\" in principal.groups && principal.kind == \"agent\"",
        "principal.subject == \"00u1\" && principal.issuer == \"https://okta.example\"",
        "target.name == \"shop\" && \"prod\" in target.tags && target.protocol == \"postgres\"",
        "now > 1600000000 && int(facts.rows) < 10",
        "facts.kind.matches(\"^sel\") && size(command.effects) == 0",
    ] {
        let rules = rule("x", &format!("when = '{expression}'\nallow = true"));
        check(
            &[&rules],
            &["object=public.orders:read fact.rows=3 fact.kind=select"],
            "allow by a:x",
        );
    }
}

#[test]
fn an_expression_over_too_long_a_list_is_unknown() {
    let rules = rule(
        "x",
        "when = 'command.objects.all(o, o.access == \"read\")'\nallow = true",
    );
    let many = "object=a.b:read ".repeat(300);
    check(&[&rules], &[&many], "deny by unknown-fact");
}

#[test]
fn housekeeping_passes_unless_a_rule_denies_it_and_is_never_held() {
    let hold = rule("x", "hold = { reviewers = [\"group:dba\"] }");
    let deny = rule("x", "match = { classes = [\"session\"] }\ndeny = \"no\"");
    check(
        &[&hold],
        &["class=session housekeeping"],
        "allow by housekeeping",
    );
    check(&[&deny], &["class=session housekeeping"], "deny by a:x");
    check(
        &[&deny],
        &["class=transaction housekeeping"],
        "allow by housekeeping",
    );
    check(
        &[&hold],
        &["housekeeping", "class=read"],
        "hold 1 of dba by a:x",
    );
    // A plugin that cannot tell cannot vouch.
    check(&[&hold], &["housekeeping unknown"], "hold 1 of dba by a:x");
    let absent = rule("x", "when = 'facts.star == \"true\"'\ndeny = \"no\"");
    check(&[&absent], &["housekeeping"], "allow by housekeeping");
}

#[test]
fn a_rule_in_monitor_mode_is_recorded_and_decides_nothing() {
    let rules = rule("x", "mode = \"monitor\"\ndeny = \"no\"") + &rule("y", "allow = true");
    let policy = compile(&[&rules]).unwrap();
    let decision = decide(&policy, &["class=read", "class=write"]);
    assert_eq!(said(&decision), "allow by a:y");
    assert_eq!(decision.monitored.len(), 1);
    assert_eq!(decision.monitored[0].rule, "a:x");
    let whole = format!(
        "mode = \"monitor\"\n{}",
        rule("x", "allow = true") + &rule("y", "deny = \"no\"")
    );
    let policy = compile(&[&whole]).unwrap();
    let decision = decide(&policy, &["class=read"]);
    assert_eq!(said(&decision), "deny by no-rule");
    assert_eq!(decision.monitored.len(), 1);
}

#[test]
fn who_and_where_are_matched() {
    for (fits, matches) in [
        (true, "targets = [\"sh*\"]"),
        (false, "targets = [\"sh\"]"),
        (true, "tags = [\"dev\", \"prod\"]"),
        (false, "tags = [\"dev\"]"),
        (true, "groups = [\"x\", \"agents\"]"),
        (false, "groups = [\"agent\"]"),
        (true, "principals = [\"okta|00u1\"]"),
        (false, "principals = [\"okta|00u2\"]"),
        (true, "kinds = [\"agent\"]"),
        (false, "kinds = [\"person\"]"),
        (true, "protocols = [\"postgres\"]"),
        (false, "protocols = [\"mysql\"]"),
        (true, "text = \"(?i)from ORDERS\""),
        (false, "text = \"^FROM\""),
    ] {
        let rules = rule("x", &format!("match = {{ {matches} }}\nallow = true"));
        let wanted = if fits {
            "allow by a:x"
        } else {
            "deny by no-rule"
        };
        check(&[&rules], &[""], wanted);
    }
}

#[test]
fn reviewers_are_resolved_to_their_issuer() {
    let rules = rule("x", "hold = { reviewers = [\"person:okta|rita\"] }");
    check(
        &[&rules],
        &[""],
        "hold 1 of https://okta.example|rita by a:x",
    );
}

#[test]
fn a_hold_without_reviewers_refuses_and_warns() {
    let rules = rule("x", "hold = { reviewers = [] }");
    check(&[&rules], &[""], "deny by a:x");
    assert_eq!(compile(&[&rules]).unwrap().warnings().len(), 1);
}

#[test]
fn the_version_follows_the_text() {
    let one = compile(&["# a\n"]).unwrap();
    assert_eq!(one.version().len(), 16);
    assert_eq!(one.version(), compile(&["# a\n"]).unwrap().version());
    assert_ne!(one.version(), compile(&["# b\n"]).unwrap().version());
}

#[test]
fn an_explanation_names_what_each_rule_said() {
    let rules = rule("x", "match = { classes = [\"write\"] }\ndeny = \"no\"")
        + &rule("y", "when = 'facts.kind == \"s\"'\nallow = true");
    let policy = compile(&[&rules]).unwrap();
    let (command, principal) = (command(&[""]), principal());
    let explanation = policy.explain(&Ask {
        command: &command,
        principal: &principal,
        target: "shop",
        tags: &[],
        owners: None,
        protocol: "postgres",
        classes: &[],
        now: 0,
    });
    let said: Vec<_> = explanation.operations[0].files[0]
        .rules
        .iter()
        .map(|rule| rule.said.clone())
        .collect();
    assert_eq!(
        said,
        [
            Said::Differs("`classes` has others".to_owned()),
            Said::Unknown("`kind` is not known of this command".to_owned())
        ]
    );
    assert_eq!(explanation.decision.rule, "unknown-fact");
}

/// Each line: what is wrong with a rule, and words of the message it earns.
#[test]
fn mistakes_in_rules_are_found_with_their_place() {
    for (rest, wanted) in [
        ("", "rule `x` has no outcome"),
        (
            "allow = true\ndeny = \"no\"",
            "has two outcomes, `allow` and `deny`",
        ),
        ("allow = false", "`allow` can only be true"),
        ("alow = true", "did you mean `allow`?"),
        ("deny = { mesage = \"x\" }", "did you mean `message`?"),
        (
            "hold = { reviewers = [\"dba\"] }",
            "`dba` is none of `group:NAME`",
        ),
        (
            "hold = { reviewers = [\"person:ping|x\"] }",
            "there is no issuer `ping`; there is `okta`",
        ),
        (
            "hold = { reviewers = [\"group:dba\"], quorum = 0 }",
            "at least one person",
        ),
        (
            "hold = { reviewers = [\"group:dba\"], expires_in = \"10\" }",
            "`10` is no span of time",
        ),
        (
            "match = { clases = [\"read\"] }\nallow = true",
            "did you mean `classes`?",
        ),
        (
            "match = { classes = [] }\nallow = true",
            "an empty list matches nothing",
        ),
        (
            "match = { effects = [] }\ndeny = \"no\"",
            "an empty list matches nothing",
        ),
        (
            "match = { confidence = \"unkown\" }\nallow = true",
            "did you mean `unknown`?",
        ),
        (
            "match = { confidence = \"unknown\" }\nallow = true",
            "what nobody could prove",
        ),
        (
            "danger_allow_unknown = true\ndeny = \"no\"",
            "only a rule that allows",
        ),
        (
            "match = { text = \"(\" }\nallow = true",
            "no regular expression",
        ),
        (
            "match = { principals = [\"rita\"] }\nallow = true",
            "is no `ISSUER|SUBJECT`",
        ),
        (
            "when = 'command.clas == \"x\"'\nallow = true",
            "`command` has no `clas`",
        ),
        (
            "when = 'comand.class == \"x\"'\nallow = true",
            "there is no `comand`",
        ),
        (
            "when = 'facts.star == true'\nallow = true",
            "facts are text: write `facts.star == \"true\"`",
        ),
        (
            "when = 'facts.star && true'\nallow = true",
            "facts are text",
        ),
        (
            "when = 'facts[\"rows\"] > 3'\nallow = true",
            "facts are text",
        ),
        ("when = 'command.'\nallow = true", "no CEL expression"),
        (
            "when = 'sleep(1) == 1'\nallow = true",
            "there is no function `sleep`",
        ),
        (
            "when = 'facts.kind.matches(facts.star)'\nallow = true",
            "must be written out",
        ),
        (
            "when = '[1].all(a, [1].all(b, [1].all(c, true)))'\nallow = true",
            "more than 2 loops",
        ),
    ] {
        let problems = compile(&[&rule("x", rest)])
            .err()
            .unwrap_or_else(|| panic!("accepted: {rest}"));
        let text = problems.to_string();
        assert!(text.contains(wanted), "{rest}:\n{text}");
        assert!(text.contains("--> a.toml:") && text.contains('^'), "{text}");
    }
    let twice = rule("x", "allow = true") + &rule("x", "allow = true");
    assert!(
        compile(&[&twice])
            .unwrap_err()
            .to_string()
            .contains("two rules `x`")
    );
}
