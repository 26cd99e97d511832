//! A model of several nodes, a store that fails over, and reviewers, checked in every order
//! of events: crashes, a split brain, lost writes, votes that come late, twice or in another
//! order, expiry, a client that leaves, rules that change.
//!
//! Four ways to build it. `Owner` is what holdpoint does: the node that holds the socket is
//! the only executor, its journal the only ledger, the store a mailbox with a fence on its
//! life. `OwnerUnfenced` shows that the fence is a second lock, not the first. `Naive` (the
//! store is the truth, and a restart resumes from it) and `Claim` (a compare-and-set in the
//! store) are what one would build first; both must FAIL here, or the model shows nothing.
//!
//! Limits: one held command, one failover. What the code does at each step is in
//! `proxy/src/cluster` and tested there against a real Redis.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use stateright::{Checker, Model, Property};

/// Which store: the first, and its copy, which may be promoted.
const STORES: usize = 2;
/// The node that holds the socket, and another one.
const OWNER: usize = 0;
const OTHER: usize = 1;
const REVIEWERS: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Design {
    Naive,
    Claim,
    OwnerUnfenced,
    Owner,
}

impl Design {
    fn by_owner(self) -> bool {
        matches!(self, Self::Owner | Self::OwnerUnfenced)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Decision {
    Pending,
    Approved,
    Denied,
    Expired,
    Withdrawn,
    /// Approved, and the checks before it runs failed.
    Refused,
    /// Its process died.
    Orphaned,
    Used,
}

impl Decision {
    fn is_terminal(self) -> bool {
        !matches!(self, Self::Pending | Self::Approved)
    }
}

/// What lies in one store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Store {
    /// Whether the request was posted here in this life, or came with the copy.
    life_of_post: Option<u8>,
    epoch: u8,
    shown: Decision,
    approvals: u8,
    /// By reviewer: the process that a ballot is for. In no order: they are taken in any.
    ballots: [Option<u8>; REVIEWERS],
    /// Answers to ballots.
    answers: [Option<Decision>; REVIEWERS],
    claimed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    stores: [Store; STORES],
    promoted: bool,
    sees: [usize; 2],
    alive: bool,
    epoch: u8,
    crashes: u8,
    /// The owner's own.
    decision: Decision,
    approvals: u8,
    /// Ballots that were taken: a second reading is no second vote.
    taken: u8,
    intent: bool,
    /// The owner's journal, which a crash does not lose.
    journal: Journal,
    told: [Option<Decision>; REVIEWERS],
    cast: [u8; REVIEWERS],
    connected: bool,
    time_over: bool,
    reloaded: bool,
    forwards: u8,
    /// Something that never may happen, and which.
    broken: Option<&'static str>,
    refused_stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Journal {
    decision: Decision,
    approvals: u8,
    intent: bool,
    forwarded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
    /// The reviewer votes where he is.
    Vote(usize),
    /// The owner takes a ballot, any that lies there.
    Take(usize),
    /// The reviewer's node finds the answer.
    Hear(usize),
    Post,
    Copy,
    Promote,
    Follow(usize),
    Intend,
    /// A node runs the command: the owner, or in other designs whoever claims it.
    Forward(usize),
    TimePasses,
    Leave,
    Reload,
    Crash,
    Restart,
}

struct Nodes {
    design: Design,
    need: u32,
    crashes: u8,
    /// Whether the rules may change meanwhile.
    reloads: bool,
}

/// Two approve from the other node and from the owner's, one denies from the other.
fn verdict(reviewer: usize) -> (usize, Decision) {
    match reviewer {
        0 => (OTHER, Decision::Approved),
        1 => (OTHER, Decision::Denied),
        _ => (OWNER, Decision::Approved),
    }
}

impl Nodes {
    fn decide(&self, state: &mut State, decision: Decision) {
        if state.decision.is_terminal() && state.decision != decision {
            state.broken = Some("a terminal state changed");
        }
        // Written first; both at once, since nothing looks between.
        state.journal.decision = decision;
        state.decision = decision;
    }

    /// The owner counts a vote. Gives what it answers.
    fn count(&self, state: &mut State, reviewer: usize) -> Option<Decision> {
        if state.decision != Decision::Pending || state.time_over {
            return None;
        }
        let (_, verdict) = verdict(reviewer);
        if verdict == Decision::Denied {
            self.decide(state, Decision::Denied);
            return Some(Decision::Denied);
        }
        state.approvals |= 1 << reviewer;
        state.journal.approvals = state.approvals;
        if state.approvals.count_ones() >= self.need {
            self.decide(state, Decision::Approved);
        }
        Some(state.decision)
    }

    /// A vote in a design where the store is the truth: told as soon as it is there.
    fn vote_in_store(&self, state: &mut State, reviewer: usize) -> bool {
        let (node, verdict) = verdict(reviewer);
        let at = state.sees[node];
        let store = &mut state.stores[at];
        if store.life_of_post.is_none() || store.shown != Decision::Pending {
            return false;
        }
        if verdict == Decision::Denied {
            store.shown = Decision::Denied;
        } else {
            store.approvals |= 1 << reviewer;
            if store.approvals.count_ones() >= self.need {
                store.shown = Decision::Approved;
            }
        }
        state.told[reviewer] = Some(store.shown);
        true
    }

    fn run(&self, state: &mut State, approvals: u8, intent: bool) {
        state.forwards += 1;
        state.journal.forwarded = true;
        if approvals.count_ones() < self.need {
            state.broken = Some("it ran without enough approvals");
        }
        if !intent {
            state.broken = Some("it ran before its intent was written");
        }
    }
}

impl Model for Nodes {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let store = Store {
            life_of_post: None,
            epoch: 0,
            shown: Decision::Pending,
            approvals: 0,
            ballots: [None; REVIEWERS],
            answers: [None; REVIEWERS],
            claimed: false,
        };
        let mut first = store.clone();
        first.life_of_post = Some(0);
        vec![State {
            stores: [first, store],
            promoted: false,
            sees: [0, 0],
            alive: true,
            epoch: 0,
            crashes: 0,
            decision: Decision::Pending,
            approvals: 0,
            taken: 0,
            intent: false,
            journal: Journal {
                decision: Decision::Pending,
                approvals: 0,
                intent: false,
                forwarded: false,
            },
            told: [None; REVIEWERS],
            cast: [0; REVIEWERS],
            connected: true,
            time_over: false,
            reloaded: false,
            forwards: 0,
            broken: None,
            refused_stale: false,
        }]
    }

    fn actions(&self, _: &State, actions: &mut Vec<Action>) {
        for reviewer in 0..REVIEWERS {
            actions.extend([
                Action::Vote(reviewer),
                Action::Take(reviewer),
                Action::Hear(reviewer),
            ]);
        }
        for node in [OWNER, OTHER] {
            actions.extend([Action::Follow(node), Action::Forward(node)]);
        }
        actions.extend([
            Action::Post,
            Action::Copy,
            Action::Promote,
            Action::Intend,
            Action::TimePasses,
            Action::Leave,
            Action::Reload,
            Action::Crash,
            Action::Restart,
        ]);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let here = state.sees[OWNER];
        let fenced = self.design == Design::Owner;
        match action {
            Action::Vote(reviewer) => {
                // Once; the first of them once more if nobody answered.
                let most = if reviewer == 0 { 2 } else { 1 };
                if state.cast[reviewer] >= most || state.told[reviewer].is_some() {
                    return None;
                }
                state.cast[reviewer] += 1;
                let (node, _) = verdict(reviewer);
                if !self.design.by_owner() {
                    if !self.vote_in_store(&mut state, reviewer) {
                        return None;
                    }
                } else if node == OWNER {
                    if !state.alive {
                        return None;
                    }
                    state.told[reviewer] = self.count(&mut state, reviewer);
                } else {
                    let at = state.sees[OTHER];
                    let store = &mut state.stores[at];
                    if store.shown != Decision::Pending || store.life_of_post.is_none() {
                        return None;
                    }
                    if fenced && store.life_of_post != Some(at as u8) {
                        state.refused_stale = true;
                    } else {
                        store.ballots[reviewer] = Some(store.epoch);
                    }
                }
            }
            Action::Take(reviewer) => {
                let epoch = state.stores[here].ballots[reviewer]?;
                if !state.alive || !self.design.by_owner() {
                    return None;
                }
                // It stays there: a reading that begins anew finds it again.
                if state.taken & (1 << reviewer) != 0 || epoch != state.epoch {
                    state.stores[here].ballots[reviewer] = None;
                } else {
                    let answer = self.count(&mut state, reviewer);
                    state.taken |= 1 << reviewer;
                    state.stores[here].answers[reviewer] = answer;
                }
            }
            Action::Hear(reviewer) => {
                let at = state.sees[OTHER];
                if state.told[reviewer].is_some() {
                    return None;
                }
                state.told[reviewer] = Some(state.stores[at].answers[reviewer]?);
            }
            Action::Post => {
                if !state.alive || !self.design.by_owner() {
                    return None;
                }
                let store = &mut state.stores[here];
                store.life_of_post = Some(here as u8);
                store.epoch = state.epoch;
                store.shown = state.decision;
            }
            Action::Copy => {
                if state.promoted {
                    return None;
                }
                state.stores[1] = state.stores[0].clone();
            }
            Action::Promote => state.promoted = true,
            Action::Follow(node) => {
                if !state.promoted {
                    return None;
                }
                state.sees[node] = 1;
            }
            Action::Intend => {
                if !state.alive || state.journal.intent || !state.connected {
                    return None;
                }
                let approved = match self.design.by_owner() {
                    true => state.decision == Decision::Approved,
                    false => state.stores[here].shown == Decision::Approved,
                };
                if !approved {
                    return None;
                }
                if state.reloaded && self.design.by_owner() {
                    self.decide(&mut state, Decision::Refused);
                } else {
                    state.intent = true;
                    state.journal.intent = true;
                    if self.design.by_owner() {
                        self.decide(&mut state, Decision::Used);
                    }
                }
            }
            Action::Forward(node) => match self.design {
                Design::Owner | Design::OwnerUnfenced => {
                    // The permit is a value: making it uses up the intent.
                    if node != OWNER || !state.alive || !state.intent || state.journal.forwarded {
                        return None;
                    }
                    let (approvals, intent) = (state.journal.approvals, state.journal.intent);
                    state.intent = false;
                    self.run(&mut state, approvals, intent);
                }
                Design::Naive => {
                    if node != OWNER || !state.alive || !state.intent || state.forwards >= 2 {
                        return None;
                    }
                    let approvals = state.stores[here].approvals;
                    state.intent = false;
                    self.run(&mut state, approvals, true);
                }
                Design::Claim => {
                    // Whoever the identical command comes to claims it in the store it sees.
                    let at = state.sees[node];
                    let store = &mut state.stores[at];
                    if store.shown != Decision::Approved || store.claimed || state.forwards >= 2 {
                        return None;
                    }
                    store.claimed = true;
                    let approvals = store.approvals;
                    self.run(&mut state, approvals, true);
                }
            },
            Action::TimePasses => {
                if !state.alive || state.decision.is_terminal() {
                    return None;
                }
                state.time_over = true;
                if self.design.by_owner() {
                    self.decide(&mut state, Decision::Expired);
                } else {
                    state.decision = Decision::Expired;
                    let store = &mut state.stores[here];
                    if store.shown == Decision::Pending {
                        store.shown = Decision::Expired;
                    }
                }
            }
            Action::Leave => {
                if !state.connected || !state.alive || state.decision.is_terminal() {
                    return None;
                }
                state.connected = false;
                if self.design.by_owner() && !state.decision.is_terminal() {
                    self.decide(&mut state, Decision::Withdrawn);
                }
            }
            Action::Reload => {
                if !self.reloads || state.decision.is_terminal() {
                    return None;
                }
                state.reloaded = true;
            }
            Action::Crash => {
                // After the end there is nothing to lose but the way to it.
                let over = self.design.by_owner() && state.decision.is_terminal() && !state.intent;
                if !state.alive || state.crashes >= self.crashes || over {
                    return None;
                }
                state.crashes += 1;
                state.alive = false;
                state.intent = false;
                state.taken = 0;
            }
            Action::Restart => {
                if state.alive {
                    return None;
                }
                state.alive = true;
                state.epoch += 1;
                if self.design == Design::Naive {
                    // Resumes what the store says, whatever was done before.
                    state.journal.intent = false;
                }
                if self.design.by_owner() {
                    // Nothing is resumed: what was open is written down as over.
                    state.connected = false;
                    if !state.journal.decision.is_terminal() {
                        self.decide(&mut state, Decision::Orphaned);
                    }
                }
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("at most once", |_, state: &State| state.forwards <= 1),
            Property::always("a denial that was told is final", |_, state: &State| {
                let denied = state.told.contains(&Some(Decision::Denied));
                !denied || state.forwards == 0
            }),
            Property::always(
                "never without approval and intent, and no end changes",
                |_, state: &State| state.broken.is_none(),
            ),
            Property::eventually("every hold ends", |model: &Self, state: &State| {
                !model.design.by_owner() || state.decision.is_terminal() || !state.alive
            }),
            Property::sometimes("an approved command runs", |_, state: &State| {
                state.forwards == 1
            }),
            Property::sometimes(
                "a vote from elsewhere decides",
                |model: &Self, state: &State| {
                    let answered = state
                        .stores
                        .iter()
                        .any(|store| store.answers[0] == Some(Decision::Approved));
                    let told = state.told[0] == Some(Decision::Approved);
                    if model.need > 1 {
                        state.told[0].is_some()
                    } else {
                        answered || told
                    }
                },
            ),
        ]
    }
}

/// Checks one design. Gives how many states there are, and which promises are broken.
fn check(design: Design, need: u32, crashes: u8, reloads: bool) -> (usize, Vec<&'static str>) {
    let model = Nodes {
        design,
        need,
        crashes,
        reloads,
    };
    let checker = model.checker().threads(2).spawn_bfs().join();
    let mut broken: Vec<_> = checker
        .discoveries()
        .into_iter()
        .filter(|(name, _)| {
            let property = checker
                .model()
                .properties()
                .into_iter()
                .find(|one| one.name == *name);
            property
                .is_some_and(|one| !matches!(one.expectation, stateright::Expectation::Sometimes))
        })
        .map(|(name, path)| {
            println!("{design:?} breaks {name:?}: {:?}", path.into_actions());
            name
        })
        .collect();
    for property in checker.model().properties() {
        let seen = checker.discovery(property.name).is_some();
        if matches!(property.expectation, stateright::Expectation::Sometimes)
            && !seen
            && design.by_owner()
        {
            broken.push(property.name);
        }
    }
    broken.sort_unstable();
    println!(
        "{design:?}, {need} needed: {} states",
        checker.unique_state_count()
    );
    (checker.unique_state_count(), broken)
}

#[test]
fn what_holdpoint_does_keeps_every_promise() {
    let (states, broken) = check(Design::Owner, 1, 1, false);
    assert!(broken.is_empty(), "{broken:?}");
    assert!(
        states >= 50_000,
        "{states} states are too few to show anything"
    );
    let (_, broken) = check(Design::Owner, 2, 0, true);
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn the_fence_on_the_store_is_not_what_keeps_them() {
    let (_, broken) = check(Design::OwnerUnfenced, 1, 0, false);
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn a_store_that_is_the_truth_runs_a_command_twice() {
    let (_, broken) = check(Design::Naive, 1, 1, false);
    assert!(broken.contains(&"at most once"), "{broken:?}");
    assert!(
        broken.contains(&"a denial that was told is final"),
        "{broken:?}"
    );
}

#[test]
fn a_claim_in_the_store_does_not_survive_a_split_brain() {
    let (_, broken) = check(Design::Claim, 1, 0, false);
    assert!(broken.contains(&"at most once"), "{broken:?}");
    assert!(
        broken.contains(&"a denial that was told is final"),
        "{broken:?}"
    );
}
