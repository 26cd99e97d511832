//! Between the interface's types and the core's, and the checks on the way in.
//!
//! A guest's values are not to be trusted: each number is compared with what it
//! counts or points into. Whether a frame is still held is for the gate to know;
//! here it must at least have been shown.

use bytes::Bytes;
use holdpoint_core::command::{Command, Confidence, Object, Operation, Parameter};
use holdpoint_core::denial::{Denial, Kind};
use holdpoint_core::framing::{Delivery, Filter, Layout, LengthPrefixed, Side};
use holdpoint_core::mask::{Edit, RowRule, Rows};
use holdpoint_core::plugin::{
    Action, Completion, CredentialFrame, CredentialSlot, Descriptor, Frame, IdentityOutcome, Setup,
    Submission, Subscribe, Verdict,
};

use crate::bindings::{framing, protocol, types};
use crate::kept::Kept;

/// Actions that one call may give, beside a few for each frame it was shown.
const MAX_ACTIONS: usize = 64;
const ACTIONS_PER_FRAME: usize = 4;
const MAX_CLASSES: usize = 256;
const MAX_NAME: usize = 64;
const MAX_CANCEL: usize = 1024;
/// Long enough to give something up, and for little else.
const MAX_UNDO: usize = 64;

/// What is wrong with a value, in words for the operator.
pub(crate) type Wrong = String;

/// What the host knows of a session when it reads a plugin's answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// The highest number among the frames shown.
    pub(crate) last: u64,
    pub(crate) frames: usize,
}

pub(crate) fn setup(setup: Setup) -> protocol::Setup {
    protocol::Setup {
        settings: setup.settings,
        client_tls: setup.client_tls,
        entropy: setup.entropy.to_vec(),
    }
}

pub(crate) fn side_out(side: Side) -> framing::Side {
    match side {
        Side::Client => framing::Side::Client,
        Side::Upstream => framing::Side::Upstream,
    }
}

fn side(side: framing::Side) -> Side {
    match side {
        framing::Side::Client => Side::Client,
        framing::Side::Upstream => Side::Upstream,
    }
}

pub(crate) fn frame(frame: &Frame) -> protocol::Frame {
    protocol::Frame {
        seq: frame.seq,
        kind: frame.kind,
        body: frame.body.to_vec(),
    }
}

pub(crate) fn refusal(denial: &Denial) -> types::Refusal {
    types::Refusal {
        kind: match denial.kind {
            Kind::Denied => types::RefusalKind::Denied,
            Kind::Pending => types::RefusalKind::Pending,
            Kind::Expired => types::RefusalKind::Expired,
            Kind::Unauthenticated => types::RefusalKind::Unauthenticated,
            Kind::Malformed => types::RefusalKind::Malformed,
            Kind::Unavailable => types::RefusalKind::Unavailable,
        },
        code: denial.code.clone(),
        message: denial.message.clone(),
        detail: denial.detail.clone(),
        hint: denial.hint.clone(),
    }
}

pub(crate) fn identity(outcome: &IdentityOutcome) -> protocol::IdentityOutcome {
    match outcome {
        IdentityOutcome::Accepted {
            subject,
            label,
            groups,
        } => protocol::IdentityOutcome::Accepted(protocol::Identity {
            subject: subject.clone(),
            label: label.clone(),
            groups: groups.clone(),
        }),
        IdentityOutcome::Refused(denial) => protocol::IdentityOutcome::Refused(refusal(denial)),
    }
}

pub(crate) fn verdict(verdict: &Verdict) -> protocol::Verdict {
    match verdict {
        Verdict::Forwarded => protocol::Verdict::Forwarded,
        Verdict::Refused(denial) => protocol::Verdict::Refused(refusal(denial)),
    }
}

