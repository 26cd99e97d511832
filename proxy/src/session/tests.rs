//! Sessions between a client, a target and a plugin that are scripted here.
//!
//! The toy protocol: a kind byte, a length byte, the body. `T` is the token, `Q` a
//! judged command, `S` shown but not judged, `D` passes natively. The target answers
//! `R` (passes natively) and `E` (shown, ends a command).

mod fakes;
mod rows;

use std::time::Duration;

use bytes::Bytes;
use holdpoint_core::framing::{Delivery, Filter, Layout, LengthPrefixed, Side};
use holdpoint_core::record::Entry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::line::{Line, LineError};
use super::wire::Wire;
use fakes::{Scene, frame, toy_layout};

const SOON: Duration = Duration::from_secs(5);
const NEVER: Duration = Duration::from_millis(150);

fn wire() -> Wire {
    let mut wire = Wire::new(Side::Client, toy_layout(), 1000);
    wire.subscribe(&fakes::client_filters(), Delivery::Reject);
    wire
}

/// Gives `bytes` to a wire in parts, and what it cut: shown kinds and passed bytes.
async fn cut_in_parts(bytes: &[u8], part: usize) -> (Vec<(u8, Bytes)>, Vec<u8>) {
    let mut wire = wire();
    let (mut shown, mut passed, mut seq) = (Vec::new(), Vec::new(), 0);
    for part in bytes.chunks(part) {
        let mut io: crate::transport::Duplex = Box::new(tokio::io::join(
            std::io::Cursor::new(part.to_vec()),
            tokio::io::sink(),
        ));
        std::future::poll_fn(|cx| wire.poll_read(cx, &mut io))
            .await
            .unwrap();
        while let Some(burst) = wire.cut(2).unwrap() {
            let mut line = Line::default();
            for frame in line.push(burst, &mut seq) {
                shown.push((frame.kind.unwrap(), frame.body));
                line.drop_one(frame.seq).unwrap();
            }
            while let Some(released) = line.release() {
                passed.extend_from_slice(&released.chunk.bytes());
            }
        }
    }
    assert_eq!(wire.len(), 0);
    (shown, passed)
}

#[tokio::test]
async fn however_the_stream_is_split_the_frames_are_the_same() {
    let stream = [
        frame(b'Q', b"one"),
        frame(b'D', b"data"),
        frame(b'D', b""),
        frame(b'S', &[7; 200]),
        frame(b'D', &[9; 255]),
        frame(b'Q', b""),
    ]
    .concat();
    let whole = cut_in_parts(&stream, stream.len()).await;
    assert_eq!(whole.0.len(), 3);
    assert_eq!(whole.1.len(), 6 + 2 + 257);
    for part in 1..stream.len() {
        assert_eq!(
            cut_in_parts(&stream, part).await,
            whole,
            "in parts of {part}"
        );
    }
}

#[tokio::test]
async fn a_big_native_frame_passes_in_parts_by_its_own_rule() {
    let layout = Layout::LengthPrefixed(LengthPrefixed {
        header: 5,
        kind_offset: Some(0),
        length_offset: 1,
        length_width: 4,
        little_endian: false,
        adjust: 1,
    });
    let mut wire = Wire::new(Side::Client, layout, 1 << 20);
    wire.subscribe(&fakes::client_filters(), Delivery::Reject);
    let mut stream = vec![b'D', 0, 2, 0, 4];
    stream.resize(1 + 4 + (2 << 16), b'x');
    let mut passed = Vec::new();
    for part in stream.chunks(1000) {
        let mut io: crate::transport::Duplex = Box::new(tokio::io::join(
            std::io::Cursor::new(part.to_vec()),
            tokio::io::sink(),
        ));
        std::future::poll_fn(|cx| wire.poll_read(cx, &mut io))
            .await
            .unwrap();
        while let Some(burst) = wire.cut(10).unwrap() {
            for piece in &burst.pieces {
                assert_eq!(piece.rule.delivery, Delivery::Pass);
                passed.extend_from_slice(&burst.bytes[piece.range.clone()]);
            }
        }
        assert!(wire.len() < 1000, "kept");
        assert_eq!(wire.mid_frame(), passed.len() < stream.len());
    }
    assert_eq!(passed, stream);
}

#[tokio::test]
async fn a_submission_is_one_stretch_of_undecided_frames() {
    let stream = [
        frame(b'S', b"1"),
        frame(b'Q', b"2"),
        frame(b'S', b"3"),
        frame(b'Q', b"4"),
    ]
    .concat();
    let line = async || {
        let mut wire = wire();
        let mut io: crate::transport::Duplex = Box::new(tokio::io::join(
            std::io::Cursor::new(stream.clone()),
            tokio::io::sink(),
        ));
        std::future::poll_fn(|cx| wire.poll_read(cx, &mut io))
            .await
            .unwrap();
        let mut line = Line::default();
        line.push(wire.cut(10).unwrap().unwrap(), &mut 0);
        line
    };
    assert_eq!(line().await.take(1, 4).unwrap(), stream);
    assert_eq!(line().await.take(2, 3), Err(LineError::Overtakes(2)));
    assert_eq!(line().await.pass_one(2), Err(LineError::Judged(2)));
    assert_eq!(line().await.pass_one(3), Err(LineError::Overtakes(3)));
    assert_eq!(line().await.take(1, 9), Err(LineError::Unknown(9)));
    let mut dropped = line().await;
    dropped.drop_one(2).unwrap();
    assert_eq!(
        dropped.take(1, 3).unwrap(),
        [frame(b'S', b"1"), frame(b'S', b"3")].concat()
    );
}

