//! What every channel keeps, whatever vendor is behind it.

use std::sync::Arc;
use std::time::Duration;

use holdpoint_core::approval::{Draft, Verdict};
use holdpoint_core::display::{escape, unescape};
use holdpoint_core::record::Entry;

use super::testing::{KINDS, Kind, Trouble, Vendor, channel as at};
use super::{Channel, Log, Message, Notice, Queue};
use crate::approvals::testing::{Hands, MemoryLedger, config, draft, identity, vote};
use crate::approvals::{Approvals, GlassView, IdentityView, View, Waiter};

struct Desk {
    kind: Kind,
    vendor: Vendor,
    approvals: Approvals,
    ledger: Arc<MemoryLedger>,
    hands: Hands,
    log: Arc<Log>,
    queue: Queue,
}

impl Desk {
    async fn start(kind: Kind) -> Self {
        let (vendor, channel) = Vendor::start(kind).await;
        Self::with(kind, vendor, channel)
    }

    fn with(kind: Kind, vendor: Vendor, channel: Channel) -> Self {
        let (ledger, hands) = (Arc::new(MemoryLedger::default()), Hands::default());
        let (queue, inbox) = super::channel();
        let log = queue.log();
        let approvals =
            Approvals::new(config(), ledger.clone(), hands.clock(), Some(queue.clone()));
        let public = Some("https://gw.example/".to_owned());
        super::spawn(inbox, vec![channel], public, approvals.clone()).unwrap();
        Self {
            kind,
            vendor,
            approvals,
            ledger,
            hands,
            log,
            queue,
        }
    }

    async fn hold(&self, draft: &Draft) -> Option<Waiter> {
        self.approvals.open(draft.clone(), self.hands.now()).await.1
    }

    /// Waits for that many messages, and gives them.
    async fn came(&self, count: usize) -> Vec<super::testing::Came> {
        self.until(&format!("{count} messages"), || {
            self.vendor.came().len() >= count
        })
        .await;
        let came = self.vendor.came();
        assert_eq!(came.len(), count, "{:?}: {came:#?}", self.kind);
        came
    }

    async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..600 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "{:?}: no {what} within 6 s: {:?}",
            self.kind,
            self.log.read()
        );
    }

    fn notified(&self) -> Vec<bool> {
        let accepted = |entry| match entry {
            Entry::Notified { accepted, .. } => Some(accepted),
            _ => None,
        };
        self.ledger.all().into_iter().filter_map(accepted).collect()
    }
}

#[tokio::test]
async fn however_it_ends_is_told_where_it_was_told_that_it_waits() {
    for kind in KINDS {
        for end in [
            "approved",
            "denied",
            "expired",
            "withdrawn",
            "revoked",
            "orphaned",
        ] {
            let desk = Desk::start(kind).await;
            let draft = draft("agent", "DROP TABLE t", 1);
            let mut waiter = desk.hold(&draft).await;
            let first = desk.came(1).await.remove(0);
            assert!(first.asks && first.id.contains("msg_"), "{first:?}");
            let page = format!("https://gw.example/console/approvals/{}", draft.id);
            assert_eq!(first.link, page, "{kind:?}");
            assert_eq!(first.may_approve, kind == Kind::Slack);
            match end {
                "approved" => {
                    let vote = vote(&draft, "rita", Verdict::Approve);
                    desk.approvals.vote(vote, desk.hands.now()).await.unwrap();
                }
                "denied" => {
                    let vote = vote(&draft, "rita", Verdict::Deny);
                    desk.approvals.vote(vote, desk.hands.now()).await.unwrap();
                }
                "expired" => {
                    desk.hands.pass(Duration::from_secs(61));
                    desk.approvals.sweep().await;
                }
                "withdrawn" => drop(waiter.take()),
                "revoked" => {
                    let ended = desk.approvals.revoke_principal(&identity("agent")).await;
                    assert_eq!(ended, 1);
                }
                _ => desk.approvals.orphan_all().await,
            }
            let came = desk.came(2).await;
            let second = &came[1];
            assert!(!second.asks, "{kind:?} {end}: {second:?}");
            assert_eq!(second.thread, first.thread, "{kind:?} {end}");
            assert_ne!(second.id, first.id, "{kind:?}");
            if kind != Kind::PagerDuty {
                let said = second.headline.to_lowercase();
                let word = if end == "orphaned" && kind != Kind::Webhook {
                    "over"
                } else {
                    end
                };
                assert!(said.contains(word), "{kind:?} {end}: {said}");
            }
            desk.until("record of both", || desk.notified() == [true, true])
                .await;
            drop(waiter);
        }
    }
}

