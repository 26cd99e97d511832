//! wasmtime as plugins get it, and the clock that bounds their calls.
//!
//! A deadline in wall time misfires on a busy machine: it stops a plugin that
//! had no chance to run. So a ticker interrupts every millisecond, and each
//! interruption asks how much CPU the calling thread has used. Wall time is only
//! the backstop.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use wasmtime::{Config, OptLevel, StoreContextMut, UpdateDeadline};

use crate::guest::Guest;

/// How often a running guest is looked at; the precision of its CPU budget.
const TICK: Duration = Duration::from_millis(2);
/// The ticker sleeps when nothing was called for this many ticks: an idle
/// gateway wakes nobody.
const IDLE_TICKS: u32 = 100;
/// Wall time that one call may take, as a multiple of its CPU budget.
const WALL_FACTOR: u32 = 20;

/// What a plugin may use. The defaults fit compiled parsers.
#[derive(Debug, Clone)]
pub struct Limits {
    /// CPU time of one call.
    pub call: Duration,
    /// CPU time of describing itself, once at load.
    pub load: Duration,
    /// Bytes of memory of one instance.
    pub memory: usize,
    /// Bytes that one call may hand over in either direction by way of the host.
    pub data: usize,
    /// Bytes of a component. Compiling takes time in proportion.
    pub component: usize,
    /// Failures in sessions of one principal after which it gets no more, and
    /// principals after whose failures nobody does, until the plugin is loaded anew.
    pub faults: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call: Duration::from_millis(10),
            load: Duration::from_secs(1),
            memory: 64 << 20,
            data: 16 << 20,
            component: 32 << 20,
            faults: 5,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("this machine cannot run plugins: {0}")]
    Unsupported(String),
    #[error("no thread could be started to bound the plugins' calls: {0}")]
    Ticker(std::io::Error),
}

/// Compiles and runs components. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasm: wasmtime::Engine,
    pub(crate) limits: Limits,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) ticker: Arc<Ticker>,
}

impl Engine {
    /// `cache` is a directory for compiled code; it is made if missing and used
    /// only while nobody else can write to it.
    ///
    /// # Errors
    /// The processor is not supported, or no thread can be started.
    pub fn new(limits: Limits, cache: Option<PathBuf>) -> Result<Self, EngineError> {
        let unsupported = |error: wasmtime::Error| EngineError::Unsupported(format!("{error:#}"));
        let wasm = wasmtime::Engine::new(&config()).map_err(unsupported)?;
        let ticker = Ticker::start(&wasm).map_err(EngineError::Ticker)?;
        Ok(Self {
            wasm,
            limits,
            cache,
            ticker: Arc::new(ticker),
        })
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        .cranelift_opt_level(OptLevel::Speed)
        // The same input gives the same answer on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        // What no plugin needs is surface.
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        // Frames name guest functions, which are the guest's to choose.
        .wasm_backtrace_max_frames(NonZeroUsize::new(8));
    config
}

/// What one call may still use. Lives in the store, for the callback to find.
#[derive(Debug)]
pub(crate) struct Budget {
    cpu: Duration,
    wall: Instant,
    /// Thread time at the first tick of this call: asking earlier would cost each
    /// call a system call, for a precision that the tick does not have.
    since: Option<Duration>,
    pub(crate) spent: bool,
}

impl Budget {
    pub(crate) fn new(cpu: Duration) -> Self {
        Self {
            cpu,
            wall: Instant::now() + cpu * WALL_FACTOR,
            since: None,
            spent: false,
        }
    }

    fn tick(&mut self) -> UpdateDeadline {
        let now = thread_time();
        let since = *self.since.get_or_insert(now.saturating_sub(TICK));
        if now.saturating_sub(since) >= self.cpu || Instant::now() >= self.wall {
            self.spent = true;
            return UpdateDeadline::Interrupt;
        }
        UpdateDeadline::Continue(1)
    }
}

pub(crate) fn on_tick(mut context: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    Ok(context.data_mut().budget.tick())
}

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// Advances the engine's epoch while plugins are being called.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    /// Begun so far.
    calls: AtomicU64,
    /// That have not returned.
    running: AtomicU64,
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (engine, seen) = (engine.weak(), Arc::clone(&shared));
        let handle = std::thread::Builder::new()
            .name("plugin-ticker".to_owned())
            .spawn(move || tick(&engine, &seen))?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
        })
    }

    /// A call begins; it runs until what is given is dropped. The order of the two
    /// flags matters: the ticker first says that it sleeps and then looks at the
    /// counts again, we do the reverse, so one of us sees the other.
    pub(crate) fn call(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

/// A call into a guest: while there is one, the epoch advances.
pub(crate) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

fn tick(engine: &wasmtime::EngineWeak, shared: &Shared) {
    let (mut seen, mut idle) = (0, 0);
    while !shared.stop.load(Ordering::SeqCst) {
        let calls = shared.calls.load(Ordering::SeqCst);
        let quiet = calls == seen && shared.running.load(Ordering::SeqCst) == 0;
        idle = if quiet { idle + 1 } else { 0 };
        seen = calls;
        if idle > IDLE_TICKS {
            shared.asleep.store(true, Ordering::SeqCst);
            if shared.calls.load(Ordering::SeqCst) == seen && !shared.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            shared.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        } else {
            std::thread::sleep(TICK);
        }
        let Some(engine) = engine.upgrade() else {
            return;
        };
        engine.increment_epoch();
    }
}
