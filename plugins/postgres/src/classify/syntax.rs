//! What one statement is, from its tree: kind, class, effects, action.
//!
//! Everything that knows the tree parser's node kinds is in this file and in
//! `objects.rs`, `functions.rs` and `names.rs`. The tree is only ever asked
//! what it contains: every node is visited, no list of places is trusted.

use std::collections::BTreeSet;

use rowan::WalkEvent;
use squawk_syntax::ast::AstNode;
use squawk_syntax::{SourceFile, SyntaxKind as K, SyntaxNode};

use super::functions::{Called, Dotted, called, dotted, operator, procedure, treated};
use super::names::{name, string};
use super::objects::{Scopes, object};
use super::protect::{Exposure, Ranges};
use super::settings::{self, Change, change};
use super::strict::refused;
use super::witness::declines;
use super::{Act, Class, Object, Statement};

/// Column lists longer than this are left out, which policy reads as unknown.
const MAX_COLUMNS: usize = 4096;

/// Judges the one statement in `text`, or says that it is no such thing.
pub(crate) fn judge(text: &str) -> Option<Statement> {
    let parse = SourceFile::parse(text);
    if !parse.errors().is_empty() {
        return None;
    }
    let file = parse.tree();
    let mut children = file
        .syntax()
        .children_with_tokens()
        .filter(|child| !child.kind().is_trivia());
    let root = children.next()?.into_node()?;
    if children.next().is_some() {
        return None;
    }
    let base = base(&root)?;
    let found = Findings::of(&root, base.class);
    Some(base.finish(&root, found))
}

/// The statement's own class, before what it contains makes it worse.
struct Base {
    class: Class,
    act: Act,
    effects: BTreeSet<&'static str>,
    proven: bool,
    housekeeping: bool,
    reject: Option<String>,
    /// `EXPLAIN` without running: what is inside is only planned.
    planned: bool,
}

