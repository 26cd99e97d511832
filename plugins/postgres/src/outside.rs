//! Classification outside a session, for `holdpoint classify`.
//!
//! The same code as in a session judges the text; what a session would know,
//! such as the statement behind `EXECUTE s`, is not known here and is `unknown`.

use holdpoint_plugin::Command;

use crate::adapter;
use crate::classify::{Limits, Protected, Settings, classify_protecting as judge, is_utf8};
use crate::options::cap;

/// Fields: `sql`, `mode` (`simple` or `extended`), and `settings.NAME` for the
/// session's `client_encoding`, `standard_conforming_strings` and `server_encoding`; `protected` and
/// `protected_set`, as a session has them, and `settings.max_statement` and the other
/// caps of a target. Others are ignored.
///
/// # Errors
/// There is no `sql`, `mode` is neither of the two, or a cap makes no sense.
pub fn classify(input: Vec<(String, Vec<u8>)>) -> Result<Command, String> {
    let mut sql = None;
    let mut settings = Settings::default();
    let mut limits = Limits::default();
    let mut context = Vec::new();
    let (mut protected, mut set) = (String::new(), String::new());
    for (name, value) in input {
        let text = String::from_utf8_lossy(&value).into_owned();
        match name.to_ascii_lowercase().as_str() {
            "sql" => {
                sql = Some(value);
                continue;
            }
            "mode" if matches!(text.as_str(), "simple" | "extended") => {}
            "mode" => return Err(format!("`mode` is `simple` or `extended`, not `{text}`")),
            "settings.client_encoding" => settings.client_encoding_utf8 = is_utf8(&text),
            "settings.server_encoding" => settings.server_encoding_utf8 = is_utf8(&text),
            "settings.standard_conforming_strings" => {
                settings.standard_conforming_strings = text.eq_ignore_ascii_case("on");
            }
            "protected" => protected = text,
            "protected_set" => set = text,
            _ => {}
        }
        if let Some(setting) = name.strip_prefix("settings.") {
            let text = String::from_utf8_lossy(&value).into_owned();
            if !cap(&mut limits, setting, &text)? {
                context.push((setting.to_owned(), text));
            }
        }
    }
    let Some(text) = sql else {
        return Err("`sql` is missing".to_owned());
    };
    let protected = Protected::new(&protected, &set);
    let analysis = judge(&text, &settings, &limits, protected.as_ref());
    let mut command = adapter::blank(context, false);
    command.secrets = adapter::spans(&analysis);
    command.reject.clone_from(&analysis.reject);
    let nothing = |_, _: &[u8]| None;
    command.operations =
        adapter::all_operations(&analysis.statements, &nothing, &mut command.context);
    command.text = text;
    Ok(command)
}
