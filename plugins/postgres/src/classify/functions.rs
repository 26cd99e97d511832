//! Which functions and operators a statement calls, and which of them are known
//! to change nothing.
//!
//! No grammar can tell a harmless call from a dangerous one, so a read may call
//! only what `data/functions.txt` lists, unqualified or in `pg_catalog`. `t.f` and
//! `(x).f` call `f` where nothing else has the name, so what stands in
//! `data/dotted.txt` is taken for a call there. Limits that the text cannot lift: a
//! user's own function may be called so, casts and typed constants call code of the
//! type, a better matching overload on the search path beats `pg_catalog`, and
//! views, rules and triggers run code unseen.

use squawk_syntax::{SyntaxKind, SyntaxNode};

use super::names::{Name, name};

/// Sorted by bytes, one name a line. Searched where it lies: each session has an
/// instance of its own, and none should pay for building a table.
const KNOWN: &str = include_str!("../../data/functions.txt");

/// Sorted as well: functions that are not known, and that one argument is enough for.
const DOTTED: &str = include_str!("../../data/dotted.txt");

pub(super) fn listed(name: &str) -> bool {
    holds(KNOWN, name)
}

/// Whether a sorted list of lines has the name.
pub(super) fn holds(list: &str, name: &str) -> bool {
    let (mut low, mut high) = (0, list.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let start = list[..middle].rfind('\n').map_or(0, |at| at + 1).max(low);
        let end = list[start..].find('\n').map_or(list.len(), |at| start + at);
        let line = &list[start..end];
        match line.cmp(name) {
            std::cmp::Ordering::Equal => return !line.starts_with('#'),
            std::cmp::Ordering::Less => low = end + 1,
            std::cmp::Ordering::Greater => high = start,
        }
    }
    false
}

/// Keywords that the grammar itself turns into harmless expressions. Quoted,
/// each of them would be some other function.
const SYNTAX: [&str; 29] = [
    "coalesce",
    "nullif",
    "greatest",
    "least",
    "grouping",
    "xmlconcat",
    "normalize",
    "current_schema",
    "current_catalog",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "current_role",
    "current_user",
    "session_user",
    "system_user",
    "user",
    "merge_action",
    "overlay",
    "position",
    "substring",
    "trim",
    "extract",
    "xmlagg",
    "json_object",
    "json_array",
    "row",
];

/// Grammar nodes that stand for a call of a built-in.
const BUILT_IN: [SyntaxKind; 25] = [
    SyntaxKind::EXTRACT_FN,
    SyntaxKind::JSON_EXISTS_FN,
    SyntaxKind::JSON_ARRAY_FN,
    SyntaxKind::JSON_OBJECT_FN,
    SyntaxKind::JSON_OBJECT_AGG_FN,
    SyntaxKind::JSON_ARRAY_AGG_FN,
    SyntaxKind::JSON_QUERY_FN,
    SyntaxKind::JSON_SCALAR_FN,
    SyntaxKind::JSON_SERIALIZE_FN,
    SyntaxKind::JSON_VALUE_FN,
    SyntaxKind::JSON_FN,
    SyntaxKind::POSITION_FN,
    SyntaxKind::TRIM_FN,
    SyntaxKind::XML_ROOT_FN,
    SyntaxKind::XML_SERIALIZE_FN,
    SyntaxKind::XML_ELEMENT_FN,
    SyntaxKind::XML_FOREST_FN,
    SyntaxKind::XML_EXISTS_FN,
    SyntaxKind::XML_PARSE_FN,
    SyntaxKind::XML_PI_FN,
    SyntaxKind::SOME_FN,
    SyntaxKind::ANY_FN,
    SyntaxKind::ALL_FN,
    SyntaxKind::COLLATION_FOR_FN,
    SyntaxKind::EXISTS_FN,
];

/// One call, as policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Called {
    pub(crate) name: String,
    pub(crate) known: bool,
}