fn base(root: &SyntaxNode) -> Option<Base> {
    let mut base = Base {
        class: Class::Unknown,
        act: Act::Other,
        effects: BTreeSet::new(),
        proven: true,
        housekeeping: false,
        reject: None,
        planned: false,
    };
    let child = |kind| root.children().find(|child| child.kind() == kind);
    let named = |kind| {
        child(kind)
            .and_then(|node| name(&node))
            .map(|name| name.last().to_owned())
    };
    let inside = |kind| root.descendants().any(|node| node.kind() == kind);
    match root.kind() {
        K::SELECT | K::COMPOUND_SELECT | K::PAREN_SELECT | K::TABLE | K::VALUES => {
            base.class = Class::Read
        }
        K::SELECT_INTO => base.class = Class::Ddl,
        K::INSERT | K::UPDATE | K::DELETE | K::MERGE => base.class = Class::Write,
        K::TRUNCATE => {
            base.class = Class::Write;
            base.effects.insert("truncate");
        }
        K::LOCK => {
            base.class = Class::Write;
            base.effects.insert("table_lock");
        }
        K::SHOW => {
            base.class = Class::Read;
            base.housekeeping = true;
        }
        K::EXPLAIN => {
            base.planned = !explain_runs(root);
            base.class = Class::Read;
            if inside(K::EXECUTE) {
                base.class = Class::Unknown;
                base.proven = false;
                base.act = Act::Execute {
                    name: root
                        .descendants()
                        .find(|node| node.kind() == K::PREPARED_STATEMENT_REF)
                        .and_then(|node| name(&node))?
                        .last()
                        .to_owned(),
                };
            } else if !base.planned
                && (inside(K::CREATE_TABLE_AS) || inside(K::CREATE_MATERIALIZED_VIEW))
            {
                base.class = Class::Ddl;
            }
        }
        K::PREPARE => {
            base.class = Class::Read;
            base.act = Act::Prepare {
                name: named(K::PREPARED_STATEMENT)?,
            };
        }
        K::DECLARE => {
            base.class = Class::Read;
            base.act = Act::Declare {
                name: named(K::CURSOR)?,
                hold: inside(K::WITH_HOLD),
            };
        }
        K::EXECUTE => {
            base.proven = false;
            base.act = Act::Execute {
                name: named(K::PREPARED_STATEMENT_REF)?,
            };
        }
        K::FETCH | K::MOVE => {
            base.proven = false;
            base.act = Act::Fetch {
                name: named(K::CURSOR_REF)?,
            };
        }
        K::CLOSE => {
            base.class = Class::Session;
            base.housekeeping = true;
            base.act = Act::CloseCursor {
                name: named(K::CURSOR_REF),
            };
        }
        K::DEALLOCATE => {
            base.class = Class::Session;
            base.act = Act::Deallocate {
                name: named(K::PREPARED_STATEMENT_REF),
            };
        }
        K::DISCARD => {
            base.class = Class::Session;
            if inside(K::DISCARD_ALL) {
                base.act = Act::DiscardAll;
            }
        }
        K::LISTEN => {
            base.class = Class::Session;
        }
        K::UNLISTEN => {
            base.class = Class::Session;
            base.housekeeping = true;
        }
        K::NOTIFY => {
            base.class = Class::Session;
            base.effects.insert("notify");
        }
        K::LOAD => {
            base.class = Class::Session;
            base.effects.insert("load_library");
            base.proven = false;
        }
        K::SET_ROLE | K::RESET_ROLE | K::SET_SESSION_AUTH | K::RESET_SESSION_AUTH => {
            base.class = Class::Session;
            base.effects.insert("privilege");
            base.act = set("role", root);
        }
        K::SET | K::RESET => setting(root, &mut base)?,
        K::SET_CONSTRAINTS => base.class = Class::Transaction,
        K::SET_TRANSACTION => {
            let session = inside(K::SESSION_CHARACTERISTICS);
            base.class = if session {
                Class::Session
            } else {
                Class::Transaction
            };
            base.housekeeping = !inside(K::READ_WRITE) && !inside(K::TRANSACTION_SNAPSHOT);
        }
        K::BEGIN => {
            base.class = Class::Transaction;
            base.housekeeping = !inside(K::READ_WRITE);
            base.act = Act::Begin;
        }
        K::COMMIT_TRANSACTION => {
            base.class = Class::Transaction;
            base.housekeeping = true;
            base.act = Act::Commit {
                chain: inside(K::AND_CHAIN),
            };
        }
        K::ROLLBACK_TRANSACTION => {
            base.class = Class::Transaction;
            base.housekeeping = true;
            base.act = Act::Rollback {
                chain: inside(K::AND_CHAIN),
            };
        }
        K::ROLLBACK_TO_SAVEPOINT => {
            base.class = Class::Transaction;
            base.housekeeping = true;
            base.act = Act::RollbackTo;
        }
        K::SAVEPOINT_CREATE | K::RELEASE_SAVEPOINT => {
            base.class = Class::Transaction;
            base.housekeeping = true;
        }
        K::PREPARE_TRANSACTION => {
            base.class = Class::Transaction;
            base.effects.insert("two_phase");
            base.act = Act::Commit { chain: false };
        }
        K::COMMIT_PREPARED | K::ROLLBACK_PREPARED => {
            base.class = Class::Transaction;
            base.effects.insert("two_phase");
            // It settles work that some other session did.
            base.proven = false;
        }
        K::COPY => copy(root, &mut base)?,
        K::DO => {
            base.class = Class::Procedural;
            // Its body is a program in a text.
            base.proven = false;
        }
        K::CALL => base.class = Class::Procedural,
        K::VACUUM
        | K::ANALYZE
        | K::CLUSTER
        | K::REINDEX
        | K::CHECKPOINT
        | K::REFRESH
        | K::REPACK => {
            base.class = Class::Maintenance;
        }
        kind => {
            let word = format!("{kind:?}");
            let starts = |head: &str| word.starts_with(head);
            let privileges = [
                "_ROLE",
                "_USER",
                "_GROUP",
                "_POLICY",
                "_USER_MAPPING",
                "_DEFAULT_PRIVILEGES",
            ];
            let definition = ["CREATE_", "ALTER_", "DROP_"]
                .iter()
                .any(|head| starts(head));
            base.class = if matches!(
                kind,
                K::GRANT | K::REVOKE | K::REASSIGN | K::DROP_OWNED | K::SECURITY_LABEL
            ) || (definition && privileges.iter().any(|tail| word.ends_with(tail)))
            {
                base.effects.insert("privilege");
                Class::Dcl
            } else if definition || matches!(kind, K::COMMENT_ON | K::IMPORT_FOREIGN_SCHEMA) {
                Class::Ddl
            } else {
                return None;
            };
            if ["_SUBSCRIPTION", "_SERVER", "_PUBLICATION"]
                .iter()
                .any(|tail| word.ends_with(tail))
                || kind == K::IMPORT_FOREIGN_SCHEMA
            {
                base.effects.insert("outbound");
            }
            if kind == K::ALTER_SYSTEM {
                base.effects.insert("server_setting");
            }
        }
    }
    Some(base)
}

