//! What the agent is told. The same facts whatever the protocol: whether it was
//! executed, whether a changed command would help, the exact next step, until when.
//!
//! Names the rule, never how the rule is evaluated. What reviewers wrote is
//! escaped onto one line: it reaches an agent, and a terminal.

use crate::Now;
use crate::decision::{Decision, Hold, Outcome};
use crate::denial::{Denial, Kind};
use crate::display::escape_line;
use crate::id::ApprovalId;

const NOT_EXECUTED: &str = "Not executed.";

/// Rules said no. Built-in names stand where no rule did.
pub(super) fn denied(decision: &Decision, target: &str) -> Denial {
    let rule = &decision.rule;
    let denial = match rule.as_str() {
        "no-rule" => Denial::new(
            Kind::Denied,
            "HP-NO-RULE",
            format!("no rule allows this command on target `{target}`"),
        )
        .hint("Ask whoever writes the rules; no retry will pass."),
        "unknown-fact" => Denial::new(
            Kind::Denied,
            "HP-UNKNOWN-FACT",
            format!("it cannot be established what this command does on target `{target}`"),
        )
        .hint("Write the command so that its effect is plain, one statement at a time."),
        "policy-error" => Denial::new(
            Kind::Unavailable,
            "HP-POLICY",
            "the rules could not be evaluated, so this command is refused",
        )
        .hint("Ask an operator: `holdpoint check` shows what is wrong."),
        _ => Denial::new(
            Kind::Denied,
            "HP-DENIED",
            format!("rule `{rule}` denied this command on target `{target}`"),
        )
        .hint("Do something else; no retry will pass, and no rewording is meant to."),
    };
    let message = match &decision.outcome {
        Outcome::Deny { message: Some(own) } => format!("{NOT_EXECUTED} {own}"),
        _ => NOT_EXECUTED.to_owned(),
    };
    denial.detail(message)
}

pub(super) fn rejected(reason: &str) -> Denial {
    Denial::new(
        Kind::Malformed,
        "HP-REJECTED",
        format!(
            "this kind of command is not supported: {}",
            escape_line(reason.as_bytes())
        ),
    )
    .detail(NOT_EXECUTED)
    .hint("No rule can allow it; write it in another way.")
}

pub(super) fn token_expired() -> Denial {
    Denial::new(
        Kind::Unauthenticated,
        "HP-TOKEN-EXPIRED",
        "the token that this session was opened with has expired",
    )
    .detail(NOT_EXECUTED)
    .hint("Connect again with a fresh token.")
}

pub(super) fn pending(
    approval: &ApprovalId,
    decision: &Decision,
    expires_mono_ns: u64,
    in_transaction: bool,
    now: Now,
) -> Denial {
    let rule = &decision.rule;
    let justify = match &decision.outcome {
        Outcome::Hold(hold) if hold.justify => format!(
            " Nobody can approve it before you say why: run `holdpoint approvals justify \
             {approval} \"REASON\"`."
        ),
        _ => String::new(),
    };
    let transaction = if in_transaction {
        " The transaction is over: nobody's locks wait for a review. Begin it again, from its first command."
    } else {
        ""
    };
    Denial::new(
        Kind::Pending,
        "HP-PENDING",
        format!("held for approval {approval} by rule `{rule}`"),
    )
    .detail(format!(
        "{NOT_EXECUTED}{transaction} Do not rephrase it or work around it: a changed command \
         needs a new approval.{justify} The decision is open until {}.",
        until(expires_mono_ns, now)
    ))
    .hint(format!(
        "Run `holdpoint wait {approval}`, then send exactly the same command again: once approved \
         it passes once.\nholdpoint: {{\"id\":\"{approval}\",\"status\":\"pending\",\
         \"retry\":\"same-command\"}}"
    ))
}

pub(super) fn denied_by_reviewer(approval: &ApprovalId, label: &str, reason: &str) -> Denial {
    Denial::new(
        Kind::Denied,
        "HP-DENIED",
        format!(
            "reviewer {} denied this command ({approval}): {}",
            escape_line(label.as_bytes()),
            escape_line(reason.as_bytes())
        ),
    )
    .detail(NOT_EXECUTED)
    .hint("Act on the reason; sending the same command again will not pass.")
}

/// `why` is a clause such as `nobody decided in time`.
pub(super) fn expired(why: &str) -> Denial {
    Denial::new(Kind::Expired, "HP-EXPIRED", why)
        .detail(NOT_EXECUTED)
        .hint("Send it again to ask anew.")
}

pub(super) fn withdrawn() -> Denial {
    Denial::new(
        Kind::Expired,
        "HP-WITHDRAWN",
        "withdrawn by the client before it was decided",
    )
    .detail(NOT_EXECUTED)
}

pub(super) fn revoked() -> Denial {
    Denial::new(
        Kind::Unauthenticated,
        "HP-REVOKED",
        "this identity or session was revoked",
    )
    .detail(NOT_EXECUTED)
    .hint("Ask an operator.")
}

pub(super) fn shutdown() -> Denial {
    Denial::new(Kind::Unavailable, "HP-SHUTDOWN", "the gateway is stopping")
        .detail(NOT_EXECUTED)
        .hint("Connect again and send it again.")
}