/// The function that a `CALL_EXPR` calls; `None` for syntax without a name.
pub(crate) fn called(node: &SyntaxNode) -> Option<Called> {
    let target = node.first_child()?;
    match target.kind() {
        SyntaxKind::NAME_REF | SyntaxKind::FIELD_EXPR if is_path(&target) => {
            Some(match name(&target) {
                Some(found) => judge(
                    &found,
                    node.parent()
                        .is_some_and(|parent| parent.kind() == SyntaxKind::TABLESAMPLE_CLAUSE),
                ),
                None => unknown(&target),
            })
        }
        SyntaxKind::SUBSTRING_FN => by_name(&target, "substring"),
        SyntaxKind::OVERLAY_FN => by_name(&target, "overlay"),
        kind if BUILT_IN.contains(&kind) => None,
        _ => Some(unknown(&target)),
    }
}

/// What stands behind a dot and may be a function.
pub(crate) struct Dotted {
    pub(crate) name: String,
    /// Of what it would be a column; absent where a value stands before the dot.
    pub(crate) range: Option<String>,
    /// It is on the list of those that are not harmless.
    pub(crate) harmful: bool,
}

/// The function that a `FIELD_EXPR` may call: `(x).f` is `f(x)` where `x` has no such
/// field, and so is `s.f` where `s` is the value of a function or cast in `FROM`.
pub(crate) fn dotted(node: &SyntaxNode) -> Option<Dotted> {
    let within = node
        .parent()
        .filter(|up| up.first_child().as_ref() == Some(node));
    let (base, field) = (node.first_child()?, node.last_child()?);
    let names = is_path(&base);
    // `s.f(x)` names a function, `s.t` of `s.t.c` a relation, and `t.*` is neither.
    let more = within.is_some_and(|up| {
        up.kind() == SyntaxKind::CALL_EXPR || names && up.kind() == SyntaxKind::FIELD_EXPR
    });
    if more || base == field {
        return None;
    }
    let found = name(&field)?.last().to_owned();
    let harmful = holds(DOTTED, &found);
    (harmful || listed(&found)).then(|| Dotted {
        range: names
            .then(|| name(&base))
            .flatten()
            .map(|base| base.last().to_owned()),
        name: found,
        harmful,
    })
}

/// `substring(a FROM b)` is a built-in's; `substring(a, b)` whatever has the name on the
/// search path.
fn by_name(node: &SyntaxNode, name: &str) -> Option<Called> {
    const SPELLED_OUT: [SyntaxKind; 4] = [
        SyntaxKind::OVERLAY_PLACING,
        SyntaxKind::SUBSTRING_FOR_FROM,
        SyntaxKind::SUBSTRING_FROM_FOR,
        SyntaxKind::SUBSTRING_SIMILAR_ESCAPE,
    ];
    let spelled_out = |child: SyntaxNode| SPELLED_OUT.contains(&child.kind());
    (!node.first_child().is_some_and(spelled_out)).then(|| Called {
        name: name.to_owned(),
        known: listed(name),
    })
}

/// The function behind `TREAT(x AS name)`: the server's grammar takes the last
/// part of the type's name for a function in `pg_catalog`, whichever that is.
pub(crate) fn treated(node: &SyntaxNode) -> Option<Called> {
    let treat = node
        .children_with_tokens()
        .any(|child| child.kind() == SyntaxKind::TREAT_KW);
    if !treat {
        return None;
    }
    let target = node.last_child()?;
    // `int` would be `int4`, `character varying` `varchar`; nobody writes them.
    let plain = name(&target).filter(|found| {
        const RENAMED: [&str; 11] = [
            "int",
            "integer",
            "smallint",
            "bigint",
            "real",
            "float",
            "double",
            "decimal",
            "dec",
            "boolean",
            "character",
        ];
        target.kind() == SyntaxKind::PATH_TYPE && !RENAMED.contains(&found.last())
    });
    Some(match plain {
        Some(found) => Called {
            known: listed(found.last()),
            name: found.last().to_owned(),
        },
        None => Called {
            name: format!("treat as {}", unknown(&target).name),
            known: false,
        },
    })
}

/// The procedure that a `CALL` names.
pub(crate) fn procedure(node: &SyntaxNode) -> Option<Called> {
    let target = node
        .children()
        .find(|child| child.kind() == SyntaxKind::PROCEDURE_NAME_REF)?;
    Some(match name(&target) {
        Some(found) => judge(&found, false),
        None => unknown(&target),
    })
}