/// `EXPLAIN`'s options as the tree has them; `witness.rs` reads them too.
fn explain_runs(root: &SyntaxNode) -> bool {
    let mut runs = root
        .children()
        .any(|child| child.kind() == K::EXPLAIN_ANALYZE);
    for option in root
        .children()
        .filter(|child| child.kind() == K::EXPLAIN_OPTION_LIST)
        .flat_map(|list| list.children())
    {
        let mut parts = option.children();
        let key = parts.next().and_then(|node| name(&node));
        // A name that cannot be read might be the one.
        if key.is_none_or(|key| matches!(key.last(), "analyze" | "analyse")) {
            let value = parts.next().map(|node| node.text().to_string());
            runs = value.is_none_or(|value| !declines(&value));
        }
    }
    runs
}

fn setting(root: &SyntaxNode, base: &mut Base) -> Option<()> {
    base.class = Class::Session;
    let target = root
        .children()
        .find(|child| !matches!(child.kind(), K::LOCAL_SCOPE | K::SESSION_SCOPE))?;
    let parameter = |node: &SyntaxNode| name(node).map(|name| name.parts.join("."));
    let (name, value) = match target.kind() {
        K::SET_TIME_ZONE | K::RESET_TIME_ZONE => ("timezone".to_owned(), None),
        K::SET_XML_OPTION => ("xmloption".to_owned(), None),
        K::CONFIG_PARAMETER_REF => (parameter(&target)?, None),
        K::SET_CONFIG => {
            let mut parts = target.children();
            let key = parameter(&parts.next()?)?;
            (key, values(&parts.next()?))
        }
        // RESET ALL, SET SCHEMA, SET CATALOG.
        kind => {
            base.act = set(
                if kind == K::ALL {
                    settings::ALL
                } else {
                    "search_path"
                },
                root,
            );
            return Some(());
        }
    };
    match change(&name, value.as_deref()) {
        Change::Harmless => base.housekeeping = true,
        Change::Matters => {}
        Change::Refused => {
            base.effects.insert("parser_setting");
            base.reject = Some(settings::refused(&name));
        }
    }
    // `SET ROLE` by another name.
    if ["role", "session_authorization"]
        .iter()
        .any(|one| name.eq_ignore_ascii_case(one))
    {
        base.effects.insert("privilege");
    }
    if settings::gives_meaning(&name) {
        base.act = set(&name, root);
    }
    Some(())
}

