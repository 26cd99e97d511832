//! Deciding from the list: what each key does, and what is on the screen then.
//!
//! As on the command line, what is decided is what was shown: the whole command is on the
//! screen first, to its end, its digest goes back with the vote, and whoever approves types
//! the digest's first digits, which nobody does by reflex.

use holdpoint_core::approval::MAX_REASON;
use time::OffsetDateTime;

use super::board::{Board, cut, wrapped};
use super::keys::Key;
use crate::api::{Choice, Decision};
use crate::approvals::View;
use crate::cli::approvals::{safe, write_view};
use crate::cli::style::Style;

/// Digits of the digest that are asked for.
const DIGITS: usize = 4;
/// Lines of the screen that are not the command's.
const FRAME: usize = 3;

/// What is to happen outside.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    Nothing,
    Quit,
    Vote { id: String, decision: Decision },
}

#[derive(Default)]
pub(super) struct Desk {
    /// The id of the one that keys act on.
    selected: Option<String>,
    open: Option<Open>,
    /// What came of the last thing that was done.
    note: Option<String>,
}

/// One approval on the whole screen.
struct Open {
    view: View,
    top: usize,
    /// Its last line was on the screen.
    seen: bool,
    asks: Asks,
}

enum Asks {
    Nothing,
    /// Digits typed so far, and the window by its place in what the rule offers; 0 is once.
    Approve {
        typed: String,
        window: usize,
    },
    /// The reason so far.
    Deny(String),
    /// It is this by now. Only what ends a line goes on from here, so that the rest of a
    /// reason is no key for another one.
    Over(String),
}

impl Desk {
    pub(super) fn say(&mut self, note: impl Into<String>) {
        self.note = Some(note.into());
    }

    /// Keeps to what is there: one that is over can be decided no more.
    pub(super) fn follow(&mut self, board: &Board) {
        let order = board.order();
        let there = |id: &String| order.iter().any(|view| view.id == *id);
        if !self.selected.as_ref().is_some_and(there) {
            self.selected = order.first().map(|view| view.id.clone());
        }
        if let Some(open) = &mut self.open
            && !there(&open.view.id)
        {
            let state = board.state_of(&open.view.id).unwrap_or("over");
            open.asks = Asks::Over(state.to_owned());
        }
    }

    pub(super) fn press(&mut self, key: Key, board: &Board, size: (usize, usize)) -> Effect {
        if key == Key::Gone {
            return Effect::Quit;
        }
        match self.open.take() {
            None => self.in_list(key, board),
            Some(open) => self.in_one(open, key, size),
        }
    }

    fn in_list(&mut self, key: Key, board: &Board) -> Effect {
        let order = board.order();
        let at = order
            .iter()
            .position(|view| Some(&view.id) == self.selected.as_ref());
        let last = order.len().saturating_sub(1);
        let to = match (key, at) {
            (Key::Char('q') | Key::Escape, _) => return Effect::Quit,
            (_, None) => return Effect::Nothing,
            (Key::Up | Key::Char('k'), Some(at)) => at.saturating_sub(1),
            (Key::Down | Key::Char('j'), Some(at)) => (at + 1).min(last),
            (Key::Home | Key::PageUp | Key::Char('g'), _) => 0,
            (Key::End | Key::PageDown | Key::Char('G'), _) => last,
            (key, Some(at)) => {
                let asks = match key {
                    Key::Enter => Asks::Nothing,
                    Key::Char('a') => Asks::approve(),
                    Key::Char('d') => Asks::Deny(String::new()),
                    _ => return Effect::Nothing,
                };
                self.note = None;
                self.open = order.get(at).map(|view| Open {
                    view: (*view).clone(),
                    top: 0,
                    seen: false,
                    asks,
                });
                return Effect::Nothing;
            }
        };
        self.note = None;
        self.selected = order.get(to).map(|view| view.id.clone());
        Effect::Nothing
    }

