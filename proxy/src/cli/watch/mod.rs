//! `holdpoint approvals watch` and `holdpoint watch`: approvals as they come.
//!
//! On a terminal a table that redraws itself, and keys that decide (`desk`); elsewhere a line
//! a change, or JSON. Follows the gateway's stream of events, and goes on where it was after
//! a cut.

mod board;
mod desk;
mod keys;
mod screen;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use self::board::{Board, cut};
use self::desk::{Desk, Effect};
use self::keys::{Key, Keys};
use self::screen::Screen;
use super::approvals::{login_or, safe, summary, told};
use super::client::{Client, LoginNeeded, ServerArgs};
use super::login::Purpose;
use super::sse::{Event, EventStream};
use super::style::Style;
use crate::api::Decided;
use crate::approvals::View;

/// Between attempts to connect again: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// The table's times are kept right.
const TICK: Duration = Duration::from_secs(1);

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
    let mut board = Board::at(&args.server.server);
    let mut shown = Shown {
        json: args.json,
        ring: if terminal { ring } else { Ring::Silent },
        terminal,
        drawn: 0,
        desk: None,
    };
    let mut keys = Keys::none();
    // The first answer comes before the screen is taken: a refusal stays readable.
    let mut stream = Some(client.follow(None).await?);
    if terminal && io::stdin().is_terminal() && can_move() {
        let screen = Screen::enter().context("the terminal cannot be used")?;
        shown.desk = Some((screen, Desk::default()));
        keys = Keys::read();
    }
    let done = tokio::select! {
        done = follow(&client, &mut board, &mut shown, &mut keys, &mut stream) => done,
        ended = ended() => ended,
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Whether the terminal knows how to move its cursor.
fn can_move() -> bool {
    std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Somebody wants this to end. What is on the terminal is put right on the way out.
async fn ended() -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut quit = signal(SignalKind::quit())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = hangup.recv() => {}
        _ = terminate.recv() => {}
        _ = quit.recv() => {}
    }
    Ok(())
}

/// Ends by a key, or by an error that another attempt would meet, too.
async fn follow(
    client: &Client,
    board: &mut Board,
    shown: &mut Shown,
    keys: &mut Keys,
    first: &mut Option<EventStream>,
) -> anyhow::Result<()> {
    let mut last: Option<String> = None;
    let mut pause = PAUSE;
    loop {
        let connected = match first.take() {
            Some(stream) => Ok(stream),
            None => client.follow(last.as_deref()).await,
        };
        let cut = match connected {
            Ok(mut stream) => {
                pause = PAUSE;
                board.trouble = None;
                loop {
                    shown.draw(board)?;
                    tokio::select! {
                        next = stream.next() => match next {
                            Ok(Some(event)) => {
                                last = Some(event.id.clone());
                                take(client, board, shown, &event).await?;
                            }
                            Ok(None) => break "the gateway ended the stream".to_owned(),
                            Err(error) => break format!("{error:#}"),
                        },
                        pressed = keys.next() => {
                            if shown.press(client, board, &pressed).await? {
                                return Ok(());
                            }
                        }
                        () = tokio::time::sleep(TICK) => {}
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
        let until = Instant::now() + pause;
        while Instant::now() < until {
            shown.draw(board)?;
            tokio::select! {
                pressed = keys.next() => {
                    if shown.press(client, board, &pressed).await? {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep_until(until.min(Instant::now() + TICK)) => {}
            }
        }
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

/// What was put out so far.
struct Shown {
    json: bool,
    ring: Ring,
    terminal: bool,
    /// Lines of the table on the terminal.
    drawn: usize,
    /// Where keys decide: the whole screen, and what is on it.
    desk: Option<(Screen, Desk)>,
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
        let (now, style) = (OffsetDateTime::now_utc(), Style::stdout());
        if let Some((screen, desk)) = &mut self.desk {
            desk.follow(board);
            return screen.show(&desk.draw(board, now, size(), style));
        }
        let lines = board.table(now, size(), style, None);
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

    /// Does what keys say. Gives whether that was to end.
    async fn press(
        &mut self,
        client: &Client,
        board: &Board,
        pressed: &[Key],
    ) -> anyhow::Result<bool> {
        for key in pressed {
            let Some((_, desk)) = &mut self.desk else {
                return Ok(false);
            };
            desk.follow(board);
            match desk.press(*key, board, size()) {
                Effect::Nothing => {}
                Effect::Quit => return Ok(true),
                Effect::Vote { id, decision } => {
                    desk.say(format!("{id}: voting…"));
                    self.draw(board)?;
                    let path = format!("/v1/approvals/{id}/decision");
                    let said = match client.post::<Decided>(&path, &decision).await {
                        Ok(decided) => told(&id, &decided),
                        // What a refusal says is for the eye: on one line.
                        Err(error) => format!("{id}: {error:#}").replace('\n', "; "),
                    };
                    if let Some((_, desk)) = &mut self.desk {
                        desk.say(said);
                    }
                }
            }
            // What the next key acts on was on the screen.
            self.draw(board)?;
        }
        Ok(false)
    }
}

/// Columns and lines.
fn size() -> (usize, usize) {
    let size = terminal_size::terminal_size();
    size.map_or((80, 24), |(w, h)| (usize::from(w.0), usize::from(h.0)))
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

    #[test]
    fn a_ring_sends_the_terminal_nothing_of_others() {
        let view = board::tests::view("hp-1", "pending");
        let ring = ringing(Ring::Notify, &view);
        assert_eq!(ring.matches('\x1b').count(), 2, "{ring:?}");
    }
}
