//! `holdpoint approvals watch` and `holdpoint watch`: approvals as they come.
//!
//! On a terminal a table that redraws itself; elsewhere a line a change, or JSON. Follows the
//! gateway's stream of events, and goes on where it was after a cut.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::approvals::{login_or, safe, summary};
use super::client::{Client, LoginNeeded, ServerArgs};
use super::login::Purpose;
use super::sse::Event;
use super::style::Style;
use crate::approvals::View;

/// Between attempts to connect again: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// The table's times are kept right.
const TICK: Duration = Duration::from_secs(1);

/// Decided ones below the table.
const DECIDED: usize = 5;

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON, one line a change
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RingArgs {
    #[command(flatten)]
    watch: WatchArgs,
    /// Ring the bell only, without the terminal's notification (OSC 9)
    #[arg(long)]
    bell: bool,
}

impl RingArgs {
    /// # Errors
    /// The gateway cannot be asked, or refuses.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let ring = if self.bell { Ring::Bell } else { Ring::Notify };
        let runtime = super::runtime()?;
        login_or(runtime.block_on(watch(&self.watch, ring)))
    }
}

/// What happens, on a terminal, when something new waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ring {
    Silent,
    Bell,
    Notify,
}

pub(super) async fn watch(args: &WatchArgs, ring: Ring) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, Purpose::Review)?;
    let terminal = io::stdout().is_terminal() && !args.json;
    let mut board = Board {
        server: args.server.server.clone(),
        ..Board::default()
    };
    let mut shown = Shown {
        json: args.json,
        ring: if terminal { ring } else { Ring::Silent },
        terminal,
        drawn: 0,
    };
    let done = tokio::select! {
        done = follow(&client, &mut board, &mut shown) => done,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Ends only by an error that another attempt would meet, too.
async fn follow(client: &Client, board: &mut Board, shown: &mut Shown) -> anyhow::Result<()> {
    let mut last: Option<String> = None;
    let mut pause = PAUSE;
    loop {
        let cut = match client.follow(last.as_deref()).await {
            Ok(mut stream) => {
                pause = PAUSE;
                board.trouble = None;
                loop {
                    shown.draw(board)?;
                    let next = tokio::time::timeout(TICK, stream.next()).await;
                    match next {
                        Err(_) => {}
                        Ok(Ok(Some(event))) => {
                            last = Some(event.id.clone());
                            take(client, board, shown, &event).await?;
                        }
                        Ok(Ok(None)) => break "the gateway ended the stream".to_owned(),
                        Ok(Err(error)) => break format!("{error:#}"),
                    }
                }
            }
            Err(error) if error.is::<LoginNeeded>() || last.is_none() => return Err(error),
            Err(error) => format!("{error:#}"),
        };
        if !shown.terminal {
            eprintln!("{cut}; trying again");
        }
        board.trouble = Some(cut);
        shown.draw(board)?;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONG_PAUSE);
    }
}

async fn take(
    client: &Client,
    board: &mut Board,
    shown: &mut Shown,
    event: &Event,
) -> anyhow::Result<()> {
    match event.name.as_str() {
        "approval" => {
            let view: View = serde_json::from_str(&event.data)
                .context("the gateway sent an approval that cannot be read")?;
            if board.learn(view.clone()) {
                shown.change(&view)?;
            }
        }
        "reset" => {
            // What became of those that were pending; what follows tells of the others.
            for id in board.pending_ids() {
                let Ok(view) = client.get::<View>(&format!("/v1/approvals/{id}")).await else {
                    board.forget(&id);
                    continue;
                };
                if board.learn(view.clone()) {
                    shown.change(&view)?;
                }
            }
        }
        // Of a later version.
        _ => {}
    }
    Ok(())
}

/// What is known.
#[derive(Default)]
struct Board {
    server: String,
    pending: BTreeMap<String, View>,
    /// The newest last.
    decided: Vec<View>,
    trouble: Option<String>,
}

impl Board {
    /// Gives whether it is news.
    fn learn(&mut self, view: View) -> bool {
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

    fn forget(&mut self, id: &str) {
        self.pending.remove(id);
    }

    fn pending_ids(&self) -> Vec<String> {
        self.pending.keys().cloned().collect()
    }

    /// The table, `width` columns wide and `height` lines at most.
    fn table(&self, now: OffsetDateTime, width: usize, height: usize, style: Style) -> Vec<String> {
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
        let mut pending: Vec<_> = self.pending.values().collect();
        pending.sort_by(|a, b| (&a.expires_at, &a.id).cmp(&(&b.expires_at, &b.id)));
        if !pending.is_empty() {
            let head = row(
                ["ID", "LEFT", "TARGET", "CLASS", "WHO", "VOTES", "COMMAND"].map(str::to_owned)
            );
            lines.push(style.dim(cut(&head, width)).to_string());
        }
        for view in pending.iter().take(room) {
            let left = OffsetDateTime::parse(&view.expires_at, &Rfc3339)
                .map_or(0, |end| (end - now).whole_seconds().max(0));
            let text = cut(
                &row([
                    safe(&view.id),
                    span(left),
                    safe(&view.target),
                    safe(&view.shown.class),
                    safe(&view.principal.label),
                    format!("{}/{}", view.approvals, view.quorum),
                    // For the eye; what is decided on is what `show` prints.
                    safe(&view.shown.text),
                ]),
                width,
            );
            lines.push(if left < 60 {
                style.red(text).to_string()
            } else {
                text
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

/// To `width` columns. Characters beyond ASCII may take two.
fn cut(text: &str, width: usize) -> String {
    let wide = |c: char| if c.is_ascii() { 1 } else { 2 };
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

/// What was put out so far.
struct Shown {
    json: bool,
    ring: Ring,
    terminal: bool,
    /// Lines of the table on the terminal.
    drawn: usize,
}

impl Shown {
    fn change(&mut self, view: &View) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, view)?;
            writeln!(out)?;
        } else if !self.terminal {
            writeln!(out, "{}", summary(view))?;
        } else if !view.is_decided() && view.votes.is_empty() {
            out.write_all(ringing(self.ring, view).as_bytes())?;
        }
        out.flush()
    }

    fn draw(&mut self, board: &Board) -> io::Result<()> {
        if !self.terminal {
            return Ok(());
        }
        let size = terminal_size::terminal_size();
        let (width, height) = size.map_or((80, 24), |(w, h)| (usize::from(w.0), usize::from(h.0)));
        let lines = board.table(OffsetDateTime::now_utc(), width, height, Style::stdout());
        let mut out = io::stdout().lock();
        if self.drawn > 0 {
            write!(out, "\x1b[{}A", self.drawn)?;
        }
        for line in &lines {
            writeln!(out, "\r{line}\x1b[K")?;
        }
        write!(out, "\x1b[J")?;
        self.drawn = lines.len();
        out.flush()
    }
}

/// What makes a terminal call somebody.
fn ringing(ring: Ring, view: &View) -> String {
    match ring {
        Ring::Silent => String::new(),
        Ring::Bell => "\x07".to_owned(),
        Ring::Notify => {
            // Made harmless: a terminal acts on what is in it.
            let text = format!(
                "holdpoint: {} asks on {} ({})",
                safe(&view.principal.label),
                safe(&view.target),
                safe(&view.shown.class)
            );
            format!("\x07\x1b]9;{}\x1b\\", cut(&text, 120))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str, state: &str) -> View {
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
        let lines = board.table(now, 100, 24, Style::plain());
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
        let ring = ringing(Ring::Notify, &view("hp-1", "pending"));
        assert_eq!(ring.matches('\x1b').count(), 2, "{ring:?}");
    }
}
