//! A sign-in that was too old, and a signature that is not what it says, as somebody might have
//! written them in.

use super::*;
use crate::approval::BreakGlass;
use crate::webauthn::Counter;
use crate::webauthn::testing::Authenticator;

/// The journal of these tests begins at second 0 and is over within one.
const LATE: u64 = 1_000;

fn recent() -> Hold {
    Hold {
        step_up: Some(Duration::from_secs(300)),
        break_glass: vec![Reviewers::Group("dba".into())],
        ..hold(1)
    }
}

fn keyed() -> Hold {
    Hold {
        webauthn: true,
        ..hold(1)
    }
}

fn held_by(hold: &Hold, rest: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    let Entry::Hold(mut draft) = draft(1, 1) else {
        panic!("a draft is a hold");
    };
    Arc::make_mut(&mut draft).hold = hold.clone();
    let mut entries = vec![command(1, Outcome::Hold(hold.clone())), Entry::Hold(draft)];
    entries.extend(rest);
    entries
}

fn done(vote: Entry) -> [Entry; 4] {
    [vote, settled("approved"), forward(1), completed(1)]
}

fn signed_in(at: Option<u64>) -> Vote {
    let mut vote = vote("rita", Verdict::Approve);
    vote.reviewer.auth_time = at;
    vote
}

#[test]
fn an_approval_without_a_recent_sign_in_is_told() {
    let good = held_by(&recent(), done(counted(signed_in(Some(0)))));
    assert_eq!(told(good), Vec::<String>::new());
    says(
        held_by(&recent(), done(counted(signed_in(None)))),
        "approved without a known sign-in",
    );
    says(
        held_by(&recent(), done(counted(signed_in(Some(LATE))))),
        "approved before their sign-in",
    );
    // No rule asks, nothing is told; a denial needs none.
    let free = held_by(&hold(1), done(counted(signed_in(None))));
    assert_eq!(told(free), Vec::<String>::new());
    let mut no = signed_in(None);
    no.verdict = Verdict::Deny;
    let denied = held_by(&recent(), [counted(no), settled("denied")]);
    assert_eq!(told(denied), Vec::<String>::new());
}

#[test]
fn a_sign_in_that_was_too_old_by_the_records_own_clock_is_told() {
    let mut journal = Journal {
        clock: LATE * 1_000_000_000,
        ..Journal::default()
    };
    journal.add(None, start(), b"").add(Some(1), open(), b"");
    for entry in held_by(&recent(), done(counted(signed_in(Some(LATE - 400))))) {
        journal.add(Some(1), entry, b"");
    }
    let report = verify(&journal.stream(), &[journal.checkpoint()]);
    let all: Vec<_> = report.errors.iter().map(|one| &one.message).collect();
    assert!(
        all.iter()
            .any(|one| one.contains("400 s after their sign-in")),
        "{all:?}"
    );
}

#[test]
fn glass_broken_without_a_recent_sign_in_is_told() {
    let glass = |auth_time| Entry::BreakGlass {
        glass: Box::new(BreakGlass {
            approval: approval(),
            digest: digest(1),
            by: signed_in(auth_time).reviewer,
            reason: "down".into(),
            channel: "cli".into(),
            at: 0,
        }),
        refused: None,
    };
    says(
        held_by(&recent(), [glass(None)]),
        "approved without a known sign-in",
    );
    assert_eq!(
        told(held_by(&recent(), [glass(Some(0))])),
        Vec::<String>::new()
    );
}

fn signed(key: &Authenticator, who: &str) -> Vote {
    let mut vote = vote(who, Verdict::Approve);
    vote.assertion = Some(Box::new(key.signs(&vote.challenge("n"), "n")));
    vote
}

fn added(key: &Authenticator, who: &str, counter: u32) -> Entry {
    Entry::KeyAdded {
        by: person(who),
        name: "desk".into(),
        credential: Box::new(key.credential()),
        counter: Counter(counter),
    }
}

fn removed(key: &Authenticator, who: &str) -> Entry {
    Entry::KeyRemoved {
        by: person(who),
        id: key.credential().id,
    }
}

/// Keys, then a command that was approved with `vote`.
fn with_keys(keys: Vec<Entry>, vote: Vote) -> Vec<Entry> {
    let mut entries = keys;
    entries.extend(held_by(&keyed(), done(counted(vote))));
    entries
}

#[test]
fn a_signature_is_checked_from_the_record_alone() {
    let (key, other) = (Authenticator::new(), Authenticator::new());
    let good = with_keys(vec![added(&key, "rita", 0)], signed(&key, "rita"));
    assert_eq!(told(good), Vec::<String>::new());
    // Registered elsewhere: known by its votes.
    let elsewhere = with_keys(vec![], signed(&key, "rita"));
    assert_eq!(told(elsewhere), Vec::<String>::new());
    says(
        with_keys(vec![], vote("rita", Verdict::Approve)),
        "approved without a signature",
    );
    let mut edited = signed(&key, "rita");
    edited.assertion.as_mut().unwrap().nonce = "m".into();
    says(with_keys(vec![], edited), "not signed as it says");
    let mut swapped = signed(&other, "rita");
    swapped.assertion.as_mut().unwrap().credential = key.credential();
    says(with_keys(vec![], swapped), "not signed as it says");
}

#[test]
fn a_signature_with_somebody_elses_or_a_removed_key_is_told() {
    let key = Authenticator::new();
    let theirs = "a security key that is not theirs";
    says(
        with_keys(vec![added(&key, "sam", 0)], signed(&key, "rita")),
        theirs,
    );
    says(
        with_keys(
            vec![added(&key, "rita", 0), removed(&key, "rita")],
            signed(&key, "rita"),
        ),
        theirs,
    );
    says(
        vec![added(&key, "rita", 0), removed(&key, "sam")],
        "whose it is not",
    );
    says(
        vec![added(&key, "rita", 0), added(&key, "sam", 0)],
        "was registered before",
    );
}

#[test]
fn a_counter_that_went_back_is_told() {
    let key = Authenticator::new();
    says(
        with_keys(vec![added(&key, "rita", 1)], signed(&key, "rita")),
        "went back",
    );
}