#[tokio::test]
async fn what_failed_is_sent_again_unchanged_and_what_follows_waits_for_it() {
    for kind in KINDS {
        let desk = Desk::start(kind).await;
        desk.vendor.trouble(&[Trouble::Busy]);
        let draft = draft("agent", "DROP TABLE t", 1);
        let _waiter = desk.hold(&draft).await;
        let first = desk.came(1).await.remove(0);
        desk.until("record", || desk.notified() == [true]).await;
        let deliveries = desk.approvals.get(&draft.id).unwrap().deliveries.clone();
        assert_eq!(deliveries[0].attempts, 2, "{kind:?}");
        // The end meets trouble, too.
        desk.vendor.trouble(&[Trouble::Busy]);
        let vote = vote(&draft, "rita", Verdict::Approve);
        desk.approvals.vote(vote, desk.hands.now()).await.unwrap();
        let came = desk.came(2).await;
        assert_eq!(came[1].thread, first.thread, "{kind:?}");
        desk.until("count of both", || desk.log.totals() == (2, 0))
            .await;
    }
}

#[tokio::test]
async fn what_is_refused_is_given_up_listed_and_not_updated() {
    for kind in KINDS {
        let desk = Desk::start(kind).await;
        desk.vendor.trouble(&[Trouble::Refuses]);
        let draft = draft("agent", "DROP TABLE t", 1);
        let _waiter = desk.hold(&draft).await;
        desk.until("given up", || desk.log.totals() == (0, 1)).await;
        let (channels, undelivered) = desk.log.read();
        assert_eq!(channels[0].undelivered, 1);
        assert_eq!(undelivered[0].approval, draft.id.to_string());
        assert_eq!(
            (undelivered[0].attempts, undelivered[0].message.as_str()),
            (1, "approval.pending")
        );
        let said = &undelivered[0].error;
        assert!(!said.contains("hunter2"), "{kind:?}: {said}");
        desk.until("record", || desk.notified() == [false]).await;
        let vote = vote(&draft, "rita", Verdict::Approve);
        desk.approvals.vote(vote, desk.hands.now()).await.unwrap();
        if kind == Kind::Webhook {
            desk.came(1).await;
        } else {
            desk.until("nothing under way", || desk.log.read().0[0].under_way == 0)
                .await;
            assert!(desk.vendor.came().is_empty(), "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_gone_costs_a_message_and_tells_no_secret() {
    for kind in KINDS {
        let (vendor, _) = Vendor::start(kind).await;
        // Nobody listens on port 1.
        let desk = Desk::with(kind, vendor, at(kind, 1));
        let draft = draft("agent", "DROP TABLE t", 1);
        let waiter = desk.hold(&draft).await;
        let tried = || {
            let view = desk.approvals.get(&draft.id).unwrap();
            view.deliveries.first().is_some_and(|one| !one.accepted)
        };
        desk.until("attempt", tried).await;
        let deliveries = desk.approvals.get(&draft.id).unwrap().deliveries.clone();
        let said = deliveries[0].error.clone().unwrap();
        assert!(!said.contains("hunter2"), "{kind:?}: {said}");
        // Nobody needs it any more.
        drop(waiter);
        desk.until("given up", || desk.log.totals().1 >= 1).await;
        let (_, undelivered) = desk.log.read();
        let pending = undelivered
            .iter()
            .find(|one| one.message == "approval.pending");
        assert!(
            pending.unwrap().error.contains("decided before"),
            "{undelivered:?}"
        );
    }
}

/// Bytes that an agent might choose to fool whoever reads a message.
fn hostile() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 27] = [
        b"DROP TABLE t",
        "SELECT '\u{202e}esrever\u{202c}'".as_bytes(),
        "a\u{200b}b\u{200d}c\u{feff}d\u{2060}".as_bytes(),
        "tags \u{e0041}\u{e0042} vs \u{fe0f}".as_bytes(),
        "z\u{300}\u{301}\u{302}algo".as_bytes(),
        "lines\u{2028}and\u{2029}paragraphs\u{85}next".as_bytes(),
        b"\x1b[2J\x1b]0;title\x07\x1b]8;;https://evil.example\x07link\x1b]8;;\x07",
        b"back\x08\x08\x08space and \x7f",
        b"nul \0 and \xff\xfe invalid \xc0\xaf",
        b"<b>bold</b><script>alert(1)</script><img src=x onerror=alert(1)>",
        b"</pre></body><a href=\"https://evil.example\">Review</a>",
        b"<!channel> <!here> <@U012AB3CD> <#C0123456789> <!subteam^S1>",
        b"<https://evil.example|Approve>",
        b"```\n*not code*\n``` `x` *b* _i_ ~s~ :smile: > quote",
        b"[Review](https://evil.example) **bold** # head\n- item\n1. item",
        b"{{DATE(2017-02-14T06:08:39Z, SHORT)}} {{{{TIME(1)}} ${name} @{body()}",
        b"&amp; &lt; &gt; &#60; &amp;amp; & < >",
        b"\"}]}},{\"type\":\"button\"}",
        b"x\r\n.\r\nMAIL FROM:<evil@evil.example>\r\nRCPT TO:<all@acme.example>\r\nDATA\r\n",
        b".\n.\n..\nBcc: evil@evil.example\n\nbody",
        b"| looks like\nTarget: another\n| a quoted line\n--msg_0000\nContent-Type: text/html\n",
        b"\n\n  leading and trailing  \n\n",
        b" ",
        b"\t\ttabs\t",
        b"\\u{202e} \\x41 \\\\ \\n \\",
        b"=3D=0A= soft \nFrom here on\n=\n",
        "Ünïcode, 日本語, Русский, עברית, \u{1f600}".as_bytes(),
    ];
    let mut all: Vec<_> = texts.iter().map(|text| text.to_vec()).collect();
    let mut hidden = b"SELECT 1".to_vec();
    hidden.extend(vec![b'\n'; 5_000]);
    hidden.extend(b"; DROP TABLE t");
    all.push(hidden);
    all.push(vec![b' '; 2_999]);
    all.push(vec![b'x'; 3_000]);
    all.push(vec![b'x'; 3_001]);
    all.push("é".repeat(1_501).into_bytes());
    all.push("<".repeat(1 << 20).into_bytes());
    all.push(vec![0; 1 << 18]);
    all
}

#[tokio::test]
async fn a_hostile_text_is_shown_so_that_it_can_be_read_back_or_not_at_all() {
    for kind in KINDS {
        for (nth, text) in hostile().into_iter().enumerate() {
            let desk = Desk::start(kind).await;
            let draft = draft("agent", &escape(&text), 1);
            let waiter = desk.hold(&draft).await;
            let came = desk.came(1).await.remove(0);
            if kind == Kind::Webhook || text.len() < 500 {
                assert!(!came.shown.is_empty(), "{kind:?} {nth} is not shown");
            }
            for shown in &came.shown {
                let back = unescape(shown);
                assert_eq!(back.as_deref(), Some(text.as_slice()), "{kind:?} {nth}");
            }
            assert!(
                !came.may_approve || !came.shown.is_empty(),
                "{kind:?} {nth}"
            );
            let raw = String::from_utf8(came.raw).unwrap();
            let hidden = |c: char| {
                c != '\n' && escape(c.to_string().as_bytes()) != c.to_string() && c != '\\'
            };
            let found: String = raw.chars().filter(|c| hidden(*c)).collect();
            assert_eq!(found, "", "{kind:?} {nth}");
            drop(waiter);
        }
    }
}

#[tokio::test]
async fn only_a_command_that_is_whole_in_a_message_can_be_approved_in_it() {
    for (text, may) in [
        ("x".repeat(3_000), true),
        ("x".repeat(3_001), false),
        ("&amp;".repeat(500), false),
        ("&amp;".repeat(200), true),
    ] {
        let desk = Desk::start(Kind::Slack).await;
        let draft = draft("agent", &text, 1);
        let _waiter = desk.hold(&draft).await;
        assert_eq!(desk.came(1).await[0].may_approve, may, "{}", text.len());
    }
    // Neither with a value that has no room, nor with facts that have none.
    for long in ["value", "object", "label"] {
        let desk = Desk::start(Kind::Slack).await;
        let mut draft = draft("agent", "DELETE FROM t WHERE a = $1", 1);
        let more = "y".repeat(3_001);
        match long {
            "value" => draft.shown.parameters.push(format!("$1 = '{more}'")),
            "object" => draft.shown.objects.push(more),
            _ => std::sync::Arc::make_mut(&mut draft.principal).label = more,
        }
        let _waiter = desk.hold(&draft).await;
        assert!(!desk.came(1).await[0].may_approve, "{long}");
    }
}

#[tokio::test]
async fn what_takes_a_sign_in_or_a_key_cannot_be_approved_in_a_message() {
    for kind in KINDS {
        for takes in ["a sign-in of the last 5m", "your security key"] {
            let desk = Desk::start(kind).await;
            let mut draft = draft("agent", "DROP TABLE t", 1);
            match takes {
                "your security key" => draft.hold.webauthn = true,
                _ => draft.hold.step_up = Some(Duration::from_secs(300)),
            }
            let _waiter = desk.hold(&draft).await;
            let came = desk.came(1).await;
            assert!(!came[0].may_approve, "{kind:?}");
            if kind == Kind::Slack {
                let whole = String::from_utf8_lossy(&came[0].raw);
                assert!(whole.contains(takes), "{whole}");
            }
        }
    }
}

#[tokio::test]
async fn names_that_people_chose_cannot_pass_for_anything_else() {
    for kind in KINDS {
        let desk = Desk::start(kind).await;
        let mut draft = draft("agent", "DROP TABLE t", 1);
        let bad = "eve\r\nBcc: evil@evil.example\r\n\r\n<!channel> \u{202e}<b>{{DATE(1)}}";
        std::sync::Arc::make_mut(&mut draft.principal).label = bad.to_owned();
        // Programs get these as they are.
        if kind != Kind::Webhook {
            draft.hold.reason = Some(bad.to_owned());
            draft.shown.class = bad.to_owned();
        }
        let _waiter = desk.hold(&draft).await;
        let vote = vote(&draft, "rita", Verdict::Deny);
        desk.came(1).await;
        desk.approvals.vote(vote, desk.hands.now()).await.unwrap();
        for came in desk.came(2).await {
            let raw = String::from_utf8(came.raw).unwrap();
            assert!(!raw.contains('\u{202e}'), "{kind:?}");
        }
    }
}

/// What comes between the beginning and the end, by the one who opened an approval.
#[tokio::test]
async fn further_people_are_asked_and_an_alarm_is_no_end() {
    for kind in KINDS {
        let (vendor, channel) = Vendor::start(kind).await;
        let desk = Desk::with(kind, vendor, channel);
        let draft = draft("agent", "DROP TABLE t", 1);
        let _waiter = desk.hold(&draft).await;
        let first = desk.came(1).await.remove(0);
        let tell = |message: Message| {
            desk.queue.tell(Notice {
                message,
                approval: draft.id.clone(),
                session: draft.session.clone(),
                about: desk.approvals.get(&draft.id).unwrap().into(),
            });
        };
        tell(Message::Escalated);
        // Slack's first message is brought up to date on the way.
        let count = if kind == Kind::Slack { 3 } else { 2 };
        let second = desk.came(count).await.remove(count - 1);
        assert!(second.asks, "{kind:?}: {second:?}");
        assert_eq!(second.thread, first.thread, "{kind:?}");
        let mut view = View::clone(&desk.approvals.get(&draft.id).unwrap());
        view.glass = Some(GlassView {
            by: IdentityView {
                issuer: "https://issuer.example".to_owned(),
                subject: "00uS".to_owned(),
            },
            label: "sam".to_owned(),
            reason: "checkout is down".to_owned(),
            at: "2026-01-01T00:00:00Z".to_owned(),
            reviewed_by: None,
        });
        desk.queue.tell(Notice {
            message: Message::BrokenGlass,
            approval: draft.id.clone(),
            session: draft.session.clone(),
            about: Arc::new(view).into(),
        });
        let alarm = desk.came(count + 1).await.remove(count);
        let whole = String::from_utf8_lossy(&alarm.raw);
        assert!(
            whole.contains("checkout is down") && whole.contains("sam"),
            "{kind:?}: who and why: {whole}"
        );
        let said = alarm.headline.to_lowercase();
        assert!(
            kind == Kind::Webhook || said.contains("alarm"),
            "{kind:?}: {said}"
        );
        assert!(!alarm.may_approve);
        if kind == Kind::PagerDuty {
            // It neither ends nor hides in the incident that asked.
            assert!(alarm.asks && alarm.thread != first.thread);
        }
        tell(Message::Reviewed);
        let reviewed = desk.came(count + 2).await.remove(count + 1);
        if kind == Kind::PagerDuty {
            assert_eq!((reviewed.asks, &reviewed.thread), (false, &alarm.thread));
        }
        let vote = vote(&draft, "rita", Verdict::Deny);
        desk.approvals.vote(vote, desk.hands.now()).await.unwrap();
        let last = desk.came(count + 3).await.remove(count + 2);
        assert_eq!(
            (last.asks, &last.thread),
            (false, &first.thread),
            "{kind:?}"
        );
        desk.until("count of all", || desk.log.totals() == (5, 0))
            .await;
    }
}

#[tokio::test]
async fn that_the_client_left_and_came_back_is_told_where_it_was_told_that_it_waits() {
    for kind in KINDS {
        let desk = Desk::start(kind).await;
        let held = draft("agent", "DROP TABLE t", 1);
        let _waiter = desk.hold(&held).await;
        let first = desk.came(1).await.remove(0);
        (desk.approvals).leave(&held.id, &held.session, true).await;
        let left = desk.came(2).await.remove(1);
        assert!(left.asks, "{kind:?}: it is still to be decided: {left:?}");
        assert_eq!(left.thread, first.thread, "{kind:?}");
        let whole = String::from_utf8_lossy(&left.raw).into_owned();
        assert!(
            whole.contains("approval.left") || whole.contains("left"),
            "{kind:?}: {whole}"
        );
        let vote = vote(&held, "rita", Verdict::Approve);
        desk.approvals.vote(vote, desk.hands.now()).await.unwrap();
        desk.came(3).await;
        // The same command in another session, later.
        let back = draft("agent", "DROP TABLE t", 2);
        let claimed = desk.approvals.claim(
            &held.id,
            &held.digest,
            &back.session,
            back.command,
            desk.hands.now(),
        );
        claimed.await.unwrap();
        // An incident is over once it is decided, and needs no second end.
        let count = if kind == Kind::PagerDuty { 3 } else { 4 };
        let last = desk.came(count).await.remove(count - 1);
        assert!(!last.asks && !last.may_approve, "{kind:?}: {last:?}");
        assert_eq!(last.thread, first.thread, "{kind:?}");
        if kind != Kind::PagerDuty {
            let said = last.headline.to_lowercase();
            let word = if kind == Kind::Webhook {
                "used"
            } else {
                "came back"
            };
            assert!(said.contains(word), "{kind:?}: {said}");
        }
        desk.until("record of all", || desk.notified() == vec![true; count])
            .await;
    }
}

#[tokio::test]
async fn a_use_that_follows_at_once_is_news_to_programs_and_no_second_message_to_people() {
    for kind in KINDS {
        let desk = Desk::start(kind).await;
        let held = draft("agent", "DROP TABLE t", 1);
        let _waiter = desk.hold(&held).await;
        desk.came(1).await;
        let vote = vote(&held, "rita", Verdict::Approve);
        desk.approvals.vote(vote, desk.hands.now()).await.unwrap();
        desk.came(2).await;
        let claimed = desk.approvals.claim(
            &held.id,
            &held.digest,
            &held.session,
            held.command,
            desk.hands.now(),
        );
        claimed.await.unwrap();
        // Programs, and messages that are brought up to date.
        let told = matches!(kind, Kind::Webhook | Kind::Slack);
        let count = 2 + usize::from(told);
        desk.until("nothing under way", || {
            desk.vendor.came().len() >= count && desk.log.read().0[0].under_way == 0
        })
        .await;
        assert_eq!(desk.vendor.came().len(), count, "{kind:?}");
    }
}

#[tokio::test]
async fn where_the_decision_did_not_arrive_its_use_ends_what_was_opened() {
    for kind in KINDS {
        let desk = Desk::start(kind).await;
        let held = draft("agent", "DROP TABLE t", 1);
        let _waiter = desk.hold(&held).await;
        let first = desk.came(1).await.remove(0);
        desk.vendor.trouble(&[Trouble::Refuses]);
        let vote = vote(&held, "rita", Verdict::Approve);
        desk.approvals.vote(vote, desk.hands.now()).await.unwrap();
        desk.until("given up", || desk.log.totals() == (1, 1)).await;
        let claimed = desk.approvals.claim(
            &held.id,
            &held.digest,
            &held.session,
            held.command,
            desk.hands.now(),
        );
        claimed.await.unwrap();
        let last = desk.came(2).await.remove(1);
        assert_eq!(
            (last.asks, &last.thread),
            (false, &first.thread),
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn nobody_hears_how_it_went_on_who_was_not_told_that_it_waits() {
    for kind in KINDS {
        let desk = Desk::start(kind).await;
        desk.vendor.trouble(&[Trouble::Refuses]);
        let held = draft("agent", "DROP TABLE t", 1);
        let _waiter = desk.hold(&held).await;
        desk.until("given up", || desk.log.totals() == (0, 1)).await;
        (desk.approvals).leave(&held.id, &held.session, true).await;
        let vote = vote(&held, "rita", Verdict::Approve);
        desk.approvals.vote(vote, desk.hands.now()).await.unwrap();
        let claimed = desk.approvals.claim(
            &held.id,
            &held.digest,
            &held.session,
            held.command,
            desk.hands.now(),
        );
        claimed.await.unwrap();
        let count = if kind == Kind::Webhook { 3 } else { 0 };
        desk.until("nothing under way", || {
            desk.vendor.came().len() >= count && desk.log.read().0[0].under_way == 0
        })
        .await;
        assert_eq!(desk.vendor.came().len(), count, "{kind:?}");
    }
}

#[tokio::test]
async fn a_channel_that_is_down_keeps_no_other_waiting() {
    let (vendor, good) = Vendor::start(Kind::Teams).await;
    let (ledger, hands) = (Arc::new(MemoryLedger::default()), Hands::default());
    let (queue, inbox) = super::channel();
    let log = queue.log();
    let approvals = Approvals::new(config(), ledger, hands.clock(), Some(queue));
    super::spawn(
        inbox,
        vec![at(Kind::PagerDuty, 1), good],
        Some("https://gw.example".to_owned()),
        approvals.clone(),
    )
    .unwrap();
    let mut waiters = Vec::new();
    for n in 1..=3 {
        let draft = draft("agent", &format!("DROP TABLE t{n}"), n);
        waiters.push(approvals.open(draft, hands.now()).await);
    }
    for _ in 0..100 {
        if vendor.came().len() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(vendor.came().len(), 3);
    assert_eq!(log.totals().1, 0);
}