/// A use of a window could not be written down.
pub(super) fn journal() -> Denial {
    Denial::new(
        Kind::Unavailable,
        "HP-JOURNAL",
        "the journal cannot be written, so nothing may run",
    )
    .detail(NOT_EXECUTED)
    .hint("Ask an operator: disk space, then permissions.")
}

/// Something in the gateway itself does not hold together; never the client's fault.
pub(super) fn internal() -> Denial {
    Denial::new(
        Kind::Unavailable,
        "HP-POLICY",
        "the approval does not fit this command, so it is refused",
    )
    .detail(NOT_EXECUTED)
    .hint("Send it again to ask anew, and report it to an operator.")
}

/// The first notice of a hold.
pub(super) fn holding(
    approval: &ApprovalId,
    rule: &str,
    hold: &Hold,
    joined: bool,
    expires_mono_ns: u64,
    now: Now,
) -> String {
    let joined = if joined {
        " It was asked before and joins that request."
    } else {
        ""
    };
    let people = match hold.people() {
        0 | 1 => "a reviewer".to_owned(),
        many => format!("{many} reviewers"),
    };
    let people = match hold.steps.len() {
        0 | 1 => people,
        steps => format!("{people} in {steps} steps"),
    };
    let justify = if hold.justify {
        format!(
            " Nobody can approve it before you say why: run `holdpoint approvals justify {approval} \
             \"REASON\"`."
        )
    } else {
        String::new()
    };
    format!(
        "holdpoint: held for approval {approval} by rule `{rule}`: not executed yet, waiting for \
         {people} until {}.{joined}{justify} Keep this connection open, or leave it, run `holdpoint wait \
         {approval}`, and send exactly the same command again. Do not rephrase it: a changed \
         command needs a new approval.",
        until(expires_mono_ns, now)
    )
}

/// The same words each time, so that thousands of sessions which say them every few
/// seconds need no plugin for it.
pub(super) fn still_holding(approval: &ApprovalId, expires_mono_ns: u64, now: Now) -> String {
    format!(
        "holdpoint: still waiting for approval {approval}, open until {}; not executed yet.",
        clock_time(expires_mono_ns, now)
    )
}

/// `14:05:00Z (in 4 min)`. The wall clock is for people; it decides nothing.
fn until(mono_ns: u64, now: Now) -> String {
    let left = mono_ns.saturating_sub(now.mono_ns) / 1_000_000_000;
    let at = clock_time(mono_ns, now);
    let left = if left < 120 {
        format!("{left} s")
    } else {
        format!("{} min", left / 60)
    };
    format!("{at} (in {left})")
}

/// `14:05:00Z`, whenever it is asked while the wall clock runs even.
fn clock_time(mono_ns: u64, now: Now) -> String {
    let left = mono_ns.saturating_sub(now.mono_ns);
    // To the nearest second: the two clocks are not read at the same instant.
    let at = now.wall_ns.saturating_add(left).saturating_add(500_000_000);
    let at = at / 1_000_000_000 % 86_400;
    let (hour, minute, second) = (at / 3600, at / 60 % 60, at % 60);
    format!("{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_utc_and_as_what_is_left() {
        let now = Now {
            wall_ns: 86_390_000_000_000,
            mono_ns: 5_000_000_000,
        };
        assert_eq!(until(35_000_000_000, now), "00:00:20Z (in 30 s)");
        assert_eq!(until(3_605_000_000_000, now), "00:59:50Z (in 60 min)");
        assert_eq!(until(0, now), "23:59:50Z (in 0 s)");
    }

    #[test]
    fn an_agent_is_told_the_command_by_which_it_says_why() {
        use crate::decision::{Reviewers, Step};
        let now = Now {
            wall_ns: 0,
            mono_ns: 0,
        };
        let id = ApprovalId::from_random(0);
        let command = "run `holdpoint approvals justify hp-000000000000 \"REASON\"`";
        for justify in [true, false] {
            let step = Step::of(vec![Reviewers::Group("dba".to_owned())], 1);
            let hold = Hold {
                steps: vec![step.clone(), step],
                expires_in: std::time::Duration::from_secs(60),
                reason: None,
                justify,
                windows: Vec::new(),
                break_glass: Vec::new(),
                step_up: None,
                webauthn: false,
            };
            let notice = holding(&id, "a:x", &hold, false, 60_000_000_000, now);
            assert!(notice.contains("2 reviewers in 2 steps"), "{notice}");
            assert_eq!(notice.contains(command), justify, "{notice}");
            let decision = Decision {
                outcome: Outcome::Hold(hold),
                rule: "a:x".to_owned(),
                policy: String::new(),
                monitored: Vec::new(),
            };
            let denial = pending(&id, &decision, 60_000_000_000, false, now);
            let detail = format!("{denial:?}").replace("\\\"", "\"");
            assert_eq!(detail.contains(command), justify, "{detail}");
        }
    }

    #[test]
    fn a_reviewer_cannot_write_into_the_agents_terminal() {
        let denial = denied_by_reviewer(
            &ApprovalId::from_random(0),
            "a\nb",
            "no\u{1b}[2J\nERROR: none",
        );
        assert_eq!(
            denial.message,
            "reviewer a\\u{a}b denied this command (hp-000000000000): no\\u{1b}[2J\\u{a}ERROR: none"
        );
    }
}
