//! What waits and what was decided last, as a table.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::approvals::View;
use crate::cli::approvals::{safe, summary};
use crate::cli::style::Style;

/// Decided ones below the table.
const DECIDED: usize = 5;

/// What is known.
#[derive(Default)]
pub(super) struct Board {
    server: String,
    pending: BTreeMap<String, View>,
    /// The newest last.
    decided: Vec<View>,
    pub(super) trouble: Option<String>,
}

impl Board {
    pub(super) fn at(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            ..Self::default()
        }
    }

    /// Gives whether it is news.
    pub(super) fn learn(&mut self, view: View) -> bool {
        let change =
            |old: &View| (old.state != view.state) || (old.votes.len() != view.votes.len());
        if !view.is_decided() {
            let old = self.pending.insert(view.id.clone(), view.clone());
            return old.is_none_or(|old| change(&old));
        }
        let was = self.pending.remove(&view.id).is_some();
        let before = self.decided.iter().position(|old| old.id == view.id);
        let before = before.map(|at| self.decided.remove(at));
        // What was settled before this began is no news, but `approved` then `used` is.
        let news = was || before.as_ref().is_some_and(change);
        if was || before.is_some() {
            self.decided.push(view);
            let many = self.decided.len().saturating_sub(DECIDED * 4);
            self.decided.drain(..many);
        }
        news
    }

    pub(super) fn forget(&mut self, id: &str) {
        self.pending.remove(id);
    }

    pub(super) fn pending_ids(&self) -> Vec<String> {
        self.pending.keys().cloned().collect()
    }

    /// Those that wait, the soonest end first.
    pub(super) fn order(&self) -> Vec<&View> {
        let mut pending: Vec<_> = self.pending.values().collect();
        pending.sort_by(|a, b| (&a.expires_at, &a.id).cmp(&(&b.expires_at, &b.id)));
        pending
    }

    pub(super) fn state_of(&self, id: &str) -> Option<&str> {
        let decided = self.decided.iter().find(|view| view.id == id);
        decided.map(|view| view.state.as_str())
    }

    /// The table, so many columns wide and lines high at most; in sight is the one with the
    /// id `selected`, where keys act on one.
    pub(super) fn table(
        &self,
        now: OffsetDateTime,
        (width, height): (usize, usize),
        style: Style,
        selected: Option<&str>,
    ) -> Vec<String> {
        let waiting = match self.pending.len() {
            0 => "nothing waits".to_owned(),
            1 => "1 waits".to_owned(),
            many => format!("{many} wait"),
        };
        let mut lines = vec![format!(
            "{} at {}  {}",
            style.bold(&waiting),
            safe(&self.server),
            style.dim("(Ctrl-C ends)")
        )];
        if let Some(trouble) = &self.trouble {
            let text = cut(&format!("cut off: {}; trying again", safe(trouble)), width);
            lines.push(style.red(text).to_string());
        }
        let room = height.saturating_sub(lines.len() + 3 + DECIDED).max(1);
        let pending = self.order();
        let mark = |here: bool| match (selected.is_some(), here) {
            (false, _) => "",
            (true, true) => "> ",
            (true, false) => "  ",
        };
        if !pending.is_empty() {
            let head = row(
                ["ID", "LEFT", "TARGET", "CLASS", "WHO", "VOTES", "COMMAND"].map(str::to_owned)
            );
            let head = format!("{}{head}", mark(false));
            lines.push(style.dim(cut(&head, width)).to_string());
        }
        let at = pending
            .iter()
            .position(|view| Some(view.id.as_str()) == selected);
        let skip = at.map_or(0, |at| (at + 1).saturating_sub(room));
        for view in pending.iter().skip(skip).take(room) {
            let here = Some(view.id.as_str()) == selected;
            let left = OffsetDateTime::parse(&view.expires_at, &Rfc3339)
                .map_or(0, |end| (end - now).whole_seconds().max(0));
            let text = row([
                safe(&view.id),
                span(left),
                safe(&view.target),
                safe(&view.shown.class),
                safe(&view.principal.label),
                format!("{}/{}", view.approvals, view.quorum),
                // For the eye; what is decided on is what `show` prints.
                safe(&view.shown.text),
            ]);
            let text = cut(&format!("{}{text}", mark(here)), width);
            lines.push(match (left < 60, here) {
                (true, _) => style.red(text).to_string(),
                (false, true) => style.bold(text).to_string(),
                (false, false) => text,
            });
        }
        if pending.len() > room {
            lines.push(
                style
                    .dim(format!("and {} more", pending.len() - room))
                    .to_string(),
            );
        }
        for view in self.decided.iter().rev().take(DECIDED) {
            let text = cut(&summary(view), width);
            lines.push(style.dim(text).to_string());
        }
        lines
    }
}