pub(crate) fn descriptor(from: protocol::Descriptor) -> Result<Descriptor, Wrong> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if from.name.is_empty() || from.name.len() > MAX_NAME || !from.name.chars().all(plain) {
        return Err(format!(
            "its name {:?} is not 1 to {MAX_NAME} of a-z, 0-9 and `-`",
            from.name
        ));
    }
    if from.version.len() > MAX_NAME || from.version.chars().any(char::is_control) {
        return Err("its version is not a short line".to_owned());
    }
    if from
        .direct_tls_alpn
        .as_ref()
        .is_some_and(|alpn| alpn.is_empty() || alpn.len() > 255)
    {
        return Err("its ALPN name is not 1 to 255 bytes".to_owned());
    }
    if from
        .undo
        .as_ref()
        .is_some_and(|undo| undo.is_empty() || undo.len() > MAX_UNDO)
    {
        return Err(format!("its `undo` is not 1 to {MAX_UNDO} bytes"));
    }
    let unique: std::collections::BTreeSet<&String> = from.classes.iter().collect();
    if unique.len() != from.classes.len()
        || from.classes.len() > MAX_CLASSES
        || from.classes.iter().any(String::is_empty)
    {
        return Err(format!(
            "its classes are not up to {MAX_CLASSES} different words"
        ));
    }
    Ok(Descriptor {
        name: from.name,
        version: from.version,
        default_port: from.default_port,
        direct_tls_alpn: from.direct_tls_alpn,
        client_layout: layout(from.client_layout)?,
        upstream_layout: layout(from.upstream_layout)?,
        subscriptions: from.subscriptions.into_iter().map(subscribe).collect(),
        classes: from.classes.into(),
        undo: from.undo.map(Bytes::from),
    })
}

fn layout(from: framing::Layout) -> Result<Layout, Wrong> {
    let layout = match from {
        framing::Layout::LengthPrefixed(l) => Layout::LengthPrefixed(LengthPrefixed {
            header: l.header,
            kind_offset: l.kind_offset,
            length_offset: l.length_offset,
            length_width: l.length_width,
            little_endian: l.little_endian,
            adjust: l.adjust,
        }),
        framing::Layout::Delimited(end) => Layout::Delimited(end),
        framing::Layout::Raw => Layout::Raw,
    };
    layout.check().map_err(|error| error.to_string())?;
    Ok(layout)
}

fn subscribe(from: framing::Subscription) -> Subscribe {
    let filter = |from: framing::Filter| Filter {
        kinds: from.kinds,
        delivery: match from.delivery {
            framing::Delivery::Whole => Delivery::Whole,
            framing::Delivery::Pass => Delivery::Pass,
        },
        judged: from.judged,
        max_frame: from.max_frame,
    };
    Subscribe {
        side: side(from.origin),
        filters: from.filters.into_iter().map(filter).collect(),
        otherwise: match from.otherwise {
            framing::Otherwise::Whole => Delivery::Whole,
            framing::Otherwise::Pass => Delivery::Pass,
            framing::Otherwise::Reject => Delivery::Reject,
        },
    }
}

pub(crate) fn actions(
    from: Vec<protocol::Action>,
    shown: Shown,
    kept: &mut Kept,
) -> Result<Vec<Action>, Wrong> {
    let most = MAX_ACTIONS + ACTIONS_PER_FRAME * shown.frames;
    if from.len() > most {
        return Err(format!(
            "{} actions in one answer; {most} are allowed here",
            from.len()
        ));
    }
    let mut actions = Vec::with_capacity(from.len());
    for from in from {
        actions.extend(action(from, shown, kept)?);
    }
    Ok(actions)
}

