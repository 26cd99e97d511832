//! A relay between gateway and target that keeps every byte of both directions.
//!
//! Traffic here is in clear, so that the oracle can read it; TLS to the target
//! has tests of its own. It can also misbehave, to play a bad target.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How the relay treats connections that open from now on.
#[derive(Debug, Clone, Default)]
pub enum Behaviour {
    #[default]
    Relay,
    /// Closes at once.
    Refuse,
    /// Accepts and never answers.
    Silent,
    /// Answers with these bytes, whatever is said.
    Garbage(Vec<u8>),
    /// Relays so many bytes of the target, and then no more.
    Stall(usize),
}

/// What passed over one connection.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    pub from_gateway: Vec<u8>,
    pub from_target: Vec<u8>,
    pub ended: bool,
    /// When bytes came from the gateway, and how many had come by then.
    pub moments: Vec<(Instant, usize)>,
}

#[derive(Default)]
struct State {
    behaviour: Behaviour,
    conversations: Vec<Conversation>,
}

#[derive(Clone)]
pub struct Tap {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<Stop>,
}

/// Ends the accepting thread when the last handle goes.
struct Stop {
    address: SocketAddr,
    flag: Arc<std::sync::atomic::AtomicBool>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.flag.store(true, std::sync::atomic::Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Tap {
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let flag = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (shared, stopped) = (state.clone(), flag.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                    return;
                }
                serve(client, target, &shared);
            }
        });
        Self {
            address,
            state,
            stop: Arc::new(Stop { address, flag }),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn behave(&self, behaviour: Behaviour) {
        self.lock().behaviour = behaviour;
    }

    pub fn conversations(&self) -> Vec<Conversation> {
        self.lock().conversations.clone()
    }

    /// How many bytes the gateway sent to the target, over all connections.
    pub fn sent(&self) -> usize {
        self.lock()
            .conversations
            .iter()
            .map(|one| one.from_gateway.len())
            .sum()
    }

    /// Whether the target was ever sent this text.
    pub fn saw(&self, text: &str) -> bool {
        self.count(text) > 0
    }

    /// How often the target was sent this text.
    pub fn count(&self, text: &str) -> usize {
        let state = self.lock();
        let bytes = state.conversations.iter().map(|one| &one.from_gateway);
        bytes
            .map(|sent| {
                sent.windows(text.len())
                    .filter(|at| at == &text.as_bytes())
                    .count()
            })
            .sum()
    }

    /// Waits until every connection is over, so that nothing is still under way.
    pub fn quiet(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.lock().conversations.iter().all(|one| one.ended) {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        let _ = &self.stop;
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn serve(mut client: TcpStream, target: SocketAddr, state: &Arc<Mutex<State>>) {
    let (number, behaviour) = {
        let mut state = state.lock().unwrap();
        state.conversations.push(Conversation::default());
        (state.conversations.len() - 1, state.behaviour.clone())
    };
    let upstream = match behaviour {
        Behaviour::Relay | Behaviour::Stall(_) => TcpStream::connect(target).ok(),
        Behaviour::Refuse => None,
        Behaviour::Silent | Behaviour::Garbage(_) => {
            if let Behaviour::Garbage(bytes) = behaviour {
                let _ = client.write_all(&bytes);
            }
            let state = state.clone();
            thread::spawn(move || {
                pump(client, None, &state, number, true, usize::MAX);
                state.lock().unwrap().conversations[number].ended = true;
            });
            return;
        }
    };
    let most = match behaviour {
        Behaviour::Stall(most) => most,
        _ => usize::MAX,
    };
    let Some(upstream) = upstream else {
        let _ = client.shutdown(Shutdown::Both);
        state.lock().unwrap().conversations[number].ended = true;
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = upstream.set_nodelay(true);
    let (back, forth) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
    let state = state.clone();
    thread::spawn(move || {
        let other = state.clone();
        let down = thread::spawn(move || pump(back, Some(forth), &other, number, false, most));
        pump(client, Some(upstream), &state, number, true, usize::MAX);
        let _ = down.join();
        state.lock().unwrap().conversations[number].ended = true;
    });
}

/// Keeps what it reads before it passes it on, at most `most` bytes.
fn pump(
    mut from: TcpStream,
    mut to: Option<TcpStream>,
    state: &Mutex<State>,
    number: usize,
    from_gateway: bool,
    mut most: usize,
) {
    let mut buffer = vec![0; 65536];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let read = read.min(most);
        most -= read;
        {
            let mut state = state.lock().unwrap();
            let one = &mut state.conversations[number];
            if from_gateway {
                one.from_gateway.extend_from_slice(&buffer[..read]);
                let so_far = one.from_gateway.len();
                one.moments.push((Instant::now(), so_far));
            } else {
                one.from_target.extend_from_slice(&buffer[..read]);
            }
        }
        if let Some(to) = &mut to
            && to.write_all(&buffer[..read]).is_err()
        {
            break;
        }
    }
    if let Some(to) = to {
        let _ = to.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PgServer;

    #[test]
    fn what_psql_sends_is_kept_and_answered() {
        let Some(server) = crate::need!(PgServer::shared(), "postgresql") else {
            return;
        };
        let database = server.database();
        let tap = Tap::start(database.address);
        let through = crate::Psql::new(
            tap.address(),
            &database.name,
            &database.user,
            &database.password,
        )
        .env("PGSSLMODE", "disable");
        assert_eq!(through.run("SELECT 40 + 2").stdout, "42\n");
        assert!(tap.quiet(Duration::from_secs(5)));
        assert_eq!(tap.count("SELECT 40 + 2"), 1);
        assert!(!tap.saw(&database.password), "SCRAM shows no password");
        let conversations = tap.conversations();
        assert!(
            conversations[0]
                .from_target
                .windows(2)
                .any(|two| two == b"42")
        );
    }

    #[test]
    fn a_refusing_relay_plays_a_target_that_is_down() {
        let Some(server) = crate::need!(PgServer::shared(), "postgresql") else {
            return;
        };
        let database = server.database();
        let tap = Tap::start(database.address);
        tap.behave(Behaviour::Refuse);
        let through = crate::Psql::new(tap.address(), "x", "x", "x").env("PGSSLMODE", "disable");
        assert_eq!(through.run("SELECT 1").code, Some(2));
        assert!(tap.quiet(Duration::from_secs(5)));
    }
}
