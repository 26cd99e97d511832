//! `holdpoint approvals justify`, `break-glass`, `review`, `windows` and what belongs to
//! them: what rules of approval ask for beside votes.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use holdpoint_core::id::ApprovalId;

use super::approvals::{STILL_PENDING, confirmed, safe, write_view};
use super::client::{Client, Refused, ServerArgs};
use super::login::Purpose;
use crate::api::{
    BreakGlassAsked, GlassBroken, Justification, Justified, ReviewClosed, ReviewNote,
    ReviewsListed, WindowClosed, WindowsListed,
};
use crate::approvals::View;

#[derive(Debug, Args)]
pub(super) struct JustifyArgs {
    /// The approval that the refusal named, such as `hp-0123456789BC`
    id: ApprovalId,
    /// Why the command is to run; reviewers read it
    text: String,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct BreakGlassArgs {
    id: ApprovalId,
    #[command(flatten)]
    server: ServerArgs,
    /// Why it cannot wait; recorded, and told to every channel
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Do not ask; for scripts
    #[arg(long)]
    yes: bool,
    /// Refuse unless the command has this digest, or one that begins so
    #[arg(long, value_name = "HEX")]
    digest: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReviewArgs {
    id: ApprovalId,
    #[command(flatten)]
    server: ServerArgs,
    /// What came of it, for the record
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RevokeWindowArgs {
    /// The approval that opened it
    id: ApprovalId,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn justify(args: &JustifyArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, Purpose::Connect)?;
    let said = say_why(&client, &args.id, &args.text).await?;
    let told = format!("{}: reviewers can read it", args.id);
    done_or_sent(args.json, &said, &told, (&args.id, said.node.as_deref()))
}

/// Posts a justification.
pub(super) async fn say_why(
    client: &Client,
    id: &ApprovalId,
    text: &str,
) -> anyhow::Result<Justified> {
    let body = Justification {
        text: text.to_owned(),
    };
    client
        .post(&format!("/v1/approvals/{id}/justification"), &body)
        .await
}

/// As [`say_why`]; that it was said before is no failure.
pub(super) async fn say_why_once(
    client: &Client,
    id: &ApprovalId,
    text: &str,
) -> anyhow::Result<()> {
    match say_why(client, id, text).await {
        Err(error)
            if error
                .downcast_ref::<Refused>()
                .is_some_and(Refused::justified) =>
        {
            eprintln!("it was justified before: the first words stand");
            Ok(())
        }
        other => other.map(|_| ()),
    }
}

pub(super) async fn break_glass(args: &BreakGlassArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, Purpose::Review)?;
    let id = &args.id;
    let view: View = client.get(&format!("/v1/approvals/{id}")).await?;
    write_view(&mut io::stderr().lock(), &view)?;
    if let Some(expected) = &args.digest {
        let expected = expected.to_ascii_lowercase();
        if expected.len() < 8 || !view.digest.starts_with(&expected) {
            bail!("`--digest` is not the digest of this command; nothing was done");
        }
    }
    if !args.yes && !confirmed(&view, "let it run without its reviewers")? {
        bail!("nothing was done");
    }
    let body = BreakGlassAsked {
        digest: view.digest.clone(),
        reason: args.reason.clone(),
    };
    let broken: GlassBroken = client
        .post(&format!("/v1/approvals/{id}/break-glass"), &body)
        .await?;
    let told = format!(
        "{id}: {}; open until somebody else runs `holdpoint approvals review {id}`",
        safe(&broken.state)
    );
    done_or_sent(args.json, &broken, &told, (id, broken.node.as_deref()))
}

pub(super) async fn review(args: &ReviewArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, Purpose::Review)?;
    let body = ReviewNote {
        note: args.note.clone(),
    };
    let closed: ReviewClosed = client
        .post(&format!("/v1/approvals/{}/review", args.id), &body)
        .await?;
    let told = format!("{}: reviewed", args.id);
    done_or_sent(
        args.json,
        &closed,
        &told,
        (&args.id, closed.node.as_deref()),
    )
}

pub(super) async fn reviews(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, Purpose::Review)?;
    let listed: ReviewsListed = client.get("/v1/reviews").await?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &listed.reviews)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    for node in &listed.missing {
        eprintln!(
            "warning: node {} did not answer: its reviews are missing",
            safe(node)
        );
    }
    if listed.reviews.is_empty() {
        eprintln!("nothing to review");
    }
    for item in &listed.reviews {
        writeln!(
            out,
            "{}  {}  {}  by {}: {}{}",
            item.id,
            item.glass.at,
            safe(&item.target),
            safe(&item.glass.label),
            safe(&item.glass.reason),
            match &item.node {
                Some(node) => format!("  at node {}", safe(node)),
                None => String::new(),
            }
        )?;
        writeln!(
            out,
            "  asked by {} under {}",
            safe(&item.principal.label),
            safe(&item.rule)
        )?;
        for line in item.shown.text.split('\n') {
            writeln!(out, "  | {}", safe(line))?;
        }
        for parameter in &item.shown.parameters {
            writeln!(out, "  {}", safe(parameter))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn windows(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, Purpose::Review)?;
    let listed: WindowsListed = client.get("/v1/windows").await?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &listed.windows)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    for node in &listed.missing {
        eprintln!(
            "warning: node {} did not answer: its windows are missing",
            safe(node)
        );
    }
    if listed.windows.is_empty() {
        eprintln!("no window is open");
    }
    for window in &listed.windows {
        let until = match (&window.until, &window.session) {
            (Some(until), None) => format!("until {until}"),
            (Some(until), Some(session)) => format!("until {until} in session {session}"),
            (None, Some(session)) => format!("while session {session} lasts"),
            (None, None) => "without end".to_owned(),
        };
        writeln!(
            out,
            "{}  {}  {}  used {} times  {}{}",
            window.id,
            safe(&window.target),
            safe(&window.principal.label),
            window.uses,
            safe(&until),
            match &window.node {
                Some(node) => format!("  at node {}", safe(node)),
                None => String::new(),
            }
        )?;
        for line in window.shown.text.split('\n') {
            writeln!(out, "  | {}", safe(line))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn revoke_window(args: &RevokeWindowArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, Purpose::Review)?;
    let closed: WindowClosed = client
        .post(&format!("/v1/windows/{}/revoke", args.id), &())
        .await?;
    let at = closed
        .node
        .as_deref()
        .map(|node| format!(" at node {}", safe(node)));
    let told = format!(
        "{}: its window{} is over; the command is held again",
        args.id,
        at.unwrap_or_default()
    );
    done(args.json, &closed, &told)
}

/// As [`done`]; exit code 4 where another node has not answered yet, as for a vote.
fn done_or_sent(
    json: bool,
    answer: &impl serde::Serialize,
    told: &str,
    (id, node): (&ApprovalId, Option<&str>),
) -> anyhow::Result<ExitCode> {
    let Some(node) = node else {
        return done(json, answer, told);
    };
    let sent = format!(
        "{id}: submitted to node {}, which has not answered yet; see `holdpoint approvals show {id}`",
        safe(node)
    );
    done(json, answer, &sent)?;
    Ok(ExitCode::from(STILL_PENDING))
}

fn done(json: bool, answer: &impl serde::Serialize, told: &str) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, answer)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{told}")?;
    }
    Ok(ExitCode::SUCCESS)
}
