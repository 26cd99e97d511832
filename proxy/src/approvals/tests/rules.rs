//! Steps, escalation, lists of who is on call, justification, windows and broken glass:
//! in the order judged, written, applied, told.

use std::collections::BTreeSet;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::AtomicBool;

use holdpoint_core::approval::{BreakGlass, JustifyError, Reviewer};
use holdpoint_core::decision::{Escalation, Reviewers, Step, Window};

use super::super::testing::{reviewer, vote as cast};
use super::*;
use crate::notify;

fn group(name: &str) -> Reviewers {
    Reviewers::Group(name.to_owned())
}

/// Of the group `dba`, then of `sre`; the first step is widened after 20 s.
fn two_steps(session: u128) -> Draft {
    let mut draft = draft("agent", "DROP TABLE t", session);
    let first = Step {
        escalate: Some(Escalation {
            after: Duration::from_secs(20),
            reviewers: vec![group("leads")],
        }),
        ..Step::of(vec![group("dba")], 1)
    };
    draft.hold.steps = vec![first, Step::of(vec![group("sre")], 1)];
    draft
}

fn of(draft: &Draft, subject: &str, group: &str) -> Vote {
    let mut vote = cast(draft, subject, Verdict::Approve);
    vote.reviewer.groups = vec![group.to_owned()];
    vote
}

async fn votes(desk: &Desk, vote: Vote) -> Result<VoteOutcome, VoteRefused> {
    desk.approvals.vote(vote, desk.hands.now()).await
}

fn why(refused: Result<VoteOutcome, VoteRefused>) -> VoteError {
    match refused {
        Err(VoteRefused::Refused { why, .. }) => why,
        other => panic!("not refused: {other:?}"),
    }
}

async fn claims(desk: &Desk, draft: &Draft, command: u64) -> Result<Clearance, ClaimError> {
    let (id, session) = (&draft.id, &draft.session);
    let command = CommandId(command);
    desk.approvals
        .claim(id, &draft.digest, session, command, desk.hands.now())
        .await
}

fn words(desk: &Desk) -> Vec<String> {
    let word = |entry: Entry| match serde_json::to_value(entry).unwrap() {
        serde_json::Value::String(word) => word,
        serde_json::Value::Object(map) => map.keys().next().cloned().unwrap(),
        other => panic!("{other}"),
    };
    desk.ledger.all().into_iter().map(word).collect()
}

#[tokio::test]
async fn each_step_is_asked_in_its_turn_and_reviewers_are_told() {
    let (notices, mut inbox) = notify::channel();
    let (ledger, hands) = (
        Arc::new(MemoryLedger::default()),
        super::super::testing::Hands::default(),
    );
    let approvals = Approvals::new(config(), ledger.clone(), hands.clock(), Some(notices));
    let desk = Desk {
        approvals,
        ledger,
        hands,
    };
    let draft = two_steps(1);
    let mut waiter = waiting(&desk, &draft).await;
    let early = votes(&desk, of(&draft, "sam", "sre")).await;
    assert!(matches!(why(early), VoteError::OtherStep { step: 1, .. }));
    let first = votes(&desk, of(&draft, "rita", "dba")).await;
    assert_eq!(first, Ok(VoteOutcome::Advanced { step: 2, of: 2 }));
    let view = desk.approvals.get(&draft.id).unwrap();
    assert_eq!(
        (view.step, view.reviewers.as_slice()),
        (2, &["group sre".to_owned()][..])
    );
    let states: Vec<_> = view.steps.iter().map(|step| step.state.as_str()).collect();
    assert_eq!(states, ["done", "current"]);
    votes(&desk, of(&draft, "sam", "sre")).await.unwrap();
    assert_eq!(waiter.settled().await, Settlement::Approved);
    let mut told = Vec::new();
    while let Ok(notice) = inbox.try_recv() {
        told.push(notice.message.word());
    }
    assert_eq!(
        told,
        ["approval.pending", "approval.step", "approval.settled"]
    );
    let steps: Vec<_> = desk
        .approvals
        .get(&draft.id)
        .unwrap()
        .votes
        .iter()
        .map(|v| v.step)
        .collect();
    assert_eq!(steps, [1, 2]);
}

