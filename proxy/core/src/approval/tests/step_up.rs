//! A recent sign-in and a security key: who would approve without them, and does not.

use super::*;
use crate::decision::Window;
use crate::webauthn::WebauthnError;
use crate::webauthn::testing::Authenticator;

const RULE: &str = "base:delete";

fn with(change: impl FnOnce(&mut Hold)) -> Approval {
    let mut draft = draft(1);
    draft.hold.expires_in = Duration::from_secs(100_000);
    change(&mut draft.hold);
    Approval::open(draft, at(0))
}

fn recent() -> Approval {
    with(|hold| hold.step_up = Some(Duration::from_secs(300)))
}

fn keyed() -> Approval {
    with(|hold| {
        hold.webauthn = true;
        hold.windows = vec![Window::For(Duration::from_secs(600))];
    })
}

fn signed_in(seconds: Option<u64>) -> Vote {
    let mut vote = yes("rita");
    vote.reviewer.auth_time = seconds;
    vote
}

fn wants(why: SignIn) -> Result<VoteOutcome, VoteError> {
    Err(VoteError::StepUp {
        rule: RULE.to_owned(),
        max: "5m".to_owned(),
        why,
    })
}

fn approved() -> Result<VoteOutcome, VoteError> {
    Ok(VoteOutcome::Settled(State::Approved {
        by: vec![identity("rita")],
    }))
}

#[test]
fn an_approval_needs_a_sign_in_within_the_time_of_the_rule() {
    for (auth_time, outcome) in [
        (None, wants(SignIn::Unknown)),
        (Some(0), wants(SignIn::Old(1_000))),
        (Some(699), wants(SignIn::Old(301))),
        (Some(700), approved()),
        (Some(1_000), approved()),
        // An issuer's clock may be a little ahead, a token of tomorrow is none.
        (Some(1_060), approved()),
        (Some(1_061), wants(SignIn::Future)),
        (Some(u64::MAX), wants(SignIn::Future)),
    ] {
        let mut approval = recent();
        let vote = signed_in(auth_time);
        assert_eq!(approval.judge(&vote, at(1_000)), outcome, "{auth_time:?}");
        assert_eq!(approval.vote(vote, at(1_000)), outcome, "{auth_time:?}");
    }
}

#[test]
fn it_is_judged_when_the_vote_comes_not_when_the_page_was_opened() {
    let mut approval = recent();
    let early = signed_in(Some(10));
    assert!(approval.judge(&early, at(310)).is_ok());
    assert_eq!(approval.vote(early, at(311)), wants(SignIn::Old(301)));
    assert_eq!(*approval.state(), State::Pending);
    assert!(approval.votes().is_empty());
}

#[test]
fn a_denial_needs_neither() {
    for mut approval in [recent(), keyed()] {
        let mut no = vote("rita", Verdict::Deny);
        no.reviewer.auth_time = None;
        approval.vote(no, at(1_000)).unwrap();
        assert_eq!(approval.state().word(), "denied");
    }
}

#[test]
fn every_approver_of_every_step_signs_in() {
    let mut approval = with(|hold| {
        hold.step_up = Some(Duration::from_secs(300));
        hold.steps = vec![
            Step::of(vec![Reviewers::Group("dba".to_owned())], 1),
            Step::of(vec![Reviewers::Group("dba".to_owned())], 1),
        ];
    });
    approval.vote(signed_in(Some(900)), at(1_000)).unwrap();
    let mut second = yes("sam");
    assert_eq!(
        approval.vote(second.clone(), at(1_000)),
        wants(SignIn::Unknown)
    );
    second.reviewer.auth_time = Some(999);
    approval.vote(second, at(1_000)).unwrap();
    assert_eq!(approval.state().word(), "approved");
}

#[test]
fn breaking_the_glass_is_no_way_around_the_sign_in() {
    let mut approval = with(|hold| {
        hold.step_up = Some(Duration::from_secs(300));
        hold.break_glass = vec![Reviewers::Group("dba".to_owned())];
    });
    let glass = |auth_time| BreakGlass {
        approval: ApprovalId::from_random(1),
        digest: Digest::of(b"command"),
        by: signed_in(auth_time).reviewer,
        reason: "down".to_owned(),
        channel: "cli".to_owned(),
        at: 1_000,
    };
    for old in [None, Some(600)] {
        let refused = approval.break_glass(glass(old), at(1_000));
        assert!(matches!(refused, Err(VoteError::StepUp { .. })), "{old:?}");
        assert_eq!(*approval.state(), State::Pending);
    }
    approval.break_glass(glass(Some(990)), at(1_000)).unwrap();
}