/// `None` for what only the host hears.
fn action(from: protocol::Action, shown: Shown, kept: &mut Kept) -> Result<Option<Action>, Wrong> {
    use protocol::Action as From;

    Ok(Some(match from {
        From::Pass(seq) => Action::Pass(seen(seq, shown)?),
        From::Drop(seq) => Action::Drop(seen(seq, shown)?),
        From::ToClient(bytes) => Action::ToClient(bytes.into()),
        From::ToUpstream(bytes) => Action::ToUpstream(bytes.into()),
        From::Submit(mut submission) => {
            let (first, last) = (
                seen(submission.first, shown)?,
                seen(submission.last, shown)?,
            );
            if first > last {
                return Err(format!("a command of the frames {first} to {last}"));
            }
            let told = std::mem::take(&mut submission.command.operations);
            let operations = kept.operations.of(submission.recall, told)?;
            Action::Submit(Box::new(Submission {
                first,
                last,
                command: Command {
                    operations,
                    ..command(submission.command)?
                },
                notify: submission.notify,
                undo: submission.undo,
            }))
        }
        From::Completed(done) => Action::Completed(Completion {
            commands: done.commands,
            status: done.status,
            failed: done.failed,
            rows: done.rows,
        }),
        From::Subscribe(subscription) => Action::Subscribe(subscribe(subscription)),
        From::Reframe((origin, to)) => Action::Reframe(side(origin), layout(to)?),
        From::Rows((kind, plan)) => Action::Rows(RowRule {
            kind,
            rows: rows(plan)?,
        }),
        From::StartTls(origin) => Action::StartTls(side(origin)),
        From::TakeCredential(slot) => Action::TakeCredential(CredentialSlot {
            kind: slot.kind,
            skip: slot.skip,
            nul_terminated: slot.nul_terminated,
        }),
        From::Connect => Action::Connect,
        From::GiveCredential(frame) => Action::GiveCredential(credential(frame)?),
        From::Ready => Action::Ready,
        From::RegisterCancel(cancel) => {
            if cancel.packet.len() > MAX_CANCEL {
                return Err(format!("a cancel packet of {} bytes", cancel.packet.len()));
            }
            Action::RegisterCancel {
                key: cancel_key(cancel.key)?,
                packet: cancel.packet,
            }
        }
        From::Cancel(key) => Action::Cancel(cancel_key(key)?),
        From::Close => Action::Close,
        From::Forecast(forecast) => {
            kept.forecasts.keep(forecast, &kept.operations)?;
            return Ok(None);
        }
        From::Expect(numbers) => {
            kept.forecasts.expect(numbers)?;
            return Ok(None);
        }
    }))
}

fn rows(from: framing::RowPlan) -> Result<Rows, Wrong> {
    let edit = match from {
        framing::RowPlan::Refuse => return Ok(Rows::Refuse),
        framing::RowPlan::Unchanged => return Ok(Rows::Pass),
        framing::RowPlan::Edit(edit) => edit,
    };
    let number = |number: u32| {
        u16::try_from(number).map_err(|_| format!("a row with a field number {number}"))
    };
    let masked = edit.masked.into_iter().map(|field| {
        let with = field.replacement.map(Bytes::from);
        Ok((number(field.index)?, with))
    });
    let masked = masked.collect::<Result<Vec<_>, Wrong>>()?;
    Edit::new(number(edit.fields)?, masked)
        .map(Rows::Edit)
        .map_err(|error| error.to_string())
}

fn seen(seq: u64, shown: Shown) -> Result<u64, Wrong> {
    if shown.frames == 0 || seq > shown.last {
        return Err(format!("frame {seq} was never shown"));
    }
    Ok(seq)
}

/// An empty key would be everybody's.
fn cancel_key(key: Vec<u8>) -> Result<Vec<u8>, Wrong> {
    if key.is_empty() || key.len() > MAX_CANCEL {
        return Err(format!("a cancel key of {} bytes", key.len()));
    }
    Ok(key)
}

fn credential(from: framing::CredentialFrame) -> Result<CredentialFrame, Wrong> {
    if let Some((offset, width)) = from.length
        && (width == 0 || width > 4 || usize::from(offset) + usize::from(width) > from.before.len())
    {
        return Err("the length of a password frame lies outside of it".to_owned());
    }
    Ok(CredentialFrame {
        before: from.before,
        after: from.after,
        length: from.length,
    })
}

pub(crate) fn command(from: types::Command) -> Result<Command, Wrong> {
    let mut secrets: Vec<(u32, u32)> = from
        .secrets
        .iter()
        .map(|span| (span.start, span.end))
        .collect();
    secrets.sort_unstable();
    let mut free = 0;
    for (start, end) in &secrets {
        if *start < free || end < start || *end as usize > from.text.len() {
            return Err(format!(
                "a secret at {start} to {end} of {} bytes",
                from.text.len()
            ));
        }
        free = *end;
    }
    Ok(Command {
        operations: from.operations.into_iter().map(operation).collect(),
        text: from.text.into(),
        parameters: from.parameters.into_iter().map(parameter).collect(),
        secrets,
        context: from.context,
        in_transaction: from.in_transaction,
        canonical: from.canonical.map(Bytes::from),
        reject: from.reject,
        wire: Bytes::new(),
    })
}

