//! Where the plugin's answer is more harmless than the oracle's, or tells less.

use std::collections::BTreeSet;

use holdpoint_plugin::{Command, Confidence, Operation};
use holdpoint_plugin_postgres::classify;

use crate::oracle::{Answer, Said, ask, rank};

/// How often the plugin was right, and how often it was only careful.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) texts: usize,
    /// Texts that the server would parse.
    pub(crate) parsed: usize,
    pub(crate) too_deep: usize,
    /// Statements that the oracle calls a read of listed functions.
    pub(crate) reads: usize,
    /// … and the plugin does not.
    pub(crate) refused_reads: usize,
    /// Statements of any class that the server would parse.
    pub(crate) statements: usize,
    /// … and the plugin calls `unknown`.
    pub(crate) unknown: usize,
    /// … and the plugin calls worse than they are.
    pub(crate) worse: usize,
    /// Texts that the server refuses and the plugin calls neither unknown nor harmless.
    pub(crate) lax: usize,
    /// Texts that the server refuses and the plugin calls harmless.
    pub(crate) lenient: Examples,
    /// Of refused reads.
    pub(crate) examples: Examples,
}

/// Statements, of which only the number is shown beside the others.
#[derive(Default, Clone)]
pub(crate) struct Examples(pub(crate) Vec<String>);

impl Examples {
    /// Says of what was added since `before` which text it is of.
    fn label(&mut self, before: usize, text: &str) {
        for example in self.0.iter_mut().skip(before) {
            example.push_str(&format!("\n    {text:?}"));
        }
    }
}

impl std::fmt::Debug for Examples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.len())
    }
}

/// Compares the two readings of one text; the faults are sentences.
pub(crate) fn compare(text: &str, tally: &mut Tally) -> Vec<String> {
    let command = classify(vec![("sql".to_owned(), text.as_bytes().to_vec())]).unwrap();
    tally.texts += 1;
    let said = match ask(text) {
        Answer::Statements(said) => said,
        Answer::Refused(reason) => {
            let before = tally.lenient.0.len();
            refused(&command, &reason, tally);
            tally.lenient.label(before, text);
            return Vec::new();
        }
        Answer::TooDeep => {
            tally.too_deep += 1;
            return Vec::new();
        }
    };
    tally.parsed += 1;
    tally.statements += said.len();
    let mut operations = command.operations.clone();
    // What a statement does beside its class is not another one.
    operations.retain(|operation| operation.facts.iter().all(|(name, _)| name != "within"));
    if operations.len() != said.len() {
        // What the arguments of EXECUTE call is an operation of its own.
        let arguments = |operation: &Operation| {
            operation.class == "function_effect"
                && operation.facts.iter().any(|(_, value)| value == "execute")
        };
        for at in (1..operations.len()).rev() {
            if arguments(&operations[at - 1]) {
                operations.remove(at);
            }
        }
    }
    if operations
        .iter()
        .any(|operation| operation.class == "unknown")
        && operations.len() != said.len()
    {
        // The whole text is held; nothing is claimed of its parts.
        tally.unknown += said.len();
        let reads = said.iter().filter(|said| is_read(said)).count();
        tally.reads += reads;
        tally.refused_reads += reads;
        return Vec::new();
    }
    if operations.len() != said.len() {
        return vec![format!(
            "{} statements, the server sees {}",
            operations.len(),
            said.len()
        )];
    }
    let mut faults = Vec::new();
    for (operation, said) in operations.iter().zip(&said) {
        let before = tally.examples.0.len();
        faults.extend(one(operation, said, tally));
        tally.examples.label(before, text);
    }
    faults
}

fn is_read(said: &Said) -> bool {
    said.class == "read" && said.unlisted.is_empty()
}

fn harmless(operation: &Operation) -> bool {
    matches!(
        operation.class.as_str(),
        "session" | "transaction" | "read" | "copy_out"
    ) && operation.confidence == Confidence::Proven
}

fn refused(command: &Command, reason: &str, tally: &mut Tally) {
    let operations = &command.operations;
    if !operations.is_empty() && operations.iter().all(harmless) {
        let classes: Vec<&str> = operations.iter().map(|op| op.class.as_str()).collect();
        tally.lenient.0.push(format!(
            "called {classes:?}, and the server refuses it: {reason}"
        ));
        return;
    }
    tally.lax += usize::from(operations.iter().all(|op| op.class != "unknown"));
}

fn one(operation: &Operation, said: &Said, tally: &mut Tally) -> Vec<String> {
    let class = operation.class.as_str();
    let proven = operation.confidence == Confidence::Proven;
    let mut faults = Vec::new();
    if is_read(said) {
        tally.reads += 1;
        let refused = class != "read" || !proven;
        tally.refused_reads += usize::from(refused);
        if refused {
            tally.examples.0.push(format!(
                "{class} {:?} {:?}",
                operation.unknown_functions, operation.facts
            ));
        }
    }
    if class == "unknown" {
        tally.unknown += 1;
        return faults;
    }
    if class == "function_effect" {
        if said.unlisted.is_empty() {
            tally.worse += 1;
        }
    } else {
        if rank(class) < rank(said.class) {
            faults.push(format!(
                "called {class}, the server runs {} ({})",
                said.class, said.root
            ));
        }
        tally.worse += usize::from(rank(class) > rank(said.class));
        if !said.unlisted.is_empty() && harmless(operation) {
            faults.push(format!("called {class}, and it calls {:?}", said.unlisted));
        }
    }
    if operation.housekeeping && !harmless(operation) {
        faults.push(format!("housekeeping of class {class}"));
    }
    if proven {
        faults.extend(facts(operation, said));
    }
    faults
}

/// Everything that the tree names must be told.
fn facts(operation: &Operation, said: &Said) -> Vec<String> {
    let mut faults = Vec::new();
    for relation in &said.relations {
        let told = operation.objects.iter().any(|object| {
            object.name == relation.name
                && object.schema == relation.schema
                && (relation.access != "write" || said.planned || object.access == "write")
        });
        if !told {
            faults.push(format!("{relation:?} is not told: {:?}", operation.objects));
        }
    }
    for function in &said.functions {
        // `TREAT(x AS int)` calls `pg_catalog.int4`, a name that is not in the text.
        let treated = operation
            .unknown_functions
            .iter()
            .any(|name| name.starts_with("treat "));
        if !operation.functions.contains(function) && !treated {
            faults.push(format!(
                "the call of {function} is not told: {:?}",
                operation.functions
            ));
        }
    }
    let fact = |name: &str| {
        operation
            .facts
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let rows = [
        "SelectStmt",
        "InsertStmt",
        "UpdateStmt",
        "DeleteStmt",
        "MergeStmt",
    ];
    if rows.contains(&said.root.as_str()) {
        if said.star && fact("star") != Some("true") {
            faults.push("`*` is not told".to_owned());
        }
        if let Some(columns) = fact("columns") {
            let told: BTreeSet<&str> = columns.split(',').collect();
            let missing: Vec<&String> = said
                .columns
                .iter()
                .filter(|column| !told.contains(column.as_str()))
                .collect();
            if !missing.is_empty() {
                faults.push(format!("columns {missing:?} are not told: {told:?}"));
            }
        }
    }
    if said.no_where == Some(true) && fact("no_where") != Some("true") {
        faults.push("the absent WHERE is not told".to_owned());
    }
    if said.no_where == Some(false) && fact("no_where") == Some("true") {
        faults.push("a WHERE is told to be absent".to_owned());
    }
    faults
}