#[test]
fn what_was_approved_without_a_sign_in_serves_no_rule_that_wants_one() {
    let plain = with(|_| {});
    let mut strict = Draft::clone(plain.draft());
    strict.hold.step_up = Some(Duration::from_secs(300));
    assert!(!plain.serves(&strict));
    strict.hold.step_up = None;
    strict.hold.webauthn = true;
    assert!(!plain.serves(&strict));
    assert!(recent().serves(recent().draft()) && keyed().serves(keyed().draft()));
}

/// Rita's vote, signed by `key` for what it says.
fn signed(key: &Authenticator, change: impl FnOnce(&mut Vote)) -> Vote {
    let mut vote = yes("rita");
    change(&mut vote);
    vote.assertion = Some(Box::new(key.signs(&vote.challenge("n1"), "n1")));
    vote
}

#[test]
fn an_approval_is_signed_by_the_reviewers_key() {
    let key = Authenticator::new();
    let unsigned = keyed().vote(yes("rita"), at(1));
    assert_eq!(unsigned, Err(VoteError::NotSigned(RULE.to_owned())));
    assert_eq!(keyed().vote(signed(&key, |_| {}), at(1)), approved());
    let hour = Some(Window::For(Duration::from_secs(600)));
    let windowed = signed(&key, |vote| vote.window = hour);
    assert_eq!(keyed().vote(windowed, at(1)), approved());
}

#[test]
fn a_signature_is_of_one_approval_one_decision_and_one_number() {
    let key = Authenticator::new();
    let hour = Some(Window::For(Duration::from_secs(600)));
    let changes: [fn(&mut Vote); 4] = [
        |vote| vote.approval = ApprovalId::from_random(2),
        |vote| vote.digest = Digest::of(b"other"),
        |vote| vote.verdict = Verdict::Deny,
        |vote| vote.window = Some(Window::For(Duration::from_secs(600))),
    ];
    for change in changes {
        // Signed for something else, and put on this vote.
        let mut vote = yes("rita");
        vote.assertion = signed(&key, change).assertion;
        let refused = Err(VoteError::Signature(WebauthnError::Challenge));
        assert_eq!(keyed().vote(vote, at(1)), refused);
    }
    // Signed for once, and sent for an hour; or with another number.
    let mut longer = signed(&key, |_| {});
    longer.window = hour;
    assert!(keyed().vote(longer, at(1)).is_err());
    let mut renumbered = signed(&key, |_| {});
    renumbered.assertion.as_mut().unwrap().nonce = "n2".to_owned();
    assert!(keyed().vote(renumbered, at(1)).is_err());
}

#[test]
fn a_signature_that_nobody_asked_for_has_to_be_good_as_well() {
    let (key, other) = (Authenticator::new(), Authenticator::new());
    let mut vote = signed(&key, |_| {});
    vote.assertion.as_mut().unwrap().credential = other.credential();
    let refused = Err(VoteError::Signature(WebauthnError::Signature));
    assert_eq!(with(|_| {}).vote(vote, at(1)), refused);
}

#[test]
fn parts_of_a_challenge_cannot_be_moved_into_each_other() {
    let digest = Digest::of(b"command");
    let id = ApprovalId::from_random(1);
    let make = |verdict, window, nonce| challenge(&id, &digest, verdict, window, nonce);
    let hour = Some(Window::For(Duration::from_secs(3_600)));
    let all = [
        make(Verdict::Approve, None, "n"),
        make(Verdict::Approve, None, ""),
        make(Verdict::Approve, None, " for 1h"),
        make(Verdict::Approve, hour, ""),
        make(Verdict::Approve, Some(Window::Session), ""),
        make(Verdict::Deny, None, "n"),
    ];
    assert_eq!(BTreeSet::from(all).len(), all.len());
}

/// Journals of years ago are still to be verified: what a key signed stays what it was. The value was
/// computed apart from this code.
#[test]
fn what_a_key_signs_stays_the_same_from_version_to_version() {
    let hour = Some(Window::For(Duration::from_secs(3_600)));
    let id = ApprovalId::from_random(1);
    let made = challenge(&id, &Digest([5; 32]), Verdict::Approve, hour, "n1");
    assert_eq!(
        hex::encode(made),
        "896616798e9e5d5207fb6f141f1815d91e9c1f6d82749b47ec6cfd8448216276"
    );
}
