//! The Merkle tree of RFC 6962 over all records of a journal.
//!
//! [`Tree`] keeps only the hashes of the complete subtrees at its right edge,
//! so appending is O(log n) and a journal of any size fits in 2 KiB. Proofs
//! are made from all leaf hashes by whoever has them; checking one needs
//! nothing but the proof.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::Digest;

/// A tree that can grow and tell its root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    size: u64,
    /// Roots of the complete subtrees, widest first; one for each 1 bit of `size`.
    edge: Vec<Digest>,
}

impl Tree {
    pub fn size(&self) -> u64 {
        self.size
    }

    /// `leaf` is a leaf hash, see [`super::frame::leaf_hash`].
    pub fn push(&mut self, leaf: Digest) {
        let mut node = leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            if let Some(left) = self.edge.pop() {
                node = parent(&left, &node);
            }
            size >>= 1;
        }
        self.edge.push(node);
        self.size += 1;
    }

    pub fn root(&self) -> Digest {
        let mut edge = self.edge.iter().rev();
        let Some(mut root) = edge.next().copied() else {
            return Digest::of(b"");
        };
        for left in edge {
            root = parent(left, &root);
        }
        root
    }

    /// Whether the parts fit each other; for trees that come from a file.
    pub fn is_well_formed(&self) -> bool {
        self.edge.len() == self.size.count_ones() as usize
    }
}

fn parent(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.0);
    hasher.update(right.0);
    Digest(hasher.finalize().into())
}

/// The root over leaf hashes.
pub fn root_of(leaves: &[Digest]) -> Digest {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree.root()
}

/// How many leaves are left of the root's split: the largest power of two below `size`.
fn split(size: usize) -> usize {
    size.next_power_of_two() / 2
}

/// Proves that `leaves[index]` is in the tree over `leaves`; `None` if there is no such leaf.
pub fn inclusion_proof(leaves: &[Digest], index: usize) -> Option<Vec<Digest>> {
    if index >= leaves.len() {
        return None;
    }
    let (mut leaves, mut index) = (leaves, index);
    let mut proof = Vec::new();
    while leaves.len() > 1 {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if index < left.len() {
            proof.push(root_of(right));
            leaves = left;
        } else {
            proof.push(root_of(left));
            index -= left.len();
            leaves = right;
        }
    }
    proof.reverse();
    Some(proof)
}

