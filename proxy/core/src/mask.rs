//! Takes protected values out of the target's rows before anybody sees them.
//!
//! A plugin says which fields of the rows to come are protected ([`Edit`]); the bytes
//! are changed here, so rows never enter the sandbox and no guest does the
//! arithmetic. A row frame's body is a count of fields (2 bytes, big-endian), then for
//! each field its length (4 bytes, big-endian, -1 for null) and its bytes. A row that
//! is not exactly that, or has another number of fields than the plan, is an error
//! and goes nowhere.
//!
//! Limit: the new length stands before the values, so a row that is edited has to be
//! there whole. The largest frame that the host keeps bounds it.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::framing::LengthPrefixed;

/// Longest replacement; a mask is a mark and not a message.
pub const MAX_REPLACEMENT: usize = 64;

/// What becomes of the target's frames of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRule {
    pub kind: u8,
    pub rows: Rows,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// None may come now; one that does ends the session.
    Refuse,
    /// There is nothing to mask in them.
    Pass,
    Edit(Edit),
}

/// Which fields of a row are replaced, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    fields: u16,
    /// Sorted by field. `None` is null.
    masked: Vec<(u16, Option<Bytes>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    #[error("field {0} is masked, but rows have {1} fields")]
    Field(u16, u16),
    #[error("the masked fields are not in order")]
    Order,
    #[error("a replacement of {0} bytes")]
    Replacement(usize),
    #[error("a row came where none was expected")]
    Unexpected,
    #[error("a row has {got} fields where the plan has {wanted}")]
    Count { got: u16, wanted: u16 },
    #[error("a row does not follow its own lengths")]
    Garbled,
    #[error("frames of this layout cannot be edited")]
    Layout,
}

impl Edit {
    /// # Errors
    /// The plan contradicts itself.
    pub fn new(fields: u16, masked: Vec<(u16, Option<Bytes>)>) -> Result<Self, MaskError> {
        if !masked.is_sorted_by(|(one, _), (two, _)| one < two) {
            return Err(MaskError::Order);
        }
        for (field, with) in &masked {
            if *field >= fields {
                return Err(MaskError::Field(*field, fields));
            }
            let length = with.as_ref().map_or(0, Bytes::len);
            if length > MAX_REPLACEMENT {
                return Err(MaskError::Replacement(length));
            }
        }
        Ok(Self { fields, masked })
    }

    /// Appends the frame to `out` as the client may see it.
    ///
    /// # Errors
    /// The row is not what the plan was made for. `out` then holds a part of it
    /// that must not be used.
    pub fn apply(
        &self,
        frame: &[u8],
        layout: &LengthPrefixed,
        out: &mut BytesMut,
    ) -> Result<(), MaskError> {
        let start = out.len();
        let (header, body) = frame
            .split_at_checked(usize::from(layout.header))
            .ok_or(MaskError::Garbled)?;
        out.extend_from_slice(header);
        let (count, mut rest) = body.split_first_chunk().ok_or(MaskError::Garbled)?;
        let got = u16::from_be_bytes(*count);
        if got != self.fields {
            let wanted = self.fields;
            return Err(MaskError::Count { got, wanted });
        }
        out.extend_from_slice(count);
        let mut masked = self.masked.iter().peekable();
        for field in 0..got {
            let (length, behind) = rest.split_first_chunk().ok_or(MaskError::Garbled)?;
            let size = match i32::from_be_bytes(*length) {
                -1 => 0,
                size => usize::try_from(size).map_err(|_| MaskError::Garbled)?,
            };
            let (value, behind) = behind.split_at_checked(size).ok_or(MaskError::Garbled)?;
            rest = behind;
            match masked.next_if(|(at, _)| *at == field) {
                // Nulls are replaced too: that there is no value tells something.
                Some((_, Some(with))) => {
                    out.put_u32(u32::try_from(with.len()).map_err(|_| MaskError::Garbled)?);
                    out.extend_from_slice(with);
                }
                Some((_, None)) => out.put_i32(-1),
                None => {
                    out.extend_from_slice(length);
                    out.extend_from_slice(value);
                }
            }
        }
        if !rest.is_empty() {
            return Err(MaskError::Garbled);
        }
        let size = out.len() - start;
        let frame = out.get_mut(start..).ok_or(MaskError::Garbled)?;
        patch(frame, size, layout)
    }
}

