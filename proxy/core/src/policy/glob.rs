//! Patterns in which `*` stands for any text, and nothing else is special.

use crate::command::Object;

/// PostgreSQL keeps 63 bytes of a name, and no part of a character of up to four.
const MAY_BE_CUT: usize = 60;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob(String);

impl Glob {
    pub(super) fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// As it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn fits(&self, text: &str) -> bool {
        fits(self.0.as_bytes(), text.as_bytes())
    }

    /// As [`Glob::fits`], also where a target keeps only the beginning of long names: a name
    /// that may have been cut is what the pattern was written for.
    fn fits_cut(&self, text: &str) -> bool {
        let plain = self.0.split('*').next().unwrap_or_default();
        self.fits(text)
            || (text.len() >= MAY_BE_CUT && plain.len() > text.len() && plain.starts_with(text))
    }

    /// A function's name may or may not have its schema. To tighten, the bare name is enough.
    pub(super) fn fits_function(&self, name: &str, loosen: bool) -> bool {
        if loosen {
            return self.fits(name);
        }
        let bare = name.rsplit_once('.').map_or(name, |(_, bare)| bare);
        let any_schema = |(_, pattern): (&str, &str)| Self::new(pattern).fits_cut(name);
        self.fits_cut(name)
            || self.fits_cut(bare)
            || self.0.rsplit_once('.').is_some_and(any_schema)
    }
}

/// A pattern over schema and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectGlob {
    whole: Glob,
    /// Absent: any.
    schema: Option<Glob>,
    name: Glob,
}

impl ObjectGlob {
    pub(super) fn new(pattern: &str) -> Self {
        let (schema, name) = match pattern.split_once('.') {
            // A path, not a schema.
            Some(_) if pattern.starts_with('/') => (None, pattern),
            Some((schema, name)) => (Some(Glob::new(schema)), name),
            None => (None, pattern),
        };
        Self {
            whole: Glob::new(pattern),
            schema,
            name: Glob::new(name),
        }
    }

    /// Which schema an unqualified name means is not known: to tighten it may be
    /// any, to loosen it is none that the pattern names.
    pub(super) fn fits(&self, object: &Object, loosen: bool) -> bool {
        let schema = match (&self.schema, &object.schema) {
            (None, _) => true,
            (Some(glob), Some(schema)) if loosen => glob.fits(schema),
            (Some(glob), Some(schema)) => glob.fits_cut(schema),
            (Some(glob), None) => !loosen || glob.0 == "*",
        };
        let name = if loosen {
            self.name.fits(&object.name)
        } else {
            self.name.fits_cut(&object.name)
        };
        (schema && name) || (!loosen && (self.fits_joined(object) || self.is_within(object)))
    }

    /// What is done to a schema is done to what is in it.
    fn is_within(&self, object: &Object) -> bool {
        let schema = self.schema.as_ref();
        object.kind == "schema" && schema.is_some_and(|schema| schema.fits_cut(&object.name))
    }

    /// Names may have dots of their own; where those are does not help to evade a rule.
    fn fits_joined(&self, object: &Object) -> bool {
        match &object.schema {
            Some(schema) => self.whole.fits(&format!("{schema}.{}", object.name)),
            None => self.whole.fits(&object.name),
        }
    }
}

/// Linear but for going back to the last star: no pattern takes exponential time.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(schema: Option<&str>, name: &str) -> Object {
        Object {
            kind: "table".to_owned(),
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
            access: "read".to_owned(),
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*b*b*", "abab", true),
            ("shop-*", "shop-", true),
            ("shop", "shops", false),
        ] {
            assert_eq!(Glob::new(pattern).fits(text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn an_unqualified_name_is_denied_under_any_schema_and_allowed_under_none() {
        let glob = ObjectGlob::new("public.secrets");
        assert!(glob.fits(&object(None, "secrets"), false));
        assert!(!glob.fits(&object(None, "secrets"), true));
        assert!(ObjectGlob::new("*.secrets").fits(&object(None, "secrets"), true));
        assert!(ObjectGlob::new("secrets").fits(&object(Some("x"), "secrets"), true));
        assert!(!glob.fits(&object(Some("audit"), "secrets"), false));
    }

    #[test]
    fn a_name_that_the_target_cut_is_denied_by_the_pattern_for_the_whole_and_allowed_by_none() {
        let whole = format!("payroll_{}", "x".repeat(56));
        let cut = object(Some("public"), &whole[..63]);
        for pattern in [
            whole.clone(),
            format!("public.{whole}"),
            format!("{whole}*"),
        ] {
            let glob = ObjectGlob::new(&pattern);
            assert!(glob.fits(&cut, false), "{pattern}");
            assert!(!glob.fits(&cut, true), "{pattern}");
            let short = object(Some("public"), "payroll_x");
            assert!(!glob.fits(&short, false), "{pattern}");
        }
        for (pattern, name) in [
            (whole.clone(), whole[..63].to_owned()),
            (format!("hr.{whole}"), whole[..63].to_owned()),
            (whole.clone(), format!("hr.{}", &whole[..63])),
            (format!("hr.{whole}"), format!("hr.{}", &whole[..63])),
        ] {
            assert!(
                Glob::new(&pattern).fits_function(&name, false),
                "{pattern} {name}"
            );
            assert!(
                !Glob::new(&pattern).fits_function(&name, true),
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn what_is_done_to_a_schema_is_done_to_what_is_in_it() {
        let schema = Object {
            kind: "schema".to_owned(),
            ..object(None, "hr")
        };
        assert!(ObjectGlob::new("hr.salaries").fits(&schema, false));
        assert!(!ObjectGlob::new("hr.salaries").fits(&schema, true));
        assert!(!ObjectGlob::new("crm.salaries").fits(&schema, false));
        assert!(!ObjectGlob::new("salaries").fits(&schema, false));
    }

    #[test]
    fn a_path_is_one_name() {
        let glob = ObjectGlob::new("/etc/app.conf");
        assert!(glob.fits(&object(None, "/etc/app.conf"), true));
    }
}