#[tokio::test]
async fn a_command_reaches_the_target_only_once_its_record_is_safe() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    scene.ledger.block(true);
    scene.client.write_all(&frame(b'Q', b"ok")).await.unwrap();
    let mut byte = [0; 1];
    assert!(
        timeout(NEVER, scene.target.read(&mut byte)).await.is_err(),
        "sent before recorded"
    );
    scene.ledger.block(false);
    assert_eq!(scene.at_target().await, frame(b'Q', b"ok"));
}

#[tokio::test]
async fn an_answer_is_recorded_before_the_client_gets_it() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    scene.client.write_all(&frame(b'Q', b"ok")).await.unwrap();
    scene.at_target().await;
    scene.ledger.block(true);
    let answer = [frame(b'R', b"row"), frame(b'E', b"")].concat();
    scene.target.write_all(&answer).await.unwrap();
    let mut byte = [0; 1];
    assert!(
        timeout(NEVER, scene.client.read(&mut byte)).await.is_err(),
        "shown before recorded"
    );
    scene.ledger.block(false);
    assert_eq!(scene.at_client(answer.len()).await, answer);
    let records = scene.ledger.entries();
    let responses: Vec<_> = records
        .iter()
        .filter(|(entry, _)| matches!(entry, Entry::Response))
        .collect();
    assert_eq!(responses.len(), 1, "a burst is one record");
    assert_eq!(responses[0].1, answer);
}

#[tokio::test]
async fn a_denied_command_goes_nowhere_and_the_next_one_runs() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    scene.client.write_all(&frame(b'Q', b"no")).await.unwrap();
    assert_eq!(scene.at_client(11).await, frame(b'X', b"HP-DENIED"));
    scene.client.write_all(&frame(b'Q', b"ok")).await.unwrap();
    assert_eq!(scene.at_target().await, frame(b'Q', b"ok"));
}

#[tokio::test]
async fn a_session_of_which_nothing_is_heard_keeps_no_instance_until_it_speaks() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    for _ in 0..2 {
        assert!(scene.is_awake());
        scene.rests().await;
        scene.client.write_all(&frame(b'Q', b"ok")).await.unwrap();
        assert_eq!(scene.at_target().await, frame(b'Q', b"ok"));
    }
}

#[tokio::test]
async fn instances_of_held_commands_are_gone_before_their_approvals_are_opened() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    assert!(scene.is_awake());
    let held = frame(b'Q', b"hold me");
    scene.client.write_all(&held).await.unwrap();
    scene.desk.opened().await;
    let opened_awake = &scene.desk.opened_awake;
    assert!(!opened_awake.load(std::sync::atomic::Ordering::SeqCst));
    scene.desk.approve();
    assert_eq!(scene.at_target().await, held);
}

#[tokio::test]
async fn a_held_command_goes_forward_once_approved_as_it_was_sent() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    scene
        .client
        .write_all(&frame(b'Q', b"hold me"))
        .await
        .unwrap();
    scene.desk.opened().await;
    let mut byte = [0; 1];
    assert!(
        timeout(NEVER, scene.target.read(&mut byte)).await.is_err(),
        "sent while held"
    );
    scene.desk.approve();
    assert_eq!(scene.at_target().await, frame(b'Q', b"hold me"));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_held_command_along() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    scene
        .client
        .write_all(&frame(b'Q', b"hold me"))
        .await
        .unwrap();
    scene.desk.opened().await;
    drop(scene.client);
    let mut rest = Vec::new();
    timeout(SOON, scene.target.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty(), "forwarded for nobody: {rest:?}");
    timeout(SOON, scene.task).await.unwrap().unwrap();
    assert!(scene.desk.left());
    let last = scene.ledger.entries().pop().unwrap().0;
    assert!(matches!(last, Entry::Close(close) if close.reason == "client"));
}

