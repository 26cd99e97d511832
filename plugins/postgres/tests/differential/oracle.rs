//! What a text does according to PostgreSQL's own grammar (libpg_query).
//!
//! A second reading of the same question, which shares nothing with the plugin
//! but the two lists in `data`: another lexer, another grammar, another walk. The
//! tree is walked as JSON, every member of every node, so that no list of places
//! can be incomplete here either.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The oracle's answer for a whole text.
#[derive(Debug)]
pub(crate) enum Answer {
    Statements(Vec<Said>),
    /// The server would refuse the text.
    Refused(String),
    /// The tree is too deep for the protobuf between the C library and us, or
    /// the text would trip an assertion of the C library, which ends the process.
    TooDeep,
}

/// What one statement does.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The name of the tree's root.
    pub(crate) root: String,
    pub(crate) class: &'static str,
    /// `EXPLAIN` without running: nothing inside is done.
    pub(crate) planned: bool,
    pub(crate) relations: BTreeSet<Relation>,
    /// Called functions, `pg_catalog` left out.
    pub(crate) functions: BTreeSet<String>,
    /// Functions, operators and sampling methods that are not known to be harmless.
    pub(crate) unlisted: BTreeSet<String>,
    pub(crate) columns: BTreeSet<String>,
    pub(crate) star: bool,
    /// For `UPDATE` and `DELETE`: whether one of them has no `WHERE`.
    pub(crate) no_where: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Relation {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
    /// `read`, `write`, or empty where only the name counts.
    pub(crate) access: &'static str,
}

/// Reads a text as the server does.
pub(crate) fn ask(text: &str) -> Answer {
    if limits_twice(text) {
        return Answer::TooDeep;
    }
    let tree = match pg_query::parse(text, 0) {
        Ok(tree) => tree.protobuf,
        Err(pg_query::Error::Decode(_)) => return Answer::TooDeep,
        Err(error) => return Answer::Refused(error.to_string()),
    };
    let mut defined: Vec<(String, &'static str)> = Vec::new();
    let statements = tree.stmts.iter().map(|statement| {
        let node = serde_json::to_value(&statement.stmt).unwrap();
        let mut said = said(&node["node"]);
        let names = names(&node["node"]);
        if said.class == "unknown" && said.root != "ExplainStmt" || names.1.is_some() {
            // What is run may stand in the same text.
            let known = defined
                .iter()
                .filter(|(name, _)| Some(name) == names.1.as_ref());
            said.class = known
                .map(|(_, class)| *class)
                .max_by_key(|class| rank(class))
                .unwrap_or("unknown");
        }
        defined.extend(names.0.map(|name| (name, said.class)));
        said
    });
    Answer::Statements(statements.collect())
}

/// The prepared statement or cursor that a statement makes, and the one it runs.
fn names(node: &Value) -> (Option<String>, Option<String>) {
    let text = |value: &Value, space: &str| value.as_str().map(|name| format!("{space} {name}"));
    let inner = &node["ExplainStmt"]["query"]["node"];
    (
        text(&node["PrepareStmt"]["name"], "statement")
            .or_else(|| text(&node["DeclareCursorStmt"]["portalname"], "cursor")),
        text(&node["ExecuteStmt"]["name"], "statement")
            .or_else(|| text(&inner["ExecuteStmt"]["name"], "statement"))
            .or_else(|| text(&node["FetchStmt"]["portalname"], "cursor")),
    )
}

/// `(SELECT 1 LIMIT 1) OFFSET 1`: the parser of 18 asserts that a query has one
/// limit, and cargo's test profile builds it with assertions.
fn limits_twice(text: &str) -> bool {
    // Of each open bracket: whether a limit stands in it, whether a query that
    // has one was closed in it.
    let mut open = vec![(false, false)];
    let words = text.split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_'));
    for word in words {
        let name = word.trim_end_matches(|c: char| !(c.is_alphanumeric() || c == '_'));
        if ["limit", "offset", "fetch"]
            .iter()
            .any(|limit| name.eq_ignore_ascii_case(limit))
        {
            let here = open.last_mut().unwrap();
            if here.1 {
                return true;
            }
            here.0 = true;
        }
        match word.chars().last() {
            Some('(') => open.push((false, false)),
            Some(')') if open.len() > 1 => {
                let (own, inner) = open.pop().unwrap();
                open.last_mut().unwrap().1 |= own || inner;
            }
            _ => {}
        }
    }
    false
}

fn said(node: &Value) -> Said {
    let (root, body) = node.as_object().unwrap().iter().next().unwrap();
    let mut walk = Walk::default();
    walk.value(node);
    let mut said = walk.said;
    let own = own_class(root, body);
    let mut inner = Vec::new();
    match root.as_str() {
        "ExplainStmt" => {
            said.planned = !runs(body);
            if !said.planned {
                inner.push(
                    body["query"]["node"]
                        .as_object()
                        .unwrap()
                        .keys()
                        .next()
                        .unwrap()
                        .as_str(),
                );
            }
        }
        "SelectStmt" | "PrepareStmt" | "DeclareCursorStmt" | "CopyStmt" => {}
        _ => {}
    }
    let effects = if said.planned { None } else { walk.effect };
    let inner = inner.into_iter().map(|root| own_class(root, &Value::Null));
    said.class = inner
        .chain(effects)
        .chain([own])
        .max_by_key(|class| rank(class))
        .unwrap();
    said.root = root.clone();
    said
}

/// The plugin's classes, from harmless to worst.
const CLASSES: [&str; 11] = [
    "session",
    "transaction",
    "read",
    "copy_out",
    "write",
    "copy_in",
    "maintenance",
    "ddl",
    "dcl",
    "procedural",
    "unknown",
];

pub(crate) fn rank(class: &str) -> usize {
    CLASSES.iter().position(|word| *word == class).unwrap()
}

/// Whether an `EXPLAIN` runs its statement; the last option wins.
fn runs(body: &Value) -> bool {
    let mut runs = false;
    for option in body["options"].as_array().unwrap() {
        let option = &option["node"]["DefElem"];
        if option["defname"] != "analyze" {
            continue;
        }
        let value = &option["arg"]["node"];
        let word = value["String"]["sval"]
            .as_str()
            .map(str::to_ascii_lowercase);
        runs = match (word.as_deref(), &value["Integer"], &value["Boolean"]) {
            (Some("off" | "false"), _, _) => false,
            (_, Value::Object(number), _) => number["ival"] != 0,
            (_, _, Value::Object(number)) => number["boolval"] == true,
            _ => true,
        };
    }
    runs
}

/// The class of a kind of statement, apart from what it contains.
fn own_class(root: &str, body: &Value) -> &'static str {
    match root {
        "SelectStmt" | "VariableShowStmt" | "ExplainStmt" | "PrepareStmt" | "DeclareCursorStmt" => {
            "read"
        }
        "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" | "TruncateStmt" | "LockStmt" => {
            "write"
        }
        "CopyStmt" if body["is_from"] == true => "copy_in",
        "CopyStmt" => "copy_out",
        "VariableSetStmt" => match body["name"].as_str() {
            Some("TRANSACTION" | "TRANSACTION SNAPSHOT") => "transaction",
            _ => "session",
        },
        "DiscardStmt" | "ListenStmt" | "UnlistenStmt" | "NotifyStmt" | "DeallocateStmt"
        | "ClosePortalStmt" | "LoadStmt" => "session",
        "TransactionStmt" | "ConstraintsSetStmt" => "transaction",
        "ExecuteStmt" | "FetchStmt" => "unknown",
        "DoStmt" | "CallStmt" => "procedural",
        "VacuumStmt" | "ClusterStmt" | "ReindexStmt" | "CheckPointStmt" | "RefreshMatViewStmt" => {
            "maintenance"
        }
        "GrantStmt"
        | "GrantRoleStmt"
        | "AlterDefaultPrivilegesStmt"
        | "CreateRoleStmt"
        | "AlterRoleStmt"
        | "AlterRoleSetStmt"
        | "DropRoleStmt"
        | "CreatePolicyStmt"
        | "AlterPolicyStmt"
        | "CreateUserMappingStmt"
        | "AlterUserMappingStmt"
        | "DropUserMappingStmt"
        | "ReassignOwnedStmt"
        | "DropOwnedStmt"
        | "SecLabelStmt" => "dcl",
        _ => "ddl",
    }
}

