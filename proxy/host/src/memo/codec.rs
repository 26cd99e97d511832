//! Calls and their answers as bytes. Never leaves the process.

use bytes::Bytes;
use holdpoint_core::denial::{Denial, Kind};
use holdpoint_core::framing::Side;
use holdpoint_core::id::Digest;
use holdpoint_core::plugin::{Frame, IdentityOutcome, Verdict};

use super::{Answer, Call, Part, Unreadable};

/// What a call takes at most.
pub(super) fn len(call: &Call<'_>) -> usize {
    // A length is a byte or two most of the time, and five at most.
    let text = |text: &str| 5 + text.len();
    let denied = |denial: &Denial| {
        let Denial {
            code,
            message,
            detail,
            hint,
            ..
        } = denial;
        let more = detail.iter().chain(hint).map(|more| text(more));
        3 + text(code) + text(message) + more.sum::<usize>()
    };
    1 + match call {
        Call::Open | Call::Farewell | Call::Tls(_) => 0,
        Call::Frames(_, frames) => {
            let frames = frames.iter().map(|frame| 8 + 2 + 5 + frame.body.len());
            5 + frames.sum::<usize>()
        }
        Call::Identity(outcome) => match &**outcome {
            IdentityOutcome::Refused(denial) => denied(denial),
            IdentityOutcome::Accepted {
                subject,
                label,
                groups,
            } => {
                let groups = groups.iter().map(|group| text(group));
                text(subject) + text(label) + 5 + groups.sum::<usize>()
            }
        },
        Call::Verdict(verdict) => match &**verdict {
            Verdict::Forwarded => 0,
            Verdict::Refused(denial) => denied(denial),
        },
        Call::Notice(notice) => text(notice),
        Call::Terminate(denial) => denied(denial),
    }
}

pub(super) fn write(out: &mut Vec<u8>, call: &Call<'_>) {
    match call {
        Call::Open => out.push(0),
        Call::Farewell => out.push(1),
        Call::Tls(Side::Client) => out.push(2),
        Call::Tls(Side::Upstream) => out.push(3),
        Call::Frames(side, frames) => {
            out.push(match side {
                Side::Client => 4,
                Side::Upstream => 5,
            });
            count(out, frames.len());
            for Frame { seq, kind, body } in frames.iter() {
                out.extend(seq.to_le_bytes());
                option(out, kind.as_ref(), |out, kind| out.push(*kind));
                bytes(out, body);
            }
        }
        Call::Identity(outcome) => match &**outcome {
            IdentityOutcome::Accepted {
                subject,
                label,
                groups,
            } => {
                out.push(6);
                bytes(out, subject.as_bytes());
                bytes(out, label.as_bytes());
                count(out, groups.len());
                for group in groups {
                    bytes(out, group.as_bytes());
                }
            }
            IdentityOutcome::Refused(refused) => {
                out.push(7);
                denial(out, refused);
            }
        },
        Call::Verdict(verdict) => match &**verdict {
            Verdict::Forwarded => out.push(8),
            Verdict::Refused(refused) => {
                out.push(9);
                denial(out, refused);
            }
        },
        Call::Notice(text) => {
            out.push(10);
            bytes(out, text.as_bytes());
        }
        Call::Terminate(refused) => {
            out.push(11);
            denial(out, refused);
        }
    }
}

pub(super) fn write_answer(out: &mut Vec<u8>, answer: Option<&Answer>) {
    match answer {
        None => out.push(0),
        Some(Answer::Fault) => out.push(1),
        Some(Answer::Bytes(digest)) => {
            out.push(2);
            out.extend(digest.0);
        }
        Some(Answer::Actions(actions)) => {
            out.push(3);
            count(out, *actions as usize);
        }
    }
}

fn denial(out: &mut Vec<u8>, denial: &Denial) {
    let Denial {
        kind,
        code,
        message,
        detail,
        hint,
    } = denial;
    out.push(match kind {
        Kind::Denied => 0,
        Kind::Pending => 1,
        Kind::Expired => 2,
        Kind::Unauthenticated => 3,
        Kind::Malformed => 4,
        Kind::Unavailable => 5,
    });
    bytes(out, code.as_bytes());
    bytes(out, message.as_bytes());
    for more in [detail, hint] {
        option(out, more.as_ref(), |out, more| bytes(out, more.as_bytes()));
    }
}

fn option<T>(out: &mut Vec<u8>, value: Option<T>, write: impl Fn(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        write(out, value);
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Seven bits a byte, the lowest first. Nothing in a memo is as long as four gigabytes.
fn count(out: &mut Vec<u8>, count: usize) {
    let mut rest = count;
    while rest >= 128 {
        out.push((rest & 127) as u8 | 128);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// What is not read yet.
pub(super) struct Calls<'a>(pub(super) &'a [u8]);

impl Iterator for Calls<'_> {
    type Item = Result<(Call<'static>, Option<Answer>), Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| {
            let call = self.call()?;
            // The last one may not have been answered.
            let answer = if self.0.is_empty() {
                None
            } else {
                self.answer()?
            };
            Ok((call, answer))
        })
    }
}

