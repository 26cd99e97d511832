//! The one place where the session meets the classifier: what a statement does
//! becomes the operations of a command, and names that it uses are looked up.

use std::rc::Rc;

use holdpoint_plugin::{Command, Confidence, Object, Operation, Span};

use crate::classify::{Act, Analysis, PROTECTED, Statement};
use crate::frame::Space;
use crate::session::names::{Definition, Prepared};

/// Finds what a name stands for where a text uses it.
pub(crate) type Lookup<'a> = dyn Fn(Space, &[u8]) -> Option<Definition> + 'a;

/// How deep a statement may name another one: `EXECUTE` of a prepared `EXECUTE`.
const MAX_DEPTH: usize = 4;

/// Longest list in a fact; past it the fact is left out, which is unknown.
const MAX_LIST: usize = 4096;

/// Whether a statement may change the session in a way its text alone does not tell.
pub(crate) fn may_change_session(statement: &Statement) -> bool {
    !statement.proven || !statement.unknown_functions.is_empty()
}

/// Whether the text is needed after the statement was sent on.
pub(crate) fn keeps_text(analysis: &Analysis) -> bool {
    analysis.statements.iter().any(|statement| {
        may_change_session(statement)
            || matches!(statement.act, Act::Prepare { .. } | Act::Declare { .. })
    })
}

pub(crate) fn spans(analysis: &Analysis) -> Vec<Span> {
    analysis
        .secrets
        .iter()
        .map(|(start, end)| Span {
            start: *start,
            end: *end,
        })
        .collect()
}

/// Whether the operations change nothing that a rollback would undo.
pub(crate) fn harmless(operations: &[Operation]) -> bool {
    operations
        .iter()
        .all(|operation| operation.housekeeping || operation.class == "read")
}

/// Bytes of an operation's words, each counted as a little more than it is.
pub(crate) fn words(operation: &Operation) -> usize {
    let word = |word: &str| 16 + word.len();
    let lists = [
        &operation.effects,
        &operation.functions,
        &operation.unknown_functions,
    ];
    let objects = operation.objects.iter().map(|object| {
        let schema = object.schema.as_deref().unwrap_or_default();
        word(&object.kind) + word(schema) + word(&object.name) + word(&object.access)
    });
    let facts = operation.facts.iter();
    lists
        .into_iter()
        .flatten()
        .map(|each| word(each))
        .sum::<usize>()
        + objects.sum::<usize>()
        + facts
            .map(|(name, value)| word(name) + word(value))
            .sum::<usize>()
}

/// A command that does nothing yet.
pub(crate) fn blank(context: Vec<(String, String)>, in_transaction: bool) -> Command {
    Command {
        operations: Vec::new(),
        text: Vec::new(),
        parameters: Vec::new(),
        secrets: Vec::new(),
        context,
        in_transaction,
        canonical: None,
        reject: None,
    }
}

/// An operation of which only this is known.
pub(crate) fn unknown(facts: Vec<(String, String)>) -> Operation {
    Operation {
        class: "unknown".to_owned(),
        effects: Vec::new(),
        objects: Vec::new(),
        functions: Vec::new(),
        unknown_functions: Vec::new(),
        confidence: Confidence::Unknown,
        housekeeping: false,
        facts,
    }
}

/// Puts the number of operations into each, once all of them are there.
pub(crate) fn count_statements(operations: &mut [Operation]) {
    let whole = operations
        .iter()
        .filter(|one| one.facts.iter().all(|(name, _)| name != WITHIN));
    let count = whole.count().to_string();
    for operation in operations {
        operation
            .facts
            .push(("statement_count".to_owned(), count.clone()));
    }
}

/// All operations of a command that runs these statements and nothing else.
pub(crate) fn all_operations(
    statements: &[Rc<Statement>],
    lookup: &Lookup<'_>,
    command: &mut Command,
) -> Vec<Operation> {
    let mut all = Vec::new();
    operations(statements, lookup, &mut all, command);
    count_statements(&mut all);
    all
}

