//! Steps, escalation, justification, windows and broken glass: by hand, and against a
//! plain model that is told everything.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::decision::{Escalation, Window};

fn group(name: &str) -> Reviewers {
    Reviewers::Group(name.to_owned())
}

/// First the dba, and after 20 s the leads; then two of the sre.
fn two_steps() -> Draft {
    let mut draft = draft(1);
    let first = Step {
        escalate: Some(Escalation {
            after: Duration::from_secs(20),
            reviewers: vec![group("leads")],
        }),
        ..Step::of(vec![group("dba")], 1)
    };
    draft.hold.steps = vec![first, Step::of(vec![group("sre")], 2)];
    draft.hold.break_glass = vec![group("chiefs")];
    draft
}

fn opened(draft: Draft) -> Approval {
    Approval::open(draft, at(0)).with_grant_ttl(Duration::from_secs(600))
}

/// Somebody of these groups.
fn of(subject: &str, groups: &[&str], verdict: Verdict) -> Vote {
    let mut vote = vote(subject, verdict);
    vote.reviewer.groups = groups.iter().map(|one| (*one).to_owned()).collect();
    vote
}

fn approves(subject: &str, groups: &[&str]) -> Vote {
    of(subject, groups, Verdict::Approve)
}

fn advanced(step: u32) -> Result<VoteOutcome, VoteError> {
    Ok(VoteOutcome::Advanced { step, of: 2 })
}

#[test]
fn steps_are_asked_in_order_and_each_has_its_own_quorum() {
    let mut approval = opened(two_steps());
    assert_eq!((approval.place(), approval.progress()), ((1, 2), (0, 1)));
    let early = approval.vote(approves("sam", &["sre"]), at(1));
    let of = 2;
    let rule = "base:delete".to_owned();
    assert_eq!(early, Err(VoteError::OtherStep { rule, step: 1, of }));
    assert_eq!(
        approval.vote(approves("rita", &["dba"]), at(2)),
        advanced(2)
    );
    assert_eq!((approval.place(), approval.progress()), ((2, 2), (0, 2)));
    let late = approval.vote(approves("dora", &["dba"]), at(3));
    assert!(matches!(late, Err(VoteError::OtherStep { step: 2, .. })));
    approval.vote(approves("sam", &["sre"]), at(4)).unwrap();
    assert_eq!(*approval.state(), State::Pending);
    let by = ["rita", "sam", "tom"].map(identity).to_vec();
    assert_eq!(
        approval.vote(approves("tom", &["sre"]), at(5)),
        Ok(VoteOutcome::Settled(State::Approved { by }))
    );
    let steps: Vec<u32> = approval.votes().iter().map(|cast| cast.step).collect();
    assert_eq!(steps, [1, 2, 2]);
}

#[test]
fn one_person_approves_one_step_only_under_whichever_name() {
    let mut approval = opened(two_steps());
    let both = ["dba", "sre"];
    approval.vote(approves("rita", &both), at(1)).unwrap();
    let again = approval.vote(approves("rita", &both), at(2));
    assert_eq!(again, Err(VoteError::EarlierStep));
    let mut other_name = approves("rita.admin", &both);
    other_name.reviewer.also = vec![identity("rita")];
    assert_eq!(
        approval.vote(other_name, at(2)),
        Err(VoteError::EarlierStep)
    );
    assert_eq!(approval.progress(), (0, 2));
}

#[test]
fn a_message_that_comes_twice_counts_once_even_over_a_step() {
    let mut approval = opened(two_steps());
    let mut first = approves("rita", &["dba"]);
    first.nonce = Some("m1".to_owned());
    assert_eq!(approval.vote(first.clone(), at(1)), advanced(2));
    assert_eq!(approval.vote(first, at(2)), Ok(VoteOutcome::Repeated));
    assert_eq!(approval.progress(), (0, 2));
}

#[test]
fn a_denial_at_any_step_by_who_may_decide_it_ends_it() {
    for before in [0, 1] {
        let mut approval = opened(two_steps());
        if before == 1 {
            approval.vote(approves("rita", &["dba"]), at(1)).unwrap();
        }
        let wrong_step = if before == 1 { "dba" } else { "sre" };
        let stranger = approval.vote(of("tom", &[wrong_step], Verdict::Deny), at(2));
        assert!(matches!(stranger, Err(VoteError::OtherStep { .. })));
        let right_step = if before == 1 { "sre" } else { "dba" };
        approval
            .vote(of("sam", &[right_step], Verdict::Deny), at(3))
            .unwrap();
        assert_eq!(approval.state().word(), "denied");
    }
}

