//! What the names of statements and portals stand for on the server.
//!
//! The protocol's names and SQL's are the same names: `PREPARE s` can be bound,
//! and a protocol Parse can be run by `EXECUTE s`; a cursor is a portal. A name
//! that is not here is unknown, which is always safe. Hence whatever is in doubt
//! is forgotten, and nothing is believed before the server has confirmed it.
//!
//! Limit: a function that runs `PREPARE` or opens a cursor in its own body
//! changes names out of sight. It was judged as the function it is.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use holdpoint_plugin::Parameter;

use super::context::Settings;
use crate::classify::{Act, Analysis, Field, Statement};
use crate::frame::Space;

/// More names than any driver keeps. Past it new ones are not remembered, so
/// that their use is unknown and memory stays bounded.
const MAX_NAMES: usize = 10_000;

/// A prepared statement.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The client's bytes: the statement itself, or all that `PREPARE` stood in.
    pub(crate) text: Rc<[u8]>,
    pub(crate) types: Vec<u32>,
    pub(crate) analysis: Rc<Analysis>,
    /// Which statement of the analysis it is; all of them where absent.
    pub(crate) part: Option<usize>,
    /// Its rows, as the target last described them.
    pub(crate) fields: RefCell<Option<Rc<[Field]>>>,
    /// What was set when the server read it, literals included.
    pub(crate) under: OnceCell<Settings>,
}

impl Prepared {
    pub(crate) fn statements(&self) -> &[Rc<Statement>] {
        match self.part {
            None => &self.analysis.statements,
            Some(part) => self
                .analysis
                .statements
                .get(part..=part)
                .unwrap_or_default(),
        }
    }

    /// The text for a context, without the secrets in it.
    pub(crate) fn shown(&self) -> String {
        crate::extended::without_secrets(&self.text, &self.analysis.secrets)
    }
}

/// A statement with its values, ready to run; a cursor.
#[derive(Debug, Default)]
pub(crate) struct Portal {
    /// Absent: bound to a name that is not known.
    pub(crate) statement: Option<Rc<Prepared>>,
    pub(crate) parameters: Vec<Parameter>,
    /// Formats of the result's columns, as on the wire.
    pub(crate) results: Vec<u8>,
    /// Outlives the transaction.
    pub(crate) hold: bool,
    /// What was set when the server read the values.
    pub(crate) under: OnceCell<Settings>,
}

#[derive(Debug, Clone)]
pub(crate) enum Definition {
    Statement(Rc<Prepared>),
    Portal(Rc<Portal>),
}

/// What a message or a statement does to the names once it has run.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Define(Vec<u8>, Definition),
    Remove(Space, Vec<u8>),
    RemoveAll(Space),
    /// Nothing is certain any more.
    Forget,
}

impl Change {
    /// What the change says about a name: nothing, that it is unknown or gone,
    /// or what it stands for.
    pub(crate) fn about(&self, space: Space, name: &[u8]) -> Option<Option<Definition>> {
        match self {
            Self::Define(defined, definition) => {
                let same_space = match definition {
                    Definition::Statement(_) => space == Space::Statement,
                    Definition::Portal(_) => space == Space::Portal,
                };
                (same_space && defined == name).then(|| Some(definition.clone()))
            }
            Self::Remove(of, removed) => (*of == space && removed == name).then_some(None),
            Self::RemoveAll(of) => (*of == space).then_some(None),
            Self::Forget => Some(None),
        }
    }
}

