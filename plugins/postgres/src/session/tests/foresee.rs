//! Exchanges that the host carries out by itself, against a host that asks each time.

use holdpoint_plugin::{Completion, Forecast, Parameter, Pattern, Piece, Submission};

use super::*;

/// The host that takes forecasts at their word.
#[derive(Default)]
pub(super) struct Lazy {
    known: BTreeMap<u8, (Forecast, Vec<Operation>)>,
    expected: Vec<u8>,
    deferred: Option<Deferred>,
    /// Exchanges of which the session was told nothing.
    pub(super) untold: usize,
}

struct Deferred {
    answered: Vec<Pattern>,
    status: usize,
    operations: Vec<Operation>,
    come: usize,
    completion: Completion,
    untold: Vec<(Side, Vec<Frame>, Vec<Action>)>,
}

/// What stands in the place of what was left open.
struct Found {
    values: Vec<Option<Vec<u8>>>,
    number: Option<u64>,
}

fn fits(pattern: &Pattern, frame: &Frame) -> Option<Found> {
    let mut rest = frame.body.as_slice();
    let (mut values, mut number) = (Vec::new(), None);
    for piece in &pattern.body {
        match piece {
            Piece::Exactly(bytes) => rest = rest.strip_prefix(bytes.as_slice())?,
            Piece::Digits => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let text = std::str::from_utf8(&rest[..digits]).unwrap();
                number = Some(text.parse().ok().filter(|_| digits <= 9)?);
                rest = &rest[digits..];
            }
            Piece::Value => {
                let length = i32::from_be_bytes(*rest.first_chunk()?);
                rest = &rest[4..];
                let value = usize::try_from(length).ok();
                values.push(value.map(|length| rest[..length].to_vec()));
                rest = &rest[value.unwrap_or(0)..];
            }
        }
    }
    (rest.is_empty() && frame.kind == pattern.kind).then_some(Found { values, number })
}

/// What a command is, however its operations are told.
fn resolved(action: &Action, operations: &[Operation]) -> Action {
    match action {
        Action::Submit(submission) => {
            let mut submission = submission.clone();
            if matches!(submission.recall, Recall::Kept(_)) {
                submission.command.operations = operations.to_vec();
            }
            submission.recall = Recall::No;
            Action::Submit(submission)
        }
        other => other.clone(),
    }
}

impl Lazy {
    fn asked(&self, frames: &[Frame]) -> Option<(Deferred, Vec<Action>)> {
        self.expected.iter().find_map(|number| {
            let (forecast, operations) = &self.known[number];
            let found: Option<Vec<_>> = (forecast.asked.len() == frames.len())
                .then(|| forecast.asked.iter().zip(frames))?
                .map(|(pattern, frame)| fits(pattern, frame))
                .collect();
            let values = found?.into_iter().flat_map(|found| found.values);
            let mut command = forecast.command.clone();
            command.parameters = command
                .parameters
                .into_iter()
                .zip(values)
                .map(|(parameter, value)| Parameter { value, ..parameter })
                .collect();
            if forecast.text_is_body {
                command.text = frames[0].body.strip_suffix(b"\0").unwrap().to_vec();
            }
            let actions = vec![Action::Submit(Submission {
                first: frames[0].seq,
                last: frames[frames.len() - 1].seq,
                command,
                notify: false,
                undo: false,
                recall: Recall::Kept(forecast.kept),
            })];
            let deferred = Deferred {
                answered: forecast.answered.clone(),
                status: usize::from(forecast.status),
                operations: operations.clone(),
                come: 0,
                completion: Completion {
                    commands: 1,
                    status: String::new(),
                    failed: false,
                    rows: None,
                },
                untold: vec![(Side::Client, frames.to_vec(), actions.clone())],
            };
            Some((deferred, actions))
        })
    }

    fn note(&mut self, actions: &[Action], kept: &BTreeMap<u8, Vec<Operation>>) {
        self.expected.clear();
        for action in actions {
            match action {
                Action::Forecast(forecast) => {
                    let operations = kept[&forecast.kept].clone();
                    self.known
                        .insert(forecast.number, (forecast.clone(), operations));
                }
                Action::Expect(numbers) => self.expected.clone_from(numbers),
                _ => {}
            }
        }
    }
}

