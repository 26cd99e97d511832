//! Which fields of the rows are protected: the select list's items, laid over the
//! fields that the target describes.

use std::rc::Rc;

use super::glob;

/// One item of a select list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Any number of fields, by their own names.
    Star,
    /// A protected column.
    Masked,
    /// `t.c`, which may also be a call of `c` with the row of `t`.
    Column,
    /// Nothing protected is in it.
    Other,
}

/// A field of the row description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Vec<u8>,
    /// The number of the table whose column it is; 0 for what is computed.
    pub(crate) table: u32,
    pub(crate) type_number: u32,
}

/// What a select list shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outputs {
    slots: Vec<Slot>,
    /// Patterns of the columns that the statement's relations may have.
    columns: Vec<Rc<str>>,
}

impl Outputs {
    /// `None` where a protected item has no certain place: between two `*`.
    pub(super) fn new(slots: Vec<Slot>, columns: &[Rc<str>]) -> Option<Self> {
        let first = slots.iter().position(|slot| *slot == Slot::Star);
        let last = slots.iter().rposition(|slot| *slot == Slot::Star);
        if let (Some(first), Some(last)) = (first, last) {
            let between = slots.get(first..last).unwrap_or_default();
            if between
                .iter()
                .any(|slot| matches!(slot, Slot::Masked | Slot::Column))
            {
                return None;
            }
        }
        Some(Self {
            slots,
            columns: columns.to_vec(),
        })
    }

    /// The fields to mask, in order; `None` where the description does not fit
    /// the text, so that nothing is certain.
    pub(crate) fn masked(&self, fields: &[Field]) -> Option<Vec<usize>> {
        let star = |slot: &Slot| *slot == Slot::Star;
        let (head, tail) = match (
            self.slots.iter().position(star),
            self.slots.iter().rposition(star),
        ) {
            (Some(first), Some(last)) => (self.slots.get(..first)?, self.slots.get(last + 1..)?),
            _ if fields.len() != self.slots.len() => return None,
            _ => (self.slots.as_slice(), &[][..]),
        };
        let single = self.slots.iter().filter(|slot| !star(slot)).count();
        if fields.len() < single {
            return None;
        }
        let tail_at = fields.len().checked_sub(tail.len())?;
        let mut masked = Vec::new();
        for (at, field) in fields.iter().enumerate() {
            let slot = head
                .get(at)
                .or_else(|| at.checked_sub(tail_at).and_then(|at| tail.get(at)))
                .unwrap_or(&Slot::Star);
            let hide = match slot {
                Slot::Masked => true,
                Slot::Star => self.names(&field.name),
                Slot::Column => field.table == 0,
                Slot::Other => false,
            };
            if hide {
                masked.push(at);
            }
        }
        Some(masked)
    }

    /// A name that is no UTF-8 cannot be told from a protected one.
    fn names(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).map_or(true, |name| {
            self.columns.iter().any(|column| glob(column, name))
        })
    }
}