/// A change of the session's state that later text depends on.
fn set(name: &str, root: &SyntaxNode) -> Act {
    Act::Set {
        name: name.to_ascii_lowercase(),
        value: root.text().to_string(),
        local: root.descendants().any(|node| node.kind() == K::LOCAL_SCOPE),
    }
}

/// The assigned value as text; `None` for DEFAULT. What is not one plain value
/// comes out as something that no check takes for a good one.
fn values(node: &SyntaxNode) -> Option<String> {
    let words: Vec<String> = node
        .descendants_with_tokens()
        .filter_map(|element| element.into_token())
        .filter(|token| !token.kind().is_trivia() && !matches!(token.kind(), K::TO_KW | K::EQ))
        .map(|token| string(token.text()).unwrap_or_else(|| token.text().to_owned()))
        .collect();
    match words.as_slice() {
        [word] if word.eq_ignore_ascii_case("default") => None,
        words => Some(words.join(" ")),
    }
}

fn copy(root: &SyntaxNode, base: &mut Base) -> Option<()> {
    let side = root
        .children()
        .find(|child| matches!(child.kind(), K::COPY_FROM | K::COPY_TO))?;
    let incoming = side.kind() == K::COPY_FROM;
    base.class = if incoming {
        Class::CopyIn
    } else {
        Class::CopyOut
    };
    let place = side.children().next()?;
    match place.kind() {
        K::COPY_STDIN | K::COPY_STDOUT => {}
        K::COPY_PROGRAM => {
            let program = place
                .children_with_tokens()
                .any(|child| child.kind() == K::PROGRAM_KW);
            base.effects.insert(if program {
                "server_program"
            } else {
                "server_file"
            });
            // What a program does, or which file a path is, no text shows.
            base.proven = false;
        }
        _ => return None,
    }
    Some(())
}

/// What the walk over all nodes found.
#[derive(Default)]
struct Findings {
    /// All that it does, whatever it is called.
    classes: BTreeSet<Class>,
    effects: BTreeSet<&'static str>,
    objects: Vec<Object>,
    functions: BTreeSet<String>,
    unknown: BTreeSet<String>,
    /// An unknown function that runs now, not when a default or view is used.
    runs_unknown: bool,
    columns: BTreeSet<String>,
    star: bool,
    no_where: Option<bool>,
    limited: bool,
    opaque: bool,
    /// The server's grammar refuses it.
    refused: bool,
    ranges: Ranges,
    /// What stands behind a dot, and whether it runs now.
    dotted: Vec<(Dotted, bool)>,
    /// Names of rows: of relations, and of queries in brackets.
    rows: BTreeSet<String>,
    /// Names of what functions in `FROM` give, which may be plain values.
    values: BTreeSet<String>,
}

impl Findings {
    fn of(root: &SyntaxNode, base: Class) -> Self {
        let mut found = Self::default();
        let mut scopes = Scopes::default();
        for event in root.preorder() {
            let node = match event {
                WalkEvent::Enter(node) => node,
                WalkEvent::Leave(node) => {
                    scopes.leave(&node);
                    continue;
                }
            };
            scopes.enter(&node);
            found.node(&node, root);
            if let Some(object) = object(&node, &scopes, base)
                && !found.objects.contains(&object)
            {
                found.objects.push(object);
            }
        }
        found.behind_dots();
        // A row that is named alone is all of its columns.
        found.star |= found.columns.iter().any(|name| found.rows.contains(name));
        found.ranges.items = items(root);
        found
    }

    /// A column of a row is nothing; behind anything else stands a call.
    fn behind_dots(&mut self) {
        for (dotted, deferred) in std::mem::take(&mut self.dotted) {
            let Dotted {
                name,
                range,
                harmful,
            } = dotted;
            let column = range
                .is_some_and(|range| self.rows.contains(&range) && !self.values.contains(&range));
            if harmful || !column {
                self.call(
                    Some(Called {
                        name,
                        known: !harmful,
                    }),
                    deferred,
                );
            }
        }
    }

