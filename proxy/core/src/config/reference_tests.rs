//! `docs/configuration.md` and `docs/rules.md`: what may stand in a file, made from its schema, so
//! that the pages and what is read cannot differ.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::tests_support::{bless, page, repository, same};

/// Where the hand-written beginning of a page ends.
const MARK: &str =
    "<!-- from here on made from the schema; HOLDPOINT_BLESS=1 cargo test --workspace --lib -->\n";

/// Holds a page against its schema, from the mark on.
#[track_caller]
pub(crate) fn fresh_page(name: &str, schema: &schemars::Schema) {
    let path = repository().join("docs").join(name);
    let kept = page(name);
    let (head, _) = kept.split_once(MARK).expect("the page has the mark");
    let root = schema.as_value();
    let page = Page {
        definitions: root["$defs"].as_object().unwrap(),
        text: format!("{head}{MARK}"),
        told: Vec::new(),
    };
    same(&path, &page.of(root));
}

struct Page<'s> {
    definitions: &'s Map<String, Value>,
    text: String,
    /// Definitions that have a section already, and its heading.
    told: Vec<(&'s str, String)>,
}

/// What stands at a key, as a reader of TOML sees it.
enum Shape<'s> {
    /// Written as a value, and how.
    Value(String),
    /// A table: the definition's name, and the brackets around its heading.
    Table(&'s str, fn(&str) -> String),
}

impl<'s> Page<'s> {
    fn of(mut self, root: &'s Value) -> String {
        self.section("", root);
        self.text
    }

    /// The rows of a table and, behind them, the tables within it.
    fn section(&mut self, path: &str, table: &'s Value) {
        let mut within = Vec::new();
        let required = |key: &str| {
            let all = table["required"].as_array().into_iter().flatten();
            all.into_iter().any(|one| one == key)
        };
        let mut rows = String::new();
        for (key, value) in table["properties"].as_object().into_iter().flatten() {
            let meaning = self.meaning(value);
            assert!(!meaning.is_empty(), "`{path}` `{key}` is not described");
            let must = if required(key) { " *(required)*" } else { "" };
            match self.shape(value) {
                Shape::Value(kind) => {
                    writeln!(rows, "| `{key}` | {kind} | {meaning}{must} |").unwrap();
                }
                Shape::Table(definition, heading) => {
                    let full = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    within.push((definition, heading(&full), meaning));
                }
            }
        }
        if !rows.is_empty() {
            write!(
                self.text,
                "\n| key | value | meaning |\n|---|---|---|\n{rows}"
            )
            .unwrap();
        }
        for (definition, heading, meaning) in within {
            write!(self.text, "\n## `{heading}`\n\n{meaning}\n").unwrap();
            if let Some((_, first)) = self.told.iter().find(|(one, _)| *one == definition) {
                write!(self.text, "\nThe keys are those of `{first}`.\n").unwrap();
                continue;
            }
            self.told.push((definition, heading.clone()));
            let inner = heading.trim_matches(['[', ']']).to_owned();
            let definitions = self.definitions;
            self.section(&inner, &definitions[definition]);
        }
    }

    /// The key's own description; its type's where that says more, or alone.
    fn meaning(&self, value: &'s Value) -> String {
        let of = |value: &Value| {
            value["description"]
                .as_str()
                .unwrap_or_default()
                .replace('\n', " ")
        };
        let mut said = of(value);
        let value = present(value);
        if let Some(name) = reference(value.get("items").unwrap_or(value)) {
            let definition = &self.definitions[name];
            if said.is_empty() {
                said = of(definition);
            }
            for one in definition["oneOf"].as_array().into_iter().flatten() {
                if let (Some(word), Some(what)) =
                    (one["const"].as_str(), one["description"].as_str())
                {
                    write!(said, " `\"{word}\"`: {}", lower(what)).unwrap();
                }
            }
        }
        said.replace('|', "\\|").trim().to_owned()
    }

    fn shape(&self, value: &'s Value) -> Shape<'s> {
        let value = present(value);
        if let Some(name) = reference(value) {
            return match &self.definitions[name] {
                table if table["properties"].is_object() => {
                    Shape::Table(name, |path| format!("[{path}]"))
                }
                other => Shape::Value(self.kind(name, other)),
            };
        }
        if let Some(items) = value.get("items") {
            return match self.shape(items) {
                Shape::Table(name, _) => Shape::Table(name, |path| format!("[[{path}]]")),
                Shape::Value(kind) => Shape::Value(format!("list of {kind}")),
            };
        }
        if let Some(each) = value
            .get("additionalProperties")
            .filter(|each| each.is_object())
        {
            return match self.shape(each) {
                Shape::Table(name, _) => Shape::Table(name, |path| format!("[{path}.NAME]")),
                Shape::Value(kind) => Shape::Value(format!("table of {kind}")),
            };
        }
        let types = &value["type"];
        let kind = types.as_str().or_else(|| types[0].as_str());
        Shape::Value(match kind.expect("a type") {
            "string" => "text".to_owned(),
            "boolean" => "`true`, `false`".to_owned(),
            "integer" => "number".to_owned(),
            other => panic!("no word for the type `{other}`"),
        })
    }

    /// A definition that is written as a value.
    fn kind(&self, name: &str, definition: &Value) -> String {
        let quoted = |word: &Value| word.as_str().map(|word| format!("`\"{word}\"`"));
        match name {
            "Span" => return "time, `\"45s\"`".to_owned(),
            "Size" => return "size, `\"64MiB\"`".to_owned(),
            "Secret" => return "`\"env:NAME\"`, `\"file:PATH\"`".to_owned(),
            "Deny" => return "text, or `{ message = \"…\" }`".to_owned(),
            _ => {}
        }
        let mut words: Vec<_> = definition["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(quoted)
            .collect();
        for one in definition["oneOf"].as_array().into_iter().flatten() {
            words.extend(quoted(&one["const"]));
            words.extend(
                one["enum"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(quoted),
            );
            for (key, inner) in one["properties"].as_object().into_iter().flatten() {
                let inner = &self.definitions[reference(inner).expect("a definition")];
                let keys: Vec<_> = inner["properties"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .cloned()
                    .collect();
                words.push(format!("`{{ {key} = {{ {} = \"…\" }} }}`", keys.join(", ")));
            }
        }
        assert!(!words.is_empty(), "no words for `{name}`");
        words.join(", ")
    }
}

/// Without the `null` that an optional key may be in the schema.
fn present(value: &Value) -> &Value {
    let mut choices = value["anyOf"].as_array().into_iter().flatten();
    choices.find(|one| one["type"] != "null").unwrap_or(value)
}

fn reference(value: &Value) -> Option<&str> {
    value["$ref"].as_str()?.strip_prefix("#/$defs/")
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

#[test]
fn the_page_of_the_configuration_is_fresh() {
    fresh_page("configuration.md", &super::schema());
}

/// A page that is made anew says what it said.
#[test]
fn a_page_that_differs_is_found() {
    if bless() {
        return;
    }
    let mut schema = super::schema();
    schema.as_object_mut().unwrap()["properties"]["node"]["description"] = "Something else.".into();
    let differs = std::panic::catch_unwind(|| fresh_page("configuration.md", &schema));
    assert!(differs.is_err());
}