#[test]
fn who_approved_an_earlier_step_can_still_stop_a_later_one() {
    let mut approval = opened(two_steps());
    let both = ["dba", "sre"];
    approval.vote(approves("rita", &both), at(1)).unwrap();
    approval
        .vote(of("rita", &both, Verdict::Deny), at(2))
        .unwrap();
    assert_eq!(approval.state().word(), "denied");
}

#[test]
fn escalation_widens_who_decides_and_passes_nothing() {
    let mut approval = opened(two_steps());
    assert_eq!(approval.escalates_at(), Some(20 * SECOND));
    assert!(!approval.escalate(at(19)));
    let early = approval.vote(approves("lea", &["leads"]), at(25));
    assert!(early.is_err(), "only once it was escalated");
    assert!(approval.escalate(at(25)));
    assert!(!approval.escalate(at(26)), "once");
    assert_eq!(approval.tick(at(26)), None);
    assert_eq!(*approval.state(), State::Pending);
    assert_eq!(approval.progress(), (0, 1));
    assert_eq!(approval.next_due(), Some(100 * SECOND));
    assert_eq!(
        approval.vote(approves("lea", &["leads"]), at(27)),
        advanced(2)
    );
    assert!(!approval.is_escalated(), "the next step begins anew");
    assert!(
        approval.vote(approves("max", &["leads"]), at(28)).is_err(),
        "the next step was not widened"
    );
}

#[test]
fn a_step_that_is_done_does_not_escalate_and_none_does_after_the_deadline() {
    let mut approval = opened(two_steps());
    approval.vote(approves("rita", &["dba"]), at(1)).unwrap();
    assert_eq!(approval.escalates_at(), None);
    assert!(!approval.escalate(at(50)));

    let mut late = two_steps();
    late.hold.steps[0].escalate.as_mut().unwrap().after = Duration::from_secs(100);
    let mut approval = opened(late);
    assert_eq!(approval.escalates_at(), None);
    assert!(!approval.escalate(at(100)));

    let mut approval = opened(two_steps());
    assert!(!approval.escalate(at(101)), "over");
}

#[test]
fn the_deadline_stays_the_same_over_all_steps() {
    let mut approval = opened(two_steps());
    approval.vote(approves("rita", &["dba"]), at(99)).unwrap();
    assert_eq!(approval.deadline(), Some(100 * SECOND));
    let late = approval.vote(approves("sam", &["sre"]), at(100));
    assert_eq!(late, Err(VoteError::Expired));
    assert_eq!(approval.tick(at(100)), Some(State::Expired));
}

#[test]
fn a_hold_without_steps_is_decided_by_nobody() {
    let mut draft = draft(1);
    draft.hold.steps.clear();
    let mut approval = opened(draft);
    assert!(approval.vote(yes("rita"), at(1)).is_err());
    assert_eq!(approval.tick(at(100)), Some(State::Expired));
}

#[test]
fn who_is_on_call_is_what_was_asked_and_owners_are_nobody_by_name() {
    let mut draft = draft(1);
    draft.hold.steps[0].reviewers = vec![Reviewers::OnCall("sre".to_owned()), Reviewers::Owner];
    let mut stranger = approves("rita", &["sre", "owner", "oncall:sre"]);
    assert!(opened(draft.clone()).vote(stranger.clone(), at(1)).is_err());
    stranger.reviewer.on_call = vec!["other".to_owned()];
    assert!(opened(draft.clone()).vote(stranger.clone(), at(1)).is_err());
    stranger.reviewer.on_call = vec!["sre".to_owned()];
    assert!(opened(draft).vote(stranger, at(1)).is_ok());
}