    fn node(&mut self, node: &SyntaxNode, root: &SyntaxNode) {
        self.refused |= refused(node);
        match node.kind() {
            K::INSERT | K::UPDATE | K::DELETE | K::MERGE => {
                self.worse(Class::Write);
                if matches!(node.kind(), K::UPDATE | K::DELETE) {
                    let bounded = node
                        .children()
                        .any(|child| matches!(child.kind(), K::WHERE_CLAUSE | K::WHERE_CURRENT_OF));
                    self.no_where = Some(self.no_where.unwrap_or(false) || !bounded);
                }
            }
            K::INTO_CLAUSE => self.worse(Class::Ddl),
            K::GRANT | K::REVOKE if node != root => {
                self.worse(Class::Dcl);
                self.effects.insert("privilege");
            }
            K::OWNER_TO
            | K::ENABLE_RLS
            | K::DISABLE_RLS
            | K::FORCE_RLS
            | K::NO_FORCE_RLS
            | K::SECURITY_DEFINER_FUNC_OPTION
            | K::SECURITY_INVOKER_FUNC_OPTION => {
                self.effects.insert("privilege");
            }
            K::CTE_NAME => self
                .rows
                .extend(name(node).map(|name| name.last().to_owned())),
            K::FUNCTION_FROM_ITEM | K::ROWS_FROM_ITEM => self.value(node),
            K::LOCKING_CLAUSE => {
                self.worse(Class::Write);
                self.effects.insert("row_lock");
            }
            K::LIMIT_CLAUSE | K::FETCH_CLAUSE => self.limited = true,
            K::CALL_EXPR => self.call(called(node), deferred(node, root)),
            K::OPERATOR_CALL => self.call(operator(node), deferred(node, root)),
            K::CAST_EXPR => self.call(treated(node), deferred(node, root)),
            // That it runs code of its own is what its class says already.
            K::CALL => self.call(procedure(node), true),
            K::GRAPH_TABLE_FN => self.opaque = true,
            // `CREATE TABLE … AS EXECUTE`: what runs is not in this text.
            K::EXECUTE if !matches!(root.kind(), K::EXECUTE | K::EXPLAIN) => self.opaque = true,
            K::CONFIG_PARAMETER_REF
                if !matches!(root.kind(), K::SHOW | K::SET | K::RESET)
                    && name(node).is_some_and(|name| settings::moves_quotes(name.last())) =>
            {
                self.effects.insert("parser_setting");
            }
            K::ROLE_OPTION_PASSWORD | K::ROLE_OPTION_ENCRYPTED_PASSWORD | K::CONNECTION_CLAUSE => {
                self.effects.insert("secret_in_text");
            }
            K::ADD_FOREIGN_OPTION
                if matches!(root.kind(), K::CREATE_USER_MAPPING | K::ALTER_USER_MAPPING) =>
            {
                self.effects.insert("secret_in_text");
            }
            K::NAME_REF => self.column(node),
            K::COLUMN_NAME_REF => self
                .columns
                .extend(name(node).map(|name| name.last().to_owned())),
            // `FROM treat` is a relation, which the tree takes for an expression.
            K::EXPR_FROM_ITEM => {
                self.value(node);
                self.opaque |= node
                    .first_child()
                    .is_some_and(|item| matches!(item.kind(), K::NAME_REF | K::FIELD_EXPR));
            }
            K::TARGET | K::FIELD_EXPR => {
                if let Some(dotted) = (node.kind() == K::FIELD_EXPR)
                    .then(|| dotted(node))
                    .flatten()
                {
                    self.dotted.push((dotted, deferred(node, root)));
                }
                self.star |= node
                    .children_with_tokens()
                    .any(|child| child.kind() == K::STAR);
            }
            // `TABLE t` is `SELECT * FROM t`, and a COPY without columns has all of them.
            K::TABLE => self.star = true,
            K::COPY_TABLE => self.star |= node.children().count() == 1,
            K::CASCADE if node.parent().as_ref() == Some(root) => {
                self.effects.insert("cascade");
            }
            K::RELATION_NAME_REF | K::TABLE_NAME_REF | K::TABLE_ALIAS => self.range(node),
            K::FROM_ALIAS => {
                self.ranges.renamed |= node.children().any(|child| child.kind() != K::TABLE_ALIAS);
            }
            K::ERROR => self.opaque = true,
            _ => {}
        }
    }