#[tokio::test]
async fn a_step_that_waits_is_put_before_more_people_and_passes_by_nobody() {
    let desk = Desk::new();
    let draft = two_steps(1);
    let _waiter = waiting(&desk, &draft).await;
    desk.hands.pass(Duration::from_secs(19));
    desk.approvals.sweep().await;
    assert!(votes(&desk, of(&draft, "lea", "leads")).await.is_err());
    desk.hands.pass(Duration::from_secs(1));
    desk.ledger.fails.store(true, Ordering::SeqCst);
    desk.approvals.sweep().await;
    desk.ledger.fails.store(false, Ordering::SeqCst);
    assert!(
        votes(&desk, of(&draft, "lea", "leads")).await.is_err(),
        "what the journal did not take did not happen"
    );
    desk.hands.pass(Duration::from_secs(2));
    desk.approvals.sweep().await;
    let view = desk.approvals.get(&draft.id).unwrap();
    assert_eq!((view.state.as_str(), view.approvals), ("pending", 0));
    assert!(
        view.reviewers.contains(&"group leads".to_owned()),
        "{view:?}"
    );
    assert!(
        view.steps[0]
            .escalation
            .as_ref()
            .is_some_and(|more| more.done)
    );
    let vote = votes(&desk, of(&draft, "lea", "leads")).await;
    assert_eq!(vote, Ok(VoteOutcome::Advanced { step: 2, of: 2 }));
    assert_eq!(
        words(&desk)
            .iter()
            .filter(|word| *word == "escalated")
            .count(),
        1
    );
    desk.hands.pass(Duration::from_secs(60));
    desk.approvals.sweep().await;
    assert_eq!(desk.ledger.settled(&draft.id), ["expired"]);
}

/// Says who is on call, or that it cannot.
#[derive(Default)]
struct Rota {
    people: StdMutex<Vec<Identity>>,
    down: AtomicBool,
}

impl Rotas for Rota {
    fn on_call<'a>(&'a self, list: &'a str) -> Later<'a, Result<Vec<Identity>, String>> {
        Box::pin(async move {
            match list {
                "sre" if !self.down.load(Ordering::SeqCst) => {
                    Ok(self.people.lock().unwrap().clone())
                }
                _ => Err("it is down".to_owned()),
            }
        })
    }
}

#[tokio::test]
async fn who_is_on_call_is_asked_for_each_vote_and_never_believed() {
    let desk = Desk::new();
    let rota = Arc::new(Rota::default());
    let mut draft = draft("agent", "DROP TABLE t", 1);
    draft.hold.steps[0] = Step::of(vec![Reviewers::OnCall("sre".to_owned())], 2);
    let _waiter = waiting(&desk, &draft).await;
    let claimed = || {
        let mut vote = of(&draft, "rita", "dba");
        vote.reviewer.on_call = vec!["sre".to_owned()];
        vote
    };
    let unset = why(votes(&desk, claimed()).await).to_string();
    assert!(unset.contains("no such list"), "{unset}");
    desk.approvals.ask_rotas(rota.clone());
    assert!(matches!(
        why(votes(&desk, claimed()).await),
        VoteError::NotEligible(_)
    ));
    rota.down.store(true, Ordering::SeqCst);
    let down = why(votes(&desk, claimed()).await).to_string();
    assert!(down.contains("it is down"), "{down}");
    rota.down.store(false, Ordering::SeqCst);
    rota.people.lock().unwrap().push(identity("rita"));
    assert!(votes(&desk, claimed()).await.is_ok());
    rota.people.lock().unwrap().clear();
    let sam = votes(&desk, of(&draft, "sam", "dba")).await;
    assert!(matches!(why(sam), VoteError::NotEligible(_)));
    let recorded = desk.ledger.all().into_iter().any(|entry| {
        matches!(entry, Entry::Vote { vote, refused: None } if vote.reviewer.on_call == ["sre"])
    });
    assert!(recorded, "the record says by what they were eligible");
}