/// Appends what `statements` do. Names that they use are looked up, and what
/// they stand for joins the command's context: a reviewer of `EXECUTE s` sees `s`.
pub(crate) fn operations(
    statements: &[Rc<Statement>],
    lookup: &Lookup<'_>,
    operations: &mut Vec<Operation>,
    command: &mut Command,
) {
    append(statements, lookup, operations, command, 0);
}

fn append(
    statements: &[Rc<Statement>],
    lookup: &Lookup<'_>,
    operations: &mut Vec<Operation>,
    command: &mut Command,
    depth: usize,
) {
    for (index, statement) in statements.iter().enumerate() {
        let (space, name) = match &statement.act {
            Act::Execute { name } => (Space::Statement, name),
            Act::Fetch { name } => (Space::Portal, name),
            _ => {
                push(statement, operations);
                continue;
            }
        };
        // The outer statement's own arguments may call functions.
        if !statement.unknown_functions.is_empty() {
            let class = crate::classify::Class::FunctionEffect.word().to_owned();
            operations.push(Operation {
                class,
                ..operation(statement)
            });
        }
        let start = operations.len();
        let before = statements.get(..index).unwrap_or_default();
        used(before, (space, name), lookup, operations, command, depth);
        // Its arguments are run with what it names.
        for operation in operations.iter_mut().skip(start) {
            // Whose rows come is not followed through a name.
            let masked =
                |(name, value): &&mut (String, String)| name == PROTECTED && value == "masked";
            for (_, value) in operation.facts.iter_mut().filter(masked) {
                "used".clone_into(value);
            }
            for function in &statement.functions {
                if !operation.functions.contains(function) {
                    operation.functions.push(function.clone());
                }
            }
            for object in statement.objects.iter().map(object) {
                if !operation.objects.contains(&object) {
                    operation.objects.push(object);
                }
            }
        }
    }
}

/// Appends what stands behind a name.
fn used(
    before: &[Rc<Statement>],
    (space, name): (Space, &str),
    lookup: &Lookup<'_>,
    operations: &mut Vec<Operation>,
    command: &mut Command,
    depth: usize,
) {
    // `PREPARE s …; EXECUTE s` in one text.
    let found = match defined(before, name, space) {
        Defined::Here(at) if is_whole(name) => {
            push(at, operations);
            return;
        }
        Defined::Here(_) | Defined::Gone => None,
        Defined::Elsewhere => lookup(space, name.as_bytes()),
    };
    let found = match found {
        Some(Definition::Statement(prepared)) => Some(prepared),
        Some(Definition::Portal(portal)) => portal.statement.clone(),
        None => None,
    };
    let Some(prepared) = found.filter(|_| depth < MAX_DEPTH) else {
        // It may be anything, so also what `is_plain` is not.
        if space == Space::Statement {
            command.reject.get_or_insert_with(|| not_known(name));
        }
        operations.push(unknown(vec![
            (
                "unknown_reason".to_owned(),
                "it uses a name that is not known here".to_owned(),
            ),
            ("unknown_name".to_owned(), name.to_owned()),
        ]));
        return;
    };
    let kind = if space == Space::Statement {
        "statement"
    } else {
        "cursor"
    };
    let shown = (format!("{kind} {name}"), prepared.shown());
    command.context.push(shown);
    if space == Space::Statement && !is_plain(&prepared) {
        command.reject.get_or_insert_with(|| not_plain(name));
    }
    match prepared.part {
        // What was prepared is the statement itself, not one that names another.
        Some(_) => {
            let inner = prepared.statements().iter();
            inner.for_each(|inner| push(inner, operations));
        }
        None => append(
            prepared.statements(),
            lookup,
            operations,
            command,
            depth + 1,
        ),
    }
}

/// Whether what was prepared leaves names, settings and transaction alone, as all that SQL's
/// `PREPARE` takes does. The protocol prepares anything, and the server's `EXECUTE` runs
/// it: a `PREPARE` or `DEALLOCATE` that is run so would change names out of sight.
pub(crate) fn is_plain(prepared: &Prepared) -> bool {
    prepared.part.is_some()
        || prepared
            .statements()
            .iter()
            .all(|one| one.act == Act::Other)
}

fn not_known(name: &str) -> String {
    format!(
        "EXECUTE would run `{name}`, which the gateway does not know as a prepared statement of this session: DEALLOCATE it, if it is there, and PREPARE it again"
    )
}

