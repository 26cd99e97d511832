//! The extended protocol: messages up to a Sync or Flush become one unit, and a
//! unit that runs something becomes one command.
//!
//! A command is all or nothing. Its parts share a transaction or a pipeline, and
//! letting some through would leave the client in a state no server produces.
//!
//! **Text.** One statement is shown as it is. Several are each preceded by a line
//! `-- 2 of 3: 17 bytes, 1 parameter` and followed by a line end; the byte count
//! says where each ends, so nothing inside a statement can pass for another one.
//! The same statement run again says `as above`.
//!
//! **Digest.** Names of statements and portals are the driver's and differ from
//! run to run, and whether a statement is parsed anew or was kept makes no
//! difference to what it does. So the canonical form is the list of runs: values
//! and text are in the digest by themselves, the rest is here.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use holdpoint_plugin::{Command, Operation, Parameter, Span};

use crate::adapter;
use crate::classify::{Analysis, Statement};
use crate::frame::{Bind, Execute, Malformed, Parse, Space, named};
use crate::session::names::{Definition, Portal, Prepared};

/// A client message of the extended protocol, taken from its frame.
#[derive(Debug)]
pub(crate) enum Message {
    Parse {
        name: Vec<u8>,
        prepared: Rc<Prepared>,
    },
    Bind {
        portal: Vec<u8>,
        statement: Vec<u8>,
        values: Vec<Parameter>,
        results: Vec<u8>,
    },
    Describe(Space, Vec<u8>),
    Close(Space, Vec<u8>),
    Execute {
        portal: Vec<u8>,
        rows: u32,
    },
}

impl Message {
    /// Reads a frame's body; `analyse` classifies a statement's text.
    pub(crate) fn read(
        kind: u8,
        body: &[u8],
        analyse: impl FnOnce(&[u8]) -> Rc<Analysis>,
    ) -> Result<Self, Malformed> {
        Ok(match kind {
            b'P' => {
                let parse = Parse::read(body)?;
                let prepared = Prepared {
                    analysis: analyse(parse.text),
                    text: parse.text.into(),
                    types: parse.types,
                    part: None,
                    fields: RefCell::default(),
                    under: OnceCell::new(),
                };
                Self::Parse {
                    name: parse.name.to_vec(),
                    prepared: Rc::new(prepared),
                }
            }
            b'B' => {
                let bind = Bind::read(body)?;
                let values = bind
                    .values
                    .iter()
                    .enumerate()
                    .map(|(index, value)| Parameter {
                        type_name: String::new(),
                        binary: bind.binary(index),
                        value: value
                            .clone()
                            .and_then(|range| body.get(range))
                            .map(<[u8]>::to_vec),
                    });
                Self::Bind {
                    portal: bind.portal.to_vec(),
                    statement: bind.statement.to_vec(),
                    values: values.collect(),
                    results: bind.results.to_vec(),
                }
            }
            b'D' => {
                let (space, name) = named(body)?;
                Self::Describe(space, name.to_vec())
            }
            b'C' => {
                let (space, name) = named(body)?;
                Self::Close(space, name.to_vec())
            }
            b'E' => {
                let execute = Execute::read(body)?;
                Self::Execute {
                    portal: execute.portal.to_vec(),
                    rows: execute.rows,
                }
            }
            _ => return Err(Malformed("not a message of the extended protocol")),
        })
    }

    /// Whether a unit that holds it must be judged.
    pub(crate) fn runs(&self) -> bool {
        match self {
            Self::Bind { .. } | Self::Execute { .. } => true,
            // Text that may not reach any server, prepared or run.
            Self::Parse { prepared, .. } => prepared.analysis.reject.is_some(),
            Self::Describe(..) | Self::Close(..) => false,
        }
    }
}

/// A portal that a unit runs, or only binds.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) portal: Rc<Portal>,
    /// The name, for one that is not known.
    pub(crate) name: Vec<u8>,
    /// Rows asked for, 0 for all; absent where the portal is not run.
    pub(crate) rows: Option<u32>,
    /// How many of the unit's items come before: what later ones make of a name is
    /// nothing to it.
    pub(crate) at: usize,
}

