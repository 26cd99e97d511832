//! Classification outside a session, for `holdpoint classify`.
//!
//! The same code as in a session judges the text; what a session would know,
//! such as the statement behind `EXECUTE s`, is not known here and is `unknown`.

use std::cell::RefCell;
use std::rc::Rc;

use holdpoint_plugin::Command;

use crate::adapter;
use crate::classify::{Analysis, Classifier, Limits, Protected, Settings, is_utf8};
use crate::options::cap;

/// All that a text is judged by, beside itself.
#[derive(PartialEq, Default)]
struct Terms {
    settings: Settings,
    limits: Limits,
    protected: String,
    set: String,
}

thread_local! {
    /// The last terms, and what was said under them. Many texts in a row mostly have
    /// the same, and differ in their constants as a session's do.
    static LAST: RefCell<Option<(Terms, Classifier)>> = const { RefCell::new(None) };
}

/// A function of the text and the terms, whatever was asked before.
fn judge(text: &[u8], terms: Terms) -> Rc<Analysis> {
    LAST.with_borrow_mut(|last| {
        let same = last.take().filter(|(of, _)| *of == terms);
        let (_, classifier) = last.insert(same.unwrap_or_else(|| {
            let protected = Protected::new(&terms.protected, &terms.set);
            let classifier = Classifier::new(terms.settings, terms.limits, protected);
            (terms, classifier)
        }));
        classifier.classify(text)
    })
}

/// Fields: `sql`, `mode` (`simple` or `extended`), and `settings.NAME` for the
/// session's `client_encoding`, `standard_conforming_strings` and `server_encoding`; `protected` and
/// `protected_set`, as a session has them, and `settings.max_statement` and the other
/// caps of a target. Others are ignored.
///
/// # Errors
/// There is no `sql`, `mode` is neither of the two, or a cap makes no sense.
pub fn classify(input: Vec<(String, Vec<u8>)>) -> Result<Command, String> {
    let mut sql = None;
    let mut terms = Terms::default();
    let mut context = Vec::new();
    for (name, value) in input {
        let text = String::from_utf8_lossy(&value).into_owned();
        match name.to_ascii_lowercase().as_str() {
            "sql" => {
                sql = Some(value);
                continue;
            }
            "mode" if matches!(text.as_str(), "simple" | "extended") => {}
            "mode" => return Err(format!("`mode` is `simple` or `extended`, not `{text}`")),
            "settings.client_encoding" => terms.settings.client_encoding_utf8 = is_utf8(&text),
            "settings.server_encoding" => terms.settings.server_encoding_utf8 = is_utf8(&text),
            "settings.standard_conforming_strings" => {
                terms.settings.standard_conforming_strings = text.eq_ignore_ascii_case("on");
            }
            "protected" => terms.protected = text,
            "protected_set" => terms.set = text,
            _ => {}
        }
        if let Some(setting) = name.strip_prefix("settings.") {
            let text = String::from_utf8_lossy(&value).into_owned();
            if !cap(&mut terms.limits, setting, &text)? {
                context.push((setting.to_owned(), text));
            }
        }
    }
    let Some(text) = sql else {
        return Err("`sql` is missing".to_owned());
    };
    let analysis = judge(&text, terms);
    let mut command = adapter::blank(context, false);
    command.secrets = adapter::spans(&analysis);
    let nothing = |_, _: &[u8]| None;
    command.operations = adapter::all_operations(&analysis.statements, &nothing, &mut command);
    // Outside of a session no name is known, which is no reason to refuse its use.
    command.reject.clone_from(&analysis.reject);
    command.text = text;
    Ok(command)
}
