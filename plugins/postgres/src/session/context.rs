//! Session state that changes what a text means.
//!
//! Kept as a history of the statements that changed it, in order: which of them
//! a rollback undid is not guessed. A history of which a part may have been undone is that of no
//! other session, so at worst an approved command has to be approved again. Settings of
//! one transaction go when it ends.

use std::cell::RefCell;
use std::rc::Rc;

/// What was changed, in order: names and values.
pub(crate) type Settings = Rc<[(String, String)]>;

/// Past this many the history is replaced by a mark that matches nothing else.
const MAX_ENTRIES: usize = 64;
const MAX_VALUE: usize = 512;

#[derive(Debug)]
pub(crate) struct Context {
    /// `database`, `user`, and what the client set at startup.
    base: Vec<(String, String)>,
    changes: Vec<Entry>,
    /// How often something was changed.
    count: u64,
    overflow: bool,
    /// Something was changed that a rollback would undo.
    open: bool,
    /// No other session has it.
    mark: String,
    /// Grows with each change of what [`Context::entries`] gives.
    version: u64,
    /// [`Context::settings`] of a version.
    told: RefCell<Option<(u64, Settings)>>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    value: String,
    local: bool,
}

impl Context {
    /// `settings` are those of the startup packet that give text its meaning.
    pub(crate) fn new(
        database: String,
        user: String,
        settings: Vec<(String, String)>,
        entropy: &[u8],
    ) -> Self {
        let mut base = vec![("database".to_owned(), database), ("user".to_owned(), user)];
        base.extend(settings);
        Self {
            base,
            changes: Vec::new(),
            count: 0,
            overflow: false,
            open: false,
            // The first eight bytes are the cancel key and stay secret.
            mark: entropy
                .iter()
                .skip(8)
                .take(8)
                .map(|b| format!("{b:02x}"))
                .collect(),
            version: 0,
            told: RefCell::default(),
        }
    }

    /// The same only while nothing changes.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn changed(&mut self, name: &str, value: &str, local: bool) {
        self.count += 1;
        self.version += 1;
        self.open |= !local;
        if let Some(last) = self.changes.last()
            && last.name == name
            && last.value == value
            && last.local == local
        {
            return;
        }
        if self.changes.len() == MAX_ENTRIES || value.len() > MAX_VALUE {
            self.overflow = true;
            self.changes.clear();
        }
        if !self.overflow {
            let entry = Entry {
                name: name.to_owned(),
                value: value.to_owned(),
                local,
            };
            self.changes.push(entry);
        }
    }

    pub(crate) fn end_transaction(&mut self) {
        if self.changes.iter().any(|entry| entry.local) {
            self.changes.retain(|entry| !entry.local);
            self.version += 1;
        }
    }

    /// What was changed stays.
    pub(crate) fn committed(&mut self) {
        self.open = false;
    }

    /// What was changed since the last commit may be as it was before.
    pub(crate) fn rolled_back(&mut self) {
        if std::mem::take(&mut self.open) {
            self.unrepeatable();
        }
    }

    /// Something changed that no text tells: no other session has this state.
    pub(crate) fn unrepeatable(&mut self) {
        self.count += 1;
        self.version += 1;
        self.overflow = true;
    }

    /// What stands for a command that has not been answered and may change
    /// anything: in no other session does it come after the same ones.
    pub(crate) fn unanswered(&self) -> String {
        format!(
            "an unanswered command after {} changes in session {}",
            self.count, self.mark
        )
    }

    /// `DISCARD ALL`, which no rollback undoes.
    pub(crate) fn reset(&mut self) {
        self.version += 1;
        self.changes.clear();
        self.overflow = false;
        self.open = false;
    }

    /// What is not as it was when the session began.
    pub(crate) fn settings(&self) -> Settings {
        let mut told = self.told.borrow_mut();
        if let Some((version, settings)) = &*told
            && *version == self.version
        {
            return Rc::clone(settings);
        }
        let changes = self.changes.iter();
        let changes = changes.map(|e| (e.name.clone(), e.value.clone()));
        let mark = self.overflow.then(|| {
            let mark = format!("{} changes in session {}", self.count, self.mark);
            ("settings".to_owned(), mark)
        });
        let settings: Settings = changes.chain(mark).collect();
        *told = Some((self.version, Rc::clone(&settings)));
        settings
    }

    pub(crate) fn entries(&self) -> Vec<(String, String)> {
        let settings = self.settings();
        let mut entries = Vec::with_capacity(self.base.len() + settings.len() + 2);
        entries.extend_from_slice(&self.base);
        entries.extend_from_slice(&settings);
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context::new("shop".to_owned(), "app".to_owned(), Vec::new(), &[7; 32])
    }

    #[test]
    fn what_a_rollback_may_have_undone_stays_in_the_history() {
        let mut context = context();
        context.changed("search_path", "a", false);
        context.changed("search_path", "b", false);
        context.changed("role", "x", true);
        context.end_transaction();
        let values: Vec<_> = context
            .entries()
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        assert_eq!(values, ["shop", "app", "a", "b"]);
    }

    #[test]
    fn a_history_that_was_rolled_back_is_no_others() {
        let after = |ends: fn(&mut Context)| {
            let mut context = context();
            context.changed("datestyle", "DMY", false);
            ends(&mut context);
            context.rolled_back();
            context.entries()
        };
        let kept = after(Context::committed);
        assert_eq!(kept.len(), 3);
        assert_ne!(after(|_| {}), kept);
        let mut context = context();
        context.changed("datestyle", "DMY", true);
        context.rolled_back();
        context.end_transaction();
        assert_eq!(context.entries().len(), 2);
    }

    #[test]
    fn a_long_history_matches_no_other() {
        let mut context = context();
        for n in 0..=MAX_ENTRIES {
            context.changed("search_path", &n.to_string(), false);
        }
        let first = context.entries();
        context.changed("search_path", "again", false);
        assert_ne!(first, context.entries());
        assert_eq!(first.len(), 3);
        context.reset();
        assert_eq!(context.entries().len(), 2);
    }
}
