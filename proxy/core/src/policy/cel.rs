//! `when`: a CEL expression over facts.
//!
//! Checked as far as possible when rules are read, since a slip at run time
//! refuses: variables and their fields must exist, `facts` are text and compared as text,
//! functions are those listed here. An expression is short and nests few loops
//! over lists of bounded length, so that evaluating one is bounded too.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::{Context, Env, ExecutionError, Program, Value};

use super::Ask;
use crate::command::{Confidence, Operation};
use crate::principal::Kind;

const MAX_LENGTH: usize = 4096;
const MAX_LOOPS: usize = 2;
/// A longer list makes `when` unknown.
const MAX_LIST: usize = 256;

const COMMAND: [&str; 10] = [
    "class",
    "classes",
    "effects",
    "objects",
    "functions",
    "unknown_functions",
    "confidence",
    "in_transaction",
    "statement_count",
    "parameter_count",
];
const PRINCIPAL: [&str; 6] = ["subject", "issuer", "groups", "kind", "label", "client_id"];
const TARGET: [&str; 3] = ["name", "tags", "protocol"];
const FUNCTIONS: [&str; 12] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "dyn",
    "type",
    "bool",
];

#[derive(Debug)]
pub(super) struct When {
    program: Program,
    facts: bool,
    tags: bool,
}

impl When {
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("the expression is longer than {MAX_LENGTH} bytes"));
        }
        let program = Program::compile(text).map_err(|errors| {
            let first = errors.errors.first();
            first.map_or_else(
                || "no CEL expression".to_owned(),
                |error| {
                    format!(
                        "no CEL expression, at character {}: {}",
                        error.pos.1, error.msg
                    )
                },
            )
        })?;
        let mut check = Check::default();
        check.expression(program.expression(), 0)?;
        Ok(Self {
            facts: check.facts,
            // Also where it is only text in it: asking once too often is no harm.
            tags: text.contains("tags"),
            program,
        })
    }

    pub(super) fn looks_at_facts(&self) -> bool {
        self.facts
    }

    pub(super) fn looks_at_tags(&self) -> bool {
        self.tags
    }

    /// An error says why it cannot be told.
    pub(super) fn holds(&self, ask: &Ask<'_>, operation: &Operation) -> Result<bool, String> {
        let context = context(ask, operation)?;
        match self.program.execute(&context) {
            Ok(Value::Bool(value)) => Ok(value),
            Ok(_) => Err("`when` is neither true nor false".to_owned()),
            Err(ExecutionError::NoSuchKey(key)) => {
                Err(format!("`{key}` is not known of this command"))
            }
            Err(ExecutionError::NoSuchOverload(_)) => {
                Err("`when` compares what cannot be compared".to_owned())
            }
            // Not the error's own text: it may repeat values from the command.
            Err(_) => Err("`when` cannot be evaluated".to_owned()),
        }
    }
}

/// Shared: building the standard environment costs more than most evaluations.
fn environment() -> Arc<Env> {
    static ENV: OnceLock<Arc<Env>> = OnceLock::new();
    Arc::clone(ENV.get_or_init(|| Arc::new(Env::stdlib())))
}

