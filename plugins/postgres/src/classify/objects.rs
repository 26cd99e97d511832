//! The relations and other objects that a statement names.
//!
//! Every name in the tree is reported unless it certainly is that of a common
//! table expression in whose scope it stands. In doubt an object is reported
//! once too often, and with the stronger access.

use std::collections::HashMap;

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::names::{Name, name};
use super::{Class, Object};

/// The common table expressions that are visible at one point of the walk.
#[derive(Default)]
pub(crate) struct Scopes {
    stack: Vec<Scope>,
    /// How many visible scopes hold a name.
    visible: HashMap<String, u32>,
}

struct Scope {
    /// The query to which the `WITH` belongs.
    owner: SyntaxNode,
    names: Vec<String>,
}

impl Scopes {
    pub(crate) fn enter(&mut self, node: &SyntaxNode) {
        if node.kind() == SyntaxKind::WITH_CLAUSE {
            self.stack.push(Scope {
                owner: owner(node),
                names: Vec::new(),
            });
            if has_token(node, SyntaxKind::RECURSIVE_KW) {
                for table in node
                    .children()
                    .filter(|child| child.kind() == SyntaxKind::WITH_TABLE)
                {
                    self.add(&table);
                }
            }
        }
    }

    pub(crate) fn leave(&mut self, node: &SyntaxNode) {
        // Without RECURSIVE an expression is visible only to what follows it.
        if node.kind() == SyntaxKind::WITH_TABLE
            && !node
                .parent()
                .is_some_and(|clause| has_token(&clause, SyntaxKind::RECURSIVE_KW))
        {
            self.add(node);
        }
        while self.stack.last().is_some_and(|scope| scope.owner == *node) {
            for name in self
                .stack
                .pop()
                .map(|scope| scope.names)
                .unwrap_or_default()
            {
                if let Some(count) = self.visible.get_mut(&name) {
                    *count = count.saturating_sub(1);
                }
            }
        }
    }

    fn add(&mut self, table: &SyntaxNode) {
        let found = table
            .children()
            .find(|child| child.kind() == SyntaxKind::CTE_NAME)
            .and_then(|node| name(&node));
        if let (Some(found), Some(scope)) = (found, self.stack.last_mut()) {
            *self.visible.entry(found.last().to_owned()).or_default() += 1;
            scope.names.push(found.last().to_owned());
        }
    }

    fn hides(&self, name: &Name) -> bool {
        name.parts.len() == 1
            && self
                .visible
                .get(name.last())
                .is_some_and(|&count| count > 0)
    }
}

/// The tree hangs a `WITH` on the first operand of a set operation; it belongs
/// to the whole.
fn owner(clause: &SyntaxNode) -> SyntaxNode {
    let mut owner = clause.parent().unwrap_or_else(|| clause.clone());
    while let Some(parent) = owner.parent() {
        if parent.kind() != SyntaxKind::COMPOUND_SELECT
            || parent.first_child().as_ref() != Some(&owner)
        {
            break;
        }
        owner = parent;
    }
    owner
}

fn has_token(node: &SyntaxNode, kind: SyntaxKind) -> bool {
    node.children_with_tokens()
        .any(|child| child.kind() == kind)
}

/// The object that `node` names, if it names one.
pub(crate) fn object(node: &SyntaxNode, scopes: &Scopes, root: Class) -> Option<Object> {
    if let Some(access) = relation(node, root) {
        let found = name(node)?;
        return (!(access.may_be_cte && scopes.hides(&found)))
            .then(|| make("table", &found, access.word));
    }
    let kind = other(node)?;
    // Elsewhere they are names of types, or of columns; a view is one anywhere,
    // also behind `EXPLAIN`.
    let definition = matches!(
        root,
        Class::Ddl | Class::Dcl | Class::Maintenance | Class::Procedural
    );
    if !definition && kind != "view" {
        return None;
    }
    // The tree reads the privileges of a GRANT as roles.
    let privilege = kind == "role"
        && node
            .ancestors()
            .any(|node| node.kind() == SyntaxKind::REVOKE_COMMAND)
        && node.ancestors().any(|node| {
            node.children()
                .any(|child| child.kind() == SyntaxKind::ON_PRIVILEGE_OBJECTS_CLAUSE)
        });
    let access = match root {
        Class::Procedural => "execute",
        Class::Maintenance => "write",
        _ => "define",
    };
    (!privilege)
        .then(|| name(node).map(|found| make(kind, &found, access)))
        .flatten()
}

