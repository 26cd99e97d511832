//! Real components in the real sandbox: the teaching plugin, which behaves, and
//! one that does what it is told not to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod foretold;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdpoint_core::denial::{Denial, Kind};
use holdpoint_core::framing::Side;
use holdpoint_core::id::Digest;
use holdpoint_core::plugin::{
    Action, AuthError, Exchange, Frame, IdentityOutcome, PluginError, Setup, UpstreamAuth, Verdict,
};
use holdpoint_host::{Engine, Limits, LoadError, Plugin, Session};

/// An empty component.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

fn component(crate_dir: &str) -> Vec<u8> {
    // One cargo at a time, for all tests of this binary.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock().unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(crate_dir);
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../plugins");
    std::fs::read(holdpoint_plugin_build::build(&dir, &out).unwrap().path).unwrap()
}

static ECHO: LazyLock<Vec<u8>> = LazyLock::new(|| component("../../plugins/echo"));
static HOSTILE: LazyLock<Vec<u8>> = LazyLock::new(|| component("tests/hostile"));
static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Limits::default(), None).unwrap());

struct Account;

impl UpstreamAuth for Account {
    fn username(&self) -> String {
        "app ".to_owned()
    }

    fn start(&mut self, mechanism: &str) -> Result<Box<dyn Exchange>, AuthError> {
        if mechanism == "md5" {
            Ok(Box::new(Salted))
        } else {
            Err(AuthError::UnknownMechanism)
        }
    }
}

struct Salted;

impl Exchange for Salted {
    fn step(&mut self, challenge: &[u8]) -> Result<Vec<u8>, AuthError> {
        Ok([b"proof of ", challenge].concat())
    }
}

fn start(plugin: &Plugin, deed: &str) -> Result<Session, PluginError> {
    let setup = Setup {
        settings: vec![("do".to_owned(), deed.to_owned())],
        client_tls: true,
        entropy: [7; 32],
    };
    let mut session = plugin.session(setup, Box::new(Account))?;
    session.open()?;
    Ok(session)
}

fn hostile() -> Plugin {
    ENGINE.load(&HOSTILE, None).unwrap()
}

fn frame(seq: u64, body: &'static [u8]) -> [Frame; 1] {
    [Frame {
        seq,
        kind: None,
        body: Bytes::from_static(body),
    }]
}

fn denial() -> Denial {
    Denial::new(Kind::Denied, "HP-DENIED", "no")
}

/// What comes of the deed, and what the client hears afterwards.
fn deed(name: &str) -> (Result<Vec<Action>, PluginError>, Vec<u8>) {
    let mut session = start(&hostile(), name).unwrap();
    let result = session.on_frames(Side::Client, &frame(1, b"go"));
    (result, session.terminate(&denial()))
}