impl Deferred {
    fn answered(&mut self, frames: &[Frame]) -> Option<Vec<Action>> {
        let mut completion = self.completion.clone();
        for (index, frame) in frames.iter().enumerate() {
            let found = fits(self.answered.get(self.come + index)?, frame)?;
            if self.come + index == self.status {
                let tag = frame.body.strip_suffix(b"\0").unwrap();
                completion.status = String::from_utf8_lossy(tag).into_owned();
                completion.rows = found.number;
            }
        }
        self.completion = completion;
        self.come += frames.len();
        let over = self.come == self.answered.len();
        let mut actions = Vec::new();
        if over {
            actions.push(Action::Completed(self.completion.clone()));
        }
        actions.push(Action::Pass(frames[frames.len() - 1].seq));
        self.untold
            .push((Side::Upstream, frames.to_vec(), actions.clone()));
        Some(actions)
    }
}

impl Host {
    pub(super) fn tell(
        &mut self,
        side: Side,
        frames: Vec<Frame>,
    ) -> Result<Vec<Action>, holdpoint_plugin::Fault> {
        let Some(lazy) = &mut self.lazy else {
            return self.session.on_frames(side, frames);
        };
        match (side, &mut lazy.deferred) {
            (Side::Client, None) => {
                if let Some((deferred, actions)) = lazy.asked(&frames) {
                    lazy.deferred = Some(deferred);
                    return Ok(actions);
                }
            }
            (Side::Upstream, Some(deferred)) => {
                if let Some(actions) = deferred.answered(&frames) {
                    if deferred.come == deferred.answered.len() {
                        lazy.deferred = None;
                        lazy.untold += 1;
                    }
                    return Ok(actions);
                }
            }
            _ => {}
        }
        self.catch_up();
        let actions = self.session.on_frames(side, frames)?;
        self.note(&actions);
        Ok(actions)
    }

    pub(super) fn catch_up(&mut self) {
        let deferred = self.lazy.as_mut().and_then(|lazy| lazy.deferred.take());
        let Some(deferred) = deferred else { return };
        for (side, frames, done) in deferred.untold {
            let actions = self.session.on_frames(side, frames).unwrap();
            self.note(&actions);
            let said = |actions: &[Action]| -> Vec<Action> {
                let told = actions
                    .iter()
                    .filter(|action| !matches!(action, Action::Forecast(_) | Action::Expect(_)));
                told.map(|action| resolved(action, &deferred.operations))
                    .collect()
            };
            assert_eq!(said(&actions), said(&done), "foretold otherwise");
        }
    }

    pub(super) fn note(&mut self, actions: &[Action]) {
        let kept = &mut self.kept;
        // What `act` will do with them, a little earlier.
        for action in actions {
            if let Action::Submit(submission) = action
                && let Recall::Keep(number) = submission.recall
            {
                kept.insert(number, submission.command.operations.clone());
            }
        }
        if let Some(lazy) = &mut self.lazy {
            lazy.note(actions, kept);
        }
    }

    fn lazy() -> Self {
        let mut host = Self::logged_in();
        host.lazy = Some(Lazy::default());
        host
    }

    fn untold(&self) -> usize {
        self.lazy.as_ref().unwrap().untold
    }
}

fn bind_value(statement: &str, value: Option<&str>) -> Message {
    let mut body = format!("\0{statement}\0\0\0\0\x01").into_bytes();
    match value {
        None => body.extend((-1i32).to_be_bytes()),
        Some(value) => {
            body.extend((value.len() as u32).to_be_bytes());
            body.extend_from_slice(value.as_bytes());
        }
    }
    body.extend([0, 0]);
    m(b'B', &body)
}

/// A client and a server that do as servers do.
struct Talk {
    hosts: [Host; 2],
    status: u8,
    statements: BTreeMap<String, ()>,
}

impl Talk {
    fn new() -> Self {
        Self {
            hosts: [Host::logged_in(), Host::lazy()],
            status: b'I',
            statements: BTreeMap::new(),
        }
    }

    fn ask(&mut self, messages: &[Message]) {
        self.hosts
            .iter_mut()
            .for_each(|host| host.play(client(messages)));
    }

    fn answer(&mut self, messages: &[Message]) {
        self.hosts
            .iter_mut()
            .for_each(|host| host.play(upstream(messages)));
    }

    /// Sends a command, and answers it where it went forward.
    fn run(&mut self, asked: &[Message], answers: &[Message], split: bool) {
        let before = self.hosts[0].forwarded;
        self.ask(asked);
        if self.hosts[0].forwarded == before {
            return;
        }
        if self.status == b'E' {
            self.answer(&[error("25P02"), z(b'E')]);
            return;
        }
        let answers = [answers, &[z(self.status)]].concat();
        if split {
            answers
                .iter()
                .for_each(|answer| self.answer(std::slice::from_ref(answer)));
        } else {
            self.answer(&answers);
        }
    }