fn row(cells: [String; 7]) -> String {
    let [id, left, target, class, who, votes, command] = cells;
    format!(
        "{id:16} {left:>8}  {:12} {:12} {:14} {votes:>5}  {command}",
        cut(&target, 12),
        cut(&class, 12),
        cut(&who, 14)
    )
}

fn span(seconds: i64) -> String {
    match seconds {
        ..=0 => "over".to_owned(),
        1..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Characters beyond ASCII may take two columns.
fn wide(c: char) -> usize {
    if c.is_ascii() { 1 } else { 2 }
}

/// To `width` columns and no further.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().map(wide).sum::<usize>() <= width {
        return text.to_owned();
    }
    let mut taken = 0;
    let mut short: String = (text.chars())
        .take_while(|c| {
            taken += wide(*c);
            taken + 1 < width
        })
        .collect();
    short.push('…');
    short
}

/// Over as many lines as it takes, all of it.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line, mut taken) = (Vec::new(), String::new(), 0);
    for c in text.chars() {
        if taken + wide(c) > width.max(2) {
            lines.push(std::mem::take(&mut line));
            taken = 0;
        }
        taken += wide(c);
        line.push(c);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::watch) fn view(id: &str, state: &str) -> View {
        let draft = crate::approvals::testing::draft("ada\u{1b}[2J", "DROP TABLE t\n-- x", 1);
        let mut view = crate::approvals::testing::view(&draft);
        id.clone_into(&mut view.id);
        state.clone_into(&mut view.state);
        "2026-05-01T10:02:00Z".clone_into(&mut view.expires_at);
        view
    }

    #[test]
    fn a_change_is_told_once_and_the_past_is_no_news() {
        let mut board = Board::default();
        assert!(!board.learn(view("hp-0", "used")));
        assert!(board.learn(view("hp-1", "pending")));
        assert!(!board.learn(view("hp-1", "pending")));
        assert!(board.learn(view("hp-1", "approved")));
        assert!(board.learn(view("hp-1", "used")));
        assert!(!board.learn(view("hp-1", "used")));
    }

    #[test]
    fn the_table_keeps_to_the_screen_and_sends_it_nothing_of_others() {
        let mut board = Board::default();
        for at in 0..50 {
            board.learn(view(&format!("hp-{at:012}"), "pending"));
        }
        let now = OffsetDateTime::parse("2026-05-01T10:00:00Z", &Rfc3339).unwrap();
        let lines = board.table(now, (100, 24), Style::plain(), None);
        assert!(lines.len() <= 24, "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 100));
        assert!(
            lines
                .iter()
                .all(|line| !line.contains('\x1b') && !line.contains('\n'))
        );
        assert!(
            lines
                .iter()
                .any(|line| line.contains("2m00s") && line.contains("DROP TABLE t"))
        );
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("and ") && line.ends_with(" more"))
        );
    }

    #[test]
    fn the_selected_one_is_in_sight_however_many_wait() {
        let mut board = Board::default();
        for at in 0..50 {
            board.learn(view(&format!("hp-{at:012}"), "pending"));
        }
        let now = OffsetDateTime::UNIX_EPOCH;
        let last = "hp-000000000049";
        let lines = board.table(now, (100, 24), Style::plain(), Some(last));
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with(&format!("> {last}")))
        );
        assert_eq!(lines.iter().filter(|line| line.starts_with('>')).count(), 1);
    }

    #[test]
    fn a_wrapped_line_is_all_there() {
        let text = "ab\u{202e}cdéfgh";
        let lines = wrapped(text, 4);
        assert_eq!(lines.concat(), text);
        assert!(
            lines
                .iter()
                .all(|line| line.chars().map(wide).sum::<usize>() <= 4)
        );
    }
}