/// The operator that an `OPERATOR(…)` names, if it could be a user's own.
pub(crate) fn operator(node: &SyntaxNode) -> Option<Called> {
    let path = node
        .descendants()
        .find(|node| node.kind() == SyntaxKind::PATH_REF)?;
    let schema = name(&path);
    let built_in = schema.is_some_and(|schema| schema.parts.as_slice() == ["pg_catalog"]);
    let text = node.text().to_string();
    (!built_in).then_some(Called {
        name: text,
        known: false,
    })
}

fn unknown(node: &SyntaxNode) -> Called {
    Called {
        name: node.text().to_string().chars().take(128).collect(),
        known: false,
    }
}

/// Only names joined by dots: `a.b.c`, not `(x).f` or `a[1].f`.
fn is_path(node: &SyntaxNode) -> bool {
    node.descendants()
        .all(|node| matches!(node.kind(), SyntaxKind::NAME_REF | SyntaxKind::FIELD_EXPR))
        && !node
            .children_with_tokens()
            .any(|child| child.kind() == SyntaxKind::STAR)
}

fn judge(name: &Name, sample: bool) -> Called {
    let last = name.last();
    // A third part can only be the current database.
    let parts = name
        .parts
        .get(name.parts.len().saturating_sub(2)..)
        .unwrap_or_default();
    let built_in = match parts {
        [_] => true,
        [schema, _] => schema == "pg_catalog",
        _ => false,
    };
    let qualified = parts.join(".");
    let known = if built_in {
        listed(last)
            || (name.bare && name.parts.len() == 1 && SYNTAX.contains(&last))
            || (sample && matches!(last, "bernoulli" | "system"))
    } else {
        listed(&qualified)
    };
    Called {
        name: if built_in { last.to_owned() } else { qualified },
        known,
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::classify::{Limits, Settings, classify};

    #[test]
    fn every_listed_function_is_found_and_nothing_else() {
        for list in [KNOWN, DOTTED] {
            let names: Vec<&str> = list.lines().collect();
            assert!(
                names.is_sorted(),
                "the search needs the list sorted by bytes"
            );
            for name in names {
                assert_eq!(holds(list, name), !name.starts_with('#'), "{name}");
            }
            for name in ["", "a", "zzz", "~"] {
                assert!(!holds(list, name), "{name}");
            }
        }
        let both = DOTTED.lines().find(|name| listed(name));
        assert_eq!(both, None);
    }

    #[test]
    fn a_function_behind_a_dot_is_a_call() {
        for (text, name) in [
            ("SELECT ('s'::regclass).nextval", "nextval"),
            ("SELECT (1::int8).\"pg_advisory_lock\"", "pg_advisory_lock"),
            (
                "SELECT s.nextval FROM CAST('s' AS regclass) AS s",
                "nextval",
            ),
            (
                "SELECT (pg_backend_pid()).pg_terminate_backend",
                "pg_terminate_backend",
            ),
            ("SELECT (('select 1'::text).ts_stat).word", "ts_stat"),
            ("SELECT ('select 1'::text).ts_stat.word", "ts_stat"),
            ("SELECT a FROM t ORDER BY (a).lo_unlink", "lo_unlink"),
            (
                "SELECT (a[1]).U&\"nextv!0061l\" UESCAPE '!' FROM t",
                "nextval",
            ),
            ("SELECT ('delete from t'::text).dblink_exec", "dblink_exec"),
        ] {
            let analysis = classify(text.as_bytes(), &Settings::default(), &Limits::default());
            let statement = &analysis.statements[0];
            assert!(
                !statement.proven || !statement.unknown_functions.is_empty(),
                "{text}"
            );
            assert_eq!(statement.unknown_functions, [name], "{text}");
            assert!(!statement.housekeeping, "{text}");
        }
        let statement = |text: &str| {
            let analysis = classify(text.as_bytes(), &Settings::default(), &Limits::default());
            Rc::clone(&analysis.statements[0])
        };
        let columns =
            statement("SELECT u.timezone, u.name, (u.a).city, q.lower FROM u, (SELECT 1) q");
        assert!(columns.unknown_functions.is_empty() && columns.functions.is_empty());
        // Harmless ones count as called where no row stands before the dot.
        for (text, name) in [
            ("SELECT (u).lower FROM u", "lower"),
            (
                "SELECT (NULL::int4).pg_stat_get_activity",
                "pg_stat_get_activity",
            ),
            ("SELECT ('a.b'::text).current_setting", "current_setting"),
            (
                "SELECT s.current_setting FROM CAST('a.b' AS text) s",
                "current_setting",
            ),
            ("SELECT lower.upper FROM lower('a')", "upper"),
            (
                "SELECT b.abs FROM generate_series(1, 2) b, (SELECT 1) c",
                "abs",
            ),
        ] {
            let found = statement(text);
            assert!(
                found.functions.iter().any(|one| one == name),
                "{text}: {:?}",
                found.functions
            );
        }
    }

    /// To the server a third part is the database that it is in.
    #[test]
    fn a_database_before_a_function_is_not_its_schema() {
        let called = |text: &str| {
            let analysis = classify(text.as_bytes(), &Settings::default(), &Limits::default());
            analysis.statements[0].functions.clone()
        };
        assert_eq!(called("SELECT shop.admin.nuke()"), ["admin.nuke"]);
        assert_eq!(
            called("SELECT shop.pg_catalog.query_to_xml('', true, false, '')"),
            ["query_to_xml"]
        );
        assert_eq!(called("CALL shop.admin.nuke()"), ["admin.nuke"]);
    }

    /// One of each family that writes, signals, locks, waits, opens files or
    /// connections, or runs or reads what a literal names.
    #[test]
    fn functions_with_effects_are_not_listed() {
        const FAMILIES: &str = "pg_read_file pg_read_binary_file pg_stat_file pg_ls_dir pg_ls_logdir \
            lo_import lo_export lo_create lo_open lo_put lo_get lo_unlink loread lowrite lo_from_bytea \
            nextval setval set_config pg_sleep pg_sleep_for pg_sleep_until pg_notify \
            pg_terminate_backend pg_cancel_backend pg_reload_conf pg_rotate_logfile pg_promote \
            pg_switch_wal pg_create_restore_point pg_backup_start pg_backup_stop pg_start_backup \
            pg_stop_backup pg_wal_replay_pause pg_wal_replay_resume pg_logical_emit_message \
            pg_create_physical_replication_slot pg_create_logical_replication_slot \
            pg_drop_replication_slot pg_replication_slot_advance pg_logical_slot_get_changes \
            pg_logical_slot_peek_changes pg_replication_origin_create pg_replication_origin_drop \
            pg_advisory_lock pg_try_advisory_lock pg_advisory_xact_lock pg_advisory_unlock \
            pg_export_snapshot txid_current pg_current_xact_id pg_stat_reset pg_stat_reset_shared \
            pg_stat_clear_snapshot pg_stat_force_next_flush pg_restore_relation_stats \
            pg_clear_relation_stats pg_restore_attribute_stats pg_import_system_collations \
            pg_log_backend_memory_contexts brin_summarize_new_values brin_desummarize_range \
            gin_clean_pending_list query_to_xml query_to_xmlschema query_to_xml_and_xmlschema \
            table_to_xml schema_to_xml database_to_xml cursor_to_xml cursor_to_xmlschema ts_stat \
            ts_rewrite pg_input_is_valid pg_input_error_info fmgr_sql_validator \
            plpgsql_call_handler plpgsql_inline_handler binary_upgrade_set_record_init_privs \
            pg_nextoid pg_stop_making_pinned_objects pg_sync_replication_slots pg_hba_file_rules \
            pg_current_logfile pg_extension_config_dump \
            suppress_redundant_updates_trigger currtid2 dblink dblink_exec pg_file_write xpath_table \
            int4in textin array_in domain_in record_in anyarray_in pg_partition_tree_in";
        for name in FAMILIES.split_whitespace() {
            assert!(!listed(name), "{name}");
        }
    }
}