/// Checks an inclusion proof (RFC 9162, 2.1.3.2).
pub fn includes(leaf: &Digest, index: u64, size: u64, proof: &[Digest], root: &Digest) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = parent(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = parent(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Proves that the tree over `leaves` grew from the tree over its first `old`
/// leaves; `None` unless `0 < old <= leaves.len()`.
pub fn consistency_proof(leaves: &[Digest], old: usize) -> Option<Vec<Digest>> {
    if old == 0 || old > leaves.len() {
        return None;
    }
    let (mut leaves, mut old, mut whole) = (leaves, old, true);
    let mut proof = Vec::new();
    while old != leaves.len() {
        let (left, right) = leaves.split_at(split(leaves.len()));
        if old <= left.len() {
            proof.push(root_of(right));
            leaves = left;
        } else {
            proof.push(root_of(left));
            old -= left.len();
            leaves = right;
            whole = false;
        }
    }
    if !whole {
        proof.push(root_of(leaves));
    }
    proof.reverse();
    Some(proof)
}

/// Makes the proof of [`consistency_proof`] from leaves that come one after the other, of
/// which there may be more than fit into memory.
#[derive(Debug)]
pub struct Prover {
    /// The subtrees of the proof, in its order: their first leaf, and the one after their last.
    parts: Vec<(u64, u64, Tree)>,
    new: u64,
    pushed: u64,
}

impl Prover {
    /// Proves that the tree over `new` leaves grew from the one over its first `old`;
    /// `None` unless `0 < old <= new`.
    pub fn new(old: u64, new: u64) -> Option<Self> {
        if old == 0 || old > new {
            return None;
        }
        let (mut from, mut to) = (0, new);
        let mut whole = true;
        let mut parts = Vec::new();
        // As for `consistency_proof`, of places in place of leaves.
        while old != to {
            let middle = from + (to - from).next_power_of_two() / 2;
            if old <= middle {
                parts.push((middle, to, Tree::default()));
                to = middle;
            } else {
                parts.push((from, middle, Tree::default()));
                from = middle;
                whole = false;
            }
        }
        if !whole {
            parts.push((from, to, Tree::default()));
        }
        parts.reverse();
        Some(Self {
            parts,
            new,
            pushed: 0,
        })
    }

    /// Takes the next leaf. Gives whether there is need of more.
    pub fn push(&mut self, leaf: Digest) -> bool {
        let at = self.pushed;
        self.pushed += 1;
        let part = self
            .parts
            .iter_mut()
            .find(|(from, to, _)| (*from..*to).contains(&at));
        if let Some((_, _, tree)) = part {
            tree.push(leaf);
        }
        self.pushed < self.new
    }

    /// `None` where leaves are missing.
    pub fn proof(self) -> Option<Vec<Digest>> {
        let whole = self.pushed >= self.new;
        whole.then(|| self.parts.iter().map(|(_, _, tree)| tree.root()).collect())
    }
}

/// Checks a consistency proof (RFC 9162, 2.1.4.2).
pub fn consistent(
    old: u64,
    old_root: &Digest,
    new: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> bool {
    if old == 0 || old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    let mut proof = proof.iter();
    let first = if old.is_power_of_two() {
        Some(old_root)
    } else {
        proof.next()
    };
    let Some(first) = first else { return false };
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = parent(sibling, &old_hash);
            new_hash = parent(sibling, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = parent(&new_hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::frame::leaf_hash;

    /// The definition, word for word: MTH of RFC 6962, 2.1.
    fn naive(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => Digest::of(b""),
            [leaf] => *leaf,
            _ => {
                let mut k = 1;
                while k * 2 < leaves.len() {
                    k *= 2;
                }
                let mut input = vec![1];
                input.extend(naive(&leaves[..k]).0);
                input.extend(naive(&leaves[k..]).0);
                Digest::of(&input)
            }
        }
    }

    fn leaves(count: usize) -> Vec<Digest> {
        (0..count).map(|i| leaf_hash(&i.to_le_bytes())).collect()
    }

    #[test]
    fn the_root_is_the_one_of_the_definition() {
        let leaves = leaves(70);
        let mut tree = Tree::default();
        for count in 0..=leaves.len() {
            assert_eq!(tree.root(), naive(&leaves[..count]), "{count}");
            assert!(tree.is_well_formed());
            if let Some(leaf) = leaves.get(count) {
                tree.push(*leaf);
            }
        }
    }

    /// Roots that other implementations of RFC 6962 publish in their tests.
    #[test]
    fn the_roots_of_the_known_test_leaves_are_the_known_ones() {
        let inputs: [&[u8]; 8] = [
            b"",
            b"\0",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let leaves: Vec<_> = inputs.iter().map(|input| leaf_hash(input)).collect();
        assert_eq!(
            leaves[0].to_string(),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        assert_eq!(
            root_of(&leaves).to_string(),
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
        );
    }

    #[test]
    fn every_leaf_can_be_proved_and_no_other() {
        for size in 1..40 {
            let leaves = leaves(size);
            let root = root_of(&leaves);
            for index in 0..size {
                let proof = inclusion_proof(&leaves, index).unwrap();
                let (i, n) = (index as u64, size as u64);
                assert!(includes(&leaves[index], i, n, &proof, &root));
                assert!(!includes(&Digest([9; 32]), i, n, &proof, &root));
                for other in (0..size).filter(|other| *other != index) {
                    assert!(!includes(&leaves[index], other as u64, n, &proof, &root));
                }
                for at in 0..proof.len() {
                    let mut bad = proof.clone();
                    bad[at].0[0] ^= 1;
                    assert!(!includes(&leaves[index], i, n, &bad, &root));
                    bad.remove(at);
                    assert!(!includes(&leaves[index], i, n, &bad, &root));
                }
            }
            assert_eq!(inclusion_proof(&leaves, size), None);
        }
    }

    #[test]
    fn growth_can_be_proved_and_a_rewritten_past_cannot() {
        for new in 1..40 {
            let leaves = leaves(new);
            let root = root_of(&leaves);
            for old in 1..=new {
                let before = root_of(&leaves[..old]);
                let proof = consistency_proof(&leaves, old).unwrap();
                let (m, n) = (old as u64, new as u64);
                let mut prover = Prover::new(m, n).unwrap();
                for (at, leaf) in leaves.iter().enumerate() {
                    assert_eq!(prover.push(*leaf), at + 1 < new);
                }
                assert_eq!(prover.proof().as_ref(), Some(&proof), "{old} {new}");
                assert!(consistent(m, &before, n, &root, &proof), "{old} {new}");
                let mut rewritten = leaves[..old].to_vec();
                rewritten[old / 2].0[0] ^= 1;
                assert!(!consistent(m, &root_of(&rewritten), n, &root, &proof));
                let mut long = proof.clone();
                long.push(root);
                assert!(!consistent(m, &before, n, &root, &long));
            }
            assert_eq!(consistency_proof(&leaves, 0), None);
            assert_eq!(consistency_proof(&leaves, new + 1), None);
            assert!(Prover::new(0, new as u64).is_none());
            assert_eq!(Prover::new(1, new as u64).unwrap().proof(), None);
        }
    }
}