#[test]
fn nobody_approves_before_the_requester_said_why_and_anyone_may_deny() {
    let mut draft = draft(1);
    draft.hold.justify = true;
    let mut approval = opened(draft.clone());
    let rule = "base:delete".to_owned();
    assert_eq!(
        approval.vote(yes("rita"), at(1)),
        Err(VoteError::NotJustified(rule))
    );
    let agent = identity("agent");
    for other in ["owner", "actor", "rita"] {
        let by = approval.justify(&identity(other), "because", at(1));
        assert_eq!(by, Err(JustifyError::NotYours));
    }
    let empty = approval.justify(&agent, " \n", at(1));
    assert_eq!(empty, Err(JustifyError::Empty));
    let long = approval.justify(&agent, &"x".repeat(MAX_REASON + 1), at(1));
    assert_eq!(long, Err(JustifyError::TooLong(MAX_REASON)));
    approval.justify(&agent, "because", at(2)).unwrap();
    assert_eq!(
        approval.justify(&agent, "or rather", at(3)),
        Err(JustifyError::Already)
    );
    assert_eq!(approval.justification(), Some("because"));
    assert!(approval.vote(yes("rita"), at(4)).is_ok());
    assert_eq!(
        approval.justify(&agent, "later", at(5)),
        Err(JustifyError::Final("approved"))
    );

    let mut approval = opened(draft);
    approval.vote(vote("rita", Verdict::Deny), at(1)).unwrap();
    assert_eq!(approval.state().word(), "denied");
    let unasked = open(1).justify(&agent, "because", at(1));
    assert!(matches!(unasked, Err(JustifyError::NotAsked(_))));
}

fn windowed(quorum: u32) -> Draft {
    let mut draft = draft(quorum);
    draft.hold.windows = vec![
        Window::Session,
        Window::For(Duration::from_secs(600)),
        Window::For(Duration::from_secs(60)),
    ];
    draft
}

fn within(subject: &str, window: &str) -> Vote {
    let mut vote = yes(subject);
    vote.window = Some(window.parse().unwrap());
    vote
}

fn of_session(session: u128, window: &mut OpenWindow, now: Now) -> Result<Clearance, ClaimError> {
    let session = SessionId::from_random(session);
    window.claim(&Digest::of(b"command"), &session, CommandId(7), now)
}

#[test]
fn only_windows_that_the_rule_offers_can_be_opened() {
    let refused = open(1).vote(within("rita", "session"), at(1));
    assert!(matches!(refused, Err(VoteError::NoWindow { .. })));
    let refused = opened(windowed(1)).vote(within("rita", "59s"), at(1));
    assert!(matches!(refused, Err(VoteError::NoWindow { .. })));
    let mut once = opened(windowed(1));
    assert!(once.window(at(0)).is_none(), "nothing is approved yet");
    once.vote(yes("rita"), at(1)).unwrap();
    assert!(once.window(at(1)).is_none());
}

#[test]
fn a_window_is_as_narrow_as_the_narrowest_approval() {
    let reach = |votes: &[&str]| {
        let mut approval = opened(windowed(u32::try_from(votes.len()).unwrap()));
        for (vote, who) in votes.iter().zip(["rita", "sam", "tom"]) {
            let vote = match *vote {
                "once" => yes(who),
                other => within(who, other),
            };
            approval.vote(vote, at(1)).unwrap();
        }
        let window = approval.window(at(1))?;
        Some((window.reach().session.is_some(), window.reach().for_ms))
    };
    assert_eq!(reach(&["session"]), Some((true, None)));
    assert_eq!(reach(&["10m"]), Some((false, Some(600_000))));
    assert_eq!(reach(&["10m", "1m"]), Some((false, Some(60_000))));
    assert_eq!(reach(&["session", "10m"]), Some((true, Some(600_000))));
    assert_eq!(reach(&["10m", "once"]), None);
    assert_eq!(reach(&["once", "session", "1m"]), None);
}

#[test]
fn each_use_of_a_window_is_a_claim_and_time_and_session_end_it() {
    let mut approval = opened(windowed(1));
    approval.vote(within("rita", "1m"), at(10)).unwrap();
    let mut window = approval.window(at(10)).unwrap();
    assert!(of_session(1, &mut window, at(11)).is_ok());
    assert!(of_session(2, &mut window, at(69)).is_ok(), "of any session");
    assert_eq!(window.uses(), 2);
    assert_eq!(of_session(1, &mut window, at(70)), Err(ClaimError::Expired));
    let session = SessionId::from_random(1);
    let other = window.claim(&Digest::of(b"other"), &session, CommandId(8), at(11));
    assert_eq!(other, Err(ClaimError::Digest));

    let mut approval = opened(windowed(1));
    approval.vote(within("rita", "session"), at(10)).unwrap();
    let mut window = approval.window(at(10)).unwrap();
    assert!(of_session(1, &mut window, at(9_999)).is_ok());
    assert_eq!(of_session(2, &mut window, at(11)), Err(ClaimError::Session));
}

