//! What becomes of the target's rows where columns are protected.
//!
//! At each moment at most one statement's rows can come: that of the first item
//! which is not answered, since with protected columns every answer is shown. The
//! host is told what to do with them before they can come, and to take none
//! wherever it is not certain whose they would be. Rows of a statement that shows
//! protected columns are let through only by its own row description.

use std::rc::Rc;

use holdpoint_plugin::{Action, Fault, MaskedField, RowEdit, RowPlan};

use super::names::Prepared;
use super::pending::Item;
use super::plan::Plan;
use super::typed::Typed;
use crate::classify::{Exposure, Field, Statement};
use crate::frame::{Malformed, Reader};

/// The kind of a row: `DataRow`.
pub(crate) const ROW: u8 = b'D';

/// What stands in a text field. Fields of other types become null, which every
/// client can read in text and in binary.
const MARK: &[u8] = b"****";

/// Types whose values are text in both formats: `text`, `bpchar`, `varchar`.
const TEXTS: [u32; 3] = [25, 1042, 1043];

/// A row description, as far as it matters here.
pub(crate) fn description(body: &[u8]) -> Result<Rc<[Field]>, Malformed> {
    let mut reader = Reader::new(body);
    let count = reader.u16()?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let name = reader.string()?.to_vec();
        let table = reader.u32()?;
        reader.u16()?;
        let type_number = reader.u32()?;
        // Its size and modifier, and the format.
        reader.bytes(8)?;
        fields.push(Field {
            name,
            table,
            type_number,
        });
    }
    if !reader.is_empty() {
        return Err(Malformed("bytes after the end of the row description"));
    }
    Ok(fields.into())
}

/// The plan for a statement's rows, whose description may not be known.
fn plan(statement: &Statement, fields: Option<&[Field]>) -> RowPlan {
    let Exposure::Fields(outputs) = &statement.exposure else {
        // Nothing is shown, or policy let it through as it is.
        return RowPlan::Unchanged;
    };
    let Some((fields, masked)) =
        fields.and_then(|fields| outputs.masked(fields).map(|masked| (fields, masked)))
    else {
        return RowPlan::Refuse;
    };
    if masked.is_empty() {
        return RowPlan::Unchanged;
    }
    let field = |at: usize| {
        let text = fields
            .get(at)
            .is_some_and(|field| TEXTS.contains(&field.type_number));
        Some(MaskedField {
            index: u32::try_from(at).ok()?,
            replacement: text.then(|| MARK.to_vec()),
        })
    };
    match (
        u32::try_from(fields.len()),
        masked.into_iter().map(field).collect(),
    ) {
        (Ok(fields), Some(masked)) => RowPlan::Edit(RowEdit { fields, masked }),
        _ => RowPlan::Refuse,
    }
}

impl Typed {
    /// A row description: for a Describe, or for the rows of a simple Query.
    pub(super) fn described(&mut self, body: &[u8]) -> Result<(), Fault> {
        if !self.classifier.protects() {
            return Ok(());
        }
        let fields = description(body).map_err(|Malformed(why)| Fault {
            message: format!("the target's row description: {why}"),
        })?;
        if let Some(reach) = self.pending.reach(|item| matches!(item, Item::Describe(_))) {
            if let Some(Item::Describe(Some(prepared))) = self.pending.iter().nth(reach) {
                prepared.fields.replace(Some(fields));
            }
        } else {
            self.fields = Some(fields);
        }
        Ok(())
    }

    /// Why a unit may not run: it shows a protected column and nothing will have told where.
    pub(super) fn undescribed(&self, plan: &Plan) -> Option<String> {
        let masks = |prepared: &Prepared| match prepared.statements() {
            [only] => matches!(only.exposure, Exposure::Fields(_)),
            _ => false,
        };
        let told = |prepared: &Rc<Prepared>, before: &[Item]| {
            let mut items = self.pending.iter().chain(before);
            prepared.fields.borrow().is_some()
                || items.any(
                    |item| matches!(item, Item::Describe(Some(of)) if Rc::ptr_eq(of, prepared)),
                )
        };
        let mut runs = plan.events.iter().filter(|event| event.rows.is_some());
        let untold = runs.any(|event| {
            let before = plan.items.get(..event.at).unwrap_or_default();
            let prepared = event.portal.statement.as_ref();
            prepared.is_some_and(|prepared| masks(prepared) && !told(prepared, before))
        });
        untold.then(|| {
            "a protected column in a result that was not described: describe the statement or \
             the portal before it runs, or send it as a simple query"
                .to_owned()
        })
    }

    /// Tells the host what becomes of the rows that may come next, where that changed.
    pub(crate) fn guard_rows(&mut self, out: &mut Vec<Action>) {
        // Nothing may be asked for behind a Close.
        if self.closed || !self.classifier.protects() {
            return;
        }
        let next = self.next_rows();
        if self.rows.as_ref() != Some(&next) {
            out.push(Action::Rows((ROW, next.clone())));
            self.rows = Some(next);
        }
    }

    fn next_rows(&self) -> RowPlan {
        match self.pending.iter().next() {
            Some(Item::Query { analysis, done, .. }) => match analysis.statements.get(*done) {
                Some(statement) => plan(statement, self.fields.as_deref()),
                None => RowPlan::Refuse,
            },
            // Policy was told that nothing is known of it.
            Some(Item::Run(None)) => RowPlan::Unchanged,
            Some(Item::Run(Some(portal))) => match portal.statement.as_deref() {
                None => RowPlan::Unchanged,
                Some(prepared) => prepared_rows(prepared),
            },
            _ => RowPlan::Refuse,
        }
    }
}

fn prepared_rows(prepared: &Prepared) -> RowPlan {
    match prepared.statements() {
        [only] => plan(only, prepared.fields.borrow().as_deref()),
        // The server refuses several at once, and none gives no rows.
        _ => RowPlan::Refuse,
    }
}