#[tokio::test]
async fn nobody_approves_what_its_requester_has_not_justified() {
    let desk = Desk::new();
    let mut draft = draft("agent", "DROP TABLE t", 1);
    draft.hold.justify = true;
    let _waiter = waiting(&desk, &draft).await;
    let early = votes(&desk, of(&draft, "rita", "dba")).await;
    assert!(matches!(why(early), VoteError::NotJustified(_)));
    let says = async |who: &str, text: &str| {
        let now = desk.hands.now();
        desk.approvals
            .justify(&draft.id, identity(who), text.to_owned(), now)
            .await
    };
    let stranger = says("other", "because").await;
    assert_eq!(
        stranger,
        Err(JustifyRefused::Refused(JustifyError::NotYours))
    );
    desk.ledger.fails.store(true, Ordering::SeqCst);
    assert!(matches!(
        says("agent", "x").await,
        Err(JustifyRefused::NotWritten(_))
    ));
    desk.ledger.fails.store(false, Ordering::SeqCst);
    says("agent", "the\u{202e} table is old").await.unwrap();
    assert!(says("agent", "or so").await.is_err());
    let view = desk.approvals.get(&draft.id).unwrap();
    assert_eq!(
        view.justification.as_deref(),
        Some("the\\u{202e} table is old")
    );
    votes(&desk, of(&draft, "rita", "dba")).await.unwrap();
    let order = words(&desk);
    let at = |word: &str| order.iter().position(|one| one == word).unwrap();
    assert!(at("justified") < at("settled"));
}

fn windowed(session: u128) -> Draft {
    let mut draft = draft("agent", "VACUUM t", session);
    draft.hold.windows = vec![Window::Session, Window::For(Duration::from_secs(600))];
    draft
}

/// Approved for `window` and used once.
async fn opened_window(desk: &Desk, window: &str) -> Draft {
    let draft = windowed(1);
    let _waiter = waiting(desk, &draft).await;
    let mut vote = of(&draft, "rita", "dba");
    vote.window = Some(window.parse().unwrap());
    votes(desk, vote).await.unwrap();
    assert!(claims(desk, &draft, 1).await.is_ok());
    draft
}

async fn granted(desk: &Desk, draft: &Draft) -> bool {
    let opened = desk.approvals.open(draft.clone(), desk.hands.now()).await;
    match opened.0 {
        Opened::Granted(_) => true,
        Opened::Waiting { approval, .. } => {
            opened.1.unwrap().leave(false).await;
            assert_eq!(approval, draft.id);
            false
        }
        Opened::Refused(denial) => panic!("{denial:?}"),
    }
}

#[tokio::test]
async fn a_window_lets_the_identical_command_pass_claim_by_claim() {
    let desk = Desk::new();
    let first = opened_window(&desk, "10m").await;
    let mut other = windowed(2);
    assert!(granted(&desk, &other).await);
    // The gate names the approval that it was given.
    other.id = first.id.clone();
    for command in 2..5 {
        let clearance = claims(&desk, &other, command).await.unwrap();
        assert!(clearance.covers(&other.digest, &other.session, CommandId(command)));
    }
    let numbers: Vec<u64> = desk
        .ledger
        .all()
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Claimed { number, .. } => Some(number),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
    let listed = desk.approvals.windows().await;
    assert_eq!((listed.len(), listed[0].uses), (1, 3));
    assert!(!granted(&desk, &draft("agent", "VACUUM u", 3)).await);
    assert!(!granted(&desk, &draft("other", "VACUUM t", 4)).await);
    desk.hands.pass(Duration::from_secs(600));
    assert_eq!(claims(&desk, &other, 9).await, Err(ClaimError::Expired));
    desk.approvals.sweep().await;
    assert!(desk.approvals.windows().await.is_empty());
    assert!(!granted(&desk, &windowed(5)).await);
    assert!(words(&desk).contains(&"window_ended".to_owned()));
}

#[tokio::test]
async fn an_approval_for_once_opens_no_window() {
    let desk = Desk::new();
    let draft = windowed(1);
    let _waiter = waiting(&desk, &draft).await;
    votes(&desk, of(&draft, "rita", "dba")).await.unwrap();
    assert!(claims(&desk, &draft, 1).await.is_ok());
    assert_eq!(claims(&desk, &draft, 2).await, Err(ClaimError::Used));
    assert!(!granted(&desk, &windowed(2)).await);
}

#[tokio::test]
async fn a_window_that_is_revoked_covers_nothing_more() {
    let desk = Desk::new();
    let draft = opened_window(&desk, "10m").await;
    desk.approvals
        .revoke_window(&draft.id, identity("sam"))
        .await
        .unwrap();
    assert!(
        desk.approvals
            .revoke_window(&draft.id, identity("sam"))
            .await
            .is_err()
    );
    assert_eq!(claims(&desk, &draft, 2).await, Err(ClaimError::Used));
    assert!(!granted(&desk, &windowed(2)).await);

    let desk = Desk::new();
    let draft = opened_window(&desk, "10m").await;
    desk.approvals.revoke_principal(&identity("olivia")).await;
    assert_eq!(claims(&desk, &draft, 2).await, Err(ClaimError::Used));
}