    fn in_one(&mut self, mut open: Open, key: Key, size: (usize, usize)) -> Effect {
        self.note = None;
        let page = size.1.saturating_sub(FRAME).max(1);
        let last = open.lines(size.0).len().saturating_sub(page);
        match (key, &mut open.asks) {
            (Key::Enter | Key::Escape, Asks::Over(_)) => return Effect::Nothing,
            (Key::Escape, Asks::Nothing) | (Key::Char('q'), Asks::Nothing) => {
                return Effect::Nothing;
            }
            (Key::Escape, asks) => {
                *asks = Asks::Nothing;
                self.note = Some("nothing was decided".to_owned());
            }
            (Key::Up, _) | (Key::Char('k'), Asks::Nothing) => open.top = open.top.saturating_sub(1),
            (Key::Down, _) | (Key::Char('j'), Asks::Nothing) => open.top += 1,
            (Key::PageUp, _) => open.top = open.top.saturating_sub(page),
            (Key::PageDown, _) | (Key::Char(' '), Asks::Nothing) => open.top += page,
            (Key::Home, _) => open.top = 0,
            (Key::End, _) => open.top = last,
            (Key::Char('a'), asks @ Asks::Nothing) => *asks = Asks::approve(),
            (Key::Char('d'), asks @ Asks::Nothing) => *asks = Asks::Deny(String::new()),
            (Key::Tab, Asks::Approve { window, .. }) => {
                *window = (*window + 1) % (open.view.windows.len() + 1);
            }
            (Key::Enter, _) => return self.answer(open),
            (key, Asks::Approve { typed, .. }) => edit(typed, key, DIGITS),
            (key, Asks::Deny(reason)) => edit(reason, key, MAX_REASON),
            _ => {}
        }
        open.top = open.top.min(last);
        self.open = Some(open);
        Effect::Nothing
    }

    /// Whoever pressed Enter wants it decided.
    fn answer(&mut self, open: Open) -> Effect {
        let start = open.view.digest.get(..DIGITS).unwrap_or_default();
        let decision = match &open.asks {
            Asks::Nothing | Asks::Over(_) => Err(""),
            Asks::Approve { .. } if !open.seen => {
                Err("there is more of the command: read it to its end first")
            }
            Asks::Approve { typed, .. }
                if start.is_empty() || !typed.eq_ignore_ascii_case(start) =>
            {
                Err("those are not the first digits of its digest: nothing was decided")
            }
            Asks::Approve { window, .. } => Ok((Choice::Approve, None, open.window(*window))),
            Asks::Deny(reason) if reason.trim().is_empty() => {
                Err("a denial needs a reason: the agent is told")
            }
            Asks::Deny(reason) => Ok((Choice::Deny, Some(reason.trim().to_owned()), None)),
        };
        match decision {
            Err(why) => {
                self.note = (!why.is_empty()).then(|| why.to_owned());
                self.open = Some(open);
                Effect::Nothing
            }
            Ok((decision, reason, window)) => Effect::Vote {
                decision: Decision {
                    decision,
                    digest: open.view.digest.clone(),
                    reason,
                    window,
                },
                id: open.view.id,
            },
        }
    }

    /// All that is on a screen of this size.
    pub(super) fn draw(
        &mut self,
        board: &Board,
        now: OffsetDateTime,
        (width, height): (usize, usize),
        style: Style,
    ) -> Vec<String> {
        let note = self.note.as_ref().map(|note| cut(&safe(note), width));
        let note = note.map(|note| style.yellow(note).to_string());
        let Some(open) = &mut self.open else {
            let selected = self.selected.as_deref();
            let room = height.saturating_sub(2);
            let mut lines = board.table(now, (width, room), style, selected);
            lines.truncate(room);
            let help = if selected.is_some() {
                "j/k or arrows: select   Enter: look   a: approve   d: deny   q: quit"
            } else {
                "q: quit"
            };
            lines.push(note.unwrap_or_default());
            lines.push(style.dim(cut(help, width)).to_string());
            return lines;
        };
        let page = height.saturating_sub(FRAME).max(1);
        let all = open.lines(width);
        open.top = open.top.min(all.len().saturating_sub(page));
        let end = (open.top + page).min(all.len());
        open.seen |= end == all.len();
        let mut lines: Vec<_> = all.get(open.top..end).unwrap_or_default().to_vec();
        let place = if all.len() > page {
            format!("lines {} to {end} of {}", open.top + 1, all.len())
        } else {
            format!("{} lines, all of it", all.len())
        };
        lines.resize(page, String::new());
        lines.push(style.dim(cut(&place, width)).to_string());
        lines.push(note.unwrap_or_default());
        lines.push(style.bold(open.prompt(width)).to_string());
        lines
    }
}