#[test]
fn a_window_serves_only_the_same_command_under_the_same_rules_and_no_stricter_hold() {
    let mut approval = opened(windowed(1));
    approval.vote(within("rita", "1m"), at(1)).unwrap();
    let window = approval.window(at(1)).unwrap();
    assert!(window.serves(&windowed(1), at(2)));
    let changed: [fn(&mut Draft); 6] = [
        |draft| draft.digest = Digest::of(b"other"),
        |draft| draft.rule = "base:other".to_owned(),
        |draft| draft.policy = "v2".to_owned(),
        |draft| draft.hold.steps[0].quorum = 2,
        |draft| draft.hold.windows.truncate(1),
        |draft| draft.hold.justify = true,
    ];
    for change in changed {
        let mut other = windowed(1);
        change(&mut other);
        assert!(!window.serves(&other, at(2)), "{other:?}");
    }
    assert!(!window.serves(&windowed(1), at(61)));
}

fn glass(subject: &str, groups: &[&str]) -> BreakGlass {
    BreakGlass {
        approval: ApprovalId::from_random(1),
        digest: Digest::of(b"command"),
        by: approves(subject, groups).reviewer,
        reason: "the shop is down".to_owned(),
        channel: "cli".to_owned(),
        at: 0,
    }
}

#[test]
fn breaking_the_glass_is_for_named_people_with_a_reason() {
    let refuse = |change: fn(&mut BreakGlass), now: u64, why: fn(&VoteError) -> bool| {
        let mut approval = opened(two_steps());
        let mut attempt = glass("cleo", &["chiefs"]);
        change(&mut attempt);
        let error = approval.break_glass(attempt, at(now)).unwrap_err();
        assert!(why(&error), "{error}");
        assert_eq!(*approval.state(), State::Pending);
        assert!(approval.broken().is_none());
    };
    refuse(|g| g.by.agent = true, 1, |e| *e == VoteError::Agent);
    refuse(
        |g| g.by.groups.clear(),
        1,
        |e| matches!(e, VoteError::NoGlass(_)),
    );
    refuse(
        |g| g.by.groups = vec!["dba".to_owned()],
        1,
        |e| matches!(e, VoteError::NoGlass(_)),
    );
    refuse(
        |g| g.reason = " ".to_owned(),
        1,
        |e| *e == VoteError::NoCause,
    );
    refuse(
        |g| g.reason = "x".repeat(MAX_REASON + 1),
        1,
        |e| matches!(e, VoteError::LongReason(_)),
    );
    refuse(
        |g| g.digest = Digest::of(b"other"),
        1,
        |e| *e == VoteError::Digest,
    );
    refuse(|_| {}, 100, |e| *e == VoteError::Expired);
    let none = open(1).break_glass(glass("cleo", &["chiefs"]), at(1));
    assert!(matches!(none, Err(VoteError::NoGlass(_))));
}

#[test]
fn a_broken_glass_lets_it_run_once_and_even_for_who_asked() {
    let mut approval = opened(two_steps());
    approval
        .break_glass(glass("agent", &["chiefs"]), at(1))
        .unwrap();
    assert_eq!(approval.state().word(), "approved");
    assert!(approval.window(at(1)).is_none());
    assert!(claim(&mut approval, at(2)).is_ok());
    assert_eq!(claim(&mut approval, at(3)), Err(ClaimError::Used));
    let late = approval.break_glass(glass("cleo", &["chiefs"]), at(4));
    assert_eq!(late, Err(VoteError::Final("used")));

    let mut denied = opened(two_steps());
    denied
        .vote(of("rita", &["dba"], Verdict::Deny), at(1))
        .unwrap();
    let late = denied.break_glass(glass("cleo", &["chiefs"]), at(2));
    assert_eq!(late, Err(VoteError::Final("denied")), "a no stays a no");
}