#[derive(Default)]
struct Walk {
    said: Said,
    /// The worst of what stands inside.
    effect: Option<&'static str>,
    /// Names of the common table expressions in scope.
    scope: Vec<String>,
    /// Depth of statements whose columns count.
    rows: usize,
}

impl Walk {
    fn effect(&mut self, class: &'static str) {
        if self.effect.is_none_or(|old| rank(old) < rank(class)) {
            self.effect = Some(class);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.value(item)),
            Value::Object(members) => self.object(members),
            _ => {}
        }
    }

    fn object(&mut self, members: &Map<String, Value>) {
        let only = (members.len() == 1).then(|| members.iter().next().unwrap());
        if let Some((tag, body)) = only {
            self.tagged(tag, body);
        }
        let is = |keys: &[&str]| keys.iter().all(|key| members.contains_key(*key));
        if is(&["relname", "relpersistence"]) {
            return self.relation(members, "read");
        }
        // Its names are of constraints.
        if is(&["constraints", "deferred"]) {
            return;
        }
        if is(&["funcname", "agg_within_group"]) {
            self.function(members);
        }
        if is(&["locking_clause", "into_clause"]) {
            self.rows += 1;
            if members["into_clause"].is_object() {
                self.effect("ddl");
            }
            if !members["locking_clause"].as_array().unwrap().is_empty() {
                self.effect("write");
            }
        }
        let scope = self.scope.len();
        if let Some(with) = members.get("with_clause") {
            self.with(with);
        }
        for (key, member) in members {
            match key.as_str() {
                // The scope, seen above; names of the tables in FROM, seen there.
                "with_clause" | "locked_rels" => {}
                "relation" if is_change(members) => {
                    self.relation(member.as_object().unwrap(), "write");
                }
                _ => self.value(member),
            }
        }
        self.scope.truncate(scope);
    }

    /// Without RECURSIVE, an expression sees only those before it.
    fn with(&mut self, with: &Value) {
        let Some(tables) = with["ctes"].as_array() else {
            return;
        };
        let tables = || tables.iter().map(|table| &table["node"]["CommonTableExpr"]);
        let name = |table: &Value| table["ctename"].as_str().unwrap().to_owned();
        if with["recursive"] == true {
            self.scope.extend(tables().map(name));
        }
        for table in tables() {
            self.value(table);
            if with["recursive"] != true {
                self.scope.push(name(table));
            }
        }
    }

    fn tagged(&mut self, tag: &str, body: &Value) {
        match tag {
            "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {
                self.effect("write");
                if matches!(tag, "UpdateStmt" | "DeleteStmt") {
                    let missing = body["where_clause"].is_null();
                    self.said.no_where = Some(self.said.no_where.unwrap_or(false) || missing);
                }
                for list in ["cols", "target_list"] {
                    for target in body[list].as_array().into_iter().flatten() {
                        self.column(target["node"]["ResTarget"]["name"].as_str());
                    }
                }
            }
            "CreateTableAsStmt" => self.effect("ddl"),
            "ColumnRef" => {
                let last = body["fields"].as_array().and_then(|fields| fields.last());
                let last = last.map_or(&Value::Null, |last| &last["node"]);
                self.said.star |= last["AStar"].is_object();
                self.column(last["String"]["sval"].as_str());
                self.dotted(strings(&body["fields"]).iter().skip(1));
            }
            "AIndirection" => self.dotted(strings(&body["indirection"]).iter()),
            "AExpr" | "SortBy" | "SubLink" => {
                for list in ["name", "use_op", "oper_name"] {
                    let parts = strings(&body[list]);
                    if parts.len() > 1 && parts[0] != "pg_catalog" {
                        self.said
                            .unlisted
                            .insert(format!("OPERATOR({})", parts.join(".")));
                    }
                }
            }
            "RangeTableSample" => {
                let method = strings(&body["method"]);
                let name = method.join(".");
                let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
                if !matches!(name, "bernoulli" | "system") {
                    self.said.unlisted.insert(method.join("."));
                }
            }
            _ => {}
        }
    }

    fn column(&mut self, name: Option<&str>) {
        self.said
            .columns
            .extend(name.filter(|name| !name.is_empty()).map(str::to_owned));
    }

    /// `t.f` and `(x).f` may call `f`.
    fn dotted<'n>(&mut self, names: impl Iterator<Item = &'n String>) {
        let list = include_str!("../../data/dotted.txt");
        let calls = names.filter(|name| list.lines().any(|line| line == **name));
        self.said.unlisted.extend(calls.cloned());
    }

    fn function(&mut self, members: &Map<String, Value>) {
        const SYNTAX: i64 = pg_query::protobuf::CoercionForm::CoerceSqlSyntax as i64;
        if members["funcformat"] == SYNTAX {
            return;
        }
        let parts = strings(&members["funcname"]);
        let name = match parts.as_slice() {
            [.., schema, name] if schema == "pg_catalog" => name.clone(),
            // A third part can only be the current database.
            [.., schema, name] => format!("{schema}.{name}"),
            parts => parts.join("."),
        };
        if !listed(&name) {
            self.said.unlisted.insert(name.clone());
        }
        // So the grammar writes its own calls, such as that for `LIKE … ESCAPE`.
        if parts.len() == 2 && parts[0] == "pg_catalog" && listed(&name) {
            return;
        }
        self.said.functions.insert(name);
    }

    fn relation(&mut self, members: &Map<String, Value>, access: &'static str) {
        let text = |key: &str| members[key].as_str().unwrap().to_owned();
        let (schema, name) = (text("schemaname"), text("relname"));
        let schema = (!schema.is_empty()).then_some(schema);
        if access == "read" && schema.is_none() && self.scope.contains(&name) {
            return;
        }
        self.said.relations.insert(Relation {
            schema,
            name,
            access,
        });
    }
}

/// Whether this is the body of a statement that changes its `relation`.
fn is_change(members: &Map<String, Value>) -> bool {
    ["on_conflict_clause", "using_clause", "merge_when_clauses"]
        .iter()
        .any(|key| members.contains_key(*key))
        || (members.contains_key("returning_clause") && members.contains_key("from_clause"))
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|part| part["node"]["String"]["sval"].as_str().map(str::to_owned))
        .collect()
}

fn listed(name: &str) -> bool {
    static KNOWN: std::sync::LazyLock<BTreeSet<&str>> = std::sync::LazyLock::new(|| {
        include_str!("../../data/functions.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect()
    });
    KNOWN.contains(name)
}