/// What running `statement` does to the names. `text` holds the statement.
pub(crate) fn changes(
    analysis: &Rc<Analysis>,
    part: usize,
    text: &Rc<[u8]>,
    mut each: impl FnMut(Change),
) {
    let Some(statement) = analysis.statements.get(part) else {
        return;
    };
    let prepared = || {
        Rc::new(Prepared {
            text: Rc::clone(text),
            types: Vec::new(),
            analysis: Rc::clone(analysis),
            part: Some(part),
            fields: RefCell::default(),
            under: OnceCell::new(),
        })
    };
    match &statement.act {
        Act::Prepare { name } => {
            each(Change::Define(
                name.as_bytes().to_vec(),
                Definition::Statement(prepared()),
            ));
        }
        Act::Declare { name, hold } => {
            let portal = Portal {
                statement: Some(prepared()),
                hold: *hold,
                ..Portal::default()
            };
            each(Change::Define(
                name.as_bytes().to_vec(),
                Definition::Portal(Rc::new(portal)),
            ));
        }
        Act::Deallocate { name: Some(name) } => {
            each(Change::Remove(Space::Statement, name.as_bytes().to_vec()));
        }
        Act::Deallocate { name: None } => each(Change::RemoveAll(Space::Statement)),
        Act::CloseCursor { name: Some(name) } => {
            each(Change::Remove(Space::Portal, name.as_bytes().to_vec()));
        }
        Act::CloseCursor { name: None } => each(Change::RemoveAll(Space::Portal)),
        Act::DiscardAll => {
            each(Change::RemoveAll(Space::Statement));
            each(Change::RemoveAll(Space::Portal));
        }
        // A text that could not be read may hold any of the above.
        Act::Unreadable => each(Change::Forget),
        _ => {}
    }
}

/// The names as the server has confirmed them.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The server keeps names as they are sent, in UTF-8.
    utf8: bool,
    statements: BTreeMap<Vec<u8>, Rc<Prepared>>,
    portals: BTreeMap<Vec<u8>, Rc<Portal>>,
}

impl Names {
    /// `utf8`: that is the encoding of the database.
    pub(crate) fn new(utf8: bool) -> Self {
        Self {
            utf8,
            ..Self::default()
        }
    }

    /// Whether two names are one to the server exactly where they are here. In another
    /// encoding it may cut them elsewhere, and characters that differ may become one.
    pub(crate) fn tells_apart(&self, name: &[u8]) -> bool {
        self.utf8 || name.is_ascii()
    }

    pub(crate) fn get(&self, space: Space, name: &[u8]) -> Option<Definition> {
        match space {
            Space::Statement => self
                .statements
                .get(name)
                .cloned()
                .map(Definition::Statement),
            Space::Portal => self.portals.get(name).cloned().map(Definition::Portal),
        }
    }

    /// A change that the server has confirmed, and what was set when it did.
    pub(crate) fn apply(&mut self, change: Change, under: &Settings) {
        match change {
            Change::Define(name, Definition::Statement(prepared)) => {
                prepared.under.get_or_init(|| Rc::clone(under));
                if self.statements.len() < MAX_NAMES {
                    self.statements.insert(name, prepared);
                } else {
                    // An old meaning must not survive either.
                    self.statements.remove(&name);
                }
            }
            Change::Define(name, Definition::Portal(portal)) => {
                portal.under.get_or_init(|| Rc::clone(under));
                if self.portals.len() < MAX_NAMES {
                    self.portals.insert(name, portal);
                } else {
                    self.portals.remove(&name);
                }
            }
            Change::Remove(Space::Statement, name) => {
                self.statements.remove(&name);
            }
            Change::Remove(Space::Portal, name) => {
                self.portals.remove(&name);
            }
            Change::RemoveAll(Space::Statement) => self.statements.clear(),
            Change::RemoveAll(Space::Portal) => self.portals.clear(),
            Change::Forget => {
                self.statements.clear();
                self.portals.clear();
            }
        }
    }

    pub(crate) fn has_unnamed(&self) -> bool {
        self.statements.contains_key(&b""[..]) || self.portals.contains_key(&b""[..])
    }

    /// A simple Query takes the unnamed ones away.
    pub(crate) fn drop_unnamed(&mut self) {
        if !self.statements.is_empty() {
            self.statements.remove(&b""[..]);
        }
        if !self.portals.is_empty() {
            self.portals.remove(&b""[..]);
        }
    }

    /// Portals end with their transaction, but for cursors `WITH HOLD`.
    pub(crate) fn end_transaction(&mut self) {
        if !self.portals.is_empty() {
            self.portals.retain(|_, portal| portal.hold);
        }
    }
}
