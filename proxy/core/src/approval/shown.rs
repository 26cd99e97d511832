//! What a reviewer is shown. Every channel renders this and nothing else.
//!
//! All of it comes from the agent or from what a plugin made of the agent's
//! bytes, so all of it is escaped, and whatever a channel puts on one line is
//! kept on one line.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::command::{Command, Confidence, Object, Parameter};
use crate::display::{Text, escape, escape_line};

/// Wire bytes of a command whose text is shared. Those of a longer one may be a slice of a
/// read buffer, which an approval must not keep for as long as it is remembered.
const SHARED: usize = 4 * 1024;

/// Text is escaped losslessly, never cut; see [`crate::display`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The command's text, secrets in it overwritten with `*`.
    pub text: Text,
    /// `$1 = 'x' (text)`, one each.
    pub parameters: Vec<String>,
    pub context: Vec<(String, String)>,
    pub class: String,
    pub effects: Vec<String>,
    /// `write table public.invoices`.
    pub objects: Vec<String>,
    pub proven: bool,
    pub in_transaction: bool,
}

impl Shown {
    /// `classes` are the protocol's class words, harmless first.
    pub fn of(command: &Command, classes: &[String]) -> Self {
        let operations = &command.operations;
        Self {
            text: if command.secrets.is_empty() && command.wire.len() < SHARED {
                Text::escaped(&command.text)
            } else {
                Self::text_of(command).into()
            },
            parameters: Self::parameters_of(command),
            context: Self::context_of(command),
            class: Self::class_of(command, classes),
            effects: distinct(
                operations
                    .iter()
                    .flat_map(|op| &op.effects)
                    .map(|e| line(e)),
            ),
            objects: distinct(
                operations
                    .iter()
                    .flat_map(|op| &op.objects)
                    .map(object_line),
            ),
            proven: operations
                .iter()
                .all(|op| op.confidence == Confidence::Proven),
            in_transaction: command.in_transaction,
        }
    }

    pub(crate) fn text_of(command: &Command) -> String {
        escape(&command.starred_text())
    }

    pub(crate) fn parameters_of(command: &Command) -> Vec<String> {
        let numbered = command.parameters.iter().enumerate();
        numbered
            .map(|(at, parameter)| parameter_line(at + 1, parameter))
            .collect()
    }

    pub(crate) fn context_of(command: &Command) -> Vec<(String, String)> {
        let context = command.context.iter();
        context
            .map(|(name, value)| (line(name), line(value)))
            .collect()
    }

    pub(crate) fn class_of(command: &Command, classes: &[String]) -> String {
        line(command.worst_class(classes).unwrap_or_default())
    }
}

fn line(text: &str) -> String {
    escape_line(text.as_bytes())
}

fn distinct(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    items.filter(|item| seen.insert(item.clone())).collect()
}

fn object_line(object: &Object) -> String {
    let name = match &object.schema {
        Some(schema) => format!("{schema}.{}", object.name),
        None => object.name.clone(),
    };
    line(&format!("{} {} {name}", object.access, object.kind))
}

/// Quotes within a value are doubled, so that the last quote is the one that closes it.
fn parameter_line(number: usize, parameter: &Parameter) -> String {
    let kind = line(&parameter.type_name);
    let kind = match (kind.as_str(), parameter.binary) {
        ("", false) => String::new(),
        ("", true) => " (binary)".to_owned(),
        (kind, false) => format!(" ({kind})"),
        (kind, true) => format!(" ({kind}, binary)"),
    };
    let value = match &parameter.value {
        None => "null".to_owned(),
        Some(bytes) if parameter.binary => format!("\\x{}", hex::encode(bytes)),
        Some(bytes) => format!("'{}'", escape_line(bytes).replace('\'', "''")),
    };
    format!("${number} = {value}{kind}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::Operation;

    fn parameter(type_name: &str, binary: bool, value: Option<&'static [u8]>) -> String {
        let parameter = Parameter {
            type_name: type_name.to_owned(),
            binary,
            value: value.map(Bytes::from_static),
        };
        parameter_line(1, &parameter)
    }

    #[test]
    fn values_read_as_values() {
        assert_eq!(parameter("text", false, Some(b"x")), "$1 = 'x' (text)");
        assert_eq!(parameter("text", false, None), "$1 = null (text)");
        assert_eq!(parameter("", false, Some(b"null")), "$1 = 'null'");
        assert_eq!(
            parameter("int4", true, Some(b"\0\0\x01\x02")),
            "$1 = \\x00000102 (int4, binary)"
        );
    }

    #[test]
    fn a_value_cannot_pretend_to_be_the_next_parameter() {
        assert_eq!(
            parameter("text", false, Some(b"x' (text)\n$2 = 'y")),
            "$1 = 'x'' (text)\\u{a}$2 = ''y' (text)"
        );
    }

    #[test]
    fn a_reviewer_sees_everything_but_secrets() {
        let shown = Shown::of(
            &Command {
                operations: [Operation {
                    class: "admin".to_owned(),
                    effects: vec!["role".to_owned(), "role".to_owned()],
                    objects: vec![Object {
                        kind: "role".to_owned(),
                        schema: None,
                        name: "bob\u{202e}".to_owned(),
                        access: "define".to_owned(),
                    }],
                    functions: Vec::new(),
                    unknown_functions: Vec::new(),
                    confidence: Confidence::Proven,
                    housekeeping: false,
                    facts: Vec::new(),
                }]
                .into(),
                text: Bytes::from_static(b"ALTER ROLE bob\nPASSWORD 'hunter2'"),
                parameters: Vec::new(),
                secrets: vec![(25, 32)],
                context: vec![("role".to_owned(), "a\nb".to_owned())],
                in_transaction: true,
                canonical: None,
                reject: None,
                wire: Bytes::new(),
            },
            &["read".to_owned(), "admin".to_owned()],
        );
        assert_eq!(
            shown,
            Shown {
                text: "ALTER ROLE bob\nPASSWORD '*******'".into(),
                parameters: Vec::new(),
                context: vec![("role".to_owned(), "a\\u{a}b".to_owned())],
                class: "admin".to_owned(),
                effects: vec!["role".to_owned()],
                objects: vec!["define role bob\\u{202e}".to_owned()],
                proven: true,
                in_transaction: true,
            }
        );
    }

    #[test]
    fn a_long_command_is_not_kept_alive_by_its_text() {
        for (len, shared) in [(SHARED - 1, true), (SHARED, false)] {
            let wire = Bytes::from(vec![b'x'; len]);
            let command = Command {
                operations: Vec::new().into(),
                text: wire.slice(..100),
                parameters: Vec::new(),
                secrets: Vec::new(),
                context: Vec::new(),
                in_transaction: false,
                canonical: None,
                reject: None,
                wire: wire.clone(),
            };
            let shown = Shown::of(&command, &[]);
            assert_eq!(*shown.text, "x".repeat(100));
            assert_eq!(shown.text.as_ptr() == wire.as_ptr(), shared, "{len}");
        }
    }
}