#[tokio::test]
async fn a_window_ends_with_the_reviewer_who_opened_it() {
    let desk = Desk::new();
    let draft = opened_window(&desk, "10m").await;
    let by = desk.approvals.windows().await[0].approved_by[0]
        .subject
        .clone();
    desk.approvals.revoke_principal(&identity("nobody")).await;
    assert_eq!(desk.approvals.windows().await.len(), 1);
    desk.approvals.revoke_principal(&identity(&by)).await;
    assert!(desk.approvals.windows().await.is_empty());
    assert_eq!(claims(&desk, &draft, 2).await, Err(ClaimError::Used));
}

#[tokio::test]
async fn a_use_that_the_journal_does_not_take_is_none_and_ends_the_window() {
    let desk = Desk::new();
    let draft = opened_window(&desk, "10m").await;
    desk.ledger.fails.store(true, Ordering::SeqCst);
    assert_eq!(claims(&desk, &draft, 2).await, Err(ClaimError::NotWritten));
    desk.ledger.fails.store(false, Ordering::SeqCst);
    assert_eq!(claims(&desk, &draft, 3).await, Err(ClaimError::Expired));
    assert!(desk.approvals.windows().await.is_empty());
}

/// Rules and live sessions.
struct World(StdMutex<(String, BTreeSet<SessionId>)>);

impl Surroundings for World {
    fn rules(&self) -> String {
        self.0.lock().unwrap().0.clone()
    }

    fn is_live(&self, session: &SessionId) -> bool {
        self.0.lock().unwrap().1.contains(session)
    }
}