/// Writes a frame's length where its layout has it.
fn patch(frame: &mut [u8], size: usize, layout: &LengthPrefixed) -> Result<(), MaskError> {
    let size = i64::try_from(size).map_err(|_| MaskError::Layout)?;
    let value = u64::try_from(size - i64::from(layout.adjust)).map_err(|_| MaskError::Layout)?;
    let width = usize::from(layout.length_width);
    let bytes = value.to_be_bytes();
    let (over, length) = bytes
        .split_at_checked(bytes.len().wrapping_sub(width))
        .ok_or(MaskError::Layout)?;
    if over.iter().any(|byte| *byte != 0) {
        return Err(MaskError::Layout);
    }
    let at = usize::from(layout.length_offset);
    let place = frame.get_mut(at..at + width).ok_or(MaskError::Layout)?;
    place.copy_from_slice(length);
    if layout.little_endian {
        place.reverse();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POSTGRES: LengthPrefixed = LengthPrefixed {
        header: 5,
        kind_offset: Some(0),
        length_offset: 1,
        length_width: 4,
        little_endian: false,
        adjust: 1,
    };

    fn row(fields: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = u16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
        for field in fields {
            match field {
                None => body.extend_from_slice(&(-1i32).to_be_bytes()),
                Some(value) => {
                    body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
                    body.extend_from_slice(value);
                }
            }
        }
        let mut frame = vec![b'D'];
        frame.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        frame.extend_from_slice(&body);
        frame
    }

    fn edit(fields: u16, masked: &[(u16, Option<&[u8]>)]) -> Edit {
        let masked = masked
            .iter()
            .map(|(at, with)| (*at, with.map(Bytes::copy_from_slice)));
        Edit::new(fields, masked.collect()).unwrap()
    }

    fn applied(edit: &Edit, frame: &[u8]) -> Result<Vec<u8>, MaskError> {
        let mut out = BytesMut::new();
        edit.apply(frame, &POSTGRES, &mut out)?;
        Ok(out.to_vec())
    }

    #[test]
    fn a_field_is_replaced_and_all_lengths_follow() {
        let plan = edit(3, &[(1, Some(b"****")), (2, None)]);
        let shown = applied(&plan, &row(&[Some(b"7"), Some(b"123-45"), Some(b"x")]));
        assert_eq!(shown.unwrap(), row(&[Some(b"7"), Some(b"****"), None]));
    }

    #[test]
    fn a_null_is_replaced_like_any_value() {
        let plan = edit(1, &[(0, Some(b"****"))]);
        assert_eq!(
            applied(&plan, &row(&[None])).unwrap(),
            row(&[Some(b"****")])
        );
    }

    #[test]
    fn rows_without_fields_stay_as_they_are() {
        assert_eq!(applied(&edit(0, &[]), &row(&[])).unwrap(), row(&[]));
    }

    #[test]
    fn binary_values_and_values_of_any_size_are_taken_out_whole() {
        let big = vec![0xfe; 300_000];
        let plan = edit(2, &[(0, None)]);
        let shown = applied(&plan, &row(&[Some(&big), Some(&[0, 0, 0, 5])])).unwrap();
        assert_eq!(shown, row(&[None, Some(&[0, 0, 0, 5])]));
    }

    #[test]
    fn a_row_that_is_not_what_was_planned_goes_nowhere() {
        let plan = edit(2, &[(1, None)]);
        let count = MaskError::Count { got: 1, wanted: 2 };
        assert_eq!(applied(&plan, &row(&[Some(b"a")])), Err(count));
        let good = row(&[Some(b"a"), Some(b"b")]);
        for cut in 0..good.len() {
            assert!(applied(&plan, &good[..cut]).is_err(), "{cut}");
        }
        let longer = [&good[..], b"x"].concat();
        assert_eq!(applied(&plan, &longer), Err(MaskError::Garbled));
        let mut negative = good.clone();
        negative[7..11].copy_from_slice(&(-2i32).to_be_bytes());
        assert_eq!(applied(&plan, &negative), Err(MaskError::Garbled));
    }

    #[test]
    fn plans_that_contradict_themselves_are_refused() {
        let plan = |masked: &[u16]| Edit::new(2, masked.iter().map(|at| (*at, None)).collect());
        assert_eq!(plan(&[2]), Err(MaskError::Field(2, 2)));
        assert_eq!(plan(&[1, 0]), Err(MaskError::Order));
        assert_eq!(plan(&[1, 1]), Err(MaskError::Order));
        let long = Some(Bytes::from(vec![b'*'; 65]));
        assert_eq!(
            Edit::new(1, vec![(0, long)]),
            Err(MaskError::Replacement(65))
        );
    }

    proptest! {
        /// Other fields come through as they were, and a masked one does not.
        #[test]
        fn only_masked_fields_change(
            values in proptest::collection::vec(
                proptest::option::of(proptest::collection::vec(0u8..4, 0..9)), 0..9),
            masks in any::<u16>(),
        ) {
            let fields: Vec<Option<&[u8]>> = values.iter().map(Option::as_deref).collect();
            let masked = |at: usize| masks & (1 << at) != 0;
            let chosen: Vec<_> = (0..fields.len()).filter(|at| masked(*at)).collect();
            let count = u16::try_from(fields.len()).unwrap();
            let list = chosen.iter().map(|at| (u16::try_from(*at).unwrap(), Some(&b"\xff"[..])));
            let shown = applied(&edit(count, &list.collect::<Vec<_>>()), &row(&fields)).unwrap();
            let wanted: Vec<_> = fields.iter().enumerate()
                .map(|(at, value)| if masked(at) { Some(&b"\xff"[..]) } else { *value })
                .collect();
            prop_assert_eq!(shown, row(&wanted));
        }

        #[test]
        fn any_bytes_are_edited_or_refused(frame in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = applied(&edit(1, &[(0, None)]), &frame);
        }
    }
}