impl Calls<'_> {
    fn call(&mut self) -> Result<Call<'static>, Unreadable> {
        Ok(match self.byte()? {
            0 => Call::Open,
            1 => Call::Farewell,
            2 => Call::Tls(Side::Client),
            3 => Call::Tls(Side::Upstream),
            4 => Call::Frames(Side::Client, self.frames()?),
            5 => Call::Frames(Side::Upstream, self.frames()?),
            6 => {
                let (subject, label) = (self.text()?, self.text()?);
                let groups = self.list(Self::text)?;
                Call::Identity(read(IdentityOutcome::Accepted {
                    subject,
                    label,
                    groups,
                }))
            }
            7 => Call::Identity(read(IdentityOutcome::Refused(self.denial()?))),
            8 => Call::Verdict(read(Verdict::Forwarded)),
            9 => Call::Verdict(read(Verdict::Refused(self.denial()?))),
            10 => Call::Notice(Part::Read(self.text()?.into())),
            11 => Call::Terminate(read(self.denial()?)),
            _ => return Err(Unreadable),
        })
    }

    fn answer(&mut self) -> Result<Option<Answer>, Unreadable> {
        Ok(match self.byte()? {
            0 => None,
            1 => Some(Answer::Fault),
            2 => {
                let digest = self.take(32)?.try_into().map_err(|_| Unreadable)?;
                Some(Answer::Bytes(Digest(digest)))
            }
            3 => {
                let actions = u32::try_from(self.count()?).map_err(|_| Unreadable)?;
                Some(Answer::Actions(actions))
            }
            _ => return Err(Unreadable),
        })
    }

    fn frames(&mut self) -> Result<Part<'static, [Frame]>, Unreadable> {
        let frames = self.list(|this| {
            let seq = this.take(8)?.try_into().map_err(|_| Unreadable)?;
            Ok(Frame {
                seq: u64::from_le_bytes(seq),
                kind: this.option(Self::byte)?,
                body: Bytes::copy_from_slice(this.bytes()?),
            })
        })?;
        Ok(Part::Read(frames.into()))
    }

    fn denial(&mut self) -> Result<Denial, Unreadable> {
        let kind = match self.byte()? {
            0 => Kind::Denied,
            1 => Kind::Pending,
            2 => Kind::Expired,
            3 => Kind::Unauthenticated,
            4 => Kind::Malformed,
            5 => Kind::Unavailable,
            _ => return Err(Unreadable),
        };
        Ok(Denial {
            kind,
            code: self.text()?,
            message: self.text()?,
            detail: self.option(Self::text)?,
            hint: self.option(Self::text)?,
        })
    }

    fn list<T>(
        &mut self,
        one: impl Fn(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        (0..self.count()?).map(|_| one(self)).collect()
    }

    fn option<T>(
        &mut self,
        one: impl Fn(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        match self.byte()? {
            0 => Ok(None),
            1 => one(self).map(Some),
            _ => Err(Unreadable),
        }
    }

    fn text(&mut self) -> Result<String, Unreadable> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map(str::to_owned).map_err(|_| Unreadable)
    }

    fn bytes(&mut self) -> Result<&[u8], Unreadable> {
        let count = self.count()?;
        self.take(count)
    }

    fn count(&mut self) -> Result<usize, Unreadable> {
        let mut count = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            count |= usize::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(count);
            }
        }
        Err(Unreadable)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        let (byte, rest) = self.0.split_first().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }
}

fn read<T>(value: T) -> Part<'static, T> {
    Part::Read(Box::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_call() -> Vec<Call<'static>> {
        let short = Denial::new(Kind::Denied, "HP-DENIED", "no");
        let long = Denial::new(Kind::Malformed, "HP-REQUEST", "n".repeat(300))
            .detail("d".repeat(20_000))
            .hint("");
        let frame = |seq, kind, body: &[u8]| Frame {
            seq,
            kind,
            body: Bytes::copy_from_slice(body),
        };
        let frames = vec![
            frame(1, Some(b'Q'), b"select 1"),
            frame(u64::MAX, None, &[0xff; 200]),
        ];
        vec![
            Call::Open,
            Call::Farewell,
            Call::Tls(Side::Client),
            Call::Tls(Side::Upstream),
            Call::Frames(Side::Client, Part::Read(frames.into())),
            Call::Frames(Side::Upstream, Part::Read(Box::new([]))),
            Call::Identity(read(IdentityOutcome::Accepted {
                subject: "ada".to_owned(),
                label: "Ada, \u{fc}ber".to_owned(),
                groups: vec!["agents".to_owned(), String::new()],
            })),
            Call::Identity(read(IdentityOutcome::Refused(short.clone()))),
            Call::Verdict(read(Verdict::Forwarded)),
            Call::Verdict(read(Verdict::Refused(long))),
            Call::Notice(Part::Read("held".into())),
            Call::Terminate(read(short)),
        ]
    }

    fn every_answer() -> Vec<Option<Answer>> {
        vec![
            None,
            Some(Answer::Fault),
            Some(Answer::Actions(0)),
            Some(Answer::Actions(300)),
            Some(Answer::Bytes(Digest::of(b"bye"))),
        ]
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let answers = every_answer();
        let mut written = Vec::new();
        let mut said = Vec::new();
        for (at, call) in every_call().into_iter().enumerate() {
            let before = written.len();
            write(&mut written, &call);
            assert!(written.len() - before <= len(&call), "{call:?}");
            let answer = answers[at % answers.len()].clone();
            write_answer(&mut written, answer.as_ref());
            said.push(format!("{:?}", (call, answer)));
        }
        // Nobody has answered yet.
        write(&mut written, &Call::Open);
        said.push(format!("{:?}", (Call::Open, None::<Answer>)));
        let read: Vec<String> = Calls(&written)
            .map(|call| format!("{:?}", call.unwrap()))
            .collect();
        assert_eq!(read, said);
    }

    #[test]
    fn what_is_cut_short_is_not_read_as_something_else() {
        for call in every_call() {
            let mut written = Vec::new();
            write(&mut written, &call);
            for cut in 1..written.len().min(400) {
                assert!(Calls(&written[..cut]).any(|call| call.is_err()), "{call:?}");
            }
        }
        assert!(Calls(&[200]).any(|call| call.is_err()));
    }
}
