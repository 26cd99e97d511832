//! Where messages are made and sent: a thread that steps aside for sessions and votes.
//!
//! A message costs as much as a whole decision does, and a thousand commands held at once
//! are a thousand messages. Whoever waits for a decision does not wait for them: on Linux
//! the thread has the processor when little else wants it. It may be left standing with a
//! lock in its hands, so it takes none that sessions wait for: what needs one is done by
//! their threads, and only the handing over is in common.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Ten steps down give a tenth of the time that others get.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// The lowest priority there is.
#[cfg(target_os = "linux")]
const LAST: i32 = 19;

/// The thread, which ends once the last of these is gone.
pub(super) struct Aside {
    pub(super) here: Handle,
    _alive: oneshot::Sender<Infallible>,
}

impl Aside {
    /// # Errors
    /// No thread or no event queue is to be had.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let here = runtime.handle().clone();
        let (alive, over) = oneshot::channel::<Infallible>();
        std::thread::Builder::new()
            .name("holdpoint-notify".to_owned())
            .spawn(move || {
                step_aside();
                // An error: nobody is left.
                let _ = runtime.block_on(over);
            })?;
        Ok(Arc::new(Self {
            here,
            _alive: alive,
        }))
    }
}

/// Elsewhere a priority is the whole process's.
#[cfg(target_os = "linux")]
fn step_aside() {
    use rustix::process::{getpriority_process, setpriority_process};
    // The calling thread's own: setpriority(2), "C library/kernel differences".
    let down = |now: i32| setpriority_process(None, (now + NICE).min(LAST));
    if let Err(error) = getpriority_process(None).and_then(down) {
        tracing::debug!(%error, "messages are sent with the priority of everything else");
    }
}

#[cfg(not(target_os = "linux"))]
fn step_aside() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_steps_aside_alone_and_ends_when_nobody_needs_it() {
        let aside = Aside::start().unwrap();
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        let there = aside.here.spawn(async move { priority() }).await.unwrap();
        let down = if cfg!(target_os = "linux") { 10 } else { 0 };
        assert_eq!((priority(), there), (before, (before + down).min(19)));
        let (sender, gone) = oneshot::channel::<()>();
        aside.here.spawn(async move {
            let _held = sender;
            std::future::pending::<()>().await;
        });
        drop(aside);
        assert!(gone.await.is_err());
    }
}
