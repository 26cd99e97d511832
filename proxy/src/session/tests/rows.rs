//! Rows that are edited on their way: however they arrive, and when they may not.

use bytes::Bytes;
use holdpoint_core::framing::{Delivery, Filter, Layout, LengthPrefixed, Side};
use holdpoint_core::mask::{Edit, RowRule, Rows};

use super::super::wire::{Wire, WireError};

const LIMIT: u32 = 1 << 20;

/// Rows are `D`, `T` is shown, the rest passes.
fn wire() -> Wire {
    let layout = Layout::LengthPrefixed(LengthPrefixed {
        header: 5,
        kind_offset: Some(0),
        length_offset: 1,
        length_width: 4,
        little_endian: false,
        adjust: 1,
    });
    let mut wire = Wire::new(Side::Upstream, layout, LIMIT);
    let shown = Filter {
        kinds: b"T".to_vec(),
        delivery: Delivery::Whole,
        judged: false,
        max_frame: 0,
    };
    wire.subscribe(&[shown], Delivery::Pass);
    wire
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn row(fields: &[&[u8]]) -> Vec<u8> {
    let mut body = u16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
    for field in fields {
        body.extend_from_slice(&u32::try_from(field.len()).unwrap().to_be_bytes());
        body.extend_from_slice(field);
    }
    frame(b'D', &body)
}

fn rows(rows: Rows) -> RowRule {
    RowRule { kind: b'D', rows }
}

fn second_of_two() -> RowRule {
    let mark = Some(Bytes::from_static(b"****"));
    rows(Rows::Edit(Edit::new(2, vec![(1, mark)]).unwrap()))
}

/// Gives `bytes` in parts; what passes, with `after` set once a `T` was shown.
async fn pass(
    wire: &mut Wire,
    bytes: &[u8],
    part: usize,
    after: &RowRule,
) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::new();
    for part in bytes.chunks(part) {
        let mut io: crate::transport::Duplex = Box::new(tokio::io::join(
            std::io::Cursor::new(part.to_vec()),
            tokio::io::sink(),
        ));
        std::future::poll_fn(|cx| wire.poll_read(cx, &mut io))
            .await
            .unwrap();
        while let Some(burst) = wire.cut(1)? {
            for piece in &burst.pieces {
                out.extend_from_slice(&burst.bytes[piece.range.clone()]);
                if piece.shown.is_some() {
                    assert!(wire.rows(after.clone()));
                }
            }
        }
    }
    Ok(out)
}

#[tokio::test]
async fn however_rows_arrive_the_value_is_gone_from_each() {
    let big = vec![b'y'; 70_000];
    let stream = [
        frame(b'N', b"before"),
        frame(b'T', b"description"),
        row(&[b"1", b"canary"]),
        row(&[b"22", b""]),
        row(&[&big, b"canary-canary"]),
        frame(b'C', b"done"),
        frame(b'N', b"canary in a notice is not a row"),
    ]
    .concat();
    let wanted = [
        frame(b'N', b"before"),
        frame(b'T', b"description"),
        row(&[b"1", b"****"]),
        row(&[b"22", b"****"]),
        row(&[&big, b"****"]),
        frame(b'C', b"done"),
        frame(b'N', b"canary in a notice is not a row"),
    ]
    .concat();
    for part in (1..60).chain([1000, 65_536, stream.len()]) {
        let mut wire = wire();
        assert!(wire.rows(rows(Rows::Refuse)));
        let out = pass(&mut wire, &stream, part, &second_of_two()).await;
        assert!(out.unwrap() == wanted, "in parts of {part}");
        assert_eq!(wire.len(), 0);
    }
}

#[tokio::test]
async fn a_row_that_nobody_waits_for_is_not_cut() {
    let mut wire = wire();
    assert!(wire.rows(rows(Rows::Refuse)));
    let refused = pass(&mut wire, &row(&[b"canary"]), 4096, &rows(Rows::Pass)).await;
    assert!(
        matches!(refused, Err(WireError::Unmasked(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_row_of_another_shape_is_not_cut() {
    let mut wire = wire();
    assert!(wire.rows(second_of_two()));
    let refused = pass(
        &mut wire,
        &row(&[b"1", b"2", b"canary"]),
        4096,
        &rows(Rows::Pass),
    )
    .await;
    assert!(
        matches!(refused, Err(WireError::Unmasked(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_masked_row_beyond_the_limit_is_refused_before_it_is_there() {
    let mut wire = wire();
    assert!(wire.rows(second_of_two()));
    let mut start = frame(b'D', b"");
    start[1..5].copy_from_slice(&(LIMIT + 5).to_be_bytes());
    let refused = pass(&mut wire, &start, 4096, &rows(Rows::Pass)).await;
    assert!(matches!(refused, Err(WireError::Framing(_))), "{refused:?}");
}

#[test]
fn which_frames_are_rows_does_not_change() {
    let mut wire = wire();
    assert!(wire.rows(rows(Rows::Refuse)));
    let other = RowRule {
        kind: b'X',
        rows: Rows::Pass,
    };
    assert!(!wire.rows(other));
}