impl Asks {
    fn approve() -> Self {
        Self::Approve {
            typed: String::new(),
            window: 0,
        }
    }
}

impl Open {
    /// Everything a decision needs, no line wider than the screen.
    fn lines(&self, width: usize) -> Vec<String> {
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = write_view(&mut text, &self.view);
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().flat_map(|line| wrapped(line, width));
        lines.collect()
    }

    fn window(&self, number: usize) -> Option<String> {
        let offered = number.checked_sub(1)?;
        self.view.windows.get(offered).cloned()
    }

    fn prompt(&self, width: usize) -> String {
        let text = match &self.asks {
            Asks::Nothing => "a: approve   d: deny   j/k, space: scroll   q: back".to_owned(),
            Asks::Over(state) => format!("It is {} by now (Enter: back)", safe(state)),
            Asks::Approve { typed, window } => {
                let start = self.view.digest.get(..DIGITS).unwrap_or_default();
                let how = match self.window(*window) {
                    None => "once".to_owned(),
                    Some(window) if window == "session" => "for this session".to_owned(),
                    Some(window) => format!("for {}", safe(&window)),
                };
                let more = if self.view.windows.is_empty() {
                    ""
                } else {
                    " (Tab: how often)"
                };
                format!(
                    "To approve it {how}{more}, type the first digits of its digest ({start}): {typed}_"
                )
            }
            Asks::Deny(reason) => {
                // The end of what is typed stays in sight.
                let shown = safe(reason);
                let room = width.saturating_sub(32);
                let skip = shown.chars().count().saturating_sub(room);
                let shown: String = shown.chars().skip(skip).collect();
                format!("Deny it, because (Esc: not): {shown}_")
            }
        };
        cut(&text, width)
    }
}