fn make(kind: &'static str, name: &Name, access: &'static str) -> Object {
    Object {
        kind,
        schema: name.schema().map(str::to_owned),
        name: name.last().to_owned(),
        access,
    }
}

struct Access {
    word: &'static str,
    may_be_cte: bool,
}

fn relation(node: &SyntaxNode, root: Class) -> Option<Access> {
    let fixed = |word| {
        Some(Access {
            word,
            may_be_cte: false,
        })
    };
    match node.kind() {
        SyntaxKind::TABLE_NAME => return fixed("define"),
        SyntaxKind::RELATION_NAME_REF | SyntaxKind::TABLE_NAME_REF => {}
        _ => return None,
    }
    let parent = node.parent()?;
    let holder = match parent.kind() {
        SyntaxKind::RELATION_NAME | SyntaxKind::TABLE_RELATION_NAME => parent.parent()?,
        _ => parent,
    };
    match holder.kind() {
        SyntaxKind::RELATION_FROM_ITEM | SyntaxKind::TABLE => Some(Access {
            word: "read",
            may_be_cte: true,
        }),
        SyntaxKind::INSERT | SyntaxKind::UPDATE | SyntaxKind::DELETE | SyntaxKind::MERGE => {
            fixed("write")
        }
        SyntaxKind::COPY_TABLE => {
            let out = holder.parent().is_some_and(|copy| {
                copy.children()
                    .any(|child| child.kind() == SyntaxKind::COPY_TO)
            });
            fixed(if out { "read" } else { "write" })
        }
        SyntaxKind::RELATION_LIST
            if holder
                .parent()
                .is_some_and(|parent| parent.kind() == SyntaxKind::LOCK) =>
        {
            fixed("lock")
        }
        _ => fixed(if matches!(root, Class::Ddl | Class::Dcl) {
            "define"
        } else {
            "write"
        }),
    }
}

fn other(node: &SyntaxNode) -> Option<&'static str> {
    use SyntaxKind as K;
    Some(match node.kind() {
        K::VIEW | K::VIEW_REF => "view",
        K::REMOTE_TABLE_NAME_REF => "table",
        K::INDEX | K::INDEX_REF => "index",
        K::SEQUENCE | K::SEQUENCE_REF => "sequence",
        K::FUNCTION_NAME | K::FUNCTION_NAME_REF | K::ROUTINE_NAME_REF => "function",
        K::PROCEDURE_NAME | K::PROCEDURE_NAME_REF => "procedure",
        K::AGGREGATE_NAME => "aggregate",
        K::SCHEMA | K::SCHEMA_REF => "schema",
        K::DATABASE | K::DATABASE_REF => "database",
        K::ROLE | K::ROLE_NAME_REF => "role",
        K::EXTENSION | K::EXTENSION_REF => "extension",
        K::SERVER | K::SERVER_REF => "server",
        K::FOREIGN_DATA_WRAPPER | K::FOREIGN_DATA_WRAPPER_REF => "foreign_data_wrapper",
        K::PUBLICATION | K::PUBLICATION_REF => "publication",
        K::SUBSCRIPTION | K::SUBSCRIPTION_REF => "subscription",
        K::TABLESPACE | K::TABLESPACE_REF => "tablespace",
        K::TYPE_NAME | K::TYPE_NAME_REF => "type",
        K::POLICY | K::POLICY_REF => "policy",
        K::TRIGGER | K::TRIGGER_REF => "trigger",
        K::EVENT_TRIGGER | K::EVENT_TRIGGER_REF => "event_trigger",
        K::RULE | K::RULE_REF => "rule",
        K::LANGUAGE | K::LANGUAGE_REF => "language",
        K::STATISTICS | K::STATISTICS_REF => "statistics",
        K::COLLATION => "collation",
        K::CONVERSION | K::CONVERSION_REF => "conversion",
        _ => return None,
    })
}