pub(crate) fn operation(from: types::Operation) -> Operation {
    let object = |from: types::Object| Object {
        kind: from.kind,
        schema: from.schema,
        name: from.name,
        access: from.access,
    };
    Operation {
        class: from.class,
        effects: from.effects,
        objects: from.objects.into_iter().map(object).collect(),
        functions: from.functions,
        unknown_functions: from.unknown_functions,
        confidence: match from.confidence {
            types::Confidence::Proven => Confidence::Proven,
            types::Confidence::Unknown => Confidence::Unknown,
        },
        housekeeping: from.housekeeping,
        facts: from.facts,
    }
}

fn parameter(from: types::Parameter) -> Parameter {
    Parameter {
        type_name: from.type_name,
        binary: from.binary,
        value: from.value.map(Bytes::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: Shown = Shown { last: 7, frames: 2 };

    fn text(text: &[u8], secrets: &[(u32, u32)]) -> types::Command {
        types::Command {
            operations: Vec::new(),
            text: text.to_vec(),
            parameters: Vec::new(),
            secrets: secrets
                .iter()
                .map(|(start, end)| types::Span {
                    start: *start,
                    end: *end,
                })
                .collect(),
            context: Vec::new(),
            in_transaction: false,
            canonical: None,
            reject: None,
        }
    }

    #[test]
    fn secrets_outside_the_text_or_over_each_other_are_refused() {
        assert_eq!(
            command(text(b"abcd", &[(2, 4), (0, 1)])).unwrap().secrets,
            [(0, 1), (2, 4)]
        );
        for wrong in [&[(0, 5)][..], &[(3, 2)], &[(0, 2), (1, 3)], &[(5, 5)]] {
            assert!(command(text(b"abcd", wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn frames_that_were_never_shown_are_refused() {
        assert!(action(protocol::Action::Pass(7), SHOWN, &mut Kept::default()).is_ok());
        assert!(action(protocol::Action::Pass(8), SHOWN, &mut Kept::default()).is_err());
        assert!(
            action(
                protocol::Action::Drop(0),
                Shown { last: 0, frames: 0 },
                &mut Kept::default()
            )
            .is_err()
        );
        let backwards = protocol::Submission {
            first: 7,
            last: 6,
            command: text(b"", &[]),
            notify: false,
            undo: false,
            recall: protocol::Recall::No,
        };
        assert!(
            action(
                protocol::Action::Submit(backwards),
                SHOWN,
                &mut Kept::default()
            )
            .is_err()
        );
    }

    #[test]
    fn an_answer_has_a_few_actions_for_each_frame_and_no_more() {
        let many = |count| vec![protocol::Action::Close; count];
        assert!(actions(many(72), SHOWN, &mut Kept::default()).is_ok());
        assert!(actions(many(73), SHOWN, &mut Kept::default()).is_err());
    }

    #[test]
    fn a_length_outside_its_frame_is_refused() {
        let frame = |length| framing::CredentialFrame {
            before: vec![b'p', 0, 0, 0, 5],
            after: vec![0],
            length,
        };
        assert!(credential(frame(Some((1, 4)))).is_ok());
        for wrong in [(2, 4), (0, 0), (0, 5), (255, 4)] {
            assert!(credential(frame(Some(wrong))).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn impossible_layouts_and_empty_cancel_keys_are_refused() {
        let layout = framing::Layout::Delimited(Vec::new());
        assert!(
            action(
                protocol::Action::Reframe((framing::Side::Client, layout)),
                SHOWN,
                &mut Kept::default()
            )
            .is_err()
        );
        assert!(
            action(
                protocol::Action::Cancel(Vec::new()),
                SHOWN,
                &mut Kept::default()
            )
            .is_err()
        );
    }
}
