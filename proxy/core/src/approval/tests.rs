//! Who counts, what ends an approval, and that it is used once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

mod rules;
mod step_up;

use super::*;
use crate::Now;
use crate::decision::{Reviewers, Step};
use crate::principal::Kind;

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> Now {
    Now {
        wall_ns: seconds * SECOND,
        mono_ns: seconds * SECOND,
    }
}

fn identity(subject: &str) -> Identity {
    Identity {
        issuer: "https://id.example".to_owned(),
        subject: subject.to_owned(),
    }
}

fn draft(quorum: u32) -> Draft {
    Draft {
        id: ApprovalId::from_random(1),
        digest: Digest::of(b"command"),
        session: SessionId::from_random(1),
        command: CommandId(1),
        target: "billing".to_owned(),
        principal: Arc::new(Principal {
            identity: identity("agent"),
            kind: Kind::Agent,
            label: "agent".to_owned(),
            client_id: None,
            actors: vec![identity("actor")],
            owners: vec![identity("owner")],
            groups: Vec::new(),
            scopes: Vec::new(),
            expires: u64::MAX,
            token: String::new(),
            token_id: None,
            auth_time: None,
        }),
        hold: Hold {
            steps: vec![Step::of(
                vec![
                    Reviewers::Group("dba".to_owned()),
                    Reviewers::Person {
                        issuer: "https://id.example".to_owned(),
                        subject: "paula".to_owned(),
                    },
                ],
                quorum,
            )],
            expires_in: Duration::from_secs(100),
            reason: None,
            justify: false,
            windows: Vec::new(),
            break_glass: Vec::new(),
            step_up: None,
            webauthn: false,
        },
        rule: "base:delete".to_owned(),
        policy: "v1".to_owned(),
        shown: Shown {
            text: "DELETE x".into(),
            parameters: Vec::new(),
            context: Vec::new(),
            class: "write".to_owned(),
            effects: Vec::new(),
            objects: Vec::new(),
            proven: true,
            in_transaction: false,
        },
    }
}

fn open(quorum: u32) -> Approval {
    Approval::open(draft(quorum), at(0)).with_grant_ttl(Duration::from_secs(600))
}

fn vote(subject: &str, verdict: Verdict) -> Vote {
    Vote {
        approval: ApprovalId::from_random(1),
        digest: Digest::of(b"command"),
        verdict,
        reason: (verdict == Verdict::Deny).then(|| "no".to_owned()),
        window: None,
        reviewer: Reviewer {
            identity: identity(subject),
            label: subject.to_owned(),
            groups: vec!["dba".to_owned()],
            on_call: Vec::new(),
            agent: false,
            also: Vec::new(),
            auth_time: None,
        },
        channel: "cli".to_owned(),
        nonce: None,
        assertion: None,
    }
}

fn yes(subject: &str) -> Vote {
    vote(subject, Verdict::Approve)
}

/// Checks that a vote does not count and changes nothing.
#[track_caller]
fn refused(vote: Vote, now: Now, error: VoteError) {
    let mut approval = open(1);
    assert_eq!(approval.judge(&vote, now), Err(error.clone()));
    assert_eq!(approval.vote(vote, now), Err(error));
    assert_eq!(*approval.state(), State::Pending);
    assert!(approval.votes().is_empty());
}

fn claim(approval: &mut Approval, now: Now) -> Result<Clearance, ClaimError> {
    approval.claim(
        &Digest::of(b"command"),
        &SessionId::from_random(1),
        CommandId(1),
        now,
    )
}

#[test]
fn whoever_is_behind_the_request_cannot_decide_it() {
    for own in ["agent", "actor", "owner"] {
        refused(yes(own), at(1), VoteError::Own);
        refused(vote(own, Verdict::Deny), at(1), VoteError::Own);
        let mut through = yes("rita");
        through.reviewer.also = vec![identity(own)];
        refused(through, at(1), VoteError::Own);
    }
}

#[test]
fn the_same_name_under_another_issuer_is_somebody_else() {
    let mut approval = open(1);
    let mut other = yes("agent");
    other.reviewer.identity.issuer = "https://other.example".to_owned();
    assert!(approval.vote(other, at(1)).is_ok());
}

#[test]
fn agents_never_review() {
    let mut agent = yes("rita");
    agent.reviewer.agent = true;
    refused(agent, at(1), VoteError::Agent);
}

#[test]
fn only_named_people_and_members_of_named_groups_are_eligible() {
    let mut stranger = yes("rita");
    stranger.reviewer.groups = vec!["dbas".to_owned()];
    refused(
        stranger,
        at(1),
        VoteError::NotEligible("base:delete".to_owned()),
    );
    let mut named = yes("paula");
    named.reviewer.groups.clear();
    assert!(open(1).vote(named.clone(), at(1)).is_ok());
    named.reviewer.identity.issuer = "https://other.example".to_owned();
    refused(
        named,
        at(1),
        VoteError::NotEligible("base:delete".to_owned()),
    );
}