#[tokio::test]
async fn a_plugin_that_lets_a_judged_frame_out_ends_its_session() {
    for wrong in ["pass", "author", "reframe", "ready"] {
        let mut scene = Scene::start().await;
        scene.log_in().await;
        scene
            .client
            .write_all(&frame(b'Q', format!("evil {wrong}").as_bytes()))
            .await
            .unwrap();
        let mut rest = Vec::new();
        timeout(SOON, scene.target.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert!(rest.is_empty(), "{wrong} sent {rest:?}");
        timeout(SOON, scene.task).await.unwrap().unwrap();
        let entries = scene.ledger.entries();
        let blamed = entries
            .iter()
            .any(|(entry, _)| matches!(entry, Entry::Plugin { .. }));
        assert!(blamed, "{wrong}");
    }
}

/// Asks for the declared message and reads what reaches the target until the end.
async fn undo_ends_it(mut scene: Scene) {
    scene.client.write_all(&frame(b'Q', b"undo")).await.unwrap();
    let mut rest = Vec::new();
    timeout(SOON, scene.target.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty(), "{rest:?}");
    timeout(SOON, scene.task).await.unwrap().unwrap();
    let entries = scene.ledger.entries();
    let blamed = |(entry, _): &(Entry, Bytes)| matches!(entry, Entry::Plugin { .. });
    assert!(entries.iter().any(blamed));
}

#[tokio::test]
async fn nothing_is_given_up_where_nothing_was_refused() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    undo_ends_it(scene).await;
}

#[tokio::test]
async fn a_refusal_lets_the_declared_message_out_once_and_no_other_bytes() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    scene.client.write_all(&frame(b'Q', b"no")).await.unwrap();
    let mut kind = [0; 1];
    timeout(SOON, scene.client.read_exact(&mut kind))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kind, *b"X");
    scene.client.write_all(&frame(b'Q', b"undo")).await.unwrap();
    let mut sent = [0; 5];
    timeout(SOON, scene.target.read_exact(&mut sent))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(sent, *b"undo\n");
    let recorded = |(entry, blob): &(Entry, Bytes)| {
        matches!(entry, Entry::Command(_)) && blob == &Bytes::from_static(b"undo\n")
    };
    assert!(scene.ledger.entries().iter().any(recorded));
    undo_ends_it(scene).await;
}

/// Something for which the session is ended and the client told.
async fn told_the_end(scene: &mut Scene) {
    scene
        .client
        .write_all(&frame(b'Q', b"evil pass"))
        .await
        .unwrap();
    assert_eq!(scene.at_client(11).await, b"!\tHP-PLUGIN");
}

#[tokio::test]
async fn a_client_that_still_sends_is_heard_out_before_its_stream_ends() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    told_the_end(&mut scene).await;
    tokio::time::pause();
    // Many times what the connection holds.
    for _ in 0..15 {
        scene.client.write_all(&[b'x'; 1 << 16]).await.unwrap();
        let mut end = [0; 1];
        let early = timeout(Duration::from_millis(100), scene.client.read(&mut end)).await;
        assert!(early.is_err(), "{early:?}");
    }
    let before = tokio::time::Instant::now();
    drop(scene.client);
    scene.task.await.unwrap();
    let took = before.elapsed();
    assert!(took < Duration::from_millis(100), "waits for who has left");
}

#[tokio::test]
async fn a_client_that_never_closes_is_cut_off() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    told_the_end(&mut scene).await;
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    let mut rest = Vec::new();
    scene.client.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    scene.task.await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_client_that_never_stops_is_cut_off_by_time_and_by_size() {
    // By drops, and by as much as goes in.
    for (size, pause) in [(1, 100), (1 << 16, 0)] {
        let mut scene = Scene::start().await;
        scene.log_in().await;
        told_the_end(&mut scene).await;
        tokio::time::pause();
        let before = tokio::time::Instant::now();
        let mut sent = 0;
        while scene.client.write_all(&vec![b'x'; size]).await.is_ok() {
            sent += size;
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            let took = before.elapsed();
            assert!(sent < 80 << 20 && took < Duration::from_secs(3), "{sent}");
        }
        scene.task.await.unwrap();
        let most = if pause == 0 { 60 << 20 } else { 15 };
        assert!(sent > most, "{sent}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_journal_that_fails_ends_the_session_with_nothing_sent() {
    let mut scene = Scene::start().await;
    scene.log_in().await;
    scene.ledger.fail();
    scene.client.write_all(&frame(b'Q', b"ok")).await.unwrap();
    let mut rest = Vec::new();
    timeout(SOON, scene.target.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty());
}

#[test]
fn a_subscription_cannot_let_a_judged_kind_pass() {
    let filter = Filter {
        kinds: vec![b'Q'],
        delivery: Delivery::Pass,
        judged: true,
        max_frame: 0,
    };
    let subscribe = |side, filter: &Filter| holdpoint_core::plugin::Subscribe {
        side,
        filters: vec![filter.clone()],
        otherwise: Delivery::Reject,
    };
    assert!(super::actions::check_subscription(&subscribe(Side::Client, &filter)).is_err());
    let filter = Filter {
        delivery: Delivery::Whole,
        ..filter
    };
    assert!(super::actions::check_subscription(&subscribe(Side::Client, &filter)).is_ok());
    assert!(super::actions::check_subscription(&subscribe(Side::Upstream, &filter)).is_err());
}

/// Of thousands of sessions most only wait, and each has all of this the whole time.
#[test]
fn what_each_session_has_stays_small() {
    let own = size_of::<super::Session>();
    assert!(own <= 2_304, "a session has {own} bytes");
}
