//! Named points at which a test may have the process die.
//!
//! `HOLDPOINT_CRASH_AT=P3` aborts when the point is reached, as a power cut would:
//! nothing is flushed, nobody is told. Only in builds with debug assertions; a
//! release build has no such switch.

/// Aborts the process if a test asked for it at this point.
#[inline]
pub(crate) fn point(name: &str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::LazyLock;
        static AT: LazyLock<Option<String>> =
            LazyLock::new(|| std::env::var("HOLDPOINT_CRASH_AT").ok());
        if AT.as_deref() == Some(name) {
            tracing::error!(point = name, "dying as asked");
            std::process::abort();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