#[test]
fn somebody_else_who_could_have_decided_it_reviews_it_afterwards() {
    let (draft, broken) = (two_steps(), glass("cleo", &["chiefs", "dba"]));
    let may = |subject: &str, groups: &[&str]| {
        may_review(&draft, &broken, &approves(subject, groups).reviewer)
    };
    for group in ["dba", "leads", "sre"] {
        assert_eq!(may("sam", &[group]), Ok(()));
    }
    assert_eq!(may("cleo", &["dba"]), Err(VoteError::OwnGlass));
    assert_eq!(may("owner", &["dba"]), Err(VoteError::Own));
    assert!(matches!(
        may("sam", &["chiefs"]),
        Err(VoteError::NotEligible(_))
    ));
    let mut alias = approves("cleo.admin", &["dba"]).reviewer;
    alias.also = vec![identity("cleo")];
    assert_eq!(
        may_review(&draft, &broken, &alias),
        Err(VoteError::OwnGlass)
    );
    let mut agent = approves("bot", &["dba"]).reviewer;
    agent.agent = true;
    assert_eq!(may_review(&draft, &broken, &agent), Err(VoteError::Agent));
}

/// Everything that can happen to an approval with steps.
#[derive(Debug, Clone)]
enum Deed {
    Vote {
        who: usize,
        verdict: Verdict,
        window: usize,
    },
    Glass {
        who: usize,
    },
    Justify {
        who: usize,
    },
    Escalate,
    Tick,
    Pass(u64),
    Claim {
        session: u128,
        right: bool,
    },
    Again {
        session: u128,
        right: bool,
    },
    End(u8),
}

/// Who there is, and where they belong.
const CAST: [(&str, &[&str]); 8] = [
    ("rita", &["dba"]),
    ("sam", &["sre"]),
    ("tom", &["dba", "sre"]),
    ("ute", &["sre", "leads"]),
    ("lea", &["leads"]),
    ("cleo", &["chiefs", "sre"]),
    ("agent", &["dba", "sre", "leads", "chiefs"]),
    ("owner", &["dba", "sre", "leads"]),
];

const WINDOWS: [Option<&str>; 4] = [None, Some("session"), Some("1m"), Some("5m")];

fn deed() -> impl Strategy<Value = Deed> {
    let verdict = prop_oneof![7 => Just(Verdict::Approve), 1 => Just(Verdict::Deny)];
    let session = 1..3u128;
    prop_oneof![
        14 => (0..CAST.len(), verdict, 0..WINDOWS.len())
            .prop_map(|(who, verdict, window)| Deed::Vote { who, verdict, window }),
        1 => (0..CAST.len()).prop_map(|who| Deed::Glass { who }),
        3 => prop_oneof![3 => Just(6), 1 => 0..CAST.len()].prop_map(|who| Deed::Justify { who }),
        3 => Just(Deed::Escalate),
        2 => Just(Deed::Tick),
        4 => (0..15u64).prop_map(Deed::Pass),
        3 => (session.clone(), prop::bool::weighted(0.9))
            .prop_map(|(session, right)| Deed::Claim { session, right }),
        4 => (session, prop::bool::weighted(0.9))
            .prop_map(|(session, right)| Deed::Again { session, right }),
        1 => (0..3u8).prop_map(Deed::End),
    ]
}

/// What the approval should believe, told in sets rather than in order.
#[derive(Default)]
struct Model {
    step: usize,
    since: u64,
    escalated: bool,
    justified: bool,
    broken: bool,
    /// Everyone who approved, and the step.
    yes: BTreeMap<&'static str, usize>,
    once: bool,
    session: bool,
    seconds: Option<u64>,
    approved_at: Option<u64>,
}

impl Model {
    /// Of the steps of `two_steps`.
    fn may(&self, groups: &[&str]) -> bool {
        match self.step {
            0 => groups.contains(&"dba") || (self.escalated && groups.contains(&"leads")),
            _ => groups.contains(&"sre"),
        }
    }