    fn prepare(&mut self, name: &str, text: &str) {
        if self.status == b'E' || self.statements.contains_key(name) {
            return;
        }
        self.ask(&[parse(name, text), sync()]);
        self.answer(&[m(b'1', b""), z(self.status)]);
        self.statements.insert(name.to_owned(), ());
    }

    fn one(&mut self, (what, n): (u8, u32)) {
        let split = n % 5 == 0;
        let name = format!("s{}", n % 2);
        let value = (n % 7 != 0).then(|| format!("v{n}"));
        let ran = [m(b'2', b""), tag("SELECT 1")];
        match what {
            0 | 1 => {
                let text = format!("SELECT a FROM t WHERE b = {n}");
                self.run(&[q(&text)], &[tag(&format!("SELECT {n}"))], split);
            }
            2 => {
                let text = format!("SELECT a FROM t WHERE b = '{}' LIMIT {n}", n % 3);
                self.run(&[q(&text)], &[tag("SELECT 1")], split);
            }
            3 => {
                let text = format!("UPDATE t SET a = {n} WHERE (b = {}) AND c < 1.5", n / 2);
                self.run(&[q(&text)], &[tag("UPDATE 3")], split);
            }
            4 | 5 => {
                self.prepare(&name, &format!("SELECT c FROM {name} WHERE d = $1"));
                let asked = [bind_value(&name, value.as_deref()), execute(""), sync()];
                self.run(&asked, &ran, split);
            }
            6 => {
                let asked = [
                    parse("", &format!("SELECT e{} FROM u WHERE f = $1", n % 2)),
                    bind_value("", value.as_deref()),
                    describe("P"),
                    execute(""),
                    sync(),
                ];
                let ran = [&[m(b'1', b"")], &ran[..]].concat();
                self.run(&asked, &ran, split);
                self.statements.insert(String::new(), ());
            }
            7 => {
                let asked = [bind_value("", value.as_deref()), execute(""), sync()];
                self.run(&asked, &ran, split);
            }
            8 => {
                let text = format!("SET search_path = x{}", n % 2);
                self.run(&[q(&text)], &[tag("SET")], split);
            }
            9 if self.status == b'I' => {
                self.status = b'T';
                self.run(&[q("BEGIN")], &[tag("BEGIN")], split);
            }
            9 | 10 => {
                let failed = std::mem::replace(&mut self.status, b'I') == b'E';
                let word = if failed { "ROLLBACK" } else { "COMMIT" };
                self.run(&[q(word)], &[tag(word)], split);
            }
            11 => {
                self.statements.remove(&name);
                let text = format!("DEALLOCATE {name}");
                self.run(&[q(&text)], &[tag("DEALLOCATE")], split);
            }
            12 => {
                self.statements.remove(&name);
                self.ask(&[close(&format!("S{name}")), sync()]);
                self.answer(&[m(b'3', b""), z(self.status)]);
            }
            13 => self.run(&[q("DROP TABLE x")], &[], split),
            14 => {
                let text = format!("SELECT a FROM t WHERE b = {n}");
                let before = self.hosts[0].forwarded;
                self.ask(&[q(&text)]);
                if self.hosts[0].forwarded > before {
                    self.status = if self.status == b'I' { b'I' } else { b'E' };
                    self.answer(&[error("22012"), z(self.status)]);
                }
            }
            15 if self.status == b'I' => {
                let text = |n: u32| q(&format!("SELECT a FROM t WHERE b = {n}"));
                self.ask(&[text(n)]);
                self.ask(&[text(n + 1)]);
                for _ in 0..2 {
                    self.answer(&[tag("SELECT 1"), z(b'I')]);
                }
            }
            16 => {
                let text = format!("SELECT a FROM t WHERE b = {n} -- HOLD");
                self.ask(&[q(&text)]);
                if self.hosts[0].outstanding.is_some() {
                    self.hosts
                        .iter_mut()
                        .for_each(|host| host.play(Step::Approve));
                    let answer = match self.status {
                        b'E' => error("25P02"),
                        _ => tag("SELECT 1"),
                    };
                    let answers = [answer, z(self.status)];
                    self.answer(&answers);
                }
            }
            _ => self.answer(&[status("application_name", &n.to_string())]),
        }
    }
}

fn same(talk: &Talk) {
    let [eager, lazy] = &talk.hosts;
    assert_eq!(eager.log, lazy.log);
    assert_eq!(eager.submitted, lazy.submitted);
}