#[test]
fn the_teaching_plugin_runs_a_whole_session() {
    let plugin = ENGINE.load(&ECHO, Some(Digest::of(&ECHO))).unwrap();
    assert_eq!(
        (plugin.name(), plugin.digest()),
        ("echo", Digest::of(&ECHO))
    );
    assert_eq!(*plugin.descriptor().classes, ["read", "write", "unknown"]);

    let mut session = start(&plugin, "").unwrap();
    let identity = IdentityOutcome::Accepted {
        subject: "agent".to_owned(),
        label: "a".to_owned(),
        groups: Vec::new(),
    };
    let actions = session.on_identity(&identity).unwrap();
    let [Action::Connect, Action::GiveCredential(credential)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(credential.before, b"login app  ");
    let actions = session
        .on_frames(Side::Upstream, &frame(1, b"ok\n"))
        .unwrap();
    assert!(matches!(actions.last(), Some(Action::Ready)), "{actions:?}");

    let actions = session
        .on_frames(Side::Client, &frame(2, b"write x\n"))
        .unwrap();
    let [Action::Submit(submission)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!((submission.first, submission.last), (2, 2));
    assert_eq!(submission.command.text, "write x");
    assert_eq!(session.notice("wait").unwrap(), b"# wait\n");
    let actions = session.on_verdict(&Verdict::Refused(denial())).unwrap();
    let [Action::ToClient(bytes)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(bytes, "refused HP-DENIED: no\n");
    assert_eq!(session.terminate(&denial()), b"refused HP-DENIED: no\n");
}

#[test]
fn a_command_is_classified_outside_a_session() {
    let plugin = ENGINE.load(&ECHO, None).unwrap();
    let command = plugin
        .classify(&[("line".to_owned(), b"read x".to_vec())])
        .unwrap();
    assert_eq!(command.operations[0].class, "read");
    let error = plugin.classify(&[]).unwrap_err();
    assert!(matches!(error, PluginError::Fault { .. }), "{error}");
}

#[test]
fn a_trap_ends_the_session_for_good_and_the_client_still_hears_why() {
    let plugin = hostile();
    let mut session = start(&plugin, "trap").unwrap();
    for _ in 0..2 {
        let error = session
            .on_frames(Side::Client, &frame(1, b"go"))
            .unwrap_err();
        assert!(matches!(error, PluginError::Trap { .. }), "{error}");
    }
    assert!(session.notice("x").is_err());
    assert_eq!(session.terminate(&denial()), b"HP-PLUGIN");
}

#[test]
fn an_endless_loop_is_stopped_by_its_cpu_budget() {
    let began = Instant::now();
    let (result, farewell) = deed("loop");
    let error = result.unwrap_err();
    assert!(
        matches!(error, PluginError::Deadline { budget_ms: 10, .. }),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(farewell, b"HP-PLUGIN");
    assert!(matches!(
        hostile().classify(&[]),
        Err(PluginError::Deadline { .. })
    ));
}

#[test]
fn a_sleeping_ticker_wakes_for_the_next_call() {
    let engine = Engine::new(Limits::default(), None).unwrap();
    let plugin = engine.load(&HOSTILE, None).unwrap();
    let mut session = start(&plugin, "loop").unwrap();
    std::thread::sleep(Duration::from_millis(600));
    let error = session
        .on_frames(Side::Client, &frame(1, b"go"))
        .unwrap_err();
    assert!(matches!(error, PluginError::Deadline { .. }), "{error}");
}

/// The ticker sleeps when no call begins, which must not count one that goes on.
#[test]
fn a_budget_longer_than_the_ticker_stays_awake_is_kept_too() {
    let limits = Limits {
        call: Duration::from_millis(500),
        ..Limits::default()
    };
    let engine = Engine::new(limits, None).unwrap();
    let plugin = engine.load(&HOSTILE, None).unwrap();
    let mut session = start(&plugin, "loop").unwrap();
    let error = session
        .on_frames(Side::Client, &frame(1, b"go"))
        .unwrap_err();
    assert!(
        matches!(error, PluginError::Deadline { budget_ms: 500, .. }),
        "{error}"
    );
}

#[test]
fn memory_and_returned_data_have_limits() {
    // Memory is filled at a pace that the CPU budget may end first elsewhere.
    let limits = Limits {
        call: Duration::from_secs(5),
        ..Limits::default()
    };
    let engine = Engine::new(limits, None).unwrap();
    let plugin = engine.load(&HOSTILE, None).unwrap();
    for deed in ["eat", "flood"] {
        let mut session = start(&plugin, deed).unwrap();
        let error = session
            .on_frames(Side::Client, &frame(1, b"go"))
            .unwrap_err();
        assert!(
            matches!(
                error,
                PluginError::Trap { .. } | PluginError::Misbehaved { .. }
            ),
            "{deed}: {error}"
        );
        assert_eq!(session.terminate(&denial()), b"HP-PLUGIN", "{deed}");
    }
}

#[test]
fn answers_that_make_no_sense_cost_the_instance() {
    for name in ["chatter", "lie", "logins"] {
        let (result, farewell) = deed(name);
        let error = result.unwrap_err();
        assert!(
            matches!(error, PluginError::Misbehaved { .. }),
            "{name}: {error}"
        );
        assert_eq!(farewell, b"HP-PLUGIN", "{name}");
    }
}

#[test]
fn a_plugin_that_gives_up_can_still_say_goodbye_itself() {
    let (result, farewell) = deed("fault");
    assert!(matches!(result, Err(PluginError::Fault { message, .. }) if message == "enough"));
    assert_eq!(farewell, b"HP-DENIED");
}

#[test]
fn a_login_at_the_target_runs_in_the_host() {
    let (result, _) = deed("login");
    let actions = result.unwrap();
    let Some(Action::ToUpstream(bytes)) = actions.last() else {
        panic!("{actions:?}")
    };
    assert_eq!(bytes, "app proof of salt");
}

/// A whole session of the teaching plugin, and all that it answered.
fn conversation(plugin: &Plugin, mut between: impl FnMut(&mut Session)) -> Vec<String> {
    let setup = Setup {
        settings: Vec::new(),
        client_tls: true,
        entropy: [7; 32],
    };
    let identity = IdentityOutcome::Accepted {
        subject: "agent".to_owned(),
        label: "a".to_owned(),
        groups: Vec::new(),
    };
    let mut session = plugin.session(setup, Box::new(Account)).unwrap();
    let mut said = Vec::new();
    type Step<'a> = &'a dyn Fn(&mut Session) -> String;
    let steps: [Step<'_>; 8] = [
        &|session| format!("{:?}", session.open()),
        &|session| format!("{:?}", session.on_identity(&identity)),
        &|session| {
            format!(
                "{:?}",
                session.on_frames(Side::Upstream, &frame(1, b"ok\n"))
            )
        },
        &|session| {
            format!(
                "{:?}",
                session.on_frames(Side::Client, &frame(2, b"write x\n"))
            )
        },
        &|session| format!("{:?}", session.notice("wait")),
        &|session| format!("{:?}", session.on_verdict(&Verdict::Refused(denial()))),
        &|session| {
            format!(
                "{:?}",
                session.on_frames(Side::Client, &frame(3, b"read y\n"))
            )
        },
        &|session| format!("{:?}", session.terminate(&denial())),
    ];
    for step in steps {
        said.push(step(&mut session));
        between(&mut session);
    }
    said
}

#[test]
fn a_session_that_rests_anywhere_says_what_it_would_have_said() {
    let plugin = ENGINE.load(&ECHO, None).unwrap();
    let awake = conversation(&plugin, |_| {});
    assert!(awake[6].contains("Submit"), "{awake:?}");
    assert_eq!(conversation(&plugin, |session| session.rest(None)), awake);
    for rests in 0..8 {
        let mut step = 0;
        let rested = conversation(&plugin, |session| {
            if step == rests {
                assert!(session.is_awake());
                session.rest(None);
                assert!(!session.is_awake());
            }
            step += 1;
        });
        assert_eq!(rested, awake, "after a rest behind step {rests}");
    }
}

/// Counts its logins.
struct Counting(Arc<AtomicUsize>);

impl UpstreamAuth for Counting {
    fn username(&self) -> String {
        Account.username()
    }

    fn start(&mut self, mechanism: &str) -> Result<Box<dyn Exchange>, AuthError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Account.start(mechanism)
    }
}

#[test]
fn who_wakes_does_not_log_in_again_and_never_can() {
    let logins = Arc::new(AtomicUsize::new(0));
    let setup = Setup {
        settings: vec![("do".to_owned(), "login".to_owned())],
        client_tls: true,
        entropy: [7; 32],
    };
    let auth = Box::new(Counting(Arc::clone(&logins)));
    let mut session = hostile().session(setup, auth).unwrap();
    session.open().unwrap();
    let go = |session: &mut Session, seq| {
        let actions = session.on_frames(Side::Client, &frame(seq, b"go"));
        format!("{actions:?}")
    };
    let first = go(&mut session, 1);
    assert!(first.contains("app proof of salt"), "{first}");
    session.rest(None);
    // It is told all it knew, and its login is answered as it was.
    assert_eq!(session.notice("x").map(|_| ()).map_err(|_| ()), Ok(()));
    assert_eq!(logins.load(Ordering::SeqCst), 1);
    let again = go(&mut session, 2);
    assert!(!again.contains("proof"), "{again}");
    assert_eq!(logins.load(Ordering::SeqCst), 1);
}

#[test]
fn saying_the_same_again_wakes_nobody() {
    let plugin = ENGINE.load(&ECHO, None).unwrap();
    let mut session = start(&plugin, "").unwrap();
    let first = session.notice("wait").unwrap();
    session.rest(None);
    assert_eq!(session.notice("wait").unwrap(), first);
    assert!(!session.is_awake());
    assert_eq!(session.notice("go").unwrap(), b"# go\n");
    assert!(session.is_awake());
    session.rest(None);
    let _ = session.terminate(&denial());
    assert_eq!(session.notice("go").unwrap(), b"# go\n");
    assert!(session.is_awake(), "something else was said in between");
    session.rest(Some("wait"));
    assert_eq!(session.notice("wait").unwrap(), first);
    assert!(!session.is_awake());
}

#[test]
fn who_has_said_too_much_stays_awake() {
    let plugin = ENGINE.load(&ECHO, None).unwrap();
    let mut session = start(&plugin, "").unwrap();
    session.rest(None);
    assert!(!session.is_awake());
    for seq in 1..40 {
        let _ = session.on_frames(Side::Upstream, &frame(seq, &[b'x'; 1024]));
    }
    session.rest(None);
    assert!(session.is_awake());
}

#[test]
fn a_session_that_is_over_stays_over() {
    let mut session = start(&hostile(), "trap").unwrap();
    let error = session
        .on_frames(Side::Client, &frame(1, b"go"))
        .unwrap_err();
    session.rest(None);
    let again = session
        .on_frames(Side::Client, &frame(2, b"go"))
        .unwrap_err();
    assert_eq!(error.to_string(), again.to_string());
}

#[test]
fn a_flood_of_log_lines_is_harmless() {
    assert!(deed("log").0.is_ok());
}

fn who(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// A session of this principal, in which the plugin does the deed.
fn fail_for(plugin: &Plugin, name: &str, deed: &str, body: &'static [u8]) {
    let mut session = start(plugin, deed).unwrap();
    session.belongs_to(who(name)).unwrap();
    for _ in 0..2 {
        session
            .on_frames(Side::Client, &frame(1, body))
            .unwrap_err();
    }
}

#[test]
fn one_principal_for_whom_a_plugin_keeps_failing_is_shut_out_alone() {
    let plugin = hostile();
    for _ in 0..5 {
        fail_for(&plugin, "ada", "trap", b"go");
    }
    let mut session = start(&plugin, "").unwrap();
    let error = session.belongs_to(who("ada")).unwrap_err();
    assert!(
        matches!(error, PluginError::ShutOut { faults: 5, .. }),
        "one fault for each session, however often it is told: {error}"
    );
    assert_eq!(session.terminate(&denial()), b"HP-DENIED", "in its words");
    assert!(!plugin.is_quarantined());
    let mut other = start(&plugin, "").unwrap();
    other.belongs_to(who("bob")).unwrap();
    assert!(other.on_frames(Side::Client, &frame(1, b"go")).is_ok());
}

#[test]
fn a_plugin_that_fails_for_many_takes_no_more_sessions_until_it_is_loaded_anew() {
    let plugin = hostile();
    let mut healthy = start(&plugin, "").unwrap();
    healthy.belongs_to(who("ada")).unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        assert!(!plugin.is_quarantined(), "before {name}");
        fail_for(&plugin, name, "trap", b"go");
    }
    let error = start(&plugin, "").unwrap().belongs_to(who("ada"));
    assert!(
        matches!(error, Err(PluginError::Quarantined { principals: 5, .. })),
        "{error:?}"
    );
    assert!(
        healthy.on_frames(Side::Client, &frame(1, b"go")).is_ok(),
        "running ones go on"
    );
    let mut anew = start(&hostile(), "").unwrap();
    assert!(anew.belongs_to(who("a")).is_ok());
}

#[test]
fn what_says_nothing_of_the_plugin_does_not_count_against_it() {
    let plugin = hostile();
    for _ in 0..6 {
        // Nobody is known yet.
        let mut session = start(&plugin, "trap").unwrap();
        session
            .on_frames(Side::Client, &frame(1, b"go"))
            .unwrap_err();
        // A text so large that time may run out over it.
        fail_for(&plugin, "ada", "loop", &[b'x'; 65 << 10]);
    }
    let mut session = start(&plugin, "").unwrap();
    assert!(session.belongs_to(who("ada")).is_ok());
    for _ in 0..5 {
        fail_for(&plugin, "ada", "loop", b"go");
    }
    assert!(session.belongs_to(who("ada")).is_err());
}

#[test]
fn another_component_than_the_pinned_one_is_refused() {
    let error = ENGINE.load(&ECHO, Some(Digest([0; 32]))).unwrap_err();
    assert!(matches!(error, LoadError::Digest { .. }), "{error}");
    assert!(
        error.to_string().contains(&Digest::of(&ECHO).to_string()),
        "{error}"
    );
}

#[test]
fn what_is_no_plugin_is_refused_with_the_part_that_is_wrong() {
    let error = ENGINE.load(b"not wasm", None).unwrap_err();
    assert!(matches!(error, LoadError::Compile(_)), "{error}");

    let error = ENGINE.load(EMPTY, None).unwrap_err();
    assert!(matches!(error, LoadError::Interface(_)), "{error}");
    assert!(error.to_string().contains("holdpoint:plugin/"), "{error}");

    // One type, an empty instance, imported under a name that plugins do not get.
    let name = b"wasi:clocks/wall-clock@0.2.0";
    let mut wasi = EMPTY.to_vec();
    wasi.extend_from_slice(&[7, 3, 1, 0x42, 0]);
    wasi.extend_from_slice(&[10, u8::try_from(name.len()).unwrap() + 5, 1, 0]);
    wasi.push(u8::try_from(name.len()).unwrap());
    wasi.extend_from_slice(name);
    wasi.extend_from_slice(&[5, 0]);
    let error = ENGINE.load(&wasi, None).unwrap_err();
    assert!(
        matches!(&error, LoadError::Import(import) if import.starts_with("wasi:")),
        "{error}"
    );

    let engine = Engine::new(
        Limits {
            component: 16,
            ..Limits::default()
        },
        None,
    )
    .unwrap();
    assert!(matches!(
        engine.load(&ECHO, None),
        Err(LoadError::Large { limit: 16, .. })
    ));
}

fn cache_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn compiled_code_is_kept_and_a_damaged_file_is_compiled_anew() {
    let dir = cache_dir("cache");
    let engine = Engine::new(Limits::default(), Some(dir.clone())).unwrap();
    engine.load(&ECHO, None).unwrap();
    let [file] = files(&dir).try_into().unwrap();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let written = std::fs::metadata(&file).unwrap().modified().unwrap();
    engine.load(&ECHO, None).unwrap();
    assert_eq!(
        std::fs::metadata(&file).unwrap().modified().unwrap(),
        written,
        "a hit"
    );

    let mut content = std::fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&file, &content).unwrap();
    assert_eq!(engine.load(&ECHO, None).unwrap().name(), "echo");
    assert_ne!(std::fs::read(&file).unwrap(), content, "written anew");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_cache_that_others_can_open_is_not_used() {
    let dir = cache_dir("open-cache");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let engine = Engine::new(Limits::default(), Some(dir.clone())).unwrap();
    engine.load(&ECHO, None).unwrap();
    assert!(files(&dir).is_empty());
    std::fs::remove_dir_all(&dir).unwrap();
}