    fn take(&mut self, who: &'static str, window: usize, now: u64) {
        self.yes.insert(who, self.step);
        match WINDOWS[window] {
            None => self.once = true,
            Some("session") => self.session = true,
            Some("1m") => self.seconds = Some(60),
            Some(_) => self.seconds = Some(self.seconds.unwrap_or(300)),
        }
        let have = self.yes.values().filter(|step| **step == self.step).count();
        if have > self.step {
            if self.step == 1 {
                self.approved_at = Some(now);
            } else {
                self.step = 1;
                self.since = now;
                self.escalated = false;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn steps_time_windows_and_glass_leave_no_way_around(
        justify in any::<bool>(),
        deeds in proptest::collection::vec(deed(), 0..60),
    ) {
        let mut draft = two_steps();
        draft.hold.justify = justify;
        draft.hold.windows = WINDOWS[1..].iter().map(|w| w.unwrap().parse().unwrap()).collect();
        let mut approval = opened(draft);
        let mut model = Model::default();
        let (mut seconds, mut claims) = (0, 0);
        let mut window: Option<OpenWindow> = None;
        for deed in deeds {
            let before = approval.state().clone();
            let now = at(seconds);
            match deed {
                Deed::Vote { who, verdict, window: choice } => {
                    let (name, groups) = CAST[who];
                    let mut cast = of(name, groups, verdict);
                    cast.window = WINDOWS[choice].map(|text| text.parse().unwrap());
                    let foretold = approval.judge(&cast, now);
                    let outcome = approval.vote(cast, now);
                    prop_assert_eq!(&foretold, &outcome);
                    let open = before == State::Pending && seconds < 100;
                    let may = open && who < 6 && model.may(groups);
                    let yes = verdict == Verdict::Approve;
                    let fresh = !model.yes.contains_key(name);
                    let earlier = model.yes.get(name).is_some_and(|step| *step < model.step);
                    let counts = may && if yes {
                        fresh && (!justify || model.justified)
                    } else {
                        fresh || earlier
                    };
                    let counted = outcome.is_ok() && outcome != Ok(VoteOutcome::Repeated);
                    prop_assert_eq!(counted, counts, "{:?}", outcome);
                    if counted && yes {
                        model.take(name, choice, seconds);
                        prop_assert_eq!(
                            model.approved_at.is_some(),
                            matches!(outcome, Ok(VoteOutcome::Settled(State::Approved { .. })))
                        );
                        window = approval.window(now);
                    } else if counted {
                        prop_assert_eq!(approval.state().word(), "denied");
                    } else {
                        prop_assert_eq!(&before, approval.state());
                    }
                }
                Deed::Glass { who } => {
                    let (name, groups) = CAST[who];
                    let done = approval.break_glass(glass(name, groups), now).is_ok();
                    let may = before == State::Pending && seconds < 100;
                    prop_assert_eq!(done, may && groups.contains(&"chiefs"));
                    model.broken |= done;
                    prop_assert!(!done || approval.window(now).is_none());
                }
                Deed::Justify { who } => {
                    let done = approval.justify(&identity(CAST[who].0), "so", now).is_ok();
                    let may = before == State::Pending && seconds < 100 && justify;
                    prop_assert_eq!(done, may && CAST[who].0 == "agent" && !model.justified);
                    model.justified |= done;
                }
                Deed::Escalate => {
                    let done = approval.escalate(now);
                    let due = before == State::Pending && model.step == 0 && !model.escalated;
                    prop_assert_eq!(done, due && (20..100).contains(&seconds));
                    model.escalated |= done;
                }
                Deed::Tick => { approval.tick(now); }
                Deed::Pass(by) => seconds += by,
                Deed::Claim { session, right } => {
                    let digest = Digest::of(if right { b"command" } else { b"another" });
                    let session = SessionId::from_random(session);
                    if approval.claim(&digest, &session, CommandId(1), now).is_ok() {
                        claims += 1;
                        prop_assert!(right && before.word() == "approved");
                    }
                }
                Deed::Again { session, right } => {
                    let Some(window) = &mut window else { continue };
                    let digest = Digest::of(if right { b"command" } else { b"another" });
                    let id = SessionId::from_random(session);
                    let done = window.claim(&digest, &id, CommandId(2), now).is_ok();
                    let since = model.approved_at.unwrap();
                    let in_time = model.seconds.is_none_or(|time| seconds < since + time);
                    let here = !model.session || session == 1;
                    prop_assert_eq!(done, right && in_time && here);
                }
                Deed::End(how) => {
                    match how {
                        0 => approval.withdraw(),
                        1 => approval.orphan(),
                        _ => approval.revoke(),
                    };
                }
            }
            if before.is_terminal() {
                prop_assert_eq!(&before, approval.state(), "terminal states never change");
            }
            if matches!(approval.state().word(), "approved" | "used") {
                prop_assert!(model.broken != model.approved_at.is_some());
                let people: BTreeSet<_> = model.yes.keys().collect();
                prop_assert!(model.broken || people.len() == 3);
            }
            prop_assert_eq!(
                window.is_some(),
                model.approved_at.is_some() && !model.once,
                "a window opens where all said so"
            );
            prop_assert!(claims <= 1);
        }
        approval.tick(at(seconds + 10_000));
        prop_assert!(approval.state().is_terminal(), "every approval ends");
    }
}