fn not_plain(name: &str) -> String {
    format!(
        "EXECUTE would run `{name}`, which changes names, settings or the transaction, or cannot be read: send what it stands for instead"
    )
}

/// Whether a name was surely not cut: where characters of several bytes are, servers
/// of other encodings cut elsewhere, and two names that are one here are two there.
fn is_whole(name: &str) -> bool {
    name.is_ascii() || name.len() < SURELY_WHOLE
}

/// A name of fewer bytes is not one that was cut at 63: a character has 4 at most.
const SURELY_WHOLE: usize = 60;

enum Defined<'a> {
    Here(&'a Statement),
    Gone,
    Elsewhere,
}

/// What earlier statements of the same text make of a name.
fn defined<'a>(before: &'a [Rc<Statement>], name: &str, space: Space) -> Defined<'a> {
    for statement in before.iter().rev() {
        match (&statement.act, space) {
            (Act::Prepare { name: made }, Space::Statement) if made == name => {
                return Defined::Here(statement);
            }
            (Act::Declare { name: made, .. }, Space::Portal) if made == name => {
                return Defined::Here(statement);
            }
            (Act::Deallocate { name: gone }, Space::Statement)
            | (Act::CloseCursor { name: gone }, Space::Portal)
                if gone.as_ref().is_none_or(|gone| gone == name) =>
            {
                return Defined::Gone;
            }
            (Act::DiscardAll | Act::Unreadable, _) => return Defined::Gone,
            // Its cursors end with it, and one of the same name may not be ours.
            (Act::Commit { .. } | Act::Rollback { .. }, Space::Portal) => return Defined::Gone,
            _ => {}
        }
    }
    Defined::Elsewhere
}

/// The fact of what a statement does beside its class, which it says.
const WITHIN: &str = "within";

/// Appends what a statement does: its class, and behind it what is less bad. A rule for
/// the one is no rule for the other.
fn push(statement: &Statement, operations: &mut Vec<Operation>) {
    let whole = operation(statement);
    let also = statement.also.iter().map(|class| {
        let mut part = whole.clone();
        class.word().clone_into(&mut part.class);
        part.facts.push((WITHIN.to_owned(), whole.class.clone()));
        part
    });
    let also: Vec<_> = also.collect();
    operations.push(whole);
    operations.extend(also);
}

fn operation(statement: &Statement) -> Operation {
    let fact = |(name, value): &(&'static str, String)| ((*name).to_owned(), value.clone());
    let mut facts: Vec<_> = statement.facts.iter().map(fact).collect();
    if let Some(tables) = tables(statement) {
        facts.push(("tables".to_owned(), tables));
    }
    Operation {
        class: statement.class.word().to_owned(),
        effects: statement
            .effects
            .iter()
            .map(|effect| (*effect).to_owned())
            .collect(),
        objects: statement.objects.iter().map(object).collect(),
        functions: statement.functions.clone(),
        unknown_functions: statement.unknown_functions.clone(),
        confidence: if statement.proven {
            Confidence::Proven
        } else {
            Confidence::Unknown
        },
        housekeeping: statement.housekeeping,
        facts,
    }
}

fn object(object: &crate::classify::Object) -> Object {
    Object {
        kind: object.kind.to_owned(),
        schema: object.schema.clone(),
        name: object.name.clone(),
        access: object.access.to_owned(),
    }
}

/// The tables with commas between, as far as that is clear and all are known.
fn tables(statement: &Statement) -> Option<String> {
    if !statement.proven {
        return None;
    }
    let mut list: Vec<String> = Vec::new();
    for object in statement
        .objects
        .iter()
        .filter(|object| object.kind == "table")
    {
        if [
            object.name.as_str(),
            object.schema.as_deref().unwrap_or_default(),
        ]
        .iter()
        .any(|part| part.contains([',', '.']))
        {
            return None;
        }
        let name = match &object.schema {
            Some(schema) => format!("{schema}.{}", object.name),
            None => object.name.clone(),
        };
        if !list.contains(&name) {
            list.push(name);
        }
    }
    let joined = list.join(",");
    (joined.len() <= MAX_LIST).then_some(joined)
}