fn context(ask: &Ask<'_>, operation: &Operation) -> Result<Context<'static, 'static>, String> {
    let command = ask.command;
    let principal = ask.principal;
    let long = [
        operation.objects.len(),
        operation.effects.len(),
        operation.functions.len(),
        operation.unknown_functions.len(),
        command.operations.len(),
        principal.groups.len(),
        operation.facts.len(),
    ];
    if long.into_iter().any(|length| length > MAX_LIST) {
        return Err(format!(
            "a list of this command has more than {MAX_LIST} entries"
        ));
    }
    let text = |text: &str| Value::from(text);
    let list = |list: &[String]| Value::from(list.iter().map(String::as_str).collect::<Vec<_>>());
    let objects: Vec<Value> = operation
        .objects
        .iter()
        .map(|object| {
            let mut map = HashMap::from([
                ("kind", text(&object.kind)),
                ("name", text(&object.name)),
                ("access", text(&object.access)),
            ]);
            // Absent stays absent: which schema is meant is not known.
            if let Some(schema) = &object.schema {
                map.insert("schema", text(schema));
            }
            Value::from(map)
        })
        .collect();
    let classes: Vec<&str> = command
        .operations
        .iter()
        .map(|op| op.class.as_str())
        .collect();
    let count = |count: usize| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    let mut context = Context::with_env(environment());
    context.add_variable_from_value(
        "command",
        HashMap::from([
            ("class", text(&operation.class)),
            ("classes", Value::from(classes)),
            ("effects", list(&operation.effects)),
            ("objects", Value::from(objects)),
            ("functions", list(&operation.functions)),
            ("unknown_functions", list(&operation.unknown_functions)),
            (
                "confidence",
                text(match operation.confidence {
                    Confidence::Proven => "proven",
                    Confidence::Unknown => "unknown",
                }),
            ),
            ("in_transaction", Value::Bool(command.in_transaction)),
            ("statement_count", count(command.operations.len())),
            ("parameter_count", count(command.parameters.len())),
        ]),
    );
    let mut who = HashMap::from([
        ("subject", text(&principal.identity.subject)),
        ("issuer", text(&principal.identity.issuer)),
        ("groups", list(&principal.groups)),
        (
            "kind",
            text(match principal.kind {
                Kind::Agent => "agent",
                Kind::Person => "person",
            }),
        ),
        ("label", text(&principal.label)),
    ]);
    if let Some(client) = &principal.client_id {
        who.insert("client_id", text(client));
    }
    context.add_variable_from_value("principal", who);
    context.add_variable_from_value(
        "target",
        HashMap::from([
            ("name", text(ask.target)),
            ("tags", list(ask.tags)),
            ("protocol", text(ask.protocol)),
        ]),
    );
    let facts: HashMap<&str, Value> = operation
        .facts
        .iter()
        .map(|(name, value)| (name.as_str(), text(value)))
        .collect();
    context.add_variable_from_value("facts", facts);
    context.add_variable_from_value(
        "now",
        Value::Int(i64::try_from(ask.now).unwrap_or(i64::MAX)),
    );
    Ok(context)
}

/// What can be said of an expression without facts.
#[derive(Default)]
struct Check {
    /// Variables of loops, innermost last.
    bound: Vec<String>,
    facts: bool,
}