#[tokio::test]
async fn other_rules_and_the_end_of_its_session_end_a_window() {
    for (window, change) in [("10m", "rules"), ("session", "session")] {
        let desk = Desk::new();
        let live = BTreeSet::from([SessionId::from_random(1)]);
        let world = Arc::new(World(StdMutex::new(("p1".to_owned(), live))));
        desk.approvals.look_around(world.clone());
        let draft = opened_window(&desk, window).await;
        desk.approvals.sweep().await;
        assert!(claims(&desk, &draft, 2).await.is_ok());
        if change == "rules" {
            world.0.lock().unwrap().0 = "p2".to_owned();
        } else {
            let mut elsewhere = draft.clone();
            elsewhere.session = SessionId::from_random(2);
            assert_eq!(claims(&desk, &elsewhere, 1).await, Err(ClaimError::Session));
            world.0.lock().unwrap().1.clear();
        }
        desk.approvals.sweep().await;
        assert!(claims(&desk, &draft, 3).await.is_err());
        let ended = desk
            .ledger
            .all()
            .into_iter()
            .any(|entry| matches!(entry, Entry::WindowEnded { why, .. } if why == change));
        assert!(ended, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_and_the_end_of_a_window_stand_in_the_journal_as_they_counted() {
    let desk = Desk::new();
    let draft = opened_window(&desk, "10m").await;
    desk.ledger.slow.store(true, Ordering::SeqCst);
    let now = desk.hands.now();
    let tasks: Vec<_> = (2..30)
        .map(|command| {
            let (approvals, draft) = (desk.approvals.clone(), draft.clone());
            tokio::spawn(async move {
                if command == 15 {
                    let ended = approvals.revoke_window(&draft.id, identity("sam")).await;
                    return ended.is_err();
                }
                let command = CommandId(command);
                let (id, session) = (&draft.id, &draft.session);
                let claim = approvals.claim(id, &draft.digest, session, command, now);
                claim.await.is_ok()
            })
        })
        .collect();
    let mut given = 0;
    for task in tasks {
        given += u64::from(task.await.unwrap());
    }
    let mut numbers = Vec::new();
    let mut ended = false;
    for entry in desk.ledger.all() {
        match entry {
            Entry::Claimed { number, .. } => {
                assert!(!ended, "a claim after the end");
                numbers.push(number);
            }
            Entry::WindowEnded { .. } => ended = true,
            _ => {}
        }
    }
    assert!(ended);
    assert_eq!(numbers, (1..=given).collect::<Vec<_>>());
}

fn glass(draft: &Draft, by: Reviewer) -> BreakGlass {
    BreakGlass {
        approval: draft.id.clone(),
        digest: draft.digest,
        by,
        reason: "the shop is down".to_owned(),
        channel: "cli".to_owned(),
        at: 0,
    }
}

fn chief(subject: &str) -> Reviewer {
    let mut by = reviewer(subject);
    by.groups = vec!["chiefs".to_owned()];
    by
}

#[tokio::test]
async fn a_broken_glass_releases_once_alarms_and_waits_for_somebody_else() {
    let (notices, mut inbox) = notify::channel();
    let (ledger, hands) = (
        Arc::new(MemoryLedger::default()),
        super::super::testing::Hands::default(),
    );
    let approvals = Approvals::new(config(), ledger.clone(), hands.clock(), Some(notices));
    let desk = Desk {
        approvals,
        ledger,
        hands,
    };
    let mut draft = two_steps(1);
    draft.hold.break_glass = vec![group("chiefs")];
    let mut waiter = waiting(&desk, &draft).await;
    let breaks = async |by: Reviewer| {
        let now = desk.hands.now();
        desk.approvals.break_glass(glass(&draft, by), now).await
    };
    let mut agent = chief("bot");
    agent.agent = true;
    assert!(breaks(agent).await.is_err());
    assert!(breaks(reviewer("rita")).await.is_err());
    desk.ledger.fails.store(true, Ordering::SeqCst);
    assert!(matches!(
        breaks(chief("cleo")).await,
        Err(VoteRefused::NotWritten(_))
    ));
    desk.ledger.fails.store(false, Ordering::SeqCst);
    assert_eq!(desk.approvals.get(&draft.id).unwrap().state, "pending");
    assert!(desk.approvals.reviews().await.is_empty());

    // Who asked may do it, if a person of that group.
    breaks(chief("agent")).await.unwrap();
    assert_eq!(waiter.settled().await, Settlement::Approved);
    assert!(claims(&desk, &draft, 1).await.is_ok());
    assert_eq!(claims(&desk, &draft, 2).await, Err(ClaimError::Used));
    assert!(breaks(chief("cleo")).await.is_err());
    let mut told = Vec::new();
    while let Ok(notice) = inbox.try_recv() {
        told.push(notice.message.word());
    }
    assert!(told.contains(&"approval.break_glass"), "{told:?}");
    let open = desk.approvals.reviews().await;
    assert_eq!(
        (open.len(), open[0].glass.reason.as_str()),
        (1, "the shop is down")
    );

    let reviews = async |by: Reviewer| desk.approvals.review(&draft.id, by, None).await;
    assert!(reviews(reviewer("agent")).await.is_err());
    assert!(reviews(reviewer("olivia")).await.is_err());
    assert!(reviews(chief("cleo")).await.is_err());
    assert_eq!(reviews(reviewer("rita")).await, Ok(()));
    assert!(matches!(
        reviews(reviewer("rita")).await,
        Err(VoteRefused::Unknown(_))
    ));
    assert!(desk.approvals.reviews().await.is_empty());
    let view = desk.approvals.get(&draft.id).unwrap();
    let by = view
        .glass
        .as_ref()
        .and_then(|glass| glass.reviewed_by.clone());
    assert_eq!(by.unwrap().subject, "rita");
    let order = words(&desk);
    assert_eq!(order.iter().filter(|word| *word == "reviewed").count(), 1);
}

#[tokio::test]
async fn what_an_earlier_process_left_to_review_is_still_there() {
    let desk = Desk::new();
    let mut draft = two_steps(1);
    draft.hold.break_glass = vec![group("chiefs")];
    let left = holdpoint_core::record::tracker::OpenReview {
        glass: glass(&draft, chief("cleo")),
        draft: draft.clone().into(),
    };
    desk.approvals.keep_reviews([left]).await;
    assert_eq!(desk.approvals.reviews().await.len(), 1);
    assert!(
        desk.approvals
            .review(&draft.id, chief("cleo"), None)
            .await
            .is_err()
    );
    desk.approvals
        .review(&draft.id, reviewer("rita"), None)
        .await
        .unwrap();
    assert!(desk.approvals.reviews().await.is_empty());
}