#[test]
fn a_rule_without_reviewers_leaves_nobody_eligible() {
    let mut draft = draft(1);
    draft.hold.steps[0].reviewers.clear();
    let mut approval = Approval::open(draft, at(0));
    assert!(matches!(
        approval.vote(yes("rita"), at(1)),
        Err(VoteError::NotEligible(_))
    ));
}

#[test]
fn a_vote_on_something_else_does_not_count() {
    let mut other = yes("rita");
    other.digest = Digest::of(b"other");
    refused(other, at(1), VoteError::Digest);
    let mut other = yes("rita");
    other.approval = ApprovalId::from_random(2);
    refused(other, at(1), VoteError::Digest);
}

#[test]
fn a_vote_at_the_deadline_is_too_late() {
    assert!(open(1).vote(yes("rita"), at(99)).is_ok());
    refused(yes("rita"), at(100), VoteError::Expired);
}

#[test]
fn a_denial_needs_a_reason_that_is_kept_within_bounds() {
    for reason in [None, Some(" \n".to_owned())] {
        let mut silent = vote("rita", Verdict::Deny);
        silent.reason = reason;
        refused(silent, at(1), VoteError::NoReason);
    }
    let mut long = vote("rita", Verdict::Deny);
    long.reason = Some(format!("x{}", "é".repeat(MAX_REASON)));
    let Ok(VoteOutcome::Settled(State::Denied { reason, .. })) = open(1).vote(long, at(1)) else {
        panic!("a denial ends it");
    };
    assert_eq!(reason.len(), MAX_REASON - 1);
}

#[test]
fn a_person_counts_once_and_keeps_to_the_first_vote() {
    let mut approval = open(2);
    let counted = Ok(VoteOutcome::Counted { have: 1, need: 2 });
    assert_eq!(approval.vote(yes("rita"), at(1)), counted);
    assert_eq!(approval.vote(yes("rita"), at(2)), Ok(VoteOutcome::Repeated));
    let changed = approval.vote(vote("rita", Verdict::Deny), at(3));
    assert_eq!(changed, Err(VoteError::Changed));
    let mut second_name = yes("rita.admin");
    second_name.reviewer.also = vec![identity("rita")];
    assert_eq!(approval.vote(second_name, at(4)), Ok(VoteOutcome::Repeated));
    assert_eq!(approval.progress(), (1, 2));
    let by = vec![identity("rita"), identity("sam")];
    assert_eq!(
        approval.vote(yes("sam"), at(5)),
        Ok(VoteOutcome::Settled(State::Approved { by }))
    );
}

#[test]
fn two_people_who_used_the_same_console_are_two_people() {
    let mut approval = open(2);
    for subject in ["rita", "sam"] {
        let mut vote = yes(subject);
        vote.reviewer.also = vec![identity("console")];
        approval.vote(vote, at(1)).unwrap();
    }
    assert_eq!(approval.state().word(), "approved");
}

#[test]
fn a_quorum_of_nobody_still_needs_somebody() {
    let approval = open(0);
    assert_eq!(*approval.state(), State::Pending);
    assert_eq!(approval.progress(), (0, 1));
}

#[test]
fn the_first_denial_ends_it() {
    let mut approval = open(2);
    approval.vote(yes("rita"), at(1)).unwrap();
    approval.vote(vote("sam", Verdict::Deny), at(2)).unwrap();
    assert_eq!(approval.state().word(), "denied");
    assert_eq!(
        approval.vote(yes("paula"), at(3)),
        Err(VoteError::Final("denied"))
    );
}

#[test]
fn an_approval_is_claimed_once_by_its_own_command_in_time() {
    let mut approval = open(1);
    assert_eq!(
        claim(&mut approval, at(1)),
        Err(ClaimError::NotApproved("pending"))
    );
    approval.vote(yes("rita"), at(90)).unwrap();
    assert_eq!(approval.usable_until_mono_ns(), Some(690 * SECOND));
    let wrong = approval.claim(
        &Digest::of(b"other"),
        &SessionId::from_random(1),
        CommandId(1),
        at(91),
    );
    assert_eq!(wrong, Err(ClaimError::Digest));
    assert_eq!(claim(&mut approval, at(690)), Err(ClaimError::Expired));
    let clearance = claim(&mut approval, at(689)).unwrap();
    let digest = Digest::of(b"command");
    let session = SessionId::from_random(1);
    assert!(clearance.covers(&digest, &session, CommandId(1)));
    assert!(!clearance.covers(&digest, &session, CommandId(2)));
    assert!(!clearance.covers(&digest, &SessionId::from_random(2), CommandId(1)));
    assert_eq!(claim(&mut approval, at(91)), Err(ClaimError::Used));
}

