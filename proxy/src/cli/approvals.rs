//! `holdpoint approvals`: the reviewer's side.
//!
//! What is decided is what was shown: the command is fetched, printed whole, and
//! its digest goes back with the vote.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use holdpoint_core::display::{escape, escape_line};
use holdpoint_core::id::ApprovalId;

use super::client::{Client, LoginNeeded, ServerArgs};
use super::login::Purpose;
use super::rules;
use super::watch::{Ring, WatchArgs, watch};
use crate::api::{Choice, Decided, Decision, Listed, Notifications};
use crate::approvals::View;

const LOGIN_NEEDED: u8 = 3;
pub(super) const STILL_PENDING: u8 = 4;

#[derive(Debug, Subcommand)]
pub(super) enum ApprovalsCommand {
    /// List approvals
    List(ListArgs),
    /// Show one approval with the whole command
    Show(ShowArgs),
    /// Let a held command run
    Approve(ApproveArgs),
    /// Refuse a held command; the agent is told the reason
    Deny(DenyArgs),
    /// Show approvals as they come: a table on a terminal, a line a change elsewhere
    Watch(WatchArgs),
    /// Say why your own held command is to run, where its rule asks
    Justify(rules::JustifyArgs),
    /// Let a held command run at once, in an emergency; others review it afterwards
    BreakGlass(rules::BreakGlassArgs),
    /// List what ran by a broken glass and was not reviewed
    Reviews(rules::ListArgs),
    /// Close the review of what ran by a broken glass
    Review(rules::ReviewArgs),
    /// List commands that may run again without asking
    Windows(rules::ListArgs),
    /// End such a window
    RevokeWindow(rules::RevokeWindowArgs),
    /// Show which channels are told, and what did not arrive
    Deliveries(DeliveriesArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Those in another state too
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The approval, such as `hp-0123456789BC`
    id: ApprovalId,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    id: ApprovalId,
    #[command(flatten)]
    server: ServerArgs,
    /// Do not ask; for scripts
    #[arg(long)]
    yes: bool,
    /// Refuse unless the command has this digest, or one that begins so
    #[arg(long, value_name = "HEX")]
    digest: Option<String>,
    /// A note for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Let it run other than once, as its rule offers: `session`, or a time such as `10m`
    #[arg(long = "for", value_name = "WINDOW")]
    window: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DenyArgs {
    id: ApprovalId,
    #[command(flatten)]
    server: ServerArgs,
    /// Why; the agent is told
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
pub(super) struct DeliveriesArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ApprovalsCommand {
    /// # Errors
    /// The gateway cannot be asked, or refuses.
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let done = runtime.block_on(async {
            match self {
                Self::List(args) => list(&args).await,
                Self::Show(args) => show(&args).await,
                Self::Approve(args) => {
                    let decision = Vote {
                        choice: Choice::Approve,
                        reason: args.reason,
                        window: args.window,
                        digest: args.digest,
                        yes: args.yes,
                        json: args.json,
                    };
                    decide(&args.server, &args.id, decision).await
                }
                Self::Deny(args) => {
                    let decision = Vote {
                        choice: Choice::Deny,
                        reason: Some(args.reason),
                        window: None,
                        digest: args.digest,
                        yes: args.yes,
                        json: args.json,
                    };
                    decide(&args.server, &args.id, decision).await
                }
                Self::Watch(args) => watch(&args, Ring::Silent).await,
                Self::Justify(args) => rules::justify(&args).await,
                Self::BreakGlass(args) => rules::break_glass(&args).await,
                Self::Reviews(args) => rules::reviews(&args).await,
                Self::Review(args) => rules::review(&args).await,
                Self::Windows(args) => rules::windows(&args).await,
                Self::RevokeWindow(args) => rules::revoke_window(&args).await,
                Self::Deliveries(args) => deliveries(&args).await,
            }
        });
        login_or(done)
    }
}

/// Exit code 3 where a login is what is missing.
pub(super) fn login_or(done: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match done {
        Err(error) if error.is::<LoginNeeded>() => {
            eprintln!("error: {error}");
            Ok(ExitCode::from(LOGIN_NEEDED))
        }
        done => done,
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, Purpose::Review)?;
    let path = if args.all {
        "/v1/approvals"
    } else {
        "/v1/approvals?state=pending"
    };
    let listed: Listed = client.get(path).await?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &listed.approvals)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if listed.approvals.is_empty() {
        eprintln!("nothing to decide");
    }
    for view in &listed.approvals {
        writeln!(out, "{}", summary(view))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line; `show` has the rest. A decision is never taken over this line alone.
pub(super) fn summary(view: &View) -> String {
    let text = safe(&view.shown.text);
    let head: String = text.chars().take(60).collect();
    let more = if head.len() < text.len() { " …" } else { "" };
    format!(
        "{}  {:9}  {}  {}  {}/{}  until {}  {head}{more}",
        safe(&view.id),
        safe(&view.state),
        safe(&view.target),
        safe(&view.principal.label),
        view.approvals,
        view.quorum,
        safe(&view.expires_at),
    )
}

async fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, Purpose::Review)?;
    let view: View = client.get(&format!("/v1/approvals/{}", args.id)).await?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &view)?;
        writeln!(out)?;
    } else {
        write_view(&mut out, &view)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn deliveries(args: &DeliveriesArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server, Purpose::Review)?;
    let told: Notifications = client.get("/v1/notifications").await?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &told)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if told.channels.is_empty() {
        eprintln!("no channel is configured: nobody is told of held commands");
    }
    for one in &told.channels {
        writeln!(
            out,
            "{}  {} delivered  {} given up  {} under way",
            safe(&one.channel),
            one.accepted,
            one.undelivered,
            one.under_way
        )?;
    }
    for one in &told.undelivered {
        writeln!(
            out,
            "{}  {}  {}  to {}  after {} attempt(s): {}",
            one.at,
            one.approval,
            one.message,
            safe(one.channel.as_deref().unwrap_or("no channel")),
            one.attempts,
            safe(&one.error)
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Vote {
    choice: Choice,
    reason: Option<String>,
    window: Option<String>,
    digest: Option<String>,
    yes: bool,
    json: bool,
}

async fn decide(server: &ServerArgs, id: &ApprovalId, vote: Vote) -> anyhow::Result<ExitCode> {
    let client = Client::new(server, Purpose::Review)?;
    let view: View = client.get(&format!("/v1/approvals/{id}")).await?;
    // On standard error: with `--json` the result alone is on standard output.
    write_view(&mut io::stderr().lock(), &view)?;
    if let Some(expected) = &vote.digest {
        let expected = expected.to_ascii_lowercase();
        if expected.len() < 8 || !view.digest.starts_with(&expected) {
            bail!("`--digest` is not the digest of this command; nothing was decided");
        }
    }
    let word = match vote.choice {
        Choice::Approve => "approve",
        Choice::Deny => "deny",
    };
    if !vote.yes && !confirmed(&view, &format!("{word} it"))? {
        bail!("nothing was decided");
    }
    let body = Decision {
        decision: vote.choice,
        digest: view.digest.clone(),
        reason: vote.reason,
        window: vote.window,
    };
    let decided: Decided = client
        .post(&format!("/v1/approvals/{id}/decision"), &body)
        .await?;
    let mut out = io::stdout().lock();
    if vote.json {
        serde_json::to_writer_pretty(&mut out, &decided)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", told(id.as_str(), &decided))?;
    }
    if decided.node.is_some() {
        return Ok(ExitCode::from(STILL_PENDING));
    }
    Ok(ExitCode::SUCCESS)
}

/// What came of a vote, in a line.
pub(super) fn told(id: &str, decided: &Decided) -> String {
    if let Some(node) = &decided.node {
        return format!(
            "{id}: submitted to node {}, which has not answered yet; see `holdpoint approvals show {id}`",
            safe(node)
        );
    }
    match decided.outcome.as_str() {
        "counted" => format!("{id}: counted, {} of {}", decided.approvals, decided.quorum),
        "advanced" => format!(
            "{id}: counted; step {} of {} is asked now",
            decided.step, decided.steps
        ),
        _ => format!("{id}: {}", safe(&decided.state)),
    }
}

/// Asks for the first digits of the digest, which nobody types by reflex.
pub(super) fn confirmed(view: &View, what: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("standard input is no terminal: give `--yes`, and `--digest` to be sure");
    }
    let start = view.digest.get(..4).unwrap_or_default();
    eprint!("To {what}, type the first four digits of its digest ({start}): ");
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(!start.is_empty() && line.trim().eq_ignore_ascii_case(start))
}

/// Everything a decision needs. The gateway has escaped the command; it is
/// escaped again only where that shows what a hostile gateway did not.
pub(super) fn write_view(out: &mut impl io::Write, view: &View) -> io::Result<()> {
    let principal = &view.principal;
    writeln!(
        out,
        "approval    {} ({})",
        safe(&view.id),
        safe(&view.state)
    )?;
    writeln!(out, "target      {}", safe(&view.target))?;
    writeln!(
        out,
        "asked by    {} {} ({} at {})",
        safe(&principal.kind),
        safe(&principal.label),
        safe(&principal.subject),
        safe(&principal.issuer),
    )?;
    for owner in &principal.owners {
        writeln!(
            out,
            "  owner     {} at {}",
            safe(&owner.subject),
            safe(&owner.issuer)
        )?;
    }
    for actor in &principal.actors {
        writeln!(
            out,
            "  through   {} at {}",
            safe(&actor.subject),
            safe(&actor.issuer)
        )?;
    }
    if let Some(node) = &view.node {
        writeln!(out, "held by     node {}", safe(node))?;
    }
    writeln!(out, "rule        {}", safe(&view.rule))?;
    if let Some(reason) = &view.reason {
        writeln!(out, "  because   {}", safe(reason))?;
    }
    write_steps(out, view)?;
    match (&view.justification, view.justify) {
        (Some(text), _) => {
            writeln!(out, "why, as the requester says:")?;
            for line in text.split('\n') {
                writeln!(out, "  > {}", terminal(line))?;
            }
        }
        (None, true) => writeln!(
            out,
            "why         not said yet; it cannot be approved before"
        )?,
        (None, false) => {}
    }
    if !view.windows.is_empty() {
        writeln!(
            out,
            "may be      approved once, or `--for` {}",
            safe(&view.windows.join(", "))
        )?;
    }
    if let Some(max) = &view.step_up {
        writeln!(
            out,
            "step-up     approving takes a sign-in of the last {}: `holdpoint login --review --max-age {0}`",
            safe(max)
        )?;
    }
    if view.webauthn {
        writeln!(
            out,
            "signed      approving takes your security key, in the console"
        )?;
    }
    for set in &view.break_glass {
        writeln!(out, "glass       may be broken by {}", safe(set))?;
    }
    if let Some(glass) = &view.glass {
        let open = match &glass.reviewed_by {
            Some(by) => format!("reviewed by {}", safe(&by.subject)),
            None => "not reviewed yet".to_owned(),
        };
        writeln!(
            out,
            "GLASS       broken by {}: {} ({open})",
            safe(&glass.label),
            safe(&glass.reason)
        )?;
    }
    writeln!(out, "until       {}", safe(&view.expires_at))?;
    let shown = &view.shown;
    let sure = if shown.proven {
        ""
    } else {
        " (the parser is not sure)"
    };
    writeln!(out, "does        {}{sure}", safe(&shown.class))?;
    for object in &shown.objects {
        writeln!(out, "  object    {}", safe(object))?;
    }
    for effect in &shown.effects {
        writeln!(out, "  effect    {}", safe(effect))?;
    }
    if shown.in_transaction {
        writeln!(out, "  inside of an open transaction")?;
    }
    for pair in &shown.context {
        writeln!(out, "  setting   {}", safe(&pair.join(" = ")))?;
    }
    for delivery in view.deliveries.iter().filter(|delivery| !delivery.accepted) {
        let why = delivery.error.as_deref().unwrap_or("under way");
        writeln!(
            out,
            "not told    {}: {}",
            safe(&delivery.channel),
            safe(why)
        )?;
    }
    if let Some(denial) = &view.denial {
        writeln!(
            out,
            "denied by   {}: {}",
            safe(&denial.label),
            safe(&denial.reason)
        )?;
    }
    writeln!(
        out,
        "journal     {}/{}",
        view.journal.size,
        safe(&view.journal.root8)
    )?;
    writeln!(out, "digest      {}", safe(&view.digest))?;
    let (lines, bytes) = (shown.text.lines().count(), shown.text.len());
    let s = if lines == 1 { "" } else { "s" };
    writeln!(
        out,
        "command     {lines} line{s}, {bytes} bytes, all of it:"
    )?;
    for line in shown.text.split('\n') {
        writeln!(out, "  | {}", terminal(line))?;
    }
    for parameter in &shown.parameters {
        writeln!(out, "  {}", safe(parameter))?;
    }
    Ok(())
}

fn write_steps(out: &mut impl io::Write, view: &View) -> io::Result<()> {
    writeln!(out, "approvals   {} of {}", view.approvals, view.quorum)?;
    if view.steps.len() < 2 {
        for set in &view.reviewers {
            writeln!(out, "  by        {}", safe(set))?;
        }
    }
    for (number, step) in view.steps.iter().enumerate() {
        if view.steps.len() > 1 {
            writeln!(
                out,
                "  step {}    {}: {} of {} by {}",
                number + 1,
                safe(&step.state),
                step.approvals,
                step.quorum,
                safe(&step.reviewers.join(", "))
            )?;
        }
        if let Some(more) = &step.escalation {
            let when = match (&more.at, more.done) {
                (_, true) => "asked too".to_owned(),
                (Some(at), _) => format!("may decide from {at} on"),
                (None, _) => format!("may decide after {}", more.after),
            };
            writeln!(
                out,
                "  also      {}: {}",
                safe(&more.reviewers.join(", ")),
                safe(&when)
            )?;
        }
    }
    Ok(())
}

/// Text that is on one line and harmless to a terminal. What is so already stays as it is.
pub(super) fn safe(text: &str) -> String {
    let line = |text: &str| text.chars().any(|c| c == '\n' || c == '\t');
    if line(text) {
        escape_line(text.as_bytes())
    } else {
        terminal(text)
    }
}

/// The text as it is where escaping would change backslashes only.
fn terminal(text: &str) -> String {
    let escaped = escape(text.as_bytes());
    let bare = |text: &str| text.chars().filter(|c| *c != '\\').collect::<String>();
    if bare(&escaped) == bare(text) {
        text.to_owned()
    } else {
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_escaped_already_is_printed_as_it_is() {
        let text = "SELECT '\\u{202e}', '\\\\x41'";
        assert_eq!(terminal(text), text);
    }

    #[test]
    fn a_gateway_that_does_not_escape_cannot_move_the_cursor() {
        assert_eq!(terminal("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(safe("a\nb"), "a\\u{a}b");
    }
}