impl Check {
    fn expression(&mut self, expression: &IdedExpr, loops: usize) -> Result<(), String> {
        match &expression.expr {
            Expr::Unspecified => Err("the expression is incomplete".to_owned()),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr
                    && !self.bound.contains(name)
                {
                    field(name, &select.field)?;
                    if name == "command"
                        && matches!(select.field.as_str(), "in_transaction" | "parameter_count")
                    {
                        return Ok(());
                    }
                }
                self.expression(&select.operand, loops)
            }
            Expr::Call(call) => {
                self.call(call)?;
                if let Some(target) = &call.target {
                    self.expression(target, loops)?;
                }
                call.args
                    .iter()
                    .try_for_each(|arg| self.expression(arg, loops))
            }
            Expr::List(list) => list
                .elements
                .iter()
                .try_for_each(|one| self.expression(one, loops)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.expression(&entry.key, loops)?;
                    self.expression(&entry.value, loops)
                }
                EntryExpr::StructField(field) => self.expression(&field.value, loops),
            }),
            Expr::Struct(_) => Err("types cannot be built here".to_owned()),
            Expr::Comprehension(comprehension) => {
                if loops >= MAX_LOOPS {
                    return Err(format!("more than {MAX_LOOPS} loops within each other"));
                }
                self.expression(&comprehension.iter_range, loops)?;
                self.expression(&comprehension.accu_init, loops)?;
                let depth = self.bound.len();
                self.bound.push(comprehension.iter_var.clone());
                self.bound.extend(comprehension.iter_var2.clone());
                self.bound.push(comprehension.accu_var.clone());
                for part in [
                    &comprehension.loop_cond,
                    &comprehension.loop_step,
                    &comprehension.result,
                ] {
                    self.expression(part, loops + 1)?;
                }
                self.bound.truncate(depth);
                Ok(())
            }
        }
    }

    fn variable(&mut self, name: &str) -> Result<(), String> {
        if self.bound.iter().any(|bound| bound == name) || name.starts_with('@') {
            return Ok(());
        }
        self.facts |= matches!(name, "facts" | "command");
        match name {
            "command" | "principal" | "target" | "facts" | "now" => Ok(()),
            "int" | "string" | "bool" | "double" | "uint" => Ok(()),
            _ => Err(format!(
                "there is no `{name}`: expressions see `command`, `principal`, `target`, `facts` and `now`"
            )),
        }
    }

    fn call(&self, call: &cel::common::ast::CallExpr) -> Result<(), String> {
        let name = call.func_name.as_str();
        let operator = !name.chars().all(|c| c.is_ascii_alphanumeric()) || name.is_empty();
        if !operator && !FUNCTIONS.contains(&name) {
            return Err(format!(
                "there is no function `{name}`; there are {}",
                FUNCTIONS.join(", ")
            ));
        }
        if name == "matches" {
            let literal = match call.args.last().map(|arg| &arg.expr) {
                Some(Expr::Literal(LiteralValue::String(text))) => text.inner(),
                _ => return Err("the pattern of `matches` must be written out".to_owned()),
            };
            regex::Regex::new(literal)
                .map_err(|_| format!("`{literal}` is no regular expression"))?;
        }
        let truth = matches!(name, "_&&_" | "_||_" | "!_") || name == "_?_:_";
        let compared = matches!(name, "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_");
        let tested = if name == "_?_:_" {
            &call.args[..call.args.len().min(1)]
        } else {
            &call.args[..]
        };
        if truth && let Some(fact) = tested.iter().find_map(|arg| self.fact(arg)) {
            return Err(format!("facts are text: write `{fact} == \"true\"`"));
        }
        if compared && let Some(fact) = call.args.iter().find_map(|arg| self.fact(arg)) {
            let other = call.args.iter().find_map(|arg| match &arg.expr {
                Expr::Literal(LiteralValue::String(_)) => None,
                Expr::Literal(LiteralValue::Boolean(value)) => {
                    Some(format!("`{fact} == \"{}\"`", value.inner()))
                }
                Expr::Literal(_) => Some(format!("`int({fact})`")),
                _ => None,
            });
            if let Some(other) = other {
                return Err(format!("facts are text: write {other}"));
            }
        }
        Ok(())
    }

    /// `facts.x` or `facts["x"]`, as written.
    fn fact(&self, expression: &IdedExpr) -> Option<String> {
        let facts = |operand: &IdedExpr| matches!(&operand.expr, Expr::Ident(name) if name == "facts" && !self.bound.contains(name));
        match &expression.expr {
            Expr::Select(select) if !select.test && facts(&select.operand) => {
                Some(format!("facts.{}", select.field))
            }
            Expr::Call(call)
                if call.func_name == "_[_]" && call.args.first().is_some_and(facts) =>
            {
                Some("facts[…]".to_owned())
            }
            _ => None,
        }
    }
}

fn field(name: &str, field: &str) -> Result<(), String> {
    let fields: &[&str] = match name {
        "command" => &COMMAND,
        "principal" => &PRINCIPAL,
        "target" => &TARGET,
        _ => return Ok(()),
    };
    if fields.contains(&field) {
        return Ok(());
    }
    Err(format!(
        "`{name}` has no `{field}`; it has {}",
        fields.join(", ")
    ))
}