#[test]
fn time_ends_what_nobody_decides_and_what_nobody_uses() {
    let mut approval = open(1);
    assert_eq!(approval.tick(at(99)), None);
    assert_eq!(approval.tick(at(100)), Some(State::Expired));
    assert_eq!(approval.tick(at(101)), None);
    let mut approval = open(1);
    approval.vote(yes("rita"), at(1)).unwrap();
    assert_eq!(approval.tick(at(600)), None);
    assert_eq!(approval.tick(at(601)), Some(State::Expired));
    assert_eq!(approval.deadline(), None);
}

#[test]
fn an_approval_serves_only_the_same_command_under_no_stricter_hold() {
    let approval = open(2);
    assert!(approval.serves(&draft(2)));
    assert!(approval.serves(&draft(1)));
    assert!(!approval.serves(&draft(3)));
    let mut other = draft(2);
    other.rule = "base:other".to_owned();
    assert!(!approval.serves(&other));
    let mut other = draft(2);
    other.digest = Digest::of(b"other");
    assert!(!approval.serves(&other));
    let mut other = draft(2);
    other.hold.steps[0].reviewers.remove(0);
    assert!(!approval.serves(&other));
}

#[derive(Debug, Clone)]
enum Act {
    Vote {
        who: usize,
        verdict: Verdict,
        member: bool,
        agent: bool,
    },
    Tick,
    Pass(u64),
    Withdraw,
    Orphan,
    Revoke,
    Claim(bool),
}

const PEOPLE: [&str; 6] = ["rita", "sam", "tom", "agent", "actor", "owner"];

fn step() -> impl Strategy<Value = Act> {
    let verdict = prop_oneof![4 => Just(Verdict::Approve), 1 => Just(Verdict::Deny)];
    prop_oneof![
        12 => (0..PEOPLE.len(), verdict, prop::bool::weighted(0.8), prop::bool::weighted(0.1))
            .prop_map(|(who, verdict, member, agent)| Act::Vote { who, verdict, member, agent }),
        2 => Just(Act::Tick),
        2 => (0..40u64).prop_map(Act::Pass),
        1 => Just(Act::Withdraw),
        1 => Just(Act::Orphan),
        1 => Just(Act::Revoke),
        4 => any::<bool>().prop_map(Act::Claim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_path_leads_around_the_reviewers(
        quorum in 0..4u32,
        steps in proptest::collection::vec(step(), 0..40),
    ) {
        let mut approval = open(quorum);
        let mut seconds = 0;
        let mut eligible_yes = BTreeSet::new();
        let mut clearances = 0;
        for step in steps {
            let before = approval.state().clone();
            match step {
                Act::Vote { who, verdict, member, agent } => {
                    let mut cast = vote(PEOPLE[who], verdict);
                    cast.reviewer.agent = agent;
                    if !member {
                        cast.reviewer.groups.clear();
                    }
                    let foretold = approval.judge(&cast, at(seconds));
                    let outcome = approval.vote(cast, at(seconds));
                    prop_assert_eq!(&foretold, &outcome, "judging says what voting does");
                    if outcome.is_ok() {
                        prop_assert!(who < 3 && member && !agent && seconds < 100);
                        prop_assert_eq!(&before, &State::Pending);
                        if verdict == Verdict::Approve {
                            eligible_yes.insert(PEOPLE[who]);
                        } else {
                            prop_assert_eq!(approval.state().word(), "denied");
                        }
                    } else {
                        prop_assert_eq!(&before, approval.state());
                    }
                }
                Act::Tick => { approval.tick(at(seconds)); }
                Act::Pass(by) => seconds += by,
                Act::Withdraw => { approval.withdraw(); }
                Act::Orphan => { approval.orphan(); }
                Act::Revoke => { approval.revoke(); }
                Act::Claim(right) => {
                    let digest = Digest::of(if right { b"command" } else { b"another" });
                    let session = SessionId::from_random(1);
                    if approval.claim(&digest, &session, CommandId(1), at(seconds)).is_ok() {
                        clearances += 1;
                        prop_assert!(right);
                        prop_assert_eq!(before.word(), "approved");
                    }
                }
            }
            if before.is_terminal() {
                prop_assert_eq!(&before, approval.state(), "terminal states never change");
            }
            if matches!(approval.state().word(), "approved" | "used") {
                prop_assert!(eligible_yes.len() >= quorum.max(1) as usize);
            }
            prop_assert!(clearances <= 1);
        }
        seconds += 10_000;
        approval.tick(at(seconds));
        prop_assert!(approval.state().is_terminal(), "every approval ends");
    }
}