/// The built-in types that parameters have; another one keeps its number.
fn type_name(oid: u32) -> String {
    let name = match oid {
        16 => "bool",
        17 => "bytea",
        18 => "char",
        19 => "name",
        20 => "int8",
        21 => "int2",
        23 => "int4",
        25 => "text",
        26 => "oid",
        114 => "json",
        700 => "float4",
        701 => "float8",
        1042 => "bpchar",
        1043 => "varchar",
        1082 => "date",
        1083 => "time",
        1114 => "timestamp",
        1184 => "timestamptz",
        1186 => "interval",
        1700 => "numeric",
        2950 => "uuid",
        3802 => "jsonb",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// Gives the values the types that their statement declared.
pub(crate) fn typed(mut values: Vec<Parameter>, statement: Option<&Prepared>) -> Vec<Parameter> {
    let types = statement
        .map(|prepared| prepared.types.as_slice())
        .unwrap_or_default();
    for (value, oid) in values.iter_mut().zip(types) {
        if *oid != 0 {
            value.type_name = type_name(*oid);
        }
    }
    values
}

/// The statements that a unit runs, in order; absent where one of them is not known.
pub(crate) fn statements(events: &[Event]) -> Option<impl Iterator<Item = &Rc<Statement>> + Clone> {
    let known = |event: &Event| event.portal.statement.is_some();
    let portals = events.iter().map(|event| &event.portal.statement);
    let all = portals.flatten().flat_map(|prepared| prepared.statements());
    events.iter().all(known).then_some(all)
}

/// As [`adapter::Lookup`], for so many items of a unit.
pub(crate) type LookupAt<'a> = dyn Fn(usize, Space, &[u8]) -> Option<Definition> + 'a;

/// What a unit does, and what the names stand for that it uses. `lookup` finds what one
/// stands for behind so many of the unit's items.
pub(crate) fn operations(
    events: &[Event],
    lookup: &LookupAt<'_>,
    command: &mut Command,
) -> Vec<Operation> {
    let mut operations = Vec::new();
    for event in events {
        let lookup = |space, name: &[u8]| lookup(event.at, space, name);
        match &event.portal.statement {
            None => operations.push(unknown(&event.name)),
            Some(prepared) => {
                adapter::operations(prepared.statements(), &lookup, &mut operations, command);
            }
        }
    }
    adapter::count_statements(&mut operations);
    operations
}

/// The command of a unit, but for its operations. `prepared` are the texts that it only
/// prepares.
pub(crate) fn command(
    events: &[Event],
    prepared: &[Rc<Prepared>],
    context: Vec<(String, String)>,
    in_transaction: bool,
) -> Command {
    let mut builder = Builder {
        command: adapter::blank(context, in_transaction),
        canonical: b"X".to_vec(),
        total: events.len(),
    };
    for statement in prepared {
        if builder.command.reject.is_none() && statement.analysis.reject.is_some() {
            builder
                .command
                .reject
                .clone_from(&statement.analysis.reject);
            if events.is_empty() {
                builder.command.text = statement.text.to_vec();
            }
        }
    }
    let mut previous: Option<&Rc<Prepared>> = None;
    for (index, event) in events.iter().enumerate() {
        builder.event(index, event, previous);
        previous = event.portal.statement.as_ref();
    }
    builder.command.canonical = Some(builder.canonical);
    builder.command
}

struct Builder {
    command: Command,
    canonical: Vec<u8>,
    total: usize,
}

impl Builder {
    fn event(&mut self, index: usize, event: &Event, previous: Option<&Rc<Prepared>>) {
        let portal = &event.portal;
        match &portal.statement {
            None => {
                let (number, total) = (index + 1, self.total);
                if total > 1 {
                    self.line(format_args!(
                        "{number} of {total}: not known to the gateway"
                    ));
                }
                self.field(&event.name);
            }
            Some(statement) => {
                let again = previous.is_some_and(|before| Rc::ptr_eq(before, statement));
                self.statement(index, statement, portal.parameters.len(), again);
                if self.command.reject.is_none() {
                    self.command.reject.clone_from(&statement.analysis.reject);
                }
            }
        }
        self.command
            .parameters
            .extend_from_slice(&portal.parameters);
        self.canonical
            .push(if event.rows.is_some() { b'E' } else { b'B' });
        self.canonical
            .extend_from_slice(&event.rows.unwrap_or(0).to_be_bytes());
        self.count(portal.parameters.len());
        self.field(&portal.results);
    }

    fn statement(&mut self, index: usize, statement: &Prepared, values: usize, again: bool) {
        self.count(statement.part.map_or(0, |part| part + 1));
        if self.total == 1 {
            self.command.text = statement.text.to_vec();
            self.secrets(0, statement);
            return;
        }
        let (number, total) = (index + 1, self.total);
        let plural = if values == 1 { "" } else { "s" };
        if again {
            self.line(format_args!(
                "{number} of {total}: as above, {values} parameter{plural}"
            ));
            return;
        }
        let bytes = statement.text.len();
        self.line(format_args!(
            "{number} of {total}: {bytes} bytes, {values} parameter{plural}"
        ));
        let at = self.command.text.len();
        self.command.text.extend_from_slice(&statement.text);
        self.command.text.push(b'\n');
        self.secrets(at, statement);
    }

    fn secrets(&mut self, at: usize, statement: &Prepared) {
        // Units are bounded far below 4 GiB; were they not, hiding all is safe.
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        self.command
            .secrets
            .extend(statement.analysis.secrets.iter().map(|(start, end)| Span {
                start: at.saturating_add(*start),
                end: at.saturating_add(*end),
            }));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        self.command
            .text
            .extend_from_slice(format!("-- {text}\n").as_bytes());
    }

    fn count(&mut self, count: usize) {
        self.canonical
            .extend_from_slice(&(count as u64).to_be_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.canonical.extend_from_slice(bytes);
    }
}

/// A portal or statement that the gateway has not seen made.
fn unknown(name: &[u8]) -> Operation {
    let shown: String = String::from_utf8_lossy(name).chars().take(63).collect();
    adapter::unknown(vec![
        (
            "unknown_reason".to_owned(),
            "it uses a name that is not known here".to_owned(),
        ),
        ("unknown_name".to_owned(), shown),
    ])
}

/// A text for a context, which records and reviewers see whole: what is secret
/// in it goes.
pub(crate) fn without_secrets(text: &[u8], secrets: &[(u32, u32)]) -> String {
    let mut kept = Vec::with_capacity(text.len());
    let mut at = 0;
    for (start, end) in secrets {
        kept.extend_from_slice(text.get(at..*start as usize).unwrap_or_default());
        kept.extend_from_slice(b"[secret]");
        at = at.max(*end as usize);
    }
    kept.extend_from_slice(text.get(at..).unwrap_or_default());
    String::from_utf8_lossy(&kept).into_owned()
}
