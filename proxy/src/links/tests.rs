//! Accounts, their people, and how long that is so.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::approvals::testing::principal;

const HOUR: Duration = Duration::from_secs(3_600);

fn dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("holdpoint-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn open(dir: &Path) -> Links {
    Links::open(dir, [("slack:ops".to_owned(), HOUR)]).unwrap()
}

fn account(user: &str) -> Account {
    Account {
        channel: "slack:ops".to_owned(),
        team: "T1".to_owned(),
        user: user.to_owned(),
    }
}

#[test]
fn a_link_lasts_its_time_and_over_a_restart() {
    let dir = dir("links");
    let links = open(&dir);
    assert!(links.who(&account("U1"), 100).is_none());
    assert_eq!(
        links.link(&account("U1"), principal("rita"), 100).unwrap(),
        3_700
    );
    let links = open(&dir);
    let who = links.who(&account("U1"), 3_699).unwrap();
    assert_eq!(who.identity.subject, "rita");
    assert!(links.who(&account("U1"), 3_700).is_none());
    assert!(links.who(&account("U2"), 100).is_none());
    let other = Account {
        channel: "slack:dev".to_owned(),
        ..account("U1")
    };
    assert!(links.who(&other, 100).is_none());
    assert!(matches!(
        links.link(&other, principal("rita"), 1),
        Err(LinkError::Channel)
    ));
}

#[test]
fn linking_another_account_ends_the_first() {
    let links = open(&dir("links-two"));
    links.link(&account("U1"), principal("rita"), 100).unwrap();
    links.link(&account("U2"), principal("rita"), 101).unwrap();
    assert!(links.who(&account("U1"), 102).is_none());
    assert!(links.who(&account("U2"), 102).is_some());
}

#[test]
fn an_invitation_is_ours_whole_and_in_time() {
    let links = open(&dir("invitations"));
    let token = links.invite(account("U1"), "rita", 100).unwrap();
    assert_eq!(links.invited(&token, 699).unwrap().account, account("U1"));
    assert!(links.invited(&token, 700).is_none());
    let forged = token.replace("5531", "5532");
    assert!(forged != token && links.invited(&forged, 101).is_none());
    assert!(links.invited(&token[..60], 101).is_none());
    assert!(links.invited("", 101).is_none());
    assert!(open(&dir("invitations-2")).invited(&token, 101).is_none());
}

#[test]
fn a_file_that_others_can_write_is_not_believed() {
    let dir = dir("links-open");
    open(&dir)
        .link(&account("U1"), principal("rita"), 1)
        .unwrap();
    let path = dir.join(FILE);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
    assert!(matches!(
        Links::open(&dir, []),
        Err(LinkError::File(StateFileError::Unsafe(_)))
    ));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "[{}]").unwrap();
    assert!(matches!(
        Links::open(&dir, []),
        Err(LinkError::File(StateFileError::Content { .. }))
    ));
}

#[test]
fn a_link_of_another_node_counts_here_and_the_latest_of_a_person_is_the_one() {
    let (here, there) = (dir("links-here"), dir("links-there"));
    let (a, b) = (open(&here), open(&there));
    a.link(&account("U1"), principal("rita"), 100).unwrap();
    b.take_up("a", 10, a.list()).unwrap();
    assert_eq!(b.who(&account("U1"), 200).unwrap().identity.subject, "rita");
    assert!(b.who(&account("U1"), 3_700).is_none(), "in its time");
    // Another account of the same person ends the first, at whichever node.
    b.link(&account("U2"), principal("rita"), 300).unwrap();
    assert!(b.who(&account("U1"), 400).is_none());
    assert!(b.who(&account("U2"), 400).is_some());
    a.take_up("b", 7, b.list()).unwrap();
    assert!(a.who(&account("U1"), 400).is_none());
    // The account of somebody else now, as was said last.
    a.link(&account("U2"), principal("sam"), 500).unwrap();
    b.take_up("a", 11, a.list()).unwrap();
    for links in [&a, &b] {
        let who = links.who(&account("U2"), 600).unwrap();
        assert_eq!(who.identity.subject, "sam");
    }
    // An old list that somebody puts back is none, over a restart too.
    b.take_up("a", 12, Vec::new()).unwrap();
    let b = open(&there);
    b.take_up("a", 11, a.list()).unwrap();
    assert_eq!(b.who(&account("U2"), 600).unwrap().identity.subject, "rita");
}