/// What a key does to a line that is typed.
fn edit(text: &mut String, key: Key, most: usize) {
    match key {
        Key::Char(c) if text.len() + c.len_utf8() <= most => text.push(c),
        Key::Erase => {
            text.pop();
        }
        Key::EraseAll => text.clear(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::watch::board::tests::view;

    const SIZE: (usize, usize) = (80, 24);

    struct Sitting {
        desk: Desk,
        board: Board,
    }

    impl Sitting {
        fn with(views: impl IntoIterator<Item = View>) -> Self {
            let mut board = Board::default();
            for view in views {
                board.learn(view);
            }
            let mut desk = Desk::default();
            desk.follow(&board);
            Self { desk, board }
        }

        fn press(&mut self, keys: &str) -> Effect {
            let mut effect = Effect::Nothing;
            for key in keys.chars() {
                // Somebody looks at what is there before they press the next one.
                self.screen();
                let key = match key {
                    '\r' => Key::Enter,
                    '\x1b' => Key::Escape,
                    '\t' => Key::Tab,
                    '\x7f' => Key::Erase,
                    key => Key::Char(key),
                };
                effect = self.desk.press(key, &self.board, SIZE);
            }
            effect
        }

        fn screen(&mut self) -> String {
            let now = OffsetDateTime::UNIX_EPOCH;
            let style = Style::plain();
            let lines = self.desk.draw(&self.board, now, SIZE, style);
            assert!(lines.len() <= SIZE.1, "{lines:#?}");
            assert!(
                lines.iter().all(|line| line.chars().count() <= SIZE.0),
                "{lines:#?}"
            );
            lines.join("\n")
        }
    }

    fn vote(effect: Effect) -> (String, Decision) {
        match effect {
            Effect::Vote { id, decision } => (id, decision),
            other => panic!("no vote but {other:?}"),
        }
    }

    #[test]
    fn approving_takes_the_digits_of_what_is_on_the_screen() {
        let (one, two) = (view("hp-1", "pending"), view("hp-2", "pending"));
        let digits = two.digest[..4].to_owned();
        let mut sitting = Sitting::with([one, two.clone()]);
        assert!(sitting.screen().contains("> hp-1"));
        assert_eq!(sitting.press("j"), Effect::Nothing);
        assert!(sitting.screen().contains("> hp-2"));
        assert_eq!(sitting.press("a\r"), Effect::Nothing);
        assert!(sitting.screen().contains("not the first digits"));
        assert_eq!(sitting.press("zzzz\r"), Effect::Nothing);
        let done = sitting.press(&format!("\x7f\x7f\x7f\x7f{digits}\r"));
        let (id, decision) = vote(done);
        assert_eq!((id.as_str(), &decision.digest), ("hp-2", &two.digest));
        assert_eq!(
            (decision.decision, decision.reason, decision.window),
            (Choice::Approve, None, None)
        );
    }

    #[test]
    fn a_denial_takes_a_reason_and_escape_takes_it_back() {
        let mut sitting = Sitting::with([view("hp-1", "pending")]);
        assert_eq!(sitting.press("d \r"), Effect::Nothing);
        assert!(sitting.screen().contains("needs a reason"));
        assert_eq!(sitting.press("no\x1b"), Effect::Nothing);
        assert!(sitting.screen().contains("nothing was decided"));
        let (_, decision) = vote(sitting.press("dnot today, q\r"));
        assert_eq!(decision.reason.as_deref(), Some("not today, q"));
        assert_eq!(decision.decision, Choice::Deny);
    }

    #[test]
    fn a_long_command_is_read_to_its_end_before_it_is_approved() {
        let mut long = view("hp-1", "pending");
        long.shown.text = (0..60).map(|at| format!("SELECT {at};\n")).collect();
        let digits = long.digest[..4].to_owned();
        let mut sitting = Sitting::with([long]);
        assert_eq!(sitting.press(&format!("a{digits}\r")), Effect::Nothing);
        assert!(sitting.screen().contains("to its end first"));
        for _ in 0..10 {
            sitting.desk.press(Key::PageDown, &sitting.board, SIZE);
            sitting.screen();
        }
        assert!(sitting.screen().contains("SELECT 59;"));
        vote(sitting.press("\r"));
    }

    #[test]
    fn a_window_is_chosen_of_those_that_the_rule_offers() {
        let mut offers = view("hp-1", "pending");
        offers.windows = vec!["session".to_owned(), "10m".to_owned()];
        let digits = offers.digest[..4].to_owned();
        let mut sitting = Sitting::with([offers]);
        sitting.press("a\t\t");
        assert!(sitting.screen().contains("approve it for 10m"));
        let (_, decision) = vote(sitting.press(&format!("{digits}\r")));
        assert_eq!(decision.window.as_deref(), Some("10m"));
    }

    #[test]
    fn one_that_is_decided_meanwhile_is_not_asked_for_any_more() {
        let mut sitting = Sitting::with([view("hp-1", "pending"), view("hp-2", "pending")]);
        sitting.press("dno");
        sitting.board.learn(view("hp-1", "expired"));
        sitting.desk.follow(&sitting.board);
        assert!(sitting.screen().contains("It is expired by now"));
        // The rest of the reason goes nowhere, nor does it open the other one.
        assert_eq!(sitting.press("t quickly, dear\r"), Effect::Nothing);
        assert!(sitting.screen().contains("> hp-2"));
        assert_eq!(sitting.press("\x1b"), Effect::Quit);
    }
}