#[test]
fn what_comes_again_is_carried_out_untold_and_nothing_tells_the_difference() {
    for what in [0, 2, 3, 4, 6] {
        let mut talk = Talk::new();
        (1..=20).for_each(|n| talk.one((what, n)));
        same(&talk);
        // The first time it is judged, the second time it is foretold; two statements of
        // two kinds take turns, and one without a name takes the other's away.
        let least = if what == 6 { 0 } else { 10 };
        assert!(
            talk.hosts[1].untold() >= least,
            "{what}: {}",
            talk.hosts[1].untold()
        );
    }
    let mut talk = Talk::new();
    (1..=20).for_each(|n| talk.one((6, 2 * n)));
    same(&talk);
    assert!(talk.hosts[1].untold() >= 15);
    // In a transaction simple queries are, and what is bound is not.
    for (what, most) in [(0, 20), (4, 0)] {
        let mut talk = Talk::new();
        talk.one((9, 0));
        (1..=20).for_each(|n| talk.one((what, n)));
        same(&talk);
        let untold = talk.hosts[1].untold();
        assert!(untold <= most && untold + 5 >= most, "{what}: {untold}");
    }
}

#[test]
fn a_circle_of_many_statements_is_not_foretold_over_and_over() {
    let mut talk = Talk::new();
    for round in 0..4 {
        for table in 0..40 {
            let text = format!("SELECT a FROM t{table} WHERE b = {round}");
            talk.run(&[q(&text)], &[tag("SELECT 1")], false);
        }
    }
    same(&talk);
    let lazy = talk.hosts[1].lazy.as_ref().unwrap();
    assert_eq!((lazy.known.len(), lazy.untold), (0, 0));
}

#[test]
fn a_forecast_does_not_outlive_what_it_leans_on() {
    // After each of these the same burst means something else, or must be told.
    for change in [(8, 1), (9, 0), (11, 4), (12, 4), (13, 0)] {
        let mut talk = Talk::new();
        (0..6).for_each(|_| talk.one((4, 4)));
        let before = talk.hosts[1].untold();
        assert!(before > 0);
        talk.one(change);
        same(&talk);
        let asked = [bind_value("s0", Some("x")), execute(""), sync()];
        let submitted = talk.hosts[1].submitted.len();
        talk.run(&asked, &[m(b'2', b""), tag("SELECT 1")], false);
        same(&talk);
        let now = &talk.hosts[1].submitted[submitted..];
        let read = now.iter().any(|command| {
            command
                .operations
                .iter()
                .any(|operation| operation.class == "read")
        });
        assert_eq!(read, !matches!(change.0, 11 | 12), "{change:?}: {now:?}");
    }
}

#[test]
fn the_statement_without_a_name_is_the_one_that_was_parsed_last() {
    let mut talk = Talk::new();
    // Even numbers parse one text, odd ones another; 7 binds what is there.
    for step in [
        (6, 2),
        (6, 2),
        (6, 2),
        (6, 2),
        (7, 1),
        (6, 1),
        (6, 2),
        (7, 1),
        (6, 2),
        (7, 1),
    ] {
        talk.one(step);
        same(&talk);
    }
    assert!(talk.hosts[1].untold() > 0);
}

#[test]
fn numbers_that_could_run_into_what_stands_beside_them_stay_as_they_are() {
    for (text, open) in [
        ("SELECT a FROM t WHERE b = 12", vec!["12"]),
        ("SELECT 1, (2)", vec!["1", "2"]),
        ("SELECT a[1]", vec![]),
        ("SELECT 1.5", vec![]),
        ("SELECT 1::text", vec![]),
        ("SELECT -1", vec![]),
        ("SELECT '1'", vec![]),
        ("SELECT 1234567890", vec![]),
        ("SET x = 1", vec![]),
        ("SELECT set_config('a', 1)", vec![]),
    ] {
        let found = crate::classify::open_numbers(text, 9).unwrap();
        let ranges = found.iter();
        let found: Vec<&str> = ranges.map(|range| &text[range.clone()]).collect();
        assert_eq!(found, open, "{text}");
    }
}

proptest! {
    /// Sessions of all kinds: whoever is told everything says the same as who is not.
    #[test]
    fn a_host_that_does_not_ask_does_what_one_does_that_asks(
        steps in proptest::collection::vec((0u8..18, 0u32..40), 1..80)
    ) {
        let mut talk = Talk::new();
        for step in steps {
            talk.one(step);
            same(&talk);
        }
    }
}