    /// A name that a relation has in this statement.
    fn range(&mut self, node: &SyntaxNode) {
        match name(node) {
            Some(name) => {
                if !of_value(node) {
                    self.rows.insert(name.last().to_owned());
                }
                self.ranges.names.push(name.last().to_owned());
            }
            None => self.ranges.renamed = true,
        }
    }

    /// What `FROM f()` or `FROM f() AS a` is called.
    fn value(&mut self, node: &SyntaxNode) {
        let named = node.descendants().filter(|part| {
            part.kind() == K::TABLE_ALIAS
                || part.kind() == K::CALL_EXPR && part.parent().as_ref() == Some(node)
        });
        for part in named {
            let target = match part.kind() {
                K::CALL_EXPR => part.first_child(),
                _ => Some(part),
            };
            let found = target.and_then(|target| name(&target));
            self.values.extend(found.map(|name| name.last().to_owned()));
        }
    }

    fn worse(&mut self, class: Class) {
        self.classes.insert(class);
    }

    fn call(&mut self, called: Option<Called>, deferred: bool) {
        let Some(called) = called else { return };
        if !called.known {
            self.unknown.insert(called.name.clone());
            self.runs_unknown |= !deferred;
        }
        self.functions.insert(called.name);
    }

    /// A name in an expression is a column unless it is called, or qualifies.
    fn column(&mut self, node: &SyntaxNode) {
        let Some(parent) = node.parent() else { return };
        let first = parent.first_child().as_ref() == Some(node);
        let called = parent.kind() == K::FIELD_EXPR
            && parent.parent().is_some_and(|up| {
                up.kind() == K::CALL_EXPR && up.first_child().as_ref() == Some(&parent)
            });
        if matches!(parent.kind(), K::CALL_EXPR | K::FIELD_EXPR) && first || called {
            return;
        }
        self.columns
            .extend(name(node).map(|name| name.last().to_owned()));
    }
}

/// Whether an alias is that of a function in `FROM`.
fn of_value(node: &SyntaxNode) -> bool {
    let item = node
        .ancestors()
        .skip(1)
        .find(|up| up.kind() != K::FROM_ALIAS);
    item.is_some_and(|item| {
        matches!(
            item.kind(),
            K::FUNCTION_FROM_ITEM | K::ROWS_FROM_ITEM | K::EXPR_FROM_ITEM
        )
    })
}

/// How many items the statement's own select list has.
fn items(root: &SyntaxNode) -> usize {
    let child = |node: &SyntaxNode, kind| node.children().find(|child| child.kind() == kind);
    let list = child(root, K::SELECT_CLAUSE).and_then(|clause| child(&clause, K::TARGET_LIST));
    list.map_or(0, |list| {
        list.children()
            .filter(|one| one.kind() == K::TARGET)
            .count()
    })
}

/// Code that a definition stores and does not run.
fn deferred(node: &SyntaxNode, root: &SyntaxNode) -> bool {
    match root.kind() {
        K::CREATE_VIEW
        | K::CREATE_FUNCTION
        | K::CREATE_PROCEDURE
        | K::CREATE_RULE
        | K::CREATE_TRIGGER
        | K::CREATE_POLICY
        | K::ALTER_POLICY
        | K::CREATE_EVENT_TRIGGER
        | K::CREATE_DOMAIN => true,
        K::CREATE_TABLE | K::CREATE_FOREIGN_TABLE => node.ancestors().any(|up| {
            matches!(
                up.kind(),
                K::DEFAULT_CONSTRAINT | K::CHECK_CONSTRAINT | K::GENERATED_CONSTRAINT
            )
        }),
        _ => false,
    }
}

