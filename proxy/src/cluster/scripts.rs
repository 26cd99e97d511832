//! What must happen in the store as one step.
//!
//! Each script asks the server itself whether it is a master and which life of the store
//! this is (`master_replid` and `run_id`: both change with a restart, the first with a
//! failover too). A copy that was promoted, or a server that came back empty, has another
//! one, and votes cast under the former are refused.

/// Of every script. Errors where the server forbids INFO in scripts.
const LIFE: &str = r#"
local function life()
  local info = redis.call('INFO', 'server') .. redis.call('INFO', 'replication')
  local role = string.match(info, 'role:(%w+)')
  local run = string.match(info, 'run_id:(%w+)')
  local history = string.match(info, 'master_replid:(%w+)')
  return role or '', (history or '') .. ':' .. (run or '')
end
local role, life = life()
if role ~= 'master' then return {'replica', life} end
"#;

/// KEYS: any. Gives what the server is, and what it does when its memory is full.
const PROBE: &str = r#"
local memory = redis.call('INFO', 'memory')
return {'ok', life, string.match(memory, 'maxmemory_policy:([%w%-]+)') or 'unknown'}
"#;

/// KEYS: lease, votes. ARGV: epoch, milliseconds, `take` or `keep`.
/// Takes the node's name, or keeps it. A new process does not read old ballots.
const LEASE: &str = r#"
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {'taken', life, holder} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] == 'take' then redis.call('DEL', KEYS[2]) end
return {'ok', life, holder and 'kept' or 'new'}
"#;

/// KEYS: lease. ARGV: epoch.
const RELEASE: &str = r#"
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {'ok', life, ''}
"#;

/// KEYS: lease, request, due, changes.
/// ARGV: epoch, life, id, state, digest, body, mark, milliseconds to keep, score, listed or nothing.
const POST: &str = r#"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'taken', life, ''} end
if life ~= ARGV[2] then return {'life', life, ''} end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'life', life, 'state', ARGV[4],
  'digest', ARGV[5], 'body', ARGV[6], 'mark', ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[8])
if ARGV[10] ~= '' then
  redis.call('ZADD', KEYS[3], ARGV[9], ARGV[3])
else
  redis.call('ZREM', KEYS[3], ARGV[3])
end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', '10000', '*', 'id', ARGV[3])
return {'ok', life, ''}
"#;

/// KEYS: request, votes. ARGV: digest, epoch, life, body, mark.
const VOTE: &str = r#"
local known = redis.call('HMGET', KEYS[1], 'state', 'digest', 'epoch', 'life')
if not known[1] then return {'gone', life, ''} end
if known[1] ~= 'pending' then return {'settled', life, known[1]} end
if known[2] ~= ARGV[1] then return {'digest', life, ''} end
if known[3] ~= ARGV[2] then return {'epoch', life, ''} end
if known[4] ~= life or ARGV[3] ~= life then return {'life', life, ''} end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', '100000', '*', 'body', ARGV[4], 'mark', ARGV[5])
return {'ok', life, id}
"#;

/// KEYS: lease, votes. ARGV: epoch, body, mark, life or nothing.
const ERRAND: &str = r#"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'epoch', life, ''} end
if ARGV[4] ~= '' and ARGV[4] ~= life then return {'life', life, ''} end
local id = redis.call('XADD', KEYS[2], 'MAXLEN', '~', '100000', '*', 'body', ARGV[2], 'mark', ARGV[3])
return {'ok', life, id}
"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    Probe,
    Lease,
    Release,
    Post,
    Vote,
    Errand,
}

impl Script {
    /// `EVAL` of this script; keys and arguments follow.
    pub(super) fn call(self, keys: &[String]) -> redis::Cmd {
        let body = match self {
            Self::Probe => PROBE,
            Self::Lease => LEASE,
            Self::Release => RELEASE,
            Self::Post => POST,
            Self::Vote => VOTE,
            Self::Errand => ERRAND,
        };
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(format!("{LIFE}{body}")).arg(keys.len()).arg(keys);
        cmd
    }
}

/// What every script answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    /// `ok`, or why not.
    pub(super) word: String,
    /// The life of the store.
    pub(super) life: String,
    pub(super) more: String,
}

impl redis::FromRedisValue for Reply {
    fn from_redis_value(value: redis::Value) -> Result<Self, redis::ParsingError> {
        let parts: Vec<String> = redis::FromRedisValue::from_redis_value(value)?;
        let mut parts = parts.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        Ok(Self {
            word: next(),
            life: next(),
            more: next(),
        })
    }
}
