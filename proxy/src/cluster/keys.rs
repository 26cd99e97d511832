//! The names of everything in the store.
//!
//! All keys of one node share a hash tag, so that a script may use several of them in a
//! Redis Cluster too.

pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// Sorted set: every node, by when it was last seen.
    pub(super) fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }

    fn of(&self, node: &str, what: &str) -> String {
        format!("{}:{{{node}}}:{what}", self.prefix)
    }

    /// Text with a time to live: the epoch of the process that is this node.
    pub(super) fn lease(&self, node: &str) -> String {
        self.of(node, "lease")
    }

    /// Hash: one approval.
    pub(super) fn request(&self, node: &str, id: &str) -> String {
        self.of(node, &format!("req:{id}"))
    }

    /// Sorted set: approvals that can be voted on, or have an open window.
    pub(super) fn due(&self, node: &str) -> String {
        self.of(node, "due")
    }

    /// Stream: which approvals changed.
    pub(super) fn changes(&self, node: &str) -> String {
        self.of(node, "changes")
    }

    /// Stream: ballots for this node.
    pub(super) fn votes(&self, node: &str) -> String {
        self.of(node, "votes")
    }

    /// Text: the answer to one ballot.
    pub(super) fn answer(&self, node: &str, nonce: &str) -> String {
        self.of(node, &format!("answer:{nonce}"))
    }

    /// Hash: who is let in no more at this node.
    pub(super) fn revoked(&self, node: &str) -> String {
        self.of(node, "revoked")
    }

    /// Hash: what the node gives to others on its signed word.
    pub(super) fn shared(&self, node: &str) -> String {
        self.of(node, "shared")
    }

    /// Hash: the node's last signed checkpoint, and its public key.
    pub(super) fn checkpoint(&self, node: &str) -> String {
        self.of(node, "checkpoint")
    }
}