impl Base {
    fn finish(self, root: &SyntaxNode, found: Findings) -> Statement {
        let mut classes = BTreeSet::from([self.class]);
        let mut objects = found.objects;
        if self.planned {
            // Planning takes no row, but it may fold calls into constants.
            for object in objects.iter_mut().filter(|object| object.access == "write") {
                object.access = "read";
            }
        } else {
            classes.extend(found.classes);
            if found.effects.contains("row_lock") {
                let locks: Vec<Object> = objects
                    .iter()
                    .filter(|object| object.access == "read")
                    .map(|object| Object {
                        access: "lock",
                        ..object.clone()
                    })
                    .collect();
                objects.extend(locks);
            }
        }
        if found.runs_unknown {
            classes.insert(Class::FunctionEffect);
        }
        if found.opaque || found.refused {
            classes.insert(Class::Unknown);
        }
        let class = classes.pop_last().unwrap_or(Class::Unknown);
        // What every write reads as well is no read of its own.
        let reads =
            class == Class::FunctionEffect && objects.iter().any(|one| one.access == "read");
        let also = classes
            .into_iter()
            .filter(|also| *also > Class::Read || *also == Class::Read && reads);
        let mut effects = self.effects;
        effects.extend(found.effects);
        if self.planned {
            effects.remove("row_lock");
        }
        let mut facts = vec![("statement", kind_words(root.kind()))];
        if found.refused {
            let reason = "the server's grammar refuses it".to_owned();
            facts.push(("unknown_reason", reason));
        }
        // A rule that asks for a fact which is absent refuses, so whatever the
        // text does tell is told.
        if !matches!(class, Class::Procedural | Class::Unknown) {
            let no_where = found.no_where.unwrap_or(root.kind() == K::TRUNCATE);
            facts.push(("no_where", no_where.to_string()));
            facts.push(("star", found.star.to_string()));
            facts.push(("limit", found.limited.to_string()));
            let columns = column_list(&found.columns);
            facts.extend(columns.map(|columns| ("columns", columns)));
        }
        Statement {
            class,
            also: also.collect(),
            effects: effects.into_iter().collect(),
            objects,
            functions: found.functions.into_iter().collect(),
            unknown_functions: found.unknown.into_iter().collect(),
            proven: self.proven && class != Class::Unknown,
            housekeeping: self.housekeeping && self.reject.is_none() && class <= Class::Read,
            facts,
            act: self.act,
            exposure: Exposure::Unjudged,
            ranges: found.ranges,
            reject: self.reject,
        }
    }
}

/// Column names with commas between; `None` where that would not be clear.
fn column_list(columns: &BTreeSet<String>) -> Option<String> {
    let length: usize = columns.iter().map(|column| column.len() + 1).sum();
    let clear = length <= MAX_COLUMNS && !columns.iter().any(|column| column.contains(','));
    clear.then(|| {
        columns
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(",")
    })
}

/// `DROP_TABLE` is `drop table`; the tree's own fine distinctions are levelled.
fn kind_words(kind: K) -> String {
    match kind {
        K::COMPOUND_SELECT | K::PAREN_SELECT => "select".to_owned(),
        K::COMMIT_TRANSACTION => "commit".to_owned(),
        K::ROLLBACK_TRANSACTION => "rollback".to_owned(),
        K::SAVEPOINT_CREATE => "savepoint".to_owned(),
        K::SET_SESSION_AUTH => "set session authorization".to_owned(),
        kind => format!("{kind:?}").to_ascii_lowercase().replace('_', " "),
    }
}

#[cfg(test)]
mod tests;
